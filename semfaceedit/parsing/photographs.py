"""Photograph -> label map: the face is sought, and its map read off."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from ..data.align import Window, crop, fit_window, template_misfit
from ..data.decoding import read_image
from ..data.pose import landmarks_from_labels
from ..editing.target import save_label_map
from ..errors import UserError
from ..model.labels import CLASS_NAMES
from .network import BATCH, Parser, ParserSettings

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
