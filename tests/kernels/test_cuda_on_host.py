"""The CUDA files of all ops, compiled for the host and run as they are: no GPU needed.

`cuda_on_host/cuda_runtime.h` stands in for CUDA's: it runs the threads of a block in turns.
"""

import functools
import importlib.machinery
import importlib.util
import inspect
import math
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import film_siren_cases
import pytest
import test_ray_isosurface
import test_semantic_composite
import torch
from comparison import assert_identical, assert_matches, values_and_gradients
from test_ray_isosurface import Sizes
from test_semantic_composite import color, semantic

from semfaceedit.kernels import FieldWeights, _backend, _extension

pybind11 = pytest.importorskip("pybind11")

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.usefixtures("one_thread", "cuda_on_host"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif(sys.platform != "linux", reason="coroutines of glibc"),
]


@pytest.fixture(scope="module")
def host_module(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """semfaceedit._C_cuda for the host."""
    target = tmp_path_factory.mktemp("cuda_on_host") / "_C_cuda.so"
    includes = [ROOT / "tests/cuda_on_host", ROOT / "csrc", pybind11.get_include()]
    includes.append(sysconfig.get_path("include"))
    sources = [ROOT / "csrc/bindings_cuda.cpp", *sorted((ROOT / "csrc").glob("*.cu"))]
    command = ["g++", "-O1", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall"]
    command += ["-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", "-Werror", *(f"-isystem{path}" for path in includes[2:])]
    command += [*(f"-I{path}" for path in includes[:2]), "-x", "c++", *map(str, sources)]
    subprocess.run([*command, "-o", str(target)], check=True)
    loader = importlib.machinery.ExtensionFileLoader("_C_cuda", str(target))
    spec = importlib.util.spec_from_file_location("_C_cuda", target, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def cuda_on_host(host_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Backend `cuda` takes CPU tensors and runs the host's module."""
    monkeypatch.setattr(_extension, "load_cuda", lambda device=None: (host_module, None))
    monkeypatch.setattr(_extension, "_device_and_stream", lambda tensor: (0, 0))
    monkeypatch.setitem(_backend.DEVICE_TYPES, "cuda", ("cpu",))
    _backend.unavailable.cache_clear()
    yield
    _backend.unavailable.cache_clear()


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


# Points, inputs, width, layers, FiLM rows, groups, channels; trunk channels
STACKS = {
    "geometry": ((150, 3, 64, 3, 4, 1, 84), 1),
    "appearance": ((150, 64, 64, 2, 5, 4, 3), 0),
    "odd": ((63, 5, 17, 4, 9, 3, 7), 3),
    "one point": ((1, 2, 16, 2, 1, 1, 25), 25),
    "trunk and view in one block": ((140, 3, 16, 3, 2, 1, 52), 30),
}
LARGE_STACKS = {
    "paper": ((130, 3, 256, 8, 2, 1, 276), 1),
    "paper appearance": ((100, 256, 256, 8, 3, 2, 3), 0),
    "several wide blocks": ((90, 70, 129, 3, 2, 2, 300), 160),
}


def film_output(
    sizes: film_siren_cases.Sizes, trunk: int, backend: str, precision: str, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    inputs, *rows = film_siren_cases.problem(sizes)
    function = film_siren_cases.call(*rows, backend, trunk, precision)
    return function({name: tensor.to(dtype) for name, tensor in inputs.items()})


@pytest.mark.parametrize(
    ("sizes", "trunk"),
    [
        *(pytest.param(*case, id=name) for name, case in STACKS.items()),
        *(
            pytest.param(*case, id=name, marks=pytest.mark.slow)
            for name, case in LARGE_STACKS.items()
        ),
    ],
)
def test_film_siren(sizes: film_siren_cases.Sizes, trunk: int) -> None:
    exact = film_output(sizes, trunk, "reference", "fp32", torch.float64)
    plain = film_output(sizes, trunk, "reference", "fp16", torch.float32)
    with unwritten_memory_is_nan():
        assert_matches(film_output(sizes, trunk, "cuda", "fp16", torch.float32), exact, plain)


@contextmanager
def unwritten_memory_is_nan() -> Iterator[None]:
    """What torch.empty gives is filled with NaN, so that it shows where nothing is written."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        assert torch.empty(3).isnan().all()
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def test_film_siren_gradients() -> None:
    inputs, *rows = film_siren_cases.problem((63, 5, 17, 4, 9, 3, 7))
    run = functools.partial(values_and_gradients, inputs=inputs)
    call = film_siren_cases.call
    exact = run(call(*rows, "reference", 3), dtype=torch.float64)
    plain = run(call(*rows, "reference", 3, "fp16"), dtype=torch.float32)
    actual = run(call(*rows, "cuda", 3, "fp16"), dtype=torch.float32)
    assert_matches(actual, exact, plain)
    alone = run(call(*rows, "cuda", 3, "fp16"), dtype=torch.float32, wanted=["phases"])
    assert_identical({"d phases": alone["d phases"]}, actual)


SCHEDULED = ((140, 70, 64, 2, 2, 2, 30), 1)  # two tiles for a block, slabs of every kind
SEEDS = range(4)


def scheduled_output(monkeypatch: pytest.MonkeyPatch, seed: int, fault: str = "") -> Any:
    monkeypatch.setenv("CUDA_ON_HOST_SEED", str(seed))
    monkeypatch.setenv("CUDA_ON_HOST_FAULT", fault)
    return film_output(*SCHEDULED, "cuda", "fp16", torch.float32)


def test_film_siren_in_any_order_of_warps_and_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = film_output(*SCHEDULED, "cuda", "fp16", torch.float32)
    for seed in SEEDS:
        assert_identical(wanted, scheduled_output(monkeypatch, seed))
    monkeypatch.setenv("CUDA_ON_HOST_REVERSED", "1")
    assert_identical(wanted, scheduled_output(monkeypatch, 0))


FAULTS = (
    "copies are not waited for",
    "a group too few is waited for",
    "no barrier between slabs",
    "half a piece is copied",
    "a piece is read from its neighbour's place",
)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_order_of_things_shows(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = film_output(*SCHEDULED, "cuda", "fp16", torch.float32)["output"]
    for seed in SEEDS:
        output = scheduled_output(monkeypatch, seed, fault)["output"]
        assert not torch.equal(output, wanted), seed


def test_film_siren_trunk_never_sees_the_direction() -> None:
    for channels, trunk in ((5, 2), (40, 33)):
        inputs, *rows = film_siren_cases.problem((20, 3, 16, 3, 2, 1, channels))
        function = film_siren_cases.call(*rows, "cuda", trunk, "fp16")
        turned = {**inputs, "directions": torch.full_like(inputs["directions"], math.nan)}
        first, second = function(inputs)["output"], function(turned)["output"]
        assert torch.equal(first[:, :trunk], second[:, :trunk])
        assert second[:, trunk:].isnan().all()


def test_film_siren_of_no_points_and_too_wide() -> None:
    inputs, _, groups = film_siren_cases.problem((5, 3, 16, 2, 2, 1, 30))
    nothing = {**inputs, "points": torch.zeros(0, 3), "directions": torch.zeros(0, 3)}
    function = film_siren_cases.call(torch.zeros(3, dtype=torch.int64), groups, "cuda", 1, "fp16")
    result = values_and_gradients(function, nothing, torch.float32)
    assert result["output"].shape == (0, 30)
    assert not any(result[f"d {name}"].any() for name in inputs)
    with pytest.raises(ValueError, match="up to 256 units, got 257"):
        film_output((5, 3, 257, 2, 1, 1, 3), 0, "cuda", "fp16", torch.float32)


def test_film_siren_registered_ops() -> None:
    tensors, offsets, groups = film_siren_cases.problem((5, 3, 16, 2, 2, 1, 3))
    values = list(tensors.values())
    inputs = [*values[:4], offsets, groups, *values[4:]]
    film_siren_cases.call(offsets, groups, "cuda", 0, "fp16")(tensors)
    ops = torch.ops.semfaceedit
    torch.library.opcheck(ops.film_siren_forward_cuda.default, (inputs, 0, "fp16"))


def test_film_siren_in_fp16_is_never_chosen_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "AUTO_ORDER", {"cuda": ("cuda", "reference")})
    monkeypatch.setitem(_backend.DEVICE_TYPES, "cuda", ("cuda",))
    choose = functools.partial(_backend._choose, "film_siren", None)
    chosen = choose(None, "cuda", None, torch.float32)
    assert (chosen.backend, chosen.precision) == ("reference", "fp32")
    assert choose("fp16", "cuda", None, torch.float32).backend == "cuda"
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    chosen = choose(None, "cuda", None, torch.float32)
    assert (chosen.backend, chosen.precision) == ("cuda", "fp16")
