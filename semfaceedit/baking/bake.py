"""A face baked onto the surfaces of its checkpoint: opacity, class scores and colours as textures.

A texel of layer k holds what both modules say of its point: alpha, the scores of the N classes, and
the colour that each of the n groups would give it. Which group colours a point is decided on the
ray that meets it (Eq. 2), by whoever draws the layers; so from every side the labels are those of
the renderer. The view direction is the frontal one.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..kernels import Intersections
from ..model.camera import CameraConfig
from ..model.codes import Codes, Film
from ..model.generator import Generator, seed_codes
from ..model.rays import FRONTAL_DIRECTION
from .surfaces import Surfaces, surfaces_of

CHUNK_POINTS = 1 << 16  # evaluated at a time: bounds memory
TEXELS = 384  # along each edge of a layer, of a face that is taken along
LOOKS, LOOK_SEEDS = 5, range(1_000, 1_100)  # whose appearance codes are the other looks

Watch = Callable[[Sequence[int]], Iterable[int]]  # iterates over chunks, showing progress


@dataclass(frozen=True)
class BakedFace:
    """K layers of H x W texels, bytes of 255 to one; the background plane is the last."""

    surfaces: Surfaces
    alpha: np.ndarray  # (K, H, W) uint8
    scores: np.ndarray  # (K, H, W, N) uint8
    colors: np.ndarray  # (A, n, K, H, W, 3) uint8 in the colours of A looks, the face's own first
    group_of_class: tuple[int, ...]
    group_names: tuple[str, ...]
    camera: CameraConfig
    samples: int  # coarse samples on a ray, as the renderer takes them
    exclusive: bool  # the scores of a point sum to one
    looks: tuple[str, ...] = ("own",)  # names of the A looks

    @property
    def layers(self) -> int:
        return len(self.alpha)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a layer in texels."""
        return self.alpha.shape[2], self.alpha.shape[1]


def looks_of(generator: Generator, count: int = LOOKS) -> dict[str, Film]:
    """The appearance codes of the first `LOOK_SEEDS`, by name."""
    seeds = LOOK_SEEDS[:count]
    return {f"seed {seed}": seed_codes(generator, seed).appearance for seed in seeds}


def every(chunks: Sequence[int]) -> Iterable[int]:
    """A `Watch` that shows nothing."""
    return chunks


@torch.no_grad()
def bake(
    generator: Generator,
    codes: Codes,  # batch 1
    *,
    size: int,
    looks: dict[str, Film] | None = None,
    watch: Watch = every,
    shared: Generator | None = None,
) -> BakedFace:
    """Bake a face: layers of size x size texels.

    looks: further appearance codes (1, n, L + 1, W) by name, baked as colours beside the face's
    own. shared: the checkpoint whose surfaces to use, where `generator` was tuned to the face.
    """
    surfaces = surfaces_of(shared or generator)
    config, layers, area = generator.config, surfaces.layers, size * size
    films = [codes.appearance, *(looks or {}).values()]
    points = torch.cat([surfaces.points(k, size, size).reshape(-1, 3) for k in range(layers)])
    seen = torch.cat([surfaces.seen_texels(k, size, size).flatten() for k in range(layers)])
    seen_index = seen.nonzero()[:, 0]

    alpha = np.zeros(layers * area, np.uint8)
    device = generator.device
    on_surfaces = seen_index[seen_index < (layers - 1) * area]
    for some in on_surfaces.split(CHUNK_POINTS):
        opacity = generator.geometry.opacity(points[some].to(device), codes.geometry)
        alpha[some.numpy()] = _bytes(opacity)
    alpha[seen_index[len(on_surfaces) :].numpy()] = 255
    square = (layers, size, size)
    # Filtering mixes a texel with its neighbours, so those beside a visible one count too.
    visible = _grown(alpha.reshape(square)).flatten() & seen.numpy()

    scores = np.zeros((layers * area, len(config.group_of_class)), np.uint8)
    colors = np.zeros((len(films), config.groups, layers * area, 3), np.uint8)
    chunks = torch.from_numpy(visible.nonzero()[0]).split(CHUNK_POINTS)
    for index in watch(range(len(chunks))):
        some = chunks[index]
        where, on_plane = some.numpy(), some >= len(seen) - area
        found = _evaluate(generator, codes, films, points[some].to(device), on_plane)
        scores[where] = _bytes(found[0])
        colors[:, :, where] = _bytes(found[1])
    for look in colors:
        _spread(look.reshape(-1, *square, 3), visible.reshape(square))
    return BakedFace(
        surfaces, alpha.reshape(square), scores.reshape(*square, -1),
        colors.reshape(*colors.shape[:2], *square, 3), tuple(config.group_of_class),
        config.group_names, config.camera, config.ray_samples,
        config.semantic_activation == "softmax", ("own", *(looks or {})),
    )  # fmt: skip


def _evaluate(
    generator: Generator, codes: Codes, films: Sequence[Film], points: Tensor, on_plane: Tensor
) -> tuple[Tensor, Tensor]:
    """Scores (P, N) and colours (A, n, P, 3) of points (P, 3), some of them on the plane (P,)."""
    # Each point is the only hit of a ray of its own, so the last level, the plane's, is 0.
    level = (~on_plane).to(points.device).long()[:, None]
    valid = torch.ones_like(level, dtype=torch.bool)
    intersections = Intersections(
        points[:, None], torch.zeros_like(points[:, :1]), valid, level, level[:, 0]
    )
    frontal = points.new_tensor(FRONTAL_DIRECTION).expand_as(points).contiguous()
    geometry = generator.geometry(
        intersections, frontal, codes.geometry, through=generator.appearance.first_weight
    )
    image = torch.zeros_like(level[:, 0])
    colors = [
        torch.stack([
            generator.appearance(
                geometry.descriptor, frontal, image, image + group, film,
                multiplied=geometry.multiplied,
            )
            for group in range(generator.config.groups)
        ])
        for film in films
    ]  # fmt: skip
    return geometry.semantics[:, 0], torch.stack(colors)


def _grown(alpha: np.ndarray) -> np.ndarray:
    """(K, H, W) bool: texels with any opacity, and those beside one."""
    grown = torch.from_numpy(alpha).float()[:, None]
    return torch.nn.functional.max_pool2d(grown, 3, stride=1, padding=1)[:, 0].numpy() > 0


def _bytes(values: Tensor) -> np.ndarray:
    return (values.clamp(0, 1) * 255).round().byte().cpu().numpy()


def _spread(colors: np.ndarray, visible: np.ndarray) -> None:
    """Fill, in colours (n, K, H, W, 3), the texels that were not computed from those around them.

    So pictures of them compress well, and no edge rings into what is seen. The fill is a pyramid
    of means: each empty texel takes that of the smallest block that has any.
    """
    weight = torch.from_numpy(visible)[:, None].float()
    values = torch.from_numpy(colors).permute(1, 0, 4, 2, 3).flatten(1, 2).float()
    empty = ~visible
    filled = _filled(values * weight, weight).unflatten(1, (len(colors), 3))
    colors[:, empty] = filled.permute(1, 0, 3, 4, 2).round().byte().numpy()[:, empty]


def _filled(values: Tensor, weight: Tensor) -> Tensor:
    """(K, C, H, W) with means where the weight (K, 1, H, W) is 0; values are 0 there."""
    if min(values.shape[-2:]) <= 1:
        return values
    pool = torch.nn.functional.avg_pool2d
    share = pool(weight, 2, ceil_mode=True)
    means = pool(values, 2, ceil_mode=True) / share.clamp(min=1e-6)
    coarse = _filled(means, (share > 0).float())
    fine = torch.nn.functional.interpolate(coarse, values.shape[-2:])
    return torch.where(weight > 0, values, fine)
