"""Photograph -> label map: `python -m semfaceedit.parse`.

The parser is trained on aligned crops, so the face is sought first: squares of several sizes all
over the photograph are parsed, and those count whose parse asks for nearly that crop. The crops
asked for are parsed again, and the one that most nearly asks for itself is taken.
"""

from dataclasses import dataclass
from pathlib import Path

from .cli import run_command, select_device, wrote
from .data.layouts import IMAGE_SUFFIXES
from .errors import UserError
from .options import make_folder
from .outputs import check_outputs
from .parsing.network import load_parser
from .parsing.photographs import parse_file


@dataclass(kw_only=True)
class ParseOptions:
    """Read label maps off photographs, with a parser that `train-parser` made.

    `invert --parser` does this by itself. Example: semfaceedit parse --parser parser.safetensors
    --images photo.jpg --out masks
    """

    parser: Path
    """A network of `train-parser`."""
    images: tuple[Path, ...]
    """Photographs, or folders of them."""
    out: Path = Path("masks")
    """Folder for NAME.png, palette pictures of CelebAMask-HQ ids."""
    device: str | None = None
    """cpu, cuda or cuda:N."""


def run(options: ParseOptions) -> None:
    parser, settings = load_parser(options.parser, select_device(options.device))
    images = [path for given in options.images for path in _photographs(given)]
    doubles = {path.stem for path in images if sum(p.stem == path.stem for p in images) > 1}
    if doubles:
        raise UserError(f"several photographs are named {min(doubles)}: parse them apart")
    maps = [options.out / f"{image.stem}.png" for image in images]
    check_outputs(maps, [*images, options.parser])
    make_folder(options.out)
    failed = []
    for image, path in zip(images, maps, strict=True):
        try:
            parse_file(parser, settings, image, path)
        except UserError as error:
            failed.append(str(error))
            continue
        wrote(path)
    if failed:
        more = f" ({len(failed) - 1} more of {len(images)} failed)" if len(failed) > 1 else ""
        raise UserError(failed[0] + more)


def _photographs(given: Path) -> list[Path]:
    if not given.is_dir():
        return [given]
    found = sorted(p for p in given.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UserError(f"{given}: holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return found


def main(argv: list[str] | None = None) -> int:
    return run_command(ParseOptions, run, argv, name="parse")


if __name__ == "__main__":
    raise SystemExit(main())
