"""Face project and edited label map -> edited face (Eq. 10): `python -m semfaceedit.edit`."""

from dataclasses import dataclass, replace
from pathlib import Path

from .cli import run_command
from .editing.map_edit import compare_unmasked, edit
from .editing.mask_edits import paint
from .editing.project import FaceProject
from .editing.target import read_edited_labels
from .errors import UserError
from .options import (
    EDIT_PICTURES,
    RefitOptions,
    check_pasting,
    edit_settings,
    finish_edit,
    open_checkpoint,
    open_encoder,
    tools,
)


@dataclass(kw_only=True)
class EditOptions(RefitOptions):
    """Change the shape of a face by editing its label map.

    Example: semfaceedit edit --project face.safetensors --labels painted.png --no-vgg
    --out edited.safetensors

    `invert` and `render --save-projects` write the label map beside the project
    (FACE.labels.png). Paint over it in an image editor and pass it as --labels; an edited copy of
    the photograph's original mask works too. Or let --paint draw the edit, as in --paint hat.
    """

    project: Path
    """Face to edit."""
    labels: Path | None = None
    """Edited label map."""
    paint: tuple[str, ...] = ()
    """Edits to draw into the label map: "longer hair", "shorter hair", fringe, "high hairline",
    "wide mouth", "open mouth", "big nose", glasses, hat."""
    out: Path = Path("edited.safetensors")
    """Face project to write; a preview, the label map and views are written beside it."""
    compare_unmasked: bool = False
    """Repeat the edit without the mask of Eq. 10 and report how much both change outside the
    region."""


def run(options: EditOptions) -> None:
    if options.labels is None and not options.paint:
        raise UserError("nothing to do: give --labels with an edited label map, or --paint")
    generator, _ = open_checkpoint(options)
    encoder = open_encoder(options, generator)
    project = FaceProject.load(options.project, generator)
    pasting = check_pasting(options, project, options.project)
    labels = project.labels
    if options.labels is not None:
        labels = read_edited_labels(options.labels, len(labels), project.crop)
    labels = paint(labels, options.paint)
    with tools(options, options.out, beside=EDIT_PICTURES) as using:
        settings = edit_settings(options, using, encoder)
        edited = edit(
            generator,
            project,
            labels,
            settings=settings,
            perceptual=using.perceptual,
            watch=using.live,
            encoder=encoder,
        )
        if options.compare_unmasked and not edited.interrupted:
            try:
                edited = compare_unmasked(
                    generator,
                    project,
                    edited,
                    settings,
                    perceptual=using.perceptual,
                    encoder=encoder,
                )
            except KeyboardInterrupt:
                edited = replace(edited, interrupted=True)
        finish_edit(generator, project, edited, options.out, using.live, pasting)


def main(argv: list[str] | None = None) -> int:
    return run_command(EditOptions, run, argv, name="edit")


if __name__ == "__main__":
    raise SystemExit(main())
