"""torch.compile(fullgraph=True) of the Triton ops, run as `triton_cases.py` is: in the interpreter.

In a process of its own, where no kernel has run before the compiler is imported.
"""

from collections.abc import Callable

import pytest
import torch
from comparison import assert_identical, values_and_gradients
from op_problems import composite_problem
from torch import Tensor
from triton_cases import (
    FIELDS,
    Function,
    color,
    field_inputs,
    intersect,
    semantic,
    stack,
    stack_problem,
)


def compiled_stack(sizes: tuple[int, ...]) -> tuple[Function, dict[str, Tensor]]:
    problem = stack_problem(sizes)
    return stack(problem, sizes[-1], "triton"), problem[0]


def compiled_composite(op: Callable[[str], Function]) -> tuple[Function, dict[str, Tensor]]:
    inputs = composite_problem(5, 3, 4)
    if op is semantic:
        del inputs["depths"]
    return op("triton"), inputs


COMPILED: dict[str, Callable[[], tuple[Function, dict[str, Tensor]]]] = {
    "film_siren": lambda: compiled_stack((9, 3, 16, 2, 2, 2, 4, 1)),
    "ray_isosurface": lambda: (
        intersect(FIELDS["one layer"], "triton"), field_inputs(FIELDS["one layer"])
    ),
    "semantic_composite": lambda: compiled_composite(semantic),
    "color_composite": lambda: compiled_composite(color),
}  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_in_one_graph_forward_and_backward(name: str) -> None:
    function, inputs = COMPILED[name]()
    eager = values_and_gradients(function, inputs, torch.float32)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    traced = values_and_gradients(compiled, inputs, torch.float32)
    for integers in ("labels", "valid", "level", "plane_index"):
        if integers in eager:
            assert torch.equal(eager.pop(integers), traced[integers])
    assert_identical(eager, traced)
