"""The specification of `film_siren` in plain PyTorch, for any device and float dtype."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from ._checks import linear

T = TypeVar("T")


class FilmSirenWeights(NamedTuple):
    """The parameters of a stack, stacked so that an op takes few tensors.

    L layers of width W, G groups of view layers and heads, C output channels.
    """

    first_weight: Tensor  # (W, I); (W, 0): the identity, with I = W
    first_bias: Tensor  # (W,)
    hidden_weight: Tensor  # (L - 1, W, W)
    hidden_bias: Tensor  # (L - 1, W)
    view_weight: Tensor  # (G, W, 3 + W), direction first
    view_bias: Tensor  # (G, W)
    head_weight: Tensor  # (G, L - 1, C, W)
    head_bias: Tensor  # (G, L - 1, C)


class FilmSirenCall(NamedTuple):
    """The arguments of `film_siren`, as backends take them."""

    points: Tensor  # (P, I)
    directions: Tensor  # (P, 3)
    frequencies: Tensor  # (M, L + 1, W)
    phases: Tensor  # (M, L + 1, W)
    row_offsets: Tensor  # (M + 1,)
    row_groups: Tensor  # (M,)
    weights: FilmSirenWeights
    trunk_channels: int = 0
    precision: str = "fp32"


class FilmSirenGradients(NamedTuple, Generic[T]):
    """Of each tensor of a call that has a gradient: that, or whether it is needed."""

    points: T
    directions: T
    frequencies: T
    phases: T
    first_weight: T
    first_bias: T
    hidden_weight: T
    hidden_bias: T
    view_weight: T
    view_bias: T
    head_weight: T
    head_bias: T


def tensors_of(call: FilmSirenCall) -> list[Tensor]:
    """All tensors of a call, the weights last: what an op takes. `call_of` is the inverse."""
    return [
        call.points, call.directions, call.frequencies, call.phases, call.row_offsets,
        call.row_groups, *call.weights,
    ]  # fmt: skip


def call_of(tensors: Sequence[Tensor], trunk_channels: int, precision: str) -> FilmSirenCall:
    """The call of these tensors, in the order of `tensors_of`."""
    points, directions, frequencies, phases, row_offsets, row_groups, *weights = tensors
    return FilmSirenCall(
        points, directions, frequencies, phases, row_offsets, row_groups,
        FilmSirenWeights(*weights), trunk_channels, precision,
    )  # fmt: skip


def is_identity(first_weight: Tensor) -> bool:
    """Whether it stands for the identity, which is not multiplied with."""
    return first_weight.numel() == 0


def differentiable(call: FilmSirenCall) -> FilmSirenGradients[Tensor]:
    """The tensors that have a gradient."""
    return FilmSirenGradients(
        call.points, call.directions, call.frequencies, call.phases, *call.weights
    )


def film_siren_reference(
    points: Tensor,  # (P, I)
    directions: Tensor,  # (P, 3)
    frequencies: Tensor,  # (M, L + 1, W)
    phases: Tensor,  # (M, L + 1, W)
    row_offsets: Tensor,  # (M + 1,)
    row_groups: Tensor,  # (M,)
    weights: FilmSirenWeights,
    trunk_channels: int = 0,
    precision: str = "fp32",
) -> Tensor:  # (P, C)
    """See `film_siren`; the arguments are a `FilmSirenCall`. Row by row, so that a row's
    activations stay small."""
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

    def sines(z: Tensor, layer: int) -> Tensor:
        return torch.addcmul(phases[layer], frequencies[layer], z).sin()

    def film(x: Tensor, layer: int, weight: Tensor, bias: Tensor, precision: str) -> Tensor:
        return sines(linear(x, weight, bias, precision), layer)

    if is_identity(weights.first_weight):
        h = sines(points + weights.first_bias, 0)
    else:
        # It multiplies coordinates by about 30: fp16 operands would lose the picture.
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
