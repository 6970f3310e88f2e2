"""Photograph and label map -> face project (Eq. 9): `python -m semfaceedit.invert`."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .camera import sample_poses
from .checkpoint import load_generator
from .cli import run_command, select_device, wrote
from .errors import UserError
from .fit_display import LiveFit
from .fitting import Fit, FitSettings, Goal, Stage, Step, Watch, zero_offsets
from .generator import Generator
from .kernels import use_backend
from .perceptual import PerceptualFeatures, load_perceptual
from .project import FaceProject
from .renderer import RenderOutput, render
from .samples import picture_rows, seed_codes
from .target import (
    OVERSAMPLING,
    SourceCrop,
    Target,
    check_image,
    check_labels,
    pictures,
    pose_from_labels,
    read_target,
    save_label_map,
)


@dataclass(frozen=True, kw_only=True)
class InvertSettings(FitSettings):
    """Inversion (Eq. 9): first the geometry offsets under the semantic term, then all offsets.

    Example: InvertSettings(geometry_iterations=100, perceptual_weight=0)
    """

    geometry_iterations: int = 200
    appearance_iterations: int = 300
    joint: bool = True  # the second stage goes on moving the geometry offsets
    resolution: int | None = None  # pixels along an edge (default: the checkpoint's)


@dataclass(frozen=True)
class InversionResult:
    """A fitted face, the evaluations on the way, and its last rendering."""

    project: FaceProject
    history: list[Step]  # [0] is the mean face
    output: RenderOutput
    interrupted: bool


def invert(
    generator: Generator,
    image: np.ndarray,  # (R, R, 3) uint8, aligned
    labels: np.ndarray,  # (R, R) class ids
    *,
    pose: tuple[float, float] | None = None,
    settings: InvertSettings | None = None,
    perceptual: PerceptualFeatures | None = None,
    crop: SourceCrop | None = None,
    watch: Watch | None = None,
) -> InversionResult:
    """Find the offsets and the pose whose rendering is this face.

    The pair is aligned as training data are (`target.read_target`); R is a multiple of the
    rendered resolution. pose: where to start; by default estimated from the label map. watch: is
    called at every evaluation. Ctrl-C ends the search with the best face so far.
    """
    settings = settings or InvertSettings()
    labels = check_labels(labels)
    image = check_image(image, labels)
    if pose is None:
        yaw, pitch = pose_from_labels(labels, generator.config.camera)
        pose = float(yaw), float(pitch)
    device = next(generator.parameters()).device
    resolution = settings.resolution or generator.config.resolution
    wanted, shares = pictures(Target(image, labels, None), resolution)
    fit = Fit(
        generator,
        Goal(shares.to(device), wanted.to(device)),
        zero_offsets(generator),
        torch.tensor([pose], device=device),
        settings,
        perceptual=perceptual,
        watch=watch,
    )
    fit.run(*_stages(settings))
    return InversionResult(
        fit.project(labels, image, crop), fit.history, fit.render(), fit.interrupted
    )


def _stages(settings: InvertSettings) -> tuple[Stage, Stage]:
    return (
        Stage(name="geometry", iterations=settings.geometry_iterations, pose=True),
        Stage(
            name="appearance",
            iterations=settings.appearance_iterations,
            geometry=settings.joint,
            appearance=True,
            image=True,
            pose=True,
        ),
    )


@torch.no_grad()
def seed_target(generator: Generator, seed: int, resolution: int) -> Target:
    """The generated face of a seed as a target, at a pose drawn from the prior.

    The target has twice `resolution`, as photographs have.
    """
    parameter = next(generator.parameters())
    random = torch.Generator().manual_seed(seed)
    pose = sample_poses(1, generator.config.camera, generator=random).to(parameter)
    output = render(generator, seed_codes(generator, seed), pose, OVERSAMPLING * resolution)
    return Target(
        picture_rows(output)["image"][0].numpy(),
        output.labels[0].to(torch.uint8).cpu().numpy(),
        pose[0].cpu().numpy(),
    )


@dataclass(kw_only=True)
class Options:
    """Invert a photograph with its label map, or a generated face, into a face project.

    Example: semfaceedit invert --checkpoint RUN/generator-ema0.998.safetensors --image photo.jpg
    --labels mask.png --vgg-weights vgg16-397923af.pth --out face.safetensors
    """

    checkpoint: Path
    """Weights of a run (.safetensors)."""
    image: Path | None = None
    """The photograph."""
    labels: Path | None = None
    """Its label map in CelebAMask-HQ ids or colours, showing the same area."""
    seed: int | None = None
    """Invert the generated face of this seed instead: a check of checkpoint and settings."""
    out: Path = Path("face.safetensors")
    """The face project to write; a preview and its label map are kept beside it."""
    align: bool = True
    """Crop by the face's landmarks; --no-align takes the largest centred square."""
    yaw: float | None = None
    """Starting yaw in radians (default: from the label map)."""
    pitch: float | None = None
    """Starting pitch in radians (default: from the label map)."""
    resolution: int | None = None
    """Pixels along an edge (default: the checkpoint's)."""
    geometry_iterations: int = InvertSettings.geometry_iterations
    """Iterations of the geometry offsets alone."""
    appearance_iterations: int = InvertSettings.appearance_iterations
    """Iterations of all offsets under all terms."""
    learning_rate: float = InvertSettings.learning_rate
    """Adam's rate at the start of each stage."""
    patience: int = InvertSettings.patience
    """Evaluations (one in ten iterations) without progress that end a stage; 0: never."""
    vgg: bool = True
    """Use the VGG term; --no-vgg leaves it out."""
    vgg_weights: Path | None = None
    """Weights of torchvision's vgg16, .pth or .safetensors."""
    download_vgg: bool = False
    """Fetch the published VGG-16 weights (528 MB) into torch's cache."""
    device: str | None = None
    """cpu, cuda or cuda:N."""
    backend: str | None = None
    """reference, triton, cuda or cpu (default: the fastest that runs here)."""


def invert_files(options: Options) -> None:
    device = select_device(options.device)
    if (options.seed is None) == (options.image is None or options.labels is None):
        raise UserError("give either --image with --labels, or --seed")
    generator, run = load_generator(options.checkpoint, device=device)
    resolution = options.resolution or run.model.resolution
    if not 4 <= resolution <= 1024:
        raise UserError(f"--resolution {resolution}: use 4 to 1024")
    perceptual = vgg_of(options.vgg, options.vgg_weights, options.download_vgg, device)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    live = LiveFit(options.out.with_suffix(".png"))
    with use_backend(options.backend):
        target = _target(options, generator, resolution)
        result = invert(
            generator,
            target.image,
            target.labels,
            pose=_start_pose(options, target),
            settings=InvertSettings(
                resolution=resolution,
                geometry_iterations=options.geometry_iterations,
                appearance_iterations=options.appearance_iterations,
                learning_rate=options.learning_rate,
                patience=options.patience,
                perceptual_weight=InvertSettings.perceptual_weight if options.vgg else 0.0,
            ),
            perceptual=perceptual,
            crop=target.crop,
            watch=live,
        )
    live.close()
    finish(result.project, options.out, interrupted=result.interrupted)


def _target(options: Options, generator: Generator, resolution: int) -> Target:
    if options.image is not None and options.labels is not None:
        size = OVERSAMPLING * resolution
        return read_target(options.image, options.labels, size, align=options.align)
    return seed_target(generator, options.seed or 0, resolution)


def _start_pose(options: Options, target: Target) -> tuple[float, float] | None:
    if (options.yaw is None) != (options.pitch is None):
        raise UserError("give --yaw and --pitch together, in radians")
    if options.yaw is not None and options.pitch is not None:
        return options.yaw, options.pitch
    if target.pose is None:
        return None
    return float(target.pose[0]), float(target.pose[1])


def vgg_of(
    wanted: bool, path: Path | None, download: bool, device: torch.device
) -> PerceptualFeatures | None:
    """The network that the options ask for, saying where its weights are from."""
    if not wanted:
        return None
    network, origin = load_perceptual(path, download=download, device=device)
    print(origin, file=sys.stderr)
    return network


def finish(project: FaceProject, path: Path, *, interrupted: bool) -> None:
    """Write a project and its label map, say how well it fits, and pass Ctrl-C on."""
    project.save(path)
    save_label_map(path.with_suffix(".labels.png"), project.labels)
    print(_summary(project), file=sys.stderr)
    wrote(path)
    if interrupted:
        raise KeyboardInterrupt


def _summary(project: FaceProject) -> str:
    metrics, parts = project.metrics, []
    if "change_inside" in metrics:
        parts.append(
            f"mean change of RGB {metrics['change_inside']:.4f} inside the region, "
            f"{metrics['change_outside']:.4f} outside"
        )
    if "miou_groups" in metrics:
        parts.append(
            f"after {project.iterations} iterations mIoU {metrics['miou_groups']:.3f} over groups "
            f"(at first {metrics['start_miou_groups']:.3f}), {metrics['miou_classes']:.3f} over "
            f"classes, PSNR {metrics['psnr']:.1f} dB"
        )
    return "; ".join(parts)


def main(argv: list[str] | None = None) -> int:
    return run_command(Options, invert_files, argv, name="invert")


if __name__ == "__main__":
    raise SystemExit(main())
