"""The render, timed stage by stage."""

import resource
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.profiler import record_function

from ..errors import UserError
from ..files import write_atomically
from ..kernels import resolve
from ..model.generator import Generator, sample_latents
from ..model.rays import camera_rays
from ..model.renderer import STAGES, render, stage_clock
from .roofline import device_peaks, measured_peaks, stage_work

OP_OF_STAGE = {
    "manifolds": "ray_isosurface",
    "geometry": "film_siren",
    "masking": "semantic_composite",
    "appearance": "film_siren",
    "compositing": "semantic_composite",
}


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
def time_stages(
    generator: Generator,
    resolution: int,
    *,
    repeats: int,
    chunk_rays: int | None,
    seed: int = 0,
    trace: Path | None = None,
) -> dict[str, Any]:
    """Medians over `repeats` renders, as `profile --json` prints them.

    total_ms, peak_bytes, points, evaluated_points (hits that no ray missed), met_share (of the
    hits with iso-surfaces, those that no ray missed), flops, floor_ms, peaks and, of each stage,
    name, ms, share, flops, tflops_per_s, bytes, floor_ms, floor_share. Floors are None for a GPU
    whose data sheet is not at hand. Raises UserError if no ray meets a surface: a render of the
    background plane alone is not the one that is asked for.
    """
    device = generator.device
    random = torch.Generator().manual_seed(seed)
    z, appearance = (t.to(device) for t in sample_latents(generator.config, 1, generator=random))
    codes = generator.map(z, appearance)
    pose = torch.zeros(1, 2, device=device)
    rays = camera_rays(pose, resolution, generator.config.camera)
    evaluated = sum(int(generator.manifolds(part).valid.sum()) for part in rays.chunk(chunk_rays))
    del rays
    on_surfaces = resolution**2 * (generator.config.manifolds - 1)
    met = evaluated - resolution**2  # the plane is met by every ray
    if not met:
        raise UserError(
            f"no ray meets one of the {generator.config.manifolds - 1} iso-surfaces of these "
            "weights: a render of the background plane alone would be timed; give other weights "
            "with --checkpoint, or another --seed"
        )
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
    cpu = device.type == "cpu"
    peaks = measured_peaks() if cpu else device_peaks(torch.cuda.get_device_name(device))
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
        "met_share": met / on_surfaces,
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
    write_atomically(trace, lambda temporary: profiler.export_chrome_trace(str(temporary)))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_bytes(device: torch.device) -> int:
    """Most memory used: of the device on a GPU, of the whole process on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
