"""Time the render stage by stage: `python -m semfaceedit.profile`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch

from .cli import print_json, run_command, select_device, wrote
from .errors import UserError
from .evaluation.stage_times import time_stages
from .kernels import use_backend
from .machine import machine
from .model import checkpoint, config
from .model.generator import Generator
from .usage import Within, Without


@dataclass(kw_only=True)
class ProfileOptions:
    """Render one face, and show the time of each stage and the least time the device allows.

    Example: semfaceedit profile --preset small --resolution 64 --json
    """

    preset: Annotated[str, Without("checkpoint")] = "paper"
    """Model with random weights and round manifolds; paper at 256 renders 3.14 million samples, of
    which 88 % are met."""
    checkpoint: Path | None = None
    """Weights to profile instead of random ones."""
    resolution: Annotated[int | None, Within(4, 4096)] = None
    """Width and height in pixels (default: 256 on a GPU, 64 on a CPU)."""
    repeats: Annotated[int, Within(1)] = 5
    """Timed renders, after one to warm up; medians are shown."""
    chunk_rays: Annotated[int | None, Within(1)] = 8192
    """Rays evaluated at a time."""
    seed: int = 0
    """Random seed of weights and latents."""
    device: str | None = None
    """cpu, cuda or cuda:N (default: CUDA if available)."""
    backend: str | None = None
    """reference, triton, cuda or cpu (default: the fastest available)."""
    precision: str | None = None
    """fp32, tf32, fp16, accurate or fast (default: the backend's choice)."""
    trace: Path | None = None
    """Also write a Chrome trace of one more render (for chrome://tracing or Perfetto)."""
    json: bool = False
    """Print one JSON object."""


def run(options: ProfileOptions) -> None:
    device = select_device(options.device)
    resolution = options.resolution
    if resolution is None:
        resolution = 256 if device.type == "cuda" else 64
    if options.trace is not None and options.trace.exists():
        raise UserError(f"--trace {options.trace} exists: name another file")
    if options.checkpoint is not None:
        generator, settings = checkpoint.load_generator(options.checkpoint, device=device)
        name = settings.preset
    else:
        torch.manual_seed(options.seed)
        name = options.preset
        generator = Generator(config.preset(name).model).to(device).eval()
    with use_backend(options.backend, options.precision):
        facts = time_stages(
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
    print(f"{facts['preset']} at {size}x{size} on {facts['device']}: {facts['points']:,} points, "
          f"of which {facts['evaluated_points']:,} are met and evaluated "
          f"({facts['met_share']:.0%} of those on iso-surfaces), medians of {repeats}")  # fmt: skip
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


def main(argv: list[str] | None = None) -> int:
    return run_command(ProfileOptions, run, argv, name="profile")


if __name__ == "__main__":
    raise SystemExit(main())
