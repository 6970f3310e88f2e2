"""`semantic_composite` in Triton: one pass along each ray, and no stored transmittance."""

from typing import Any

from torch import Tensor

from ._triton import ceil_div, launch, power_of_two, unavailable
from .semantic_composite_ops import Launches, register
from .semantic_composite_reference import ColorGradients

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


def forward_constants(channels: int) -> dict[str, Any]:
    """Tile sizes of both forward kernels."""
    padded = power_of_two(channels, 2)
    return {"RAYS": max(TILE // padded // 2, 1) if padded > 32 else 32, "CHANNELS": padded}


def backward_constants(hit_count: int, channels: int) -> dict[str, Any]:
    """Tile sizes of the backward kernel, which holds all hits of its rays at once."""
    padded = power_of_two(hit_count, 2), power_of_two(channels, 2)
    rays = max(TILE // (padded[0] * padded[1]), 1)
    return {"RAYS": rays, "HITS": padded[0], "CHANNELS": padded[1]}


def _semantic_forward(alpha: Tensor, semantics: Tensor, labels: Tensor, mixed: Tensor) -> None:
    from .semantic_composite_triton_kernels import semantic_forward_kernel

    tensors = {"alpha": alpha, "semantics": semantics, "labels": labels, "semantic_map": mixed}
    _launch_forward(semantic_forward_kernel, tensors, semantics.shape)


def _semantic_backward(
    grad_map: Tensor, alpha: Tensor, semantics: Tensor, needed: list[bool], grads: list[Tensor]
) -> None:
    need_alpha, need_semantics = needed
    grad_alpha, grad_semantics = grads
    unused = dict.fromkeys(("grad_depth", "grad_weights", "depths", "depth", "grad_depths"), alpha)
    _launch_backward(
        {
            **unused,
            "grad_mixed": grad_map,
            "alpha": alpha,
            "values": semantics,
            "grad_alpha": grad_alpha,
            "grad_values": grad_semantics,
        },
        {
            "DEPTH": False,
            "NEED_ALPHA": need_alpha,
            "NEED_VALUES": need_semantics,
            "NEED_DEPTHS": False,
        },
    )


def _color_forward(
    alpha: Tensor, colors: Tensor, depths: Tensor, color: Tensor, depth: Tensor, weights: Tensor
) -> None:
    from .semantic_composite_triton_kernels import color_forward_kernel

    inputs = {"alpha": alpha, "colors": colors, "depths": depths}
    outputs = {"color": color, "depth": depth, "weights": weights}
    _launch_forward(color_forward_kernel, inputs | outputs, colors.shape)


def _color_backward(given: ColorGradients, needed: list[bool], grads: list[Tensor]) -> None:
    need_alpha, need_colors, need_depths = needed
    grad_alpha, grad_colors, grad_depths = grads
    _launch_backward(
        {
            "grad_mixed": given.grad_color,
            "grad_depth": given.grad_depth,
            "grad_weights": given.grad_weights,
            "alpha": given.alpha,
            "values": given.colors,
            "depths": given.depths,
            "depth": given.depth,
            "grad_alpha": grad_alpha,
            "grad_values": grad_colors,
            "grad_depths": grad_depths,
        },
        {
            "DEPTH": True,
            "NEED_ALPHA": need_alpha,
            "NEED_VALUES": need_colors,
            "NEED_DEPTHS": need_depths,
        },
    )


def _launch_forward(kernel: Any, tensors: dict[str, Tensor], shape: tuple[int, ...]) -> None:
    rays, hit_count, channels = shape
    constants = forward_constants(channels)
    sizes = {"rays": rays, "hit_count": hit_count, "channels": channels}
    launch(kernel, (ceil_div(rays, constants["RAYS"]),), tensors | sizes, constants)


def _launch_backward(tensors: dict[str, Tensor], switches: dict[str, bool]) -> None:
    from .semantic_composite_triton_kernels import backward_kernel

    rays, hit_count, channels = tensors["values"].shape
    constants = backward_constants(hit_count, channels)
    sizes = {"rays": rays, "hit_count": hit_count, "channels": channels}
    programs = (ceil_div(rays, constants["RAYS"]),)
    launch(backward_kernel, programs, tensors | sizes, {**switches, **constants})


semantic_forward, semantic_backward, color_forward, color_backward = register(
    "triton", Launches(_semantic_forward, _semantic_backward, _color_forward, _color_backward)
)
