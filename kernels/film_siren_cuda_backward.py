"""The gradients of `film_siren` in CUDA C++, fp16 operands: the layers there and back
(`csrc/film_siren_backward_sm80.cu` and, for compute capability 9.0, `film_siren_backward_sm90.cu`),
products over points (`csrc/film_siren_weight_gradients.cu`, `film_siren_weight_gradients_sm90.cu`).

Where weights have a gradient, tiles are taken in chunks, whose activations and deltas stay until
the products over points. Every sum over points is added up in one order.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ._extension import addresses, native_cuda, on_stream
from ._triton import ceil_div, padded
from .film_siren_cuda_streams import backward_stream, constants_of
from .film_siren_gradients import Sums, gradients_of, only_needed
from .film_siren_reference import FilmSirenCall, FilmSirenGradients, is_identity
from .film_siren_tiles import folded_film, groups_of_tiles, point_tiles

CHUNK_POINTS = 65_536  # whose activations and deltas are held at a time
# Blocks of a launch that have points to multiply, by body: products over points are split until
# there are so many. A part of a tile is of one group: blocks of the others have nothing to do.
PRODUCT_BLOCKS = {"sm80": 264, "sm90": 132}
PRODUCT_SPLITS = 32  # at most: each reads and writes its sums once a chunk
RUN = 16  # points, or columns, of matrix order
SUM_KINDS = 2  # sums over a tile of each angle: see csrc/film_siren_backward.h


def launch_backward(
    grad_output: Tensor, call: FilmSirenCall, needed: FilmSirenGradients[bool]
) -> list[Tensor]:
    return only_needed(_Backward(grad_output, call, needed).run(), needed, grad_output)


class Chunk(NamedTuple):
    """What a launch leaves of the parts of its tiles, in matrix order but for the last; where no
    weight has a gradient, of the parts that are under way."""

    output_deltas: Tensor  # (parts, words)
    activations: Tensor | None  # (parts, L + 1, words)
    deltas: Tensor | None
    inputs: Tensor | None  # (parts, words)
    inverses: Tensor | None  # (parts, L + 2): what deltas, then output_deltas are multiplied by


class _Backward:
    """One backward pass: per chunk, the layers there and back and products over points; sums."""

    def __init__(
        self, grad_output: Tensor, call: FilmSirenCall, needed: FilmSirenGradients[bool]
    ) -> None:
        self.module, weights, points = native_cuda(), call.weights, call.points
        self.call, self.needed, self.grad_output = call, needed, grad_output
        self.constants = constants_of(self.module)
        self.groups, heads, self.channels, own_width = weights.head_weight.shape
        self.layers, self.width = heads + 1, self.module.film_siren_width(own_width)
        self.identity = is_identity(weights.first_weight)
        self.thin = not self.identity and points.shape[1] <= self.constants.coordinates
        self.of_inputs = needed.first_weight and not self.thin and not self.identity
        self.of_products = (
            needed.hidden_weight or needed.view_weight or needed.head_weight
            or self.of_inputs
        )  # fmt: skip
        device, bound = points.get_device(), self.module.film_siren_rows(points.get_device())
        self.tiles = point_tiles(call.row_offsets, len(points), bound)
        self.tile_parts = self.module.film_siren_backward_parts(device)
        self.part_points = bound // self.tile_parts
        self.body = self.module.film_siren_body(device)
        self.keeps_affine = self.body == "sm80"
        self.slots = self.tiles.bound  # tiles of a launch
        if self.of_products:
            self.slots = min(max(CHUNK_POINTS // bound, 1), self.tiles.bound)
        self.blocks = self.module.film_siren_blocks(self.slots, device)
        self.parts = self.slots * self.tile_parts
        if not self.of_products:
            self.parts = self.blocks * self.module.FILM_ROWS // self.part_points
        self.grad_points = torch.empty_like(points) if needed.points else None
        self.grad_directions = torch.empty_like(call.directions) if needed.directions else None
        self.sum_sizes = (
            (self.layers + 1) * SUM_KINDS * self.width,
            3 * self.width if needed.first_weight and self.thin else 0,
            3 * self.width if needed.view_weight else 0,
            self.channels if needed.head_bias else 0,
        )
        self.sums = points.new_empty(self.tiles.bound * self.tile_parts, sum(self.sum_sizes))
        self.inputs = ceil_div(points.shape[1], self.width) * self.width
        self.outputs = self.module.film_siren_outputs(self.channels)
        self.first = self._sums(1, 1, self.width, self.inputs)
        self.hidden = self._sums(heads, 1, self.width, self.width)
        self.view = self._sums(1, self.groups, self.width, self.width)
        self.heads = self._sums(self.layers, self.groups, self.outputs, self.width)

    def _sums(self, layers: int, groups: int, left_width: int, right_width: int) -> Tensor:
        """(splits, layers, groups, N, K), for products over points to add to."""
        blocks = ceil_div(left_width, 128) * ceil_div(right_width, self.width) * layers
        splits = min(PRODUCT_BLOCKS[self.body] // max(blocks, 1), PRODUCT_SPLITS, self.parts)
        if not self.of_products:
            splits = 1
        shape = max(splits, 1), layers, groups, left_width, right_width
        return self.grad_output.new_zeros(shape)

    def run(self) -> FilmSirenGradients[Tensor]:
        """All gradients; those that are not needed may be anything."""
        call = self.call
        chunk = self._chunk()
        groups = groups_of_tiles(self.tiles, call.row_groups).repeat_interleave(self.tile_parts)
        film = torch.stack(folded_film(call, 1.0), 3)
        operands = (
            padded(film, (len(call.frequencies), self.layers + 1, self.width, 2)),
            backward_stream(
                call.weights, call.trunk_channels, self.width, self.constants,
                points=self.needed.points, again=not self.keeps_affine,
            ),
            padded(call.weights.first_weight[:, : self.constants.coordinates], (self.width, 4)),
            padded(call.weights.view_weight[:, :, :3], (self.groups, self.width, 4)),
        )  # fmt: skip
        for first_tile in range(0, self.tiles.bound, max(self.slots, 1)):
            self._launch_layers(first_tile, operands, chunk)
            begin = first_tile * self.tile_parts
            self._add_products(chunk, groups[begin : begin + self.parts])
        return self._gradients()

    def _chunk(self) -> Chunk:
        def words(*shape: int, columns: int) -> Tensor:
            size = self.part_points * columns // 2
            return torch.empty(*shape, size, dtype=torch.int32, device=self.grad_output.device)

        layers = self.parts, self.layers + 1
        output_deltas = words(self.parts, columns=self.outputs)
        activations = None
        if self.of_products or not self.keeps_affine:
            activations = words(*layers, columns=self.width)
        if not self.of_products:
            return Chunk(output_deltas, activations, None, None, None)
        return Chunk(
            output_deltas,
            activations,
            words(*layers, columns=self.width),
            words(self.parts, columns=self.inputs) if self.of_inputs else None,
            self.grad_output.new_empty(self.parts, self.layers + 2),
        )

    def _launch_layers(
        self, first_tile: int, operands: tuple[Tensor, Tensor, Tensor, Tensor], chunk: Chunk
    ) -> None:
        call, (film, stream, first_rows, view_rows) = self.call, operands
        end = self.tiles.used.clamp(max=first_tile + self.slots)
        affine = self.grad_output.new_empty(
            self.blocks if self.keeps_affine else 0,
            self.layers + 1, self.width // 8, self.module.FILM_THREADS, 4,
        )  # fmt: skip
        tensors = [
            call.points, call.directions, self.tiles.table, end, call.row_groups, film, stream,
            self.grad_output, first_rows, view_rows, affine, *chunk, self.sums, self.grad_points,
            self.grad_directions,
        ]  # fmt: skip
        starts = [sum(self.sum_sizes[:i]) if self.sum_sizes[i] else -1 for i in (1, 2, 3)]
        sizes = [
            call.points.shape[1], self.layers, self.channels, call.trunk_channels, self.identity,
            self.tiles.bound, stream.shape[1], first_tile, self.sums.shape[1], *starts,
        ]  # fmt: skip
        with on_stream(self.grad_output) as place:
            self.module.film_siren_backward(
                self.width, self.blocks, sizes, addresses(*tensors), place
            )

    def _add_products(self, chunk: Chunk, tile_groups: Tensor) -> None:
        activations, deltas, inverses = chunk.activations, chunk.deltas, chunk.inverses
        if activations is None or deltas is None or inverses is None:
            return
        last, needed, groups = self.layers, self.needed, tile_groups.contiguous()
        if needed.hidden_weight:
            self._add(self.hidden, deltas[:, 1:last], activations[:, : last - 1],
                      inverses[:, 1:last], groups)  # fmt: skip
        if needed.view_weight:
            self._add(self.view, deltas[:, last:], activations[:, last - 1 : last],
                      inverses[:, last : last + 1], groups)  # fmt: skip
        if needed.head_weight:
            output = chunk.output_deltas[:, None].expand(-1, last, -1)
            self._add(self.heads, output, activations[:, 1:],
                      inverses[:, last + 1 :].expand(-1, last), groups,
                      trunk_channels=self.call.trunk_channels)  # fmt: skip
        if chunk.inputs is not None:
            self._add(self.first, deltas[:, :1], chunk.inputs[:, None], inverses[:, :1], groups)

    def _add(
        self,
        total: Tensor,  # (splits, layers, groups, N, K) += inverse (slots, layers) left^T right
        left: Tensor,  # (slots, layers, words of N columns)
        right: Tensor,
        inverses: Tensor,
        tile_groups: Tensor,  # of each part
        *,
        trunk_channels: int = -1,
    ) -> None:
        splits, layers, groups, left_width, right_width = total.shape
        every = groups == 1
        sizes = [
            len(tile_groups), layers, groups, splits, every, self.part_points // RUN,
            left_width // RUN, right_width // RUN, trunk_channels, left.stride(0), left.stride(1),
            right.stride(0), right.stride(1), inverses.stride(0), inverses.stride(1),
        ]  # fmt: skip
        tensors = addresses(left, right, inverses, tile_groups, total)
        with on_stream(total) as place:
            self.module.film_siren_weight_gradients(self.width, sizes, tensors, place)

    def _gradients(self) -> FilmSirenGradients[Tensor]:
        rows, width = len(self.call.frequencies), self.width
        row_sums = self.sums.new_empty(rows, self.sums.shape[1])
        first = self.tiles.first * self.tile_parts
        with on_stream(self.sums) as place:
            self.module.film_siren_row_sums(
                rows, row_sums.shape[1], addresses(first, self.sums, row_sums), place
            )
        of_angles, of_points, of_directions, of_channels = row_sums.split(self.sum_sizes, 1)
        by_layer = of_angles.unflatten(1, (self.layers + 1, SUM_KINDS, width))

        def or_zeros(sums: Tensor, *shape: int) -> Tensor:  # where the gradient is not needed
            return sums.reshape(rows, *shape) if sums.numel() else sums.new_zeros(rows, *shape)

        return gradients_of(
            self.call,
            Sums(
                angles=by_layer[:, :, 0],
                factors=by_layer[:, :, 1],
                points=or_zeros(of_points, 3, width) if self.thin else None,
                directions=or_zeros(of_directions, 3, width),
                channels=or_zeros(of_channels, self.channels),
                first=self.first.sum(0)[0, 0],
                hidden=self.hidden.sum(0)[:, 0],
                view=self.view.sum(0)[0],
                heads=self.heads.sum(0),
            ),
            self.sums if self.grad_points is None else self.grad_points,
            self.sums if self.grad_directions is None else self.grad_directions,
        )
