"""The gradients of `film_siren` from the sums over points that GPU kernels leave."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from .film_siren_reference import FilmSirenCall, FilmSirenGradients
from .film_siren_tiles import layer_biases


class Sums(NamedTuple):
    """Sums over the points of each FiLM row, then over those of each group: widths and channels may
    be padded. Gradients of angles a = f (W h + b) + p, of W h = deltas, of the output."""

    angles: Tensor  # (M, L + 1, W)
    factors: Tensor  # (M, L + 1, W): of angles' gradients times W h
    points: Tensor | None  # (M, 3, W): of the first layer's deltas times coordinates, else None
    directions: Tensor  # (M, 3, W): of the view layer's
    channels: Tensor  # (M, C): of the output's gradients
    first: Tensor  # (W, I): of deltas times what a layer reads, all groups
    hidden: Tensor  # (L - 1, W, W)
    view: Tensor  # (G, W, W)
    heads: Tensor  # (L, G, C, W): of output's gradients times layers 2 to L, then the view layer


def gradients_of(
    call: FilmSirenCall, sums: Sums, points: Tensor, directions: Tensor
) -> FilmSirenGradients[Tensor]:
    """With the gradients of points and directions."""
    groups, heads, channels, width = call.weights.head_weight.shape
    inputs, layers = call.weights.first_weight.shape[1], heads + 1
    split = call.trunk_channels
    phases = sums.angles[:, :, :width]
    biases = call.frequencies * phases  # (M, L + 1, W)
    first = sums.first if sums.points is None else sums.points.sum(0).T
    of_heads = sums.heads.transpose(0, 1)[:, :, :channels, :width]  # (G, L, C, W)
    last = torch.cat([of_heads[:, -2:-1, :split], of_heads[:, -1:, split:]], 2)
    by_direction = _by_group(call, sums.directions[:, :, :width]).mT
    of_channels = _by_group(call, sums.channels[:, :channels])
    return FilmSirenGradients(
        points=points,
        directions=directions,
        frequencies=torch.addcmul(sums.factors[:, :, :width], layer_biases(call), phases),
        phases=phases,
        first_weight=first[:width, :inputs],
        first_bias=biases[:, 0].sum(0),
        hidden_weight=sums.hidden[:, :width, :width],
        hidden_bias=biases[:, 1:layers].sum(0),
        view_weight=torch.cat([by_direction, sums.view[:, :width, :width]], 2),
        view_bias=_by_group(call, biases[:, layers]),
        head_weight=torch.cat([of_heads[:, :-2], last], 1),
        head_bias=of_channels[:, None].expand(-1, heads, -1),
    )


def _by_group(call: FilmSirenCall, values: Tensor) -> Tensor:
    """(M, ...) summed over the FiLM rows of each group: (G, ...)."""
    groups = len(call.weights.head_weight)
    group = torch.arange(groups, device=values.device)[:, None]
    mine = (call.row_groups == group).view(groups, -1, *[1] * (values.dim() - 1))
    return torch.where(mine, values, 0.0).sum(1)


def only_needed(grads: Iterable[Tensor], needed: Iterable[bool], like: Tensor) -> list[Tensor]:
    """What `launch_backward` returns: of size 0 where nothing is needed."""
    return [
        grad.contiguous() if need else like.new_empty(0)
        for need, grad in zip(needed, grads, strict=True)
    ]
