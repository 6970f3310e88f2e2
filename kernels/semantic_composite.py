"""Compositing along rays: labels and semantic map (Semantic Volume Masking), and the picture."""

from typing import Any

import torch
from torch import Tensor

from ._backend import implementation, resolve
from ._checks import check_tensors
from .semantic_composite_reference import (
    ColorGradients,
    color_composite_reference,
    semantic_composite_reference,
)


def semantic_composite(
    alpha: Tensor,  # (R, K) opacity of each hit, near to far
    semantics: Tensor,  # (R, K, N) class scores of each hit
    *,
    backend: str | None = None,
    precision: str | None = None,
) -> tuple[Tensor, Tensor]:  # labels (R, K) int64, semantic map (R, N)
    """Semantic Volume Masking (Eq. 2) in one back-to-front pass.

    C_k = alpha_k s_k + (1 - alpha_k) C_{k+1}, C_{K+1} = 0; label_k = argmax C_k and the map is C_1.
    A hit with alpha 0 (an invalid one) takes the label behind it. Ties go to the lower class id, so
    a suffix that is empty or all zero has label 0. The map is differentiable in both arguments;
    labels carry no gradient.
    """
    _check("semantic_composite", alpha, {"semantics": (semantics, (None,))})
    choice = resolve("semantic_composite", backend, precision, alpha)
    if choice.backend == "reference":
        return semantic_composite_reference(alpha, semantics)
    return SemanticCompositeFunction.apply(alpha, semantics, choice.backend)


def color_composite(
    alpha: Tensor,  # (R, K)
    colors: Tensor,  # (R, K, C)
    depths: Tensor,  # (R, K)
    *,
    backend: str | None = None,
    precision: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # color (R, C), depth (R,), weights (R, K)
    """Front-to-back compositing: w_k = alpha_k prod_{i<k} (1 - alpha_i).

    color = sum w_k c_k, depth = sum w_k z_k / sum w_k (0 where nothing is hit), and the weights
    themselves. Differentiable in all three arguments.
    """
    _check("color_composite", alpha, {"colors": (colors, (None,)), "depths": (depths, ())})
    choice = resolve("semantic_composite", backend, precision, alpha)
    if choice.backend == "reference":
        return color_composite_reference(alpha, colors, depths)
    return ColorCompositeFunction.apply(alpha, colors, depths, choice.backend)


def _check(
    op: str, alpha: Tensor, others: dict[str, tuple[Tensor, tuple[int | None, ...]]]
) -> None:
    """`others` have a row for each hit, of the shape given. Raises ValueError."""
    check_tensors(op, {"alpha": (alpha, (None, None))})
    rows = {name: (tensor, (*alpha.shape, *shape)) for name, (tensor, shape) in others.items()}
    check_tensors(op, {"alpha": (alpha, (None, None)), **rows})
    for name, (tensor, _) in rows.items():
        if 0 in tensor.shape[1:]:
            raise ValueError(f"{op}: {name} has shape {tuple(tensor.shape)}, with nothing on a ray")


class SemanticCompositeFunction(torch.autograd.Function):
    """The seam for fused backends.

    `semantic_forward(alpha, semantics)` returns labels and map; `semantic_backward(grad_map, alpha,
    semantics, needed)` returns the gradients of alpha and semantics.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        alpha, semantics, backend = arguments
        labels, semantic_map = implementation("semantic_composite", backend).semantic_forward(
            alpha, semantics
        )
        ctx.save_for_backward(alpha, semantics)
        ctx.backend = backend
        ctx.mark_non_differentiable(labels)
        return labels, semantic_map

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        _, grad_map = grad_outputs
        alpha, semantics, _ = ctx.needs_input_grad
        grads = implementation("semantic_composite", ctx.backend).semantic_backward(
            grad_map, *ctx.saved_tensors, (alpha, semantics)
        )
        return (*grads, None)  # backend


class ColorCompositeFunction(torch.autograd.Function):
    """The seam for fused backends.

    `color_forward(alpha, colors, depths)` returns color, depth and weights; `color_backward(
    given, needed)` returns the gradients of alpha, colors and depths.
    """

    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
        alpha, colors, depths, backend = arguments
        color, depth, weights = implementation("semantic_composite", backend).color_forward(
            alpha, colors, depths
        )
        ctx.save_for_backward(alpha, colors, depths, depth)
        ctx.backend = backend
        return color, depth, weights

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Any:
        given = ColorGradients(*grad_outputs, *ctx.saved_tensors)
        alpha, colors, depths, _ = ctx.needs_input_grad
        grads = implementation("semantic_composite", ctx.backend).color_backward(
            given, (alpha, colors, depths)
        )
        return (*grads, None)  # backend
