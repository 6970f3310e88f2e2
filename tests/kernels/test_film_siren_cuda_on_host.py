"""`film_siren`'s CUDA files, compiled for the host and run as they are: no GPU needed.

`cuda_on_host/sm80_on_host.h` and `sm90_on_host.h` stand in for what C++ has no word for, with
faults that can be planted.
"""

import functools
import math
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import film_siren_cases
import pytest
import torch
from comparison import assert_identical, assert_matches

from semfaceedit.kernels import _backend, film_siren_cuda

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.usefixtures("one_thread", "cuda_on_host"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif(sys.platform != "linux", reason="coroutines of glibc"),
]

BODIES = {"80": "sm80", "86": "sm80", "89": "sm80", "90": "sm90", "100": "sm80", "120": "sm80"}


@pytest.fixture(params=["80", "90"])
def capability(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The device's: it decides which body runs."""
    monkeypatch.setenv("CUDA_ON_HOST_CAPABILITY", request.param)
    return request.param


@pytest.mark.parametrize("capability", BODIES, indirect=True)
def test_which_body_runs(capability: str) -> None:
    runs = {name for name, reason in film_siren_cuda.bodies().items() if reason is None}
    assert runs == {BODIES[capability]}
    for width in (16, 100, 200):  # each has room in shared memory
        output = film_output((2, 3, width, 2, 1, 1, 3), 1, "cuda", "fp16", torch.float32)["output"]
        assert output.isfinite().all()


# Points, inputs, width, layers, FiLM rows, groups, channels; trunk channels
STACKS = {
    "geometry": ((150, 3, 64, 3, 4, 1, 84), 1),
    "appearance": ((150, 64, 64, 2, 5, 4, 3), 0),
    "odd": ((63, 5, 17, 4, 9, 3, 7), 3),
    "one point": ((1, 2, 16, 2, 1, 1, 25), 25),
    "trunk and view in one block": ((140, 3, 16, 3, 2, 1, 52), 30),
    "no first product": ((150, 0, 60, 2, 4, 2, 30), 1),
    "no first product, few units": ((140, 0, 3, 3, 2, 1, 3), 2),
    "more inputs than width": ((90, 150, 60, 2, 2, 1, 5), 2),
    "a full tile": ((590, 3, 40, 3, 1, 1, 30), 1),  # of all blocks of a cluster
}
LARGE_STACKS = {
    "paper": ((130, 3, 256, 8, 2, 1, 276), 1),
    "paper appearance": ((100, 0, 256, 8, 3, 2, 3), 0),
    "paper appearance, unfolded": ((100, 256, 256, 8, 3, 2, 3), 0),
    "several wide blocks": ((90, 70, 129, 3, 2, 2, 300), 160),
}


CASES = [
    *(pytest.param(*case, id=name) for name, case in STACKS.items()),
    *(pytest.param(*case, id=name, marks=pytest.mark.slow) for name, case in LARGE_STACKS.items()),
]


def film_output(
    sizes: film_siren_cases.Sizes, trunk: int, backend: str, precision: str, dtype: torch.dtype
) -> dict[str, torch.Tensor]:
    inputs, *rows = film_siren_cases.problem(sizes)
    function = film_siren_cases.call(*rows, backend, trunk, precision)
    return function({name: tensor.to(dtype) for name, tensor in inputs.items()})


@pytest.mark.parametrize(("sizes", "trunk"), CASES)
def test_film_siren(capability: str, sizes: film_siren_cases.Sizes, trunk: int) -> None:
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


# Several tiles for a block, slabs of every kind, and FiLM that is loaded where older FiLM was; on
# 9.0 some without a slab.
SCHEDULED = {
    "80": ((140, 70, 64, 2, 2, 2, 30), 1),
    "90": ((1200, 0, 100, 4, 3, 2, 30), 1),
}
SEEDS = range(4)


def scheduled_output(
    monkeypatch: pytest.MonkeyPatch, capability: str, seed: int, fault: str = ""
) -> dict[str, torch.Tensor]:
    monkeypatch.setenv("CUDA_ON_HOST_FAULT", fault)
    monkeypatch.setenv("CUDA_ON_HOST_SEED", str(seed))
    return film_output(*SCHEDULED[capability], "cuda", "fp16", torch.float32)


@functools.cache
def undisturbed_output(capability: str) -> dict[str, torch.Tensor]:
    return film_output(*SCHEDULED[capability], "cuda", "fp16", torch.float32)


def test_any_order_of_warps_copies_and_products(
    capability: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = undisturbed_output(capability)
    for seed in SEEDS:
        assert_identical(wanted, scheduled_output(monkeypatch, capability, seed))
    monkeypatch.setenv("CUDA_ON_HOST_REVERSED", "1")
    assert_identical(wanted, scheduled_output(monkeypatch, capability, 0))


FAULTS = {
    "80": (
        "copies are not waited for",
        "a group too few is waited for",
        "no barrier: slabs",
        "half a piece is copied",
        "a piece is read from its neighbour's place",
    ),
    "90": (
        "slabs are not waited for",
        "room is not waited for",
        "products are not waited for",
        "turns are not waited for",
        "turns are not given",
        "lanes do not gather",
        "blocks do not wait for each other",
        "a barrier counts an arrival too few",
        "a barrier counts an arrival too many",
        "too few bytes are expected",
        "too many bytes are expected",
        "a copy goes to one block alone",
        "places are released in the own block alone",
        "a place is released before its products are done",
        "the phase is not flipped",
        "the filling phase is not flipped",
        "registers are not fenced",
        "barriers are not published",
    ),
}


@pytest.mark.parametrize(
    ("capability", "fault"),
    [(capability, fault) for capability, faults in FAULTS.items() for fault in faults],
    indirect=["capability"],
)
def test_a_fault_in_the_order_of_things_shows(
    capability: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another result, or as an error of what stands in for the hardware."""
    wanted = undisturbed_output(capability)["output"]
    for seed in SEEDS:
        try:
            output = scheduled_output(monkeypatch, capability, seed, fault)["output"]
        except RuntimeError as error:
            print(fault, seed, error)
            return
        if not torch.equal(output, wanted):
            return
    pytest.fail(f"nobody noticed: {fault}")


def test_trunk_never_sees_the_direction(capability: str) -> None:
    for channels, trunk in ((5, 2), (40, 33)):
        inputs, *rows = film_siren_cases.problem((20, 3, 16, 3, 2, 1, channels))
        function = film_siren_cases.call(*rows, "cuda", trunk, "fp16")
        turned = {**inputs, "directions": torch.full_like(inputs["directions"], math.nan)}
        first, second = function(inputs)["output"], function(turned)["output"]
        assert torch.equal(first[:, :trunk], second[:, :trunk])
        assert second[:, trunk:].isnan().all()


def test_no_points_and_too_wide(capability: str) -> None:
    inputs, _, groups = film_siren_cases.problem((5, 3, 16, 2, 2, 1, 30))
    nothing = {**inputs, "points": torch.zeros(0, 3), "directions": torch.zeros(0, 3)}
    function = film_siren_cases.call(torch.zeros(3, dtype=torch.int64), groups, "cuda", 1, "fp16")
    assert function(nothing)["output"].shape == (0, 30)
    with pytest.raises(ValueError, match="up to 256 units, got 257"):
        film_output((5, 3, 257, 2, 1, 1, 3), 0, "cuda", "fp16", torch.float32)


def test_registered_ops() -> None:
    tensors, offsets, groups = film_siren_cases.problem((5, 3, 16, 2, 2, 1, 3))
    values = list(tensors.values())
    inputs = [*values[:4], offsets, groups, *values[4:]]
    film_siren_cases.call(offsets, groups, "cuda", 0, "fp16")(tensors)
    ops = torch.ops.semfaceedit
    torch.library.opcheck(ops.film_siren_forward_cuda.default, (inputs, 0, "fp16"))


def test_fp16_is_never_chosen_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_backend, "AUTO_ORDER", {"cuda": ("cuda", "reference")})
    monkeypatch.setitem(_backend.DEVICE_TYPES, "cuda", ("cuda",))
    choose = functools.partial(_backend._choose, "film_siren", None)
    chosen = choose(None, "cuda", None, torch.float32)
    assert (chosen.backend, chosen.precision) == ("reference", "fp32")
    assert choose("fp16", "cuda", None, torch.float32).backend == "cuda"
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: True)
    chosen = choose(None, "cuda", None, torch.float32)
    assert (chosen.backend, chosen.precision) == ("cuda", "fp16")


@pytest.mark.slow
@pytest.mark.parametrize("capability", ["90"], indirect=True)
def test_the_gpu_suite_with_this_backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: str
) -> None:
    """All of its steps at toy size, as on a GPU of this capability without Triton."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_checks
    import gpu_suite
    from measuring import Suite

    plan = gpu_checks.Plan(
        preset="tiny", resolution=4, label_resolution=8, other_resolutions=(), points=67, rays=601,
        chunk_rays=24, repeats=1, variants=("cuda fp16",), checked=("cpu fp32", "cuda fp16"),
        baselines=("eager fp32", "eager AMP"),
    )  # fmt: skip
    suite = Suite(tmp_path / "toy.json", torch.device("cpu"))
    assert gpu_suite.run(suite, plan, 1) == 0
    for op in ("geometry", gpu_checks.FOLDED):
        assert suite.has(kind="check", op=op, variant="cuda fp16", tensor="output", passed=True)
    assert suite.has(kind="time", what="render", variant="cuda fp16")
    bodies = next(record for record in suite.records if record["kind"] == "bodies")
    assert bodies[BODIES[capability]] is None
