"""What every benchmark records, and how variants are compared: interleaved, by their medians."""

import ctypes
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from measuring import commit

from semfaceedit.machine import cpu_name

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests/helpers"), str(ROOT / "tests/kernels")]

ROUNDS = 7
MACHINE = ("cpu", "isa", "threads", "torch", "python", "commit")


def peak_bytes(function: Callable[[], object]) -> int | None:
    """How far the process's resident memory rises while `function` runs; None without Linux.

    What the allocator kept from before is given back first, so it is not counted as free room.
    """
    status, references = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    try:
        if trim is not None:
            trim(0)
        references.write_text("5")  # the peak starts again at what is resident now
    except OSError:
        return None

    def kib(field: str) -> int:
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(field))

    before = kib("VmRSS")
    function()
    return 1024 * max(kib("VmHWM") - before, 0)


def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """`extra_info` names the machine of each benchmark; its host and folders concern nobody."""
    for key in ("machine_info", "commit_info"):
        output_json[key] = {}


@pytest.fixture
def peak_memory() -> Callable[[Callable[[], object]], int | None]:
    return peak_bytes


@pytest.fixture
def record(benchmark: Any) -> dict[str, Any]:
    """The benchmark's `extra_info`, which already names the machine."""
    from semfaceedit.kernels import _extension

    module, _ = _extension.load()
    benchmark.extra_info.update(
        cpu=cpu_name(),
        isa=module.isa() if module else None,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        commit=commit(),
    )
    return benchmark.extra_info


def product_gflops(size: int = 1536) -> float:
    """What PyTorch's own fp32 matrix product reaches: the best of some."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(a, b)
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


@pytest.fixture
def compare(benchmark: Any, record: dict[str, Any]) -> Callable[..., None]:
    """Time variants in turns; the one named `cpu` is also pytest-benchmark's own measurement.

    `work` is what each does, in floating-point operations, and `product_gflops` what a large matrix
    product reaches beside them; `precisions` names those that are not fp32. A native variant's
    `peak_share` is of what its unit reaches from registers alone, `cpu_peaks`. Peak memory is that
    of each variant's first call.
    """

    from semfaceedit.kernels import cpu_peaks

    def run(
        variants: dict[str, Callable[[], object]],
        work: float | None = None,
        precisions: Mapping[str, str] | None = None,
        rounds: int = ROUNDS,
    ) -> None:
        for name, function in variants.items():
            peak = peak_bytes(function)
            record[f"{name}_precision"] = (precisions or {}).get(name, "fp32")
            record[f"{name}_peak_mib"] = None if peak is None else round(peak / 2**20, 1)
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(rounds):
            for name, function in variants.items():
                start = time.perf_counter()
                function()
                times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(values) for name, values in times.items()}
        peaks = {}
        if work is not None:
            record["product_gflops"] = round(product_gflops(), 1)
            peaks = {name: products / 1e9 for name, (products, _) in cpu_peaks().items()}
            record.update({f"peak_{name}_gflops": round(peak) for name, peak in peaks.items()})
        for name, median in medians.items():
            record[f"{name}_ms"] = round(1e3 * median, 3)
            record[f"{name}_ratio"] = round(median / medians["cpu"], 2)
            if work is not None:
                record[f"{name}_gflops"] = round(work / median / 1e9, 1)
                if name.startswith("cpu"):
                    share = work / median / 1e9 / peaks[record[f"{name}_precision"]]
                    record[f"{name}_peak_share"] = round(share, 3)
        print("", {name: value for name, value in record.items() if name not in MACHINE})
        benchmark.pedantic(variants["cpu"], rounds=min(3, rounds))

    return run
