"""`film_siren` as `torch.library` ops: registered here once, for every backend with kernels."""

from collections.abc import Callable

from torch import Tensor

from ._extension import empty_where, none_where_not, registered
from .film_siren_reference import (
    FilmSirenCall,
    FilmSirenGradients,
    call_of,
    differentiable,
    tensors_of,
)

LaunchForward = Callable[[FilmSirenCall], Tensor]
LaunchBackward = Callable[[Tensor, FilmSirenCall, FilmSirenGradients[bool]], list[Tensor]]


def register(
    backend: str, launch_forward: LaunchForward, launch_backward: LaunchBackward
) -> tuple[LaunchForward, Callable[..., list[Tensor | None]]]:
    """`forward` and `backward` as `FilmSirenFunction` calls them, around two launches.

    `launch_forward(call)` returns the output. `launch_backward(grad_output, call, needed)` returns
    a gradient for each of `differentiable(call)`, of size 0 where it is not needed. The tensors of
    the call are contiguous.
    """

    def forward_run(tensors: list[Tensor], trunk_channels: int, precision: str) -> Tensor:
        return launch_forward(call_of(tensors, trunk_channels, precision))

    def forward_fake(tensors: list[Tensor], trunk_channels: int, precision: str) -> Tensor:
        return empty_output(call_of(tensors, trunk_channels, precision))

    def backward_run(
        grad_output: Tensor,
        tensors: list[Tensor],
        trunk_channels: int,
        precision: str,
        needed: list[bool],
    ) -> list[Tensor]:
        call = call_of(tensors, trunk_channels, precision)
        return launch_backward(grad_output, call, FilmSirenGradients(*needed))

    def backward_fake(
        grad_output: Tensor,
        tensors: list[Tensor],
        trunk_channels: int,
        precision: str,
        needed: list[bool],
    ) -> list[Tensor]:
        return empty_where(needed, differentiable(call_of(tensors, trunk_channels, precision)))

    forward_op = registered(f"film_siren_forward_{backend}", forward_run, forward_fake)
    backward_op = registered(f"film_siren_backward_{backend}", backward_run, backward_fake)

    def forward(call: FilmSirenCall) -> Tensor:
        return forward_op(_contiguous(call), call.trunk_channels, call.precision)

    def backward(
        grad_output: Tensor, call: FilmSirenCall, needed: tuple[bool, ...]
    ) -> list[Tensor | None]:
        flags = list(needed)
        grads = backward_op(
            grad_output.contiguous(), _contiguous(call), call.trunk_channels, call.precision, flags
        )
        return none_where_not(flags, grads)

    return forward, backward


def empty_output(call: FilmSirenCall) -> Tensor:  # (P, C)
    return call.points.new_empty(len(call.points), call.weights.head_weight.shape[2])


def _contiguous(call: FilmSirenCall) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors_of(call)]
