"""`film_siren` on the CPU: one native launch forward, one backward (`csrc/film_siren_*.cpp`).

A precision is that of both: `accurate` has operands of two bf16 parts, `fast` of one, and sums are
in fp32 either way. Against float64 every output and gradient of `accurate` is within 1e-4 (relative
root mean square), and none of `fast` is worse than what bf16 autocast gives.
"""

from torch import Tensor

from ._extension import addresses, empty_where, native, none_where_not, threads, unavailable
from .film_siren_ops import differentiable, empty_output, register

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


def _launch_forward(inputs: list[Tensor], trunk_channels: int, precision: str) -> Tensor:
    output = empty_output(inputs)
    native().film_siren_forward(
        _sizes(inputs, trunk_channels), addresses(*inputs), precision, output.data_ptr(), threads()
    )
    return output


def _launch_backward(
    grad_output: Tensor,
    inputs: list[Tensor],
    trunk_channels: int,
    precision: str,
    needed: list[bool],
) -> list[Tensor]:
    grads = empty_where(needed, differentiable(inputs))
    native().film_siren_backward(
        _sizes(inputs, trunk_channels),
        addresses(*inputs),
        precision,
        grad_output.data_ptr(),
        addresses(*none_where_not(needed, grads)),
        threads(),
    )
    return grads


def _sizes(inputs: list[Tensor], trunk_channels: int) -> list[int]:
    count, size = inputs[0].shape
    groups, heads, channels, width = inputs[12].shape
    return [count, size, width, heads + 1, inputs[2].shape[0], groups, channels, trunk_channels]


forward, backward = register("cpu", _launch_forward, _launch_backward)
