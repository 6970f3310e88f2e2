"""What editing and transfer share: a face moves from where it is to a goal, and is compared."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, max_pool2d

from ..metrics.perceptual import PerceptualFeatures
from ..metrics.pictures import rgb_change, ssim
from ..model.codes import Codes
from ..model.generator import Generator
from ..model.renderer import RenderOutput, render
from .encoder import Encoder, map_change
from .fit import Fit, mapped
from .fit_terms import FitRecord, FitSettings, Goal, Stage, Watch
from .initialisation import best_along, other_starts
from .project import FaceProject


@dataclass(frozen=True, kw_only=True)
class EditSettings(FitSettings):
    """Editing (Eq. 10): from the face as it is, without noise, at its own pose.

    Example: EditSettings(iterations=200, appearance=True, perceptual_weight=0)
    """

    iterations: int = 150
    appearance: bool = False  # move the appearance offsets too
    dilation: float = 0.03  # how far the changed region is widened, in widths of the picture
    start_samples: int = 256  # faces drawn to find other starts; 0: only from the face itself
    masked: bool = True  # image and VGG terms only outside the region; False: everywhere
    learning_rate: float = 5e-3
    noise: float = 0.0
    pose_every: int = 0
    resolution: int | None = None  # pixels along an edge (default: the project's)


def near_edit_settings(**changes: Any) -> EditSettings:
    """Settings for a start that an encoder gives: few, long steps, each on a quarter of the pixels.
    The looks of the groups that are not painted move too, and the picture outside counts more, so
    that it stays as it was."""
    near = EditSettings(
        iterations=28,
        interleave=True,
        appearance=True,
        image_weight=5.0,
        learning_rate=2e-2,
        final_rate=0.25,
        evaluate_every=14,
        patience=2,
    )
    return replace(near, **changes)


def default_edit_settings(encoder: Encoder | None, **changes: Any) -> EditSettings:
    """Settings for a start at the face as it is, or at what an encoder gives; with changes."""
    return replace(EditSettings() if encoder is None else near_edit_settings(), **changes)


@dataclass(frozen=True, kw_only=True)
class EditedFace:
    """A face before and after an edit or a transfer, at the pose of its project."""

    project: FaceProject
    region: Tensor  # (1, 1, r, r) bool: where it was to change
    before: RenderOutput
    after: RenderOutput
    history: list[FitRecord]
    interrupted: bool = False

    @property
    def change(self) -> dict[str, float]:
        """Mean |change of RGB| in [0, 1] inside and outside the region, NaN where that is empty,
        and the SSIM of what lies outside."""
        change = rgb_change(self.before.image, self.after.image)[:, None]
        return {
            "change_inside": float(change[self.region].mean()),
            "change_outside": float(change[~self.region].mean()),
            "ssim_outside": float(ssim(self.after.image, self.before.image, ~self.region)),
        }


def refit(
    generator: Generator,
    project: FaceProject,
    goal: Goal,
    region: Tensor,  # (1, 1, r, r) bool
    before: RenderOutput,
    settings: EditSettings,
    *,
    perceptual: PerceptualFeatures | None,
    watch: Watch | None,
    encoder: Encoder | None = None,
    semantics: Tensor | None = None,
    still: frozenset[int] = frozenset(),
) -> EditedFace:
    """Move the offsets of `project` towards `goal` under all terms; those of the looks only where
    `settings.appearance` says so, and not of the groups `still`.

    They begin where they are, or at one of the `other_starts` if a short trial from there is nearer
    to the goal. encoder: they begin where its answer to the changed map leads instead (`map_change`
    from `semantics` (1, N, s, s), by default what `before` shows), as far as that helps.
    """
    own = project.generator(generator)
    pose = project.pose[None].to(before.image.device)
    offsets = mapped(project.offsets, lambda tensor: tensor.to(pose))
    starts: list[Codes] = []
    if encoder is not None:
        shown = before.semantics if semantics is None else semantics
        way = map_change(encoder, shown, goal.semantics)
        offsets = best_along(own, offsets, way, pose, goal.semantics)
    elif settings.start_samples:
        starts = other_starts(
            own, offsets, pose, goal.semantics, region, samples=settings.start_samples
        )

    fit = Fit(own, goal, offsets, pose, settings, perceptual=perceptual, watch=watch)
    fit.run(
        Stage(
            name="edit",
            iterations=settings.iterations,
            appearance=settings.appearance,
            still=still,
            image=True,
            starts=tuple(starts),
        )
    )
    origin = project.with_origin().origin
    edited = EditedFace(
        project=replace(
            fit.project(project.labels, project.image, project.crop),
            origin=origin and origin.grown(region[0, 0].cpu().numpy()),
        ),
        region=region,
        before=before,
        after=fit.render(),
        history=fit.history,
        interrupted=fit.interrupted,
    )
    agree = (edited.after.labels == fit.target_labels)[region[:, 0]]
    return with_metrics(edited, edited.change | {"labels_inside": float(agree.float().mean())})


def with_metrics(edited: EditedFace, metrics: dict[str, float]) -> EditedFace:
    """The same with these among the project's metrics."""
    project = replace(edited.project, metrics=edited.project.metrics | metrics)
    return replace(edited, project=project)


@torch.no_grad()
def render_project(
    generator: Generator,
    project: FaceProject,
    resolution: int,
    *,
    shade: bool = True,
    keep_shading: bool = False,
    cull: float = 0.0,
) -> RenderOutput:
    """The face of a project at its own pose; without colours where `shade` is False."""
    codes = project.codes(generator)
    pose = project.pose[None].to(codes.geometry.phases.device)
    own = project.generator(generator)
    return render(own, codes, pose, resolution, shade=shade, keep_shading=keep_shading, cull=cull)


def render_before(
    generator: Generator,
    project: FaceProject,
    settings: EditSettings,
    *,
    keep_shading: bool = False,
) -> RenderOutput:
    """The face as it is, at the resolution of an edit."""
    resolution = settings.resolution or len(project.preview)
    return render_project(generator, project, resolution, keep_shading=keep_shading)


def dilate(mask: np.ndarray, share: float) -> np.ndarray:
    """Widen a mask (R, R) in a square by `share` of its width, rounded up."""
    reach = int(np.ceil(share * len(mask)))
    widened = max_pool2d(torch.from_numpy(mask)[None].float(), 2 * reach + 1, 1, reach)
    return widened[0].bool().numpy()


def footprint(mask: np.ndarray, image: Tensor) -> Tensor:
    """(R, R) bool -> (1, 1, r, r) bool: pixels of `image` (..., r, r) that hold any of the mask."""
    held = adaptive_max_pool2d(torch.from_numpy(mask)[None, None].float(), image.shape[-1])
    return held.bool().to(image.device)
