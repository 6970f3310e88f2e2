"""A face and an edited label map (Eq. 10), or sliders -> edited face: `python -m
semfaceedit.edit`."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import numpy as np

from .cli import run_command
from .editing.map_edit import compare_unmasked, edit
from .editing.mask_edits import paint
from .editing.photograph_file import check_alpha, check_format, read_original
from .editing.project import FORMAT, FaceProject
from .editing.refit import EditedFace
from .editing.sliders import (
    adjust,
    check_shown,
    find_sliders,
    need_directions,
    parse_changes,
    table,
)
from .editing.source_photograph import check_given
from .editing.target import SourceCrop, Target, read_edited_labels
from .errors import UserError
from .invert import InvertOptions
from .invert import run as run_invert
from .model.generator import Generator
from .options import (
    OF_A_FIT,
    OF_ITS_MODELS,
    CheckpointOptions,
    EditJob,
    FitArguments,
    FitOptions,
    RefitOptions,
    check_project,
    open_checkpoint,
)
from .outputs import check_outputs
from .usage import With, refuse_given


@dataclass(kw_only=True)
class EditOptions(RefitOptions):
    """Change a face by editing its label map, or by sliders.

    Example: semfaceedit edit --project face.safetensors --labels painted.png
    --out edited.safetensors

    `invert` and `render --save-projects` write the label map beside the project
    (FACE.labels.png). Paint over it in an image editor and pass it as --labels; an edited copy of
    the photograph's original mask works too. Or let --paint draw the edit, as in --paint hat.
    --set moves sliders, as in --set "mouth opening=+1.5", at once; --list-sliders names them.

    A photograph at once: semfaceedit edit --image photo.jpg --set smile=+2 --paste smiling.png
    """

    project: Path | None = None
    """Face to edit."""
    image: Path | None = None
    """Photograph to edit, in place of --project: as `invert` does it first, into
    OUT.face.safetensors, from which further edits can start."""
    labels: Path | None = None
    """Edited label map."""
    paint: tuple[str, ...] = ()
    """Edits to draw into the label map: "longer hair", "shorter hair", fringe, "high hairline",
    "wide mouth", "open mouth", "big nose", glasses, hat."""
    set: tuple[str, ...] = ()
    """Sliders to move, each by so many standard deviations: "mouth opening=+1.5"
    "hair lightness=-1". Done before --labels or --paint."""
    list_sliders: bool = False
    """List the sliders of the weights, and stop."""
    directions: Annotated[Path | None, With("set", "list_sliders")] = None
    """Sliders of `find-directions` (default: W-directions.safetensors beside the weights
    W.safetensors)."""
    out: Path = Path("edited.safetensors")
    """Face project to write; a preview (the face before, or what a fit aims at, beside the result),
    the label map and views are written beside it."""
    compare_unmasked: Annotated[bool, With("labels", "paint")] = False
    """Repeat the edit without the mask of Eq. 10 and report how much both change outside the
    region."""


def run(options: EditOptions) -> None:
    if options.list_sliders:
        kept = {field.name for field in fields(CheckpointOptions)} | {"list_sliders", "directions"}
        others = [field.name for field in fields(options) if field.name not in kept]
        refuse_given(options, others, "has no effect with --list-sliders, which stops after it:")
        generator, _ = open_checkpoint(options)
        print(table(need_directions(find_sliders(generator, options.directions))))
        return
    if options.project is not None and options.image is not None:
        raise UserError("--project and --image both name a face: leave out one of them")
    if options.project is None and options.image is None:
        raise UserError("give the face to edit with --project, or a photograph with --image")
    fits = options.labels is not None or bool(options.paint)
    if not fits and not options.set:
        raise UserError("nothing to do: give --labels with an edited label map, --paint or --set")
    if not fits:
        no_fit = "is for a fit, which --set does without: give --labels or --paint, or"
        models = ("resolution", *OF_ITS_MODELS) if options.image is None else ()
        refuse_given(options, (*OF_A_FIT, *models), no_fit)
    changes = parse_changes(options.set)
    project = options.project or _inverted(options)
    if options.image is not None and options.vgg_weights is None and not options.download_vgg:
        options = replace(options, no_vgg=True)  # the first fit has said so
    job = EditJob(options, project, options.out, needs_fit=fits)
    with job.arguments(vgg=fits) as fit:
        edited, face = None, job.face
        if changes:
            directions = find_sliders(job.generator, options.directions)
            edited = adjust(job.generator, face, changes, directions)
            face = edited.project
        if fits:
            edited = _edit_map(options, job.generator, face, fit)
        assert edited is not None
        job.finish(edited)


def _inverted(options: EditOptions) -> Path:
    """The project of --image, made by `invert` with what both commands take."""
    check_project(options.out)
    path = options.out.with_suffix(".face.safetensors")
    check_outputs([options.out], [path], kind=FORMAT)
    if options.paste is not None and options.image is not None:
        check_format(options.paste)
        photographs = [path for path in (options.image, options.photograph) if path is not None]
        check_outputs([options.paste], photographs, flag="--paste")
    changes, directions = parse_changes(options.set), None
    generator, _ = open_checkpoint(options)
    if changes:
        directions = need_directions(find_sliders(generator, options.directions))
        directions.columns(changes)  # which might ask for what there is not

    def check(target: Target) -> None:
        """What the face and --photograph must show, which is told before the fit."""
        if options.photograph is not None and target.crop is not None:
            check_given(target.image, target.crop, options.photograph)
        if options.paste is not None and options.image is not None:
            check_alpha(options.paste, read_original(options.photograph or options.image))
        if directions is not None:
            check_shown(directions, changes, target.labels, generator.config.group_of_class)
        _painted(options, target.labels, target.crop)

    kept = ("learning_rate", "image_weight")  # of the edit
    shared = {
        field.name: getattr(options, field.name)
        for field in fields(FitOptions)
        if field.name not in kept
    }
    run_invert(InvertOptions(**shared, image=options.image, out=path), check)
    return path


def _painted(options: EditOptions, labels: np.ndarray, source: SourceCrop | None) -> np.ndarray:
    """A face's map (R, R) as --labels and --paint want it."""
    if options.labels is not None:
        labels = read_edited_labels(options.labels, len(labels), source)
    return paint(labels, options.paint)


def _edit_map(
    options: EditOptions, generator: Generator, project: FaceProject, fit: FitArguments
) -> EditedFace:
    """What --labels, --paint and --compare-unmasked ask for."""
    labels = _painted(options, project.labels, project.crop)
    edited = edit(generator, project, labels, **fit._asdict())
    if options.compare_unmasked and not edited.interrupted:
        try:
            edited = compare_unmasked(
                generator,
                project,
                edited,
                fit.settings,
                perceptual=fit.perceptual,
                encoder=fit.encoder,
            )
        except KeyboardInterrupt:
            edited = replace(edited, interrupted=True)
    return edited


def main(argv: list[str] | None = None) -> int:
    return run_command(EditOptions, run, argv, name="edit")


if __name__ == "__main__":
    raise SystemExit(main())
