"""`ray_isosurface` as `torch.library` ops: registered here once, for every backend with kernels."""

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._extension import addresses, empty_where, none_where_not, registered
from .ray_isosurface import FieldWeights

Settings = tuple[tuple[float, float, float], float, float, float, int, float]
LaunchForward = Callable[[list[Tensor], list[float], str, tuple[Tensor, ...]], None]
LaunchBackward = Callable[
    [list[Tensor], list[Tensor], list[Tensor], list[float], str, list[bool]], list[Tensor]
]


class Sizes(NamedTuple):
    """Of the inputs of a launch; `layers` are the hidden ones, the first among them."""

    rays: int
    hits: int
    samples: int
    width: int
    layers: int


def native_launches(
    module: Callable[[], ModuleType], where: Callable[..., Any]
) -> tuple[LaunchForward, LaunchBackward]:
    """Those of a module built from csrc/; `where` gives the last argument of its functions."""

    def launch_forward(
        inputs: list[Tensor], numbers: list[float], precision: str, outputs: tuple[Tensor, ...]
    ) -> None:
        size = sizes(inputs)
        forward_floats, _ = module().ray_isosurface_workspace(size)
        with where(inputs[0], forward_floats) as place:
            module().ray_isosurface_forward(
                size, numbers, addresses(*inputs), addresses(*outputs), place
            )

    def launch_backward(
        grad_hits: list[Tensor],
        hits: list[Tensor],
        inputs: list[Tensor],
        numbers: list[float],
        precision: str,
        needed: list[bool],
    ) -> list[Tensor]:
        size = sizes(inputs)
        grads = empty_where(needed, differentiable(inputs))
        _, backward_floats = module().ray_isosurface_workspace(size)
        with where(inputs[0], backward_floats) as place:
            module().ray_isosurface_backward(
                size,
                numbers,
                addresses(*inputs),
                addresses(*grad_hits, *hits),
                addresses(*none_where_not(needed, grads)),
                place,
            )
        return grads

    return launch_forward, launch_backward


def register(
    backend: str, launch_forward: LaunchForward, launch_backward: LaunchBackward
) -> tuple[Callable[..., tuple[Tensor, ...]], Callable[..., list[Tensor | None]]]:
    """`forward` and `backward` as `RayIsosurfaceFunction` calls them, around two launches.

    `launch_forward(inputs, numbers, precision, outputs)` writes points, depths, valid, level,
    plane_index and interval. `launch_backward(grad_hits, hits, inputs, numbers, precision, needed)`
    returns a gradient for each of `differentiable(inputs)`, of size 0 where it is not needed.
    `inputs` are contiguous: origins, directions, levels, distances of the samples, then the
    weights; `numbers` are centre, scale, far, plane_z; `hits` are depths, level, valid, interval.
    """

    def forward_run(
        inputs: list[Tensor], numbers: list[float], precision: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        outputs = _empty_hits(inputs)
        launch_forward(inputs, numbers, precision, outputs)
        return outputs

    def forward_fake(
        inputs: list[Tensor], numbers: list[float], precision: str
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        return _empty_hits(inputs)

    forward_op = registered(f"ray_isosurface_forward_{backend}", forward_run, forward_fake)

    def backward_run(
        grad_hits: list[Tensor],  # of points and depths
        hits: list[Tensor],
        inputs: list[Tensor],
        numbers: list[float],
        precision: str,
        needed: list[bool],
    ) -> list[Tensor]:
        return launch_backward(grad_hits, hits, inputs, numbers, precision, needed)

    def backward_fake(
        grad_hits: list[Tensor],
        hits: list[Tensor],
        inputs: list[Tensor],
        numbers: list[float],
        precision: str,
        needed: list[bool],
    ) -> list[Tensor]:
        return empty_where(needed, differentiable(inputs))

    backward_op = registered(f"ray_isosurface_backward_{backend}", backward_run, backward_fake)

    def forward(
        origins: Tensor,
        directions: Tensor,
        levels: Tensor,
        weights: FieldWeights,
        settings: Settings,
        precision: str,
    ) -> tuple[Tensor, ...]:
        inputs, numbers = _inputs([origins, directions, levels, *weights], settings)
        return forward_op(inputs, numbers, precision)

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
        hits = [depths, level, valid, interval]
        flags = list(needed)
        return none_where_not(flags, backward_op(grads, hits, inputs, numbers, precision, flags))

    return forward, backward


def differentiable(inputs: list[Tensor]) -> list[Tensor]:
    """Origins, directions and weights."""
    return inputs[:2] + inputs[4:]


def sizes(inputs: list[Tensor]) -> Sizes:
    hidden, width, _ = inputs[6].shape
    return Sizes(len(inputs[0]), len(inputs[2]) + 1, len(inputs[3]), width, hidden + 1)


def _inputs(tensors: list[Tensor], settings: Settings) -> tuple[list[Tensor], list[float]]:
    centre, scale, near, far, samples, plane_z = settings
    distances = torch.linspace(near, far, samples, device=tensors[0].device, dtype=torch.float32)
    inputs = [tensor.contiguous() for tensor in tensors]
    return [*inputs[:3], distances, *inputs[3:]], [*map(float, centre), scale, far, plane_z]


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
