"""Writing a packed folder: in one piece, hashed, and never through a memory map."""

import errno
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UserError
from ..files import try_lock
from ..model.labels import CLASS_NAMES, GROUP_NAMES, GROUP_OF_CLASS

PACKED_FORMAT = "semfaceedit-packed"
PACKED_VERSION = 1
FILES = ("images.npy", "labels.npy", "poses.npy", "dataset.json", "preview.png")

Item = tuple[str, np.ndarray, np.ndarray, np.ndarray]  # name, image, labels, pose


def is_packed(path: Path) -> bool:
    """Whether `path` is a folder that `pack` wrote."""
    try:
        return json.loads((path / "dataset.json").read_text())["format"] == PACKED_FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def check_packable(out: Path) -> None:
    """UserError where `out` is neither new nor empty nor a packed folder and nothing else."""
    if out.exists() and not is_packed(out) and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not packed data: choose another folder")
    if foreign := sorted(path.name for path in out.glob("[!.]*") if path.name not in FILES):
        raise UserError(f"{out / foreign[0]} would be lost: move it away or choose another folder")


def pack_dataset(
    items: Iterable[Item], count: int, resolution: int, out: Path, info: dict[str, Any]
) -> None:
    """Write a packed folder in one piece: `out` is complete or not there at all.

    items: (name, image (R, R, 3) uint8, labels (R, R) uint8, pose (2,) or NaN), `count` of them.
    info: more entries for dataset.json, read after the last item. A packed folder at `out` is
    replaced; anything else there is an error.
    """
    check_packable(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _clear_abandoned(out)
        _check_space(out, count, resolution)
        with _workplace(out) as folder:
            _write_packed(items, count, resolution, folder / "new", info)
            _move_into_place(folder, out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(out, count, resolution) from None
        unfit = (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR, errno.EEXIST)
        if error.errno in unfit:
            raise UserError(
                f"{out}: cannot be written ({error.strerror}): choose another folder "
                "(SEMFACEEDIT_CACHE moves the cache)"
            ) from None
        raise


def _write_packed(
    items: Iterable[Item], count: int, resolution: int, folder: Path, info: dict[str, Any]
) -> None:
    names: list[str] = []
    folder.mkdir()
    square = (count, resolution, resolution)
    with (
        _ArrayWriter(folder / "images.npy", (*square, 3), np.uint8) as images,
        _ArrayWriter(folder / "labels.npy", square, np.uint8) as labels,
        _ArrayWriter(folder / "poses.npy", (count, 2), np.float32) as poses,
    ):
        for name, image, label_map, pose in items:
            names.append(name)
            images.append(image)
            labels.append(label_map)
            poses.append(np.asarray(pose, np.float32))
        writers = {"images.npy": images, "labels.npy": labels, "poses.npy": poses}
    if len(names) != count:
        raise ValueError(f"{len(names)} items, {count} were announced")
    header = {
        "format": PACKED_FORMAT,
        "version": PACKED_VERSION,
        "resolution": resolution,
        "count": count,
        "class_names": CLASS_NAMES,
        "group_names": GROUP_NAMES,
        "group_of_class": GROUP_OF_CLASS,
    }
    hashes = {file: writer.digest.hexdigest() for file, writer in writers.items()}
    document = header | info | {"sha256": hashes, "names": names}
    (folder / "dataset.json").write_text(json.dumps(document, indent=1))


def _move_into_place(folder: Path, out: Path) -> None:
    """Rename the finished `folder/new` to `out`, which may be an older packed folder."""
    if out.exists():
        os.replace(out, folder / "old")
    try:
        os.replace(folder / "new", out)
    except OSError:
        if not is_packed(out):  # else another process packed the same data a moment ago
            raise


@contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, locked while its process lives and removed in the end."""
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    lock = os.open(folder, os.O_RDONLY)
    try:
        try_lock(lock)
        yield folder
    finally:
        _remove(folder, out)
        os.close(lock)


def _clear_abandoned(out: Path) -> None:
    """Remove the workplaces of processes that were killed while they packed `out`."""
    for folder in out.parent.glob(f".{glob.escape(out.name)}.????????"):
        with suppress(FileNotFoundError, NotADirectoryError):  # it may go while we look
            held = {path.name for path in folder.iterdir()}
            if not held or not held <= {"new", "old"}:  # not locked yet, or another's
                continue
            lock = os.open(folder, os.O_RDONLY)
            if try_lock(lock):
                _remove(folder, out)
            os.close(lock)


def _remove(folder: Path, out: Path) -> None:
    """Remove a workplace; what it took from `out` goes back where nothing else came there."""
    if not out.exists() and is_packed(folder / "old"):
        os.replace(folder / "old", out)
    shutil.rmtree(folder, ignore_errors=True)


class _ArrayWriter:
    """Append items to a .npy file with plain writes, so that a full disk is an OSError (writing
    through a memory map would kill the process), and hash the data on the way."""

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> None:
        self.item_shape, self.dtype = shape[1:], np.dtype(dtype)
        self.digest = hashlib.sha256()
        self.file = path.open("wb")
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": shape,
        }
        np.lib.format.write_array_header_1_0(self.file, header)

    def append(self, item: np.ndarray) -> None:
        if item.shape != self.item_shape or item.dtype != self.dtype:
            raise ValueError(f"{item.shape} {item.dtype}, expected {self.item_shape} {self.dtype}")
        data = np.ascontiguousarray(item).tobytes()
        self.digest.update(data)
        self.file.write(data)

    def __enter__(self) -> "_ArrayWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


def _check_space(out: Path, count: int, resolution: int) -> None:
    if shutil.disk_usage(out.parent).free < _packed_bytes(count, resolution):
        raise _no_space(out, count, resolution)


def _packed_bytes(count: int, resolution: int) -> int:
    return count * (4 * resolution**2 + 8)


def _no_space(out: Path, count: int, resolution: int) -> UserError:
    gigabytes = _packed_bytes(count, resolution) / 1e9
    return UserError(
        f"{out}: no space left on the disk ({gigabytes:.2f} GB needed): free some space or choose "
        "a folder on another disk (SEMFACEEDIT_CACHE moves the cache); nothing was lost"
    )
