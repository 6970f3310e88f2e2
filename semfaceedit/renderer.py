"""The order of the pipeline: rays -> manifolds -> geometry -> masking -> appearance -> picture.

This is the only file that knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .film import Film
from .kernels import Intersections, color_composite, semantic_composite
from .rays import FRONTAL_DIRECTION, Rays, camera_rays

if TYPE_CHECKING:
    from .generator import Generator

STAGES = ("rays", "manifolds", "geometry", "masking", "appearance", "compositing")

_clock: ContextVar[Callable[[str], AbstractContextManager]] = ContextVar(
    "semfaceedit_stage_clock", default=lambda stage: nullcontext()
)


@contextmanager
def stage_clock(clock: Callable[[str], AbstractContextManager]) -> Iterator[None]:
    """Within the block every stage of `render` runs inside `clock(stage name)`."""
    token = _clock.set(clock)
    try:
        yield
    finally:
        _clock.reset(token)


@dataclass(frozen=True)
class Codes:
    """What conditions a picture: FiLM vectors of the geometry and of each appearance group."""

    geometry: Film  # (B, L + 1, W)
    appearance: Film  # (B, n, L + 1, W)


@dataclass(frozen=True)
class RenderOutput:
    """A batch of pictures of H x H pixels."""

    image: Tensor  # (B, 3, H, H) in [-1, 1]
    semantics: Tensor  # (B, N, H, H) composited class scores, in [0, 1]
    depth: Tensor  # (B, 1, H, H) world distance along the ray
    weights: Tensor  # (B, K) mean compositing weight of each manifold, the plane last

    @property
    def labels(self) -> Tensor:
        """(B, H, H) int64: the class with the largest score."""
        return self.semantics.argmax(1)


def render(
    generator: Generator,
    codes: Codes,
    pose: Tensor,  # (B, 2) yaw, pitch
    resolution: int,
    *,
    chunk_rays: int | None = None,
    lock_view: bool = False,
    intersections: Intersections | None = None,
) -> RenderOutput:
    """Render codes from poses.

    chunk_rays: at most so many rays of each image at a time, so that without gradients memory does
    not grow with the resolution. lock_view: evaluate both modules with the frontal view direction.
    intersections: those of exactly these rays, found before (`find_intersections`); then pose
    carries no gradient and `chunk_rays` is not used.
    """
    clock = _clock.get()
    with clock("rays"):
        rays = camera_rays(pose, resolution, generator.config.camera)
    parts = []
    for part in rays.chunk(chunk_rays if intersections is None else None):
        with clock("manifolds"):
            hits = generator.manifolds(part) if intersections is None else intersections
        parts.append(_render_rays(generator, codes, part, hits, lock_view))
    pixels = _Pixels(*(torch.cat([getattr(p, f.name) for p in parts], 1) for f in fields(_Pixels)))
    return RenderOutput(
        image=2 * _to_image(pixels.color, resolution) - 1,
        semantics=_to_image(pixels.semantics, resolution),
        depth=_to_image(pixels.depth, resolution),
        weights=pixels.weights.mean(1),
    )


def find_intersections(generator: Generator, pose: Tensor, resolution: int) -> Intersections:
    """The hits of all rays of these poses, to be passed to `render` while the pose is fixed."""
    with torch.no_grad():
        return generator.manifolds(camera_rays(pose, resolution, generator.config.camera))


@dataclass(frozen=True)
class _Pixels:
    color: Tensor  # (B, R, 3) in [0, 1]
    semantics: Tensor  # (B, R, N)
    depth: Tensor  # (B, R, 1)
    weights: Tensor  # (B, R, K) by level


def _render_rays(
    generator: Generator, codes: Codes, rays: Rays, hits: Intersections, lock_view: bool
) -> _Pixels:
    clock = _clock.get()
    images, count = rays.origins.shape[:2]
    directions = rays.directions.reshape(-1, 3)
    if lock_view or not generator.config.view_dependent:
        directions = directions.new_tensor(FRONTAL_DIRECTION).expand_as(directions)

    with clock("geometry"):
        geometry = generator.geometry(hits, directions, codes.geometry)
    with clock("masking"):
        labels, semantic_map = semantic_composite(geometry.alpha, geometry.semantics)
        groups = generator.group_table(labels.flatten()[geometry.hits])
    with clock("appearance"):
        ray_of_hit = geometry.hits // labels.shape[1]
        hit_colors = generator.appearance(
            geometry.descriptor,
            directions[ray_of_hit],
            ray_of_hit // count,
            groups,
            codes.appearance,
        )
        colors = hit_colors.new_zeros(labels.numel(), 3).index_copy(0, geometry.hits, hit_colors)
    with clock("compositing"):
        color, depth, weights = color_composite(
            geometry.alpha, colors.view(*labels.shape, 3), hits.depths
        )
    by_level = torch.zeros_like(weights).scatter(1, hits.level, weights.detach())
    return _Pixels(
        color.view(images, count, -1),
        semantic_map.view(images, count, -1),
        depth.view(images, count, 1),
        by_level.view(images, count, -1),
    )


def _to_image(pixels: Tensor, resolution: int) -> Tensor:  # (B, R, C) -> (B, C, H, H)
    return pixels.transpose(1, 2).unflatten(2, (resolution, resolution))
