"""`ray_isosurface` in Triton: one launch each way. No result depends on the order of programs."""

from typing import Any

import torch
from torch import Tensor

from ._triton import (
    ceil_div,
    interpreted,
    launch,
    multiprocessors,
    padded,
    power_of_two,
    unavailable,
)
from .ray_isosurface_ops import register, sizes
from .ray_isosurface_reference import MIN_PLANE_SLOPE

__all__ = ["PRECISIONS", "backward", "forward", "unavailable"]

PRECISIONS = ("fp32", "tf32", "fp16")

# fp16 keeps fp32: rounding the field to fp16 would move hits by a visible share of a step.
DOT_PRECISION = {"fp32": "tf32x3", "tf32": "tf32", "fp16": "tf32x3"}
WARPS = 4
STAGES = 4  # of the pipelines that load slabs of a weight
PROGRAMS = 4  # per multiprocessor


def forward_constants(
    hits: int, samples: int, width: int, hidden: int, precision: str
) -> dict[str, Any]:
    """Tile sizes: whole rays, at least 64 samples if a program is on a GPU."""
    samples = power_of_two(samples, 16)
    return {
        **_network_constants(width, hidden, precision, 64),
        "RAYS": max((32 if interpreted() else 64) // samples, 1),
        "SAMPLES": samples,
        "HITS": power_of_two(hits, 2),
    }


def backward_constants(width: int, hidden: int, precision: str) -> dict[str, Any]:
    constants = _network_constants(width, hidden, precision, 32)
    return {**constants, "ENTRIES": 8 if interpreted() else 32}


def _network_constants(width: int, hidden: int, precision: str, block: int) -> dict[str, Any]:
    width = power_of_two(width, 16)
    return {
        "HIDDEN": hidden,
        "WIDTH": width,
        "BLOCK": min(width, 16 if interpreted() else block),
        "SLAB": 16,
        "PRECISION": DOT_PRECISION[precision],
    }


def _launch_forward(
    inputs: list[Tensor], numbers: list[float], precision: str, outputs: tuple[Tensor, ...]
) -> None:
    from .ray_isosurface_triton_kernels import forward_kernel

    rays, hits, samples, width, layers = sizes(inputs)
    constants = forward_constants(hits, samples, width, layers - 1, precision)
    programs = min(PROGRAMS * multiprocessors(inputs[0]), ceil_div(rays, constants["RAYS"]))
    rows = constants["RAYS"] * constants["SAMPLES"]
    scratch = inputs[0].new_empty(programs, layers, rows, constants["WIDTH"])
    tensors = (*inputs[:4], *_padded_weights(inputs), *outputs, scratch)
    launch(
        forward_kernel,
        (programs,),
        (*tensors, *numbers, rays, hits - 1, samples),
        constants,
        warps=WARPS,
        stages=STAGES,
    )


def _launch_backward(
    grad_hits: list[Tensor],
    hits: list[Tensor],
    inputs: list[Tensor],
    numbers: list[float],
    precision: str,
    needed: list[bool],
) -> list[Tensor]:
    grad_depth = grad_hits[1] + (grad_hits[0] * inputs[1][:, None]).sum(2)  # (R, K)
    partial, grad_rays = _through_field(
        grad_depth, hits, inputs, numbers, precision, any(needed[2:]), any(needed[:2])
    )
    grads: list[Tensor] = []
    if any(needed[:2]):
        grads += _ray_gradients(grad_hits[0], grad_depth, grad_rays, hits, inputs, numbers[5])
    else:
        grads += inputs[:2]
    grads += _unpacked(partial.sum(0), inputs) if any(needed[2:]) else inputs[4:]
    # An op may return neither its inputs nor two views of one tensor.
    return [
        grad.clone(memory_format=torch.contiguous_format) if need else grad.new_empty(0)
        for need, grad in zip(needed, grads, strict=True)
    ]


def _through_field(
    grad_depth: Tensor,  # (R, K)
    hits: list[Tensor],
    inputs: list[Tensor],
    numbers: list[float],
    precision: str,
    need_weights: bool,
    need_rays: bool,
) -> tuple[Tensor, Tensor]:  # sums of each program (programs, size); (R, K, 6)
    """Gradients of the weights, and of each hit's origin and direction, through the field."""
    from .ray_isosurface_triton_kernels import backward_kernel

    _, level, valid, interval = hits
    rays, count, _, width, layers = sizes(inputs)
    entries, total = _compacted(valid & (level < count - 1) & (grad_depth != 0))
    constants = backward_constants(width, layers - 1, precision)
    weights = _padded_weights(inputs)
    size = sum(weight.numel() for weight in weights)
    tiles = ceil_div(rays * count, constants["ENTRIES"])
    programs = min(PROGRAMS * multiprocessors(grad_depth), tiles)
    rows = 2 * constants["ENTRIES"]
    scratch = grad_depth.new_empty(programs, 2 * layers, rows, constants["WIDTH"])
    partial = grad_depth.new_zeros(programs if need_weights else 0, size)
    grad_rays = grad_depth.new_zeros(rays if need_rays else 0, count, 6)
    sums = (partial, grad_rays, scratch)
    hit_tensors = (grad_depth.contiguous(), level, interval, entries, total, *sums)
    launch(
        backward_kernel,
        (programs,),
        (*inputs[:4], *weights, *hit_tensors, *numbers[:4], count, size),
        {**constants, "NEED_WEIGHTS": need_weights, "NEED_RAYS": need_rays},
        warps=WARPS,
        stages=STAGES,
    )
    return partial, grad_rays


def _compacted(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Indices where the flat mask is set, in order, and their number; no wait for the device."""
    flat = mask.flatten()
    place = flat.cumsum(0)
    entries = torch.empty(len(flat) + 1, dtype=torch.int64, device=mask.device)
    index = torch.arange(len(flat), device=mask.device)
    entries.scatter_(0, torch.where(flat, place - 1, len(flat)), index)
    return entries, flat.sum(dtype=torch.int64).reshape(1)


def _ray_gradients(
    grad_points: Tensor,  # (R, K, 3)
    grad_depth: Tensor,  # (R, K)
    grad_rays: Tensor,  # (R, K, 6)
    hits: list[Tensor],
    inputs: list[Tensor],
    plane_z: float,
) -> list[Tensor]:  # of origins and directions
    depths, level, _, _ = hits
    origins, directions = inputs[:2]
    through_field = grad_rays.sum(1)
    grad_origins = grad_points.sum(1) + through_field[:, :3]
    grad_directions = (depths[..., None] * grad_points).sum(1) + through_field[:, 3:]

    slope = directions[:, 2]
    meets = slope < -MIN_PLANE_SLOPE
    slope = torch.where(meets, slope, -1.0)
    plane_depth = (plane_z - origins[:, 2]) / slope
    on_plane = level == depths.shape[1] - 1
    along = torch.where(on_plane, grad_depth, 0.0).sum(1) / slope
    along = torch.where(meets & (plane_depth > 0), along, 0.0)
    grad_origins[:, 2] -= along
    grad_directions[:, 2] -= along * plane_depth
    return [grad_origins, grad_directions]


def _padded_weights(inputs: list[Tensor]) -> list[Tensor]:
    """The weights with zeros up to the width that the kernels use."""
    width = power_of_two(inputs[4].shape[0], 16)
    hidden = inputs[6].shape[0]
    shapes = [(width, 3), (width,), (hidden, width, width), (hidden, width), (1, width), (1,)]
    return [padded(weight, shape) for weight, shape in zip(inputs[4:], shapes, strict=True)]


def _unpacked(flat: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    """Gradients of the weights from the flat sum over padded weights."""
    weights = _padded_weights(inputs)
    parts = flat.split([weight.numel() for weight in weights])
    return [
        part.view(weight.shape)[tuple(slice(size) for size in tensor.shape)]
        for part, weight, tensor in zip(parts, weights, inputs[4:], strict=True)
    ]


forward, backward = register("triton", _launch_forward, _launch_backward)
