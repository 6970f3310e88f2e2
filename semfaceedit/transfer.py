"""A region's shape or look from one face to another (Eq. 11): `python -m semfaceedit.transfer`."""

from dataclasses import dataclass
from pathlib import Path

from .cli import run_command
from .editing.project import FaceProject
from .editing.region_transfer import What, transfer
from .options import OF_A_FIT, OF_ITS_MODELS, EditJob, RefitOptions
from .usage import refuse_given


@dataclass(kw_only=True)
class TransferOptions(RefitOptions):
    """Copy the shape or the look of a region from another face.

    Example: semfaceedit transfer --checkpoint RUN/generator-ema0.998.safetensors
    --target a.safetensors --source b.safetensors --what appearance --region hair
    --out a-with-hair-of-b.safetensors

    Copying appearance alone is immediate and needs no VGG weights.
    """

    target: Path
    """Face to edit."""
    source: Path
    """Face to copy the region from."""
    region: tuple[str, ...]
    """Groups (hair, face, garment, background), class names or class ids."""
    what: What = "appearance"
    """appearance: immediate, whole groups only. geometry: a fit, any classes. both: whole groups
    only."""
    out: Path = Path("transferred.safetensors")
    """Face project to write; a preview (the face before, or what a fit aims at, beside the result),
    the label map and views are written beside it."""


def run(options: TransferOptions) -> None:
    fits = options.what != "appearance"
    if not fits:
        refuse_given(
            options,
            (*OF_A_FIT, *OF_ITS_MODELS),
            "is for a fit, which --what appearance does without: give another --what, or",
        )
    job = EditJob(options, options.target, options.out, needs_fit=fits)
    source = FaceProject.load(options.source, job.generator)
    with job.arguments(vgg=fits) as fit:
        edited = transfer(
            job.generator,
            job.face,
            source,
            what=options.what,
            region=options.region,
            **fit._asdict(),
        )
        job.finish(edited)


def main(argv: list[str] | None = None) -> int:
    return run_command(TransferOptions, run, argv, name="transfer")


if __name__ == "__main__":
    raise SystemExit(main())
