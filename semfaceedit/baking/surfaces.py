"""The surfaces of a checkpoint as heights over the frontal plane, shared by all of its faces.

The manifold predictor gives every face of a checkpoint the same iso-surfaces. Seen from the front
each one is a height z(x, y); together with the background plane these are the layers that a face is
baked onto. They are found once, and kept beside the weights or in the cache.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from ..kernels import FieldWeights, ray_isosurface
from ..model.generator import Generator
from ..model.manifolds import PREDICTOR_SCALE
from ..model.mean_face import cache_files
from ..model.rays import camera_rays
from ..tensor_files import read_kept, write_tensors

YAW_LIMIT, PITCH_LIMIT = 0.7, 0.4  # radians: what is seen from poses within is baked
GRID = 160  # vertices along each edge of a surface's mesh
TOP, BOTTOM = 0.3, -0.3  # world z between which heights are looked for
HEIGHT_SAMPLES = 256  # along a vertical ray
SEEN_GRID, SEEN_RESOLUTION = 64, 48  # cells of the mask of what is seen, and rays that fill it
VERSION = "1"

_surfaces: WeakKeyDictionary[Generator, "Surfaces"] = WeakKeyDictionary()


@dataclass(frozen=True)
class Box:
    """A rectangle of the frontal plane, in world units."""

    left: float
    right: float
    bottom: float
    top: float

    def to_unit(self, xy: Tensor) -> Tensor:
        """World (..., 2) -> (..., 2) in [0, 1], from left to right and from top to bottom."""
        low = xy.new_tensor([self.left, self.top])
        return (xy - low) / xy.new_tensor([self.right - self.left, self.bottom - self.top])

    def centres(self, width: int, height: int) -> Tensor:
        """World x, y of the centres of width x height cells, (height, width, 2), top row first."""
        x = self.left + (torch.arange(width) + 0.5) * ((self.right - self.left) / width)
        y = self.top + (torch.arange(height) + 0.5) * ((self.bottom - self.top) / height)
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)

    def nodes(self, count: int) -> Tensor:
        """World x, y of count x count nodes, the outermost on the border, (count, count, 2)."""
        x = torch.linspace(self.left, self.right, count)
        y = torch.linspace(self.top, self.bottom, count)
        return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)


@dataclass(frozen=True)
class Surfaces:
    """K layers: K - 1 iso-surfaces, the outermost first, and the background plane."""

    heights: Tensor  # (K - 1, GRID, GRID) world z at the nodes of `box`, top row first
    seen: Tensor  # (K, SEEN_GRID, SEEN_GRID) bool: cells that some pose within the limits shows
    box: Box  # of the iso-surfaces
    plane_box: Box
    plane_z: float

    @property
    def layers(self) -> int:
        return len(self.seen)

    def box_of(self, layer: int) -> Box:
        return self.plane_box if layer == self.layers - 1 else self.box

    @cached_property
    def _height_maps(self) -> Tensor:
        return self.heights[:, None]

    def height_at(self, layer: int, xy: Tensor) -> Tensor:
        """World z of a layer at world (..., 2), bilinear between vertices."""
        if layer == self.layers - 1:
            return torch.full_like(xy[..., 0], self.plane_z)
        where = 2 * self.box.to_unit(xy.reshape(1, -1, 1, 2)) - 1
        found = nn.functional.grid_sample(
            self._height_maps[layer : layer + 1], where, padding_mode="border", align_corners=True
        )
        return found.reshape(xy.shape[:-1])

    def points(self, layer: int, width: int, height: int) -> Tensor:
        """World points of the centres of a layer's texels, (height, width, 3)."""
        xy = self.box_of(layer).centres(width, height)
        return torch.cat([xy, self.height_at(layer, xy)[..., None]], -1)

    def seen_texels(self, layer: int, width: int, height: int) -> Tensor:
        """(height, width) bool: texels that some pose within the limits shows."""
        mask = self.seen[layer][None, None].float()
        return nn.functional.interpolate(mask, (height, width), mode="nearest")[0, 0] > 0


def surfaces_of(generator: Generator) -> Surfaces:
    """The surfaces of a checkpoint, on the CPU; found once for each, in memory and on the disk."""
    if generator not in _surfaces:
        _surfaces[generator] = _read(generator) or _found(generator)
    return _surfaces[generator]


@torch.no_grad()
def find_surfaces(generator: Generator) -> Surfaces:
    """Heights on a grid over all that is seen from poses within the limits."""
    generator.manifolds.eval()
    *levels, plane = _places(generator)
    box, plane_box = _around(torch.cat(levels)), _around(plane)
    seen = torch.stack(
        [_cells(part, plane_box if part is plane else box) for part in (*levels, plane)]
    )
    heights = _heights(generator, box.nodes(GRID).reshape(-1, 2))
    return Surfaces(heights.reshape(-1, GRID, GRID), seen, box, plane_box, generator.config.plane_z)


def _places(generator: Generator) -> list[Tensor]:
    """World x, y of what poses within the limits show of each layer, the plane last."""
    config, device = generator.config, generator.device
    yaws = torch.linspace(-YAW_LIMIT, YAW_LIMIT, 9)
    pitches = torch.linspace(-PITCH_LIMIT, PITCH_LIMIT, 5)
    found: list[list[Tensor]] = [[] for _ in range(config.manifolds)]
    for yaw in yaws:
        pose = torch.stack([yaw.expand(5), pitches], 1).to(device)
        met = generator.manifolds(camera_rays(pose, SEEN_RESOLUTION, config.camera))
        plane = met.depths.gather(1, met.plane_index[:, None])
        shown = met.valid & (met.depths <= plane)
        for layer in range(config.manifolds):
            found[layer].append(met.points[shown & (met.level == layer)][:, :2].cpu())
    return [torch.cat(parts) for parts in found]


def _around(xy: Tensor) -> Box:
    """The box of points (M, 2), with a margin of three cells."""
    low, high = xy.amin(0), xy.amax(0)
    margin = 3 * (high - low) / SEEN_GRID
    (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
    return Box(left, right, bottom, top)


def _cells(xy: Tensor, box: Box) -> Tensor:
    """(SEEN_GRID, SEEN_GRID) bool: the cells that points (M, 2) are in, and those around."""
    column, row = (box.to_unit(xy) * SEEN_GRID).long().clamp(0, SEEN_GRID - 1).unbind(1)
    mask = torch.zeros(SEEN_GRID, SEEN_GRID)
    mask[row, column] = 1
    return nn.functional.max_pool2d(mask[None], 5, stride=1, padding=2)[0] > 0


def _heights(generator: Generator, xy: Tensor) -> Tensor:
    """Heights (K - 1, M) of the iso-surfaces at world x, y (M, 2); BOTTOM where there is none."""
    predictor, config = generator.manifolds, generator.config
    like = predictor.last_weight
    origins = nn.functional.pad(xy, (0, 1), value=1.0).to(like)
    met = ray_isosurface(
        origins,
        origins.new_tensor([0.0, 0.0, -1.0]).expand_as(origins).contiguous(),
        predictor.levels,
        FieldWeights(
            predictor.first_weight, predictor.first_bias, predictor.hidden_weight,
            predictor.hidden_bias, predictor.last_weight, predictor.last_bias,
        ),
        centre=config.predictor_centre,
        scale=PREDICTOR_SCALE,
        near=1.0 - TOP,
        far=1.0 - BOTTOM,
        samples=HEIGHT_SAMPLES,
        plane_z=2 * BOTTOM,
    )  # fmt: skip
    z = torch.where(met.valid, 1.0 - met.depths, BOTTOM)
    by_level = torch.empty_like(z).scatter(1, met.level, z)[:, :-1]
    return by_level.T.float().cpu()


def _read(generator: Generator) -> Surfaces | None:
    for path in cache_files(generator, "surfaces"):
        kept = read_kept(path)
        if kept is None or kept[0] | _HEADER != kept[0]:
            continue
        tensors, boxes = kept[1], kept[1]["boxes"].tolist()
        return Surfaces(
            tensors["heights"], tensors["seen"], Box(*boxes[0]), Box(*boxes[1]),
            float(tensors["plane_z"]),
        )  # fmt: skip
    return None


def _found(generator: Generator) -> Surfaces:
    found = find_surfaces(generator)
    boxes = [[b.left, b.right, b.bottom, b.top] for b in (found.box, found.plane_box)]
    tensors = {
        "heights": found.heights, "seen": found.seen,
        "boxes": torch.tensor(boxes, dtype=torch.float64),
        "plane_z": torch.tensor(found.plane_z, dtype=torch.float64),
    }  # fmt: skip
    for path in cache_files(generator, "surfaces"):
        if _kept(path, tensors):
            break
    return found


def _kept(path: Path, tensors: dict[str, Tensor]) -> bool:
    try:
        write_tensors(path, tensors, _HEADER)
    except (OSError, SafetensorError):  # a folder that cannot be written costs time only
        return False
    return True


_HEADER = {
    "format": "semfaceedit-surfaces", "version": VERSION,
    "limits": f"{YAW_LIMIT} {PITCH_LIMIT}",
}  # fmt: skip
