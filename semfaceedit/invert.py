"""Photograph and label map -> face project (Eq. 9): `python -m semfaceedit.invert`."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, mse_loss

from .cli import run_command, wrote
from .editing.fit import Fit, FitSettings, Goal, Stage, Step, Watch, zero_offsets
from .editing.project import FaceProject
from .editing.target import (
    OVERSAMPLING,
    SourceCrop,
    Target,
    check_image,
    check_labels,
    pictures,
    pose_from_labels,
    read_target,
)
from .errors import UserError
from .metrics.perceptual import PerceptualFeatures
from .model.camera import sample_poses
from .model.checkpoint import discriminators_beside, load_discriminators
from .model.discriminator import image_input
from .model.generator import Generator
from .model.mean_face import mean_codes
from .model.renderer import RenderOutput, render
from .options import FitOptions, finish, open_checkpoint, tools
from .parse import parse_file
from .parsing.network import load_parser
from .pictures.grids import picture_rows, seed_codes


@dataclass(frozen=True, kw_only=True)
class InvertSettings(FitSettings):
    """Inversion (Eq. 9): first the geometry offsets under the semantic term, then all offsets.

    Pivotal tuning (PTI, Roich et al. 2021) is off: with `tune_iterations` a copy of the weights
    follows the face at last, while offsets and pose stay.

    Example: InvertSettings(geometry_iterations=100, perceptual_weight=0)
    """

    geometry_iterations: int = 200
    appearance_iterations: int = 300
    joint: bool = True  # the second stage goes on moving the geometry offsets
    tune_iterations: int = 0  # of pivotal tuning; PTI takes up to 350
    tune_learning_rate: float = 3e-4  # PTI's
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
    rendered resolution. pose: where to start; by default estimated (`start_pose`). watch: is called
    at every evaluation. Ctrl-C ends the search with the best face so far.

    The result's `history` is the curve of the fit: an evaluation without noise at iteration 0 (the
    mean face at the starting pose), after every `settings.evaluate_every` iterations, and at the
    end of each stage; where a stage ends, the next begins with an evaluation at the same iteration.
    Each `Step` has `iteration`, `seconds` since the start, `stage`, `loss`, `terms`, `psnr` (dB),
    `pose`, and `score` with mIoU over `groups` and `classes`, and IoU `per_group` and `per_class`
    (NaN where absent).
    """
    settings = settings or InvertSettings()
    labels = check_labels(labels)
    image = check_image(image, labels)
    device = next(generator.parameters()).device
    resolution = settings.resolution or generator.config.resolution
    wanted, shares = pictures(Target(image, labels, None), resolution)
    goal = Goal(shares.to(device), wanted.to(device))
    if pose is None:
        start = start_pose(generator, labels, goal)
    else:
        start = torch.tensor([pose], device=device, dtype=torch.float32)
    fit = Fit(
        generator,
        goal,
        zero_offsets(generator),
        start,
        settings,
        perceptual=perceptual,
        watch=watch,
    )
    fit.run(*_stages(settings))
    return InversionResult(
        fit.project(labels, image, crop), fit.history, fit.render(), fit.interrupted
    )


@torch.no_grad()
def start_pose(
    generator: Generator,
    labels: np.ndarray,  # (R, R) class ids, aligned
    goal: Goal,
) -> Tensor:  # (1, 2)
    """Yaw and pitch to start from: the estimate at which the mean face's map is nearer to the goal.

    Estimates are those of the label map's landmarks and, where discriminators lie beside the
    generator's weights, of the pose head of D_c.
    """
    device = goal.image.device
    landmarks = pose_from_labels(labels, generator.config.camera)
    estimates = [torch.from_numpy(landmarks)[None].to(device), *_pose_heads(generator, goal)]
    if len(estimates) == 1:
        return estimates[0]
    resolution = goal.image.shape[-1]
    distances = [
        mse_loss(
            render(generator, mean_codes(generator), pose, resolution).semantics, goal.semantics
        )
        for pose in estimates
    ]
    return estimates[int(torch.stack(distances).argmin())]


def _pose_heads(generator: Generator, goal: Goal) -> list[Tensor]:
    """What D_c says of the pose, (1, 2); nothing where there is none for so small a picture."""
    if generator.source is None:
        return []
    path = discriminators_beside(generator.source)
    if not path.exists():
        return []
    (d_image, _), run = load_discriminators(path)
    size = goal.image.shape[-1]
    known = [phase.resolution for phase in run.train.phases if phase.resolution <= size]
    if not known:
        return []
    picture = image_input(d_image, goal.image, 2 * goal.semantics - 1)
    _, pose = d_image.to(picture.device)(adaptive_avg_pool2d(picture, max(known)))
    return [pose]


def _stages(settings: InvertSettings) -> list[Stage]:
    stages = [
        Stage(name="geometry", iterations=settings.geometry_iterations, pose=True),
        Stage(
            name="appearance",
            iterations=settings.appearance_iterations,
            geometry=settings.joint,
            appearance=True,
            image=True,
            pose=True,
        ),
    ]
    if settings.tune_iterations:
        stages.append(
            Stage(
                name="tuning",
                iterations=settings.tune_iterations,
                geometry=False,
                image=True,
                weights=True,
                learning_rate=settings.tune_learning_rate,
            )
        )
    return stages


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
class Options(FitOptions):
    """Invert a photograph with its label map, or a generated face, into a face project.

    Example: semfaceedit invert --checkpoint RUN/generator-ema0.998.safetensors --image photo.jpg
    --labels mask.png --vgg-weights vgg16-397923af.pth --out face.safetensors
    """

    image: Path | None = None
    """The photograph."""
    labels: Path | None = None
    """Its label map in CelebAMask-HQ ids or colours, showing the same area."""
    parser: Path | None = None
    """In place of --labels: a network of `train-parser`, which reads the map off the photograph. It
    is kept as OUT.mask.png, to be mended and given as --labels where it is wrong."""
    seed: int | None = None
    """Invert the generated face of this seed instead: a check of checkpoint and settings."""
    out: Path = Path("face.safetensors")
    """The face project to write; a preview and its label map are kept beside it."""
    align: bool = True
    """Crop by the face's landmarks; --no-align takes the largest centred square."""
    yaw: float | None = None
    """Starting yaw in radians (default: estimated)."""
    pitch: float | None = None
    """Starting pitch in radians (default: estimated)."""
    geometry_iterations: int = InvertSettings.geometry_iterations
    """Iterations of the geometry offsets alone."""
    appearance_iterations: int = InvertSettings.appearance_iterations
    """Iterations of all offsets under all terms."""
    patience: int = InvertSettings.patience
    """Evaluations (one in ten iterations) without progress that end a stage; 0: never."""
    tune: int = InvertSettings.tune_iterations
    """Pivotal tuning: so many steps of the weights after the offsets (0: none; 100 to 350)."""
    tune_rate: float = InvertSettings.tune_learning_rate
    """Adam's rate of pivotal tuning."""


def invert_files(options: Options) -> None:
    photograph = options.seed is None
    maps = [path for path in (options.labels, options.parser) if path is not None]
    if (options.image is not None) != photograph or len(maps) != photograph:
        raise UserError("give --image with --labels or --parser, or --seed alone")
    generator, run = open_checkpoint(options)
    resolution = options.resolution or run.model.resolution
    with tools(options, options.out) as using:
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
                image_weight=options.image_weight,
                patience=options.patience,
                tune_iterations=options.tune,
                tune_learning_rate=options.tune_rate,
                perceptual_weight=InvertSettings.perceptual_weight if using.perceptual else 0.0,
            ),
            perceptual=using.perceptual,
            crop=target.crop,
            watch=using.live,
        )
        finish(result.project, options.out, using.live, interrupted=result.interrupted)


def _target(options: Options, generator: Generator, resolution: int) -> Target:
    size, labels = OVERSAMPLING * resolution, options.labels
    if options.image is not None and options.parser is not None:
        labels = options.out.with_suffix(".mask.png")
        parser = load_parser(options.parser, next(generator.parameters()).device)
        parse_file(*parser, options.image, labels)
        wrote(labels, "the label map read off the photograph")
    if options.image is not None and labels is not None:
        return read_target(options.image, labels, size, align=options.align)
    return seed_target(generator, options.seed or 0, resolution)


def _start_pose(options: Options, target: Target) -> tuple[float, float] | None:
    if (options.yaw is None) != (options.pitch is None):
        raise UserError("give --yaw and --pitch together, in radians")
    if options.yaw is not None and options.pitch is not None:
        if not (math.isfinite(options.yaw) and math.isfinite(options.pitch)):
            raise UserError("--yaw and --pitch are angles in radians: give numbers")
        return options.yaw, options.pitch
    if options.seed is None or target.pose is None:
        return None
    return float(target.pose[0]), float(target.pose[1])  # that of a generated face is known


def main(argv: list[str] | None = None) -> int:
    return run_command(Options, invert_files, argv, name="invert")


if __name__ == "__main__":
    raise SystemExit(main())
