"""Face project and edited label map -> edited face (Eq. 10)."""

from dataclasses import replace

import numpy as np
from torch import Tensor

from ..errors import UserError
from ..metrics.perceptual import PerceptualFeatures
from ..model.generator import Generator
from ..model.renderer import RenderOutput
from .encoder import Encoder
from .fit_terms import Goal, Watch, finished
from .project import FaceProject
from .refit import (
    EditedFace,
    EditSettings,
    default_edit_settings,
    dilate,
    footprint,
    refit,
    render_before,
    with_metrics,
)
from .target import check_labels, footprint_shares


def edit(
    generator: Generator,
    project: FaceProject,
    labels: np.ndarray,  # (R, R) class ids, as large as the project's map
    *,
    region: np.ndarray | None = None,
    settings: EditSettings | None = None,
    perceptual: PerceptualFeatures | None = None,
    watch: Watch | None = None,
    encoder: Encoder | None = None,
) -> EditedFace:
    """Change the face so that its semantic map becomes `labels`.

    region: (R, R) bool, where the picture may change; by default where `labels` differ from the
    project's map, widened by `settings.dilation`. Outside it the face as rendered before is kept.
    encoder: gives the start (`refit`); `settings` are by default `default_edit_settings(encoder)`.
    """
    settings = settings or default_edit_settings(encoder)
    labels = check_labels(labels)
    goal, mask, before = _painted_goal(generator, project, labels, settings, region)
    return refit(
        generator,
        replace(project.with_origin(), labels=labels),
        goal,
        mask,
        before,
        settings,
        perceptual=perceptual,
        watch=watch,
        encoder=encoder,
        semantics=footprint_shares(project.labels, goal.resolution).to(before.image),
        still=_painted_groups(project, labels) if settings.masked else frozenset(),
    )


def refine(
    generator: Generator,
    before: FaceProject,
    after: FaceProject,
    settings: EditSettings,
    *,
    perceptual: PerceptualFeatures | None = None,
    watch: Watch | None = None,
) -> EditedFace:
    """Bring a face that follows a painted map nearer to it, from where it is (Eq. 10).

    after: the face, with the painted map, as `follow_map` gives it; before: the face that was
    painted on, whose picture is kept where the maps of the two agree.
    """
    goal, mask, shown = _painted_goal(generator, before, after.labels, settings)
    here = replace(settings, start_samples=0)
    after = replace(after, origin=before.with_origin().origin)
    still = _painted_groups(before, after.labels) if settings.masked else frozenset()
    return refit(
        generator, after, goal, mask, shown, here, perceptual=perceptual, watch=watch, still=still
    )


def _painted_groups(project: FaceProject, labels: np.ndarray) -> frozenset[int]:
    """The groups of the classes that were painted: their looks stay, so that what is new has them
    and does not blend into what was there."""
    new = np.unique(labels[labels != project.labels])
    return frozenset(project.group_of_class[label] for label in new)


def _painted_goal(
    generator: Generator,
    project: FaceProject,
    labels: np.ndarray,
    settings: EditSettings,
    region: np.ndarray | None = None,
) -> tuple[Goal, Tensor, RenderOutput]:
    """What Eq. 10 asks for, where the picture may change (1, 1, r, r), and the face as it is."""
    chosen = _changed(project, labels, region, settings.dilation)
    before = render_before(generator, project, settings)
    mask = footprint(chosen, before.image)
    shares = footprint_shares(labels, before.image.shape[-1]).to(before.image)
    return Goal(shares, before.image, ~mask if settings.masked else None), mask, before


def _changed(
    project: FaceProject, labels: np.ndarray, region: np.ndarray | None, dilation: float
) -> np.ndarray:
    """Where the picture may change, (R, R) bool."""
    if labels.shape != project.labels.shape:
        size = len(project.labels)
        raise UserError(f"labels of shape {labels.shape}: the project's map is {size}x{size}")
    chosen = labels != project.labels if region is None else np.asarray(region, bool)
    if chosen.shape != labels.shape:
        raise UserError(f"region of shape {chosen.shape}: give {labels.shape}, like the labels")
    if not chosen.any():
        raise UserError("the edited map does not differ from the project's: there is nothing to do")
    return dilate(chosen, dilation) if region is None else chosen


def compare_unmasked(
    generator: Generator,
    project: FaceProject,
    edited: EditedFace,
    settings: EditSettings,
    *,
    region: np.ndarray | None = None,
    perceptual: PerceptualFeatures | None = None,
    encoder: Encoder | None = None,
) -> EditedFace:
    """`edited` with the same edit's change without Eq. 10's masking among its metrics.

    There image and VGG terms hold inside the region too, towards the face as it was; its metrics
    are kept under `unmasked_...`. KeyboardInterrupt where Ctrl-C ends it: half an edit is no
    measure.
    """
    without = edit(
        generator,
        project,
        edited.project.labels,
        region=region,
        settings=replace(settings, masked=False),
        perceptual=perceptual,
        encoder=encoder,
    )
    finished(without)
    names = (*edited.change, "labels_inside")
    return with_metrics(edited, {f"unmasked_{n}": without.project.metrics[n] for n in names})
