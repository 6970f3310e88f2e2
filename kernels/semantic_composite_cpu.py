"""`semantic_composite` on the CPU: one native launch each (`csrc/semantic_composite_cpu.cpp`)."""

from torch import Tensor

from ._extension import addresses, native, none_where_not, threads, unavailable
from .semantic_composite_ops import Launches, register

__all__ = [
    "PRECISIONS",
    "color_backward",
    "color_forward",
    "semantic_backward",
    "semantic_forward",
    "unavailable",
]

PRECISIONS = ("fp32", "accurate", "fast")  # all the same: nothing here is a matrix product


def _semantic_forward(alpha: Tensor, semantics: Tensor, labels: Tensor, mixed: Tensor) -> None:
    native().semantic_forward(
        list(semantics.shape), addresses(alpha, semantics), addresses(labels, mixed), threads()
    )


def _semantic_backward(
    grad_map: Tensor, alpha: Tensor, semantics: Tensor, needed: list[bool], grads: list[Tensor]
) -> None:
    native().semantic_backward(
        list(semantics.shape),
        addresses(grad_map, alpha, semantics),
        addresses(*none_where_not(needed, grads)),
        threads(),
    )


def _color_forward(alpha: Tensor, colors: Tensor, depths: Tensor, *outputs: Tensor) -> None:
    native().color_forward(
        list(colors.shape), addresses(alpha, colors, depths), addresses(*outputs), threads()
    )


def _color_backward(tensors: list[Tensor], needed: list[bool], grads: list[Tensor]) -> None:
    native().color_backward(
        list(tensors[4].shape),
        addresses(*tensors),
        addresses(*none_where_not(needed, grads)),
        threads(),
    )


semantic_forward, semantic_backward, color_forward, color_backward = register(
    "cpu", Launches(_semantic_forward, _semantic_backward, _color_forward, _color_backward)
)
