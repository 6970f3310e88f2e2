"""Procedural faces written in the CelebAMask-HQ layout."""

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from ..data.layouts import NATIVE_IMAGES, NATIVE_MASKS
from ..files import replacing
from ..model.labels import CLASS_NAMES
from .render import render_faces

VERSION = 1


DEPTH_SCALE = 1 / 32768  # world units a step of the depth maps; farther than 2 is cut off


FACES_PER_FOLDER = 2000


JPEG_QUALITY = 95


Task = tuple[Path, int, int, int]  # folder, number of the face, its seed, resolution


def write_face(task: Task) -> None:
    """Write one face; its picture comes last and shows that the rest is there."""
    out, number, seed, resolution = task
    faces = render_faces([seed], resolution)
    _write_parts(out, number, faces.labels[0])
    steps = (faces.depth[0].double() / DEPTH_SCALE).round().clamp(0, 65535)
    with replacing(out / "depth" / f"{number:05d}.png") as path:
        Image.fromarray(steps.numpy().astype(np.uint16)).save(path, format="PNG")
    pixels = ((faces.images[0] + 1) * 127.5).round().byte().movedim(0, -1)
    with replacing(image_path(out, number)) as path:
        Image.fromarray(pixels.numpy()).save(path, format="JPEG", quality=JPEG_QUALITY)


def _write_parts(out: Path, number: int, labels: Tensor) -> None:
    folder = out / NATIVE_MASKS[0] / str(number // FACES_PER_FOLDER)
    for index in labels.unique().tolist():
        if index == 0:
            continue
        mask = (labels == index).byte().mul(255).numpy()
        with replacing(folder / f"{number:05d}_{CLASS_NAMES[index]}.png") as path:
            Image.fromarray(mask).save(path, format="PNG")


def image_path(out: Path, number: int) -> Path:
    return out / NATIVE_IMAGES / f"{number}.jpg"
