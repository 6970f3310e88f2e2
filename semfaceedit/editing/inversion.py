"""Photograph and label map -> face project (Eq. 9)."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, mse_loss

from ..metrics.perceptual import PerceptualFeatures
from ..model.camera import sample_poses
from ..model.checkpoint import discriminators_beside, load_discriminators
from ..model.codes import Codes
from ..model.discriminator import image_input
from ..model.generator import Generator, seed_codes
from ..model.mean_face import mean_codes
from ..model.renderer import RenderOutput, render
from ..pictures.grids import picture_rows
from .encoder import Encoder
from .fit import Fit, zero_offsets
from .fit_terms import FitRecord, FitSettings, Goal, Stage, Watch
from .project import FaceProject
from .target import (
    OVERSAMPLING,
    SourceCrop,
    Target,
    check_image,
    check_labels,
    pictures,
    pose_from_labels,
)

DEPTH_HELD = 0.3  # weight of the depth that an encoder read


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
    history: list[FitRecord]  # [0] is the start: the mean face, or what an encoder read
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
    encoder: Encoder | None = None,
) -> InversionResult:
    """Find the offsets and the pose whose rendering is this face.

    The pair is aligned as training data are (`target.read_target`); R is a multiple of the
    rendered resolution. pose: where to start; by default estimated (`start_pose`). encoder: reads
    the face from which the search starts, and its pose unless one that is given suits the map
    better; `settings` are by default `default_invert_settings(encoder)`. watch: is called at every
    evaluation. Ctrl-C ends the search with the best face so far.

    The result's `history` is the curve of the fit: an evaluation without noise at iteration 0 (the
    mean face at the starting pose), after every `settings.evaluate_every` iterations, and at the
    end of each stage; where a stage ends, the next begins with an evaluation at the same iteration.
    Each `FitRecord` has `iteration`, `seconds` since the start, `stage`, `loss`, `terms`, `psnr`
    (dB), `pose`, and `score` with mIoU over `groups` and `classes`, and IoU `per_group` and
    `per_class` (NaN where absent).
    """
    settings = settings or default_invert_settings(encoder)
    labels = check_labels(labels)
    image = check_image(image, labels)
    device = generator.device
    resolution = settings.resolution or generator.config.resolution
    wanted, shares = pictures(Target(image, labels, None), resolution)
    goal = Goal(shares.to(device), wanted.to(device))
    given = None if pose is None else torch.tensor([pose], device=device, dtype=torch.float32)
    offsets = zero_offsets(generator)
    if encoder is not None:
        offsets, start = read_face(generator, encoder, goal, given)
        if settings.depth_weight:
            goal = replace(goal, depth=head_relief(generator, offsets, start, goal))
    else:
        start = start_pose(generator, labels, goal) if given is None else given

    fit = Fit(generator, goal, offsets, start, settings, perceptual=perceptual, watch=watch)
    fit.run(*_stages(settings))
    return InversionResult(
        fit.project(labels, image, crop), fit.history, fit.render(), fit.interrupted
    )


def default_invert_settings(encoder: Encoder | None, **changes: Any) -> InvertSettings:
    """Settings for a start at the mean face, or at what an encoder reads, whose depth is held if it
    learned of depth; with changes."""
    if encoder is None:
        return replace(InvertSettings(), **changes)
    held = DEPTH_HELD if encoder.learned_depth else 0.0
    return near_settings(**{"depth_weight": held, **changes})


def near_settings(**changes: Any) -> InvertSettings:
    """Settings for a start that an encoder read: few, long steps of all offsets, each on a quarter
    of the pixels, without noise."""
    return replace(
        InvertSettings(
            geometry_iterations=0,
            appearance_iterations=40,
            interleave=True,
            learning_rate=2.5e-2,
            final_rate=0.2,
            noise=0.0,
            pose_every=9,
            pose_step=0.03,
            evaluate_every=12,
            patience=2,
        ),
        **changes,
    )


@torch.no_grad()
def read_face(
    generator: Generator, encoder: Encoder, goal: Goal, pose: Tensor | None
) -> tuple[Codes, Tensor]:
    """Offsets and pose (1, 2) that the encoder reads; `pose`, or what D_c says of it, where the map
    suits that better."""
    read = encoder.read(goal.image, goal.semantics)
    poses = [read.pose, *([] if pose is None else [pose]), *_pose_heads(generator, goal)]
    if len(poses) == 1:
        return read.offsets, read.pose
    size = min(goal.resolution, encoder.settings.size)
    wanted = adaptive_avg_pool2d(goal.semantics, size)
    codes = mean_codes(generator) + read.offsets
    errors = [
        mse_loss(render(generator, codes, p, size, shade=False).semantics, wanted) for p in poses
    ]
    return read.offsets, poses[int(torch.stack(errors).argmin())]


@torch.no_grad()
def head_relief(generator: Generator, offsets: Codes, pose: Tensor, goal: Goal) -> Tensor:
    """The depth (1, 1, r, r) of a face where it shows the group that is asked for; NaN elsewhere
    and in the background.

    Maps and colours leave depth open, and a fit that follows them alone drifts from what an encoder
    learned of it.
    """
    made = render(generator, mean_codes(generator) + offsets, pose, goal.resolution, shade=False)
    wanted = goal.semantics.argmax(1)
    alike = generator.group_table(made.labels) == generator.group_table(wanted)
    return torch.where((alike & (wanted > 0))[:, None], made.depth, math.nan)


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
    (d_image, _), _ = load_discriminators(path)
    size = goal.image.shape[-1]
    known = [seen for seen in d_image.resolutions if seen <= size]
    if not known:
        return []
    picture = image_input(d_image, goal.image, 2 * goal.semantics - 1)
    _, pose = d_image.to(picture.device)(adaptive_avg_pool2d(picture, max(known)))
    return [pose]


def _stages(settings: InvertSettings) -> list[Stage]:
    stages = [
        Stage(
            name="appearance",
            iterations=settings.appearance_iterations,
            geometry=settings.joint,
            appearance=True,
            image=True,
            pose=True,
        )
    ]
    if settings.geometry_iterations:
        geometry = Stage(name="geometry", iterations=settings.geometry_iterations, pose=True)
        stages.insert(0, geometry)
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
