"""The weights of `film_siren` in the order in which a tile of its CUDA kernels needs them: slabs,
see `csrc/film_siren_cuda.h` and `csrc/film_siren_backward.h`.
"""

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from ._triton import ceil_div, padded
from .film_siren_reference import FilmSirenWeights, is_identity


class Constants(NamedTuple):
    """Of csrc/film_siren_cuda.h: channels summed on the way, inputs of a slab, and up to how many
    inputs are coordinates."""

    narrow: int
    depth: int
    coordinates: int


def constants_of(module: ModuleType) -> Constants:
    return Constants(module.FILM_NARROW, module.FILM_INPUTS, module.FILM_COORDINATES)


def weight_stream(
    weights: FilmSirenWeights, trunk_channels: int, width: int, constants: Constants
) -> Tensor:  # (G, slabs, width + narrow, depth) fp16
    """The weights in the order in which a tile needs them: see csrc/film_siren_cuda.h."""
    narrow, depth, coordinates = constants
    groups, heads, channels, _ = weights.head_weight.shape
    first, view = weights.first_weight.expand(groups, -1, -1), weights.view_weight
    reads = _heads_by_what_they_read(weights, trunk_channels)  # (G, L, C, W)

    def slabs(matrix: Tensor, head: Tensor | None = None) -> Tensor:
        """Of a layer, and the narrow channels that read the same."""
        inputs = ceil_div(matrix.shape[2], depth) * depth
        if head is None:
            head = matrix.new_zeros(groups, 0, inputs)
        rows = padded(matrix, (groups, width, inputs)), padded(head, (groups, narrow, inputs))
        return _slabs(torch.cat(rows, 1), depth)

    parts = []
    if is_identity(first):
        pass
    elif first.shape[2] <= coordinates:
        parts = [slabs(_in_parts(first, coordinates))]
    else:
        inputs = ceil_div(first.shape[2], width) * width
        parts = [slabs(padded(first, (*first.shape[:2], inputs)))]
    for layer in range(heads + 1):
        matrix = view[:, :, 3:]
        if layer < heads:
            matrix = weights.hidden_weight[layer].expand(groups, -1, -1)
        head = reads[:, layer - 1, :narrow] if layer > 0 else None  # no head reads the first layer
        parts.append(slabs(padded(matrix, (groups, matrix.shape[1], width)), head))
    parts.append(slabs(_in_parts(view[:, :, :3], coordinates)))
    last = _slabs(padded(reads[:, -1, :narrow], (groups, narrow, width)), depth)
    parts.append(padded(last.flatten(1, 2)[:, None], (groups, 1, width + narrow, depth)))
    for start in range(narrow, channels, width):
        end = min(start + width, channels)
        order = [heads, *range(heads - 1)]  # of what is read: the view layer, layers 2 to L - 1
        if start < trunk_channels:
            order = [*range(heads), *([heads] if end > trunk_channels else [])]
        for read in order:
            head = reads[:, read, start:end]
            parts.append(slabs(padded(head, (groups, end - start, width))))
    return torch.cat(parts, 1)


def _heads_by_what_they_read(weights: FilmSirenWeights, trunk_channels: int) -> Tensor:
    """(G, L, C, W): of layers 2 to L, then of the view layer; zeros for channels that do not."""
    head = weights.head_weight
    of_trunk = torch.arange(head.shape[2], device=head.device)[:, None] < trunk_channels
    last = [torch.where(of_trunk, head[:, -1:], 0.0), torch.where(of_trunk, 0.0, head[:, -1:])]
    return torch.cat([head[:, :-1], *last], 1)


def _slabs(matrix: Tensor, depth: int) -> Tensor:
    """(G, outputs, inputs) as (G, inputs / depth, outputs, depth) halves, in pieces of eight whose
    place is the exclusive or of their number and the output's."""
    groups, outputs, inputs = matrix.shape
    pieces = matrix.half().view(groups, outputs, inputs // depth, depth // 8, 8).transpose(1, 2)
    output = torch.arange(outputs, device=matrix.device)[:, None]
    place = torch.arange(depth // 8, device=matrix.device) ^ (output % 8)
    return pieces[:, :, output, place].flatten(3)


def _in_parts(matrix: Tensor, coordinates: int) -> Tensor:
    """Of a layer that reads coordinates: halves, what they leave, halves."""
    matrix = padded(matrix, (*matrix.shape[:2], coordinates))
    rounded = matrix.half().float()
    return torch.cat([rounded, matrix - rounded, rounded], 2)


def backward_stream(
    weights: FilmSirenWeights,
    trunk_channels: int,
    width: int,
    constants: Constants,
    *,
    points: bool,
    again: bool,
) -> Tensor:  # (G, slabs, width, depth) fp16
    """Forward, then back; `points`: they need a gradient; `again`: W h is multiplied again on the
    way back."""
    depth, coordinates = constants.depth, constants.coordinates
    groups, heads, channels, _ = weights.head_weight.shape
    first, view = weights.first_weight.expand(groups, -1, -1), weights.view_weight
    hidden = weights.hidden_weight.expand(groups, -1, -1, -1)
    reads = _heads_by_what_they_read(weights, trunk_channels)  # (G, L, C, W)
    inputs = ceil_div(first.shape[2], width) * width

    def slabs(matrix: Tensor, size: int) -> Tensor:
        return _slabs(padded(matrix, (groups, width, size)), depth)

    def of_heads(read: int, begin: int, end: int) -> Tensor:
        """Transposed, from the slab of channel `begin` to that before channel `end`."""
        begin, stop = begin // depth * depth, ceil_div(end, depth) * depth
        return slabs(reads[:, read, begin:stop].mT, max(stop - begin, 0))

    def of_layer(layer: int) -> list[Tensor]:
        """What W h takes on the way back: for each `depth` outputs all inputs, then coordinates."""
        if not again or (layer == 0 and is_identity(first)):
            return []
        matrices = [view[:, :, 3:], _in_parts(view[:, :, :3], coordinates)]
        if layer < heads + 1:
            matrices = [hidden[:, layer - 1]]
        if layer == 0:
            matrices = [_in_parts(first, coordinates) if thin else first]
        result = []
        for begin in range(0, width, depth):
            for matrix in matrices:
                rows = padded(matrix, (groups, width, ceil_div(matrix.shape[2], depth) * depth))
                pieces = _slabs(rows[:, begin : begin + depth], depth).flatten(1, 2)
                size = ceil_div(pieces.shape[1], width) * width
                result.append(padded(pieces, (groups, size, depth)).unflatten(1, (-1, width)))
        return result

    identity = is_identity(first)
    thin = not identity and first.shape[2] <= coordinates
    parts = [slabs(_in_parts(first, coordinates), depth) if thin else slabs(first, inputs)]
    parts += [slabs(hidden[:, layer], width) for layer in range(heads)]
    parts.append(slabs(view[:, :, 3:], width))
    parts.append(slabs(_in_parts(view[:, :, :3], coordinates), depth))
    parts += [of_heads(heads, trunk_channels, channels), *of_layer(heads + 1)]
    parts.append(slabs(view[:, :, 3:].mT, width))
    parts += [of_heads(heads - 1, 0, trunk_channels), *of_layer(heads)]
    for layer in range(heads - 1, -1, -1):
        parts.append(slabs(hidden[:, layer].mT, width))
        if layer > 0:
            parts.append(of_heads(layer - 1, 0, channels))
        parts += of_layer(layer)
    if points and not thin and not identity:
        rows = padded(first.mT, (groups, inputs, first.shape[1]))
        parts += [slabs(rows[:, at : at + width], width) for at in range(0, inputs, width)]
    return torch.cat(parts, 1)
