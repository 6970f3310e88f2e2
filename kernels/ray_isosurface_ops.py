"""`ray_isosurface` as `torch.library` ops: registered here once, for every backend with kernels."""

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._extension import addresses, empty_where, none_where_not, registered
from .ray_isosurface_reference import FieldWeights, RayIsosurfaceCall, RayIsosurfaceGradients


class Numbers(NamedTuple):
    """The settings that kernels take, by their names."""

    centre_x: float
    centre_y: float
    centre_z: float
    scale: float
    far: float
    plane_z: float


class Inputs(NamedTuple):
    """A call as launches take it: contiguous tensors, with the distances of the samples."""

    origins: Tensor  # (R, 3)
    directions: Tensor  # (R, 3)
    levels: Tensor  # (K - 1,)
    distances: Tensor  # (S,)
    weights: FieldWeights
    numbers: Numbers
    precision: str


class Hits(NamedTuple):
    """What a launch writes: `Intersections`, and the sample that starts each hit's interval."""

    points: Tensor  # (R, K, 3)
    depths: Tensor  # (R, K)
    valid: Tensor  # (R, K) bool
    level: Tensor  # (R, K) int64
    plane_index: Tensor  # (R,) int64
    interval: Tensor  # (R, K) int32


class HitGradients(NamedTuple):
    """What the backward pass is given: gradients of the hits, then what they were."""

    grad_points: Tensor
    grad_depths: Tensor
    depths: Tensor
    level: Tensor
    valid: Tensor
    interval: Tensor


class Sizes(NamedTuple):
    """Of the inputs of a launch; `layers` are the hidden ones, the first among them."""

    rays: int
    hit_count: int
    samples: int
    width: int
    layers: int


LaunchForward = Callable[[Inputs, Hits], None]
LaunchBackward = Callable[[HitGradients, Inputs, RayIsosurfaceGradients[bool]], list[Tensor]]


def native_launches(
    module: Callable[[], ModuleType], where: Callable[..., Any]
) -> tuple[LaunchForward, LaunchBackward]:
    """Those of a module built from csrc/; `where` gives the last argument of its functions."""

    def launch_forward(inputs: Inputs, hits: Hits) -> None:
        size = sizes(inputs)
        forward_floats, _ = module().ray_isosurface_workspace(size)
        with where(inputs.origins, forward_floats) as place:
            module().ray_isosurface_forward(
                size, inputs.numbers, addresses(*tensors_of(inputs)), addresses(*hits), place
            )

    def launch_backward(
        hits: HitGradients, inputs: Inputs, needed: RayIsosurfaceGradients[bool]
    ) -> list[Tensor]:
        size = sizes(inputs)
        grads = empty_where(needed, differentiable(inputs))
        _, backward_floats = module().ray_isosurface_workspace(size)
        with where(inputs.origins, backward_floats) as place:
            module().ray_isosurface_backward(
                size,
                inputs.numbers,
                addresses(*tensors_of(inputs)),
                addresses(*hits),
                addresses(*none_where_not(needed, grads)),
                place,
            )
        return grads

    return launch_forward, launch_backward


def register(
    backend: str, launch_forward: LaunchForward, launch_backward: LaunchBackward
) -> tuple[Callable[..., tuple[Tensor, ...]], Callable[..., list[Tensor | None]]]:
    """`forward` and `backward` as `RayIsosurfaceFunction` calls them, around two launches.

    `launch_forward(inputs, hits)` writes the hits. `launch_backward(hits, inputs, needed)` returns
    a gradient for each of `differentiable(inputs)`, of size 0 where it is not needed.
    """

    def forward_run(
        tensors: list[Tensor], numbers: list[float], precision: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        inputs = _inputs_of(tensors, numbers, precision)
        hits = _empty_hits(inputs)
        launch_forward(inputs, hits)
        return hits

    def forward_fake(
        tensors: list[Tensor], numbers: list[float], precision: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        return _empty_hits(_inputs_of(tensors, numbers, precision))

    def backward_run(
        hits: list[Tensor],
        tensors: list[Tensor],
        numbers: list[float],
        precision: str,
        needed: list[bool],
    ) -> list[Tensor]:
        inputs = _inputs_of(tensors, numbers, precision)
        return launch_backward(HitGradients(*hits), inputs, RayIsosurfaceGradients(*needed))

    def backward_fake(
        hits: list[Tensor],
        tensors: list[Tensor],
        numbers: list[float],
        precision: str,
        needed: list[bool],
    ) -> list[Tensor]:
        return empty_where(needed, differentiable(_inputs_of(tensors, numbers, precision)))

    forward_op = registered(f"ray_isosurface_forward_{backend}", forward_run, forward_fake)
    backward_op = registered(f"ray_isosurface_backward_{backend}", backward_run, backward_fake)

    def forward(call: RayIsosurfaceCall) -> tuple[Tensor, ...]:
        return forward_op(*_arguments(call))

    def backward(
        hits: tuple[Tensor, ...], call: RayIsosurfaceCall, needed: tuple[bool, ...]
    ) -> list[Tensor | None]:
        tensors, flags = [tensor.contiguous() for tensor in hits], list(needed)
        return none_where_not(flags, backward_op(tensors, *_arguments(call), flags))

    return forward, backward


def tensors_of(inputs: Inputs) -> list[Tensor]:
    """All tensors of a launch, the weights last."""
    return [inputs.origins, inputs.directions, inputs.levels, inputs.distances, *inputs.weights]


def differentiable(inputs: Inputs) -> RayIsosurfaceGradients[Tensor]:
    """The tensors that have a gradient."""
    return RayIsosurfaceGradients(inputs.origins, inputs.directions, *inputs.weights)


def sizes(inputs: Inputs) -> Sizes:
    hidden, width, _ = inputs.weights.hidden_weight.shape
    rays, hit_count, samples = len(inputs.origins), len(inputs.levels) + 1, len(inputs.distances)
    return Sizes(rays, hit_count, samples, width, hidden + 1)


def _arguments(call: RayIsosurfaceCall) -> tuple[list[Tensor], list[float], str]:
    """What the ops take for a call."""
    centre, scale, near, far, samples, plane_z = call.settings
    distances = torch.linspace(near, far, samples, device=call.origins.device, dtype=torch.float32)
    tensors = [call.origins, call.directions, call.levels, distances, *call.weights]
    numbers = [*map(float, centre), scale, far, plane_z]
    return [tensor.contiguous() for tensor in tensors], numbers, call.precision


def _inputs_of(tensors: Sequence[Tensor], numbers: Sequence[float], precision: str) -> Inputs:
    origins, directions, levels, distances, *weights = tensors
    return Inputs(
        origins, directions, levels, distances, FieldWeights(*weights), Numbers(*numbers), precision
    )


def _empty_hits(inputs: Inputs) -> Hits:
    rays, hit_count = len(inputs.origins), len(inputs.levels) + 1
    device = inputs.origins.device
    return Hits(
        points=torch.empty(rays, hit_count, 3, device=device),
        depths=torch.empty(rays, hit_count, device=device),
        valid=torch.empty(rays, hit_count, dtype=torch.bool, device=device),
        level=torch.empty(rays, hit_count, dtype=torch.int64, device=device),
        plane_index=torch.empty(rays, dtype=torch.int64, device=device),
        interval=torch.empty(rays, hit_count, dtype=torch.int32, device=device),
    )
