"""film_siren: the reference against numbers worked out by hand, backends against the reference."""

import math
from collections.abc import Callable

import pytest
import torch
from comparison import assert_identical, assert_matches, values_and_gradients
from film_siren_cases import (
    LARGE_SHAPES,
    SHAPES,
    call,
    compare,
    expected,
    problem,
    sine,
    with_and_without_first_product,
)
from support import isas, needs_native, use_isa, use_threads
from torch import Tensor

from semfaceedit.kernels import FilmSirenWeights, film_siren, film_siren_cpu

pytestmark = pytest.mark.usefixtures("one_thread")


def test_reference_against_numbers_by_hand() -> None:
    weights = FilmSirenWeights(
        first_weight=torch.tensor([[1.0, 0.0, 2.0]]),
        first_bias=torch.tensor([0.5]),
        hidden_weight=torch.tensor([[[3.0]]]),
        hidden_bias=torch.tensor([[-1.0]]),
        view_weight=torch.tensor([[[0.1, 0.2, 0.3, 2.0]]]),
        view_bias=torch.tensor([[0.25]]),
        head_weight=torch.tensor([[[[4.0], [5.0]]]]),
        head_bias=torch.tensor([[[1.0, -1.0]]]),
    )
    output = film_siren(
        torch.tensor([[0.2, 9.0, 0.1]]),
        torch.tensor([[0.0, 0.6, 0.8]]),
        torch.tensor([[[2.0], [1.5], [0.5]]]),
        torch.tensor([[[0.1], [0.2], [0.3]]]),
        torch.tensor([0, 1]),
        torch.tensor([0]),
        weights,
        trunk_channels=1,
        backend="reference",
    )
    first = math.sin(2 * (0.2 + 0.2 + 0.5) + 0.1)
    second = math.sin(1.5 * (3 * first - 1) + 0.2)
    viewed = math.sin(0.5 * (0.12 + 0.24 + 2 * second + 0.25) + 0.3)
    assert output[0].tolist() == pytest.approx([4 * second + 1, 5 * viewed - 1], rel=1e-5)


def test_rows_choose_their_film_and_their_group() -> None:
    inputs, _, _ = problem((4, 3, 8, 3, 2, 2, 5))
    offsets, groups = torch.tensor([0, 1, 4]), torch.tensor([1, 0])
    both = call(offsets, groups, "reference")(inputs)["output"]
    for row, points in ((0, slice(0, 1)), (1, slice(1, 4))):
        alone = dict(inputs)
        for name in ("points", "directions"):
            alone[name] = inputs[name][points]
        for name in ("frequencies", "phases"):
            alone[name] = inputs[name][row : row + 1]
        ends = torch.tensor([0, points.stop - points.start])
        output = call(ends, groups[row : row + 1], "reference")(alone)["output"]
        torch.testing.assert_close(both[points], output)


@pytest.mark.gradients
def test_reference_gradcheck() -> None:
    inputs, offsets, groups = problem((6, 3, 4, 3, 4, 2, 5))
    names = list(inputs)
    inputs["frequencies"] /= 10

    def function(*tensors: Tensor) -> Tensor:
        return call(offsets, groups, "reference")(dict(zip(names, tensors, strict=True)))["output"]

    leaves = [tensor.double().requires_grad_() for tensor in inputs.values()]
    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_native)])
def test_trunk_channels_do_not_depend_on_the_direction(backend: str) -> None:
    inputs, offsets, groups = problem((70, 3, 16, 3, 2, 1, 10))
    turned = {**inputs, "directions": inputs["directions"].roll(1, 1)}
    before = call(offsets, groups, backend, trunk=4)(inputs)["output"]
    after = call(offsets, groups, backend, trunk=4)(turned)["output"]
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any(0).all()


@pytest.mark.gradients
@needs_native
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", SHAPES)
def test_cpu_matches_reference(name: str, isa: str) -> None:
    with use_isa(isa):
        compare(SHAPES[name])


@pytest.mark.parametrize(
    "name, defect",
    [
        ("output", lambda output: output * (1 + 1e-4)),
        ("output", lambda output: output.bfloat16().float()),
        ("d points", lambda grad: grad * (torch.arange(len(grad)) > 0)[:, None]),
        ("d frequencies", lambda grad: grad.roll(1, 0)),
        ("d phases", lambda grad: grad.bfloat16().float()),
        ("d hidden_weight", lambda grad: grad.transpose(1, 2)),
        ("d view_bias", lambda grad: grad * (1 - 1e-4)),
        ("d head_weight", lambda grad: grad * (torch.arange(grad.shape[-1]) > 0)),
    ],
)
def test_a_defect_is_caught(name: str, defect: Callable[[Tensor], Tensor]) -> None:
    """The tolerance lets rounding through, and nothing else."""
    right, exact = (expected(SHAPES["odd"], t, None) for t in (torch.float32, torch.float64))
    with pytest.raises(AssertionError, match=name):
        assert_matches({**right, name: defect(right[name])}, exact, right)


@needs_native
@pytest.mark.slow
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", LARGE_SHAPES)
def test_cpu_matches_reference_at_large_sizes(name: str, isa: str) -> None:
    with use_isa(isa):
        compare(LARGE_SHAPES[name])


@needs_native
@pytest.mark.parametrize("trunk", [0, 7])
def test_cpu_with_only_viewed_or_only_trunk_channels(trunk: int) -> None:
    compare(SHAPES["odd"], trunk=trunk)


@needs_native
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("width", [1, 3, 37])
def test_no_first_product_is_one_with_the_identity(width: int, isa: str) -> None:
    with use_isa(isa):
        assert_identical(*with_and_without_first_product((163, 0, width, 3, 9, 3, 7), "fp32"))


@needs_native
def test_backends_that_need_a_first_product_multiply_with_the_identity(monkeypatch) -> None:
    monkeypatch.delattr(film_siren_cpu, "skips_identity")
    launched = []
    forward = film_siren_cpu.forward
    monkeypatch.setattr(
        film_siren_cpu, "forward", lambda call: launched.append(call) or forward(call)
    )
    assert_identical(*with_and_without_first_product((63, 0, 17, 3, 4, 2, 7), "fp32"))
    for one in launched:
        assert torch.equal(one.weights.first_weight, torch.eye(17))
    assert len(launched) == 2


@needs_native
@pytest.mark.parametrize("rows", [1, 3])
def test_no_points(rows: int) -> None:
    inputs, offsets, groups = problem((0, 3, 16, 2, rows, 1, 5))
    result = values_and_gradients(call(offsets, groups, "cpu"), inputs, torch.float32)
    assert result["output"].shape == (0, 5)
    for name, value in result.items():
        assert not value.any(), name


@needs_native
def test_each_gradient_alone_is_the_same() -> None:
    inputs, *rows = problem(SHAPES["odd"])
    every = values_and_gradients(call(*rows, "cpu"), inputs, torch.float32)
    for name in inputs:
        alone = values_and_gradients(call(*rows, "cpu"), inputs, torch.float32, [name])
        assert_identical({name: alone[f"d {name}"]}, {name: every[f"d {name}"]})


@needs_native
@pytest.mark.parametrize("isa", isas())
def test_same_bits_for_every_run_and_thread_count(isa: str) -> None:
    inputs, *rows = problem((5000, 3, 32, 3, 6, 2, 20))
    results = []
    for threads in (1, 1, 2, 4):
        with use_isa(isa), use_threads(threads):
            results.append(values_and_gradients(call(*rows, "cpu"), inputs, torch.float32))
    for result in results[1:]:
        assert_identical(results[0], result)


@needs_native
def test_strided_inputs() -> None:
    inputs, *rows = problem(SHAPES["odd"])
    strided = {name: tensor.mT.contiguous().mT if tensor.dim() > 1 else
               tensor.repeat_interleave(2)[::2] for name, tensor in inputs.items()}  # fmt: skip
    plain = call(*rows, "cpu")(inputs)
    assert_identical(plain, call(*rows, "cpu")(strided))


@needs_native
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("reach", [4.0, 1e3, 1e6, 1e30])
def test_sine(isa: str, reach: float) -> None:
    arguments = torch.linspace(-reach, reach, 501)
    arguments[:9] = torch.arange(-4, 5) * (math.pi / 2)
    with use_isa(isa):
        error = (sine(arguments).double() - arguments.double().sin()).abs().max().item()
    assert error <= 1.2e-7


@needs_native
def test_not_finite_values_spread_as_in_the_reference() -> None:
    inputs, *rows = problem((97, 3, 16, 3, 2, 1, 6))
    for value in (math.nan, math.inf, -math.inf):
        for name in inputs:
            broken = {key: tensor.clone() for key, tensor in inputs.items()}
            broken[name].view(-1)[0] = value
            expected = call(*rows, "reference")(broken)["output"]
            output = call(*rows, "cpu")(broken)["output"]
            torch.testing.assert_close(output, expected, equal_nan=True, rtol=1e-3, atol=1e-3)


@needs_native
@pytest.mark.parametrize(
    "offsets, groups",
    [
        ([1, 3, 5], [0, 0]),
        ([0, 6, 5], [0, 0]),
        ([0, 3, 6], [0, 0]),
        ([0, 3, 5], [0, 2]),
        ([0, 3, 5], [-1, 0]),
    ],
)
def test_rows_that_do_not_fit(offsets: list[int], groups: list[int]) -> None:
    inputs, _, _ = problem((5, 3, 8, 2, 2, 2, 4))
    with pytest.raises(ValueError, match="row_"):
        call(torch.tensor(offsets), torch.tensor(groups), "cpu")(inputs)


def test_shapes_that_do_not_fit() -> None:
    inputs, *rows = problem((5, 3, 8, 2, 2, 2, 4))
    for name in set(inputs) - {"points", "frequencies", "head_weight"}:
        wrong = {**inputs, name: inputs[name][..., :-1]}
        with pytest.raises(ValueError, match=f"film_siren: {name} has shape"):
            call(*rows, "reference")(wrong)
    nothing = {**inputs, "first_weight": torch.empty(8, 0)}
    with pytest.raises(
        ValueError, match=r"film_siren: points has shape \(5, 3\), expected \(5, 8\)"
    ):
        call(*rows, "reference")(nothing)
    for trunk in (-1, 100):
        with pytest.raises(ValueError, match=f"trunk_channels {trunk} is not in 0 to"):
            call(*rows, "reference", trunk)(inputs)
    wrong = {**inputs, "phases": inputs["phases"].double()}
    with pytest.raises(ValueError, match="phases is torch.float64"):
        call(*rows, "reference")(wrong)


@needs_native
def test_second_derivative_is_refused() -> None:
    inputs, *rows = problem((5, 3, 8, 2, 2, 2, 4))
    points = inputs["points"].requires_grad_()
    output = call(*rows, "cpu")(inputs)["output"]
    (grad,) = torch.autograd.grad(output.sum(), points, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd|does not require grad"):
        torch.autograd.grad(grad.sum(), points)


@needs_native
def test_registered_ops() -> None:
    inputs, offsets, groups = problem((70, 3, 8, 3, 2, 2, 4))
    values = list(inputs.values())
    tensors = [*values[:4], offsets, groups, *values[4:]]
    ops = torch.ops.semfaceedit
    call(offsets, groups, "cpu")(inputs)  # imports the module that registers them
    torch.library.opcheck(ops.film_siren_forward_cpu.default, (tensors, 2, "fp32"))
    needed = [True, False] * 6
    grad = torch.randn(70, 4)
    torch.library.opcheck(ops.film_siren_backward_cpu.default, (grad, tensors, 2, "fp32", needed))
