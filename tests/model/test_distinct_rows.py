"""Rows that are all different: the values and gradients of indexing."""

import torch

from semfaceedit.model.distinct_rows import distinct_rows


def test_values_and_gradients_of_indexing() -> None:
    rows = torch.tensor([4, 0, 3])
    values = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    taken = distinct_rows(values, rows)
    assert torch.equal(taken, values[rows])
    weights = torch.randn(3, 2, dtype=torch.float64)
    (got,) = torch.autograd.grad((taken * weights).sum(), values)
    (wanted,) = torch.autograd.grad((values[rows] * weights).sum(), values)
    assert torch.equal(got, wanted)
    assert torch.autograd.gradgradcheck(lambda x: distinct_rows(x, rows).square(), values)


def test_no_rows() -> None:
    values = torch.randn(6, 3, requires_grad=True)
    taken = distinct_rows(values, torch.zeros(0, dtype=torch.int64))
    assert taken.shape == (0, 3)
    (grad,) = torch.autograd.grad(taken.sum(), values)
    assert not grad.any()
