"""Time the render stage by stage: `python -m semfaceedit.profile`."""

import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import record_function

from .cli import print_json, run_command, select_device, wrote
from .errors import UserError
from .evaluation.roofline import device_peaks, measured_peaks, stage_work
from .info import machine
from .kernels import resolve, use_backend
from .model import checkpoint, config
from .model.checkpoint import write_atomically
from .model.generator import Generator, sample_latents
from .model.rays import camera_rays
from .model.renderer import STAGES, render, stage_clock

OP_OF_STAGE = {
    "manifolds": "ray_isosurface",
    "geometry": "film_siren",
    "masking": "semantic_composite",
    "appearance": "film_siren",
    "compositing": "semantic_composite",
}


@dataclass(kw_only=True)
class Options:
    """Render one face and show how long each stage takes, and how long it must take.

    Example: semfaceedit profile --preset small --resolution 64 --json
    """

    preset: str = "paper"
    """Which model, with random weights; paper at 256 is the 3.14M-sample render."""
    checkpoint: Path | None = None
    """Profile these weights instead of random ones."""
    resolution: int | None = None
    """Pixels along an edge (default: 256 on a GPU, 64 on a CPU)."""
    repeats: int = 5
    """Timed renders after one that warms up; medians are shown."""
    chunk_rays: int | None = 8192
    """Rays evaluated at a time."""
    seed: int = 0
    """Seed of weights and latents."""
    device: str | None = None
    """cpu, cuda or cuda:N."""
    backend: str | None = None
    """reference, triton, cuda or cpu (default: the fastest that runs here)."""
    precision: str | None = None
    """fp32, tf32, fp16, accurate or fast (default: what the backend chooses)."""
    trace: Path | None = None
    """Also write a Chrome trace of one more render (chrome://tracing, perfetto)."""
    json: bool = False
    """Print one JSON object on standard output."""


class StageTimes:
    """Marks where each stage of the renderer begins and ends: device events, or the CPU's clock."""

    def __init__(self, device: torch.device):
        self.device = device
        self.marks: list[tuple[str, Any, Any]] = []

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = self._mark()
        with record_function(stage):
            yield
        self.marks.append((stage, start, self._mark()))

    def _mark(self) -> Any:
        if self.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(torch.cuda.current_stream(self.device))
        return event

    def ms(self) -> dict[str, float]:
        """Milliseconds of each stage, added up over chunks; waits for the device."""
        _synchronize(self.device)
        total = dict.fromkeys(STAGES, 0.0)
        for stage, start, stop in self.marks:
            cuda = self.device.type == "cuda"
            total[stage] += start.elapsed_time(stop) if cuda else 1e3 * (stop - start)
        return total


@torch.no_grad()
def measure(
    generator: Generator,
    resolution: int,
    *,
    repeats: int,
    chunk_rays: int | None,
    seed: int = 0,
    trace: Path | None = None,
) -> dict[str, Any]:
    """Medians over `repeats` renders, as `profile --json` prints them.

    total_ms, peak_bytes, points, evaluated_points (hits that no ray missed), flops, floor_ms, peaks
    and, of each stage, name, ms, share, flops, tflops_per_s, bytes, floor_ms, floor_share. Floors
    are None for a GPU whose data sheet is not at hand.
    """
    device = next(generator.parameters()).device
    random = torch.Generator().manual_seed(seed)
    z, appearance = (t.to(device) for t in sample_latents(generator.config, 1, generator=random))
    codes = generator.map(z, appearance)
    pose = torch.zeros(1, 2, device=device)
    rays = camera_rays(pose, resolution, generator.config.camera)
    evaluated = sum(int(generator.manifolds(part).valid.sum()) for part in rays.chunk(chunk_rays))
    del rays
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)

    def run(*, profiled: bool = False) -> tuple[dict[str, float], float]:
        _synchronize(device)
        times = StageTimes(device)
        start = time.perf_counter()
        with stage_clock(times), _profiler(device, trace if profiled else None):
            render(generator, codes, pose, resolution, chunk_rays=chunk_rays)
            stages = times.ms()
        return stages, (time.perf_counter() - start) * 1000

    run()
    runs, totals = zip(*(run() for _ in range(repeats)), strict=True)
    peak = _peak_bytes(device)
    if trace is not None:
        run(profiled=True)
    peaks = measured_peaks() if device.type == "cpu" else device_peaks(_device_name(device))
    total = statistics.median(totals)
    medians = {stage: statistics.median(run[stage] for run in runs) for stage in STAGES}
    choices = {op: resolve(op, None, None, pose) for op in dict.fromkeys(OP_OF_STAGE.values())}
    work = stage_work(generator.config, resolution**2, evaluated)
    stages = []
    for stage, ms in medians.items():
        precision = choices[OP_OF_STAGE[stage]].precision if stage in OP_OF_STAGE else "fp32"
        floor = None if peaks is None else peaks.floor_ms(stage, work[stage], precision)
        stages.append(
            {
                "name": stage,
                "ms": ms,
                "share": ms / total,
                "flops": work[stage].flops,
                "tflops_per_s": work[stage].flops / ms / 1e9,
                "bytes": work[stage].bytes,
                "floor_ms": floor,
                "floor_share": None if floor is None else floor / ms,
            }
        )
    return {
        "total_ms": total,
        "peak_bytes": peak,
        "points": resolution**2 * generator.config.manifolds,
        "evaluated_points": evaluated,
        "flops": sum(w.flops for w in work.values()),
        "floor_ms": None if peaks is None else sum(stage["floor_ms"] for stage in stages),
        "peaks": None if peaks is None else vars(peaks),
        "choices": {op: f"{c.backend}, {c.precision}" for op, c in choices.items()},
        "stages": stages,
    }


@contextmanager
def _profiler(device: torch.device, trace: Path | None) -> Iterator[None]:
    """Write a Chrome trace of the block; nothing where no file is wanted."""
    if trace is None:
        yield
        return
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds, record_shapes=True) as profiler:
        yield
    trace.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(trace, lambda temporary: profiler.export_chrome_trace(str(temporary)))


def profile(options: Options) -> None:
    device = select_device(options.device)
    resolution = options.resolution
    if resolution is None:
        resolution = 256 if device.type == "cuda" else 64
    if not 4 <= resolution <= 4096:
        raise UserError(f"--resolution {resolution}: use 4 to 4096")
    for flag, value in (("repeats", options.repeats), ("chunk-rays", options.chunk_rays)):
        if value is not None and value < 1:
            raise UserError(f"--{flag} {value}: must be at least 1")
    if options.checkpoint is not None:
        generator, settings = checkpoint.load_generator(options.checkpoint, device=device)
        name = settings.preset
    else:
        torch.manual_seed(options.seed)
        name = options.preset
        generator = Generator(config.preset(name).model).to(device).eval()
    with use_backend(options.backend, options.precision):
        facts = measure(
            generator,
            resolution,
            repeats=options.repeats,
            chunk_rays=options.chunk_rays,
            seed=options.seed,
            trace=options.trace,
        )
    facts = {"preset": name, "resolution": resolution, "device": str(device), **facts,
             "machine": machine()}  # fmt: skip
    if options.trace is not None:
        wrote(options.trace)
    if options.json:
        print_json(facts)
    else:
        show(facts, options.repeats)


def show(facts: dict[str, Any], repeats: int) -> None:
    size = facts["resolution"]
    print(f"{facts['preset']} at {size}x{size} on {facts['device']}: {facts['points']:,} points "
          f"({facts['evaluated_points']:,} evaluated), medians of {repeats}")  # fmt: skip
    print("; ".join(f"{op}: {choice}" for op, choice in facts["choices"].items()))
    print(f"  {'stage':<12}{'ms':>10} {'share':>7}{'GFLOP':>10}{'TFLOP/s':>9}{'MB':>9}"
          f"{'floor ms':>10}{'of it':>8}")  # fmt: skip
    for stage in facts["stages"]:
        print(f"  {stage['name']:<12}{stage['ms']:>10.2f} {stage['share']:>7.1%}"
              f"{stage['flops'] / 1e9:>10.2f}{stage['tflops_per_s']:>9.3f}"
              f"{stage['bytes'] / 1e6:>9.2f}{_number(stage['floor_ms'], 10, '.2f')}"
              f"{_number(stage['floor_share'], 8, '.0%')}")  # fmt: skip
    total, floor = facts["total_ms"], facts["floor_ms"]
    print(f"  {'total':<12}{total:>10.2f} {'':>7}{facts['flops'] / 1e9:>10.2f}"
          f"{facts['flops'] / total / 1e9:>9.3f}{'':>9}{_number(floor, 10, '.2f')}"
          f"{_number(None if floor is None else floor / total, 8, '.0%')}")  # fmt: skip
    where = "device" if facts["device"].startswith("cuda") else "whole process"
    print(f"  peak memory {facts['peak_bytes'] / 2**20:,.0f} MiB ({where})")
    peaks = facts["peaks"]
    if peaks is None:
        print("  no floor: the peak rates of this device are not in evaluation/roofline.py")
        return
    rates = ", ".join(f"{name} {rate / 1e12:.3g}" for name, rate in peaks["rates"].items())
    print(f"  floor: products at {rates} TFLOP/s, memory at {peaks['bandwidth'] / 1e9:,.0f} GB/s "
          f"({peaks['source']})")  # fmt: skip


def _number(value: float | None, width: int, style: str) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:>{width}{style}}"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(device: torch.device) -> int:
    """Most memory used: of the device on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def main(argv: list[str] | None = None) -> int:
    return run_command(Options, profile, argv, name="profile")


if __name__ == "__main__":
    raise SystemExit(main())
