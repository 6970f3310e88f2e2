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
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):  # (ROWS, COLUMNS) fp32: source @ weight[first_output : first_output + COLUMNS]^T
    row = tl.arange(0, ROWS)
    column = first_output + tl.arange(0, COLUMNS)
    k = tl.arange(0, SLAB)
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
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
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):  # (ROWS, COLUMNS) fp32: source @ weight[:, first_output : first_output + COLUMNS]
    row = tl.arange(0, ROWS)
    column = first_output + tl.arange(0, COLUMNS)
    k = tl.arange(0, SLAB)
    product = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, inner, SLAB):
        a = tl.load(source + row[:, None] * inner + (start + k)[None, :])
        b = tl.load(weight + (start + k)[:, None] * outputs + column[None, :])
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
    product,  # (COLUMNS, COLUMNS) fp32: what to add to
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLAB: tl.constexpr,
    PRECISION: tl.constexpr,
):  # product + left[:, first_left...]^T @ right[:, first_right...]
    column = tl.arange(0, COLUMNS)
    k = tl.arange(0, SLAB)
    for start in range(0, ROWS, SLAB):
        row = start + k
        a = tl.load(left + row[None, :] * left_width + (first_left + column)[:, None])
        b = tl.load(right + row[:, None] * right_width + (first_right + column)[None, :])
        product = tl.dot(a, b, product, input_precision=PRECISION)
    return product
