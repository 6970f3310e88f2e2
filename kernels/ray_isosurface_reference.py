"""The specification of `ray_isosurface` in plain PyTorch, for any device and float dtype."""

from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ._checks import linear

T = TypeVar("T")
MIN_FIELD_STEP = 0.05  # |s_b - s_a| below which interpolation is not trusted (GRAM)
MIN_PLANE_SLOPE = 1e-4  # -d_z below which a ray counts as missing the background plane


class FieldWeights(NamedTuple):
    """A ReLU MLP 3 -> H -> ... -> H -> 1 with D hidden layers."""

    first_weight: Tensor  # (H, 3)
    first_bias: Tensor  # (H,)
    hidden_weight: Tensor  # (D - 1, H, H)
    hidden_bias: Tensor  # (D - 1, H)
    last_weight: Tensor  # (1, H)
    last_bias: Tensor  # (1,)


class Intersections(NamedTuple):
    """The K hits of each ray, sorted by distance; equal distances by level, the plane last.

    A level that the ray misses stands at the far end with `valid` False.
    """

    points: Tensor  # (R, K, 3) world
    depths: Tensor  # (R, K) world distance along the ray
    valid: Tensor  # (R, K) bool
    level: Tensor  # (R, K) int64: index into `levels`; K - 1 is the plane
    plane_index: Tensor  # (R,) int64: where in the list the plane stands


class FieldSettings(NamedTuple):
    """Where the field lies, where rays are sampled, and where the plane is."""

    centre: tuple[float, float, float]
    scale: float
    near: float
    far: float
    samples: int
    plane_z: float


class RayIsosurfaceCall(NamedTuple):
    """The arguments of `ray_isosurface`, as backends take them."""

    origins: Tensor  # (R, 3)
    directions: Tensor  # (R, 3)
    levels: Tensor  # (K - 1,)
    weights: FieldWeights
    settings: FieldSettings
    precision: str = "fp32"


class RayIsosurfaceGradients(NamedTuple, Generic[T]):
    """Of each tensor of a call that has a gradient: that, or whether it is needed."""

    origins: T
    directions: T
    first_weight: T
    first_bias: T
    hidden_weight: T
    hidden_bias: T
    last_weight: T
    last_bias: T


def field(x: Tensor, weights: FieldWeights, precision: str) -> Tensor:
    """Normalised coordinates (..., 3) -> scalar field (...)."""
    # Rounding the field to fp16 would move hits by a visible share of a step.
    precision = "fp32" if precision == "fp16" else precision
    h = linear(x, weights.first_weight, weights.first_bias, precision).relu()
    for weight, bias in zip(weights.hidden_weight, weights.hidden_bias, strict=True):
        h = linear(h, weight, bias, precision).relu()
    return linear(h, weights.last_weight, weights.last_bias, precision)[..., 0]


def ray_isosurface_reference(
    origins: Tensor,  # (R, 3)
    directions: Tensor,  # (R, 3)
    levels: Tensor,  # (K - 1,)
    weights: FieldWeights,
    settings: FieldSettings,
    precision: str = "fp32",
) -> Intersections:
    """See `ray_isosurface`; the arguments are a `RayIsosurfaceCall`. Only the two samples of each
    hit's interval are evaluated with grad."""
    centre, scale, near, far, samples, plane_z = settings
    t = torch.linspace(near, far, samples, dtype=origins.dtype, device=origins.device)
    offset = origins.new_tensor(centre)

    def field_at(t: Tensor) -> Tensor:  # (R, M) distances -> (R, M)
        x = origins[:, None] + t[..., None] * directions[:, None]
        return field(x * scale - offset, weights, precision)

    with torch.autocast(origins.device.type, enabled=False):
        with torch.no_grad():
            s = field_at(t.expand(len(origins), samples))
            a, b, l = s[:, None, :-1], s[:, None, 1:], levels[:, None]  # noqa: E741
            crossed = (b <= l) & (l <= a)  # (R, K - 1, S - 1)
            hit = crossed.any(-1)
            start = torch.where(hit, crossed.byte().argmax(-1), samples - 2)
        if torch.is_grad_enabled() and any(
            tensor.requires_grad for tensor in (origins, directions, *weights)
        ):
            ends = field_at(torch.cat([t[start], t[start + 1]], 1))
            s_a, s_b = ends.chunk(2, 1)
        else:
            s_a, s_b = s.gather(1, start), s.gather(1, start + 1)
        step = s_b - s_a
        usable = hit & (step.abs() > MIN_FIELD_STEP)
        u = torch.where(usable, (levels - s_a) / torch.where(usable, step, 1.0), 1.0)
        surface_depth = t[start] + u * (t[start + 1] - t[start])  # (R, K - 1)

        slope = directions[:, 2]
        meets = slope < -MIN_PLANE_SLOPE
        plane_depth = (plane_z - origins[:, 2]) / torch.where(meets, slope, -1.0)
        plane_depth = torch.where(meets & (plane_depth > 0), plane_depth, far)

        depths = torch.cat([surface_depth, plane_depth[:, None]], 1)  # (R, K)
        valid = torch.cat([hit, torch.ones_like(meets)[:, None]], 1)
        depths, level = depths.sort(dim=1, stable=True)
        points = origins[:, None] + depths[..., None] * directions[:, None]
        plane_index = (level == len(levels)).byte().argmax(1)
        return Intersections(points, depths, valid.gather(1, level), level, plane_index)
