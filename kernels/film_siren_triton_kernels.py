"""Triton kernels of `film_siren`; launched by `film_siren_triton.py`.

Points come in tiles of ROWS that share one FiLM row. The activations of a tile lie in `scratch`, in
the type of the matrix operands: fp32, or fp16 with products, FiLM and sine in fp32. Layer 0 reads
the points, layer `LAYERS` is the view layer. `weights` are those of layers 1 to LAYERS - 1, then of
one view layer for each group. FiLM and biases are folded: a layer is sine(scale W h + shift).
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice

from ._triton_dense import outer_product, times, times_transposed

ROUNDER = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding it leaves no place for a fraction
TURN = tl.constexpr(6.283185307179586)
INVERSE_PI = tl.constexpr(0.31830988618379067)
PI_HIGH = tl.constexpr(3.140625)  # eight bits: exact times any number of half turns below 2^16
PI_MIDDLE = tl.constexpr(0.0009670257568359375)  # eleven bits
PI_LOW = tl.constexpr(6.2783295727e-07)


@triton.jit
def _within_half_turn(x):
    """x less a whole number of half turns, in [-pi / 2, pi / 2], and the sign that leaves."""
    turns = tl.floor(x * INVERSE_PI + 0.5)
    r = ((x - turns * PI_HIGH) - turns * PI_MIDDLE) - turns * PI_LOW
    return r, 1 - 2 * (turns - 2 * tl.floor(0.5 * turns))


@triton.jit
def _without_whole_turns(x):
    """x turns less the nearest whole number of them, as an angle in [-pi, pi]."""
    return (x - ((x + ROUNDER) - ROUNDER)) * TURN


@triton.jit
def sine(x, FAST: tl.constexpr):
    """Of an angle in radians; if FAST, in turns."""
    if FAST:
        return libdevice.fast_sinf(_without_whole_turns(x))
    r, sign = _within_half_turn(x)
    s = r * r
    p = -2.38466939e-08 * s + 2.75226188e-06
    p = (p * s - 1.98408040e-04) * s + 8.33333050e-03
    p = p * s - 1.66666666e-01
    return sign * (r + r * (s * p))


@triton.jit
def cosine(x, FAST: tl.constexpr):
    """Of an angle in radians; if FAST, in turns."""
    if FAST:
        return libdevice.fast_cosf(_without_whole_turns(x))
    r, sign = _within_half_turn(x)
    s = r * r
    p = 1.99199503e-09 * s - 2.75256608e-07
    p = (p * s + 2.48010702e-05) * s - 1.38888846e-03
    p = (p * s + 4.16666665e-02) * s - 0.5
    return sign * (1 + s * p)


@triton.jit
def _three_inputs(vectors, row, inside, inputs, weight, column):
    """vectors (P, inputs <= 3) @ weight (width, 3)^T in fp32."""
    size = row * 0 + inputs  # a block, so that the comparisons are masks whatever `inputs` is
    x = tl.load(vectors + row * inputs, mask=inside, other=0.0)
    product = x[:, None] * tl.load(weight + column * 3)[None, :]
    y = tl.load(vectors + row * inputs + 1, mask=inside & (size > 1), other=0.0)
    product += y[:, None] * tl.load(weight + column * 3 + 1)[None, :]
    z = tl.load(vectors + row * inputs + 2, mask=inside & (size > 2), other=0.0)
    product += z[:, None] * tl.load(weight + column * 3 + 2)[None, :]
    return product


@triton.jit
def _copy_points(points, row, inside, inputs, padded_inputs, to, ROWS: tl.constexpr):
    """A tile of points as matrix operands, with zeros up to `padded_inputs`."""
    for start in range(0, padded_inputs, 16):  # wider pieces take registers from what follows
        column = start + tl.arange(0, 16)
        mask = inside[:, None] & (column < inputs)[None, :]
        x = tl.load(points + row[:, None] * inputs + column[None, :], mask=mask, other=0.0)
        at = tl.arange(0, ROWS)[:, None] * padded_inputs + column[None, :]
        tl.store(to + at, x.to(to.dtype.element_ty))


@triton.jit
def _store_layer(
    product,  # (ROWS, COLUMNS) W h
    column,  # (COLUMNS,)
    scales,  # of this FiLM row and layer: (WIDTH,)
    shifts,
    scratch,  # this layer's tile
    affine,
    KEEP: tl.constexpr,
    ROWS: tl.constexpr,
    WIDTH: tl.constexpr,
    FAST: tl.constexpr,
):
    tile_row = tl.arange(0, ROWS)[:, None] * WIDTH
    if KEEP:
        tl.store(affine + tile_row + column[None, :], product)
    angle = tl.load(scales + column)[None, :] * product + tl.load(shifts + column)[None, :]
    tl.store(scratch + tile_row + column[None, :], sine(angle, FAST).to(scratch.dtype.element_ty))


@triton.jit
def _layers(
    points,
    directions,
    scales,  # of this FiLM row: (LAYERS + 1, WIDTH)
    shifts,
    group,
    first_weight,
    weights,
    view_direction,
    row,  # (ROWS,) points of the tile
    inside,
    copied,  # (ROWS, padded_inputs) scratch tile
    scratch,  # (LAYERS + 1, ROWS, WIDTH): sines of every layer, out
    affine,  # the same in fp32: W h, out; not used unless KEEP
    inputs,
    padded_inputs,
    LAYERS: tl.constexpr,
    WIDTH: tl.constexpr,
    THIN: tl.constexpr,  # at most three inputs: fp32, straight from the points
    KEEP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
    FAST: tl.constexpr,
):
    if not THIN:
        _copy_points(points, row, inside, inputs, padded_inputs, copied, ROWS)
        tl.debug_barrier()
    for start in range(0, WIDTH, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        if THIN:
            product = _three_inputs(points, row, inside, inputs, first_weight, column)
        else:
            product = times_transposed(
                copied, first_weight, start, padded_inputs, tl.zeros((ROWS, COLUMNS), tl.float32),
                ROWS, COLUMNS, SLAB, PRECISION,
            )  # fmt: skip
        _store_layer(product, column, scales, shifts, scratch, affine, KEEP, ROWS, WIDTH, FAST)
    # The rule of barriers: between storing a tile of scratch and loading it lies a barrier, and it
    # lies in the loop itself. There it does two things. It orders the threads of the program, and
    # it keeps the compiler from starting a layer's first copies before the stores of the layer
    # below: the pipeliner leaves loops with a barrier alone, and without one hoists those copies.
    # `scratch_hazards` in tests/triton_hazards.py looks for either in what was compiled.
    tl.debug_barrier()
    for layer in range(1, LAYERS + 1):
        to = layer * ROWS * WIDTH
        matrix = layer - 1 + group * (layer // LAYERS)  # the view layer's group follows the trunk
        for start in range(0, WIDTH, COLUMNS):
            column = start + tl.arange(0, COLUMNS)
            product = tl.zeros((ROWS, COLUMNS), tl.float32)
            if layer == LAYERS:
                weight = view_direction + group * WIDTH * 3
                product = _three_inputs(directions, row, inside, 3, weight, column)
            product = times_transposed(
                scratch + to - ROWS * WIDTH, weights + matrix * WIDTH * WIDTH, start, WIDTH,
                product, ROWS, COLUMNS, SLAB, PRECISION,
            )  # fmt: skip
            _store_layer(
                product, column, scales + layer * WIDTH, shifts + layer * WIDTH, scratch + to,
                affine + to, KEEP, ROWS, WIDTH, FAST,
            )  # fmt: skip
        tl.debug_barrier()


@triton.jit
def _heads(
    scratch,  # (LAYERS + 1, ROWS, WIDTH)
    head_weight,  # of this group: (LAYERS - 1, padded_channels, WIDTH)
    head_bias,  # of this group, summed over heads: (padded_channels,)
    output,  # (P, C), out
    row,
    inside,
    channels,
    padded_channels,
    trunk_channels,
    end,  # columns [0, end) are made here
    heads,  # LAYERS - 1, as a number that the compiler does not know: it would unroll the loop
    LAYERS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):
    layer_size: tl.constexpr = ROWS * WIDTH
    for start in range(0, end, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for layer in range(1, heads):
            total = times_transposed(
                scratch + layer * layer_size, head_weight + (layer - 1) * padded_channels * WIDTH,
                start, WIDTH, total, ROWS, COLUMNS, SLAB, PRECISION,
            )  # fmt: skip
        last = head_weight + (LAYERS - 2) * padded_channels * WIDTH
        # Chosen, not multiplied by zero: no view direction, not even NaN, reaches the trunk.
        for from_view in range(2):
            mine = (column >= trunk_channels) == (from_view == 1)
            if tl.max(mine.to(tl.int32), 0) > 0:
                part = times_transposed(
                    scratch + (LAYERS - 1 + from_view) * layer_size, last, start, WIDTH,
                    tl.zeros((ROWS, COLUMNS), tl.float32), ROWS, COLUMNS, SLAB, PRECISION,
                )  # fmt: skip
                total += tl.where(mine[None, :], part, 0.0)
        total += tl.load(head_bias + column)[None, :]
        at = output + row[:, None] * channels + column[None, :]
        tl.store(at, total, mask=inside[:, None] & (column < channels)[None, :])


@triton.jit
def _view_heads(
    scratch,  # (LAYERS + 1, ROWS, WIDTH)
    head_weight,  # of this group: (LAYERS - 1, padded_channels, WIDTH)
    head_bias,  # of this group, summed over heads: (padded_channels,)
    output,  # (P, C), out
    row,
    inside,
    first,  # columns [first, padded_channels) are made here, none of them the trunk's
    channels,
    padded_channels,
    heads,  # LAYERS - 1, as a number that the compiler does not know: it would unroll the loop
    LAYERS: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Wide blocks of columns: each of them reads all activations of the tile once more."""
    SLABS: tl.constexpr = WIDTH // SLAB
    k = tl.arange(0, SLAB)
    tile = tl.arange(0, ROWS)[:, None] * WIDTH + k[None, :]
    for start in range(first, padded_channels, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        block = column[None, :] * WIDTH + k[:, None]
        total = tl.zeros((ROWS, COLUMNS), tl.float32)
        for step in range(heads * SLABS):  # one loop over heads and slabs keeps its pipeline full
            head, slab = step // SLABS, step % SLABS * SLAB
            layer = head + 1 + (head == heads - 1).to(tl.int32)  # the last reads the view layer
            a = tl.load(scratch + layer * ROWS * WIDTH + slab + tile)
            b = tl.load(head_weight + head * padded_channels * WIDTH + slab + block)
            total = tl.dot(a, b, total, input_precision=PRECISION)
        total += tl.load(head_bias + column)[None, :]
        at = output + row[:, None] * channels + column[None, :]
        tl.store(at, total, mask=inside[:, None] & (column < channels)[None, :])


@triton.jit(do_not_specialize=["first_tile", "tile_bound"])
def forward_kernel(
    points,  # (P, I)
    directions,  # (P, 3)
    scales,  # (M, LAYERS + 1, WIDTH)
    shifts,
    row_groups,  # (M,)
    tiles,  # (3, T): first point, point after the last, FiLM row
    tile_count,  # (1,): how many of T are used
    first_weight,  # (WIDTH, 3) fp32 if THIN, else (WIDTH, padded_inputs)
    weights,  # (LAYERS - 1 + G, WIDTH, WIDTH)
    view_direction,  # (G, WIDTH, 3) fp32
    head_weight,  # (G, LAYERS - 1, padded_channels, WIDTH)
    head_bias,  # (G, padded_channels)
    output,  # (P, C), out
    copied,  # (slots, ROWS, padded_inputs)
    scratch,  # (slots, LAYERS + 1, ROWS, WIDTH)
    affine,  # the same in fp32, used if KEEP
    first_tile,
    tile_bound,  # T
    inputs,
    padded_inputs,
    channels,
    padded_channels,
    trunk_channels,
    heads,  # LAYERS - 1
    LAYERS: tl.constexpr,
    WIDTH: tl.constexpr,
    THIN: tl.constexpr,
    KEEP: tl.constexpr,  # keep what the backward pass needs, a tile a program; no output
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HEAD_COLUMNS: tl.constexpr,
    VIEW_COLUMNS: tl.constexpr,  # a multiple of HEAD_COLUMNS, for columns that the trunk has not
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
    FAST: tl.constexpr,
):
    slot = tl.program_id(0).to(tl.int64)
    own_copy = copied + slot * ROWS * padded_inputs
    own_scratch = scratch + slot * ((LAYERS + 1) * ROWS * WIDTH)
    own_affine = affine + slot * ((LAYERS + 1) * ROWS * WIDTH)
    end = tl.load(tile_count).to(tl.int32)
    if KEEP:
        end = tl.minimum(end, first_tile + tl.num_programs(0))
    for tile in range(first_tile + tl.program_id(0), end, tl.num_programs(0)):
        film_row = tl.load(tiles + 2 * tile_bound + tile)
        group = tl.load(row_groups + film_row).to(tl.int32)
        row = tl.load(tiles + tile) + tl.arange(0, ROWS)
        inside = row < tl.load(tiles + tile_bound + tile)
        _layers(
            points, directions, scales + film_row * ((LAYERS + 1) * WIDTH),
            shifts + film_row * ((LAYERS + 1) * WIDTH), group, first_weight, weights,
            view_direction, row, inside, own_copy, own_scratch, own_affine, inputs, padded_inputs,
            LAYERS, WIDTH, THIN, KEEP, ROWS, COLUMNS, SLAB, PRECISION, FAST,
        )  # fmt: skip
        if not KEEP:
            own_heads = head_weight + group * ((LAYERS - 1) * padded_channels * WIDTH)
            own_bias = head_bias + group * padded_channels
            mixed = tl.cdiv(trunk_channels, HEAD_COLUMNS) * HEAD_COLUMNS
            narrow = mixed + (padded_channels - mixed) % VIEW_COLUMNS
            _heads(
                own_scratch, own_heads, own_bias, output, row, inside, channels, padded_channels,
                trunk_channels, narrow, heads, LAYERS, WIDTH, ROWS, HEAD_COLUMNS, SLAB, PRECISION,
            )  # fmt: skip
            _view_heads(
                own_scratch, own_heads, own_bias, output, row, inside, narrow, channels,
                padded_channels, heads, LAYERS, WIDTH, ROWS, VIEW_COLUMNS, SLAB, PRECISION,
            )  # fmt: skip
            tl.debug_barrier()  # the next tile overwrites the scratch


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
    if NEED_POINTS:
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
