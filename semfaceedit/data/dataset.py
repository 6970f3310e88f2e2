"""Training data: a packed, memory-mapped cache, and the batches that are cut from it.

Whatever the layout of a source (`layouts`), it is decoded, aligned and packed once; training then
reads slices of memory-mapped arrays. A packed folder holds `images.npy` (M, R, R, 3) uint8,
`labels.npy` (M, R, R) uint8, `poses.npy` (M, 2) float32 and `dataset.json`.
"""

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..model.labels import FLIP_IDS, NUM_CLASSES
from .layouts import find_source
from .packing import PACKED_VERSION, is_packed
from .preparation import cache_folder, holds_source, pack_source, source_key

MOST_REPEATS = 8.0  # of a face in an epoch, so that a handful of faces does not fill it


@dataclass(frozen=True)
class Batch:
    """Training samples at one resolution r."""

    images: Tensor  # (B, 3, r, r) float32 in [-1, 1], area-downsampled
    semantics: Tensor  # (B, 19, r, r) float32 in [0, 1], area-downsampled one-hot maps
    poses: Tensor  # (B, 2) yaw, pitch in radians; NaN where unknown


@dataclass(frozen=True)
class FaceDataset:
    """A packed data set, memory-mapped and read-only."""

    images: np.ndarray  # (M, R, R, 3) uint8
    labels: np.ndarray  # (M, R, R) uint8
    poses: np.ndarray  # (M, 2) float32
    names: list[str]
    resolution: int  # R
    info: dict[str, Any]  # dataset.json

    def __len__(self) -> int:
        return len(self.names)

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        flips: Sequence[bool] | np.ndarray,
        resolution: int,
    ) -> Batch:
        """Samples at `resolution`, which must divide R.

        A flip mirrors image and mask, swaps left and right class ids and negates the yaw.
        """
        if resolution < 1 or self.resolution % resolution:
            raise ValueError(f"{resolution} does not divide the packed {self.resolution}")
        chosen = np.asarray(indices, np.int64)
        mirrored = np.asarray(flips, bool)
        if len(chosen) != len(mirrored):
            raise ValueError(f"{len(chosen)} indices but {len(mirrored)} flips")
        images, labels = np.asarray(self.images[chosen]), np.asarray(self.labels[chosen])
        poses = np.array(self.poses[chosen])
        images[mirrored] = images[mirrored, :, ::-1]
        labels[mirrored] = flip_labels(labels[mirrored])
        poses[mirrored, 0] *= -1
        return Batch(
            images=area_images(images, resolution),
            semantics=area_one_hot(labels, resolution),
            poses=torch.from_numpy(poses),
        )

    def labelled(
        self, indices: np.ndarray, flips: np.ndarray, resolution: int
    ) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, r, r) in [-1, 1] averaged over footprints, and maps (B, r, r) uint8.

        A map's label is that of one packed pixel near the middle of the footprint: the largest
        class of a footprint, with its ties, would make small classes rarer than they are.
        """
        step = self.resolution // resolution
        labels = np.asarray(self.labels[indices])[:, step // 2 :: step, step // 2 :: step].copy()
        labels[flips] = flip_labels(labels[flips])
        return self.batch(indices, flips, resolution).images, torch.from_numpy(labels)

    @functools.cached_property
    def classes(self) -> np.ndarray:
        """(M, 19) bool: which classes each label map shows; read once, face by face."""
        shown = np.empty((len(self), NUM_CLASSES), bool)
        for row, labels in zip(shown, self.labels, strict=True):
            row[:] = np.bincount(labels.reshape(-1), minlength=NUM_CLASSES) > 0
        return shown

    def repeats(self, rare_share: float) -> np.ndarray:
        """(M,) how often an epoch shows each face, when rare classes shall be learned.

        A class that a share f < rare_share of the label maps shows asks that its faces come
        rare_share / f times, at most `MOST_REPEATS`; a face follows its rarest class. This is the
        repeat factor of Gupta et al. (LVIS, 2019, section 4.2) without the square root.
        """
        if rare_share == 0:
            return np.ones(len(self))
        shares = self.classes.mean(0)
        wanted = (rare_share / np.maximum(shares, 1e-9)).clip(1, MOST_REPEATS)
        return np.where(self.classes, wanted, 1.0).max(1)


def flip_labels(labels: np.ndarray) -> np.ndarray:
    """Mirror label maps (..., H, W) and swap the ids of left and right parts."""
    return FLIP_IDS.astype(np.uint8)[labels[..., ::-1]]


# Batches are cut with numpy: threads of torch that wait for one another cost more than the work
# wherever other processes share the machine.


def area_images(images: np.ndarray, resolution: int) -> Tensor:
    """(B, R, R, 3) uint8 -> (B, 3, r, r) float32 in [-1, 1], averaged over footprints."""
    count, size = images.shape[:2]
    factor = size // resolution
    rows = images.reshape(count, resolution, factor, size * 3)
    sums = rows[:, :, 0].astype(np.uint32)
    for index in range(1, factor):
        sums += rows[:, :, index]
    columns = sums.reshape(count, resolution, resolution, factor, 3)
    total = columns.sum(3).transpose(0, 3, 1, 2)
    scaled = np.multiply(total, 1 / (127.5 * factor**2), dtype=np.float32, order="C")
    return torch.from_numpy(scaled - np.float32(1))


def area_one_hot(labels: np.ndarray, resolution: int) -> Tensor:
    """(B, R, R) uint8 ids -> (B, 19, r, r) float32: the share of each class in a footprint."""
    count, size = labels.shape[:2]
    cell = np.arange(size) // (size // resolution)
    places = labels * np.int64(resolution**2)
    places += cell[:, None] * resolution + cell
    places += np.arange(count)[:, None, None] * (NUM_CLASSES * resolution**2)
    total = count * NUM_CLASSES * resolution**2
    shares = np.bincount(places.reshape(-1), minlength=total).astype(np.float32)
    shares *= (resolution / size) ** 2
    return torch.from_numpy(shares.reshape(count, NUM_CLASSES, resolution, resolution))


def sample_order(
    seed: int, repeats: np.ndarray, start: int, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Indices (count,) int64 and flips (count,) bool of global samples start..start+count-1.

    repeats: (M,) at least 1 each, how often an epoch shows each face: that many times on average,
    rounded up or down anew in every epoch. With ones each epoch is a permutation.

    An endless sequence of shuffled epochs that depends on (seed, position) only, so that a run
    resumes from its position alone.
    """
    if len(repeats) < 1 or repeats.min() < 1 or start < 0 or count < 0:
        raise ValueError(f"repeats {repeats}, start {start}, count {count}")
    ends = np.cumsum(repeats, dtype=np.float64)
    length = math.ceil(ends[-1])
    ends *= length / ends[-1]
    indices, flips = np.empty(count, np.int64), np.empty(count, bool)
    done = 0
    while done < count:
        epoch, offset = divmod(start + done, length)
        part = slice(offset, offset + count - done)
        random = np.random.default_rng([seed, epoch])
        order, mirrored = random.permutation(length)[part], random.random(length)[part] < 0.5
        drawn = np.searchsorted(ends[:-1], order + random.random(), side="right")
        indices[done : done + len(order)] = drawn
        flips[done : done + len(order)] = mirrored
        done += len(order)
    return indices, flips


def open_dataset(
    path: Path,
    *,
    resolution: int,
    cache: Path | None = None,
    align: bool = True,
    keep_bad_masks: bool = False,
) -> FaceDataset:
    """Open faces in any layout at `resolution` or a multiple of it.

    A packed folder is opened as it is. Anything else is aligned and packed on first use into
    `cache`, by default a folder of `$SEMFACEEDIT_CACHE` (else `~/.cache/semfaceedit`) named after
    the source's files, and opened from there ever after; the source is never written to.
    Pack at a multiple of the training resolution where soft class boundaries are wanted: a batch
    at the packed resolution has hard one-hot maps.
    """
    if is_packed(path):
        return open_packed(path, resolution=resolution)
    source = find_source(path, keep_bad_masks=keep_bad_masks)
    folder = cache or cache_folder(source, resolution, align=align)
    if not holds_source(folder, source_key(source, resolution, align=align)):
        pack_source(source, folder, resolution=resolution, align=align)
    return open_packed(folder, resolution=resolution)


def open_packed(path: Path, *, resolution: int | None = None) -> FaceDataset:
    """Memory-map a packed folder; `resolution` (if given) must divide its own."""
    info = json.loads((path / "dataset.json").read_text())
    if info.get("version") != PACKED_VERSION:
        raise UserError(
            f"{path}: packed format {info.get('version')}, this version reads {PACKED_VERSION}: "
            "run `prepare` again"
        )
    try:
        arrays = [
            np.load(path / f"{name}.npy", mmap_mode="r") for name in ("images", "labels", "poses")
        ]
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path}: incomplete ({error}): delete it and prepare it again") from None
    images, labels, poses = arrays
    packed, names = int(info["resolution"]), list(info["names"])
    if not (
        images.shape == (len(names), packed, packed, 3)
        and labels.shape == images.shape[:3]
        and poses.shape == (len(names), 2)
    ):
        raise UserError(f"{path}: its arrays do not match dataset.json: prepare it again")
    if resolution is not None and packed % resolution:
        raise UserError(
            f"{path}: packed at {packed}x{packed}, which {resolution} does not divide: prepare "
            f"the source again with --resolution {resolution}"
        )
    return FaceDataset(images, labels, poses, names, packed, info)
