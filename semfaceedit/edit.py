"""Face project and edited label map -> edited face (Eq. 10): `python -m semfaceedit.edit`."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .cli import run_command
from .editing.fit import Goal, Watch
from .editing.mask_edits import paint
from .editing.project import FaceProject
from .editing.refit import (
    EditedFace,
    EditSettings,
    dilate,
    footprint,
    refit,
    render_project,
    with_metrics,
)
from .editing.target import check_labels, class_shares, read_edited_labels
from .errors import UserError
from .metrics.perceptual import PerceptualFeatures
from .model.generator import Generator
from .options import RefitOptions, edit_settings, finish_edit, open_checkpoint, tools


def edit(
    generator: Generator,
    project: FaceProject,
    labels: np.ndarray,  # (R, R) class ids, as large as the project's map
    *,
    region: np.ndarray | None = None,
    settings: EditSettings | None = None,
    perceptual: PerceptualFeatures | None = None,
    watch: Watch | None = None,
) -> EditedFace:
    """Change the face so that its semantic map becomes `labels`.

    region: (R, R) bool, where the picture may change; by default where `labels` differ from the
    project's map, widened by `settings.dilation`. Outside it the face as rendered before is kept.
    """
    settings = settings or EditSettings()
    labels = check_labels(labels)
    chosen = _changed(project, labels, region, settings.dilation)
    resolution = settings.resolution or len(project.preview)
    before = render_project(generator, project, resolution)
    mask = footprint(chosen, resolution).to(before.image.device)
    goal = Goal(
        class_shares(labels, resolution).to(before.image),
        before.image,
        ~mask if settings.masked else None,
    )
    return refit(
        generator,
        replace(project, labels=labels),
        goal,
        mask,
        before,
        settings,
        perceptual=perceptual,
        watch=watch,
    )


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
    )
    if without.interrupted:
        raise KeyboardInterrupt
    names = (*edited.change, "labels_inside")
    return with_metrics(edited, {f"unmasked_{n}": without.project.metrics[n] for n in names})


@dataclass(kw_only=True)
class Options(RefitOptions):
    """Change the shape of a face: edit its label map and let the face follow.

    `invert` and `render --save-projects` write the map to edit beside the project
    (FACE.labels.png); an edited copy of the original mask serves as well. `--paint` makes an edited
    map by code.

    Example: semfaceedit edit --project face.safetensors --labels edited.png --no-vgg
    --out edited.safetensors; or --paint hat "open mouth" in place of --labels
    """

    project: Path
    """The face to edit."""
    labels: Path | None = None
    """The edited label map."""
    paint: tuple[str, ...] = ()
    """Edits to paint into the map, the given one or the project's: "longer hair", "shorter hair",
    fringe, "high hairline", "wide mouth", "open mouth", "big nose", glasses, hat."""
    out: Path = Path("edited.safetensors")
    """The face project to write; preview, label map and views are kept beside it."""
    compare_unmasked: bool = False
    """Edit once more without the mask of Eq. 10 and report the change outside of both."""


def edit_files(options: Options) -> None:
    if options.labels is None and not options.paint:
        raise UserError("nothing to do: give --labels with an edited label map, or --paint")
    generator, _ = open_checkpoint(options)
    project = FaceProject.load(options.project, generator)
    labels = project.labels
    if options.labels is not None:
        labels = read_edited_labels(options.labels, len(labels), project.crop)
    labels = paint(labels, options.paint)
    with tools(options, options.out) as using:
        settings = edit_settings(options, using)
        edited = edit(
            generator,
            project,
            labels,
            settings=settings,
            perceptual=using.perceptual,
            watch=using.live,
        )
        if options.compare_unmasked and not edited.interrupted:
            try:
                edited = compare_unmasked(
                    generator, project, edited, settings, perceptual=using.perceptual
                )
            except KeyboardInterrupt:
                edited = replace(edited, interrupted=True)
        finish_edit(generator, project, edited, options.out, using.live)


def main(argv: list[str] | None = None) -> int:
    return run_command(Options, edit_files, argv, name="edit")


if __name__ == "__main__":
    raise SystemExit(main())
