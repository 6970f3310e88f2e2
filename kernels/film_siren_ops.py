"""`film_siren` as `torch.library` ops: registered here once, for every backend with kernels."""

from collections.abc import Callable

from torch import Tensor

from ._extension import empty_where, none_where_not, registered
from .film_siren import FilmSirenWeights

LaunchForward = Callable[[list[Tensor], int, str], Tensor]
LaunchBackward = Callable[[Tensor, list[Tensor], int, str, list[bool]], list[Tensor]]


def register(
    backend: str, launch_forward: LaunchForward, launch_backward: LaunchBackward
) -> tuple[Callable[..., Tensor], Callable[..., list[Tensor | None]]]:
    """`forward` and `backward` as `FilmSirenFunction` calls them, around two launches.

    `launch_forward(inputs, trunk_channels, precision)` returns the output. `launch_backward(
    grad_output, inputs, trunk_channels, precision, needed)` returns a gradient for each of
    `differentiable(inputs)`, of size 0 where it is not needed. `inputs` are contiguous: points,
    directions, frequencies, phases, row_offsets, row_groups, then the weights.
    """

    def forward_run(inputs: list[Tensor], trunk_channels: int, precision: str) -> Tensor:
        return launch_forward(inputs, trunk_channels, precision)

    def forward_fake(inputs: list[Tensor], trunk_channels: int, precision: str) -> Tensor:
        return empty_output(inputs)

    forward_op = registered(f"film_siren_forward_{backend}", forward_run, forward_fake)

    def backward_run(
        grad_output: Tensor,
        inputs: list[Tensor],
        trunk_channels: int,
        precision: str,
        needed: list[bool],
    ) -> list[Tensor]:
        return launch_backward(grad_output, inputs, trunk_channels, precision, needed)

    def backward_fake(
        grad_output: Tensor,
        inputs: list[Tensor],
        trunk_channels: int,
        precision: str,
        needed: list[bool],
    ) -> list[Tensor]:
        return empty_where(needed, differentiable(inputs))

    backward_op = registered(f"film_siren_backward_{backend}", backward_run, backward_fake)

    def forward(
        points: Tensor,
        directions: Tensor,
        frequencies: Tensor,
        phases: Tensor,
        row_offsets: Tensor,
        row_groups: Tensor,
        weights: FilmSirenWeights,
        trunk_channels: int,
        precision: str,
    ) -> Tensor:
        inputs = [points, directions, frequencies, phases, row_offsets, row_groups, *weights]
        return forward_op([tensor.contiguous() for tensor in inputs], trunk_channels, precision)

    def backward(
        grad_output: Tensor,
        points: Tensor,
        directions: Tensor,
        frequencies: Tensor,
        phases: Tensor,
        row_offsets: Tensor,
        row_groups: Tensor,
        weights: FilmSirenWeights,
        trunk_channels: int,
        precision: str,
        needed: tuple[bool, ...],
    ) -> list[Tensor | None]:
        inputs = [points, directions, frequencies, phases, row_offsets, row_groups, *weights]
        contiguous = [tensor.contiguous() for tensor in inputs]
        flags = list(needed)
        grads = backward_op(grad_output.contiguous(), contiguous, trunk_channels, precision, flags)
        return none_where_not(flags, grads)

    return forward, backward


def differentiable(inputs: list[Tensor]) -> list[Tensor]:
    """Points, directions, frequencies, phases and weights."""
    return inputs[:4] + inputs[6:]


def empty_output(inputs: list[Tensor]) -> Tensor:  # (P, C)
    return inputs[0].new_empty(inputs[0].shape[0], inputs[12].shape[2])
