"""`ray_isosurface` on the CPU: one native launch each way (`csrc/ray_isosurface_cpu.cpp`).

At `accurate` and `fast`, on a CPU with AMX, the field's hidden layers have operands of two bf16
parts on the way forward (`csrc/ray_isosurface_bf16.cpp`). Everything else is in fp32 at every
precision: a field in plain bf16 would move hits visibly.
"""

from ._extension import addresses, native, on_threads, threads, unavailable
from .ray_isosurface_ops import Hits, Inputs, native_launches, register, sizes, tensors_of

__all__ = ["PRECISIONS", "backward", "forward", "unavailable"]

PRECISIONS = ("fp32", "accurate", "fast")

_forward_fp32, _backward_fp32 = native_launches(native, on_threads)


def _launch_forward(inputs: Inputs, hits: Hits) -> None:
    if inputs.precision == "fp32":
        _forward_fp32(inputs, hits)
        return
    native().ray_isosurface_forward_bf16(
        sizes(inputs), inputs.numbers, addresses(*tensors_of(inputs)), addresses(*hits), threads()
    )


forward, backward = register("cpu", _launch_forward, _backward_fp32)
