"""The Triton kernels of `film_siren` backward; launched by `film_siren_triton.py`.

The forward kernel recomputes a chunk of tiles; `backward_kernel` goes back through the layers of
each and leaves its deltas, `weight_gradient_kernel` multiplies them by the activations, and
`row_sums_kernel` adds up what belongs to a FiLM row.
"""

import triton
import triton.language as tl

from ._triton_dense import outer_product, times
from ._triton_sines import TURN, cosine


@triton.jit
def _scale_for(bound):
    """A power of two that brings what is at most `bound` below 2^14, and its inverse."""
    exponent = (bound.to(tl.int32, bitcast=True) >> 23) & 255
    exponent = tl.minimum(tl.maximum(267 - exponent, 1), 253)
    scale = (exponent << 23).to(tl.float32, bitcast=True)
    return scale, ((254 - exponent) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _output_gradient(grad_output, row, inside, start, channels, SLAB: tl.constexpr):
    """(ROWS, SLAB): columns from `start` on, zero where there are none."""
    column = start + tl.arange(0, SLAB)
    mask = inside[:, None] & (column < channels)[None, :]
    at = grad_output + row[:, None] * channels + column[None, :]
    return tl.load(at, mask=mask, other=0.0)


@triton.jit
def _copy_output_gradient(
    grad_output,
    row,
    inside,
    channels,
    padded_channels,
    to,
    sums,
    SCALED: tl.constexpr,
    ROWS: tl.constexpr,
    SLAB: tl.constexpr,  # divides padded_channels
):
    """A tile of gradients as matrix operands, times the power of two that is returned with its
    inverse and the largest gradient; and their sums over the tile in fp32."""
    largest = tl.zeros((ROWS,), tl.float32)
    if SCALED:
        for start in range(0, padded_channels, SLAB):
            g = _output_gradient(grad_output, row, inside, start, channels, SLAB)
            largest = tl.maximum(largest, tl.max(tl.abs(g), 1))
    bound = tl.max(largest, 0)
    scale, inverse = _scale_for(bound)
    for start in range(0, padded_channels, SLAB):
        g = _output_gradient(grad_output, row, inside, start, channels, SLAB)
        column = start + tl.arange(0, SLAB)
        tl.store(sums + column, tl.sum(g, 0))
        if SCALED:
            g *= scale
        at = tl.arange(0, ROWS)[:, None] * padded_channels + column[None, :]
        tl.store(to + at, g.to(to.dtype.element_ty))
    return scale, inverse, bound


@triton.jit
def _store_three_sums(sums, vectors, row, inside, inputs, delta, column, WIDTH: tl.constexpr):
    """Sums over the tile of delta times each of up to three coordinates."""
    for axis in tl.static_range(3):
        mask = inside & (axis < row * 0 + inputs)
        x = tl.load(vectors + row * inputs + axis, mask=mask, other=0.0)
        tl.store(sums + axis * WIDTH + column, tl.sum(delta * x[:, None], 0))


@triton.jit(do_not_specialize=["first_tile", "tile_bound"])
def backward_kernel(
    grad_output,  # (P, C)
    points,
    directions,
    scales,
    shifts,
    row_groups,
    tiles,
    tile_count,
    first_weight,
    weights,
    view_direction,
    head_weight,
    film_bounds,  # (M, LAYERS + 1): the largest |frequency|
    matrix_bounds,  # (LAYERS - 1 + G,): the largest sum of |weights| that read one input
    head_bounds,  # (G, LAYERS - 1): the same of the heads
    affine,  # (slots, LAYERS + 1, ROWS, WIDTH) fp32: from the forward kernel with KEEP
    deltas,  # the same size, as operands: gradients of W h + b, out
    output_deltas,  # (slots, ROWS, padded_channels): the gradient of the output as operands, out
    inverses,  # (slots, LAYERS + 2), out: what deltas, then output_deltas are to be multiplied by
    sums,  # (slots, (LAYERS + 1) * 5 * WIDTH + padded_channels), out: sums over each tile,
    #        phases, frequencies and three products with coordinates a layer, then channels
    grad_points,  # (P, I), out
    grad_directions,  # (P, 3), out
    first_tile,
    tile_bound,
    inputs,
    padded_inputs,
    channels,
    padded_channels,
    trunk_channels,
    LAYERS: tl.constexpr,
    WIDTH: tl.constexpr,
    THIN: tl.constexpr,
    IDENTITY: tl.constexpr,
    NEED_POINTS: tl.constexpr,
    NEED_DIRECTIONS: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
    HEAD_SLAB: tl.constexpr,  # of products over channels: divides padded_channels
    PRECISION: tl.constexpr,
    FAST: tl.constexpr,
):
    """Deltas in fp16 are scaled by a power of two for each tile and layer. It follows from a bound:
    the largest delta of the layer above and the weights leave no room for anything larger, so
    nothing overflows, whatever the network amplifies. Sums and gradients are not scaled."""
    SCALED: tl.constexpr = deltas.dtype.element_ty == tl.float16
    RADIANS: tl.constexpr = TURN if FAST else 1.0  # in a unit of `scales` and `shifts`
    slot = tl.program_id(0).to(tl.int64)
    tile = first_tile + tl.program_id(0)
    if tile >= tl.load(tile_count):
        return
    layer_size: tl.constexpr = ROWS * WIDTH
    own_affine = affine + slot * ((LAYERS + 1) * layer_size)
    own_deltas = deltas + slot * ((LAYERS + 1) * layer_size)
    own_output = output_deltas + slot * (ROWS * padded_channels)
    own_sums = sums + slot * ((LAYERS + 1) * 5 * WIDTH + padded_channels)
    own_inverses = inverses + slot * (LAYERS + 2)
    film_row = tl.load(tiles + 2 * tile_bound + tile)
    group = tl.load(row_groups + film_row)
    own_scales = scales + film_row * ((LAYERS + 1) * WIDTH)
    own_shifts = shifts + film_row * ((LAYERS + 1) * WIDTH)
    own_heads = head_weight + group * ((LAYERS - 1) * padded_channels * WIDTH)
    row = tl.load(tiles + tile) + tl.arange(0, ROWS)
    inside = row < tl.load(tiles + tile_bound + tile)
    tile_row = tl.arange(0, ROWS)[:, None] * WIDTH
    output_scale, output_inverse, output_bound = _copy_output_gradient(
        grad_output, row, inside, channels, padded_channels, own_output,
        own_sums + (LAYERS + 1) * 5 * WIDTH, SCALED, ROWS, HEAD_SLAB,
    )  # fmt: skip
    tl.store(own_inverses + LAYERS + 1, output_inverse)
    tl.debug_barrier()
    above_bound = output_bound * 0  # of the deltas of the layer above: none yet
    above_inverse = output_inverse
    dx = tl.zeros((ROWS,), tl.float32)
    dy = tl.zeros((ROWS,), tl.float32)
    dz = tl.zeros((ROWS,), tl.float32)
    for reverse in range(LAYERS + 1):
        layer = LAYERS - reverse
        above = tl.where(layer == LAYERS - 1, LAYERS - 1 + group, layer)  # matrix of layer + 1
        read = tl.minimum(tl.maximum(layer - 1, 0), LAYERS - 2)  # the head that reads this layer
        head = own_heads + read * padded_channels * WIDTH
        low = tl.where(layer == LAYERS, trunk_channels, 0)
        high = tl.where(layer == LAYERS - 1, trunk_channels, padded_channels)
        scale, inverse = output_scale, output_inverse
        if SCALED:
            bound = output_bound * tl.load(head_bounds + group * (LAYERS - 1) + read)
            if layer < LAYERS:
                bound += above_bound * tl.load(matrix_bounds + above)
            bound *= tl.load(film_bounds + film_row * (LAYERS + 1) + layer)
            scale, inverse = _scale_for(bound)
            tl.store(own_inverses + layer, inverse)
        largest = tl.zeros((ROWS,), tl.float32)
        for start in range(0, WIDTH, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            grad = tl.zeros((ROWS, COLUMNS), tl.float32)
            if layer < LAYERS:
                grad = times(
                    own_deltas + (layer + 1) * layer_size, weights + above * WIDTH * WIDTH, start,
                    WIDTH, WIDTH, 0, WIDTH, grad, ROWS, COLUMNS, SLAB, PRECISION,
                )  # fmt: skip
            if SCALED:
                grad = grad * above_inverse * output_scale
            if layer > 0:
                grad = times(
                    own_output, head, start, padded_channels, WIDTH, low, high, grad, ROWS, COLUMNS,
                    HEAD_SLAB, PRECISION,
                )  # fmt: skip
            if SCALED:
                grad *= output_inverse
            a = tl.load(own_affine + layer * layer_size + tile_row + column[None, :])
            f = tl.load(own_scales + layer * WIDTH + column)[None, :]
            p = tl.load(own_shifts + layer * WIDTH + column)[None, :]
            grad = tl.where(inside[:, None], grad * cosine(f * a + p, FAST), 0.0)
            layer_sums = own_sums + layer * 5 * WIDTH
            tl.store(layer_sums + column, tl.sum(grad, 0))
            tl.store(layer_sums + WIDTH + column, tl.sum(grad * a, 0))
            delta = f * RADIANS * grad
            largest = tl.maximum(largest, tl.max(tl.abs(delta), 1))
            at = own_deltas + layer * layer_size + tile_row + column[None, :]
            if SCALED:
                tl.store(at, (delta * scale).to(tl.float16))
            else:
                tl.store(at, delta)
            if layer == LAYERS:
                _store_three_sums(
                    layer_sums + 2 * WIDTH, directions, row, inside, 3, delta, column, WIDTH
                )
                if NEED_DIRECTIONS:
                    own_view = view_direction + group * WIDTH * 3 + column * 3
                    dx += tl.sum(delta * tl.load(own_view)[None, :], 1)
                    dy += tl.sum(delta * tl.load(own_view + 1)[None, :], 1)
                    dz += tl.sum(delta * tl.load(own_view + 2)[None, :], 1)
            if layer == 0:
                if IDENTITY and NEED_POINTS:
                    of_points = grad_points + row[:, None] * inputs + column[None, :]
                    tl.store(of_points, delta, mask=inside[:, None] & (column < inputs)[None, :])
                if THIN:
                    _store_three_sums(
                        layer_sums + 2 * WIDTH, points, row, inside, inputs, delta, column, WIDTH
                    )
                    if NEED_POINTS:
                        own_first = first_weight + column * 3
                        dx += tl.sum(delta * tl.load(own_first)[None, :], 1)
                        dy += tl.sum(delta * tl.load(own_first + 1)[None, :], 1)
                        dz += tl.sum(delta * tl.load(own_first + 2)[None, :], 1)
        above_bound = tl.max(largest, 0)
        above_inverse = inverse
        tl.debug_barrier()  # as in `_layers`
        if layer == LAYERS:
            if NEED_DIRECTIONS:
                _store_three(grad_directions, row, inside, 3, dx, dy, dz)
            dx = tl.zeros((ROWS,), tl.float32)
            dy = tl.zeros((ROWS,), tl.float32)
            dz = tl.zeros((ROWS,), tl.float32)
    if NEED_POINTS and not IDENTITY:
        if THIN:
            _store_three(grad_points, row, inside, inputs, dx, dy, dz)
        else:
            for start in range(0, padded_inputs, COLUMNS):
                column = start + tl.arange(0, COLUMNS)
                grad = times(
                    own_deltas, first_weight, start, WIDTH, padded_inputs, 0, WIDTH,
                    tl.zeros((ROWS, COLUMNS), tl.float32), ROWS, COLUMNS, SLAB, PRECISION,
                )  # fmt: skip
                if SCALED:
                    grad *= above_inverse
                at = grad_points + row[:, None] * inputs + column[None, :]
                mask = inside[:, None] & (column < inputs)[None, :]
                tl.store(at, grad, mask=mask)


@triton.jit
def _store_three(to, row, inside, size, x, y, z):
    sizes = row * 0 + size  # a block, as in `_three_inputs`
    tl.store(to + row * size, x, mask=inside)
    tl.store(to + row * size + 1, y, mask=inside & (sizes > 1))
    tl.store(to + row * size + 2, z, mask=inside & (sizes > 2))


@triton.jit(do_not_specialize=["slots"])
def weight_gradient_kernel(
    left,  # (slots, layers, ROWS, left_width)
    right,  # (slots, layers, ROWS, right_width)
    inverses,  # (slots, layers): what each tile of `left` is to be multiplied by
    tile_groups,  # (slots,): -1 for a tile that is not used
    product,  # (splits, layers, groups, left_width, right_width) fp32, out
    slots,
    left_slot,  # elements between slots
    left_layer,  # elements between layers; 0: the same for all
    right_slot,
    right_layer,
    inverse_slot,
    inverse_layer,
    left_width,
    right_width,
    groups,
    EVERY_GROUP: tl.constexpr,  # one product over the tiles of all groups
    ROWS: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """left^T @ right over the points of one group's tiles; a share of the tiles a split."""
    SCALED: tl.constexpr = left.dtype.element_ty == tl.float16
    across = right_width // RIGHT
    first_left = tl.program_id(0) // across * LEFT
    first_right = tl.program_id(0) % across * RIGHT
    layer = tl.program_id(1) // groups
    group = tl.program_id(1) % groups
    share = tl.cdiv(slots, tl.num_programs(2))
    total = tl.zeros((LEFT, RIGHT), tl.float32)
    begin = tl.program_id(2) * share
    for slot in range(begin, tl.minimum(begin + share, slots)):
        tile_group = tl.load(tile_groups + slot)
        wanted = tile_group == group
        if EVERY_GROUP:
            wanted = tile_group >= 0
        if wanted:
            own_left = left + slot * left_slot + layer * left_layer
            own_right = right + slot * right_slot + layer * right_layer
            if SCALED:
                part = outer_product(
                    own_left, own_right, first_left, first_right, left_width, right_width,
                    tl.zeros((LEFT, RIGHT), tl.float32), ROWS, LEFT, RIGHT, SLAB, PRECISION,
                )  # fmt: skip
                total += part * tl.load(inverses + slot * inverse_slot + layer * inverse_layer)
            else:
                total = outer_product(
                    own_left, own_right, first_left, first_right, left_width, right_width, total,
                    ROWS, LEFT, RIGHT, SLAB, PRECISION,
                )  # fmt: skip
    matrix = (tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    out_row = first_left + tl.arange(0, LEFT)
    at = out_row[:, None] * right_width + first_right + tl.arange(0, RIGHT)[None, :]
    tl.store(product + matrix * left_width * right_width + at, total)


@triton.jit(do_not_specialize=["first_tile", "slots"])
def row_sums_kernel(
    sums,  # (slots, size) of each tile
    first_tiles,  # (M + 1,): the first tile of each FiLM row
    row_sums,  # (M, size), added to
    first_tile,
    slots,
    size,
    BLOCK: tl.constexpr,
    DEPTH: tl.constexpr,  # tiles whose sums are loaded at a time
):
    """Adds the sums of a FiLM row's tiles, in an order that their number alone decides."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < size
    begin = tl.maximum(tl.load(first_tiles + row).to(tl.int32) - first_tile, 0)
    end = tl.minimum(tl.load(first_tiles + row + 1).to(tl.int32) - first_tile, slots)
    total = tl.load(row_sums + row * size + column, mask=inside, other=0.0)
    for first in range(begin, end, DEPTH):
        slot = first + tl.arange(0, DEPTH)
        mask = (slot < end)[:, None] & inside[None, :]
        total += tl.sum(
            tl.load(sums + slot[:, None] * size + column[None, :], mask=mask, other=0.0), 0
        )
    tl.store(row_sums + row * size + column, total, mask=inside)
