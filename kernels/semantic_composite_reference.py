"""The specification of `semantic_composite` in plain PyTorch, for any device and float dtype."""

from typing import NamedTuple

import torch
from torch import Tensor


class ColorGradients(NamedTuple):
    """What the backward pass of `color_composite` is given: gradients of its outputs, its inputs,
    and the depth that it found."""

    grad_color: Tensor  # (R, C)
    grad_depth: Tensor  # (R,)
    grad_weights: Tensor  # (R, K)
    alpha: Tensor  # (R, K)
    colors: Tensor  # (R, K, C)
    depths: Tensor  # (R, K)
    depth: Tensor  # (R,)

    @property
    def inputs(self) -> list[Tensor]:
        return [self.alpha, self.colors, self.depths]


def semantic_composite_reference(
    alpha: Tensor,  # (R, K)
    semantics: Tensor,  # (R, K, N)
) -> tuple[Tensor, Tensor]:  # (R, K) int64, (R, N)
    """See `semantic_composite`."""
    running = torch.zeros_like(semantics[:, 0])  # C_{K+1}
    labels = []
    for alpha_k, semantics_k in zip(alpha.unbind(1)[::-1], semantics.unbind(1)[::-1], strict=True):
        running = alpha_k[:, None] * semantics_k + (1 - alpha_k[:, None]) * running
        labels.append(running.argmax(-1))
    return torch.stack(labels[::-1], 1), running


def color_composite_reference(
    alpha: Tensor,  # (R, K)
    colors: Tensor,  # (R, K, C)
    depths: Tensor,  # (R, K)
) -> tuple[Tensor, Tensor, Tensor]:  # (R, C), (R,), (R, K)
    """See `color_composite`."""
    transmittance = torch.ones_like(alpha[:, 0])
    weights = []
    for alpha_k in alpha.unbind(1):
        weights.append(alpha_k * transmittance)
        transmittance = transmittance * (1 - alpha_k)
    w = torch.stack(weights, 1)
    total = w.sum(1)
    depth = (w * depths).sum(1) / torch.where(total > 0, total, 1.0)
    return (w[..., None] * colors).sum(1), depth, w
