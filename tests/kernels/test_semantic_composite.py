"""semantic_composite: Eq. 2 and ray compositing by hand; backends against the reference."""

import functools
import math
from collections.abc import Callable

import pytest
import torch
from comparison import assert_identical, assert_matches, values_and_gradients
from op_problems import composite_problem
from support import isas, needs_native, use_isa, use_threads
from torch import Tensor

from semfaceedit.kernels import color_composite, semantic_composite

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH = pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_native)])
SIZES = [(1000, 9, 19), (63, 1, 1), (1, 24, 19), (63, 24, 84), (63, 24, 3), (7, 5, 16), (0, 4, 5)]


@BOTH
def test_masking_by_hand(backend: str) -> None:
    """C_3 = 1 s_3, C_2 = 0.5 s_2 + 0.5 C_3, C_1 = 0.25 s_1 + 0.75 C_2."""
    alpha = torch.tensor([[0.25, 0.5, 1.0]])
    semantics = torch.tensor([[[8.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 3.0]]])
    labels, mixed = semantic_composite(alpha, semantics, backend=backend)
    # C_2 = (0, 1, 1.5); C_1 = (2, 0.75, 1.125)
    assert labels.tolist() == [[0, 2, 2]]
    torch.testing.assert_close(mixed, torch.tensor([[2.0, 0.75, 1.125]]))


@BOTH
def test_hit_of_opacity_0_has_the_label_behind_it(backend: str) -> None:
    alpha = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    semantics = torch.eye(5)[None]
    labels, _ = semantic_composite(alpha, semantics, backend=backend)
    assert labels.tolist() == [[1, 1, 3, 3, 0]]


@BOTH
def test_ties_go_to_the_lower_class(backend: str) -> None:
    semantics = torch.zeros(1, 2, 40)
    semantics[0, :, [7, 20, 39]] = 1.0
    labels, _ = semantic_composite(torch.full((1, 2), 0.5), semantics, backend=backend)
    assert labels.tolist() == [[7, 7]]
    negative = -torch.ones(1, 2, 19)
    labels, _ = semantic_composite(torch.full((1, 2), 0.5), negative, backend=backend)
    assert labels.tolist() == [[0, 0]]


@BOTH
def test_color_by_hand(backend: str) -> None:
    alpha = torch.tensor([[0.5, 0.0, 0.4], [0.0, 0.0, 0.0]])
    colors = torch.tensor([[[1.0], [9.0], [2.0]], [[1.0], [2.0], [3.0]]])
    depths = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    color, depth, weights = color_composite(alpha, colors, depths, backend=backend)
    torch.testing.assert_close(weights, torch.tensor([[0.5, 0.0, 0.2], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(color, torch.tensor([[0.9], [0.0]]))
    torch.testing.assert_close(depth, torch.tensor([1.1 / 0.7, 0.0]))


def problem(sizes: tuple[int, int, int]) -> dict[str, Tensor]:
    return composite_problem(*sizes, generator=torch.Generator().manual_seed(0))


def semantic(backend: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        labels, mixed = semantic_composite(inputs["alpha"], inputs["values"], backend=backend)
        return {"labels": labels, "map": mixed}

    return function


def color(backend: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = color_composite(
            inputs["alpha"], inputs["values"], inputs["depths"], backend=backend
        )
        return dict(zip(("color", "depth", "weights"), outputs, strict=True))

    return function


def argmax_gap(inputs: dict[str, Tensor]) -> Tensor:
    """(R, K) by how much each suffix's label wins, in float64."""
    running = torch.zeros_like(inputs["values"][:, 0], dtype=torch.float64)
    gaps = []
    for k in reversed(range(inputs["alpha"].shape[1])):
        alpha = inputs["alpha"][:, k, None].double()
        running = alpha * inputs["values"][:, k] + (1 - alpha) * running
        best = running.topk(min(2, running.shape[1]), dim=1).values
        gaps.append(best[:, 0] - best[:, -1])
    return torch.stack(gaps[::-1], 1)


@pytest.mark.gradients
@needs_native
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("op", [semantic, color])
def test_cpu_matches_reference(
    op: Callable[[str], Callable], sizes: tuple[int, int, int], isa: str
) -> None:
    inputs = problem(sizes)
    if op is semantic:
        del inputs["depths"]
    run = functools.partial(values_and_gradients, inputs=inputs)
    exact = run(op("reference"), dtype=torch.float64)
    plain = run(op("reference"), dtype=torch.float32)
    with use_isa(isa):
        actual = run(op("cpu"), dtype=torch.float32)
    labels = exact.pop("labels", None)
    if labels is not None:
        differ = actual["labels"] != labels
        assert not differ[argmax_gap(inputs) > 1e-5].any()
        assert differ.sum() <= 0.01 * labels.numel()
    assert_matches(actual, exact, plain)


@pytest.mark.parametrize(
    "op, name, defect",
    [
        (semantic, "map", lambda values: values.bfloat16().float()),
        (semantic, "d alpha", lambda grad: grad * (1 + 1e-4)),
        (semantic, "d values", lambda grad: grad.roll(1, 1)),
        (color, "color", lambda color: color * (1 - 1e-4)),
        (color, "depth", lambda depth: depth + 1e-4),
        (color, "weights", lambda weights: weights.roll(1, 1)),
        (color, "d alpha", lambda grad: grad * (torch.arange(grad.shape[1]) > 0)),
        (color, "d depths", lambda grad: grad.bfloat16().float()),
    ],
)
def test_a_defect_is_caught(
    op: Callable[[str], Callable], name: str, defect: Callable[[Tensor], Tensor]
) -> None:
    """The tolerance lets rounding through, and nothing else."""
    inputs = problem((1000, 9, 19))
    if op is semantic:
        del inputs["depths"]
    run = functools.partial(values_and_gradients, op("reference"), inputs)
    right, exact = run(torch.float32), run(torch.float64)
    with pytest.raises(AssertionError, match=name):
        assert_matches({**right, name: defect(right[name])}, {name: exact[name]}, right)


@pytest.mark.gradients
@pytest.mark.parametrize("op", [semantic, color])
def test_reference_gradcheck(op: Callable[[str], Callable]) -> None:
    inputs = problem((4, 5, 3))
    if op is semantic:
        del inputs["depths"]
    names = list(inputs)

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = op("reference")(dict(zip(names, tensors, strict=True)))
        return tuple(value for name, value in outputs.items() if name != "labels")

    # alpha 0 is at the edge of `total > 0` on rays that meet nothing: keep away from it
    inputs["alpha"] = 0.1 + 0.8 * inputs["alpha"]
    leaves = [tensor.double().requires_grad_() for tensor in inputs.values()]
    assert torch.autograd.gradcheck(function, leaves)


@needs_native
@pytest.mark.parametrize("op", [semantic, color])
def test_each_gradient_alone_threads_and_strides(op: Callable[[str], Callable]) -> None:
    inputs = problem((500, 9, 19))
    if op is semantic:
        del inputs["depths"]
    every = values_and_gradients(op("cpu"), inputs, torch.float32)
    every.pop("labels", None)
    for name in inputs:
        alone = values_and_gradients(op("cpu"), inputs, torch.float32, [name])
        assert_identical({name: alone[f"d {name}"]}, {name: every[f"d {name}"]})
    strided = {name: tensor.mT.contiguous().mT for name, tensor in inputs.items()}
    for threads in (1, 2, 4):
        with use_threads(threads):
            assert_identical(every, values_and_gradients(op("cpu"), strided, torch.float32))


@needs_native
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("channels", [3, 19])
def test_not_finite_values_as_in_the_reference(isa: str, channels: int) -> None:
    for value in (math.nan, math.inf, -math.inf):
        for name in ("alpha", "values", "depths"):
            inputs = problem((6, 5, channels))
            inputs[name][1, 2] = value
            inputs[name].view(-1)[-1] = value
            with use_isa(isa):
                for op in (semantic, color):
                    wanted, result = op("reference")(inputs), op("cpu")(inputs)
                    torch.testing.assert_close(result, wanted, equal_nan=True)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="semantics has shape"):
        semantic_composite(torch.zeros(3, 4), torch.zeros(3, 5, 2))
    with pytest.raises(ValueError, match="depths has shape"):
        color_composite(torch.zeros(3, 4), torch.zeros(3, 4, 2), torch.zeros(3, 5))


@pytest.mark.parametrize(
    "alpha, semantics, message",
    [
        (torch.zeros(3), torch.zeros(3, 4, 2), r"alpha has shape \(3,\)"),
        (torch.zeros(3, 4), torch.zeros(3, 4), r"semantics has shape \(3, 4\)"),
        (torch.zeros(3, 0), torch.zeros(3, 0, 2), "with nothing on a ray"),
        (torch.zeros(3, 4), torch.zeros(3, 4, 0), "with nothing on a ray"),
        (torch.zeros(3, 4), torch.zeros(3, 4, 2).double(), "semantics is torch.float64"),
        (torch.zeros(3, 4).long(), torch.zeros(3, 4, 2), "alpha is torch.int64"),
        (torch.zeros(3, 4), torch.zeros(3, 4, 2, device="meta"), "semantics is on meta"),
    ],
)
def test_arguments_that_do_not_fit(alpha: Tensor, semantics: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        semantic_composite(alpha, semantics)


@needs_native
@pytest.mark.parametrize("op", [semantic, color])
def test_overlapping_memory(op: Callable[[str], Callable]) -> None:
    """Rays that share their memory: as copies of them, and each gets a gradient of its own."""
    one = problem((1, 5, 7))
    if op is semantic:
        del one["depths"]
    overlapping = {name: tensor.expand(9, *tensor.shape[1:]) for name, tensor in one.items()}
    copies = {name: tensor.clone() for name, tensor in overlapping.items()}
    wanted = values_and_gradients(op("cpu"), copies, torch.float32)
    assert_identical(wanted, values_and_gradients(op("cpu"), overlapping, torch.float32))


@needs_native
def test_registered_ops() -> None:
    check_registered_ops("cpu")


def check_registered_ops(backend: str) -> None:
    inputs = problem((9, 5, 7))
    alpha, values, depths = inputs.values()
    color(backend)(inputs)  # imports the module that registers them
    grad, per_ray = torch.randn(9, 7), depths[:, 0].clone()
    tensors = [grad, per_ray, depths, alpha, values, depths, per_ray]
    for name, arguments in (
        ("semantic_forward", (alpha, values)),
        ("semantic_backward", (grad, alpha, values, [True, False])),
        ("color_forward", (alpha, values, depths)),
        ("color_backward", (tensors, [True, True, False])),
    ):
        op = getattr(torch.ops.semfaceedit, f"{name}_{backend}")
        torch.library.opcheck(op.default, arguments)
