"""Faces located in photographs, cropped and packed for training."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..cli import progress
from ..errors import UserError
from ..files import cache_root
from ..model.labels import FLIP_IDS
from .align import ALIGNMENT_VERSION, Window, choose_window, crop_pair
from .layouts import DECODING_VERSION, Face, Source, read_image, read_labels
from .packing import PACKED_VERSION, Item, is_packed, pack
from .pose import Landmarks, estimate_pose, landmarks_from_labels, outline_middle, sides_exchanged


def cache_folder(source: Source, resolution: int, *, align: bool = True) -> Path:
    """Where the packed form of `source` belongs."""
    key = source_key(source, resolution, align=align)
    return cache_root() / f"{source.root.resolve().name}-{resolution}-{key}"


def source_key(
    source: Source,
    resolution: int,
    *,
    align: bool = True,
    landmarks: dict[str, Landmarks] | None = None,
) -> str:
    """A hash of where the files are, their sizes and times, and how they are packed."""
    versions = (PACKED_VERSION, ALIGNMENT_VERSION, DECODING_VERSION)
    settings = (*versions, resolution, align and not source.rendered)
    digest = hashlib.sha256(repr((str(source.root.resolve()), source.layout, settings)).encode())
    for path in source.files():
        try:
            state = path.stat()
        except OSError as error:
            raise UserError(
                f"{path}: cannot be read ({error.strerror}): replace the file, or remove it "
                "together with its image or mask"
            ) from None
        digest.update(os.fsencode(path.name))
        digest.update(f"\0{state.st_size}\0{state.st_mtime_ns}\n".encode())
    for face in source.faces:
        digest.update(repr((face.name, face.pose)).encode())
    for name, given in sorted((landmarks or {}).items()):
        digest.update(repr((name, given.points.tolist())).encode())
    return digest.hexdigest()[:16]


def holds_source(folder: Path, key: str) -> bool:
    """Whether `folder` is the packed form of the source with that key."""
    if not is_packed(folder):
        return False
    return json.loads((folder / "dataset.json").read_text()).get("source_key") == key


@dataclass(frozen=True)
class LocatedFace:
    """A decoded pair and where the face is in it."""

    face: Face
    image: np.ndarray  # (H, W, 3) uint8
    labels: np.ndarray  # (h, w) uint8, of the same aspect
    landmarks: Landmarks | None  # pixels of the image
    window: Window  # pixels of the image
    crop: str  # what decided the window: see align.choose_window, or "whole"
    sides_exchanged: bool  # left and right ids have changed places while reading


@dataclass(frozen=True)
class PreparedFace:
    """A face cropped to the packed resolution."""

    name: str
    image: np.ndarray  # (R, R, 3) uint8
    labels: np.ndarray  # (R, R) uint8
    pose: np.ndarray  # (2,) float32, NaN where unknown
    pose_source: str  # "exact", "table", "mesh", "landmarks" or "unknown"
    crop: str
    sides_exchanged: bool


def pack_source(
    source: Source,
    out: Path,
    *,
    resolution: int,
    align: bool = True,
    landmarks: dict[str, Landmarks] | None = None,
) -> None:
    """Decode, align and pack every pair of `source` into the folder `out`, with progress."""
    align = align and not source.rendered
    info: dict[str, Any] = {
        "layout": source.layout,
        "source": str(source.root.resolve()),
        "source_key": source_key(source, resolution, align=align, landmarks=landmarks),
        "aligned": align,
        "alignment_version": ALIGNMENT_VERSION,
        "crop": [],
        "pose_source": [],
        "sides_exchanged": [],
        "skipped": source.skipped,
    }

    def prepare(face: Face) -> PreparedFace:
        given = (landmarks or {}).get(face.name)
        located = locate(face, align=align, landmarks=given, rendered=source.rendered)
        return prepare_face(located, resolution)

    def items() -> Iterator[Item]:
        prepared = _parallel(prepare, source.faces)
        for face in progress(
            prepared, total=len(source.faces), title=f"packing {source.root.name}"
        ):
            info["crop"].append(face.crop)
            info["pose_source"].append(face.pose_source)
            info["sides_exchanged"] += [face.name] * face.sides_exchanged
            yield face.name, face.image, face.labels, face.pose

    pack(items(), len(source.faces), resolution, out, info)


def locate(
    face: Face,
    *,
    align: bool = True,
    landmarks: Landmarks | None = None,
    rendered: bool = False,
) -> LocatedFace:
    """Decode a pair, set its left and right ids straight and choose its window.

    landmarks: in pixels of the image; UserError where they fit no face. None: derived from the
    label map.
    """
    image, labels = read_image(face.image), read_labels(face)
    _check_aspect(face, image, labels)
    if rendered:
        window, _ = choose_window(None, image.shape[1], image.shape[0])
        return LocatedFace(face, image, labels, None, window, "whole", False)
    exchanged = sides_exchanged(labels)
    if exchanged:
        labels = FLIP_IDS.astype(np.uint8)[labels]
    factor = image.shape[1] / labels.shape[1]
    if landmarks is not None:
        if choose_window(landmarks, image.shape[1], image.shape[0])[1] == "centre":
            raise UserError(
                f"{face.image}: the landmarks given for it fit no face: check their order (eyes "
                "from the image's left, nose tip, mouth corners) and that they are pixels of it"
            )
        outline = outline_middle(labels, landmarks.points / factor)
        landmarks = Landmarks(landmarks.points, None if outline is None else outline * factor)
    elif (derived := landmarks_from_labels(labels)) is not None:
        landmarks = derived.scaled(factor)
    window, crop = choose_window(landmarks if align else None, image.shape[1], image.shape[0])
    return LocatedFace(face, image, labels, landmarks, window, crop, exchanged)


def prepare_face(located: LocatedFace, resolution: int) -> PreparedFace:
    """Cut the window out, and estimate the pose where the source gives none."""
    face, landmarks = located.face, located.landmarks
    image, labels = crop_pair(located.image, located.labels, located.window, resolution)
    pose, pose_source = face.pose, face.pose_source
    if pose is None and landmarks is not None:
        pose, pose_source = _estimate(landmarks, located.window), "landmarks"
    values = np.array(pose if pose is not None else (np.nan, np.nan), np.float32)
    return PreparedFace(
        face.name, image, labels, values, pose_source, located.crop, located.sides_exchanged
    )


def _estimate(landmarks: Landmarks, window: Window) -> tuple[float, float]:
    points, outline = landmarks.points, landmarks.outline
    centred = None if outline is None else window.to_crop(outline, 2) - 1
    return estimate_pose(window.to_crop(points, 2) - 1, centred)


def _check_aspect(face: Face, image: np.ndarray, labels: np.ndarray) -> None:
    (height, width), (mask_height, mask_width) = image.shape[:2], labels.shape
    if abs(width * mask_height - height * mask_width) > max(height, width):
        raise UserError(
            f"{face.masks[0]}: {mask_width}x{mask_height} pixels, but {face.image.name} has "
            f"{width}x{height}: mask and image must show the same area, crop one like the other"
        )


def _parallel(function: Any, items: Sequence[Any]) -> Iterator[Any]:
    """Map in threads, in order, a bounded number ahead (decoding and scaling release the GIL)."""
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2
    with ThreadPoolExecutor(workers) as pool:
        waiting = iter(items)
        pending = [pool.submit(function, item) for item in islice(waiting, 2 * workers)]
        while pending:
            result = pending.pop(0).result()
            pending.extend(pool.submit(function, item) for item in islice(waiting, 1))
            yield result
