"""Rows of a tensor, each at most once: the gradient is copied, where indexing would have to add."""

from typing import Any

import torch
from torch import Tensor


def distinct_rows(values: Tensor, rows: Tensor) -> Tensor:
    """`values[rows]`, values (P, ...), rows (Q,) int64 that are all different.

    PyTorch adds up the gradient of `values[rows]`, on a CPU on one thread, since rows may repeat.
    """
    return _DistinctRows.apply(values, rows)  # type: ignore[no-any-return]


class _DistinctRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.count = len(values)
        return values.index_select(0, rows)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (rows,), (grad,) = ctx.saved_tensors, grads
        return grad.new_zeros(ctx.count, *grad.shape[1:]).index_copy_(0, rows, grad), None
