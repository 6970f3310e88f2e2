"""A face baked onto the surfaces of its checkpoint: opacity, class scores and colours as textures.

A texel of layer k holds what both modules say of its point: alpha, the scores of the N classes, and
the colour that each of the n groups would give it. Which group colours a point is decided on the
ray that meets it (Eq. 2), by whoever draws the layers; so from every side the labels are those of
the renderer. The view direction is the frontal one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..kernels import Intersections
from ..model.camera import CameraConfig
from ..model.codes import Codes, Film
from ..model.generator import Generator
from ..model.rays import FRONTAL_DIRECTION
from .surfaces import Surfaces, surfaces_of

CHUNK_POINTS = 1 << 16  # evaluated at a time: bounds memory
FAINT = 0.5 / 255  # the least opacity that a byte can tell from none

Watch = Callable[[Sequence[int]], Iterable[int]]  # iterates over chunks, showing progress


@dataclass(frozen=True)
class BakedFace:
    """K layers of H x W texels, bytes of 255 to one; the background plane is the last."""

    surfaces: Surfaces
    alpha: np.ndarray  # (K, H, W) uint8
    scores: np.ndarray  # (K, H / s, W / s, N) uint8, s the `score_step`
    colors: np.ndarray  # (A, n, K, H, W, 3) uint8 in the colours of A looks, the face's own first
    group_of_class: tuple[int, ...]
    group_names: tuple[str, ...]
    camera: CameraConfig
    samples: int  # coarse samples on a ray, as the renderer takes them
    looks: tuple[str, ...] = field(default=("own",))  # names of the A looks

    @property
    def layers(self) -> int:
        return len(self.alpha)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a layer in texels."""
        return self.alpha.shape[2], self.alpha.shape[1]


def every(chunks: Sequence[int]) -> Iterable[int]:
    """A `Watch` that shows nothing."""
    return chunks


@torch.no_grad()
def bake(
    generator: Generator,
    codes: Codes,  # batch 1
    *,
    size: int,
    score_step: int = 2,
    looks: dict[str, Film] | None = None,
    watch: Watch = every,
    shared: Generator | None = None,
) -> BakedFace:
    """Bake a face: layers of size x size texels.

    score_step: class scores have a texel for each s x s of opacity and colour (they are smooth).
    looks: further appearance codes (1, n, L + 1, W) by name, baked as colours beside the face's
    own. shared: the checkpoint whose surfaces to use, where `generator` was tuned to the face.
    """
    surfaces = surfaces_of(shared or generator)
    config, layers = generator.config, surfaces.layers
    films = [codes.appearance, *(looks or {}).values()]
    groups = config.groups
    alpha = np.zeros((layers, size * size), np.uint8)
    scores = np.zeros((layers, size * size, len(config.group_of_class)), np.uint8)
    colors = np.zeros((len(films), groups, layers, size * size, 3), np.uint8)
    points = torch.stack([surfaces.points(k, size, size).reshape(-1, 3) for k in range(layers)], 1)
    seen = torch.stack([surfaces.seen_texels(k, size, size).flatten() for k in range(layers)], 1)
    step = max(1, CHUNK_POINTS // layers)
    device = next(generator.parameters()).device
    for start in watch(range(0, size * size, step)):
        part = slice(start, start + step)
        chunk = _evaluate(generator, codes, films, points[part].to(device), seen[part].to(device))
        alpha[:, part] = _bytes(chunk[0]).T
        scores[:, part] = _bytes(chunk[1]).transpose(1, 0, 2)
        colors[:, :, :, part] = _bytes(chunk[2]).transpose(0, 1, 3, 2, 4)
    visible = alpha > 0
    square = (layers, size, size)
    colors = np.stack([
        np.stack([_spread(group.reshape(*square, 3), visible.reshape(square)) for group in look])
        for look in colors
    ])  # fmt: skip
    return BakedFace(
        surfaces, alpha.reshape(square), _coarser(scores.reshape(*square, -1), score_step),
        colors, tuple(config.group_of_class), config.group_names, config.camera,
        config.ray_samples, ("own", *(looks or {})),
    )  # fmt: skip


def _evaluate(
    generator: Generator, codes: Codes, films: Sequence[Film], points: Tensor, seen: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """alpha (R, K), scores (R, K, N) and colours (A, n, R, K, 3) of points (R, K, 3)."""
    layers = points.shape[1]
    level = torch.arange(layers, device=points.device).expand(len(points), -1)
    hits = Intersections(points, torch.zeros_like(points[..., 0]), seen, level, level[:, -1])
    frontal = points.new_tensor(FRONTAL_DIRECTION)
    geometry = generator.geometry(hits, frontal.expand(len(points), -1), codes.geometry)
    some = (geometry.alpha.flatten()[geometry.hit_index] >= FAINT).nonzero()[:, 0]
    where, descriptor = geometry.hit_index[some], geometry.descriptor[some]
    colors = points.new_zeros(len(films), generator.config.groups, seen.numel(), 3)
    image = torch.zeros_like(where)
    for look, film in enumerate(films):
        for group in range(generator.config.groups):
            colors[look, group, where] = generator.appearance(
                descriptor, frontal.expand(len(where), -1), image, image + group, film
            )
    return geometry.alpha, geometry.semantics, colors.unflatten(2, tuple(seen.shape))


def _bytes(values: Tensor) -> np.ndarray:
    return (values.clamp(0, 1) * 255).round().byte().cpu().numpy()


def _coarser(scores: np.ndarray, step: int) -> np.ndarray:
    """Means over step x step texels."""
    if step == 1:
        return scores
    layers, height, width, classes = scores.shape
    blocks = scores.reshape(layers, height // step, step, width // step, step, classes)
    return np.rint(blocks.mean((2, 4), dtype=np.float32)).astype(np.uint8)


def _spread(colors: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Colours (K, H, W, 3) with texels that nobody sees filled from the visible ones around them.

    Filtering then never mixes in a colour that was not computed, and pictures compress well. The
    fill is a pyramid of means: each empty texel takes that of the smallest block that has any.
    """
    out = torch.from_numpy(colors).permute(0, 3, 1, 2).float()
    weight = torch.from_numpy(visible)[:, None].float()
    return _fill(out, weight).permute(0, 2, 3, 1).round().byte().numpy()


def _fill(values: Tensor, weight: Tensor) -> Tensor:
    if values.shape[-1] <= 1 or values.shape[-2] <= 1 or bool((weight > 0).all()):
        return values
    pooled = torch.nn.functional.avg_pool2d(weight, 2, ceil_mode=True)
    means = torch.nn.functional.avg_pool2d(values * weight, 2, ceil_mode=True)
    coarse = _fill(means / pooled.clamp(min=1e-6), (pooled > 0).float())
    fine = torch.nn.functional.interpolate(coarse, values.shape[-2:], mode="bilinear")
    return torch.where(weight > 0, values, fine)
