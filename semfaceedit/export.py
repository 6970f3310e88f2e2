"""Weights of a run to share, or a face for other programs: `python -m semfaceedit.export`."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch

from .baking.bake import LOOK_SEEDS, LOOKS, TEXELS, bake, looks_of
from .baking.container import ImageFormat
from .baking.writing import KINDS, check_bake, kinds_here, write_bake
from .cli import progress, remark, run_command, wrote
from .editing.project import FaceProject
from .errors import UserError, meant
from .kernels import use_backend
from .model import checkpoint, config_values
from .model.discriminator import build_discriminators
from .model.generator import Generator, seed_codes
from .model.renderer import RenderOutput, render
from .options import CheckpointOptions, open_checkpoint
from .outputs import FOLDER, check_outputs
from .training.trainer import images_before
from .usage import With, Within, refuse_given

CHECK_SEEDS = range(8)
CHECK_POSE = (0.2, 0.1)  # yaw, pitch
USED_BY = {  # options of a baked face, of some of its files alone
    ("texture_format", "looks"): {"page"},
    ("mesh_size",): {"gltf", "surface"},
}
HALF_PSNR = 50.0  # dB; below it the pictures of half-precision weights differ to the eye


@dataclass(kw_only=True)
class ExportOptions(CheckpointOptions):
    """Write the weights of a run as files to share, or a face for browsers and 3-D programs.

    Example: semfaceedit export --run runs/00000-small-procedural --out weights/small.safetensors

    Writes the averaged weights of the run and, beside them, its discriminators as
    NAME-discriminators.safetensors; `train --init` starts from both.

    Example: semfaceedit export --project face.safetensors --bake face

    Bakes a face, of a project or of a seed, onto the surfaces of its checkpoint and writes a page
    that shows it without a server.
    """

    run: Path | None = None
    """Run folder of `train`, finished or not; its newest state is exported."""
    out: Path | None = None
    """With --run: weights file to write (.safetensors)."""
    ema_decay: Annotated[float | None, Within(0, 1), With("run")] = None
    """With --run: decay of the moving average to export (default: the run's first, which its
    samples show)."""
    half: Annotated[bool, With("run")] = True
    """With --run: write fp16, after a check that pictures stay the same; --no-half writes fp32."""
    discriminators: Annotated[bool, With("run")] = True
    """With --run: write the discriminators too, in fp16."""
    project: Path | None = None
    """Face project to bake."""
    seed: int | None = None
    """Generated face to bake instead."""
    bake: Annotated[Path | None, FOLDER] = None
    """Folder for the baked face."""
    texture_size: Annotated[int, Within(16, 2048), With("bake")] = TEXELS
    """Texels along each edge of a layer; 256 suits pictures of 256 x 256 pixels."""
    texture_format: Annotated[ImageFormat, With("bake")] = "webp"
    """Of the colours: png keeps them exactly, webp and jpeg are smaller."""
    files: Annotated[tuple[str, ...], With("bake")] = ()
    """What to write: page (face.html), gltf (face.glb), surface (surface.ply, and surface.obj with
    its texture), depth (depth.png, 16 bits) (default: all of them)."""
    mesh_size: Annotated[int, Within(2, 512), With("bake")] = 96
    """Vertices along each edge of a layer's mesh in face.glb."""
    looks: Annotated[int, Within(0, len(LOOK_SEEDS)), With("bake")] = LOOKS
    """Other colours for each region, of other seeds, among which the page lets one choose."""


def run(options: ExportOptions) -> None:
    baked = (options.project, options.seed, options.bake)
    if options.run is not None and any(value is not None for value in baked):
        raise UserError("--run exports weights, --bake a face: give one of them")
    if options.run is not None:
        refuse_given(options, ("checkpoint", "device", "backend"), "is for --bake, not --run:")
        _export_weights(options, options.run, options.out)
    elif options.bake is not None:
        _bake(options, options.bake)
    elif options.project is not None or options.seed is not None:
        raise UserError("--bake is missing: name the folder for the baked face")
    else:
        raise UserError("give --run and --out for weights, or --project and --bake for a face")


def _bake(options: ExportOptions, folder: Path) -> None:
    """Bake the face of the options and write it."""
    if (options.project is None) == (options.seed is None):
        raise UserError("give the face to bake with either --project or --seed")
    if options.out is not None:
        raise UserError(f"--out {options.out} is for weights: --bake names the folder of a face")
    for kind in options.files:
        if kind not in KINDS:
            raise UserError(f"--files {kind}{meant(kind, KINDS)}: use {', '.join(KINDS)}")
    kinds = options.files or kinds_here()
    for names, needs in USED_BY.items():
        if not needs & set(kinds):
            refuse_given(options, names, f"is for {' and '.join(sorted(needs))} of --files:")
    if options.files == () and "gltf" not in kinds:
        remark("face.glb is left out: pip install 'semfaceedit[gltf]' to write it")
    check_bake(folder, kinds)
    base, _ = open_checkpoint(options)
    generator, title = base, f"Face {options.seed}"
    if options.project is not None:
        project = FaceProject.load(options.project, base)
        generator, codes, title = project.generator(base), project.codes(base), options.project.stem
    else:
        codes = seed_codes(base, options.seed or 0)
    looks = looks_of(generator, options.looks)
    with use_backend(options.backend):
        face = bake(
            generator, codes, size=options.texture_size, looks=looks, shared=base,
            watch=lambda chunks: progress(chunks, total=len(chunks), title="baking"),
        )  # fmt: skip
    for path, size in write_bake(
        face, folder, kinds=kinds, title=title, image_format=options.texture_format,
        mesh_size=options.mesh_size,
    ):  # fmt: skip
        wrote(path, f"{size / 1e6:.1f} MB" if size > 1e5 else f"{size / 1e3:.0f} kB")


def _export_weights(options: ExportOptions, run_folder: Path, out: Path | None) -> None:
    if out is None:
        raise UserError("--out is missing: name the weights file to write (.safetensors)")
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: weights are written as .safetensors")
    beside = checkpoint.discriminators_beside(out)
    check_outputs([out], [run_folder], kind=checkpoint.FORMAT)
    if options.discriminators:
        check_outputs([beside], kind=checkpoint.DISCRIMINATORS_FORMAT)
    state = checkpoint.load_state(run_folder, flag="--run")
    run = config_values.from_dict(json.loads(state["config"]))
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

    checkpoint.write_atomically(out, write)
    wrote(out)
    if options.discriminators:
        networks = build_discriminators(run)
        for network, name in zip(networks, ("d_image", "d_semantic"), strict=True):
            network.load_state_dict(state[name])
        checkpoint.save_discriminators(beside, networks, run, images=images)
        wrote(beside)


def _check_half(generator: Generator, path: Path) -> None:
    """Compare with the fp16 weights at `path`; UserError where the pictures differ."""
    psnr, flips = compare_weights(generator, checkpoint.load_generator(path)[0])
    print(f"fp16 against fp32: {psnr:.1f} dB, {100 * flips:.3f} % of labels differ")
    if psnr < HALF_PSNR:
        raise UserError(
            f"fp16 changes the pictures ({psnr:.1f} dB, at least {HALF_PSNR:.0f} required): use "
            "--no-half"
        )


@torch.no_grad()
def compare_weights(one: Generator, other: Generator) -> tuple[float, float]:
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
