"""The folders of faces that can be read: what belongs together, and how a pair is decoded.

Three layouts are told apart by their folders:

* the native one of CelebAMask-HQ: `CelebA-HQ-img/{i}.jpg` and
  `CelebAMask-HQ-mask-anno/{i // 2000}/{i:05d}_{part}.png`, one file per part that is present;
* the same with a `dataset.json` of format "semfaceedit-synthetic": rendered faces with exact poses;
* `images/` and `masks/` (or `labels/`, `labels_index/`): id label maps, paired by file stem.
"""

import json
import math
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from ..errors import UserError
from ..model.camera import pose_from_celebamaskhq
from ..model.labels import CLASS_NAMES, NUM_CLASSES, PALETTE

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
NATIVE_IMAGES = "CelebA-HQ-img"
NATIVE_MASKS = ("CelebAMask-HQ-mask-anno", "CelebAMaskHQ-mask-anno")
MASK_FOLDERS = ("masks", "labels", "labels_index")
POSE_TABLE = "CelebAMask-HQ-pose-anno.txt"
ID_MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
SYNTHETIC_FORMAT = "semfaceedit-synthetic"

BAD_MASKS = (
    481, 1499, 2260, 2281, 2905, 3137, 4790, 4995, 5130, 5591, 5608, 9150, 9895, 10184, 13008,
    15587, 17586,
)  # fmt: skip
"""CelebAMask-HQ ids whose masks are known to be wrong (missing hair or hat, empty parts)."""

PALETTE_VARIANTS = {(51, 255, 255): CLASS_NAMES.index("r_brow")}
"""Colours that label pictures in circulation use beside those of `labels.PALETTE`."""

ID_OF_COLOR = {tuple(color): index for index, color in enumerate(PALETTE.tolist())}
ID_OF_COLOR |= PALETTE_VARIANTS

MOST_PIXELS = 100_000_000  # of a photograph that is read at its full size
LARGEST_PICTURE = 500_000_000  # pixels; decoded, they take 1.5 GB
_PILLOW = threading.RLock()

DECODING_VERSION = 2  # part of every cache's key: raise it when files are read in another way


@dataclass(frozen=True)
class Face:
    """One pair in a source folder, not decoded yet."""

    name: str
    image: Path
    masks: tuple[Path, ...]  # one id map, or the part files
    in_parts: bool = False
    pose: tuple[float, float] | None = None  # yaw, pitch in radians, where the source gives it
    pose_source: str = "unknown"


@dataclass(frozen=True)
class Source:
    """A folder of faces: its pairs in a fixed order."""

    root: Path
    layout: str  # "celebamask-hq", "synthetic" or "pairs"
    faces: list[Face]
    rendered: bool = False  # rendered with the model's own camera: nothing to align
    skipped: dict[str, str] = field(default_factory=dict)  # name -> reason

    def files(self) -> Iterable[Path]:
        for face in self.faces:
            yield face.image
            yield from face.masks


def find_source(root: Path, *, keep_bad_masks: bool = False) -> Source:
    """Recognise the layout of `root` and pair its files; UserError where that fails."""
    if not root.is_dir():
        raise UserError(f"{root}: no such folder: give the folder that holds the data set")
    if (root / NATIVE_IMAGES).is_dir():
        return _find_native(root, keep_bad_masks)
    if (root / "images").is_dir():
        return _find_pairs(root, keep_bad_masks)
    raise UserError(
        f"{root}: no known layout: expected {NATIVE_IMAGES}/ with {NATIVE_MASKS[0]}/, or images/ "
        f"with {'/, '.join(MASK_FOLDERS)}/, or a folder that `prepare` wrote"
    )


def read_image(path: Path) -> np.ndarray:
    """Decode a photograph: (H, W, 3) uint8 RGB, turned upright where EXIF says so.

    Of 16-bit grey the upper eight bits are taken, as Pillow does with 16-bit colour. One of more
    than 100 million pixels is read at a half, a third, ... of its size.
    """
    with _opened(path, most_pixels=MOST_PIXELS) as picture:
        ImageOps.exif_transpose(picture, in_place=True)
        if picture.mode.startswith("I;16"):
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        if picture.mode in ("I", "F"):
            raise UserError(
                f"{path}: its pixels have 32 bits, and what is white is unknown: save the picture "
                "with 8 or 16 bits a channel"
            )
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def read_labels(face: Face) -> np.ndarray:
    """Decode the label map of a face: (H, W) uint8 CelebAMask-HQ ids."""
    return merge_parts(face.masks) if face.in_parts else read_label_map(face.masks[0])


def read_label_map(path: Path) -> np.ndarray:
    """Decode an id map (palette or grey: the stored value is the id) or a picture in the
    CelebAMask-HQ colours: (H, W) uint8.

    A palette that holds these colours in another order, as picture editors write it, is read by
    colour.
    """
    with _opened(path) as picture:
        if picture.mode == "P" and (ids := _ids_of_palette(picture)) is not None:
            return ids[np.asarray(picture)]
        if picture.mode in ("RGBA", "LA", "CMYK", "YCbCr"):
            picture = picture.convert("L" if picture.mode == "LA" else "RGB")
        values = np.asarray(picture)
    if values.ndim == 3:
        values = _ids_of_colors(values, path)
    if values.size and (int(values.max()) >= NUM_CLASSES or int(values.min()) < 0):
        wrong = values.max() if values.max() >= NUM_CLASSES else values.min()
        raise UserError(
            f"{path}: holds the label {wrong}, but ids run from 0 to {NUM_CLASSES - 1} "
            "(CelebAMask-HQ order): convert the mask to those ids"
        )
    return values.astype(np.uint8)


def merge_parts(paths: Iterable[Path]) -> np.ndarray:
    """Paint part files over one another in the order of their ids: (H, W) uint8.

    Parts may overlap; the later one wins. A pixel belongs to a part where any channel is not 0.
    """
    labels: np.ndarray | None = None
    for path in sorted(paths, key=lambda path: _part_of(path) or 0):
        with _opened(path) as picture:
            if picture.mode not in ("1", "L", "RGB", "I", "F") and "I;16" not in picture.mode:
                picture = picture.convert("RGB")
            values = np.asarray(picture)
        if values.ndim == 3:
            values = values[..., 0] | values[..., 1] | values[..., 2]
        if labels is None:
            labels = np.zeros(values.shape, np.uint8)
        if labels.shape != values.shape:
            raise UserError(
                f"{path}: {values.shape[1]}x{values.shape[0]} pixels, but the face's other parts "
                f"have {labels.shape[1]}x{labels.shape[0]}: extract the archive's file again"
            )
        labels[values != 0] = _part_of(path) or 0
    if labels is None:
        raise ValueError("no part files")
    return labels


def read_pose_table(path: Path) -> dict[str, tuple[float, float]]:
    """`CelebAMask-HQ-pose-anno.txt` -> {id without padding: (yaw, pitch) in radians}."""
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}): restore or remove it") from None
    names, angles = [], []
    for number, line in enumerate(lines[2:], start=3):
        try:
            name, yaw, pitch, _roll = line.split()
            angles.append((float(yaw), float(pitch)))
        except ValueError:
            raise UserError(
                f"{path}: line {number} is not `name yaw pitch roll`: restore the original file "
                "or remove it (poses are then estimated from the label maps)"
            ) from None
        names.append(Path(name).stem)
    degrees = torch.tensor(angles, dtype=torch.float64).reshape(-1, 2)
    poses = pose_from_celebamaskhq(degrees[:, 0], degrees[:, 1]).tolist()
    return {name: (yaw, pitch) for name, (yaw, pitch) in zip(names, poses, strict=True)}


class _opened:
    """Open and decode a picture; whatever is wrong with it becomes a UserError.

    most_pixels: a larger picture is made smaller by a whole factor.
    """

    def __init__(self, path: Path, most_pixels: int = LARGEST_PICTURE) -> None:
        self.path, self.most_pixels = path, most_pixels

    def __enter__(self) -> Image.Image:
        try:
            with _opened_by_pillow(self.path) as picture:
                return self._decoded(picture)
        except (OSError, SyntaxError, ValueError, MemoryError) as error:
            raise UserError(
                f"{self.path}: cannot be read ({error}): replace the file, or remove it together "
                "with its image or mask"
            ) from None

    def __exit__(self, *_: object) -> None:
        pass

    def _decoded(self, picture: Image.Image) -> Image.Image:
        pixels = picture.width * picture.height
        if pixels > LARGEST_PICTURE:
            raise UserError(
                f"{self.path}: {picture.width}x{picture.height} pixels are more than "
                f"{LARGEST_PICTURE // 10**6} million: scale it down"
            )
        factor = math.ceil(math.sqrt(pixels / self.most_pixels))
        if factor == 1:
            picture.load()
            return picture
        picture.draft(None, (picture.width // factor, picture.height // factor))  # JPEG: cheaper
        factor = math.ceil(math.sqrt(picture.width * picture.height / self.most_pixels))
        exif = picture.getexif()
        smaller = picture.reduce(factor) if factor > 1 else picture.copy()
        smaller.getexif().update(exif)
        return smaller


def _opened_by_pillow(path: Path) -> Image.Image:
    """Without Pillow's own limit, which is for servers that read other people's files."""
    with _PILLOW:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _ids_of_colors(values: np.ndarray, path: Path) -> np.ndarray:
    """RGB (H, W, 3) -> ids: exact colours, or equal channels that hold the id itself."""
    if (values == values[..., :1]).all() and values.max() < NUM_CLASSES:
        return values[..., 0]
    codes = values.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    found, inverse = np.unique(codes, return_inverse=True)
    colors = [(code >> 16, code >> 8 & 255, code & 255) for code in found.tolist()]
    for color in colors:
        if color not in ID_OF_COLOR:
            raise UserError(
                f"{path}: the colour {color} belongs to no CelebAMask-HQ class: save the mask as "
                "an id map (palette or grey PNG, never JPEG)"
            )
    ids = np.array([ID_OF_COLOR[color] for color in colors], np.uint8)
    return ids[inverse].reshape(codes.shape)


def _ids_of_palette(picture: Image.Image) -> np.ndarray | None:
    """(256,) uint8: the class of each palette entry that `picture` uses, by its colour.

    None unless all of them have CelebAMask-HQ colours, each of another class: the palette then
    says nothing, and the entries' numbers are the ids.
    """
    palette = np.array(picture.getpalette() or [], np.uint8).reshape(-1, 3).tolist()
    used = [index for index, count in enumerate(picture.histogram()) if count]
    ids = np.zeros(256, np.uint8)
    for index in used:
        color = tuple(palette[index]) if index < len(palette) else None
        if color not in ID_OF_COLOR:
            return None
        ids[index] = ID_OF_COLOR[color]
    return ids if len(set(ids[used].tolist())) == len(used) > 1 else None


def _part_of(path: Path) -> int | None:
    """The class id of `00012_l_eye.png`; None for other names."""
    number, _, part = path.stem.partition("_")
    return CLASS_NAMES.index(part) if number.isdecimal() and part in CLASS_NAMES[1:] else None


def _pictures(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return sorted(folder / name for name in names if name.lower().endswith(suffixes))


def _find_native(root: Path, keep_bad_masks: bool) -> Source:
    folder = next((root / name for name in NATIVE_MASKS if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(f"{root}: has {NATIVE_IMAGES}/ but no {NATIVE_MASKS[0]}/: extract it too")
    images: dict[int, Path] = {}
    for path in _pictures(root / NATIVE_IMAGES):
        if not path.stem.isdecimal():
            raise UserError(f"{path}: the name is not a number: rename or remove the file")
        number = int(path.stem)
        if number in images:
            raise UserError(
                f"{path}: {images[number].name} has the same number: remove one of them"
            )
        images[number] = path
    parts = _find_parts(folder)
    info = _read_info(root / "dataset.json")
    rendered = info.get("format") == SYNTHETIC_FORMAT
    if rendered and info.get("complete") is False:
        raise UserError(
            f"{root}: `synthesize` was stopped before it had finished: start it again with the "
            "same options, and it goes on"
        )
    skipped: dict[str, str] = {}
    if not rendered and not keep_bad_masks:
        skipped = _skip_bad_masks(root, images, parts)
    _check_pairs(
        {str(number): path for number, path in images.items()},
        {str(number): paths[0] for number, paths in parts.items()},
        root,
    )
    poses = _exact_poses(root, images) if rendered else _table_poses(root)
    source = "exact" if rendered else "table"
    faces = [
        Face(
            name=str(number),
            image=images[number],
            masks=tuple(parts[number]),
            in_parts=True,
            pose=poses.get(str(number)),
            pose_source=source if str(number) in poses else "unknown",
        )
        for number in sorted(images)
    ]
    layout = "synthetic" if rendered else "celebamask-hq"
    return Source(root, layout, faces, rendered=rendered, skipped=skipped)


def _skip_bad_masks(root: Path, images: dict[Any, Path], masks: dict[Any, Any]) -> dict[str, str]:
    """Take the faces of `BAD_MASKS` out of both; the names of those that were there, with why."""
    # Only where the numbers are the data set's own do the known bad ids mean anything.
    own_ids = (root / POSE_TABLE).is_file() or (root / ID_MAPPING).is_file() or len(images) == 30000
    bad = {str(number) for number in BAD_MASKS} if own_ids else set()
    skipped = {}
    for name in [name for name in images if _bare_number(str(name)) in bad]:
        del images[name]
        skipped[str(name)] = "known bad mask"
    for name in [name for name in masks if _bare_number(str(name)) in bad]:
        del masks[name]
    return skipped


def _find_parts(folder: Path) -> dict[int, list[Path]]:
    """Face number -> its part files, in paint order."""
    parts: dict[int, list[Path]] = {}
    with os.scandir(folder) as entries:
        folders = sorted(entry.path for entry in entries if entry.is_dir())
    for sub in folders:
        for path in _pictures(Path(sub), (".png",)):
            if _part_of(path) is None:
                raise UserError(
                    f"{path}: not a part file such as 00012_{CLASS_NAMES[1]}.png: rename or "
                    "remove it"
                )
            parts.setdefault(int(path.stem.partition("_")[0]), []).append(path)
    return {
        number: sorted(paths, key=lambda p: _part_of(p) or 0) for number, paths in parts.items()
    }


def _find_pairs(root: Path, keep_bad_masks: bool) -> Source:
    folder = next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)
    if folder is None:
        raise UserError(
            f"{root}: has images/ but none of {'/, '.join(MASK_FOLDERS)}/: add the masks"
        )
    images = _by_stem(_pictures(root / "images"))
    masks = _by_stem(_pictures(folder, (".png", ".bmp", ".tif", ".tiff")))
    skipped = {} if keep_bad_masks else _skip_bad_masks(root, images, masks)
    _check_pairs(images, masks, root)
    poses = _table_poses(root)
    faces = [
        Face(
            name=name,
            image=images[name],
            masks=(masks[name],),
            pose=poses.get(_bare_number(name)),
            pose_source="table" if _bare_number(name) in poses else "unknown",
        )
        for name in sorted(images)
    ]
    return Source(root, "pairs", faces, skipped=skipped)


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in paths:
        if path.stem in found:
            raise UserError(
                f"{path}: {found[path.stem].name} has the same name: remove one of them"
            )
        found[path.stem] = path
    return found


def _check_pairs(images: dict[str, Path], masks: dict[str, Path], root: Path) -> None:
    for name in sorted(images.keys() - masks.keys()):
        raise UserError(f"{images[name]}: has no mask: add its mask or remove the image")
    for name in sorted(masks.keys() - images.keys()):
        raise UserError(f"{masks[name]}: has no image: add its image or remove the mask")
    if not images:
        raise UserError(f"{root}: holds no pairs of image and mask: is the download complete?")


def _bare_number(name: str) -> str:
    return str(int(name)) if name.isdecimal() else name


def _table_poses(root: Path) -> dict[str, tuple[float, float]]:
    path = root / POSE_TABLE
    return read_pose_table(path) if path.is_file() else {}


def _exact_poses(root: Path, images: dict[int, Path]) -> dict[str, tuple[float, float]]:
    path = root / "poses.npy"
    try:
        poses = np.load(path)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}): synthesize the data again") from None
    if poses.ndim != 2 or poses.shape[1] != 2 or max(images) >= len(poses):
        raise UserError(
            f"{path}: shape {poses.shape} does not give one (yaw, pitch) to each of "
            f"{len(images)} images: synthesize the data again"
        )
    return {str(number): (float(poses[number, 0]), float(poses[number, 1])) for number in images}


def _read_info(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}): restore or remove it") from None
    return value if isinstance(value, dict) else {}
