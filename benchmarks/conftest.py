"""What every benchmark records, and how variants are compared: interleaved, by their medians."""

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

ROUNDS = 7
MACHINE = ("cpu", "isa", "threads", "torch", "python", "commit")


def cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return result.stdout.strip()


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


@pytest.fixture
def compare(benchmark: Any, record: dict[str, Any]) -> Callable[..., None]:
    """Time variants in turns; the one named `cpu` is also pytest-benchmark's own measurement."""

    def run(variants: dict[str, Callable[[], object]], work: float | None = None) -> None:
        for function in variants.values():
            function()
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(ROUNDS):
            for name, function in variants.items():
                start = time.perf_counter()
                function()
                times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(values) for name, values in times.items()}
        for name, median in medians.items():
            record[f"{name}_ms"] = round(1e3 * median, 3)
            record[f"{name}_ratio"] = round(median / medians["cpu"], 2)
        if work is not None:
            record["gflops"] = round(work / medians["cpu"] / 1e9, 1)
        print(
            "", {name: value for name, value in record.items() if "_" in name or name == "gflops"}
        )
        benchmark.pedantic(variants["cpu"], rounds=3)

    return run
