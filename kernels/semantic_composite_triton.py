"""`semantic_composite` in Triton: one pass along each ray, and no stored transmittance."""

from typing import Any

from torch import Tensor

from ._triton import ceil_div, launch, power_of_two, unavailable
from .semantic_composite_ops import Launches, register

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


def backward_constants(hits: int, channels: int) -> dict[str, Any]:
    """Tile sizes of the backward kernel, which holds all hits of its rays at once."""
    padded = power_of_two(hits, 2), power_of_two(channels, 2)
    rays = max(TILE // (padded[0] * padded[1]), 1)
    return {"RAYS": rays, "HITS": padded[0], "CHANNELS": padded[1]}


def _semantic_forward(alpha: Tensor, semantics: Tensor, labels: Tensor, mixed: Tensor) -> None:
    from .semantic_composite_triton_kernels import semantic_forward_kernel

    constants = forward_constants(semantics.shape[2])
    launch(
        semantic_forward_kernel,
        (ceil_div(len(alpha), constants["RAYS"]),),
        (alpha, semantics, labels, mixed, *semantics.shape),
        constants,
    )


def _semantic_backward(
    grad_map: Tensor, alpha: Tensor, semantics: Tensor, needed: list[bool], grads: list[Tensor]
) -> None:
    unused = alpha
    _launch_backward(
        (grad_map, unused, unused, alpha, semantics, unused, unused, *grads, unused),
        {"DEPTH": False, "NEED_DEPTHS": False, "NEED_ALPHA": needed[0], "NEED_VALUES": needed[1]},
    )


def _color_forward(alpha: Tensor, colors: Tensor, depths: Tensor, *outputs: Tensor) -> None:
    from .semantic_composite_triton_kernels import color_forward_kernel

    constants = forward_constants(colors.shape[2])
    launch(
        color_forward_kernel,
        (ceil_div(len(alpha), constants["RAYS"]),),
        (alpha, colors, depths, *outputs, *colors.shape),
        constants,
    )


def _color_backward(tensors: list[Tensor], needed: list[bool], grads: list[Tensor]) -> None:
    names = ("NEED_ALPHA", "NEED_VALUES", "NEED_DEPTHS")
    _launch_backward((*tensors, *grads), {"DEPTH": True, **dict(zip(names, needed, strict=True))})


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


semantic_forward, semantic_backward, color_forward, color_backward = register(
    "triton", Launches(_semantic_forward, _semantic_backward, _color_forward, _color_backward)
)
