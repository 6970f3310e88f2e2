"""What a checkpoint can do, as a page of figures: `python -m semfaceedit.gallery`."""

import json
import shlex
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from PIL import Image

from .cli import parse_seeds, remark, run_command, wrote
from .editing.refit import EditSettings
from .errors import UserError, meant
from .evaluation import gallery_edits, gallery_figures
from .evaluation.gallery_studio import FACES, Figure, Studio
from .files import write_text
from .kernels import use_backend
from .model.mean_face import fingerprint
from .options import CheckpointOptions, open_checkpoint
from .outputs import FOLDER, check_outputs, paths_in, save_page, save_picture
from .usage import Within, flag_of, is_given

FIGURES: dict[str, tuple[str, Callable[[Studio], Figure]]] = {
    "multiview": ("Generated faces from several sides", gallery_figures.multiview),
    "disentanglement": (
        "Geometry and appearance are separate codes",
        gallery_figures.disentanglement,
    ),
    "appearance": ("The appearance of one region changes", gallery_figures.appearance),
    "interpolation": ("Between two faces, in all codes or in one", gallery_figures.interpolation),
    "inversion": ("Inversion of a picture with a label map", gallery_figures.inversion),
    "edits": ("Editing through the label map", gallery_edits.edits),
    "transfer": ("Regions from one face to another", gallery_edits.transfers),
}
FIGURES_OF = {  # options that are for these figures alone
    **dict.fromkeys(("iterations", "image_weight"), {"edits", "transfer"}),
    **dict.fromkeys(("invert_iterations", "tune"), {"inversion"}),
}
RECORD = "gallery.json"


@dataclass(kw_only=True)
class GalleryOptions(CheckpointOptions):
    """Make a page of figures that shows what a checkpoint can do.

    Example: semfaceedit gallery --checkpoint RUN/generator-ema0.998.safetensors --out docs/gallery

    Writes README.md, one PNG per figure and gallery.json to --out, each figure as soon as it is
    finished; --only makes some of them again.
    """

    out: Annotated[Path, FOLDER] = Path("gallery")
    """Folder for the page."""
    only: tuple[str, ...] = ()
    """Figures to make: multiview, disentanglement, appearance, interpolation, inversion, edits,
    transfer (default: all)."""
    seeds: str = "0-15"
    """Generated faces to choose from, in this order."""
    resolution: Annotated[int | None, Within(4, 1024)] = None
    """Width and height of pictures in pixels (default: 1.5 times the checkpoint's)."""
    iterations: Annotated[int, Within(1)] = 150
    """Steps of each edit and transfer."""
    image_weight: Annotated[float, Within(0)] = EditSettings.image_weight
    """Weight of the image term in edits and transfers."""
    invert_iterations: Annotated[int, Within(1)] = 400
    """Steps of each inversion; the first two fifths fit the geometry alone."""
    tune: Annotated[int, Within(0)] = 150
    """Steps of pivotal tuning in the figure on inversion."""


@dataclass
class Record:
    """What the page is written from."""

    format: str = "semfaceedit-gallery"
    checkpoint: str = ""
    fingerprint: str = ""
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def commands(self) -> list[str]:
        """What made the figures; where commands differ, each names its own."""
        made: dict[str, list[str]] = {}
        for name, entry in self.figures.items():
            made.setdefault(entry["command"], []).append(name)
        if len(made) == 1:
            return list(made)
        return [f"{command} --only {' '.join(names)}" for command, names in made.items()]


def run(options: GalleryOptions) -> None:
    for name in options.only:
        if name not in FIGURES:
            near = meant(name, FIGURES)
            raise UserError(f"--only {name}{near}: the figures are {', '.join(FIGURES)}")
    seeds = parse_seeds(options.seeds)
    if len(seeds) < FACES:
        raise UserError(
            f"--seeds {options.seeds}: give at least {FACES}: the figures show as many "
            "faces beside one another"
        )
    chosen = [name for name in FIGURES if not options.only or name in options.only]
    for name, served in FIGURES_OF.items():
        if is_given(options, name) and not served & set(chosen):
            figures = " and ".join(sorted(served))
            remark(f"{flag_of(options, name)} has no effect here: it is for {figures}")
    pages = [options.out / name for name in (RECORD, "README.md")]
    check_outputs([*pages, *(options.out / f"{n}.png" for n in chosen)], paths_in(options))
    generator, run = open_checkpoint(options)
    studio = Studio(
        generator,
        seeds,
        resolution=options.resolution or 3 * run.model.resolution // 2,
        iterations=options.iterations,
        image_weight=options.image_weight,
        invert_iterations=options.invert_iterations,
        tune=options.tune,
    )
    record = _read(options.out, fingerprint(generator), keep=bool(options.only))
    record.checkpoint = generator.source.name if generator.source else ""
    command = _command(options, record.checkpoint)
    with use_backend(options.backend):
        for name in chosen:
            title, make = FIGURES[name]
            made = make(studio)
            path = options.out / f"{name}.png"
            _save(path, made.image)
            record.figures[name] = {
                "title": title, "command": command, "caption": made.caption, "facts": made.facts
            }  # fmt: skip
            write_text(options.out / RECORD, json.dumps(asdict(record), indent=1) + "\n")
            save_page(options.out / "README.md", _page(record, studio))
            wrote(path)
    wrote(options.out / "README.md")


def _read(out: Path, own: str, *, keep: bool) -> Record:
    """What is known of the figures that stay; none of another checkpoint."""
    if keep:
        try:
            facts = json.loads((out / RECORD).read_text())
            command = facts.pop("command", "")  # before each figure had its own
            found = Record(**facts)
            for entry in found.figures.values():
                entry.setdefault("command", command)
        except (OSError, ValueError, TypeError, AttributeError):
            return Record(fingerprint=own)
        if found.fingerprint != own:
            raise UserError(f"{out} holds figures of another checkpoint: leave --only out")
        return found
    return Record(fingerprint=own)


def _command(options: GalleryOptions, checkpoint: str) -> str:
    words = ["semfaceedit", "gallery", "--checkpoint", checkpoint, "--out", str(options.out)]
    for name in ("seeds", "resolution", "iterations", "image_weight", "invert_iterations", "tune"):
        value = getattr(options, name)
        if value != getattr(GalleryOptions, name):
            words += ["--" + name.replace("_", "-"), str(value)]
    return shlex.join(words)


def _page(record: Record, studio: Studio) -> str:
    model, commands = studio.generator.config, record.commands
    size = f", rendered at {studio.resolution}" if len(commands) == 1 else ""
    parts = [
        "# Gallery",
        f"Figures of `{record.checkpoint}` (fingerprint {record.fingerprint}), trained at "
        f"{model.resolution} x {model.resolution} pixels{size}. Made by",
        "```sh\n" + "\n".join(commands) + "\n```",
        "They re-make the experiments of the paper's section 4.2 (samples, disentanglement, "
        "interpolation, inversion, editing, transfer), with this checkpoint's faces in the place "
        "of photographs. Faces are the first seeds that show what a figure needs; none was picked "
        "by eye. Fits run without the VGG term, so that no foreign weights are needed. The same "
        "command on the same machine makes the same figures; `gallery.json` holds all numbers.",
    ]
    for name, entry in record.figures.items():
        parts += [f"## {entry['title']}", f"![{entry['title']}]({name}.png)", entry["caption"]]
    return "\n\n".join(parts) + "\n"


def _save(path: Path, image: Image.Image) -> None:
    """A palette of 256 colours keeps the page small."""
    save_picture(path, image.quantize(256, dither=Image.Dither.NONE), optimize=True)


def main(argv: list[str] | None = None) -> int:
    return run_command(GalleryOptions, run, argv, name="gallery")


if __name__ == "__main__":
    raise SystemExit(main())
