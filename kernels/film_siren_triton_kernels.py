"""The Triton kernel of `film_siren` forward; launched by `film_siren_triton.py`.

Points come in tiles of ROWS that share one FiLM row. The activations of a tile lie in `scratch`, in
the type of the matrix operands: fp32, or fp16 with products, FiLM and sine in fp32. Layer 0 reads
the points, or is their sine where they are its products (IDENTITY); layer `LAYERS` is the view
layer. `weights` are those of layers 1 to LAYERS - 1, then of
one view layer for each group. FiLM and biases are folded: a layer is sine(scale W h + shift).
"""

import triton
import triton.language as tl

from ._triton_dense import times_transposed
from ._triton_sines import sine


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
def _own_products(points, row, inside, inputs, column):
    """Points that are the products W h of the first layer themselves."""
    mask = inside[:, None] & (column < inputs)[None, :]
    return tl.load(points + row[:, None] * inputs + column[None, :], mask=mask, other=0.0)


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
    IDENTITY: tl.constexpr,  # no first product: the points are that
    KEEP: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
    FAST: tl.constexpr,
):
    if not THIN and not IDENTITY:
        _copy_points(points, row, inside, inputs, padded_inputs, copied, ROWS)
        tl.debug_barrier()
    for start in range(0, WIDTH, COLUMNS):
        column = start + tl.arange(0, COLUMNS)
        if IDENTITY:
            product = _own_products(points, row, inside, inputs, column)
        elif THIN:
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
        _store_heads(total, head_bias, output, row, inside, start, channels, ROWS, COLUMNS)


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
    BLOCKS: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """BLOCKS blocks of columns at a time, so that a slab of activations is read once for all.

    As one block with as many columns it would spill registers: on the way to the output they need
    another layout, which takes each block's registers twice.
    """
    SLABS: tl.constexpr = WIDTH // SLAB
    k = tl.arange(0, SLAB)
    tile = tl.arange(0, ROWS)[:, None] * WIDTH + k[None, :]
    block = tl.arange(0, COLUMNS)[None, :] * WIDTH + k[:, None]
    for start in range(first, padded_channels, BLOCKS * COLUMNS):
        totals = ()
        for _ in tl.static_range(BLOCKS):
            totals = totals + (tl.zeros((ROWS, COLUMNS), tl.float32),)  # type: ignore[assignment]
        for step in range(heads * SLABS):  # one loop over heads and slabs keeps its pipeline full
            head, slab = step // SLABS, step % SLABS * SLAB
            layer = head + 1 + (head == heads - 1).to(tl.int32)  # the last reads the view layer
            a = tl.load(scratch + layer * ROWS * WIDTH + slab + tile)
            of_block = head_weight + (head * padded_channels + start) * WIDTH + slab
            sums = ()
            for i in tl.static_range(BLOCKS):
                b = tl.load(of_block + i * COLUMNS * WIDTH + block)
                product = tl.dot(a, b, totals[i], input_precision=PRECISION)
                sums = sums + (product,)  # type: ignore[assignment]
            totals = sums
        for i in tl.static_range(BLOCKS):
            _store_heads(
                totals[i], head_bias, output, row, inside, start + i * COLUMNS, channels, ROWS,
                COLUMNS,
            )  # fmt: skip


@triton.jit
def _store_heads(
    total,  # (ROWS, COLUMNS)
    head_bias,
    output,
    row,  # (ROWS,) points of the tile, one after the other
    inside,
    start,
    channels,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    column = start + tl.arange(0, COLUMNS)
    total += tl.load(head_bias + column)[None, :]
    within = tl.arange(0, ROWS)[:, None] * channels + column[None, :]  # 32 bits: fewer registers
    at = output + tl.min(row, 0) * channels + within
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
    first_weight,  # (WIDTH, 3) fp32 if THIN, (WIDTH, 0) if IDENTITY, else (WIDTH, padded_inputs)
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
    IDENTITY: tl.constexpr,
    KEEP: tl.constexpr,  # keep what the backward pass needs, a tile a program; no output
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HEAD_COLUMNS: tl.constexpr,
    VIEW_COLUMNS: tl.constexpr,  # a multiple of HEAD_COLUMNS, for columns that the trunk has not
    VIEW_BLOCKS: tl.constexpr,  # of so many columns, that share what they read
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
    first = first_tile + tl.program_id(0)
    # Addresses computed ahead of the loop would take registers from all that is in it.
    for tile in tl.range(first, end, tl.num_programs(0), disable_licm=True):
        film_row = tl.load(tiles + 2 * tile_bound + tile)
        group = tl.load(row_groups + film_row).to(tl.int32)
        row = tl.load(tiles + tile) + tl.arange(0, ROWS)
        inside = row < tl.load(tiles + tile_bound + tile)
        _layers(
            points, directions, scales + film_row * ((LAYERS + 1) * WIDTH),
            shifts + film_row * ((LAYERS + 1) * WIDTH), group, first_weight, weights,
            view_direction, row, inside, own_copy, own_scratch, own_affine, inputs, padded_inputs,
            LAYERS, WIDTH, THIN, IDENTITY, KEEP, ROWS, COLUMNS, SLAB, PRECISION, FAST,
        )  # fmt: skip
        if not KEEP:
            own_heads = head_weight + group * ((LAYERS - 1) * padded_channels * WIDTH)
            own_bias = head_bias + group * padded_channels
            mixed = tl.cdiv(trunk_channels, HEAD_COLUMNS) * HEAD_COLUMNS
            narrow = mixed + (padded_channels - mixed) % (VIEW_BLOCKS * VIEW_COLUMNS)
            _heads(
                own_scratch, own_heads, own_bias, output, row, inside, channels, padded_channels,
                trunk_channels, narrow, heads, LAYERS, WIDTH, ROWS, HEAD_COLUMNS, SLAB, PRECISION,
            )  # fmt: skip
            _view_heads(
                own_scratch, own_heads, own_bias, output, row, inside, narrow, channels,
                padded_channels, heads, LAYERS, WIDTH, ROWS, VIEW_COLUMNS, VIEW_BLOCKS, SLAB,
                PRECISION,
            )  # fmt: skip
            tl.debug_barrier()  # the next tile overwrites the scratch
