"""`film_siren` in CUDA C++, fp16 operands: the forward pass (`csrc/film_siren_sm80.cu`).

Its gradients are those of the Triton backend, or of the reference where Triton cannot run.
"""

import torch
from torch import Tensor

from . import film_siren_triton
from ._extension import addresses, native_cuda, on_stream
from ._extension import cuda_unavailable as unavailable
from ._triton import ceil_div, padded
from .film_siren_ops import empty_output, register
from .film_siren_reference import (
    FilmSirenCall,
    FilmSirenWeights,
    differentiable,
    film_siren_reference,
)
from .film_siren_tiles import TURN, folded_film, point_tiles

__all__ = ["PRECISIONS", "backward", "forward", "unavailable"]

PRECISIONS = ("fp16",)

THIN = 3  # up to so many inputs the first layer is in fp32, straight from the points


def _launch_forward(call: FilmSirenCall) -> Tensor:
    module, weights, output = native_cuda(), call.weights, empty_output(call)
    count, inputs = call.points.shape
    groups, heads, channels, own_width = weights.head_weight.shape
    width, layers = module.film_siren_width(own_width), heads + 1
    tiles = point_tiles(call.row_offsets, count, module.FILM_ROWS)
    film = torch.stack(folded_film(call, 1 / TURN), 3)
    film = padded(film, (len(call.frequencies), layers + 1, width, 2))
    split = call.trunk_channels
    stream = weight_stream(weights, split, width, module.FILM_NARROW, module.FILM_INPUTS)
    blocks = module.film_siren_blocks(tiles.bound, output.get_device())
    wide = channels > module.FILM_NARROW
    fragments = blocks * layers * width // 16 * module.FILM_THREADS * 4 if wide else 0
    tensors = [
        call.points, call.directions, tiles.table, tiles.used, call.row_groups, film,
        padded(weights.first_weight[:, :THIN], (width, 4)),
        padded(weights.view_weight[:, :, :3], (groups, width, 4)),
        stream, weights.head_bias.sum(1), output,
        torch.empty(fragments, dtype=torch.int32, device=output.device),
    ]  # fmt: skip
    sizes = [inputs, layers, channels, split, tiles.bound, stream.shape[1]]
    with on_stream(output) as place:
        module.film_siren_forward(width, blocks, sizes, addresses(*tensors), place)
    return output


def weight_stream(
    weights: FilmSirenWeights, trunk_channels: int, width: int, narrow: int, depth: int
) -> Tensor:  # (G, slabs, width + narrow, depth) fp16
    """The weights in the order in which a tile needs them: see csrc/film_siren_cuda.h."""
    groups, heads, channels, _ = weights.head_weight.shape
    first, trunk = weights.first_weight, weights.hidden_weight
    reads = _heads_by_what_they_read(weights, trunk_channels)  # (G, L, C, W)
    parts = []
    if first.shape[1] > THIN:
        inputs = ceil_div(first.shape[1], depth) * depth
        parts.append(_slabs(padded(first, (width, inputs)).expand(groups, -1, -1), narrow, depth))
    for layer in range(1, heads + 2):
        matrix = weights.view_weight[:, :, 3:]
        if layer <= heads:
            matrix = trunk[layer - 1].expand(groups, -1, -1)
        matrix = padded(matrix, (groups, width, width))
        head = padded(reads[:, layer - 2, :narrow], (groups, narrow, width))
        if layer == 1:  # no head reads the first layer
            head = torch.zeros_like(head)
        parts.append(_slabs(torch.cat([matrix, head], 1), 0, depth))
    last = _slabs(padded(reads[:, -1, :narrow], (groups, narrow, width)), 0, depth)
    parts.append(padded(last.flatten(1, 2)[:, None], (groups, 1, width + narrow, depth)))
    for start in range(narrow, channels, width):
        for read in range(heads + 1):
            of_trunk, of_view = read == heads - 1, read == heads
            end = min(start + width, channels)
            if (of_trunk and start >= trunk_channels) or (of_view and end <= trunk_channels):
                continue
            head = padded(reads[:, read, start:end], (groups, width, width))
            parts.append(_slabs(head, narrow, depth))
    return torch.cat(parts, 1)


def _heads_by_what_they_read(weights: FilmSirenWeights, trunk_channels: int) -> Tensor:
    """(G, L, C, W): of layers 2 to L, then of the view layer; zeros for channels that do not."""
    head = weights.head_weight
    of_trunk = torch.arange(head.shape[2], device=head.device)[:, None] < trunk_channels
    last = [torch.where(of_trunk, head[:, -1:], 0.0), torch.where(of_trunk, 0.0, head[:, -1:])]
    return torch.cat([head[:, :-1], *last], 1)


def _slabs(matrix: Tensor, spare: int, depth: int) -> Tensor:
    """(G, outputs, inputs) as (G, inputs / depth, outputs + spare, depth) halves, in pieces of
    eight whose place is the exclusive or of their number and the output's."""
    groups, outputs, inputs = matrix.shape
    pieces = matrix.half().view(groups, outputs, inputs // depth, depth // 8, 8).transpose(1, 2)
    output = torch.arange(outputs, device=matrix.device)[:, None]
    place = torch.arange(depth // 8, device=matrix.device) ^ (output % 8)
    swapped = pieces[:, :, output, place].flatten(3)
    return padded(swapped, (groups, inputs // depth, outputs + spare, depth))


forward, _triton_backward = register("cuda", _launch_forward, film_siren_triton.launch_backward)


def backward(
    grad_output: Tensor, call: FilmSirenCall, needed: tuple[bool, ...]
) -> list[Tensor | None]:
    """As `FilmSirenFunction` calls it."""
    if film_siren_triton.unavailable(grad_output.device.index) is None:
        return _triton_backward(grad_output, call, needed)
    with torch.enable_grad():
        leaves = [
            tensor.detach().requires_grad_(need)
            for tensor, need in zip(differentiable(call), needed, strict=True)
        ]
        points, directions, frequencies, phases, *weights = leaves
        output = film_siren_reference(
            *call._replace(
                points=points,
                directions=directions,
                frequencies=frequencies,
                phases=phases,
                weights=FilmSirenWeights(*weights),
            )
        )
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        if not output.requires_grad:  # of no points
            return [torch.zeros_like(leaf) if leaf.requires_grad else None for leaf in leaves]
        grads = iter(torch.autograd.grad(output, wanted, grad_output, materialize_grads=True))
    return [next(grads) if need else None for need in needed]
