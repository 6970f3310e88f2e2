"""What a face is fitted to: an aligned photograph with its label map, at a pose."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..cli import remark
from ..data.align import Window, crop
from ..data.dataset import area_images, area_one_hot
from ..data.decoding import read_label_map, upright_size
from ..data.layouts import SourcePair
from ..data.mask_checks import MaskOrder, doubt_about
from ..data.pose import Landmarks, estimate_pose, landmarks_from_labels, sides_exchanged
from ..data.preparation import check_mask, locate, prepare_face
from ..errors import UserError
from ..files import sha256_of_file
from ..model.camera import CameraConfig
from ..model.labels import FLIP_IDS, NUM_CLASSES

SMALL = 32  # pixels along the shorter edge of a photograph, below which a warning is given
OVERSAMPLING = 2  # targets are kept at twice the rendered size, so that class borders are soft


@dataclass(frozen=True)
class SourcePhotograph:
    """The file that a face was inverted from, by which it is known again."""

    path: str  # absolute
    sha256: str
    bytes: int
    width: int  # pixels, upright
    height: int
    orientation: int  # of EXIF: 1 to 8

    @classmethod
    def of(cls, path: Path) -> "SourcePhotograph":
        """UserError where the file is no picture."""
        width, height, orientation = upright_size(path)
        return cls(
            str(path.resolve()), sha256_of_file(path), path.stat().st_size, width, height,
            orientation,
        )  # fmt: skip


@dataclass(frozen=True)
class SourceCrop:
    """Where an aligned label map was cut from: a window on a mask of that size, in its pixels.

    The mask shows the whole photograph, whatever the size of either.
    """

    window: Window
    width: int
    height: int
    photograph: SourcePhotograph | None = None  # None: the project is older, or made of arrays


@dataclass(frozen=True)
class Target:
    """An aligned pair of R x R pixels."""

    image: np.ndarray  # (R, R, 3) uint8
    labels: np.ndarray  # (R, R) uint8 class ids
    pose: np.ndarray | None  # (2,) yaw, pitch in radians; None: unknown
    crop: SourceCrop | None = None


def read_target(
    image: Path,
    labels: Path,
    resolution: int,
    *,
    align: bool = True,
    mask_order: MaskOrder | None = None,
    landmarks: Landmarks | None = None,
    pose: tuple[float, float] | None = None,
) -> Target:
    """Read a photograph and its label map, aligned as the training data were.

    align: crop by the landmarks of the label map, or by those given where it shows none; otherwise
    the largest centred square is taken. mask_order: what the map's ids mean; None: CelebAMask-HQ's,
    and UserError where they do not look like it. The pair is cut at `resolution` pixels. pose: yaw
    and pitch where they are known.
    """
    face = SourcePair(image.stem, image, (labels,), pose=pose, order=mask_order)
    located = locate(face, align=align)
    if mask_order is None:
        check_mask(located.labels, labels)
    if align and located.landmarks is None:
        if landmarks is None:
            raise UserError(_no_face(labels))
        located = locate(face, landmarks=landmarks)
    if align and located.faces > 1:
        remark(f"{labels}: shows {located.faces} faces: the largest is taken")
    height, width = located.image.shape[:2]
    if min(height, width) < SMALL:
        remark(f"{image}: {width}x{height} pixels are too few to show a face's features")
    prepared = prepare_face(located, resolution)
    height, width = located.labels.shape
    window = located.window.scaled(width / located.image.shape[1])
    known = np.isfinite(prepared.pose).all()
    return Target(
        prepared.image,
        prepared.labels,
        prepared.pose if known else None,
        SourceCrop(window, width, height, SourcePhotograph.of(image)),
    )


def read_edited_labels(path: Path, resolution: int, source: SourceCrop | None) -> np.ndarray:
    """An edited label map, as (R, R) uint8 in the frame of a face project of that resolution.

    A map of R x R pixels is taken as it is. One of the size of the mask that the face was inverted
    from is cut by the same window.
    """
    labels = read_label_map(path)
    if (doubt := doubt_about(labels)) is not None:
        raise UserError(f"{path}: {doubt}")
    height, width = labels.shape
    if (width, height) == (resolution, resolution):
        return labels
    if source is not None and (width, height) == (source.width, source.height):
        if sides_exchanged(labels):
            labels = FLIP_IDS.astype(np.uint8)[labels]
        return crop(labels, source.window, resolution, Image.Resampling.NEAREST)
    sizes = f"{resolution}x{resolution}"
    if source is not None:
        sizes += f" (the project's map) or {source.width}x{source.height} (the original mask)"
    raise UserError(f"{path}: {width}x{height} pixels: the edited map must have {sizes}")


def check_labels(labels: np.ndarray) -> np.ndarray:
    """A square map of class ids as uint8; UserError for anything else."""
    labels = np.asarray(labels)
    if labels.ndim != 2 or labels.shape[0] != labels.shape[1] or not labels.size:
        raise UserError(f"labels of shape {labels.shape}: give a square map (R, R) of class ids")
    if not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"labels of type {labels.dtype}: give integer class ids")
    if not 0 <= int(labels.min()) <= int(labels.max()) < NUM_CLASSES:
        wrong = labels.max() if labels.max() >= NUM_CLASSES else labels.min()
        raise UserError(f"labels hold {wrong}, but class ids run from 0 to {NUM_CLASSES - 1}")
    return labels.astype(np.uint8)


def check_image(image: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A picture of the label map's size, (R, R, 3) uint8; UserError for anything else."""
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.shape != (*labels.shape, 3):
        raise UserError(
            f"image of shape {image.shape} and type {image.dtype}: give (R, R, 3) uint8 of the "
            f"label map's size {labels.shape}"
        )
    return image


def pose_from_labels(labels: np.ndarray, camera: CameraConfig) -> np.ndarray:
    """Yaw and pitch (2,) float32 of the face in an aligned label map (R, R)."""
    landmarks = landmarks_from_labels(labels)
    if landmarks is None:
        raise UserError(_no_face("labels"))
    centred = landmarks.scaled(2 / len(labels))
    outline = None if centred.outline is None else centred.outline - 1
    return np.array(estimate_pose(centred.points - 1, outline, camera=camera), np.float32)


def pictures(target: Target, resolution: int) -> tuple[Tensor, Tensor]:
    """Image (1, 3, r, r) in [-1, 1] and class shares (1, 19, r, r), averaged over footprints."""
    size = len(target.labels)
    if resolution < 1 or size % resolution:
        raise UserError(
            f"a target of {size}x{size} pixels cannot be averaged to {resolution}: use a "
            f"--resolution that divides {size}"
        )
    return area_images(target.image[None], resolution), footprint_shares(target.labels, resolution)


def footprint_shares(labels: np.ndarray, resolution: int) -> Tensor:
    """(R, R) uint8 ids -> (1, 19, r, r) float32 shares of each class in a footprint.

    Where r does not divide R, the map is enlarged to the next multiple of r first.
    """
    multiple = resolution * math.ceil(len(labels) / resolution)
    return area_one_hot(resize_labels(labels, multiple)[None], resolution)


def resize_labels(labels: np.ndarray, size: int) -> np.ndarray:
    """(R, R) class ids -> (size, size), each that of the nearest pixel."""
    nearest = (2 * np.arange(size) + 1) * len(labels) // (2 * size)
    return labels[nearest][:, nearest]


def _no_face(labels: Path | str) -> str:
    return (
        f"{labels}: shows no face that could be placed (a nose below two eyes, brows or lenses, "
        "and a mouth below it, are needed): give another mask, or a pair that is aligned already "
        "with --no-align --yaw Y --pitch P (radians)"
    )
