"""The specification of `film_siren` in plain PyTorch, for any device and float dtype."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ._checks import linear

if TYPE_CHECKING:
    from .film_siren import FilmSirenWeights


def film_siren_reference(
    points: Tensor,  # (P, I)
    directions: Tensor,  # (P, 3)
    frequencies: Tensor,  # (M, L + 1, W)
    phases: Tensor,  # (M, L + 1, W)
    row_offsets: Tensor,  # (M + 1,)
    row_groups: Tensor,  # (M,)
    weights: FilmSirenWeights,
    *,
    trunk_channels: int = 0,
    precision: str = "fp32",
) -> Tensor:  # (P, C)
    """See `film_siren`. Row by row, so that a row's activations stay small."""
    with torch.autocast(points.device.type, enabled=False):
        outputs = [points.new_zeros(0, weights.head_weight.shape[2])]
        groups = row_groups.tolist()
        for row, (start, stop) in enumerate(pairwise(row_offsets.tolist())):
            if start < stop:
                outputs.append(
                    _film_siren_row(
                        points[start:stop],
                        directions[start:stop],
                        frequencies[row],
                        phases[row],
                        groups[row],
                        weights,
                        trunk_channels,
                        precision,
                    )
                )
        return torch.cat(outputs)


def _film_siren_row(
    points: Tensor,  # (P, I)
    directions: Tensor,  # (P, 3)
    frequencies: Tensor,  # (L + 1, W)
    phases: Tensor,  # (L + 1, W)
    group: int,
    weights: FilmSirenWeights,
    trunk_channels: int,
    precision: str,
) -> Tensor:  # (P, C)
    head_weight, head_bias = weights.head_weight[group], weights.head_bias[group]
    layers = head_weight.shape[0] + 1

    def film(x: Tensor, layer: int, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
        return torch.addcmul(
            phases[layer], frequencies[layer], linear(x, weight, bias, precision)
        ).sin()

    # The first layer multiplies coordinates by about 30: fp16 operands would lose the picture.
    first_precision = "fp32" if points.shape[1] <= 3 else precision
    h = film(points, 0, weights.first_weight, weights.first_bias, first_precision)
    output: Tensor | float = 0.0
    for layer in range(1, layers):
        h = film(
            h, layer, weights.hidden_weight[layer - 1], weights.hidden_bias[layer - 1], precision
        )
        if layer < layers - 1:
            output = output + linear(h, head_weight[layer - 1], head_bias[layer - 1], precision)
    viewed = film(
        torch.cat([directions, h], 1),
        layers,
        weights.view_weight[group],
        weights.view_bias[group],
        precision,
    )
    split = trunk_channels
    last = [
        linear(h, head_weight[-1, :split], head_bias[-1, :split], precision),
        linear(viewed, head_weight[-1, split:], head_bias[-1, split:], precision),
    ]
    return output + torch.cat(last, 1)
