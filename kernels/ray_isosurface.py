"""Rays against a stack of learned iso-surfaces and the background plane, as one op."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ._backend import implementation, resolve
from ._checks import check_tensors
from .ray_isosurface_reference import (
    FieldSettings,
    FieldWeights,
    Intersections,
    RayIsosurfaceCall,
    ray_isosurface_reference,
)

__all__ = ["FieldWeights", "Intersections", "RayIsosurfaceFunction", "ray_isosurface"]


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
    settings = FieldSettings(centre, scale, near, far, samples, plane_z)
    call = RayIsosurfaceCall(origins, directions, levels, weights, settings, choice.precision)
    if choice.backend == "reference":
        return ray_isosurface_reference(*call)
    return Intersections(
        *RayIsosurfaceFunction.apply(
            settings, choice.backend, choice.precision, origins, directions, levels, *weights
        )
    )


class RayIsosurfaceFunction(torch.autograd.Function):
    """The seam for fused backends.

    `forward(call)` returns the tensors of `Intersections` and `interval` (R, K) int32, the sample
    that starts each hit's interval; `backward(hits, call, needed)`, where `hits` are the gradients
    of points and depths, then depths, level, valid and interval, returns eight gradients in the
    order of `RayIsosurfaceGradients`, as the flags `needed` are; one not needed is None.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        settings, backend, precision, *tensors = arguments
        points, depths, valid, level, plane_index, interval = implementation(
            "ray_isosurface", backend
        ).forward(_call_of(tensors, settings, precision))
        ctx.save_for_backward(*tensors, depths, level, valid, interval)
        ctx.settings = settings, backend, precision
        ctx.mark_non_differentiable(valid, level, plane_index)
        return points, depths, valid, level, plane_index

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        settings, backend, precision = ctx.settings
        grad_points, grad_depths, *_ = grad_outputs
        *tensors, depths, level, valid, interval = ctx.saved_tensors
        hits = (grad_points, grad_depths, depths, level, valid, interval)
        call = _call_of(tensors, settings, precision)
        _, _, _, origins, directions, _, *weights = ctx.needs_input_grad
        origins, directions, *weights = implementation("ray_isosurface", backend).backward(
            hits, call, (origins, directions, *weights)
        )
        # None for settings, backend, precision; levels, which are constants.
        return (None, None, None, origins, directions, None, *weights)


def _call_of(
    tensors: Sequence[Tensor], settings: FieldSettings, precision: str
) -> RayIsosurfaceCall:
    origins, directions, levels, *weights = tensors
    return RayIsosurfaceCall(
        origins, directions, levels, FieldWeights(*weights), settings, precision
    )
