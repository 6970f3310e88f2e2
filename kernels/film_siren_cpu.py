"""`film_siren` on the CPU: one native launch forward, one backward (`csrc/film_siren_*.cpp`).

A precision is that of both: `accurate` has operands of two bf16 parts, `fast` of one, and sums are
in fp32 either way. Against float64 every output and gradient of `accurate` is within 1e-4 (relative
root mean square), and none of `fast` is worse than what bf16 autocast gives.
"""

import functools
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ._extension import addresses, empty_where, native, none_where_not, threads, unavailable
from .film_siren_ops import empty_output, register
from .film_siren_reference import FilmSirenCall, FilmSirenGradients, differentiable, tensors_of

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


def skips_identity() -> bool:
    """A first weight of size (W, 0) has address 0; a module built before that would read there."""
    return hasattr(native(), "film_siren_skips_identity")


def gains_nothing(precision: str) -> bool:
    """AVX512-BF16 of Intel's multiplies no more in a cycle than its fp32 does; AMD's does."""
    return precision == "fast" and native().isa() == "avx512_bf16" and _is_intel()


@functools.cache
def _is_intel() -> bool:
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


class Sizes(NamedTuple):
    """Of a call, as the native module takes them."""

    points: int
    inputs: int
    width: int
    layers: int
    rows: int
    groups: int
    channels: int
    trunk_channels: int


def _launch_forward(call: FilmSirenCall) -> Tensor:
    output = empty_output(call)
    native().film_siren_forward(
        _sizes(call), addresses(*tensors_of(call)), call.precision, output.data_ptr(), threads()
    )
    return output


def _launch_backward(
    grad_output: Tensor, call: FilmSirenCall, needed: FilmSirenGradients[bool]
) -> list[Tensor]:
    grads = empty_where(needed, differentiable(call))
    native().film_siren_backward(
        _sizes(call),
        addresses(*tensors_of(call)),
        call.precision,
        grad_output.data_ptr(),
        addresses(*none_where_not(needed, grads)),
        threads(),
    )
    return grads


def _sizes(call: FilmSirenCall) -> Sizes:
    count, inputs = call.points.shape
    groups, heads, channels, width = call.weights.head_weight.shape
    rows = len(call.frequencies)
    return Sizes(count, inputs, width, heads + 1, rows, groups, channels, call.trunk_channels)


forward, backward = register("cpu", _launch_forward, _launch_backward)
