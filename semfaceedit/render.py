"""Render seeds from poses: `python -m semfaceedit.render`."""

from dataclasses import dataclass
from pathlib import Path

import torch

from . import checkpoint, config
from .cli import parse_seeds, progress, run_command, select_device, wrote
from .errors import UserError
from .kernels import use_backend
from .renderer import render
from .samples import picture_rows, save_png, seed_codes, tile


@dataclass(kw_only=True)
class Options:
    """Render faces of a checkpoint: image, semantic map and depth from several poses.

    Example: semfaceedit render --checkpoint RUN/generator-ema0.995.safetensors --seeds 0-3
    --yaws -0.4 0 0.4 --out faces
    """

    checkpoint: Path
    """Weights of a run (.safetensors)."""
    out: Path = Path("renders")
    """Folder for the pictures."""
    seeds: str = "0-3"
    """Which faces, as 0,4-7."""
    yaws: tuple[float, ...] = (-0.4, 0.0, 0.4)
    """Head turns in radians, positive turns the nose to the image's right."""
    pitches: tuple[float, ...] = (0.0,)
    """Head tilts in radians, positive lifts the nose."""
    resolution: int | None = None
    """Pixels along an edge (default: the checkpoint's)."""
    truncation: float = 1.0
    """Pull towards the mean face: 1 none, 0.7 for nicer pictures, 0 the mean face."""
    chunk_rays: int | None = 8192
    """Rays evaluated at a time; bounds memory, does not change the picture."""
    preset: str | None = None
    """Refuse a checkpoint of another preset."""
    device: str | None = None
    """cpu, cuda or cuda:N."""
    backend: str | None = None
    """reference, triton, cuda or cpu (default: the fastest that runs here)."""


@torch.no_grad()
def render_seeds(options: Options) -> None:
    seeds = parse_seeds(options.seeds)
    device = select_device(options.device)
    if options.resolution is not None and not 1 <= options.resolution <= 4096:
        raise UserError(f"--resolution {options.resolution}: use 1 to 4096")
    if options.preset is not None:
        config.preset(options.preset)
    generator, settings = checkpoint.load_generator(
        options.checkpoint, device=device, preset=options.preset
    )
    resolution = options.resolution or settings.model.resolution
    poses = torch.tensor([[yaw, pitch] for pitch in options.pitches for yaw in options.yaws])
    options.out.mkdir(parents=True, exist_ok=True)
    mean = generator.mean_codes() if options.truncation < 1 else None
    sheet: dict[str, list[torch.Tensor]] = {}
    with use_backend(options.backend):
        for seed in progress(seeds, total=len(seeds), title="rendering"):
            codes = seed_codes(generator, seed, truncation=options.truncation, mean=mean)
            for pose in poses:
                output = render(
                    generator,
                    codes,
                    pose[None].to(device),
                    resolution,
                    chunk_rays=options.chunk_rays,
                )
                for kind, picture in picture_rows(output).items():
                    sheet.setdefault(kind, []).append(picture[0])
    for kind, pictures in sheet.items():
        path = options.out / f"{kind}.png"
        save_png(path, tile(torch.stack(pictures), columns=len(poses)))
        wrote(path)


def main(argv: list[str] | None = None) -> int:
    return run_command(Options, render_seeds, argv, name="render")


if __name__ == "__main__":
    raise SystemExit(main())
