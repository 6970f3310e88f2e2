"""The order of the pipeline: rays -> manifolds -> geometry -> masking -> appearance -> picture.

This is the only file that knows it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..kernels import Intersections, color_composite, semantic_composite
from .codes import Codes, Film
from .distinct_rows import distinct_rows
from .rays import FRONTAL_DIRECTION, Rays, camera_rays
from .windows import Windows

if TYPE_CHECKING:
    from .generator import Generator

STAGES = ("rays", "manifolds", "geometry", "masking", "appearance", "compositing")

_clock: ContextVar[Callable[[str], AbstractContextManager]] = ContextVar(
    "semfaceedit_stage_clock", default=lambda stage: nullcontext()
)

MOST_POINTS = 1_250_000  # of a forward without gradients, see `affordable_rays`


@contextmanager
def stage_clock(clock: Callable[[str], AbstractContextManager]) -> Iterator[None]:
    """Within the block every stage of `render` runs inside `clock(stage name)`."""
    token = _clock.set(clock)
    try:
        yield
    finally:
        _clock.reset(token)


@dataclass(frozen=True)
class Shading:
    """What a picture's colours were made from; `recolor` goes on from here."""

    appearance: Film  # (B, n, L + 1, W) the FiLM vectors in use
    parts: tuple[_ShadedRays, ...]  # one a chunk of rays


@dataclass(frozen=True)
class RenderOutput:
    """A batch of pictures of H x H pixels."""

    image: Tensor  # (B, 3, H, H) in [-1, 1]
    semantics: Tensor  # (B, N, H, H) composited class scores, in [0, 1]
    depth: Tensor  # (B, 1, H, H) world distance along the ray
    weights: Tensor  # (B, K) mean compositing weight of each manifold, the plane last
    shading: Shading | None = None  # kept on request, for `recolor`

    @property
    def labels(self) -> Tensor:
        """(B, H, H) int64: the class with the largest score."""
        return self.semantics.argmax(1)


def affordable_rays(generator: Generator, images: int) -> int:
    """`chunk_rays` for so many images at once, with at most 1.25 million points: at width 256 their
    descriptors take 1.3 GB."""
    return max(1, MOST_POINTS // (images * generator.config.manifolds))


def render(
    generator: Generator,
    codes: Codes,
    pose: Tensor,  # (B, 2) yaw, pitch
    resolution: int,
    *,
    chunk_rays: int | None = None,
    lock_view: bool = False,
    intersections: Intersections | None = None,
    shift: Tensor | None = None,  # (B, 2) pixels
    windows: Windows | None = None,
    shade: bool = True,
    cull: float = 0.0,
    keep_shading: bool = False,
) -> RenderOutput:
    """Render codes from poses.

    chunk_rays: at most so many rays of each image at a time, so that without gradients memory does
    not grow with the resolution. lock_view: evaluate both modules with the frontal view direction.
    intersections: those of exactly these rays, found before (`find_intersections`); then pose
    carries no gradient and `chunk_rays` is not used. shift: move the rays right and down from the
    pixel centres. windows: a square part of each picture alone, in place of the whole. shade:
    without it neither descriptors nor colours are computed, and `image` is black; all else is the
    same. keep_shading: keep what `recolor` needs (B R K (W + 11) floats at most).

    cull: leave points whose compositing weight is below this uncoloured (black). The weights of a
    ray sum to one, so for cull < 1 / K at most K - 1 points are culled, and since colours lie in
    [-0.001, 1.001] no value of `image` moves by more than 2.002 (K - 1) cull; semantics and depth
    do not move. Raises ValueError where gradients are wanted, since a culled point has none, and
    for keep_shading without shade.
    """
    if keep_shading and not shade:
        raise ValueError("keep_shading keeps colours: render with shade=True")
    if cull and torch.is_grad_enabled() and _wants_gradients(generator, codes, pose):
        raise ValueError("cull drops points that carry gradient: render under torch.no_grad()")
    clock = _clock.get()
    with clock("rays"):
        rays = camera_rays(pose, resolution, generator.config.camera, shift=shift, windows=windows)
    side = resolution if windows is None else windows.side
    parts, shaded = [], []
    for part in rays.chunk(chunk_rays if intersections is None else None):
        with clock("manifolds"):
            met = generator.manifolds(part) if intersections is None else intersections
        pixels, shading = _render_rays(generator, codes, part, met, lock_view, shade, cull)
        parts.append(pixels)
        if keep_shading:
            shaded.append(_detached(shading))
    pixels = _Pixels(*(torch.cat([getattr(p, f.name) for p in parts], 1) for f in fields(_Pixels)))
    return RenderOutput(
        image=2 * _to_image(pixels.color, side) - 1,
        semantics=_to_image(pixels.semantics, side),
        depth=_to_image(pixels.depth, side),
        weights=pixels.weights.mean(1),
        shading=Shading(codes.appearance, tuple(shaded)) if keep_shading else None,
    )


@torch.no_grad()
def recolor(generator: Generator, output: RenderOutput, appearance: Film) -> RenderOutput:
    """The picture `output` with other appearance codes (B, n, L + 1, W): geometry is kept.

    Only points of the (image, group) pairs whose FiLM vectors differ are evaluated, and only rays
    that meet one are composited again; every other pixel keeps its bits. Needs an output rendered
    with `keep_shading` (ValueError), and `generator` unchanged since.
    """
    if output.shading is None:
        raise ValueError("recolor needs a picture that was rendered with keep_shading=True")
    before = output.shading.appearance
    changed = (before.frequencies != appearance.frequencies).flatten(2).any(2)
    changed |= (before.phases != appearance.phases).flatten(2).any(2)
    parts = tuple(
        _recolor_rays(generator, part, changed, appearance) for part in output.shading.parts
    )
    color = torch.cat([part.pixels for part in parts], 1)
    return replace(
        output,
        image=2 * _to_image(color, output.image.shape[-1]) - 1,
        shading=Shading(appearance, parts),
    )


def find_intersections(
    generator: Generator, pose: Tensor, resolution: int, *, shift: Tensor | None = None
) -> Intersections:
    """The hits of all rays of these poses, to be passed to `render` while the pose is fixed."""
    with torch.no_grad():
        rays = camera_rays(pose, resolution, generator.config.camera, shift=shift)
        return generator.manifolds(rays)


@dataclass(frozen=True)
class _Pixels:
    color: Tensor  # (B, R, 3) in [0, 1]
    semantics: Tensor  # (B, R, N)
    depth: Tensor  # (B, R, 1)
    weights: Tensor  # (B, R, K) by level


@dataclass(frozen=True)
class _ShadedRays:
    """A chunk of B R rays with K hits each, of which P were coloured."""

    alpha: Tensor  # (B R, K)
    depths: Tensor  # (B R, K)
    point_index: Tensor  # (P,) int64, places in the flattened (B R K) list, ascending
    image_of_point: Tensor  # (P,) int64
    group_of_point: Tensor  # (P,) int64
    directions: Tensor  # (P, 3)
    descriptor: Tensor  # (P, W)
    multiplied: bool  # see `Geometry`
    colors: Tensor  # (B R, K, 3) in [0, 1]; 0 where there is no point
    pixels: Tensor  # (B, R, 3) in [0, 1]


def _render_rays(
    generator: Generator,
    codes: Codes,
    rays: Rays,
    intersections: Intersections,
    lock_view: bool,
    shade: bool,
    cull: float,
) -> tuple[_Pixels, _ShadedRays]:
    clock = _clock.get()
    batch, count = rays.origins.shape[:2]
    directions = rays.directions.reshape(-1, 3)
    if lock_view or not generator.config.view_dependent:
        directions = directions.new_tensor(FRONTAL_DIRECTION).expand_as(directions)

    with clock("geometry"):
        geometry = generator.geometry(
            intersections, directions, codes.geometry,
            describe=shade, through=generator.appearance.first_weight,
        )  # fmt: skip
    with clock("masking"):
        labels, semantic_map = semantic_composite(geometry.alpha, geometry.semantics)
        point_index, descriptor = geometry.hit_index, geometry.descriptor
        if not shade:
            point_index = point_index[:0]
        elif cull:
            seen = (_weights(geometry.alpha).flatten()[point_index] >= cull).nonzero()[:, 0]
            point_index, descriptor = point_index[seen], distinct_rows(descriptor, seen)
        group_of_point = generator.group_table(labels.flatten()[point_index])
    with clock("appearance"):
        ray_of_point = point_index // labels.shape[1]
        image_of_point, directions = ray_of_point // count, directions[ray_of_point]
        point_colors = descriptor.new_zeros(0, 3)
        if shade:
            point_colors = generator.appearance(
                descriptor, directions, image_of_point, group_of_point, codes.appearance,
                multiplied=geometry.multiplied,
            )  # fmt: skip
        colors = point_colors.new_zeros(labels.numel(), 3).index_copy_(0, point_index, point_colors)
        colors = colors.view(*labels.shape, 3)
    with clock("compositing"):
        color, depth, weights = color_composite(geometry.alpha, colors, intersections.depths)
    by_level = torch.zeros_like(weights).scatter(1, intersections.level, weights.detach())
    pixels = _Pixels(
        color.view(batch, count, -1),
        semantic_map.view(batch, count, -1),
        depth.view(batch, count, 1),
        by_level.view(batch, count, -1),
    )
    return pixels, _ShadedRays(
        geometry.alpha, intersections.depths, point_index, image_of_point, group_of_point,
        directions, descriptor, geometry.multiplied, colors, pixels.color,
    )  # fmt: skip


def _detached(rays: _ShadedRays) -> _ShadedRays:
    tensors: dict[str, Any] = {n: v.detach() for n, v in vars(rays).items() if torch.is_tensor(v)}
    return replace(rays, **tensors)


def _recolor_rays(
    generator: Generator,
    part: _ShadedRays,
    changed: Tensor,  # (B, n) bool
    appearance: Film,  # (B, n, L + 1, W)
) -> _ShadedRays:
    some = changed[part.image_of_point, part.group_of_point].nonzero()[:, 0]
    new = generator.appearance(
        part.descriptor[some], part.directions[some], part.image_of_point[some],
        part.group_of_point[some], appearance, multiplied=part.multiplied,
    )  # fmt: skip
    places = part.point_index[some]
    colors = part.colors.flatten(0, 1).index_copy(0, places, new).view_as(part.colors)
    rays = torch.unique(places // colors.shape[1])
    pixels, _, _ = color_composite(part.alpha[rays], colors[rays], part.depths[rays])
    flat = part.pixels.flatten(0, 1).index_copy(0, rays, pixels)
    return replace(part, colors=colors, pixels=flat.view_as(part.pixels))


def _weights(alpha: Tensor) -> Tensor:  # (R', K) compositing weights, front to back
    passing = nn.functional.pad((1 - alpha[:, :-1]).cumprod(1), (1, 0), value=1.0)
    return alpha * passing


def _wants_gradients(generator: Generator, codes: Codes, pose: Tensor) -> bool:
    films = (codes.geometry, codes.appearance)
    tensors = [pose, *(t for f in films for t in (f.frequencies, f.phases))]
    return any(t.requires_grad for t in (*tensors, *generator.parameters()))


def _to_image(pixels: Tensor, resolution: int) -> Tensor:  # (B, R, C) -> (B, C, H, H)
    return pixels.transpose(1, 2).unflatten(2, (resolution, resolution))
