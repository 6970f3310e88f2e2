"""`film_siren` on the CPU: one native launch forward, one backward (`csrc/film_siren_*.cpp`).

`accurate` and `fast` are forward precisions: the gradients are those of the fp32 recomputation at
every precision, and as good.
"""

import torch
from torch import Tensor

from ._extension import addresses, empty_where, native, none_where_not, threads, unavailable
from .film_siren import FilmSirenWeights

__all__ = ["PRECISIONS", "backward", "forward", "precision_unavailable", "unavailable"]

PRECISIONS = ("accurate", "fp32", "fast")
NEEDS = {
    "accurate": "AMX with bf16 (amx_tile, amx_bf16) that the system lets programs use",
    "fast": "AMX or AVX512-BF16",
}


def precision_unavailable(precision: str) -> str | None:
    """What the CPU, or the instruction set chosen for it, lacks for a precision."""
    module = native()
    if precision in module.film_siren_precisions():
        return None
    return f"it needs {NEEDS[precision]}; the instructions in use are {module.isa()}"


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
    return _forward_op([tensor.contiguous() for tensor in inputs], trunk_channels, precision)


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
    flags = list(needed)
    grads = _backward_op(
        grad_output.contiguous(), [tensor.contiguous() for tensor in inputs], trunk_channels, flags
    )
    return none_where_not(flags, grads)


@torch.library.custom_op("semfaceedit::film_siren_forward_cpu", mutates_args=())
def _forward_op(inputs: list[Tensor], trunk_channels: int, precision: str) -> Tensor:
    output = inputs[0].new_empty(_output_shape(inputs))
    native().film_siren_forward(
        _sizes(inputs, trunk_channels), addresses(*inputs), precision, output.data_ptr(), threads()
    )
    return output


@_forward_op.register_fake
def _(inputs: list[Tensor], trunk_channels: int, precision: str) -> Tensor:
    return inputs[0].new_empty(_output_shape(inputs))


@torch.library.custom_op("semfaceedit::film_siren_backward_cpu", mutates_args=())
def _backward_op(
    grad_output: Tensor, inputs: list[Tensor], trunk_channels: int, needed: list[bool]
) -> list[Tensor]:
    grads = empty_where(needed, _differentiable(inputs))
    native().film_siren_backward(
        _sizes(inputs, trunk_channels),
        addresses(*inputs),
        grad_output.data_ptr(),
        addresses(*none_where_not(needed, grads)),
        threads(),
    )
    return grads


@_backward_op.register_fake
def _(
    grad_output: Tensor, inputs: list[Tensor], trunk_channels: int, needed: list[bool]
) -> list[Tensor]:
    return empty_where(needed, _differentiable(inputs))


def _differentiable(inputs: list[Tensor]) -> list[Tensor]:
    return inputs[:4] + inputs[6:]


def _output_shape(inputs: list[Tensor]) -> tuple[int, int]:
    return inputs[0].shape[0], inputs[12].shape[2]


def _sizes(inputs: list[Tensor], trunk_channels: int) -> list[int]:
    count, size = inputs[0].shape
    groups, heads, channels, width = inputs[12].shape
    return [count, size, width, heads + 1, inputs[2].shape[0], groups, channels, trunk_channels]
