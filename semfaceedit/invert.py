"""Photograph -> face project (Eq. 9): `python -m semfaceedit.invert`."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from .cli import remark, run_command, wrote
from .data.mask_checks import MaskOrder
from .editing.fit import POSE_LIMIT
from .editing.fit_terms import perceptual_weight
from .editing.inversion import InvertSettings, default_invert_settings, invert, seed_target
from .editing.target import (
    OVERSAMPLING,
    Target,
    read_target,
)
from .errors import UserError
from .model.generator import Generator
from .options import FitOptions, finish, given, open_checkpoint, open_encoder, tools
from .parsing.network import load_parser
from .parsing.photographs import parse_file
from .usage import With, Within, Without

FITTED = Within(-POSE_LIMIT, POSE_LIMIT, unit="radians")


@dataclass(kw_only=True)
class InvertOptions(FitOptions):
    """Invert a photograph, or a generated face, into a face project.

    The label map is read off the photograph where none is given.

    Example: semfaceedit invert --image photo.jpg --out face.safetensors
    """

    image: Path | None = None
    """The photograph."""
    labels: Path | None = None
    """Its label map in CelebAMask-HQ ids or colours, showing the same area (default: read off the
    photograph and kept as OUT.mask.png, to be mended and given here where it is wrong)."""
    face: Annotated[int, Within(1), Without("labels", "seed")] = 1
    """Which face of the photograph, where its map is read: 1 the largest, 2 the next."""
    parser: Path | None = None
    """A network of `train-parser`, which reads the map in place of the one that ships."""
    seed: int | None = None
    """Invert the generated face of this seed instead: a check of checkpoint and settings."""
    out: Path = Path("face.safetensors")
    """The face project to write; a preview and its label map are kept beside it."""
    align: Annotated[bool, Without("seed")] = True
    """Crop by the face's landmarks; --no-align takes the largest centred square."""
    mask_order: Annotated[MaskOrder | None, With("labels")] = None
    """What the ids of --labels mean: celebamask-hq, or bisenet for maps of face-parsing.PyTorch
    (default: CelebAMask-HQ's, refused where they do not look like it)."""
    yaw: Annotated[float | None, FITTED] = None
    """Starting yaw in radians (default: estimated)."""
    pitch: Annotated[float | None, FITTED] = None
    """Starting pitch in radians (default: estimated)."""
    geometry_iterations: Annotated[int | None, Within(0)] = None
    """Iterations of the geometry offsets alone (default: 200, with an encoder 0)."""
    appearance_iterations: Annotated[int | None, Within(0)] = None
    """Iterations of all offsets under all terms (default: 300, with an encoder 40, each on a
    quarter of the pixels)."""
    patience: Annotated[int | None, Within(0)] = None
    """Evaluations without progress that end a stage; 0: never (default: 10, one in ten iterations;
    with an encoder 2, one in twelve)."""
    tune: Annotated[int, Within(0)] = InvertSettings.tune_iterations
    """Pivotal tuning: so many steps of the weights after the offsets (0: none; 100 to 350)."""
    tune_rate: Annotated[float, Within(above=0, most=1), With("tune")] = (
        InvertSettings.tune_learning_rate
    )
    """Adam's rate of pivotal tuning."""


def run(options: InvertOptions, check: Callable[[Target], None] = lambda target: None) -> None:
    """check: raises UserError, before the fit, where what comes after it cannot be."""
    photograph = options.seed is None
    if (options.image is not None) != photograph or (options.labels and not photograph):
        raise UserError("give --image, with --labels if there is a label map, or --seed alone")
    if options.parser is not None and (options.labels is not None or not photograph):
        raise UserError("--parser reads the map of --image: leave out --labels and --seed")
    if (options.yaw is None) != (options.pitch is None):
        raise UserError("give --yaw and --pitch together, in radians")
    generator, run = open_checkpoint(options)
    encoder = open_encoder(options, generator)
    resolution = options.resolution or run.model.resolution
    beside = ("labels", "preview", *(["mask"] if photograph and not options.labels else []))
    with tools(options, options.out, beside=beside) as using:
        target = _target(options, generator, resolution, reads=encoder is not None)
        check(target)
        result = invert(
            generator,
            target.image,
            target.labels,
            pose=_start_pose(options, target),
            settings=default_invert_settings(
                encoder,
                **given(
                    options,
                    "geometry_iterations",
                    "appearance_iterations",
                    "patience",
                    "learning_rate",
                    "image_weight",
                ),
                resolution=resolution,
                tune_iterations=options.tune,
                tune_learning_rate=options.tune_rate,
                perceptual_weight=perceptual_weight(using.perceptual),
            ),
            perceptual=using.perceptual,
            crop=target.crop,
            watch=using.live,
            encoder=encoder,
        )
        finish(result.project, options.out, using.live, interrupted=result.interrupted)


def _target(
    options: InvertOptions, generator: Generator, resolution: int, *, reads: bool
) -> Target:
    """The pair to invert; reads: an encoder tells its pose where nothing else does."""
    size = OVERSAMPLING * resolution
    if options.image is None:
        return seed_target(generator, options.seed or 0, resolution)
    if options.labels is not None:
        target = read_target(
            options.image, options.labels, size, align=options.align, mask_order=options.mask_order
        )
        if target.pose is None and options.yaw is None and not reads:
            raise UserError(
                f"{options.labels}: shows no face whose pose could be estimated: give --yaw and "
                "--pitch (radians)"
            )
        return target
    labels = options.out.with_suffix(".mask.png")
    device = generator.device
    parser = None if options.parser is None else load_parser(options.parser, device)
    face = parse_file(options.image, labels, parser=parser, number=options.face)
    for said in face.remarks:
        remark(f"{options.image}: {said}")
    wrote(labels, "the label map read off the photograph")
    return read_target(options.image, labels, size, align=options.align, **face.placed)


def _start_pose(options: InvertOptions, target: Target) -> tuple[float, float] | None:
    if options.yaw is not None and options.pitch is not None:
        return options.yaw, options.pitch
    if target.pose is None or options.labels is not None:
        return None
    return float(target.pose[0]), float(target.pose[1])  # a generated face's, or a mesh's


def main(argv: list[str] | None = None) -> int:
    return run_command(InvertOptions, run, argv, name="invert")


if __name__ == "__main__":
    raise SystemExit(main())
