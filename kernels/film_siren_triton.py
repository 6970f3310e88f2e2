"""`film_siren` in Triton: a launch forward; backward in chunks of tiles, recomputing activations.

Every sum over points is added up in one order, so results do not change from run to run.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._triton import (
    MOST,
    capability,
    ceil_div,
    interpreted,
    launch,
    multiprocessors,
    padded,
    resident,
    unavailable,
)
from .film_siren_gradients import Sums, gradients_of, only_needed
from .film_siren_ops import empty_output, register
from .film_siren_reference import FilmSirenCall, FilmSirenGradients, is_identity
from .film_siren_tiles import TURN, Tiles, folded_film, groups_of_tiles, point_tiles
from .film_siren_triton_tiling import (
    PRECISIONS,
    Tiling,
    backward_tiling,
    forward_tiling,
    head_constants,
    head_slab,
    network_constants,
    padded_channels,
    product_constants,
    tile_constants,
)

__all__ = ["PRECISIONS", "backward", "forward", "skips_identity", "unavailable"]

CHUNK_TILES = 256  # tiles whose activations the backward pass holds at a time
SPLITS = 8  # partial sums of each weight gradient
SUMS_BLOCK, SUMS_DEPTH = 64, 32


def skips_identity() -> bool:
    return True


def launch_forward(call: FilmSirenCall) -> Tensor:
    points, output = call.points, empty_output(call)
    width, multiplied = call.weights.first_weight.shape
    tiling = forward_tiling(call.precision, capability(points), multiplied, width)
    network = _prepared(call, tiling)
    tiles = point_tiles(call.row_offsets, len(points), tiling.rows)
    programs = min(resident(tiling.warps, MOST) * multiprocessors(points), tiles.bound)
    _launch_forward(network, tiles, tiling, output, _scratch(network, programs, tiling.rows))
    return output


def launch_backward(
    grad_output: Tensor, call: FilmSirenCall, needed: FilmSirenGradients[bool]
) -> list[Tensor]:
    return only_needed(_Backward(grad_output, call, needed).run(), needed, grad_output)


class Operands(NamedTuple):
    """The call's tensors as the kernels name and take them: padded, and matrices in the type of
    their products."""

    points: Tensor
    directions: Tensor
    scales: Tensor  # (M, L + 1, W): frequencies, in turns where the sine takes turns
    shifts: Tensor  # (M, L + 1, W): frequency times bias plus phase, in the same unit
    row_groups: Tensor
    first_weight: Tensor  # (W, 3) fp32; (W, padded inputs) if a point has more; (W, 0): identity
    weights: Tensor  # (L - 1 + G, W, W): hidden layers, then view layers
    view_direction: Tensor  # (G, W, 3) fp32
    head_weight: Tensor  # (G, L - 1, padded channels, W)


class Sizes(NamedTuple):
    """Numbers that the kernels take by these names."""

    inputs: int
    padded_inputs: int
    channels: int
    padded_channels: int
    trunk_channels: int


class Network(NamedTuple):
    """What all kernels of one call take."""

    operands: Operands
    head_bias: Tensor  # (G, padded channels), summed over heads
    sizes: Sizes
    constants: dict[str, Any]

    def arguments(self, tiles: Tiles, first_tile: int) -> dict[str, Any]:
        """Those of the forward and the backward kernel, by name; `points` first."""
        return {
            **self.operands._asdict(),
            **self.sizes._asdict(),
            "tiles": tiles.table,
            "tile_count": tiles.used,
            "tile_bound": tiles.bound,
            "first_tile": first_tile,
        }


def _prepared(call: FilmSirenCall, tiling: Tiling) -> Network:
    weights, precision = call.weights, call.precision
    groups, heads, channels, own_width = weights.head_weight.shape
    inputs, identity = call.points.shape[1], is_identity(weights.first_weight)
    constants = network_constants(own_width, heads + 1, inputs, precision, identity=identity)
    width = constants["WIDTH"]
    step = max(64, tile_constants(tiling, width)["SLAB"])
    sizes = Sizes(
        inputs,
        16 if constants["THIN"] or identity else ceil_div(inputs, step) * step,
        channels,
        padded_channels(channels),
        call.trunk_channels,
    )
    operand = torch.float16 if precision == "fp16" else torch.float32
    columns = 3 if constants["THIN"] else 0 if identity else sizes.padded_inputs
    first_weight = padded(weights.first_weight, (width, columns))
    view = weights.view_weight
    matrices = torch.cat([weights.hidden_weight, view[:, :, 3:]])
    film_shape = (len(call.frequencies), heads + 2, width)
    head_shape = (groups, heads, sizes.padded_channels, width)
    scales, shifts = folded_film(call, 1 / TURN if constants["FAST"] else 1.0)
    operands = Operands(
        points=call.points,
        directions=call.directions,
        scales=padded(scales, film_shape),
        shifts=padded(shifts, film_shape),
        row_groups=call.row_groups,
        first_weight=first_weight if constants["THIN"] else first_weight.to(operand),
        weights=padded(matrices, (heads + groups, width, width)).to(operand),
        view_direction=padded(view[:, :, :3], (groups, width, 3)).contiguous(),
        head_weight=padded(weights.head_weight, head_shape).to(operand),
    )
    head_bias = padded(weights.head_bias.sum(1), (groups, sizes.padded_channels))
    return Network(operands, head_bias, sizes, constants)


class Scratch(NamedTuple):
    """A tile's room in each of several slots, by the names of the forward kernel."""

    copied: Tensor  # (slots, rows, padded inputs): points as operands
    scratch: Tensor  # (slots, L + 1, rows, W): activations
    affine: Tensor  # the same in fp32, or empty


def _scratch(network: Network, slots: int, rows: int, *, keep: bool = False) -> Scratch:
    constants, weights = network.constants, network.operands.weights
    shape = (slots, constants["LAYERS"] + 1, rows, constants["WIDTH"])
    return Scratch(
        weights.new_empty(slots, rows, network.sizes.padded_inputs),
        weights.new_empty(shape),
        network.operands.points.new_empty(shape if keep else (0,)),
    )


def _launch_forward(
    network: Network,
    tiles: Tiles,
    tiling: Tiling,
    output: Tensor,
    scratch: Scratch,
    *,
    first_tile: int = 0,
    keep: bool = False,
) -> None:
    from .film_siren_triton_kernels import forward_kernel

    tile = tile_constants(tiling, network.constants["WIDTH"])
    heads = head_constants(network.sizes.channels, tiling)
    launch(
        forward_kernel,
        (len(scratch.copied),),
        {
            **network.arguments(tiles, first_tile),
            **scratch._asdict(),
            "head_bias": network.head_bias,
            "output": output,
            "heads": network.constants["LAYERS"] - 1,
        },
        {**network.constants, **tile, **heads, "KEEP": keep},
        warps=tiling.warps,
        stages=tiling.stages,
        registers=tiling.registers,
    )


class Bounds(NamedTuple):
    """How much a layer may amplify, the largest of each layer: by names of the backward kernel."""

    film_bounds: Tensor  # (M, L + 1): |frequencies|
    matrix_bounds: Tensor  # (L - 1 + G,): sums of |weights| that meet in one input
    head_bounds: Tensor  # (G, L - 1): the same of the heads


class Chunk(NamedTuple):
    """What the backward kernel leaves of a chunk of tiles, by its names."""

    deltas: Tensor  # (slots, L + 1, rows, W)
    output_deltas: Tensor  # (slots, rows, padded channels)
    inverses: Tensor  # (slots, L + 2)
    sums: Tensor  # (slots, sums of a tile)


class _Backward:
    """One backward pass: per chunk of tiles, recompute, go back through the layers, add up."""

    def __init__(
        self, grad_output: Tensor, call: FilmSirenCall, needed: FilmSirenGradients[bool]
    ) -> None:
        points, new_zeros = call.points, call.points.new_zeros
        self.tiling = backward_tiling(call.precision, capability(points))
        self.network = _prepared(call, self.tiling)
        self.tiles = point_tiles(call.row_offsets, len(points), self.tiling.rows)
        self.slots = min(CHUNK_TILES, self.tiles.bound)
        self.call, self.needed, self.grad_output = call, needed, grad_output
        constants, sizes = self.network.constants, self.network.sizes
        self.layers, self.width = constants["LAYERS"], constants["WIDTH"]
        self.groups = len(call.weights.head_weight)
        self.layer_sums = (self.layers + 1) * 5 * self.width
        self.row_sums = new_zeros(len(call.frequencies), self.layer_sums + sizes.padded_channels)
        self.grad_points = torch.empty_like(points if needed.points else points[:0])
        directions = call.directions
        self.grad_directions = torch.empty_like(directions if needed.directions else directions[:0])
        self.trunk = new_zeros(self.layers - 1, 1, self.width, self.width)
        self.view = new_zeros(1, self.groups, self.width, self.width)
        self.heads = new_zeros(self.layers, self.groups, sizes.padded_channels, self.width)
        self.first = new_zeros(1, 1, self.width, sizes.padded_inputs)

    def run(self) -> FilmSirenGradients[Tensor]:
        """All gradients; those that are not needed may be anything."""
        network, rows = self.network, self.tiling.rows
        scratch = _scratch(network, self.slots, rows, keep=True)
        weights = network.operands.weights
        chunk = Chunk(
            torch.empty_like(scratch.scratch),
            weights.new_empty(self.slots, rows, network.sizes.padded_channels),
            self.row_sums.new_empty(self.slots, self.layers + 2),
            self.row_sums.new_empty(self.slots, self.row_sums.shape[1]),
        )
        bounds, tile_groups = self._bounds(), groups_of_tiles(self.tiles, self.call.row_groups)
        for first_tile in range(0, self.tiles.bound, max(self.slots, 1)):
            _launch_forward(
                network, self.tiles, self.tiling, self.row_sums, scratch, first_tile=first_tile,
                keep=True,
            )  # fmt: skip
            self._launch_backward(bounds, scratch.affine, chunk, first_tile)
            self._add_row_sums(chunk.sums, first_tile)
            groups = tile_groups[first_tile : first_tile + self.slots]
            self._add_weight_gradients(scratch, chunk, groups)
        return self._gradients()

    def _bounds(self) -> Bounds:
        operands = self.network.operands
        return Bounds(
            self.call.frequencies.abs().amax(2),
            operands.weights.float().abs().sum(1).amax(1),
            operands.head_weight.float().abs().sum(2).amax(2),
        )

    def _launch_backward(
        self, bounds: Bounds, affine: Tensor, chunk: Chunk, first_tile: int
    ) -> None:
        from .film_siren_triton_backward_kernels import backward_kernel

        network = self.network
        launch(
            backward_kernel,
            (self.slots,),
            {
                **network.arguments(self.tiles, first_tile),
                **bounds._asdict(),
                **chunk._asdict(),
                "affine": affine,
                "grad_output": self.grad_output,
                "grad_points": self.grad_points,
                "grad_directions": self.grad_directions,
            },
            {
                **network.constants,
                **tile_constants(self.tiling, self.width),
                "HEAD_SLAB": head_slab(network.sizes.channels, self.tiling),
                "NEED_POINTS": self.needed.points,
                "NEED_DIRECTIONS": self.needed.directions,
            },
            warps=self.tiling.warps,
            stages=self.tiling.stages,
        )

    def _add_row_sums(self, sums: Tensor, first_tile: int) -> None:
        from .film_siren_triton_backward_kernels import row_sums_kernel

        rows, size = self.row_sums.shape
        launch(
            row_sums_kernel,
            (rows, ceil_div(size, SUMS_BLOCK)),
            {
                "sums": sums,
                "first_tiles": self.tiles.first,
                "row_sums": self.row_sums,
                "first_tile": first_tile,
                "slots": self.slots,
                "size": size,
            },
            {"BLOCK": SUMS_BLOCK, "DEPTH": SUMS_DEPTH},
        )

    def _add_weight_gradients(self, scratch: Scratch, chunk: Chunk, tile_groups: Tensor) -> None:
        last, activations, needed = self.layers, scratch.scratch, self.needed
        layers = [  # from a layer's deltas and what it reads
            (needed.hidden_weight, self.trunk, slice(1, last), activations[:, :-2]),
            (
                needed.view_weight, self.view, slice(last, last + 1),
                activations[:, last - 1 : last],
            ),
        ]  # fmt: skip
        constants = self.network.constants
        if not constants["THIN"] and not constants["IDENTITY"]:
            first = (needed.first_weight, self.first, slice(0, 1), scratch.copied[:, None])
            layers.insert(0, first)
        for need, total, which, right in layers:
            if need:
                left, inverse = chunk.deltas[:, which], chunk.inverses[:, which]
                self._add_products(total, left, inverse, right, tile_groups)
        if needed.head_weight:
            output = chunk.output_deltas[:, None].expand(-1, last, -1, -1)
            inverse = chunk.inverses[:, -1:].expand(-1, last)
            self._add_products(self.heads, output, inverse, activations[:, 1:], tile_groups)

    def _add_products(
        self, total: Tensor, left: Tensor, inverse: Tensor, right: Tensor, tile_groups: Tensor
    ) -> None:
        """total (layers, groups, N, K) += inverse (slots, layers) left^T (.., rows, N) @ right."""
        from .film_siren_triton_backward_kernels import weight_gradient_kernel

        layers, groups, left_width, right_width = total.shape
        splits = min(2 if interpreted() else SPLITS, len(tile_groups))
        if not splits:
            return
        product = total.new_empty(splits, *total.shape)
        tiling, precision = self.tiling, self.call.precision
        constants = product_constants(tiling, left_width, right_width, groups, precision)
        blocks = (left_width // constants["LEFT"]) * (right_width // constants["RIGHT"])
        launch(
            weight_gradient_kernel,
            (blocks, layers * groups, splits),
            {
                "left": left,
                "right": right,
                "inverses": inverse,
                "tile_groups": tile_groups,
                "product": product,
                "slots": len(tile_groups),
                "left_slot": left.stride(0),
                "left_layer": left.stride(1),
                "right_slot": right.stride(0),
                "right_layer": right.stride(1),
                "inverse_slot": inverse.stride(0),
                "inverse_layer": inverse.stride(1),
                "left_width": left_width,
                "right_width": right_width,
                "groups": groups,
            },
            constants,
            warps=tiling.warps,
            stages=tiling.stages,
        )
        total += product.sum(0)

    def _gradients(self) -> FilmSirenGradients[Tensor]:
        layers = self.layers
        by_layer = self.row_sums[:, : self.layer_sums].unflatten(1, (layers + 1, 5, self.width))
        return gradients_of(
            self.call,
            Sums(
                angles=by_layer[:, :, 0],
                factors=by_layer[:, :, 1],
                points=by_layer[:, 0, 2:] if self.network.constants["THIN"] else None,
                directions=by_layer[:, layers, 2:],
                channels=self.row_sums[:, self.layer_sums :],
                first=self.first[0, 0],
                hidden=self.trunk[:, 0],
                view=self.view[0],
                heads=self.heads,
            ),
            self.grad_points,
            self.grad_directions,
        )


forward, backward = register("triton", launch_forward, launch_backward)
