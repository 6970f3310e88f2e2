"""The folders of faces that can be read: what belongs together.

Three layouts are told apart by their folders:

* the native one of CelebAMask-HQ: `CelebA-HQ-img/{i}.jpg` and
  `CelebAMask-HQ-mask-anno/{i // 2000}/{i:05d}_{part}.png`, one file per part that is present;
* the same with a `dataset.json` of format "semfaceedit-synthetic": rendered faces with exact poses;
* `images/` and `masks/` (or `labels/`, `labels_index/`), or `CelebA-HQ-img/` and
  `CelebAMask-HQ-mask/`: id label maps, paired by file stem, in sub-folders too.

The folder that is given may also hold one folder with such a layout.
"""

import difflib
import json
import os
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import UserError
from ..model.camera import pose_from_celebamaskhq
from ..model.labels import CLASS_NAMES
from .decoding import merge_parts, part_of, read_label_map
from .mask_checks import FROM_BISENET, MaskOrder

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".heic", ".heif")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
NATIVE_IMAGES = "CelebA-HQ-img"
NATIVE_MASKS = ("CelebAMask-HQ-mask-anno", "CelebAMaskHQ-mask-anno")
MASK_FOLDERS = ("masks", "labels", "labels_index")
MERGED_MASKS = "CelebAMask-HQ-mask"  # beside NATIVE_IMAGES: id maps, as g_mask.py writes them
MASK_ENDINGS = ("_mask", "-mask", "_label", "_labels", "_seg", "_parsing")  # 12_mask.png
POSE_TABLE = "CelebAMask-HQ-pose-anno.txt"
ID_MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
SYNTHETIC_FORMAT = "semfaceedit-synthetic"

BAD_MASKS = (
    481, 1499, 2260, 2281, 2905, 3137, 4790, 4995, 5130, 5591, 5608, 9150, 9895, 10184, 13008,
    15587, 17586,
)  # fmt: skip
"""CelebAMask-HQ ids whose masks are known to be wrong (missing hair or hat, empty parts)."""

DECODING_VERSION = 3  # part of every cache's key: raise it when files are read in another way


@dataclass(frozen=True)
class SourcePair:
    """One pair in a source folder, not decoded yet."""

    name: str
    image: Path
    masks: tuple[Path, ...]  # one id map, or the part files
    in_parts: bool = False
    pose: tuple[float, float] | None = None  # yaw, pitch in radians, where the source gives it
    pose_source: str = "unknown"
    order: MaskOrder | None = None  # of the ids in an id map; None: CelebAMask-HQ's, unless checked


@dataclass(frozen=True)
class Source:
    """A folder of faces: its pairs in a fixed order."""

    root: Path
    layout: str  # "celebamask-hq", "synthetic" or "pairs"
    faces: list[SourcePair]
    rendered: bool = False  # rendered with the model's own camera: nothing to align
    skipped: dict[str, str] = field(default_factory=dict)  # name -> reason

    def files(self) -> Iterable[Path]:
        for face in self.faces:
            yield face.image
            yield from face.masks


def find_source(
    root: Path, *, keep_bad_masks: bool = False, mask_order: MaskOrder | None = None
) -> Source:
    """Recognise the layout of `root` and pair its files; UserError where that fails.

    mask_order: of the ids in id maps; None: CelebAMask-HQ's, if the maps look like it.
    """
    if root.is_file():
        raise UserError(f"{root} is a file: extract the archive and give the folder")
    if not root.is_dir():
        raise UserError(f"{root}: no such folder: give the folder that holds the data set")
    if not _has_layout(root):
        inner = [path for path in sorted(root.iterdir()) if path.is_dir() and _has_layout(path)]
        root = inner[0] if len(inner) == 1 else root
    if (root / NATIVE_IMAGES).is_dir():
        parts = any((root / name).is_dir() for name in NATIVE_MASKS)
        if parts or not (root / MERGED_MASKS).is_dir():
            if mask_order is not None:
                raise UserError(
                    f"{root}: has a mask for each part, which tells what it is by its name: leave "
                    "out --mask-order, which is for maps of ids"
                )
            return _find_native(root, keep_bad_masks)
        folders = root / NATIVE_IMAGES, root / MERGED_MASKS
        return _find_pairs(root, folders, keep_bad_masks, mask_order)
    if (root / "images").is_dir():
        masks = next((root / name for name in MASK_FOLDERS if (root / name).is_dir()), None)
        if masks is None:
            raise UserError(
                f"{root}: has images/ but none of {'/, '.join(MASK_FOLDERS)}/: add the masks"
            )
        return _find_pairs(root, (root / "images", masks), keep_bad_masks, mask_order)
    raise UserError(
        f"{root}: no known layout: expected {NATIVE_IMAGES}/ with {NATIVE_MASKS[0]}/, or images/ "
        f"with {'/, '.join(MASK_FOLDERS)}/, or a folder that `prepare` wrote"
    )


def read_labels(face: SourcePair) -> np.ndarray:
    """Decode the label map of a face: (H, W) uint8 CelebAMask-HQ ids."""
    if face.in_parts:
        return merge_parts(face.masks)
    labels = read_label_map(face.masks[0])
    return FROM_BISENET[labels] if face.order == "bisenet" else labels


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


def _has_layout(root: Path) -> bool:
    return (root / NATIVE_IMAGES).is_dir() or (root / "images").is_dir()


def _pictures(folder: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[Path]:
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not entry.name.startswith(".")]
    return sorted(folder / name for name in names if name.lower().endswith(suffixes))


def _pictures_below(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    """The pictures of a folder and of its sub-folders, as FFHQ has them."""
    found = _pictures(folder, suffixes)
    for sub in sorted(path for path in folder.iterdir() if path.is_dir()):
        found += _pictures(sub, suffixes)
    return found


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
        (root / NATIVE_IMAGES, folder),
    )
    poses = _exact_poses(root, images) if rendered else _table_poses(root)
    source = "exact" if rendered else "table"
    faces = [
        SourcePair(
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
            if part_of(path) is None:
                raise UserError(
                    f"{path}: not a part file such as 00012_{CLASS_NAMES[1]}.png: rename or "
                    "remove it"
                )
            parts.setdefault(int(path.stem.partition("_")[0]), []).append(path)
    return {number: sorted(paths, key=lambda p: part_of(p) or 0) for number, paths in parts.items()}


def _find_pairs(
    root: Path, folders: tuple[Path, Path], keep_bad_masks: bool, order: MaskOrder | None
) -> Source:
    """Id maps in the second folder, each for the picture of its name in the first."""
    images = _by_stem(_pictures_below(folders[0], IMAGE_SUFFIXES))
    masks = _by_stem(_pictures_below(folders[1], MASK_SUFFIXES))
    masks = {_image_name(name, images): path for name, path in masks.items()}
    skipped = {} if keep_bad_masks else _skip_bad_masks(root, images, masks)
    _check_pairs(images, masks, folders)
    poses = _table_poses(root)
    faces = [
        SourcePair(
            name=name,
            image=images[name],
            masks=(masks[name],),
            pose=poses.get(_bare_number(name)),
            pose_source="table" if _bare_number(name) in poses else "unknown",
            order=order,
        )
        for name in sorted(images)
    ]
    return Source(root, "pairs", faces, skipped=skipped)


def _by_stem(paths: Iterable[Path]) -> dict[str, Path]:
    """Pictures by name. Names are compared composed (NFC): macOS writes "u" and two dots."""
    found: dict[str, Path] = {}
    for path in paths:
        name = composed(path.stem)
        if name in found:
            raise UserError(f"{path}: {found[name].name} has the same name: remove one of them")
        found[name] = path
    return found


def composed(name: str) -> str:
    """A name in Unicode's composed form."""
    return unicodedata.normalize("NFC", name)


def _image_name(mask: str, images: dict[str, Path]) -> str:
    """The name of the picture that a mask belongs to: `12` for `12_mask` where there is a 12."""
    for ending in MASK_ENDINGS:
        name = mask.removesuffix(ending)
        if mask not in images and name in images:
            return name
    return mask


def _check_pairs(
    images: dict[str, Path], masks: dict[str, Path], folders: tuple[Path, Path]
) -> None:
    for name in sorted(images.keys() - masks.keys()):
        hint = _nearest_file(name, folders[1])
        raise UserError(f"{images[name]}: has no mask{hint}: add its mask or remove the image")
    for name in sorted(masks.keys() - images.keys()):
        hint = _nearest_file(name, folders[0])
        raise UserError(f"{masks[name]}: has no image{hint}: add its image or remove the mask")
    if not images:
        raise UserError(
            f"{folders[0].parent}: holds no pairs of image and mask: expected pictures "
            f"({', '.join(IMAGE_SUFFIXES)}) in {folders[0].name}/ and masks of the same names "
            f"({', '.join(MASK_SUFFIXES)}) in {folders[1].name}/"
        )


def _nearest_file(name: str, folder: Path) -> str:
    """What lies in `folder` under that name or nearly so, in brackets; nothing if nothing does."""
    names = {composed(path.stem): path.name for path in folder.iterdir() if path.is_file()}
    if name in names:
        return f" ({folder.name}/{names[name]} is of a kind that is not read: save it as PNG)"
    near = difflib.get_close_matches(name, names, 1)
    return f" (the nearest name is {folder.name}/{names[near[0]]})" if near else ""


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
