"""Weights of a run, ready to share: `python -m semfaceedit.export`."""

import json
import math
from dataclasses import dataclass
from pathlib import Path

import torch

from .cli import run_command, wrote
from .errors import UserError
from .model import checkpoint, config
from .model.discriminator import build_discriminators
from .model.generator import Generator, seed_codes
from .model.renderer import RenderOutput, render
from .options import make_folder
from .outputs import check_outputs
from .training.trainer import images_before

CHECK_SEEDS = range(8)
CHECK_POSE = (0.2, 0.1)  # yaw, pitch
HALF_PSNR = 50.0  # dB; below it the pictures of half-precision weights differ to the eye


@dataclass(kw_only=True)
class ExportOptions:
    """Write the averaged weights of a run, and its discriminators, as files to share.

    Example: semfaceedit export --run runs/00000-small-procedural --out weights/small.safetensors

    The discriminators are written beside the weights, as NAME-discriminators.safetensors;
    `train --init` starts from both.
    """

    run: Path
    """Run folder of `train`, finished or not; its newest state is exported."""
    out: Path
    """Weights file to write (.safetensors)."""
    ema_decay: float | None = None
    """Decay of the moving average to export (default: the run's first, which its samples show)."""
    half: bool = True
    """Write fp16, after a check that pictures stay the same; --no-half writes fp32."""
    discriminators: bool = True
    """Write the discriminators too, in fp16."""


def run(options: ExportOptions) -> None:
    if options.out.suffix != ".safetensors":
        raise UserError(f"--out {options.out}: weights are written as .safetensors")
    beside = checkpoint.discriminators_beside(options.out)
    check_outputs([options.out], [options.run], kind=checkpoint.FORMAT)
    if options.discriminators:
        check_outputs([beside], kind=checkpoint.DISCRIMINATORS_FORMAT)
    state = checkpoint.load_state(options.run, flag="--run")
    run = config.from_dict(json.loads(state["config"]))
    decay = options.ema_decay if options.ema_decay is not None else run.train.ema_decays[0]
    if decay not in run.train.ema_decays:
        kept = ", ".join(str(value) for value in run.train.ema_decays)
        raise UserError(f"--ema-decay {decay}: this run has averages of {kept}")
    generator = Generator(run.model).eval().requires_grad_(False)
    generator.load_state_dict(state["averages"][run.train.ema_decays.index(decay)])
    images = images_before(run.train, state["completed"])

    def write(path: Path) -> None:
        checkpoint.save_generator(
            path, generator, run, images=images, ema_decay=decay, half=options.half
        )
        if options.half:
            _check_half(generator, path)

    make_folder(options.out.parent)
    checkpoint.write_atomically(options.out, write)
    wrote(options.out)
    if options.discriminators:
        networks = build_discriminators(run)
        for network, name in zip(networks, ("d_image", "d_semantic"), strict=True):
            network.load_state_dict(state[name])
        checkpoint.save_discriminators(beside, networks, run, images=images)
        wrote(beside)


def _check_half(generator: Generator, path: Path) -> None:
    """Compare with the fp16 weights at `path`; UserError where the pictures differ."""
    psnr, flips = compare(generator, checkpoint.load_generator(path)[0])
    print(f"fp16 against fp32: {psnr:.1f} dB, {100 * flips:.3f} % of labels differ")
    if psnr < HALF_PSNR:
        raise UserError(
            f"fp16 changes the pictures ({psnr:.1f} dB, at least {HALF_PSNR:.0f} required): use "
            "--no-half"
        )


@torch.no_grad()
def compare(one: Generator, other: Generator) -> tuple[float, float]:
    """PSNR in dB (range 2) and share of differing labels between two generators' faces."""
    errors, flips = [], []
    for seed in CHECK_SEEDS:
        first, second = (_face(generator, seed) for generator in (one, other))
        errors.append(float((first.image - second.image).square().mean()))
        flips.append(float((first.labels != second.labels).float().mean()))
    error = sum(errors) / len(errors)
    return (10 * math.log10(4 / error) if error else math.inf), sum(flips) / len(flips)


def _face(generator: Generator, seed: int) -> RenderOutput:
    codes = seed_codes(generator, seed)
    return render(generator, codes, torch.tensor([CHECK_POSE]), generator.config.resolution)


def main(argv: list[str] | None = None) -> int:
    return run_command(ExportOptions, run, argv, name="export")


if __name__ == "__main__":
    raise SystemExit(main())
