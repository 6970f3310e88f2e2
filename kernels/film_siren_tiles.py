"""How GPU kernels of `film_siren` see its inputs: points in tiles, biases folded into FiLM."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .film_siren_reference import FilmSirenCall

TURN = 2 * math.pi


class Tiles(NamedTuple):
    """Tiles of at most `rows` points that share a FiLM row; only `bound` is known to the host."""

    table: Tensor  # (3, T) int64: first point, point after the last, FiLM row
    used: Tensor  # (1,) int64: how many of T are used
    first: Tensor  # (M + 1,) int64: the first tile of each FiLM row
    bound: int  # T


def point_tiles(row_offsets: Tensor, points: int, rows: int) -> Tiles:
    film_rows = len(row_offsets) - 1
    bound = points // rows + film_rows
    first = torch.zeros_like(row_offsets)
    first[1:] = ((row_offsets.diff() + rows - 1) // rows).cumsum(0)
    tile = torch.arange(bound, device=row_offsets.device)
    film_row = torch.searchsorted(first, tile, right=True) - 1
    film_row = film_row.clamp(max=film_rows - 1)
    start = row_offsets[film_row] + (tile - first[film_row]) * rows
    stop = torch.minimum(start + rows, row_offsets[film_row + 1])
    return Tiles(torch.stack([start, stop, film_row]), first[-1:], first, bound)


def groups_of_tiles(tiles: Tiles, row_groups: Tensor) -> Tensor:  # (T,), -1: not used
    groups = row_groups[tiles.table[2]] if tiles.bound else row_groups[:0]
    used = torch.arange(tiles.bound, device=groups.device) < tiles.used
    return torch.where(used, groups, -1)


def folded_film(call: FilmSirenCall, unit: float) -> tuple[Tensor, Tensor]:
    """(M, L + 1, W) each: a layer is sin((scale W h + shift) / unit), biases and all."""
    shifts = torch.addcmul(call.phases, call.frequencies, layer_biases(call))
    return unit * call.frequencies, unit * shifts


def layer_biases(call: FilmSirenCall) -> Tensor:
    """(M, L + 1, W): of every layer, the view layer's that of the FiLM row's group."""
    weights, groups = call.weights, call.row_groups
    trunk = torch.cat([weights.first_bias[None], weights.hidden_bias])
    return torch.cat([trunk.expand(len(groups), -1, -1), weights.view_bias[groups][:, None]], 1)
