"""`film_siren` in CUDA C++, fp16 operands: the forward pass (`csrc/film_siren_sm80.cu` and, for
compute capability 9.0, `csrc/film_siren_sm90.cu`).

Its gradients are those of the Triton backend, or of the reference where Triton cannot run.
"""

from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor

from . import _extension, film_siren_triton
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
from .film_siren_tiles import folded_film, point_tiles

__all__ = ["PRECISIONS", "backward", "bodies", "forward", "unavailable"]

PRECISIONS = ("fp16",)

# What multiplies, and on which compute capabilities.
BODIES = {"sm80": "mma.sync, 8.0 and later", "sm90": "wgmma, 9.0"}


def bodies(device: int | None = None) -> dict[str, str | None]:
    """{body: why it does not run on a device (default: the current), None for the one that does}"""
    module, reason = _extension.load_cuda(device)
    if module is None:
        return dict.fromkeys(BODIES, reason)
    index = torch.cuda.current_device() if device is None and torch.cuda.is_available() else device
    runs = module.film_siren_body(index or 0)
    return {body: None if body == runs else f"{runs} runs on this GPU" for body in BODIES}


def _launch_forward(call: FilmSirenCall) -> Tensor:
    module, weights, output = native_cuda(), call.weights, empty_output(call)
    count, inputs = call.points.shape
    groups, heads, channels, own_width = weights.head_weight.shape
    width, layers = module.film_siren_width(own_width), heads + 1
    device = output.get_device()
    tiles = point_tiles(call.row_offsets, count, module.film_siren_rows(device))
    film = torch.stack(folded_film(call, 1.0), 3)
    film = padded(film, (len(call.frequencies), layers + 1, width, 2))
    split = call.trunk_channels
    stream = weight_stream(weights, split, width, constants_of(module))
    blocks = module.film_siren_blocks(tiles.bound, device)
    wide = channels > module.FILM_NARROW
    fragments = blocks * layers * width // 16 * module.FILM_THREADS * 4 if wide else 0
    tensors = [
        call.points, call.directions, tiles.table, tiles.used, call.row_groups, film, stream,
        weights.head_bias.sum(1), output,
        torch.empty(fragments, dtype=torch.int32, device=output.device),
    ]  # fmt: skip
    sizes = [inputs, layers, channels, split, tiles.bound, stream.shape[1]]
    with on_stream(output) as place:
        module.film_siren_forward(width, blocks, sizes, addresses(*tensors), place)
    return output


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

    def coordinate_slab(matrix: Tensor) -> Tensor:
        halves = padded(matrix, (*matrix.shape[:2], coordinates))
        rounded = halves.half().float()
        return slabs(torch.cat([rounded, halves - rounded, rounded], 2))

    if first.shape[2] <= coordinates:
        parts = [coordinate_slab(first)]
    else:
        inputs = ceil_div(first.shape[2], width) * width
        parts = [slabs(padded(first, (*first.shape[:2], inputs)))]
    for layer in range(heads + 1):
        matrix = view[:, :, 3:]
        if layer < heads:
            matrix = weights.hidden_weight[layer].expand(groups, -1, -1)
        head = reads[:, layer - 1, :narrow] if layer > 0 else None  # no head reads the first layer
        parts.append(slabs(padded(matrix, (groups, matrix.shape[1], width)), head))
    parts.append(coordinate_slab(view[:, :, :3]))
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
