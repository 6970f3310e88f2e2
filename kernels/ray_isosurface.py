"""Rays against a stack of learned iso-surfaces and the background plane, as one op."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._backend import implementation, resolve
from ._checks import check_tensors
from .ray_isosurface_reference import ray_isosurface_reference


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


def ray_isosurface(
    origins: Tensor,  # (R, 3) world
    directions: Tensor,  # (R, 3) unit, world
    levels: Tensor,  # (K - 1,) descending values of the field
    weights: FieldWeights,
    *,
    centre: tuple[float, float, float],
    scale: float,
    near: float,
    far: float,
    samples: int,
    plane_z: float,
    backend: str | None = None,
    precision: str | None = None,
) -> Intersections:
    """Intersect rays with the iso-surfaces of a scalar field and with the plane z = plane_z.

    The field is s(x) = MLP(scale * x - centre). `samples` points lie evenly in [near, far]; a level
    l is crossed in the first interval with s_b <= l <= s_a, and the hit is one linear interpolation
    (GRAM, section 3.2). Intervals with |s_b - s_a| <= 0.05 put the hit at their far end, without a
    gradient. The plane is always valid; a ray that does not meet it in front of the camera has it
    at `far`.

    `points` and `depths` are differentiable in the weights, the origins and the directions; levels
    are constants, and one that requires a gradient is refused.
    Raises ValueError for arguments that do not fit together, RuntimeError if a backend named
    explicitly cannot run.
    """
    width, hidden, count = (
        tensor.shape[0] if tensor.dim() else None
        for tensor in (weights.first_weight, weights.hidden_weight, origins)
    )
    check_tensors(
        "ray_isosurface",
        {
            "origins": (origins, (count, 3)),
            "directions": (directions, (count, 3)),
            "levels": (levels, (None,)),
            "first_weight": (weights.first_weight, (width, 3)),
            "first_bias": (weights.first_bias, (width,)),
            "hidden_weight": (weights.hidden_weight, (hidden, width, width)),
            "hidden_bias": (weights.hidden_bias, (hidden, width)),
            "last_weight": (weights.last_weight, (1, width)),
            "last_bias": (weights.last_bias, (1,)),
        },
    )
    if samples < 2 or not near < far:
        raise ValueError(
            f"ray_isosurface: needs samples >= 2 and near < far, got {samples}, {near}, {far}"
        )
    if levels.requires_grad:
        raise ValueError("ray_isosurface: levels are constants without a gradient: detach them")
    choice = resolve("ray_isosurface", backend, precision, origins)
    settings = (centre, scale, near, far, samples, plane_z)
    if choice.backend == "reference":
        result = ray_isosurface_reference(
            origins, directions, levels, weights, *settings, precision=choice.precision
        )
    else:
        result = RayIsosurfaceFunction.apply(
            origins, directions, levels, *weights, settings, choice.backend, choice.precision
        )
    return Intersections(*result)


class RayIsosurfaceFunction(torch.autograd.Function):
    """The seam for fused backends.

    `forward(origins, directions, levels, weights, settings, precision)` returns the five tensors of
    `Intersections` and `interval` (R, K) int32, the sample that starts each hit's interval;
    `backward(grad_points, grad_depths, origins, directions, levels, weights, depths, level, valid,
    interval, settings, precision, needed)` returns eight gradients (origins, directions, then the
    weights), None where `needed` is False.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        tensors, (settings, backend, precision) = arguments[:9], arguments[9:]
        points, depths, valid, level, plane_index, interval = implementation(
            "ray_isosurface", backend
        ).forward(*tensors[:3], FieldWeights(*tensors[3:]), settings, precision)
        ctx.save_for_backward(*tensors, depths, level, valid, interval)
        ctx.settings = settings, backend, precision
        ctx.mark_non_differentiable(valid, level, plane_index)
        return points, depths, valid, level, plane_index

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        settings, backend, precision = ctx.settings
        *tensors, depths, level, valid, interval = ctx.saved_tensors
        needed = (*ctx.needs_input_grad[:2], *ctx.needs_input_grad[3:9])
        grads = implementation("ray_isosurface", backend).backward(
            grad_outputs[0], grad_outputs[1], *tensors[:3], FieldWeights(*tensors[3:]),
            depths, level, valid, interval, settings, precision, needed,
        )  # fmt: skip
        return (
            *grads[:2],
            None,  # levels are constants
            *grads[2:],
            None,  # settings
            None,  # backend
            None,  # precision
        )
