"""The generator's own samples -> sliders: `python -m semfaceedit.find_directions`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from .cli import run_command, select_device, wrote
from .editing.directions import FindSettings, find_directions
from .editing.sliders import KIND, table
from .errors import UserError
from .files import check_writable
from .kernels import use_backend
from .memory import keep_freed_memory
from .options import CheckpointOptions, open_checkpoint
from .outputs import check_outputs, paths_in
from .usage import Within


@dataclass(kw_only=True)
class FindDirectionsOptions(CheckpointOptions):
    """Find the sliders of a checkpoint: moves that change one thing each, such as the opening of
    the mouth or the hue of the hair.

    Example: semfaceedit find-directions --checkpoint W.safetensors

    Faces are drawn and measured; nothing else is needed. It takes some minutes of one core, and
    prints how well each slider does what it says.
    """

    out: Path | None = None
    """File to write (default: beside the weights W.safetensors, W-directions.safetensors, where it
    is found without being named)."""
    samples: Annotated[int, Within(50, 1_000_000)] = FindSettings.samples
    """Faces that are measured."""
    judged: Annotated[int, Within(1, 1_000_000)] = FindSettings.judged
    """Faces, drawn afterwards, on which each slider is judged."""
    seed: int = 0
    """Random seed of the faces."""


def run(options: FindDirectionsOptions) -> None:
    generator, _ = open_checkpoint(options)
    assert generator.source is not None  # where it was loaded from
    out = options.out or KIND.beside(generator.source)
    if out.suffix != ".safetensors" or out.is_dir():
        raise UserError(f"--out {out}: name a file that ends in .safetensors")
    check_writable(out)  # which may lie beside the weights
    check_outputs([out], [*paths_in(options), generator.source], kind=KIND.format)
    if select_device(options.device).type == "cpu":
        keep_freed_memory()
    settings = FindSettings(samples=options.samples, judged=options.judged, seed=options.seed)
    with use_backend(options.backend):
        found = find_directions(
            generator, settings, say=lambda text: print(text, file=sys.stderr, flush=True)
        )
    print(table(found, everything=True))
    found.save(out, generator)
    wrote(out, f"{len(found.offered)} sliders")


def main(argv: list[str] | None = None) -> int:
    return run_command(FindDirectionsOptions, run, argv, name="find-directions")


if __name__ == "__main__":
    raise SystemExit(main())
