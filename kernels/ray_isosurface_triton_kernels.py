"""Triton kernels of `ray_isosurface`; launched by `ray_isosurface_triton.py`.

A program evaluates the field on one tile of samples after another. Forward, a tile's activations
stay in registers, as far as these hold them; else, and in the backward pass, each layer's
activations lie in the program's own part of `scratch`.
"""

import triton
import triton.language as tl

from ._triton_dense import outer_product, times, times_transposed

MIN_FIELD_STEP = tl.constexpr(0.05)  # as in the reference
MIN_PLANE_SLOPE = tl.constexpr(1e-4)
TOP = tl.constexpr(14)  # exponent of the largest numbers that fp16 operands are scaled to


@triton.jit
def _relu(x):
    return tl.where(x <= 0, 0.0, x)  # NaN stays


@triton.jit
def _field(
    x,  # (ROWS,) normalised coordinates
    y,
    z,
    first_weight,
    first_bias,
    hidden_weight,
    hidden_bias,
    last_weight,
    last_bias,
    scratch,  # (HIDDEN + 1, ROWS, WIDTH): the activations of every layer, out
    HIDDEN: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):  # (ROWS,)
    row = tl.arange(0, ROWS)[:, None] * WIDTH
    inner = tl.arange(0, BLOCK)
    tl.debug_barrier()  # the previous tile has been read
    for start in range(0, WIDTH, BLOCK):
        column = start + inner
        product = (
            x[:, None] * tl.load(first_weight + column * 3)[None, :]
            + y[:, None] * tl.load(first_weight + column * 3 + 1)[None, :]
            + z[:, None] * tl.load(first_weight + column * 3 + 2)[None, :]
        )
        h = _relu(product + tl.load(first_bias + column)[None, :])
        tl.store(scratch + row + column[None, :], h)
    tl.debug_barrier()
    for i in range(HIDDEN):
        source = scratch + i * ROWS * WIDTH
        weight = hidden_weight + i * WIDTH * WIDTH
        for start in range(0, WIDTH, BLOCK):
            zero = tl.zeros((ROWS, BLOCK), tl.float32)
            product = times_transposed(
                source, weight, start, WIDTH, zero, ROWS, BLOCK, SLAB, PRECISION
            )
            column = start + inner
            h = _relu(product + tl.load(hidden_bias + i * WIDTH + column)[None, :])
            tl.store(source + ROWS * WIDTH + row + column[None, :], h)
        tl.debug_barrier()
    s = tl.zeros((ROWS,), tl.float32)
    for start in range(0, WIDTH, BLOCK):
        column = start + inner
        h = tl.load(scratch + HIDDEN * ROWS * WIDTH + row + column[None, :])
        s += tl.sum(h * tl.load(last_weight + column)[None, :], 1)
    return s + tl.load(last_bias)


@triton.jit
def _powers(h):
    """For each row of h (ROWS, N) the power of two that brings it below 2^15, and its inverse."""
    exponent = tl.max(tl.abs(h), 1).to(tl.int32, bitcast=True) >> 23
    exponent = tl.maximum(exponent, TOP + 1)
    up = ((254 - exponent + TOP) << 23).to(tl.float32, bitcast=True)
    return up, ((exponent - TOP) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _halves(x):
    """x below 2^16 as a sum of two fp16 numbers, with 22 bits or down to 2^-25."""
    high = x.to(tl.float16)
    return high, (x - high.to(tl.float32)).to(tl.float16)


@triton.jit
def _load_matrix(matrix, WIDTH: tl.constexpr, INPUTS: tl.constexpr):  # (INPUTS, WIDTH)
    at = tl.arange(0, WIDTH)[None, :] * INPUTS + tl.arange(0, INPUTS)[:, None]
    return tl.load(matrix + at)


@triton.jit
def _field_in_registers(
    points,  # (ROWS, 16) normalised coordinates, four times over
    first_parts,  # (WIDTH, 16) fp16
    kept,  # PARTS * HIDDEN matrices (WIDTH, WIDTH) fp16; none unless KEPT
    first_bias,
    hidden_parts,  # (HIDDEN, PARTS, WIDTH, WIDTH) fp16
    inverses,  # (HIDDEN + 1,) of the powers of two in `first` and `hidden_parts`
    hidden_bias,
    last_weight,
    last_bias,
    HIDDEN: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
    KEPT: tl.constexpr,
):  # (ROWS,)
    """The sums of a product are the operand of the next, as `PARTS` halves of each number.

    Of two parts three products are taken; that of what both leave is below 2^-22. Powers of two for
    each point and each matrix keep them in the range of fp16.
    """
    column = tl.arange(0, WIDTH)
    k = tl.arange(0, 16)[None, :]
    up, down = _powers(points)
    high, low = _halves(points * up[:, None])
    first = _load_matrix(first_parts, WIDTH, 16)
    product = tl.dot(tl.where((k >= 3) & (k < 9), low, high), first)
    factor = down * tl.load(inverses)
    h = _relu(product * factor[:, None] + tl.load(first_bias + column)[None, :])
    for i in tl.static_range(HIDDEN):
        if KEPT:
            weight = kept[PARTS * i]
            rest = kept[PARTS * i + PARTS - 1]
        else:
            own = hidden_parts + i * PARTS * WIDTH * WIDTH
            weight = _load_matrix(own, WIDTH, WIDTH)
            rest = _load_matrix(own + (PARTS - 1) * WIDTH * WIDTH, WIDTH, WIDTH)
        up, down = _powers(h)
        high, low = _halves(h * up[:, None])
        if PARTS == 2:
            product = tl.dot(high, weight, tl.dot(high, rest, tl.dot(low, weight)))
        else:
            product = tl.dot(high, weight)
        factor = down * tl.load(inverses + i + 1)
        h = _relu(product * factor[:, None] + tl.load(hidden_bias + i * WIDTH + column)[None, :])
    return tl.sum(h * tl.load(last_weight + column)[None, :], 1) + tl.load(last_bias)


@triton.jit(do_not_specialize=["rays"])
def forward_kernel(
    origins,  # (R, 3)
    directions,  # (R, 3)
    levels,  # (K - 1,)
    distances,  # (S,) of the samples
    first_weight,  # (H, 3)
    first_bias,  # (H,)
    hidden_weight,  # (HIDDEN, H, H)
    hidden_bias,  # (HIDDEN, H)
    last_weight,  # (1, H)
    last_bias,  # (1,)
    points,  # (R, K, 3), out
    depths,  # (R, K), out
    valid,  # (R, K) bool, out
    level,  # (R, K) int64, out
    plane_index,  # (R,) int64, out
    interval,  # (R, K) int32, out
    first_parts,  # (H, 16) fp16: high, high, low and low halves of first_weight, and zeros
    hidden_parts,  # (HIDDEN, PARTS, H, H) fp16: high halves, and what they leave
    inverses,  # (HIDDEN + 1,) fp32: of the powers of two in both
    scratch,  # (programs, HIDDEN + 1, RAYS * SAMPLES, WIDTH); not used if PARTS
    centre_x,
    centre_y,
    centre_z,
    scale,
    far,
    plane_z,
    rays,
    surfaces,  # K - 1
    samples,
    HIDDEN: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    SLAB: tl.constexpr,
    RAYS: tl.constexpr,
    SAMPLES: tl.constexpr,  # a power of two, at least `samples`
    HITS: tl.constexpr,  # a power of two, at least K
    PRECISION: tl.constexpr,
    PARTS: tl.constexpr,  # halves that a number is taken apart into; 0: fp32, through scratch
    KEPT: tl.constexpr,  # whether all weights stay in shared memory
    HOISTED: tl.constexpr,  # what does not change from tile to tile is computed once
):
    ROWS: tl.constexpr = RAYS * SAMPLES
    own_scratch = scratch + tl.program_id(0).to(tl.int64) * ((HIDDEN + 1) * ROWS * WIDTH)
    row = tl.arange(0, ROWS)
    if PARTS:
        kept = ()
        if KEPT:
            for i in tl.static_range(PARTS * HIDDEN):
                matrix = _load_matrix(hidden_parts + i * WIDTH * WIDTH, WIDTH, WIDTH)
                kept = kept + (matrix,)  # type: ignore[assignment]
    tiles = tl.cdiv(rays, RAYS)
    # Addresses computed ahead of the loop would take registers from all that is in it; but weights
    # for `mma.sync` are brought to shared memory by the same pass.
    for tile in tl.range(tl.program_id(0), tiles, tl.num_programs(0), disable_licm=not HOISTED):
        own = tl.minimum(tile * RAYS + row // SAMPLES, rays - 1) * 3
        t = tl.load(distances + tl.minimum(row % SAMPLES, samples - 1))
        if PARTS:
            k = tl.arange(0, 16)
            axis = own[:, None] + (k % 3)[None, :]
            centre = tl.where(k % 3 == 0, centre_x, tl.where(k % 3 == 1, centre_y, centre_z))
            x = tl.load(origins + axis) + t[:, None] * tl.load(directions + axis)
            s = _field_in_registers(
                x * scale - centre[None, :], first_parts, kept, first_bias, hidden_parts, inverses,
                hidden_bias, last_weight, last_bias, HIDDEN, WIDTH, PARTS, KEPT,
            )  # fmt: skip
        else:
            x = (tl.load(origins + own) + t * tl.load(directions + own)) * scale - centre_x
            y = (tl.load(origins + own + 1) + t * tl.load(directions + own + 1)) * scale - centre_y
            z = (tl.load(origins + own + 2) + t * tl.load(directions + own + 2)) * scale - centre_z
            s = _field(
                x, y, z, first_weight, first_bias, hidden_weight, hidden_bias, last_weight,
                last_bias, own_scratch, HIDDEN, WIDTH, ROWS, BLOCK, SLAB, PRECISION,
            )  # fmt: skip
        _intersect(
            tl.reshape(s, (RAYS, SAMPLES)), tile * RAYS, origins, directions, levels, distances,
            points, depths, valid, level, plane_index, interval, far, plane_z, rays, surfaces,
            samples, RAYS, SAMPLES, HITS,
        )  # fmt: skip


@triton.jit
def _intersect(
    s,  # (RAYS, SAMPLES) the field
    first_ray,
    origins,
    directions,
    levels,
    distances,
    points,
    depths,
    valid,
    level,
    plane_index,
    interval,
    far,
    plane_z,
    rays,
    surfaces,
    samples,
    RAYS: tl.constexpr,
    SAMPLES: tl.constexpr,
    HITS: tl.constexpr,
):
    """All levels of some rays at once: crossings, interpolation, order, and the lists' entries."""
    sample = tl.arange(0, SAMPLES)
    k = tl.arange(0, HITS)
    on_plane = (k == surfaces)[None, :]
    following = tl.minimum(sample + 1, SAMPLES - 1)[None, :] + tl.zeros((RAYS, 1), tl.int32)
    s_next = tl.gather(s, following, 1)
    l = tl.load(levels + k, mask=k < surfaces, other=0.0)[None, :]  # noqa: E741
    crossed = (s_next[:, None, :] <= l[:, :, None]) & (l[:, :, None] <= s[:, None, :])
    crossed = crossed & (sample + 1 < samples)[None, None, :]
    first = tl.min(tl.where(crossed, sample[None, None, :], SAMPLES), 2)  # (RAYS, HITS)
    hit = first < SAMPLES
    start = tl.where(hit, first, samples - 2)
    s_a, s_b = tl.gather(s, start, 1), tl.gather(s, start + 1, 1)
    t_a, t_b = tl.load(distances + start), tl.load(distances + start + 1)
    step = s_b - s_a
    usable = hit & (tl.abs(step) > MIN_FIELD_STEP)
    u = tl.where(usable, (l - s_a) / tl.where(usable, step, 1.0), 1.0)
    surface_depth = t_a + u * (t_b - t_a)

    ray = first_ray + tl.arange(0, RAYS)
    own = tl.minimum(ray, rays - 1) * 3
    slope = tl.load(directions + own + 2)
    meets = slope < -MIN_PLANE_SLOPE
    plane_depth = (plane_z - tl.load(origins + own + 2)) / tl.where(meets, slope, -1.0)
    plane_depth = tl.where(meets & (plane_depth > 0), plane_depth, far)
    depth = tl.where(on_plane, plane_depth[:, None], surface_depth)

    # A hit's place in the list is the number of hits before it; NaN goes last.
    key = tl.where(depth == depth, depth, float("inf"))
    ahead = key[:, None, :] < key[:, :, None]
    level_with = (key[:, None, :] == key[:, :, None]) & (k[None, None, :] < k[None, :, None])
    ahead = (ahead | level_with) & (k <= surfaces)[None, None, :]
    place = tl.sum(ahead.to(tl.int32), 2)  # (RAYS, HITS)

    here = ray < rays
    inside = here[:, None] & (k <= surfaces)[None, :]
    entry = ray[:, None].to(tl.int64) * (surfaces + 1) + place
    tl.store(depths + entry, depth, mask=inside)
    tl.store(valid + entry, hit | on_plane, mask=inside)
    tl.store(level + entry, k[None, :].to(tl.int64) + tl.zeros_like(entry), mask=inside)
    tl.store(interval + entry, tl.where(on_plane, 0, start), mask=inside)
    index = tl.sum(tl.where(on_plane, place, 0), 1)
    tl.store(plane_index + ray, index.to(tl.int64), mask=here)
    for axis in tl.static_range(3):
        o = tl.load(origins + own + axis)[:, None]
        d = tl.load(directions + own + axis)[:, None]
        tl.store(points + entry * 3 + axis, o + depth * d, mask=inside)


@triton.jit
def _add(pointer, value):
    tl.store(pointer, tl.load(pointer) + value)


@triton.jit
def backward_kernel(
    origins,  # (R, 3)
    directions,  # (R, 3)
    levels,  # (K - 1,)
    distances,  # (S,)
    first_weight,  # (H, 3)
    first_bias,  # (H,)
    hidden_weight,  # (HIDDEN, H, H)
    hidden_bias,  # (HIDDEN, H)
    last_weight,  # (1, H)
    last_bias,  # (1,)
    grad_depth,  # (R * K,) of each hit
    level,  # (R * K,) int64
    interval,  # (R * K,) int32
    entries,  # (R * K,) int64: the hits that carry a gradient, then anything
    count,  # (1,) int64: how many they are
    partial,  # (programs, size) sums of each program, zero before: the weights, flat, in order
    grad_rays,  # (R * K, 6) of origin and direction, zero before
    scratch,  # (programs, 2 * HIDDEN + 2, 2 * ENTRIES, WIDTH): activations, their gradients
    centre_x,
    centre_y,
    centre_z,
    scale,
    hit_count,  # K
    partial_size,
    HIDDEN: tl.constexpr,
    WIDTH: tl.constexpr,
    BLOCK: tl.constexpr,
    SLAB: tl.constexpr,
    ENTRIES: tl.constexpr,  # hits in a tile; each has two samples
    NEED_WEIGHTS: tl.constexpr,
    NEED_RAYS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    ROWS: tl.constexpr = 2 * ENTRIES
    at_first_bias: tl.constexpr = 3 * WIDTH
    at_hidden: tl.constexpr = at_first_bias + WIDTH
    at_hidden_bias: tl.constexpr = at_hidden + HIDDEN * WIDTH * WIDTH
    at_last: tl.constexpr = at_hidden_bias + HIDDEN * WIDTH
    at_last_bias: tl.constexpr = at_last + WIDTH
    layer: tl.constexpr = ROWS * WIDTH
    total = tl.load(count)
    program = tl.program_id(0).to(tl.int64)
    sums = partial + program * partial_size
    own_scratch = scratch + program * ((2 * HIDDEN + 2) * layer)
    deltas = own_scratch + (HIDDEN + 1) * layer
    inner = tl.arange(0, BLOCK)
    row = tl.arange(0, ROWS)[:, None] * WIDTH
    for tile in range(tl.program_id(0), tl.cdiv(total, ENTRIES), tl.num_programs(0)):
        item = tile * ENTRIES + tl.arange(0, ENTRIES).to(tl.int64)
        here = item < total
        entry = tl.load(entries + item, mask=here, other=0)
        start = tl.load(interval + entry)
        l = tl.load(levels + tl.load(level + entry), mask=here, other=0.0)  # noqa: E741
        t_a, t_b = tl.load(distances + start), tl.load(distances + start + 1)
        t = tl.reshape(tl.join(t_a, t_b), (ROWS,))
        ray = entry // hit_count * 3
        own = tl.reshape(tl.join(ray, ray), (ROWS,))
        x = (tl.load(origins + own) + t * tl.load(directions + own)) * scale - centre_x
        y = (tl.load(origins + own + 1) + t * tl.load(directions + own + 1)) * scale - centre_y
        z = (tl.load(origins + own + 2) + t * tl.load(directions + own + 2)) * scale - centre_z
        s = _field(
            x, y, z, first_weight, first_bias, hidden_weight, hidden_bias, last_weight, last_bias,
            own_scratch, HIDDEN, WIDTH, ROWS, BLOCK, SLAB, PRECISION,
        )  # fmt: skip
        s_a, s_b = tl.split(tl.reshape(s, (ENTRIES, 2)))
        step = s_b - s_a
        usable = here & (tl.abs(step) > MIN_FIELD_STEP)
        step = tl.where(usable, step, 1.0)
        u = (l - s_a) / step
        slope = tl.load(grad_depth + entry, mask=usable, other=0.0) * (t_b - t_a) / step
        slope = tl.where(usable, slope, 0.0)
        ds = tl.reshape(tl.join((u - 1) * slope, -u * slope), (ROWS,))

        for start in range(0, WIDTH, BLOCK):
            column = start + inner
            h = tl.load(own_scratch + HIDDEN * layer + row + column[None, :])
            delta = ds[:, None] * tl.load(last_weight + column)[None, :]
            tl.store(deltas + HIDDEN * layer + row + column[None, :], tl.where(h > 0, delta, 0.0))
            if NEED_WEIGHTS:
                _add(sums + at_last + column, tl.sum(ds[:, None] * h, 0))
        if NEED_WEIGHTS:
            _add(sums + at_last_bias, tl.sum(ds, 0))
        tl.debug_barrier()
        for reverse in range(HIDDEN):
            i = HIDDEN - 1 - reverse
            weight = hidden_weight + i * WIDTH * WIDTH
            upper = deltas + (i + 1) * layer
            if NEED_WEIGHTS:
                for start in range(0, WIDTH, BLOCK):
                    column = start + inner
                    bias = tl.sum(tl.load(upper + row + column[None, :]), 0)
                    _add(sums + at_hidden_bias + i * WIDTH + column, bias)
                    _add_outer_products(
                        sums + at_hidden + i * WIDTH * WIDTH, upper, own_scratch + i * layer, start,
                        WIDTH, ROWS, BLOCK, SLAB, PRECISION,
                    )  # fmt: skip
            for start in range(0, WIDTH, BLOCK):
                column = start + inner
                zero = tl.zeros((ROWS, BLOCK), tl.float32)
                delta = times(
                    upper, weight, start, WIDTH, WIDTH, 0, WIDTH, zero, ROWS, BLOCK, SLAB, PRECISION
                )
                h = tl.load(own_scratch + i * layer + row + column[None, :])
                tl.store(upper - layer + row + column[None, :], tl.where(h > 0, delta, 0.0))
            tl.debug_barrier()
        dx = tl.zeros((ROWS,), tl.float32)
        dy = tl.zeros((ROWS,), tl.float32)
        dz = tl.zeros((ROWS,), tl.float32)
        for start in range(0, WIDTH, BLOCK):
            column = start + inner
            delta = tl.load(deltas + row + column[None, :])
            if NEED_WEIGHTS:
                _add(sums + column * 3, tl.sum(delta * x[:, None], 0))
                _add(sums + column * 3 + 1, tl.sum(delta * y[:, None], 0))
                _add(sums + column * 3 + 2, tl.sum(delta * z[:, None], 0))
                _add(sums + at_first_bias + column, tl.sum(delta, 0))
            if NEED_RAYS:
                dx += tl.sum(delta * tl.load(first_weight + column * 3)[None, :], 1)
                dy += tl.sum(delta * tl.load(first_weight + column * 3 + 1)[None, :], 1)
                dz += tl.sum(delta * tl.load(first_weight + column * 3 + 2)[None, :], 1)
        if NEED_RAYS:
            _store_pair(grad_rays + entry * 6, dx * scale, t, here, ENTRIES)
            _store_pair(grad_rays + entry * 6 + 1, dy * scale, t, here, ENTRIES)
            _store_pair(grad_rays + entry * 6 + 2, dz * scale, t, here, ENTRIES)


@triton.jit
def _add_outer_products(
    sums,  # (WIDTH, WIDTH)
    delta,  # (ROWS, WIDTH) scratch tile
    h,  # (ROWS, WIDTH) scratch tile
    first_output,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    BLOCK: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Adds rows [first_output, first_output + BLOCK) of delta^T @ h."""
    inner = tl.arange(0, BLOCK)
    for start in range(0, WIDTH, BLOCK):
        at = sums + (first_output + inner)[:, None] * WIDTH + (start + inner)[None, :]
        total = outer_product(
            delta, h, first_output, start, WIDTH, WIDTH, tl.load(at), ROWS, BLOCK, BLOCK, SLAB,
            PRECISION,
        )  # fmt: skip
        tl.store(at, total)


@triton.jit
def _store_pair(pointer, gradient, t, here, ENTRIES: tl.constexpr):
    """What both samples of a hit say about one coordinate of its origin and of its direction."""
    tl.store(pointer, tl.sum(tl.reshape(gradient, (ENTRIES, 2)), 1), mask=here)
    tl.store(pointer + 3, tl.sum(tl.reshape(gradient * t, (ENTRIES, 2)), 1), mask=here)
