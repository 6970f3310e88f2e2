"""Landmarks of faces, read from a file of lines or JSON."""

import json
from pathlib import Path

import numpy as np

from ..errors import UserError
from .layouts import IMAGE_SUFFIXES, Source, composed
from .pose import Landmarks


def read_points(path: Path) -> dict[str, np.ndarray]:
    """Five points (5, 2) a face, by name in Unicode's composed form."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check --landmarks") from None
    try:
        text = data.decode("utf-8-sig")  # Windows begins UTF-8 with a mark
    except UnicodeDecodeError:
        kind = "UTF-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "another encoding"
        raise UserError(f"{path}: is text of {kind}: save it as UTF-8") from None
    given = _parse_json(text, path) if text.lstrip().startswith("{") else _parse_lines(text, path)
    if not given:
        raise UserError(f"{path}: holds no landmarks: name another file, or leave out --landmarks")
    for name, points in given.items():
        if points.shape != (5, 2) or not np.isfinite(points).all():
            raise UserError(f"{path}: {name!r} needs five points x y: correct or remove it")
    return {composed(name): points for name, points in given.items()}


def landmarks_of(points: dict[str, np.ndarray], source: Source, path: Path) -> dict[str, Landmarks]:
    """What `read_points` read from `path`, by the names of `source`, to which all must belong."""
    names = {face.name for face in source.faces}
    found = {name if name in names else _bare(name): five for name, five in points.items()}
    for name in found:
        if name not in names:
            raise UserError(f"{path}: {name!r} is no face of {source.root}: correct or remove it")
    return {name: Landmarks(five) for name, five in found.items()}


def _parse_json(text: str, path: Path) -> dict[str, np.ndarray]:
    try:
        values = json.loads(text)
        return {name: np.array(points, np.float64) for name, points in values.items()}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a JSON object of points ({error}): correct it") from None


def _parse_lines(text: str, path: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, *fields = line.strip().rsplit(None, 10)  # a name may hold spaces
        try:
            found[name] = np.array(fields, np.float64).reshape(5, 2)
        except ValueError:
            raise UserError(
                f"{path}: line {number} is not a name and ten numbers: correct or remove it"
            ) from None
    return found


def _bare(name: str) -> str:
    """A face's name from that of its picture: `images/a.b.jpg` -> `a.b`."""
    path = Path(name)
    return path.stem if path.suffix.lower() in IMAGE_SUFFIXES else path.name
