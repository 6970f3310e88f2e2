"""Records of measurements on any device: times, peak memory, errors, and where they were taken."""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from semfaceedit.floors import Peaks
from semfaceedit.info import cpu_name

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SLOW_MS = 2000  # a call that takes longer is timed once

Record = dict[str, Any]


def machine(device: torch.device) -> Record:
    """The device, versions and commit that figures belong to."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        commit = ""
    cuda = device.type == "cuda"
    versions = {}
    for package in ("torch", "triton"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "device": torch.cuda.get_device_name(device) if cuda else cpu_name(),
        "capability": list(torch.cuda.get_device_capability(device)) if cuda else None,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "commit": commit,
        **versions,
    }


class Suite:
    """The records of one run, on disk after every one of them."""

    def __init__(self, path: Path, device: torch.device, **about: Any):
        self.path, self.device = path, device
        self.machine = {**machine(device), **about}
        self.records: list[Record] = []
        self.failures = 0
        self.started = time.monotonic()

    def add(self, **record: Any) -> Record:
        record["at_s"] = round(time.monotonic() - self.started, 1)
        print(json.dumps(record), flush=True)
        self.records.append(record)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": self.machine, "records": self.records}
        temporary = self.path.with_suffix(".new")
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        temporary.replace(self.path)
        return record

    def require(self, passed: bool, **record: Any) -> None:
        """A check; one that fails counts, and the suite goes on to the others."""
        self.failures += not passed
        self.add(kind="check", **record, passed=bool(passed))

    def time(
        self,
        what: str,
        variant: str,
        function: Callable[[], object],
        *,
        repeats: int,
        flops: int | None = None,
        floor_ms: float | None = None,
        **about: Any,
    ) -> Record:
        """Median time and peak memory beyond what was held before; `flops` are those of a call."""
        record: Record = {"kind": "time", "what": what, "variant": variant, **about}
        try:
            times, peak = timed(function, self.device, repeats)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return self.add(**record, out_of_memory=True)
        ms = statistics.median(times)
        record |= {"ms": ms, "repeats": len(times), "peak_bytes": peak}
        if len(times) > 1:
            quantiles = statistics.quantiles(times, n=5, method="inclusive")
            record |= {"ms_p20": quantiles[0], "ms_p80": quantiles[-1]}
        if flops is not None:
            record |= {"flops": flops, "tflops_per_s": flops / ms / 1e9}
        if floor_ms is not None:
            record |= {"floor_ms": floor_ms, "floor_share": floor_ms / ms}
        return self.add(**record)


def timed(
    function: Callable[[], object], device: torch.device, repeats: int
) -> tuple[list[float], int | None]:
    """Milliseconds of each call after warming up (device events on a GPU), and peak bytes there.

    One call of more than SLOW_MS is all that is timed.
    """
    cuda = device.type == "cuda"
    if not cuda:
        times = [_call_ms(function) for _ in range(2)]
        while len(times) <= repeats and times[-1] < SLOW_MS:
            times.append(_call_ms(function))
        return times[1:], None
    torch.cuda.synchronize(device)
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):
        start = time.perf_counter()
        function()
        torch.cuda.synchronize(device)
        if 1e3 * (time.perf_counter() - start) > SLOW_MS:
            repeats = 1
            break
    times = []
    for _ in range(repeats):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        function()
        end.record()
        torch.cuda.synchronize(device)
        times.append(begin.elapsed_time(end))
    return times, torch.cuda.max_memory_allocated(device) - held


def _call_ms(function: Callable[[], object]) -> float:
    start = time.perf_counter()
    function()
    return 1e3 * (time.perf_counter() - start)


def floor_ms(peaks: Peaks | None, stages: dict[str, Any], precision: str) -> float | None:
    """The floor of several stages after each other; None where the device's peaks are not known."""
    if peaks is None:
        return None
    return sum(peaks.floor_ms(stage, work, precision) for stage, work in stages.items())


def stamped(prefix: str, out: Path = RESULTS) -> Path:
    return out / f"{prefix}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}.json"


def fail(message: str) -> int:
    print(message, file=sys.stderr)
    return 2
