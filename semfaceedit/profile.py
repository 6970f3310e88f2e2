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

from . import checkpoint, config
from .cli import print_json, run_command, select_device
from .errors import UserError
from .generator import Generator, sample_latents
from .info import machine
from .kernels import use_backend
from .renderer import STAGES, render, stage_clock


@dataclass(kw_only=True)
class Options:
    """Render one face and show how long each stage takes.

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
    json: bool = False
    """Print one JSON object on standard output."""


class StageTimes:
    """Adds up the milliseconds of each stage of the renderer."""

    def __init__(self, device: torch.device):
        self.device = device
        self.ms = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        self._synchronize()
        start = time.perf_counter()
        yield
        self._synchronize()
        self.ms[stage] += (time.perf_counter() - start) * 1000

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@torch.no_grad()
def measure(
    generator: Generator,
    resolution: int,
    *,
    repeats: int,
    chunk_rays: int | None,
    seed: int = 0,
) -> dict[str, Any]:
    """Medians over `repeats` renders: total_ms, stages [{name, ms}], peak_bytes, points."""
    device = next(generator.parameters()).device
    random = torch.Generator().manual_seed(seed)
    z, appearance = (t.to(device) for t in sample_latents(generator.config, 1, generator=random))
    codes = generator.map(z, appearance)
    pose = torch.zeros(1, 2, device=device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    runs, totals = [], []
    for repeat in range(repeats + 1):
        times = StageTimes(device)
        start = time.perf_counter()
        with stage_clock(times):
            render(generator, codes, pose, resolution, chunk_rays=chunk_rays)
        if repeat:
            runs.append(times.ms)
            totals.append((time.perf_counter() - start) * 1000)
    return {
        "total_ms": statistics.median(totals),
        "peak_bytes": _peak_bytes(device),
        "points": resolution**2 * generator.config.manifolds,
        "stages": [
            {"name": stage, "ms": statistics.median(run[stage] for run in runs)} for stage in STAGES
        ],
    }


def profile(options: Options) -> None:
    device = select_device(options.device)
    if options.repeats < 1:
        raise UserError(f"--repeats {options.repeats}: use at least 1")
    if options.checkpoint is not None:
        generator, settings = checkpoint.load_generator(options.checkpoint, device=device)
        name = settings.preset
    else:
        torch.manual_seed(options.seed)
        name = options.preset
        generator = Generator(config.preset(name).model).to(device).eval()
    resolution = options.resolution or (256 if device.type == "cuda" else 64)
    with use_backend(options.backend):
        facts = measure(
            generator,
            resolution,
            repeats=options.repeats,
            chunk_rays=options.chunk_rays,
            seed=options.seed,
        )
    facts = {"preset": name, "resolution": resolution, "device": str(device), **facts,
             "machine": machine()}  # fmt: skip
    if options.json:
        print_json(facts)
        return
    print(f"{name} at {resolution}x{resolution} on {device}: {facts['points']:,} points, "
          f"medians of {options.repeats}")  # fmt: skip
    for stage in facts["stages"]:
        share = stage["ms"] / facts["total_ms"]
        print(f"  {stage['name']:<14}{stage['ms']:>10.1f} ms {share:>6.1%}")
    print(f"  {'total':<14}{facts['total_ms']:>10.1f} ms")
    print(f"  peak memory {facts['peak_bytes'] / 2**20:,.0f} MiB "
          f"({'device' if device.type == 'cuda' else 'whole process'})")  # fmt: skip


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
