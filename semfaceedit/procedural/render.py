"""Procedural faces: renders of analytic 3-D heads with exact pose, depth and class maps.

Every head comes from its seed alone. It is rendered with the model's own camera by sphere tracing:
one ray through each pixel centre gives class and depth, and a finer grid that starts where those
rays' cones first came near a surface gives the anti-aliased image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..model.camera import CameraConfig, camera_to_world
from .heads import HEAD_UNIT, Head, sample_head
from .paint import Ids, Paint, backdrop, paint_head, strands
from .shape import HAIR, SKIN, Array, clip, distance, positive, surfaces

PLANE_Z = -0.12  # world units, the plane that carries the background
CHUNK = 16384  # points a step: keeps the working set in the cache
START = 9.0  # head units from the camera: nothing is nearer
HIT = 0.002  # head units: a ray this near a surface has reached it
STEP = 0.95  # share of the distance bound that a ray advances
LEAVE = 2.5  # the same for rays that move away from the nearest surface
APPROACH_STEPS, CONVERGE_STEPS = 20, 20
FINE_GRID = 128  # the image is averaged from a grid at least this wide and twice as fine

Vector = tuple[Array, Array, Array]


@dataclass(frozen=True)
class FaceBatch:
    """B rendered heads at R x R pixels."""

    images: Tensor  # (B, 3, R, R) float32 in [-1, 1]
    labels: Tensor  # (B, R, R) uint8 class ids
    depth: Tensor  # (B, R, R) float32 world distance along the ray through the pixel centre
    poses: Tensor  # (B, 2) float32 yaw, pitch in radians


def render_faces(
    seeds: Sequence[int],
    resolution: int,
    config: CameraConfig = CameraConfig(),  # noqa: B008 - frozen
    poses: Tensor | None = None,
) -> FaceBatch:
    """Render the heads of `seeds` at resolution x resolution pixels, on the CPU.

    A seed decides identity, appearance, light and pose, whatever the batch and the resolution.
    poses: (B, 2) yaw, pitch in radians replace the heads' own, to see them from another side.
    """
    heads = [sample_head(seed, config) for seed in seeds]
    if poses is None:
        poses = torch.tensor([head.pose for head in heads]).reshape(-1, 2)
    poses = poses.detach().to("cpu", torch.float32)
    images = torch.empty(len(heads), 3, resolution, resolution)
    labels = torch.empty(len(heads), resolution, resolution, dtype=torch.uint8)
    depth = torch.empty(len(heads), resolution, resolution)
    for index, (head, pose) in enumerate(zip(heads, poses, strict=True)):
        parts = _render(head, pose, resolution, config)
        for batch, part in zip((images, labels, depth), parts, strict=True):
            batch[index] = torch.from_numpy(part)
    return FaceBatch(images, labels, depth, poses)


def _render(
    head: Head, pose: Tensor, resolution: int, config: CameraConfig
) -> tuple[Array, Ids, Array]:
    """One image (3, R, R), its labels (R, R) and depth (R, R)."""
    factor = max(2, math.ceil(FINE_GRID / resolution))
    rays = _View.of(pose, resolution, 1, config)
    pixel = 2 * config.half_extent / resolution  # width of a pixel at distance 1
    pieces = _pieces(resolution * resolution)
    start = np.concatenate([_approach(head, rays.part(p), 0.75 * pixel) for p in pieces])
    t = np.concatenate([_converge(head, rays.part(p), start[p]) for p in pieces])
    plane = rays.plane()
    labels = np.zeros(len(t), np.uint8)
    for piece in pieces:
        chosen = np.nonzero(t[piece] < plane[piece])[0] + piece.start
        points = rays.points(t[chosen], chosen)
        labels[chosen] = paint_head(head, _surface(head, points), *points).labels
    fine = _View.of(pose, resolution, factor, config)
    start = start.reshape(resolution, resolution).repeat(factor, 0).repeat(factor, 1).ravel()
    colors = [_colors(head, fine.part(p), start[p]) for p in _pieces(len(start))]
    image = np.concatenate(colors, 1).reshape(3, resolution, factor, resolution, factor)
    size = (resolution, resolution)
    return image.mean((2, 4)) * 2 - 1, labels.reshape(size), t.reshape(size) * HEAD_UNIT


@dataclass(frozen=True)
class _View:
    """Rays of one image in head units: one origin, unit directions."""

    origin: tuple[float, float, float]
    directions: Vector

    @staticmethod
    def of(pose: Tensor, resolution: int, factor: int, config: CameraConfig) -> "_View":
        """Rays through the centres of the cells of a grid `factor` times as fine as the pixels."""
        size = resolution * factor
        matrix = camera_to_world(pose[None].double())[0].numpy()
        centres = ((2 * np.arange(size) + 1) / size - 1) * config.half_extent
        x, y = np.meshgrid(centres, -centres)
        local = np.stack([x.ravel(), y.ravel(), np.full(size * size, -1.0)])
        local /= np.sqrt((local * local).sum(0))
        dx, dy, dz = (matrix[:3, :3] @ local).astype(np.float32)
        ox, oy, oz = (matrix[:3, 3] / HEAD_UNIT).tolist()
        return _View((ox, oy, oz), (dx, dy, dz))

    def points(self, t: Array, chosen: Array | slice = slice(None)) -> Vector:
        ox, oy, oz = self.origin
        dx, dy, dz = self.directions
        return ox + t * dx[chosen], oy + t * dy[chosen], oz + t * dz[chosen]

    def plane(self) -> Array:
        """Distance to the background plane; rays that miss it get a far value."""
        toward = np.maximum(-self.directions[2], 0.05)
        return (self.origin[2] - PLANE_Z / HEAD_UNIT) / toward

    def part(self, piece: slice) -> "_View":
        dx, dy, dz = self.directions
        return _View(self.origin, (dx[piece], dy[piece], dz[piece]))


def _pieces(count: int) -> list[slice]:
    return [slice(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


def _approach(head: Head, view: _View, cone: float) -> Array:
    """Advance rays until their cones (radius cone * t) may touch a surface; misses pass the plane.

    Rays inside such a cone can start there without passing anything.
    """
    limit = view.plane()
    t = np.full_like(limit, START)
    active = np.arange(len(t))
    for _ in range(APPROACH_STEPS):
        here = t[active]
        gap = distance(head, *view.points(here, active)) - cone * here
        here = here + positive(gap) * STEP
        t[active] = here
        active = active[(gap > HIT) & (here < limit[active])]
        if not len(active):
            break
    return t


def _converge(head: Head, view: _View, start: Array) -> Array:
    """Follow rays from `start` to the surface by Newton's method along the ray; misses: the plane.

    The rate at which the last step closed the distance predicts the next one, so that rays that
    graze a surface take few steps; rays that move away from it take long ones.
    """
    limit = view.plane()
    t = np.minimum(start, limit)
    active = np.nonzero(start < limit)[0]
    here = t[active]
    step: Array = np.ones_like(here)
    gap: Array | None = None
    for _ in range(CONVERGE_STEPS):
        if not len(active):
            break
        last, gap = gap, distance(head, *view.points(here, active))
        rate = np.ones_like(gap) if last is None else (last - gap) / step
        rate = np.where(rate > 0, clip(rate, 0.3, 1.5), np.float32(1 / LEAVE))
        step = gap * STEP / rate
        step = np.copysign(np.maximum(np.abs(step), 1e-4), step)
        here = here + step
        t[active] = here
        moving = (np.abs(gap) > HIT) & (here < limit[active])
        active, here, step, gap = active[moving], here[moving], step[moving], gap[moving]
    if gap is not None and len(active):
        t[active[gap > 3 * HIT]] = np.inf
    return np.minimum(t, limit)


def _surface(head: Head, points: Vector) -> Ids:
    """Ids (N,) of the surfaces nearest to the points."""
    found = surfaces(head, *points)
    return np.array(list(found), np.uint8)[np.stack(list(found.values())).argmin(0)]


def _colors(head: Head, view: _View, start: Array) -> Array:
    """Colours (3, N) in [0, 1] seen along N rays."""
    t = _converge(head, view, start)
    plane = view.plane()
    bx, by, _ = view.points(plane)
    colors = backdrop(head.backdrop, bx, by)
    seen = np.nonzero(t < plane)[0]
    if len(seen):
        dx, dy, dz = (part[seen] for part in view.directions)
        colors[:, seen] = _shade(head, view.points(t[seen], seen), (-dx, -dy, -dz))
    return colors


def _shade(head: Head, points: Vector, toward: Vector) -> Array:
    """Lit colours (3, N) of points on the head; toward: unit vectors to the camera."""
    surface = _surface(head, points)
    look = paint_head(head, surface, *points)
    normal = _normals(head, points)
    _groove(head, surface, points, normal)
    occlusion = np.ones_like(points[0])
    for reach, weight in ((0.06, 1.6), (0.2, 1.1)):
        field = distance(head, *(p + reach * n for p, n in zip(points, normal, strict=True)))
        occlusion -= weight * positive(reach - field)
    shadow = _shadow(head, points, normal)
    color = _light(head, look, surface, normal, clip(occlusion, 0.25, 1), shadow)
    color += _highlight(head, look, surface, points, normal, toward, shadow)
    return clip(color, 0, 1) ** np.float32(1 / 2.2)


def _normals(head: Head, points: Vector) -> Vector:
    """Unit normals by differences along the edges of a tetrahedron."""
    x, y, z = points
    e = 0.006
    a = distance(head, x + e, y - e, z - e)
    b = distance(head, x - e, y - e, z + e)
    c = distance(head, x - e, y + e, z - e)
    d = distance(head, x + e, y + e, z + e)
    return _unit((a - b - c + d, c + d - a - b, b + d - a - c))


def _groove(head: Head, surface: Ids, points: Vector, normal: Vector) -> None:
    """Tilt the normals of hair, in place, as if its strands were raised."""
    hair = np.nonzero(surface == HAIR)[0]
    x, y, z = (p[hair] for p in points)
    across_x, _, across_z = _unit((z + 0.42, np.zeros_like(x), -x))
    rise = strands(head, x + 0.008 * across_x, y, z + 0.008 * across_z) - strands(head, x, y, z)
    nx, ny, nz = (n[hair] for n in normal)
    tilted = _unit((nx - 0.9 * rise * across_x, ny, nz - 0.9 * rise * across_z))
    for part, value in zip(normal, tilted, strict=True):
        part[hair] = value


def _unit(v: Vector) -> Vector:
    scale = 1 / (np.sqrt(_dot(v, v)) + 1e-9)
    return v[0] * scale, v[1] * scale, v[2] * scale


def _shadow(head: Head, points: Vector, normal: Vector) -> Array:
    """Soft visibility of the key light, (N,) in [0, 1]."""
    light = head.light.direction
    x, y, z = (p + 0.03 * n for p, n in zip(points, normal, strict=True))
    visible = np.ones_like(x)
    for reach in (0.07, 0.16, 0.32, 0.6):
        gap = distance(head, x + reach * light[0], y + reach * light[1], z + reach * light[2])
        visible = np.minimum(visible, 0.5 + gap / (0.7 * reach))
    visible = positive(visible)
    return visible * visible * (3 - 2 * visible)


def _dot(a: Vector, b: Vector | tuple[float, float, float]) -> Array:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _light(
    head: Head, look: Paint, surface: Ids, normal: Vector, occlusion: Array, shadow: Array
) -> Array:
    """Linear colours (3, N) under the key light with a soft terminator, sky and fill light."""
    light = head.light
    facing = _dot(normal, light.direction)
    skin = (surface == SKIN).astype(np.float32)
    sky = 0.65 + 0.35 * normal[1]
    fill_in = 0.25 * positive(0.6 * normal[2] - 0.5 * light.direction[0] * normal[0])
    ambient = (light.ambient * sky + fill_in) * occlusion
    rows = []
    # Light seeps into skin, red the most, so that its shadows have warm edges.
    for channel, seep, tint in ((0, 0.20, 1.0), (1, 0.07, 0.0), (2, 0.02, -1.0)):
        wrap = 0.15 + seep * skin
        lit = positive((facing + wrap) / (1 + wrap))
        lit = lit * (wrap * 0.85 + (1 - wrap * 0.85) * shadow)
        warm = 1 + tint * light.warmth
        rows.append(look.albedo[channel] ** np.float32(2.2) * (light.key * warm * lit + ambient))
    return np.stack(rows)


def _highlight(
    head: Head,
    look: Paint,
    surface: Ids,
    points: Vector,
    normal: Vector,
    toward: Vector,
    shadow: Array,
) -> Array:
    """Specular light (N,): a lobe on surfaces, a band across strands on hair."""
    light = head.light.direction
    half = _unit((toward[0] + light[0], toward[1] + light[1], toward[2] + light[2]))
    lobe = positive(_dot(normal, half)) ** np.float32(24)
    x, _, z = points
    along = (x, np.full_like(x, -1.1), z + 0.4)
    tilt = _dot(along, normal)
    nx, ny, nz = normal
    along = _unit((along[0] - tilt * nx, along[1] - tilt * ny, along[2] - tilt * nz))
    cosine = _dot(along, half)
    band = positive(1 - cosine * cosine) ** np.float32(20) * (0.75 + 0.25 * strands(head, *points))
    tone = 0.06 + 0.35 * sum(head.hair.color) / 3
    hair = band * tone * (0.3 + 0.7 * positive(_dot(normal, light)))
    return look.gloss * np.where(surface == HAIR, hair, 0.55 * lobe) * (0.2 + 0.8 * shadow)
