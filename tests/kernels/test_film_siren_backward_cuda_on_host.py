"""`film_siren`'s backward pass in CUDA, compiled for the host and run as it is: no GPU needed."""

import functools
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType

import film_siren_cases
import pytest
import torch
from comparison import assert_identical, assert_matches, values_and_gradients
from test_film_siren_cuda_on_host import (
    CASES,
    FAULTS,
    SEEDS,
    STACKS,
    capability,
    unwritten_memory_is_nan,
)
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from semfaceedit.kernels import film_siren_cuda_backward

__all__ = ["capability"]  # a fixture

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.usefixtures("one_thread", "cuda_on_host", "capability"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif(sys.platform != "linux", reason="coroutines of glibc"),
]

Sizes = film_siren_cases.Sizes
Gradients = dict[str, Tensor]


def gradients(
    sizes: Sizes,
    trunk: int,
    backend: str = "cuda",
    precision: str = "fp16",
    dtype: torch.dtype = torch.float32,
    *,
    wanted: list[str] | None = None,
    loss_scale: float | Tensor = 1.0,
    **changed: float,
) -> Gradients:
    """`loss_scale`: of the output, or of each point; `changed`: factors of inputs, by name."""
    inputs, *rows = film_siren_cases.problem(sizes)
    inputs = {name: changed.get(name, 1.0) * tensor for name, tensor in inputs.items()}
    function = film_siren_cases.call(*rows, backend, trunk, precision)
    result = values_and_gradients(
        lambda leaves: {"output": (loss_scale * function(leaves)["output"]).to(dtype)},
        inputs,
        dtype,
        wanted,
    )
    return {name: tensor for name, tensor in result.items() if name.startswith("d ")}


def set_product_blocks(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    blocks = dict.fromkeys(film_siren_cuda_backward.PRODUCT_BLOCKS, count)
    monkeypatch.setattr(film_siren_cuda_backward, "PRODUCT_BLOCKS", blocks)


@pytest.fixture(autouse=True)
def _products_of_several_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with more points, where a block has more than one tile."""
    set_product_blocks(monkeypatch, 4)


def exact_and_plain(sizes: Sizes, trunk: int, **settings: float) -> tuple[Gradients, Gradients]:
    exact = gradients(sizes, trunk, "reference", "fp32", torch.float64, **settings)
    return exact, gradients(sizes, trunk, "reference", **settings)


@pytest.mark.gradients
@pytest.mark.parametrize(("sizes", "trunk"), CASES)
def test_gradients(sizes: Sizes, trunk: int) -> None:
    with unwritten_memory_is_nan():
        actual = gradients(sizes, trunk)
    assert_matches(actual, *exact_and_plain(sizes, trunk))


def test_each_gradient_alone_is_the_same() -> None:
    """What is not needed is neither launched nor kept."""
    every = gradients(*STACKS["odd"])
    for name in every:
        with unwritten_memory_is_nan():
            alone = gradients(*STACKS["odd"], wanted=[name.removeprefix("d ")])
        assert alone.keys() == {name}
        assert_identical(alone, every)


def test_chunks_of_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    case = STACKS["odd"]
    whole = gradients(*case)
    monkeypatch.setattr(film_siren_cuda_backward, "CHUNK_POINTS", 256)
    set_product_blocks(monkeypatch, 264)
    with unwritten_memory_is_nan():
        in_chunks = gradients(*case)
    assert_matches(in_chunks, {name: value.double() for name, value in whole.items()}, whole)


def test_blocks_of_other_groups_are_not_counted(
    host_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a tile is of one group: as many splits for many groups as for one."""
    set_product_blocks(monkeypatch, 12)
    launch, splits = host_module.film_siren_weight_gradients, []

    def noted(width: int, sizes: list[int], *operands: object) -> None:
        splits.append(sizes[3])
        launch(width, sizes, *operands)

    monkeypatch.setattr(host_module, "film_siren_weight_gradients", noted)
    for groups in (1, 3):
        gradients((600, 3, 16, 2, 3, groups, 5), 1)
    half = len(splits) // 2
    assert splits[:half] == splits[half:]
    assert min(splits) > 1


AMPLIFYING = (9, 3, 16, 8, 1, 1, 5)


def test_what_the_network_amplifies_does_not_overflow() -> None:
    """Nor does it vanish: bits do not depend on the scale of the loss."""
    settings = {"hidden_weight": 50.0}
    reference = gradients(AMPLIFYING, 1, "reference", "fp32", **settings)
    unscaled = gradients(AMPLIFYING, 1, **settings)
    assert max(value.abs().max() for value in unscaled.values()) > 1e5
    for name, value in unscaled.items():
        assert reference[name].isfinite().all()
        assert value.isfinite().all(), name
    for scale in (2.0**16, 2.0**-40):
        scaled = gradients(AMPLIFYING, 1, loss_scale=scale, **settings)
        assert_identical({name: value / scale for name, value in scaled.items()}, unscaled)


def test_deltas_beyond_the_range_of_fp16() -> None:
    """Heads of a large gain make them, at a forward pass as exact as ever."""
    case, settings = STACKS["more inputs than width"], {"head_weight": 2048.0, "frequencies": 4.0}
    actual = gradients(*case, **settings)
    scale = 2.0**-10  # what plain PyTorch needs, and loses nothing by
    exact = gradients(*case, "reference", "fp32", torch.float64, **settings)
    plain = gradients(*case, "reference", loss_scale=scale, **settings)
    assert max(value.abs().max() for value in actual.values()) > 1e5
    assert_matches(actual, exact, {name: value / scale for name, value in plain.items()})


# Gradients of points between 1e-30 and 1e30, the largest in the first tile or in the last.
REACHING = (300, 3, 16, 2, 3, 1, 5)
REACH = torch.logspace(-30, 30, 300, dtype=torch.float64)[:, None]


@pytest.mark.parametrize("reach", [REACH, REACH.flip(0)], ids=["rising", "falling"])
def test_tiles_of_very_different_gradients(reach: Tensor) -> None:
    """A tile's deltas have a scale of their own, which the products over points take off."""
    exact = gradients(REACHING, 1, "reference", "fp32", torch.float64, loss_scale=reach)
    plain = gradients(REACHING, 1, "reference", "fp32", loss_scale=reach)
    actual = gradients(REACHING, 1, loss_scale=reach)
    for name in set(exact) - {"d points", "d directions"}:
        assert plain[name].isfinite().all(), name
        assert actual[name].isfinite().all(), name
        error = (actual[name] - exact[name]).norm() / exact[name].norm()
        assert error < 0.005, (name, error)


def test_no_points() -> None:
    inputs, _, groups = film_siren_cases.problem((5, 3, 16, 2, 2, 1, 30))
    nothing = {**inputs, "points": torch.zeros(0, 3), "directions": torch.zeros(0, 3)}
    function = film_siren_cases.call(torch.zeros(3, dtype=torch.int64), groups, "cuda", 1, "fp16")
    with unwritten_memory_is_nan():
        result = values_and_gradients(function, nothing, torch.float32)
    assert not any(result[f"d {name}"].any() for name in inputs)


def test_what_is_not_finite_shows() -> None:
    """In every gradient: a scaler of the loss looks for it there."""
    inputs, *rows = film_siren_cases.problem((20, 3, 16, 3, 2, 1, 5))
    inputs["points"][3, 0] = torch.nan
    result = values_and_gradients(
        film_siren_cases.call(*rows, "cuda", 1, "fp16"), inputs, torch.float32
    )
    for name in set(inputs) - {"head_bias"}:
        assert not result[f"d {name}"].isfinite().all(), name


# Several tiles for a block and slabs of every kind; then a view layer that reads no channel.
# And tiles that do not count beside others.
SCHEDULED = {
    "several tiles": ((700, 70, 64, 2, 3, 2, 30), 1, 1.0),
    "no viewed channel": ((130, 3, 128, 2, 2, 1, 64), 64, 1.0),
    "very different tiles": (REACHING, 1, REACH),
}
OF_PARTS = (
    "a lane gets its own",
    "no barrier: sums are put down",
    "no barrier: the largest is put down",
)
BACKWARD_FAULTS = {
    "80": (
        *FAULTS["80"],
        *OF_PARTS,
        "matrices are not transposed",
        "no barrier: sums are read",  # not seen on 9.0, where a part has four warps
        "no barrier: the largest is read",  # on 9.0 the groups' turns are enough
        "no barrier: points",
        "no barrier: inverses are put down",
        "no barrier: inverses are read",
        "no barrier: sums of rows are put down",
    ),
    "90": (
        # Lanes read nothing of a place on the way back, products alone do.
        *(fault for fault in FAULTS["90"] if fault != "lanes do not gather"),
        *OF_PARTS,
        "stores are not fenced",
        "a matrix is not transposed",
        "a matrix has another stride",
    ),
}


def scheduled(monkeypatch: pytest.MonkeyPatch, case: str, seed: int, fault: str = "") -> Gradients:
    monkeypatch.setenv("CUDA_ON_HOST_FAULT", fault)
    monkeypatch.setenv("CUDA_ON_HOST_SEED", str(seed))
    *problem, loss_scale = SCHEDULED[case]
    return gradients(*problem, loss_scale=loss_scale)


@functools.cache
def undisturbed(case: str, capability: str) -> Gradients:
    *problem, loss_scale = SCHEDULED[case]
    return gradients(*problem, loss_scale=loss_scale)


@pytest.mark.parametrize("case", SCHEDULED)
def test_any_order_of_warps_and_copies(
    case: str, capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = undisturbed(case, capability)
    for seed in SEEDS:
        assert_identical(wanted, scheduled(monkeypatch, case, seed))
    monkeypatch.setenv("CUDA_ON_HOST_REVERSED", "1")
    assert_identical(wanted, scheduled(monkeypatch, case, 0))


@pytest.mark.parametrize(
    ("capability", "fault"),
    [(capability, fault) for capability, faults in BACKWARD_FAULTS.items() for fault in faults],
    indirect=["capability"],
)
def test_a_fault_in_the_order_of_things_shows(
    capability: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another result, or as an error of what stands in for the hardware."""
    for seed in SEEDS:
        for case in reversed(SCHEDULED):
            wanted = undisturbed(case, capability)
            try:
                actual = scheduled(monkeypatch, case, seed, fault)
            except RuntimeError as error:
                print(fault, seed, error)
                return
            if any(not torch.equal(actual[name], wanted[name]) for name in wanted):
                return
    pytest.fail(f"nobody noticed: {fault}")


def test_every_fault_that_can_be_planted_is() -> None:
    texts = {path.name: path.read_text() for path in (ROOT / "tests/cuda_on_host").iterdir()}
    for number, faults in BACKWARD_FAULTS.items():
        own = texts[f"sm{number}_on_host.h"] + texts["cuda_runtime.h"]
        calls = " ".join(re.findall(r"fault\(((?:[^()]|\(\))*)\)", own))
        planted = set(re.findall(r'"([^"]+)"', calls))
        if number == "80":
            sources = [path.read_text() for path in (ROOT / "csrc").iterdir()]
            barriers = re.findall(r'sync\("([^"]+)"\)', " ".join(sources))
            planted |= {f"no barrier: {what}" for what in barriers}
        of_other = {"lanes do not gather", "a lane gets its own"}
        of_other |= set(OF_PARTS) if number == "90" else set()
        assert planted - of_other == set(faults) - of_other


def test_registered_op_and_second_derivative() -> None:
    tensors, offsets, groups = film_siren_cases.problem((5, 3, 16, 2, 2, 1, 3))
    values = list(tensors.values())
    inputs = [*values[:4], offsets, groups, *values[4:]]
    function = film_siren_cases.call(offsets, groups, "cuda", 0, "fp16")
    points = tensors["points"].requires_grad_()
    (grad,) = torch.autograd.grad(function(tensors)["output"].sum(), points, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd|does not require grad"):
        torch.autograd.grad(grad.sum(), points)
    arguments = (torch.randn(5, 3), [x.detach() for x in inputs], 0, "fp16", [True, False] * 6)
    torch.library.opcheck(torch.ops.semfaceedit.film_siren_backward_cuda.default, arguments)


def test_compiles_in_one_graph() -> None:
    inputs, *rows = film_siren_cases.problem((9, 3, 16, 2, 2, 2, 4))
    function = film_siren_cases.call(*rows, "cuda", 1, "fp16")
    eager = values_and_gradients(function, inputs, torch.float32)
    torch.compiler.reset()
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert_identical(eager, values_and_gradients(compiled, inputs, torch.float32))


class Waits(TorchDispatchMode):
    """Notes the PyTorch operations that make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "_unique2"):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def test_the_host_does_not_wait_for_the_device() -> None:
    with Waits() as waits:
        gradients((5, 3, 16, 2, 2, 1, 3), 0)
    assert waits.seen == []
    with Waits() as waits:
        torch.bincount(torch.tensor([1]))
    assert waits.seen
