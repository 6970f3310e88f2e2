"""`ray_isosurface` on the CPU: one native launch each way (`csrc/ray_isosurface_cpu.cpp`)."""

import torch
from torch import Tensor

from ._extension import addresses, empty_where, native, none_where_not, threads, unavailable
from .ray_isosurface import FieldWeights

__all__ = ["PRECISIONS", "backward", "forward", "unavailable"]

PRECISIONS = ("fp32",)

Settings = tuple[tuple[float, float, float], float, float, float, int, float]


def forward(
    origins: Tensor,
    directions: Tensor,
    levels: Tensor,
    weights: FieldWeights,
    settings: Settings,
    precision: str,
) -> tuple[Tensor, ...]:
    inputs, numbers = _inputs([origins, directions, levels, *weights], settings)
    return _forward_op(inputs, numbers)


def backward(
    grad_points: Tensor,
    grad_depths: Tensor,
    origins: Tensor,
    directions: Tensor,
    levels: Tensor,
    weights: FieldWeights,
    depths: Tensor,
    level: Tensor,
    valid: Tensor,
    interval: Tensor,
    settings: Settings,
    precision: str,
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    inputs, numbers = _inputs([origins, directions, levels, *weights], settings)
    grads = [grad_points.contiguous(), grad_depths.contiguous()]
    flags = list(needed)
    hits = [depths, level, valid, interval]
    return none_where_not(flags, _backward_op(grads, hits, inputs, numbers, flags))


def _inputs(tensors: list[Tensor], settings: Settings) -> tuple[list[Tensor], list[float]]:
    """Origins, directions, levels, sample distances and weights; centre, scale, far, plane_z."""
    centre, scale, near, far, samples, plane_z = settings
    distances = torch.linspace(near, far, samples, dtype=torch.float32)
    inputs = [tensor.contiguous() for tensor in tensors]
    return [*inputs[:3], distances, *inputs[3:]], [*map(float, centre), scale, far, plane_z]


@torch.library.custom_op("semfaceedit::ray_isosurface_forward_cpu", mutates_args=())
def _forward_op(
    inputs: list[Tensor], numbers: list[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    outputs = _empty_hits(inputs)
    native().ray_isosurface_forward(
        _sizes(inputs), numbers, addresses(*inputs), addresses(*outputs), threads()
    )
    return outputs


@_forward_op.register_fake
def _(
    inputs: list[Tensor], numbers: list[float]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_hits(inputs)


@torch.library.custom_op("semfaceedit::ray_isosurface_backward_cpu", mutates_args=())
def _backward_op(
    grad_hits: list[Tensor],  # of points and depths
    hits: list[Tensor],  # depths, level, valid, interval
    inputs: list[Tensor],
    numbers: list[float],
    needed: list[bool],
) -> list[Tensor]:
    grads = empty_where(needed, _differentiable(inputs))
    native().ray_isosurface_backward(
        _sizes(inputs),
        numbers,
        addresses(*inputs),
        addresses(*grad_hits, *hits),
        addresses(*none_where_not(needed, grads)),
        threads(),
    )
    return grads


@_backward_op.register_fake
def _(
    grad_hits: list[Tensor],
    hits: list[Tensor],
    inputs: list[Tensor],
    numbers: list[float],
    needed: list[bool],
) -> list[Tensor]:
    return empty_where(needed, _differentiable(inputs))


def _differentiable(inputs: list[Tensor]) -> list[Tensor]:
    return inputs[:2] + inputs[4:]


def _sizes(inputs: list[Tensor]) -> list[int]:
    rays, hits, samples = len(inputs[0]), len(inputs[2]) + 1, len(inputs[3])
    hidden, width, _ = inputs[6].shape
    return [rays, hits, samples, width, hidden + 1]


def _empty_hits(
    inputs: list[Tensor],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Points, depths, valid, level, plane_index and interval."""
    rays, hits = len(inputs[0]), len(inputs[2]) + 1
    device = inputs[0].device
    return (
        torch.empty(rays, hits, 3, device=device),
        torch.empty(rays, hits, device=device),
        torch.empty(rays, hits, dtype=torch.bool, device=device),
        torch.empty(rays, hits, dtype=torch.int64, device=device),
        torch.empty(rays, dtype=torch.int64, device=device),
        torch.empty(rays, hits, dtype=torch.int32, device=device),
    )
