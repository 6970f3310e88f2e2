"""`semantic_composite` on the CPU: one native launch each (`csrc/semantic_composite_cpu.cpp`)."""

import torch
from torch import Tensor

from ._extension import addresses, empty_where, native, none_where_not, threads, unavailable

__all__ = [
    "PRECISIONS",
    "color_backward",
    "color_forward",
    "semantic_backward",
    "semantic_forward",
    "unavailable",
]

PRECISIONS = ("fp32",)


def semantic_forward(alpha: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
    return _semantic_forward_op(alpha.contiguous(), semantics.contiguous())


def semantic_backward(
    grad_map: Tensor,
    alpha: Tensor,
    semantics: Tensor,
    semantic_map: Tensor,
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    flags = list(needed)
    grads = _semantic_backward_op(
        grad_map.contiguous(), alpha.contiguous(), semantics.contiguous(), flags
    )
    return none_where_not(flags, grads)


def color_forward(alpha: Tensor, colors: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _color_forward_op(alpha.contiguous(), colors.contiguous(), depths.contiguous())


def color_backward(
    grad_color: Tensor,
    grad_depth: Tensor,
    grad_weights: Tensor,
    alpha: Tensor,
    colors: Tensor,
    depths: Tensor,
    color: Tensor,
    depth: Tensor,
    needed: tuple[bool, ...],
) -> list[Tensor | None]:
    flags = list(needed)
    tensors = (grad_color, grad_depth, grad_weights, alpha, colors, depths, depth)
    grads = _color_backward_op([tensor.contiguous() for tensor in tensors], flags)
    return none_where_not(flags, grads)


@torch.library.custom_op("semfaceedit::semantic_forward_cpu", mutates_args=())
def _semantic_forward_op(alpha: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
    outputs = _empty_labels_and_map(alpha, semantics)
    native().semantic_forward(
        list(semantics.shape), addresses(alpha, semantics), addresses(*outputs), threads()
    )
    return outputs


@_semantic_forward_op.register_fake
def _(alpha: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_labels_and_map(alpha, semantics)


@torch.library.custom_op("semfaceedit::semantic_backward_cpu", mutates_args=())
def _semantic_backward_op(
    grad_map: Tensor, alpha: Tensor, semantics: Tensor, needed: list[bool]
) -> list[Tensor]:
    grads = empty_where(needed, [alpha, semantics])
    native().semantic_backward(
        list(semantics.shape),
        addresses(grad_map, alpha, semantics),
        addresses(*none_where_not(needed, grads)),
        threads(),
    )
    return grads


@_semantic_backward_op.register_fake
def _(grad_map: Tensor, alpha: Tensor, semantics: Tensor, needed: list[bool]) -> list[Tensor]:
    return empty_where(needed, [alpha, semantics])


@torch.library.custom_op("semfaceedit::color_forward_cpu", mutates_args=())
def _color_forward_op(
    alpha: Tensor, colors: Tensor, depths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    outputs = _empty_color_depth_weights(alpha, colors)
    native().color_forward(
        list(colors.shape), addresses(alpha, colors, depths), addresses(*outputs), threads()
    )
    return outputs


@_color_forward_op.register_fake
def _(alpha: Tensor, colors: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_color_depth_weights(alpha, colors)


@torch.library.custom_op("semfaceedit::color_backward_cpu", mutates_args=())
def _color_backward_op(tensors: list[Tensor], needed: list[bool]) -> list[Tensor]:
    """`tensors`: gradients of color, depth, weights; alpha, colors, depths; depth."""
    grads = empty_where(needed, tensors[3:6])
    native().color_backward(
        list(tensors[4].shape),
        addresses(*tensors),
        addresses(*none_where_not(needed, grads)),
        threads(),
    )
    return grads


@_color_backward_op.register_fake
def _(tensors: list[Tensor], needed: list[bool]) -> list[Tensor]:
    return empty_where(needed, tensors[3:6])


def _empty_labels_and_map(alpha: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.empty(alpha.shape, dtype=torch.int64, device=alpha.device)
    rays, _, channels = semantics.shape
    return labels, semantics.new_empty(rays, channels)


def _empty_color_depth_weights(alpha: Tensor, colors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rays, _, channels = colors.shape
    return colors.new_empty(rays, channels), alpha.new_empty(rays), torch.empty_like(alpha)
