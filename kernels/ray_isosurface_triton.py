"""`ray_isosurface` in Triton: one launch each way. No result depends on the order of programs."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._triton import (
    MOST,
    SHARED_LIMIT,
    Version,
    capability,
    ceil_div,
    interpreted,
    launch,
    multiprocessors,
    padded,
    power_of_two,
    resident,
    unavailable,
    version,
)
from .ray_isosurface_ops import HitGradients, Hits, Inputs, register, sizes
from .ray_isosurface_reference import MIN_PLANE_SLOPE, FieldWeights, RayIsosurfaceGradients

__all__ = ["PRECISIONS", "backward", "forward", "unavailable"]

PRECISIONS = ("fp32", "tf32", "fp16")

# fp16 keeps fp32: rounding the field to fp16 would move hits by a visible share of a step.
DOT_PRECISION = {"fp32": "tf32x3", "tf32": "tf32", "fp16": "tf32x3"}
PARTS = {"fp32": 2, "tf32": 1, "fp16": 2}  # fp16 numbers in an operand of the forward pass
HALF = 2  # bytes
TOP = 15  # scaled weights are below two to this power
WARPS = 4
STAGES = 4  # of the pipelines that load slabs of a weight through scratch
PROGRAMS = 4  # per multiprocessor, at most
SCRATCH_PROGRAMS = 2  # the same through scratch: what registers allow


@dataclass(frozen=True)
class ForwardTiling:
    """How the forward kernel takes the samples of some rays at once."""

    rays: int
    parts: int  # 0: activations do not fit the registers and go through scratch
    kept: bool  # weights stay in shared memory
    warps: int
    registers: int  # that a thread takes, at most
    programs: int  # per multiprocessor
    hoisted: bool = False  # compute ahead of the loop over tiles what does not change in it

    @property
    def stages(self) -> int:
        return 1 if self.parts else STAGES  # a pipeline would hold other tensors than weights too


def forward_tiling(
    samples: int,
    width: int,
    hidden: int,
    precision: str,
    architecture: int,
    triton: Version | None = None,
) -> ForwardTiling:
    """Whole rays, at least 64 samples if a program is on a GPU. Chosen to spill no registers; how
    many it takes depends on the version of Triton, None: the installed one."""
    samples, width, parts = power_of_two(samples, 16), power_of_two(width, 16), PARTS[precision]
    if architecture == 0:
        return ForwardTiling(max(32 // samples, 1), parts, hidden % 2 == 0, WARPS, MOST, PROGRAMS)
    warpgroups = architecture in (90, 100)
    rows = max(128 if architecture == 90 and width == 128 else 64, samples)
    # Triton 3.6 gives each product tensor memory of its own on 100: too much at width 128.
    most = {90: 128 * 128, 100: 64 * 64}.get(architecture, 64 * 128)
    if rows * width > most:
        return ForwardTiling(rows // samples, 0, False, WARPS, MOST, SCRATCH_PROGRAMS, hoisted=True)
    limit = SHARED_LIMIT[architecture]
    needed = parts * HALF * width * (hidden * width + rows)  # weights, and activations on the way
    kept = needed <= limit and (warpgroups or width == 128)
    warps = 4 if rows * width <= 64 * 64 else 8
    registers = _narrow_registers(architecture, triton or version()) if warps == 4 else MOST
    programs = min(resident(warps, registers), PROGRAMS)
    if kept:
        programs = min(programs, limit // needed)
    return ForwardTiling(
        rows // samples, parts, kept, warps, registers, programs, hoisted=kept and not warpgroups
    )


def _narrow_registers(architecture: int, triton: Version) -> int:
    """That a thread of a tile of up to 64 samples x width 64 takes, as it is compiled."""
    if architecture == 90:
        return 128
    if architecture == 100:
        return 136 if triton < (3, 8) else 128
    if triton < (3, 7):
        return MOST
    if triton < (3, 9):
        return 184 if architecture == 120 else 168
    return 168 if architecture == 120 else 128


def forward_constants(
    hit_count: int, samples: int, width: int, hidden: int, precision: str, tiling: ForwardTiling
) -> dict[str, Any]:
    return {
        **_network_constants(width, hidden, precision, 64),
        "RAYS": tiling.rays,
        "SAMPLES": power_of_two(samples, 16),
        "HITS": power_of_two(hit_count, 2),
        "PARTS": tiling.parts,
        "KEPT": tiling.kept,
        "HOISTED": tiling.hoisted,
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
    precision, origins = inputs.precision, inputs.origins
    tiling = forward_tiling(samples, width, layers - 1, precision, capability(origins))
    constants = forward_constants(count, samples, width, layers - 1, precision, tiling)
    programs = min(tiling.programs * multiprocessors(origins), ceil_div(rays, tiling.rays))
    rows = constants["RAYS"] * constants["SAMPLES"]
    scratch = (programs, layers, rows, constants["WIDTH"]) if tiling.parts == 0 else (0,)
    launch(
        forward_kernel,
        (programs,),
        {
            **_inputs(inputs),
            **hits._asdict(),
            **_halves(_padded_weights(inputs.weights), tiling.parts)._asdict(),
            "scratch": origins.new_empty(scratch),
            "far": inputs.numbers.far,
            "plane_z": inputs.numbers.plane_z,
            "rays": rays,
            "surfaces": count - 1,
            "samples": samples,
        },
        constants,
        warps=tiling.warps,
        stages=tiling.stages,
    )


class Halves(NamedTuple):
    """The weights in fp16 as the forward kernel names and takes them."""

    first_parts: Tensor  # (W, 16)
    hidden_parts: Tensor  # (D - 1, parts, W, W)
    inverses: Tensor  # (D,) fp32


def _halves(weights: FieldWeights, parts: int) -> Halves:
    """Each matrix times a power of two, as a sum of fp16 numbers."""
    first, hidden = weights.first_weight[None], weights.hidden_weight
    largest = torch.cat([first.abs().amax((1, 2)), hidden.abs().amax((1, 2))])
    exponents = TOP - torch.frexp(largest).exponent.clamp(min=-100)
    high, low = (part[0] for part in _parts(first, exponents[:1]))
    return Halves(
        padded(torch.cat([high, high, low, low], 1), (len(high), 16)),
        torch.stack(_parts(hidden, exponents[1:])[:parts], 1) if parts else hidden.half(),
        _power_of_two(-exponents),
    )


def _parts(matrices: Tensor, exponents: Tensor) -> tuple[Tensor, Tensor]:
    """Of each matrix, times a power of two: fp16, and what that leaves."""
    x = matrices * _power_of_two(exponents)[:, None, None]
    high = x.half()
    return high, (x - high).half()


def _power_of_two(exponents: Tensor) -> Tensor:
    return ((exponents + 127) << 23).view(torch.float32)


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
    programs = min(SCRATCH_PROGRAMS * multiprocessors(grad_depth), tiles)
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
