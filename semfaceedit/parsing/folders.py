"""A folder of photographs without label maps -> maps beside it, as a source to prepare."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..cli import progress, remark
from ..data.layouts import IMAGE_SUFFIXES, Source, SourcePair
from ..data.pose import Landmarks, landmarks_from_labels
from ..errors import UserError
from ..files import write_text
from .network import Parser, ParserSettings
from .photographs import parse_file

RECORD = "faces.json"  # beside the maps: pose and, where the map shows none, landmarks


def photographs_in(folder: Path) -> list[Path]:
    """Pictures of a folder, or of its `images/`, by name; UserError where there are none."""
    where = folder / "images" if (folder / "images").is_dir() else folder
    if not where.is_dir():
        raise UserError(f"{folder}: no such folder: give the folder that holds the photographs")
    found = sorted(p for p in where.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UserError(f"{where}: holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    names = [path.stem for path in found]
    doubles = sorted({name for name in names if names.count(name) > 1})
    if doubles:
        raise UserError(f"{where}: several photographs are named {doubles[0]}: rename one")
    return found


def read_folder(
    folder: Path, masks: Path, *, parser: tuple[Parser, ParserSettings] | None = None
) -> tuple[Source, dict[str, Landmarks]]:
    """Read the maps of a folder's photographs into `masks`, and pair them.

    Maps that are there are kept, so that they can be mended and a stopped command goes on.
    Photographs in which no face is seen are skipped, with the reason. Returned with the source are
    the landmarks of faces whose maps show none.
    """
    images = photographs_in(folder)
    masks.mkdir(parents=True, exist_ok=True)
    record = _recorded(masks / RECORD)
    faces, skipped = [], {}
    for image in progress(images, total=len(images), title="reading label maps"):
        path = masks / f"{image.stem}.png"
        if not path.is_file() or image.stem not in record:
            try:
                face = parse_file(image, path, parser=parser)
            except UserError as error:
                skipped[image.stem] = str(error)
                remark(f"skipped: {error}")
                continue
            bare = landmarks_from_labels(face.labels) is None
            points = face.landmarks.points.tolist() if bare else None
            record[image.stem] = {"pose": face.pose, "landmarks": points}
            write_text(masks / RECORD, json.dumps(record))
        yaw, pitch = record[image.stem]["pose"]
        faces.append(SourcePair(image.stem, image, (path,), pose=(yaw, pitch), pose_source="mesh"))
    if not faces:
        raise UserError(f"{folder}: no face was found in {len(images)} photographs")
    given = {
        face.name: Landmarks(np.array(record[face.name]["landmarks"]))
        for face in faces
        if record[face.name]["landmarks"] is not None
    }
    return Source(folder, "photographs", faces, skipped=skipped), given


def _recorded(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}): remove it") from None
