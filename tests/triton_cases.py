"""The Triton kernels on CPU tensors in Triton's interpreter; run by `test_triton_interpreter.py`.

The interpreter must be chosen before Triton is first imported, hence the process of its own.
"""

import functools
import os
from collections.abc import Callable
from typing import Any

import pytest
import torch
from semfaceedit.kernels.semantic_composite import (
    ColorCompositeFunction,
    SemanticCompositeFunction,
    color_composite,
    semantic_composite,
)
from support import assert_identical, assert_matches, values_and_gradients
from torch import Tensor

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run through test_triton_interpreter.py", allow_module_level=True)

from triton.runtime import interpreter  # noqa: E402

Function = Callable[[dict[str, Tensor]], dict[str, Tensor]]

_patch_lang_tensor = interpreter._patch_lang_tensor


def _patch_with_index(tensor: Any, scope: Any) -> None:
    """Triton 3.6 asks for int(array of size 1), which NumPy 2.4 refuses: no loop to a variable."""
    _patch_lang_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


interpreter._patch_lang_tensor = _patch_with_index

COMPOSITES = [(37, 1, 1), (5, 24, 19), (9, 5, 3), (3, 5, 84), (0, 4, 5)]


def composite_problem(sizes: tuple[int, int, int]) -> dict[str, Tensor]:
    rays, hits, channels = sizes
    alpha = torch.rand(rays, hits)
    alpha[:, 1::3] = 0
    alpha[2::5] = 0  # rays that meet nothing
    alpha[3::7, -1] = 1
    return {
        "alpha": alpha,
        "values": torch.randn(rays, hits, channels),
        "depths": 1 + torch.rand(rays, hits),
    }


def semantic(backend: str) -> Function:
    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        alpha, values = inputs["alpha"], inputs["values"]
        if backend == "triton":
            labels, mixed = SemanticCompositeFunction.apply(alpha, values, backend)
        else:
            labels, mixed = semantic_composite(alpha, values, backend=backend)
        return {"labels": labels, "map": mixed}

    return function


def color(backend: str) -> Function:
    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        arguments = inputs["alpha"], inputs["values"], inputs["depths"]
        if backend == "triton":
            outputs = ColorCompositeFunction.apply(*arguments, backend)
        else:
            outputs = color_composite(*arguments, backend=backend)
        return dict(zip(("color", "depth", "weights"), outputs, strict=True))

    return function


@pytest.mark.parametrize("sizes", COMPOSITES, ids=str)
@pytest.mark.parametrize("op", [semantic, color])
def test_composite(op: Callable[[str], Function], sizes: tuple[int, int, int]) -> None:
    inputs = composite_problem(sizes)
    if op is semantic:
        del inputs["depths"]
    run = functools.partial(values_and_gradients, inputs=inputs)
    exact = run(op("reference"), dtype=torch.float64)
    plain = run(op("reference"), dtype=torch.float32)
    actual = run(op("triton"), dtype=torch.float32)
    if op is semantic:
        assert torch.equal(actual["labels"], plain["labels"])
        del exact["labels"]
    assert_matches(actual, exact, plain)


@pytest.mark.parametrize("op", [semantic, color])
def test_composite_each_gradient_alone_and_strides(op: Callable[[str], Function]) -> None:
    inputs = composite_problem((6, 5, 7))
    if op is semantic:
        del inputs["depths"]
    every = values_and_gradients(op("triton"), inputs, torch.float32)
    every.pop("labels", None)
    for name in inputs:
        alone = values_and_gradients(op("triton"), inputs, torch.float32, [name])
        assert_identical({name: alone[f"d {name}"]}, {name: every[f"d {name}"]})
    strided = {name: tensor.mT.contiguous().mT for name, tensor in inputs.items()}
    assert_identical(every, values_and_gradients(op("triton"), strided, torch.float32))


def test_ties_go_to_the_lower_class_and_alpha_0_to_what_is_behind() -> None:
    values = torch.zeros(1, 2, 40)
    values[0, :, [7, 20, 39]] = 1.0
    labels, _ = SemanticCompositeFunction.apply(torch.full((1, 2), 0.5), values, "triton")
    assert labels.tolist() == [[7, 7]]
    alpha = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    labels, _ = SemanticCompositeFunction.apply(alpha, torch.eye(5)[None], "triton")
    assert labels.tolist() == [[1, 1, 3, 3, 0]]
    negative = -torch.ones(1, 2, 19)
    labels, _ = SemanticCompositeFunction.apply(torch.full((1, 2), 0.5), negative, "triton")
    assert labels.tolist() == [[0, 0]]


def test_composite_registered_ops() -> None:
    alpha, values, depths = composite_problem((5, 3, 4)).values()
    color("triton")({"alpha": alpha, "values": values, "depths": depths})
    ops = torch.ops.semfaceedit
    grad = torch.randn(5, 4)
    per_ray = depths[:, 0].clone()
    tensors = [grad, per_ray, depths, alpha, values, depths, per_ray]
    for op, arguments in (
        (ops.semantic_forward_triton, (alpha, values)),
        (ops.semantic_backward_triton, (grad, alpha, values, [True, False])),
        (ops.color_forward_triton, (alpha, values, depths)),
        (ops.color_backward_triton, (tensors, [True, True, False])),
    ):
        torch.library.opcheck(op.default, arguments)
