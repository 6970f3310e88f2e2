"""`semantic_composite` in Triton: one pass along each ray, and no stored transmittance."""

from typing import Any

import torch
from torch import Tensor

from ._extension import empty_where, none_where_not
from ._triton import ceil_div, launch, power_of_two, unavailable

__all__ = [
    "PRECISIONS",
    "color_backward",
    "color_forward",
    "semantic_backward",
    "semantic_forward",
    "unavailable",
]

PRECISIONS = ("fp32", "tf32", "fp16")  # all the same: nothing here is a matrix product

TILE = 2048  # numbers a program works on at a time


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


def forward_constants(channels: int) -> dict[str, Any]:
    """Tile sizes of both forward kernels."""
    padded = power_of_two(channels, 2)
    return {"RAYS": max(TILE // padded // 2, 1) if padded > 32 else 32, "CHANNELS": padded}


def backward_constants(hits: int, channels: int) -> dict[str, Any]:
    """Tile sizes of the backward kernel, which holds all hits of its rays at once."""
    padded = power_of_two(hits, 2), power_of_two(channels, 2)
    rays = max(TILE // (padded[0] * padded[1]), 1)
    return {"RAYS": rays, "HITS": padded[0], "CHANNELS": padded[1]}


@torch.library.custom_op("semfaceedit::semantic_forward_triton", mutates_args=())
def _semantic_forward_op(alpha: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
    from .semantic_composite_triton_kernels import semantic_forward_kernel

    outputs = _empty_labels_and_map(alpha, semantics)
    constants = forward_constants(semantics.shape[2])
    launch(
        semantic_forward_kernel,
        (ceil_div(len(alpha), constants["RAYS"]),),
        (alpha, semantics, *outputs, *semantics.shape),
        constants,
    )
    return outputs


@_semantic_forward_op.register_fake
def _(alpha: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_labels_and_map(alpha, semantics)


@torch.library.custom_op("semfaceedit::semantic_backward_triton", mutates_args=())
def _semantic_backward_op(
    grad_map: Tensor, alpha: Tensor, semantics: Tensor, needed: list[bool]
) -> list[Tensor]:
    grads = empty_where(needed, [alpha, semantics])
    unused = alpha
    _launch_backward(
        (grad_map, unused, unused, alpha, semantics, unused, unused, *grads, unused),
        {"DEPTH": False, "NEED_DEPTHS": False, "NEED_ALPHA": needed[0], "NEED_VALUES": needed[1]},
    )
    return grads


@_semantic_backward_op.register_fake
def _(grad_map: Tensor, alpha: Tensor, semantics: Tensor, needed: list[bool]) -> list[Tensor]:
    return empty_where(needed, [alpha, semantics])


@torch.library.custom_op("semfaceedit::color_forward_triton", mutates_args=())
def _color_forward_op(
    alpha: Tensor, colors: Tensor, depths: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from .semantic_composite_triton_kernels import color_forward_kernel

    outputs = _empty_color_depth_weights(alpha, colors)
    constants = forward_constants(colors.shape[2])
    launch(
        color_forward_kernel,
        (ceil_div(len(alpha), constants["RAYS"]),),
        (alpha, colors, depths, *outputs, *colors.shape),
        constants,
    )
    return outputs


@_color_forward_op.register_fake
def _(alpha: Tensor, colors: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_color_depth_weights(alpha, colors)


@torch.library.custom_op("semfaceedit::color_backward_triton", mutates_args=())
def _color_backward_op(tensors: list[Tensor], needed: list[bool]) -> list[Tensor]:
    """`tensors`: gradients of color, depth, weights; alpha, colors, depths; depth."""
    grads = empty_where(needed, tensors[3:6])
    names = ("NEED_ALPHA", "NEED_VALUES", "NEED_DEPTHS")
    _launch_backward((*tensors, *grads), {"DEPTH": True, **dict(zip(names, needed, strict=True))})
    return grads


@_color_backward_op.register_fake
def _(tensors: list[Tensor], needed: list[bool]) -> list[Tensor]:
    return empty_where(needed, tensors[3:6])


def _launch_backward(tensors: tuple[Tensor, ...], switches: dict[str, bool]) -> None:
    from .semantic_composite_triton_kernels import backward_kernel

    rays, hits, channels = tensors[4].shape
    constants = backward_constants(hits, channels)
    launch(
        backward_kernel,
        (ceil_div(rays, constants["RAYS"]),),
        (*tensors, rays, hits, channels),
        {**switches, **constants},
    )


def _empty_labels_and_map(alpha: Tensor, semantics: Tensor) -> tuple[Tensor, Tensor]:
    labels = torch.empty(alpha.shape, dtype=torch.int64, device=alpha.device)
    rays, _, channels = semantics.shape
    return labels, semantics.new_empty(rays, channels)


def _empty_color_depth_weights(alpha: Tensor, colors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    rays, _, channels = colors.shape
    return colors.new_empty(rays, channels), alpha.new_empty(rays), torch.empty_like(alpha)
