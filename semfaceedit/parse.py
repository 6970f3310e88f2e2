"""Photograph -> label map: `python -m semfaceedit.parse`.

The parser is trained on aligned crops, so the face is sought first: squares of several sizes all
over the photograph are parsed, and those count whose parse asks for nearly that crop. The crops
asked for are parsed again, and the one that most nearly asks for itself is taken.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from .cli import run_command, select_device, wrote
from .data.align import Window, crop, fit_window, template_misfit
from .data.layouts import IMAGE_SUFFIXES, read_image
from .data.pose import landmarks_from_labels
from .editing.target import save_label_map
from .errors import UserError
from .model.labels import CLASS_NAMES
from .parsing.network import BATCH, Parser, ParserSettings, load_parser

SMALLEST = 0.2  # side of the smallest square tried, in the photograph's shorter sides
ZOOM = math.sqrt(2)  # between sizes of squares; the parser was trained within 1.5 of the right one
STRIDE = 0.25  # between squares, in their sides
TOLERANCE = 0.35  # how far from the asked crop a square may be, in sides and in powers of e
MISFIT = 0.03  # of landmarks from the template, in sides of the crop; faces have 0.01
MARGIN = 1.15  # of the last crop, whose border then lies outside the aligned one
LARGEST_MAP = 1024  # pixels along the longer edge of a label map
BACKGROUND = CLASS_NAMES.index("background")


def read_labels_off(
    parser: Parser,
    settings: ParserSettings,
    image: np.ndarray,  # (H, W, 3) uint8
) -> np.ndarray | None:
    """The label map (h, w) uint8 of a photograph's face, of its aspect; None where none is found.

    The longer edge of the map is the photograph's, at most 1024. What lies outside the face's crop
    is background.
    """
    window = find_face(parser, settings, image)
    if window is None:
        return None
    scale = min(1.0, LARGEST_MAP / max(image.shape[:2]))
    height, width = (max(1, round(scale * edge)) for edge in image.shape[:2])
    wide = _about(window, MARGIN)
    size = max(settings.resolution, round(scale * wide.side))
    with torch.no_grad():
        scores = _scores(parser, settings, image, [wide])
        found = interpolate(scores, size=(size, size), mode="bilinear", align_corners=False)
    labels = found[0].argmax(0).to(torch.uint8).cpu().numpy()
    return _placed(labels, wide.scaled(scale), height, width)


def find_face(parser: Parser, settings: ParserSettings, image: np.ndarray) -> Window | None:
    """The crop that alignment asks for, in pixels of the photograph; None where no face is seen.

    A crop counts only if its own parse asks for it again.
    """
    found: list[tuple[float, Window]] = []
    squares = list(_squares(image.shape[1], image.shape[0]))
    for first in range(0, len(squares), BATCH):
        found += _confirmed(parser, settings, image, squares[first : first + BATCH])
    nearest = [window for _, window in sorted(found, key=lambda pair: pair[0])[:BATCH]]
    again = _confirmed(parser, settings, image, nearest) if nearest else []
    return min(again, key=lambda pair: pair[0])[1] if again else None


def _confirmed(
    parser: Parser, settings: ParserSettings, image: np.ndarray, windows: list[Window]
) -> list[tuple[float, Window]]:
    """What the windows' parses ask for, with its distance, where that is near."""
    asked = _asked(parser, settings, image, windows)
    pairs = [(_distance(w, a), a) for w, a in zip(windows, asked, strict=True) if a is not None]
    return [pair for pair in pairs if pair[0] < TOLERANCE]


def _asked(
    parser: Parser, settings: ParserSettings, image: np.ndarray, windows: list[Window]
) -> Iterator[Window | None]:
    """Where the landmarks of each window's parse put the crop; None where they are no face's."""
    with torch.no_grad():
        parsed = _scores(parser, settings, image, windows).argmax(1).cpu().numpy()
    for window, labels in zip(windows, parsed, strict=True):
        landmarks = landmarks_from_labels(labels)
        fitted = None if landmarks is None else fit_window(landmarks)
        if landmarks is None or fitted is None or template_misfit(landmarks, fitted) > MISFIT:
            yield None
            continue
        scaled = fitted.scaled(window.side / settings.resolution)
        yield Window(window.left + scaled.left, window.top + scaled.top, scaled.side)


def _scores(
    parser: Parser, settings: ParserSettings, image: np.ndarray, windows: list[Window]
) -> Tensor:
    """Class scores (B, 19, R, R) of crops."""
    crops = [crop(image, w, settings.resolution, Image.Resampling.LANCZOS) for w in windows]
    pictures = torch.from_numpy(np.stack(crops)).movedim(-1, 1).float() / 127.5 - 1
    return parser(pictures.to(next(parser.parameters()).device))


def _squares(width: int, height: int) -> Iterator[Window]:
    """Squares over the whole photograph, the largest a little beyond its shorter side."""
    side = ZOOM * min(width, height)
    while side >= SMALLEST * min(width, height):
        for top in _places(height, side):
            yield from (Window(left, top, side) for left in _places(width, side))
        side /= ZOOM


def _places(edge: int, side: float) -> list[float]:
    """Where squares begin along an edge, evenly from one end to the other."""
    free = edge - side
    count = 1 + math.ceil(abs(free) / (STRIDE * side))
    return [free * index / (count - 1) if count > 1 else free / 2 for index in range(count)]


def _distance(square: Window, asked: Window) -> float:
    moved = math.hypot(
        asked.left + asked.side / 2 - square.left - square.side / 2,
        asked.top + asked.side / 2 - square.top - square.side / 2,
    )
    return math.hypot(moved / square.side, math.log(asked.side / square.side))


def _about(window: Window, factor: float) -> Window:
    """The window enlarged about its middle."""
    more = (factor - 1) * window.side / 2
    return Window(window.left - more, window.top - more, factor * window.side)


def _placed(labels: np.ndarray, window: Window, height: int, width: int) -> np.ndarray:
    """A square map put where `window` is on a map of background of that size."""
    made = np.full((height, width), BACKGROUND, np.uint8)
    rows, columns = (
        np.floor((np.arange(edge) + 0.5 - start) * len(labels) / window.side).astype(int)
        for edge, start in ((height, window.top), (width, window.left))
    )
    inside = [(0 <= places) & (places < len(labels)) for places in (rows, columns)]
    made[np.ix_(*inside)] = labels[rows[inside[0]]][:, columns[inside[1]]]
    return made


def parse_file(parser: Parser, settings: ParserSettings, image: Path, out: Path) -> None:
    """Write the label map of a photograph; UserError where no face is found."""
    labels = read_labels_off(parser, settings, read_image(image))
    if labels is None:
        raise UserError(
            f"{image}: no face was found: crop the photograph so that the face fills a fifth of it "
            "or more, or paint its label map"
        )
    save_label_map(out, labels)


@dataclass(kw_only=True)
class Options:
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


def parse_files(options: Options) -> None:
    parser, settings = load_parser(options.parser, select_device(options.device))
    images = [path for given in options.images for path in _photographs(given)]
    doubles = {path.stem for path in images if sum(p.stem == path.stem for p in images) > 1}
    if doubles:
        raise UserError(f"several photographs are named {min(doubles)}: parse them apart")
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for image in images:
        path = options.out / f"{image.stem}.png"
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
    return run_command(Options, parse_files, argv, name="parse")


if __name__ == "__main__":
    raise SystemExit(main())
