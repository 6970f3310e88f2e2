"""Triton functions for dense layers whose activations lie in a scratch tile in device memory.

A tile of activations is (ROWS, width), written and read by one program only, so that it stays in
the cache; between writing and reading it lies a barrier.
"""

import triton
import triton.language as tl


@triton.jit
def times_transposed(
    source,  # (ROWS, width) scratch tile
    weight,  # (outputs, width)
    first_output,
    width,
    product,  # (ROWS, COLUMNS) fp32: what to add to
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):  # product + source @ weight[first_output : first_output + COLUMNS]^T
    row = tl.arange(0, ROWS)
    column = first_output + tl.arange(0, COLUMNS)
    k = tl.arange(0, SLAB)
    for start in range(0, width, SLAB):
        a = tl.load(source + row[:, None] * width + (start + k)[None, :])
        b = tl.load(weight + column[None, :] * width + (start + k)[:, None])
        product = tl.dot(a, b, product, input_precision=PRECISION)
    return product


@triton.jit
def times(
    source,  # (ROWS, inner) scratch tile
    weight,  # (inner, outputs)
    first_output,
    inner,
    outputs,
    low,
    high,
    product,  # (ROWS, COLUMNS) fp32: what to add to
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):  # product + source[:, low:high] @ weight[low:high, first_output : first_output + COLUMNS]
    row = tl.arange(0, ROWS)
    column = first_output + tl.arange(0, COLUMNS)
    k = tl.arange(0, SLAB)
    for start in range(0, inner, SLAB):
        inside = (start + k >= low) & (start + k < high)
        a = tl.load(source + row[:, None] * inner + (start + k)[None, :])
        at = weight + (start + k)[:, None] * outputs + column[None, :]
        b = tl.load(at, mask=inside[:, None], other=0.0)
        product = tl.dot(a, b, product, input_precision=PRECISION)
    return product


@triton.jit
def outer_product(
    left,  # (ROWS, left_width) scratch tile
    right,  # (ROWS, right_width) scratch tile
    first_left,
    first_right,
    left_width,
    right_width,
    product,  # (LEFT, RIGHT) fp32: what to add to
    ROWS: tl.constexpr,
    LEFT: tl.constexpr,
    RIGHT: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):  # product + left[:, first_left : first_left + LEFT]^T @ right[:, first_right...]
    left_column = first_left + tl.arange(0, LEFT)
    right_column = first_right + tl.arange(0, RIGHT)
    k = tl.arange(0, SLAB)
    for start in range(0, ROWS, SLAB):
        row = start + k
        a = tl.load(left + row[None, :] * left_width + left_column[:, None])
        b = tl.load(right + row[:, None] * right_width + right_column[None, :])
        product = tl.dot(a, b, product, input_precision=PRECISION)
    return product
