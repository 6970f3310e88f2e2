"""The CUDA files of all ops, compiled for the host and run as they are: no GPU needed.

`cuda_on_host/cuda_runtime.h` stands in for CUDA's: it runs the threads of a block in turns.
"""

import functools
import inspect
import math
import shutil
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import test_ray_isosurface
import test_semantic_composite
import torch
from comparison import assert_identical, assert_matches, values_and_gradients
from test_ray_isosurface import Sizes
from test_semantic_composite import color, semantic

from semfaceedit.kernels import FieldWeights

pytestmark = [
    pytest.mark.usefixtures("one_thread", "cuda_on_host"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif(sys.platform != "linux", reason="coroutines of glibc"),
]


def by_hand(module: ModuleType) -> list[Any]:
    """The module's tests that take nothing but a backend."""
    return [
        pytest.param(function, id=name.removeprefix("test_"))
        for name, function in vars(module).items()
        if name.startswith("test_") and [*inspect.signature(function).parameters] == ["backend"]
    ]


CASES = [*by_hand(test_ray_isosurface), *by_hand(test_semantic_composite)]


@pytest.mark.parametrize("case", CASES)
def test_by_hand(case: Callable[[str], None]) -> None:
    case("cuda")


def test_cases_were_found() -> None:
    assert len(CASES) >= 13


def composite_inputs(op: Callable, sizes: tuple[int, int, int]) -> dict[str, torch.Tensor]:
    inputs = test_semantic_composite.problem(sizes)
    if op is semantic:
        del inputs["depths"]
    return inputs


COMPOSITES = [(37, 9, 19), (63, 1, 1), (1, 24, 19), (9, 24, 84), (13, 40, 3), (7, 5, 16), (0, 4, 5)]


@pytest.mark.gradients
@pytest.mark.parametrize("sizes", COMPOSITES, ids=str)
@pytest.mark.parametrize("op", [semantic, color])
def test_composite(op: Callable[[str], Callable], sizes: tuple[int, int, int]) -> None:
    inputs = composite_inputs(op, sizes)
    run = functools.partial(values_and_gradients, inputs=inputs)
    exact = run(op("reference"), dtype=torch.float64)
    plain = run(op("reference"), dtype=torch.float32)
    actual = run(op("cuda"), dtype=torch.float32)
    labels = exact.pop("labels", None)
    if labels is not None:
        clear = test_semantic_composite.argmax_gap(inputs) > 1e-5
        assert torch.equal(actual["labels"][clear], labels[clear])
    assert_matches(actual, exact, plain)


@pytest.mark.parametrize("op", [semantic, color])
def test_composite_each_gradient_alone_and_strides(op: Callable[[str], Callable]) -> None:
    inputs = composite_inputs(op, (6, 5, 7))
    every = values_and_gradients(op("cuda"), inputs, torch.float32)
    every.pop("labels", None)
    for name in inputs:
        alone = values_and_gradients(op("cuda"), inputs, torch.float32, [name])
        assert_identical({name: alone[f"d {name}"]}, {name: every[f"d {name}"]})
    strided = {name: tensor.mT.contiguous().mT for name, tensor in inputs.items()}
    assert_identical(every, values_and_gradients(op("cuda"), strided, torch.float32))


@pytest.mark.parametrize("op", [semantic, color])
@pytest.mark.parametrize("channels", [3, 19, 40])
def test_composite_not_finite(op: Callable[[str], Callable], channels: int) -> None:
    for value in (math.nan, math.inf, -math.inf):
        for name in composite_inputs(op, (1, 1, 1)):
            inputs = composite_inputs(op, (6, 5, channels))
            inputs[name][1, 2] = value
            inputs[name].view(-1)[-1] = value
            wanted, result = op("reference")(inputs), op("cuda")(inputs)
            torch.testing.assert_close(result, wanted, equal_nan=True)


# Rays, surfaces and the plane, samples, width, layers
FIELDS: dict[str, Sizes] = {
    "small": (63, 9, 32, 64, 3),
    "odd": (63, 24, 33, 17, 3),
    "one layer": (63, 4, 16, 24, 1),
    "paper's width": (21, 9, 16, 128, 3),
    "widest": (9, 4, 8, 200, 2),
    "only the plane": (63, 1, 5, 8, 2),
    "more surfaces than a tile has points": (40, 80, 128, 16, 2),
}


LARGE = ("paper's width", "more surfaces than a tile has points")


@pytest.mark.gradients
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LARGE else []) for name in FIELDS]
)
def test_field(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_ray_isosurface, "SEEDS", 4)
    test_ray_isosurface.expected.cache_clear()
    test_ray_isosurface.compare(FIELDS[name], "cuda")
    test_ray_isosurface.expected.cache_clear()


def field_results(sizes: Sizes, wanted: list[str] | None = None) -> dict[str, torch.Tensor]:
    inputs = test_ray_isosurface.problem(sizes)
    function = test_ray_isosurface.call(sizes, "cuda")
    result = values_and_gradients(function, inputs, torch.float32, wanted)
    return {name: result[name] for name in result if name != "valid"}


def test_field_each_gradient_alone() -> None:
    sizes = (30, 9, 16, 17, 3)
    every = field_results(sizes)
    for name in test_ray_isosurface.problem(sizes):
        alone = field_results(sizes, [name])
        assert_identical({name: alone[f"d {name}"]}, {name: every[f"d {name}"]})


@pytest.mark.parametrize("op", [semantic, color])
def test_composite_in_any_order_of_threads(
    op: Callable[[str], Callable], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A barrier that is missing shows: threads before it run in the other order."""
    inputs = composite_inputs(op, (41, 40, 40))
    first = values_and_gradients(op("cuda"), inputs, torch.float32)
    monkeypatch.setenv("CUDA_ON_HOST_REVERSED", "1")
    second = values_and_gradients(op("cuda"), inputs, torch.float32)
    assert_identical(first, second)


@pytest.mark.parametrize("sizes", [(90, 9, 16, 40, 3), (21, 9, 16, 128, 2)], ids=str)
def test_field_in_any_order_of_threads(sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    first = field_results(sizes)
    monkeypatch.setenv("CUDA_ON_HOST_REVERSED", "1")
    assert_identical(first, field_results(sizes))


def test_no_rays_and_all_rays_miss() -> None:
    sizes = (0, 4, 8, 6, 2)
    result = field_results(sizes)
    assert result["points"].shape == (0, 4, 3)
    assert not any(result[f"d {name}"].any() for name in FieldWeights._fields)
    sizes = (63, 9, 16, 16, 2)
    inputs = {**test_ray_isosurface.problem(sizes), "last_bias": torch.tensor([-500.0])}
    call = test_ray_isosurface.call
    exact = values_and_gradients(call(sizes, "reference"), inputs, torch.float64)
    plain = values_and_gradients(call(sizes, "reference"), inputs, torch.float32)
    actual = values_and_gradients(call(sizes, "cuda"), inputs, torch.float32)
    assert actual["valid"].sum() == 63
    floats = {name: value for name, value in exact.items() if value.is_floating_point()}
    assert_matches(actual, floats, plain)


def test_field_not_finite() -> None:
    test_ray_isosurface.assert_not_finite_as_in_the_reference("cuda")


def test_field_that_is_too_wide() -> None:
    sizes = (3, 4, 8, 257, 2)
    with pytest.raises(ValueError, match="up to 256 units, got 257"):
        test_ray_isosurface.call(sizes, "cuda")(test_ray_isosurface.problem(sizes))


def test_too_many_classes_for_shared_memory() -> None:
    alpha, values = torch.rand(2, 3), torch.rand(2, 3, 2000)
    with pytest.raises(ValueError, match="bytes of shared memory a block"):
        semantic("cuda")({"alpha": alpha, "values": values})


def test_registered_ops() -> None:
    test_ray_isosurface.check_registered_ops("cuda")
    test_semantic_composite.check_registered_ops("cuda")


def test_other_tensors_are_refused() -> None:
    with pytest.raises(RuntimeError, match="takes float32 tensors, got torch.float64"):
        semantic("cuda")(
            {name: x.double() for name, x in composite_inputs(semantic, (2, 3, 4)).items()}
        )
