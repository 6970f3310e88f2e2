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
from .ray_isosurface_ops import HitGradients, Hits, Inputs, register, sizes
from .ray_isosurface_reference import MIN_PLANE_SLOPE, FieldWeights, RayIsosurfaceGradients

__all__ = ["PRECISIONS", "backward", "forward", "unavailable"]

PRECISIONS = ("fp32", "tf32", "fp16")

# fp16 keeps fp32: rounding the field to fp16 would move hits by a visible share of a step.
DOT_PRECISION = {"fp32": "tf32x3", "tf32": "tf32", "fp16": "tf32x3"}
WARPS = 4
STAGES = 4  # of the pipelines that load slabs of a weight
PROGRAMS = 4  # per multiprocessor


def forward_constants(
    hit_count: int, samples: int, width: int, hidden: int, precision: str
) -> dict[str, Any]:
    """Tile sizes: whole rays, at least 64 samples if a program is on a GPU."""
    samples = power_of_two(samples, 16)
    return {
        **_network_constants(width, hidden, precision, 64),
        "RAYS": max((32 if interpreted() else 64) // samples, 1),
        "SAMPLES": samples,
        "HITS": power_of_two(hit_count, 2),
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


def _launch_forward(inputs: Inputs, hits: Hits) -> None:
    from .ray_isosurface_triton_kernels import forward_kernel

    rays, count, samples, width, layers = sizes(inputs)
    constants = forward_constants(count, samples, width, layers - 1, inputs.precision)
    programs = min(PROGRAMS * multiprocessors(inputs.origins), ceil_div(rays, constants["RAYS"]))
    rows = constants["RAYS"] * constants["SAMPLES"]
    launch(
        forward_kernel,
        (programs,),
        {
            **_inputs(inputs),
            **hits._asdict(),
            "scratch": inputs.origins.new_empty(programs, layers, rows, constants["WIDTH"]),
            "far": inputs.numbers.far,
            "plane_z": inputs.numbers.plane_z,
            "rays": rays,
            "surfaces": count - 1,
            "samples": samples,
        },
        constants,
        warps=WARPS,
        stages=STAGES,
    )


def _launch_backward(
    hits: HitGradients, inputs: Inputs, needed: RayIsosurfaceGradients[bool]
) -> list[Tensor]:
    grad_depth = hits.grad_depths + (hits.grad_points * inputs.directions[:, None]).sum(2)  # (R, K)
    need_rays = needed.origins or needed.directions
    _, _, *of_weights = needed
    need_weights = any(of_weights)
    partial, grad_rays = _through_field(grad_depth, hits, inputs, need_weights, need_rays)
    rays, weights = (inputs.origins, inputs.directions), inputs.weights
    if need_rays:
        rays = _ray_gradients(hits, grad_depth, grad_rays, inputs)
    if need_weights:
        weights = _unpacked(partial.sum(0), inputs.weights)
    # An op may return neither its inputs nor two views of one tensor.
    return [
        grad.clone(memory_format=torch.contiguous_format) if need else grad.new_empty(0)
        for need, grad in zip(needed, RayIsosurfaceGradients(*rays, *weights), strict=True)
    ]


def _inputs(inputs: Inputs) -> dict[str, Any]:
    """What both kernels take, by their names: the weights padded."""
    numbers = inputs.numbers
    return {
        "origins": inputs.origins,
        "directions": inputs.directions,
        "levels": inputs.levels,
        "distances": inputs.distances,
        **_padded_weights(inputs.weights)._asdict(),
        "centre_x": numbers.centre_x,
        "centre_y": numbers.centre_y,
        "centre_z": numbers.centre_z,
        "scale": numbers.scale,
    }


def _through_field(
    grad_depth: Tensor,  # (R, K)
    hits: HitGradients,
    inputs: Inputs,
    need_weights: bool,
    need_rays: bool,
) -> tuple[Tensor, Tensor]:  # sums of each program (programs, size); (R, K, 6)
    """Gradients of the weights, and of each hit's origin and direction, through the field."""
    from .ray_isosurface_triton_kernels import backward_kernel

    rays, count, _, width, layers = sizes(inputs)
    entries, total = _compacted(hits.valid & (hits.level < count - 1) & (grad_depth != 0))
    constants = backward_constants(width, layers - 1, inputs.precision)
    size = sum(weight.numel() for weight in _padded_weights(inputs.weights))
    tiles = ceil_div(rays * count, constants["ENTRIES"])
    programs = min(PROGRAMS * multiprocessors(grad_depth), tiles)
    rows = 2 * constants["ENTRIES"]
    partial = grad_depth.new_zeros(programs if need_weights else 0, size)
    grad_rays = grad_depth.new_zeros(rays if need_rays else 0, count, 6)
    launch(
        backward_kernel,
        (programs,),
        {
            **_inputs(inputs),
            "grad_depth": grad_depth.contiguous(),
            "level": hits.level,
            "interval": hits.interval,
            "entries": entries,
            "count": total,
            "partial": partial,
            "grad_rays": grad_rays,
            "scratch": grad_depth.new_empty(programs, 2 * layers, rows, constants["WIDTH"]),
            "hit_count": count,
            "partial_size": size,
        },
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
    hits: HitGradients,
    grad_depth: Tensor,  # (R, K)
    grad_rays: Tensor,  # (R, K, 6)
    inputs: Inputs,
) -> tuple[Tensor, Tensor]:  # of origins and directions
    through_field = grad_rays.sum(1)
    grad_origins = hits.grad_points.sum(1) + through_field[:, :3]
    grad_directions = (hits.depths[..., None] * hits.grad_points).sum(1) + through_field[:, 3:]

    slope = inputs.directions[:, 2]
    meets = slope < -MIN_PLANE_SLOPE
    slope = torch.where(meets, slope, -1.0)
    plane_depth = (inputs.numbers.plane_z - inputs.origins[:, 2]) / slope
    on_plane = hits.level == hits.depths.shape[1] - 1
    along = torch.where(on_plane, grad_depth, 0.0).sum(1) / slope
    along = torch.where(meets & (plane_depth > 0), along, 0.0)
    grad_origins[:, 2] -= along
    grad_directions[:, 2] -= along * plane_depth
    return grad_origins, grad_directions


def _padded_weights(weights: FieldWeights) -> FieldWeights:
    """The weights with zeros up to the width that the kernels use."""
    width = power_of_two(len(weights.first_bias), 16)
    hidden = len(weights.hidden_bias)
    return FieldWeights(
        padded(weights.first_weight, (width, 3)),
        padded(weights.first_bias, (width,)),
        padded(weights.hidden_weight, (hidden, width, width)),
        padded(weights.hidden_bias, (hidden, width)),
        padded(weights.last_weight, (1, width)),
        padded(weights.last_bias, (1,)),
    )


def _unpacked(flat: Tensor, weights: FieldWeights) -> FieldWeights:
    """Gradients of the weights from the flat sum over padded weights."""
    wide = _padded_weights(weights)
    parts = flat.split([weight.numel() for weight in wide])
    return FieldWeights(
        *(
            part.view(padded_weight.shape)[tuple(slice(size) for size in weight.shape)]
            for part, padded_weight, weight in zip(parts, wide, weights, strict=True)
        )
    )


forward, backward = register("triton", _launch_forward, _launch_backward)
