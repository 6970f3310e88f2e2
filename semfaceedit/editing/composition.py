"""The photograph at its full size, in strips: what moved, new colours, new shapes over it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from ..data.align import Window
from ..errors import UserError
from .photograph_file import GREY
from .recolour import GroupChange, recoloured, weight_of

LEAST = 1 / 512  # weight, below which a pixel of the photograph is kept as it is
STILL = 0.05  # pixels of the photograph, below which a displacement moves nothing
STRIP = 1 << 20  # pixels worked on at a time


class NothingChanged(UserError):
    """An edit changes no pixel of the photograph."""


@dataclass(frozen=True)
class Pasted:
    """A photograph with an edit in it. Outside the region it has the pixels it had."""

    pixels: np.ndarray  # (H, W, 3) uint8 or uint16, as the photograph
    region: np.ndarray  # (H, W) bool: pixels that are not as they were
    soft: tuple[str, ...] = ()  # classes that it shows new, and the model drew without details


def composed(
    pixels: np.ndarray,
    window: Window,
    groups: Sequence[GroupChange | None],
    shape: Tensor | None,
    field: Tensor | None = None,
) -> Pasted:
    """The photograph, drawn along the field, with the change of all groups, and the new shape over
    it. In greys where the photograph has no colours."""
    height, width = pixels.shape[:2]
    grey = not has_colours(pixels)
    result, region = pixels.copy(), np.zeros((height, width), bool)
    maps = [group.maps for group in groups if group is not None]
    reaches = [own[:, 4:5] for own in maps] + ([] if shape is None else [shape[:, :1]])
    reaches += [] if field is None else [field.abs().amax(1, keepdim=True)]
    for rows, columns in _strips(_part_of(window, reaches), width, height):
        photo = shares(pixels[rows, columns])
        grid = _places(window, rows, columns)
        weights = torch.zeros_like(photo[:, :1])
        if field is not None:
            u = _sampled(field, grid)
            weights = (u.abs().amax(1, keepdim=True) * (window.side / 2) > STILL).float()
            if bool(weights.any()):
                photo = torch.where(weights > 0, _drawn(pixels, window, rows, columns, u), photo)
        local = [_sampled(own, grid) for own in maps]
        made = recoloured(photo, local)
        weights = sum((weight_of(photo, own) for own in local), weights)
        if shape is not None:
            over = _sampled(shape, grid)
            made = made + over[:, :1] * (over[:, 1:] - made)
            weights = weights.maximum(over[:, :1])
        if grey:
            made = (made * made.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
            made = made.expand(-1, 3, -1, -1)
        mask = (weights > LEAST)[0, 0].numpy()
        white = np.iinfo(pixels.dtype).max
        values = (made[0].movedim(0, -1) * white).round().clamp(0, white).numpy()
        values = values.astype(pixels.dtype)
        mask &= (values != pixels[rows, columns]).any(-1)  # less than a step changes nothing
        result[rows, columns][mask] = values[mask]
        region[rows, columns] = mask
    if not region.any():
        raise NothingChanged(
            "--paste: no pixel of the photograph changes, since the edit does nothing to this face "
            "or lies outside the photograph: ask for more, or for another edit"
        )
    return Pasted(result, region)


def has_colours(pixels: np.ndarray) -> bool:
    """Whether any pixel of (h, w, 3) is no grey."""
    return bool((pixels[..., :1] != pixels[..., 1:]).any())


def shares(pixels: np.ndarray) -> Tensor:
    """Pixels (h, w, 3), uint8 or uint16, as (1, 3, h, w) in [0, 1]."""
    values = torch.from_numpy(pixels.astype(np.float32)).movedim(-1, 0)[None]
    return values / float(np.iinfo(pixels.dtype).max)


def _drawn(pixels: np.ndarray, window: Window, rows: slice, columns: slice, u: Tensor) -> Tensor:
    """(1, 3, h, w) in [0, 1]: the photograph where displacements u (1, 2, h, w), in half sides of
    the window, lead from these rows and columns."""
    u = u * (window.side / 2)  # pixels
    reach = int(u.abs().max()) + 3  # of a bicubic filter too
    top, left = max(0, rows.start - reach), max(0, columns.start - reach)
    part = pixels[top : rows.stop + reach, left : columns.stop + reach]
    photo = shares(part)
    x = torch.arange(columns.start, columns.stop) + 0.5 - left + u[:, 0]
    y = (torch.arange(rows.start, rows.stop) + 0.5 - top)[:, None] + u[:, 1]
    grid = torch.stack([x * (2 / part.shape[1]) - 1, y * (2 / part.shape[0]) - 1], -1)
    drawn = grid_sample(photo, grid, mode="bicubic", padding_mode="border", align_corners=False)
    return drawn.clamp(0, 1)


def _part_of(window: Window, reaches: Sequence[Tensor]) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of where in a window any of the maps (1, 1, w, w) that span it is
    more than 0, a little wider."""
    edges = [1.0, 1.0, 0.0, 0.0]
    for reach in reaches:
        used, size = reach[0, 0] > 0, reach.shape[-1]
        for axis, line in enumerate((used.any(0), used.any(1))):
            places = line.nonzero()
            if len(places):
                edges[axis] = min(edges[axis], (int(places[0]) - 1) / size)
                edges[axis + 2] = max(edges[axis + 2], (int(places[-1]) + 2) / size)
    inside = [min(1.0, max(0.0, edge)) * window.side for edge in edges]
    starts = [window.left, window.top] * 2
    left, top, right, bottom = (a + b for a, b in zip(starts, inside, strict=True))
    return left, top, right, bottom


def _strips(
    part: tuple[float, float, float, float], width: int, height: int
) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the photograph within a part of it, some rows at a time."""
    left, top = (max(0, int(np.ceil(edge))) for edge in part[:2])
    right, bottom = min(width, int(part[2])), min(height, int(part[3]))
    if right <= left:
        return
    step = max(1, STRIP // (right - left))
    for start in range(top, bottom, step):
        yield slice(start, min(start + step, bottom)), slice(left, right)


def _places(window: Window, rows: slice, columns: slice) -> Tensor:
    """(1, h, w, 2): where these pixels lie in the crop, as `grid_sample` counts."""
    x = (torch.arange(columns.start, columns.stop) + 0.5 - window.left) * (2 / window.side) - 1
    y = (torch.arange(rows.start, rows.stop) + 0.5 - window.top) * (2 / window.side) - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None].float()


def _sampled(maps: Tensor, grid: Tensor) -> Tensor:
    return grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
