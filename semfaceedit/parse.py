"""Photograph -> label map: `python -m semfaceedit.parse`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from .cli import progress, remark, run_command, select_device, wrote
from .errors import UserError
from .outputs import FOLDER, check_outputs
from .parsing.folders import photographs_in
from .parsing.network import load_parser
from .parsing.photographs import parse_file
from .usage import With, Within


@dataclass(kw_only=True)
class ParseOptions:
    """Read label maps off photographs.

    `invert`, `prepare --masks auto` and the editor do this by themselves; here the maps can be
    mended first. Example: semfaceedit parse --images photo.jpg --out masks
    """

    images: tuple[Path, ...]
    """Photographs, or folders of them."""
    out: Annotated[Path, FOLDER] = Path("masks")
    """Folder for NAME.png, palette pictures of CelebAMask-HQ ids."""
    face: Annotated[int, Within(1)] = 1
    """Which face of a photograph: 1 the largest, 2 the next."""
    parser: Path | None = None
    """A network of `train-parser` in place of the one that ships."""
    device: Annotated[str | None, With("parser")] = None
    """Where --parser runs: cpu, cuda or cuda:N."""


def run(options: ParseOptions) -> None:
    device = select_device(options.device)
    parser = None if options.parser is None else load_parser(options.parser, device)
    images = [
        path
        for given in options.images
        for path in (photographs_in(given) if given.is_dir() else [given])
    ]
    doubles = {path.stem for path in images if sum(p.stem == path.stem for p in images) > 1}
    if not images:
        raise UserError("--images: name photographs or folders of them")
    if doubles:
        raise UserError(f"several photographs are named {min(doubles)}: parse them apart")
    maps = [options.out / f"{image.stem}.png" for image in images]
    check_outputs(maps, [*images, *([options.parser] if options.parser else [])])
    failed = []
    pairs = zip(images, maps, strict=True)
    for image, path in progress(pairs, total=len(images), title="photographs"):
        try:
            face = parse_file(image, path, parser=parser, number=options.face)
        except UserError as error:
            failed.append(str(error))
            continue
        for said in face.remarks:
            remark(f"{image}: {said}")
        wrote(path)
    if failed:
        of = f"{len(failed)} of {len(images)} photographs failed: " if len(failed) > 1 else ""
        raise UserError(of + "; ".join(failed))


def main(argv: list[str] | None = None) -> int:
    return run_command(ParseOptions, run, argv, name="parse")


if __name__ == "__main__":
    raise SystemExit(main())
