"""Faces located in photographs, cropped and packed for training."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..cli import progress, remark
from ..errors import UserError
from ..files import cache_root
from ..model.labels import FLIP_IDS
from .align import (
    ALIGNMENT_VERSION,
    Window,
    choose_window,
    crop_pair,
    fit_window,
    template_misfit,
)
from .decoding import read_photograph
from .layouts import DECODING_VERSION, Source, SourcePair, read_labels
from .mask_checks import doubt_about
from .packing import PACKED_VERSION, Item, is_packed, pack_dataset
from .pose import Landmarks, estimate_pose, landmarks_from_labels, outline_middle, sides_exchanged
from .several_faces import face_centres, largest_face

CHECKED = 48  # maps of a source, before it is packed
DOUBTFUL = 0.2  # of them, above which the source is refused
SAID = 10  # faces that cannot be used, named one by one


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
        digest.update(repr((face.name, face.pose, face.order)).encode())
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

    face: SourcePair
    image: np.ndarray  # (H, W, 3) uint8
    labels: np.ndarray  # (h, w) uint8, of the same aspect
    landmarks: Landmarks | None  # pixels of the image
    window: Window  # pixels of the image
    crop: str  # what decided the window: see align.choose_window, or "whole"
    sides_exchanged: bool  # left and right ids have changed places while reading
    faces: int = 1  # that the map shows; the largest is the one located


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
    faces: int
    doubt: str | None  # what looks wrong with the label map


def pack_source(
    source: Source,
    out: Path,
    *,
    resolution: int,
    align: bool = True,
    landmarks: dict[str, Landmarks] | None = None,
    skip_bad: bool = False,
) -> None:
    """Decode, align and pack every pair of `source` into the folder `out`, with progress.

    skip_bad: leave faces out that cannot be used, and record them; else UserError names them all.
    """
    align = align and not source.rendered
    key = source_key(source, resolution, align=align, landmarks=landmarks)

    def prepare(face: SourcePair) -> PreparedFace | UserError:
        given = (landmarks or {}).get(face.name)
        try:
            located = locate(face, align=align, landmarks=given, rendered=source.rendered)
            return prepare_face(located, resolution)
        except UserError as error:
            return error

    faces, skipped = source.faces, dict(source.skipped)
    if skip_bad:
        bad = _bad_faces(faces, prepare)
        if len(bad) == len(faces):
            raise _unusable(list(bad.values()), len(faces))
        faces = [face for face in faces if face.name not in bad]
        skipped |= {name: str(error) for name, error in bad.items()}
    info: dict[str, Any] = {
        "layout": source.layout,
        "source": str(source.root.resolve()),
        "source_key": key,
        "aligned": align,
        "alignment_version": ALIGNMENT_VERSION,
        "crop": [],
        "pose_source": [],
        "sides_exchanged": [],
        "several_faces": [],
        "doubtful_masks": {},
        "skipped": skipped,
    }

    def items() -> Iterator[Item]:
        check_masks(source)
        failed: list[UserError] = []
        title = f"packing {source.root.name}"
        for face in progress(_parallel(prepare, faces), total=len(faces), title=title):
            if isinstance(face, UserError):
                failed.append(face)
                continue
            _note(face, info)
            if not failed:
                yield face.name, face.image, face.labels, face.pose
        if failed:
            raise _unusable(failed, len(faces))
        if align and set(info["crop"]) == {"centre"}:
            raise UserError(
                f"{source.root}: in none of its {len(faces)} label maps can a face be placed: "
                "check that they hold noses, mouths and eyes under CelebAMask-HQ's ids; "
                "`prepare --no-align` takes the middle of each picture"
            )

    pack_dataset(items(), len(faces), resolution, out, info)


def _note(face: PreparedFace, info: dict[str, Any]) -> None:
    """Add to dataset.json how a face was made."""
    info["crop"].append(face.crop)
    info["pose_source"].append(face.pose_source)
    info["sides_exchanged"] += [face.name] * face.sides_exchanged
    info["several_faces"] += [face.name] * (face.faces > 1)
    if face.doubt is not None:
        info["doubtful_masks"][face.name] = face.doubt


def _bad_faces(faces: Sequence[SourcePair], prepare: Any) -> dict[str, UserError]:
    """Those that cannot be used, by name."""
    made = progress(_parallel(prepare, faces), total=len(faces), title="looking for bad files")
    return {
        face.name: result
        for face, result in zip(faces, made, strict=True)
        if isinstance(result, UserError)
    }


def _unusable(errors: Sequence[UserError], count: int) -> UserError:
    if len(errors) == 1:
        return UserError(f"{errors[0]} (`prepare --skip-bad` leaves it out)")
    said = "; ".join(str(error) for error in errors[:SAID])
    more = f"; and {len(errors) - SAID} more" if len(errors) > SAID else ""
    return UserError(
        f"{len(errors)} of {count} faces cannot be used: {said}{more}: mend them, or leave them "
        "out with `prepare --skip-bad`"
    )


def locate(
    face: SourcePair,
    *,
    align: bool = True,
    landmarks: Landmarks | None = None,
    rendered: bool = False,
) -> LocatedFace:
    """Decode a pair, set its left and right ids straight and choose its window.

    landmarks: in pixels of the image; UserError where they fit no face. None: derived from the
    label map.
    """
    image, labels = _read_pair(face)
    if rendered:
        window, _ = choose_window(None, image.shape[1], image.shape[0])
        return LocatedFace(face, image, labels, None, window, "whole", False)
    centres = face_centres(labels)
    own = labels if len(centres) < 2 else largest_face(labels, centres)
    exchanged = sides_exchanged(own)
    if exchanged:
        labels, own = (FLIP_IDS.astype(np.uint8)[ids] for ids in (labels, own))
    factor = image.shape[1] / labels.shape[1]
    if landmarks is not None:
        if choose_window(landmarks, image.shape[1], image.shape[0])[1] == "centre":
            raise UserError(
                f"{face.image}: the landmarks given for it fit no face: check their order (eyes "
                "from the image's left, nose tip, mouth corners) and that they are pixels of it"
            )
        outline = outline_middle(own, landmarks.points / factor)
        landmarks = Landmarks(landmarks.points, None if outline is None else outline * factor)
    elif (derived := landmarks_from_labels(own)) is not None:
        landmarks = derived.scaled(factor)
    window, crop = choose_window(landmarks if align else None, image.shape[1], image.shape[0])
    if align and crop == "centre":
        landmarks = None  # they do not fit the window, so they give no pose either
    faces = max(1, len(centres))
    return LocatedFace(face, image, labels, landmarks, window, crop, exchanged, faces)


def prepare_face(located: LocatedFace, resolution: int) -> PreparedFace:
    """Cut the window out, and estimate the pose where the source gives none."""
    face, landmarks = located.face, located.landmarks
    image, labels = crop_pair(located.image, located.labels, located.window, resolution)
    pose, pose_source = face.pose, face.pose_source
    if pose is None and landmarks is not None:
        pose, pose_source = _estimate(landmarks, located.window), "landmarks"
    values = np.array(pose if pose is not None else (np.nan, np.nan), np.float32)
    return PreparedFace(
        face.name, image, labels, values, pose_source, located.crop, located.sides_exchanged,
        located.faces, None if face.in_parts else doubt_about(located.labels),
    )  # fmt: skip


def _estimate(landmarks: Landmarks, window: Window) -> tuple[float, float]:
    points, outline = landmarks.points, landmarks.outline
    centred = None if outline is None else window.to_crop(outline, 2) - 1
    return estimate_pose(window.to_crop(points, 2) - 1, centred)


def _read_pair(face: SourcePair) -> tuple[np.ndarray, np.ndarray]:
    """Photograph and label map, upright, of one aspect.

    A map that was drawn on the pixels as the camera stored them is turned like the photograph:
    where its aspect says so, or where it shows a face that way and else none, or a crooked one.
    """
    (image, turn), labels = read_photograph(face.image), read_labels(face)
    if turn is not None:
        turned = np.asarray(Image.fromarray(labels).transpose(turn))
        fits = [_same_aspect(image, ids) for ids in (labels, turned)]
        as_is, alike = (_misfit(ids) for ids in (labels, turned))
        if fits == [False, True] or (all(fits) and alike < as_is / 2):
            labels = turned
        elif all(fits) and not as_is < alike / 2:
            remark(
                f"{face.masks[0]}: the photograph's EXIF turns it, and whether the mask is of the "
                "turned picture cannot be seen: it is taken to be; save the photograph upright if "
                "it is not"
            )
    _check_aspect(face, image, labels)
    return image, labels


def _misfit(labels: np.ndarray) -> float:
    """How far a map's landmarks are from those of an upright face; infinite without any. A face on
    its side may have some too."""
    landmarks = landmarks_from_labels(labels)
    window = None if landmarks is None else fit_window(landmarks)
    if landmarks is None or window is None:
        return math.inf
    return template_misfit(landmarks, window)


def check_mask(labels: np.ndarray, path: Path) -> None:
    """UserError where the ids of a map (H, W) do not look like CelebAMask-HQ's."""
    if (doubt := doubt_about(labels)) is not None:
        raise UserError(f"{path}: {doubt}; --mask-order celebamask-hq takes the ids as they are")


def check_masks(source: Source) -> None:
    """UserError where many of a sample of the source's id maps do not look like CelebAMask-HQ's."""
    faces = [face for face in source.faces if not face.in_parts and face.order is None]
    sample = faces[:: -(-len(faces) // CHECKED) or 1]
    doubts: dict[str, str] = {}
    for face, doubt in zip(sample, _parallel(_doubt_of, sample), strict=True):
        if doubt is not None:
            doubts[str(face.masks[0])] = doubt
    if len(doubts) > DOUBTFUL * len(sample):
        path, doubt = next(iter(doubts.items()))
        raise UserError(
            f"{path} and {len(doubts) - 1} more of {len(sample)} maps looked at: {doubt}; "
            "`prepare --mask-order celebamask-hq` takes the ids as they are"
        )


def _doubt_of(face: SourcePair) -> str | None:
    try:
        return doubt_about(read_labels(face))
    except UserError:
        return None  # said with all others that cannot be read


def _same_aspect(image: np.ndarray, labels: np.ndarray) -> bool:
    (height, width), (mask_height, mask_width) = image.shape[:2], labels.shape
    return abs(width * mask_height - height * mask_width) <= max(height, width)


def _check_aspect(face: SourcePair, image: np.ndarray, labels: np.ndarray) -> None:
    if not _same_aspect(image, labels):
        (height, width), (mask_height, mask_width) = image.shape[:2], labels.shape
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
