"""Records of measurements on any device: times, peak memory, errors, and where they were taken."""

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from semfaceedit.evaluation.roofline import Peaks
from semfaceedit.machine import cpu_name

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SLOW_MS = 2000  # a call that takes longer is timed once

Record = dict[str, Any]


def commit() -> str:
    """The commit of the checkout; empty without git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def machine(device: torch.device) -> Record:
    """The device, versions and commit that figures belong to."""
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
        "commit": commit(),
        **versions,
    }


@dataclass(frozen=True)
class Case:
    """What is timed: one variant of one thing, and what is known of it beforehand."""

    what: str
    variant: str
    run: Callable[[], object]
    flops: int | None = None  # of a call
    about: Record = field(default_factory=dict)  # for the record; `floor_ms` is the least time


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

    def resume(self) -> None:
        """Go on with the records of the file, which must be of this machine and commit."""
        content = json.loads(self.path.read_text())
        for key in ("device", "commit", "torch"):
            if content["machine"][key] != self.machine[key]:
                raise ValueError(f"{self.path}: {key} was {content['machine'][key]}")
        self.machine, self.records = content["machine"], content["records"]

    def has(self, **facts: Any) -> bool:
        """Whether there is a record with these facts."""
        return any(facts.items() <= record.items() for record in self.records)

    def require(self, passed: bool, **record: Any) -> None:
        """A check; one that fails counts, and the suite goes on to the others."""
        self.failures += not passed
        self.add(kind="check", **record, passed=bool(passed))

    def time(self, cases: Sequence[Case], repeats: int) -> None:
        """A record for each case: median of calls in turns, and peak memory of one.

        Cases that have a record already are left out.
        """
        cases = [case for case in cases if not self.has(**_case_facts(case))]
        timings = interleaved([case.run for case in cases], self.device, repeats)
        for case, timing in zip(cases, timings, strict=True):
            record = _case_facts(case)
            if timing is None:
                self.add(**record, out_of_memory=True)
                continue
            ms = statistics.median(timing.ms)
            record |= {"ms": ms, "repeats": len(timing.ms), "peak_bytes": timing.peak_bytes}
            if len(timing.ms) > 1:
                quantiles = statistics.quantiles(timing.ms, n=5, method="inclusive")
                record |= {"ms_p20": quantiles[0], "ms_p80": quantiles[-1]}
            if case.flops is not None:
                record |= {"flops": case.flops, "tflops_per_s": case.flops / ms / 1e9}
            if "floor_ms" in record:
                record["floor_share"] = record["floor_ms"] / ms
            self.add(**record)


def _case_facts(case: Case) -> Record:
    about = {key: value for key, value in case.about.items() if value is not None}
    return {"kind": "time", "what": case.what, "variant": case.variant, **about}


@dataclass
class Timing:
    """Milliseconds of each call (device events on a GPU), and the peak bytes of one there, beyond
    what was held before."""

    ms: list[float]
    peak_bytes: int | None


def interleaved(
    functions: Sequence[Callable[[], object]], device: torch.device, repeats: int
) -> list[Timing | None]:
    """Call the functions in turns, `repeats` rounds, so that clocks and heat change for all alike.

    Each is called twice before, since the first call may compile; one whose second call takes more
    than SLOW_MS is timed in the first round only. None: out of memory.
    """
    timings: list[Timing | None] = [Timing([], None) for _ in functions]
    rounds = [repeats] * len(functions)

    def call(index: int) -> tuple[float, int | None]:
        try:
            return _call(functions[index], device)
        except torch.OutOfMemoryError:
            timings[index], rounds[index] = None, 0
        torch.cuda.empty_cache()  # out here, where the error holds no tensors any more
        return 0.0, None

    for index in range(len(functions)):
        call(index)
        if rounds[index] and call(index)[0] > SLOW_MS:
            rounds[index] = 1
    for turn in range(repeats):
        for index in range(len(functions)):
            if turn < rounds[index]:
                ms, peak = call(index)
                timing = timings[index]
                if timing is not None:
                    timing.ms.append(ms)
                    timing.peak_bytes = peak if peak is None else max(peak, timing.peak_bytes or 0)
    return timings


def _call(function: Callable[[], object], device: torch.device) -> tuple[float, int | None]:
    if device.type != "cuda":
        start = time.perf_counter()
        function()
        return 1e3 * (time.perf_counter() - start), None
    torch.cuda.synchronize(device)
    held = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    function()
    end.record()
    torch.cuda.synchronize(device)
    return begin.elapsed_time(end), torch.cuda.max_memory_allocated(device) - held


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
