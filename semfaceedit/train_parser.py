"""Pairs -> a network that reads maps off photographs: `python -m semfaceedit.train_parser`."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from .cli import run_command, select_device, wrote
from .errors import UserError
from .memory import keep_freed_memory
from .model.labels import GROUP_NAMES, GROUP_OF_CLASS
from .outputs import check_outputs, paths_in
from .parsing.network import FORMAT, ParserSettings, held_out_score, save_parser, train_parser
from .procedural.sources import open_training_data
from .usage import Within, Without

WIDTHS = (16, 32, 64, 96, 128)


@dataclass(kw_only=True)
class TrainParserOptions:
    """Train a small network that predicts the label map of a photograph, for `parse` and `invert`.

    Example: semfaceedit train-parser --data CelebAMask-HQ --out parser.safetensors

    One pair in eight is held out; the score on those is printed and stored in the file. If
    interrupted, run the same command again to continue.
    """

    data: Path | None = None
    """Photographs with label maps, in any layout that `train` reads (default: procedural faces,
    which teach nothing about photographs)."""
    procedural_count: Annotated[int, Within(1, 10_000_000), Without("data")] = 3000
    """Number of procedural faces, without --data."""
    out: Path = Path("parser.safetensors")
    """Network file to write."""
    resolution: Annotated[int, Within(16, 1024)] = 128
    """Width and height in pixels of the crops that the network reads."""
    steps: Annotated[int, Within(1)] = 4000
    """Training steps, of 16 pictures each."""
    seed: int = 0
    """Random seed of weights, order and augmentation."""
    device: str | None = None
    """cpu, cuda or cuda:N (default: CUDA if available)."""


def run(options: TrainParserOptions) -> None:
    if options.out.suffix != ".safetensors" or options.out.is_dir():
        raise UserError(f"--out {options.out}: name a file that ends in .safetensors")
    if options.resolution % 16:
        raise UserError(f"--resolution {options.resolution}: use a multiple of 16 up to 1024")
    device = select_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    check_outputs([options.out], paths_in(options), kind=FORMAT)
    data = open_training_data(
        options.data, resolution=options.resolution, procedural_count=options.procedural_count
    )
    settings = ParserSettings(
        options.resolution, options.steps, options.seed, WIDTHS, warp=True, balance=True
    )
    keep = options.out.with_suffix(".training.safetensors")
    check_outputs([keep], paths_in(options))
    parser = train_parser(data, settings, device, keep=keep)
    score, count = held_out_score(parser, data, options.resolution, GROUP_OF_CLASS)
    facts = {
        "pictures": len(data) - count,
        "held_out": {"pictures": count, "miou_groups": score.groups, "miou_classes": score.classes},
    }
    save_parser(options.out, parser, settings, facts)
    keep.unlink(missing_ok=True)
    groups = ", ".join(
        f"{name} {value:.3f}" for name, value in zip(GROUP_NAMES, score.per_group, strict=True)
    )
    print(
        f"on {count} pictures not trained on: mIoU {score.groups:.3f} over groups ({groups}), "
        f"{score.classes:.3f} over classes",
        file=sys.stderr,
    )
    wrote(options.out)


def main(argv: list[str] | None = None) -> int:
    return run_command(TrainParserOptions, run, argv, name="train-parser")


if __name__ == "__main__":
    raise SystemExit(main())
