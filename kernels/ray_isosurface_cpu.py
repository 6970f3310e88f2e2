"""`ray_isosurface` on the CPU: one native launch each way (`csrc/ray_isosurface_cpu.cpp`)."""

from torch import Tensor

from ._extension import addresses, empty_where, native, none_where_not, threads, unavailable
from .ray_isosurface_ops import differentiable, register, sizes

__all__ = ["PRECISIONS", "backward", "forward", "unavailable"]

PRECISIONS = ("fp32", "accurate", "fast")  # all the same: the predictor stays in fp32


def _launch_forward(
    inputs: list[Tensor], numbers: list[float], precision: str, outputs: tuple[Tensor, ...]
) -> None:
    native().ray_isosurface_forward(
        sizes(inputs), numbers, addresses(*inputs), addresses(*outputs), threads()
    )


def _launch_backward(
    grad_hits: list[Tensor],
    hits: list[Tensor],
    inputs: list[Tensor],
    numbers: list[float],
    precision: str,
    needed: list[bool],
) -> list[Tensor]:
    grads = empty_where(needed, differentiable(inputs))
    native().ray_isosurface_backward(
        sizes(inputs),
        numbers,
        addresses(*inputs),
        addresses(*grad_hits, *hits),
        addresses(*none_where_not(needed, grads)),
        threads(),
    )
    return grads


forward, backward = register("cpu", _launch_forward, _launch_backward)
