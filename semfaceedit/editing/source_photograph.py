"""Which file a face was inverted from, and where in it the face is."""

from pathlib import Path

import numpy as np
from PIL import Image

from ..cli import remark
from ..data.align import Window, crop
from ..data.decoding import read_image
from ..errors import UserError
from ..files import sha256_of_file
from .project import FaceProject
from .target import SourceCrop

COMPARED = 64  # pixels along the crop, at which two photographs are compared
COPY, OTHER = 0.97, 0.85
"""Correlations of greys: from COPY on a copy, below OTHER another picture. Of 545,490 pairs of
aligned portraits 99.99 % are below 0.84, and what is above is of one sitting; copies of other
sizes, in grey, darker or of JPEG's quality 20 have 0.99, strongly recoloured ones 0.92 and more."""


class NoPhotograph(UserError):
    """There is no photograph to paste into: `fact` says why, without what to do about it."""

    def __init__(self, fact: str, way_out: str):
        super().__init__(f"{fact}: {way_out}")
        self.fact = fact.removeprefix("--paste: ")


def find_photograph(
    project: FaceProject, given: Path | None = None, near: Path | None = None
) -> Path:
    """The photograph that a face was inverted from.

    given: another file that shows the same picture, of any size; UserError where it clearly does
    not, a remark where it may not. near: the project's file, beside
    which the photograph is looked for where it is not in its old place. UserError where there is
    none, or where it changed since.
    """
    source = project.crop
    if source is None:
        raise NoPhotograph(
            "--paste: this face was not inverted from a photograph",
            "leave --paste out, or `invert` one",
        )
    known = source.photograph
    if given is not None:
        like = check_given(project.image, source, given)
        if like < COPY:
            remark(
                f"{given}: is not the very file that the face was inverted from, and looks a "
                f"little different (correlation {like:.2f})"
            )
        return given
    if known is None:
        raise NoPhotograph(
            "--paste: the face project does not say which photograph it was inverted from",
            "give it with --photograph",
        )
    places = [Path(known.path)]
    if near is not None:
        places.append(near.parent / places[0].name)
    found = [path for path in places if path.is_file()]
    for path in found:
        if path.stat().st_size == known.bytes and sha256_of_file(path) == known.sha256:
            return path
    if found:
        raise NoPhotograph(
            f"{found[0]}: changed since the face was inverted from it",
            "invert it again, or give the right file with --photograph",
        )
    raise NoPhotograph(
        f"{known.path}: the photograph is no longer there", "give it with --photograph"
    )


def check_given(picture: np.ndarray, source: SourceCrop, given: Path) -> float:
    """How like a photograph is to a face's picture (R, R, 3), cut from the photograph of `source`:
    the correlation of the greys, 1 for the same file. UserError where it shows another picture."""
    if given.is_dir():
        raise UserError(f"--photograph {given} is a folder: give the photograph in it")
    if not given.is_file():
        raise UserError(f"--photograph {given}: no such file: check the path")
    if source.photograph is not None and sha256_of_file(given) == source.photograph.sha256:
        return 1.0
    pixels = read_image(given)
    window = window_on(source, pixels.shape[1], pixels.shape[0])
    like = likeness(picture, crop(pixels, window, COMPARED, Image.Resampling.BOX))
    if like < OTHER:
        raise UserError(
            f"--photograph {given}: shows another picture than the face was inverted from "
            f"(correlation {like:.2f}): give that photograph, or start anew from this one with "
            "--image"
        )
    return like


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """The correlation of the greys of two pictures (h, w, 3) uint8 of any size."""
    a, b = (
        np.asarray(
            Image.fromarray(picture).convert("L").resize((COMPARED,) * 2, Image.Resampling.BOX)
        ).astype(np.float64)
        for picture in (one, other)
    )
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / size if size else float(np.array_equal(one, other))


def window_on(source: SourceCrop, width: int, height: int) -> Window:
    """The crop's window on a photograph of that size; UserError where it has another shape."""
    known = source.photograph
    wanted = (known.width, known.height) if known else (source.width, source.height)
    if abs(width / height * wanted[1] / wanted[0] - 1) > 2 / min(*wanted, width, height):
        raise UserError(
            f"--photograph: {width}x{height} pixels are not the shape of the photograph that the "
            f"face was inverted from ({wanted[0]}x{wanted[1]}): give that, or invert this one"
        )
    return source.window.scaled(width / source.width)
