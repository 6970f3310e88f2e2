"""The frozen generator -> an encoder of faces: `python -m semfaceedit.train_encoder`."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from .cli import run_command, select_device, wrote
from .editing.encoder import FORMAT, Encoder, encoder_beside, find_encoder, save_encoder
from .editing.encoder_growth import carried_over
from .editing.encoder_report import FACES, lines, report
from .editing.encoder_training import STATE_FORMAT, TrainingSettings, train_encoder
from .errors import UserError
from .files import check_writable, write_text
from .kernels import use_backend
from .memory import keep_freed_memory
from .model.generator import Generator
from .options import CheckpointOptions, open_checkpoint
from .outputs import check_outputs, paths_in
from .procedural.sources import open_training_data
from .usage import Within, Without


@dataclass(kw_only=True)
class TrainEncoderOptions(CheckpointOptions):
    """Train the encoder of a checkpoint: `invert`, `edit`, `transfer` and `editor` start from what
    it reads, and need few steps.

    Example: semfaceedit train-encoder --checkpoint W.safetensors --data CelebAMask-HQ

    It learns from the generator's own samples, and from real pairs where --data names some; one
    pair in twenty is held out. Figures are printed and written to OUT.report.json. If interrupted,
    run the same command again to continue.
    """

    data: Path | None = None
    """Photographs with label maps, in any layout that `train` reads, such as those that the
    checkpoint was trained on (default: samples alone)."""
    init: Path | None = None
    """Weights that the checkpoint's were trained from: begin with their encoder."""
    heads: Annotated[int, Within(0)] = 0
    """Number of procedural heads to learn depth from too: for checkpoints of procedural faces."""
    out: Path | None = None
    """Encoder file to write (default: beside the weights W.safetensors, W-encoder.safetensors,
    where it is found without being named)."""
    minutes: Annotated[float, Within(above=0), Without("steps")] = TrainingSettings.minutes
    """Minutes of training, over all resumptions."""
    steps: Annotated[int | None, Within(1)] = None
    """Train for so many rounds instead."""
    learning_rate: Annotated[float, Within(above=0, most=1)] = TrainingSettings.learning_rate
    """AdamW's rate at the start."""
    seed: int = 0
    """Random seed of weights, samples and order."""
    report_faces: Annotated[int, Within(1)] = FACES
    """Faces of each kind that the report is measured on."""


def run(options: TrainEncoderOptions) -> None:
    generator, _ = open_checkpoint(options)
    assert generator.source is not None  # where it was loaded from
    out = options.out or encoder_beside(generator.source)
    if out.suffix != ".safetensors" or out.is_dir():
        raise UserError(f"--out {out}: name a file that ends in .safetensors")
    check_writable(out)  # which may lie beside the weights
    keep, told = out.with_suffix(".training.safetensors"), out.with_suffix(".report.json")
    inputs = [*paths_in(options), generator.source]
    check_outputs([out], inputs, kind=FORMAT)
    check_outputs([keep], inputs, kind=STATE_FORMAT)
    check_outputs([told], inputs)
    if select_device(options.device).type == "cpu":
        keep_freed_memory()
    data = None
    if options.data is not None:
        data = open_training_data(options.data, resolution=32, procedural_count=0)
    start = None if options.init is None else _start(options.init, generator)
    settings = TrainingSettings(
        minutes=options.minutes,
        steps=options.steps,
        heads=options.heads,
        seed=options.seed,
        learning_rate=options.learning_rate,
    )
    with use_backend(options.backend):
        encoder = train_encoder(generator, settings, data=data, keep=keep, start=start)
        save_encoder(out, encoder, generator, {})
        keep.unlink(missing_ok=True)
        wrote(out, f"{out.stat().st_size / 1e6:.1f} MB")
        found = report(
            generator, encoder, data=data, heads=options.heads > 0, faces=options.report_faces
        )
    for line in lines(found):
        print(line, file=sys.stderr)
    write_text(told, json.dumps({"format": f"{FORMAT}-report", **found}, indent=1) + "\n")
    wrote(told)


def _start(init: Path, generator: Generator) -> Encoder:
    """The encoder of the weights `init`, for those that came of them."""
    old = Generator.from_checkpoint(init).to(generator.device)
    encoder = find_encoder(old)
    if encoder is None:
        raise UserError(f"--init {init}: no encoder lies beside these weights: train one first")
    return carried_over(encoder, old, generator)


def main(argv: list[str] | None = None) -> int:
    return run_command(TrainEncoderOptions, run, argv, name="train-encoder")


if __name__ == "__main__":
    raise SystemExit(main())
