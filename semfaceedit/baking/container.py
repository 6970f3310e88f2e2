"""A baked face as one run of bytes that the page reads: a JSON header and compressed sections.

uint32 length of the header (little-endian), the header, then the sections that it lists by name,
offset and length. Opacity, scores and heights are bytes of planes, each row the differences between
neighbours, compressed by zlib; colours are pictures, layers side by side.
"""

import io
import json
import struct
import zlib
from typing import Literal

import numpy as np
from PIL import Image

from ..model.labels import CLASS_NAMES, PALETTE
from .bake import BakedFace
from .surfaces import PITCH_LIMIT, YAW_LIMIT

ImageFormat = Literal["png", "webp", "jpeg"]
QUALITY = {"webp": 90, "jpeg": 92}
RARE = 0.35  # the least score of a class that is nowhere first, to be kept


def pack_layers(
    face: BakedFace, *, image_format: ImageFormat = "webp", title: str = "face", level: int = 9
) -> bytes:
    """The bytes of a baked face; `png` keeps colours exactly. level: of zlib, 1 is the fastest."""
    kept = classes_in_use(face)
    height, width = face.alpha.shape[1:]
    sections: dict[str, bytes] = {
        "heights": _packed_heights(face, level),
        "alpha": deflated(face.alpha, level),
        "scores": deflated(face.scores[..., kept].transpose(3, 0, 1, 2), level),
    }
    for look in range(len(face.looks)):
        for group in range(len(face.group_names)):
            picture = mosaic(face.colors[look, group])
            sections[f"colors-{look}-{group}"] = encoded(picture, image_format)
    box, plane_box = (
        [b.left, b.right, b.bottom, b.top] for b in (face.surfaces.box, face.surfaces.plane_box)
    )
    lowest, highest = _height_range(face)
    header = {
        "format": "semfaceedit-layers", "version": 1, "title": title,
        "exclusive": face.exclusive, "layers": face.layers, "width": width, "height": height,
        "columns": _columns(face.layers), "imageType": f"image/{image_format}",
        "grid": face.surfaces.heights.shape[1], "lowest": lowest, "highest": highest,
        "box": box, "planeBox": plane_box, "planeZ": face.surfaces.plane_z,
        "near": face.camera.near, "far": face.camera.far, "samples": face.samples,
        "halfExtent": face.camera.half_extent, "mostYaw": YAW_LIMIT, "mostPitch": PITCH_LIMIT,
        "classes": [
            {"id": index, "name": CLASS_NAMES[index], "group": face.group_of_class[index],
             "color": PALETTE[index].tolist()}
            for index in kept
        ],
        "groups": list(face.group_names), "looks": list(face.looks),
        "swatches": swatches(face),
    }  # fmt: skip
    places, offset = {}, 0
    for name, data in sections.items():
        places[name] = [offset, len(data)]
        offset += len(data)
    text = json.dumps({**header, "sections": places}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<I", len(text)) + text + b"".join(sections.values())


def classes_in_use(face: BakedFace) -> list[int]:
    """Ids of the classes that some ray may show: they lead in a texel, or come close to it."""
    scores = face.scores.reshape(-1, face.scores.shape[-1])
    first = set(np.unique(scores.argmax(1)).tolist())
    near = np.nonzero(scores.max(0) >= 255 * RARE)[0].tolist()
    return sorted(first | set(near))


def swatches(face: BakedFace) -> list[list[str]]:
    """A colour, #rrggbb, of each group in each look: the mean of what the group shows in front."""
    table = np.array(face.group_of_class)
    groups, found = table[face.scores.argmax(-1)], []
    for look in range(len(face.looks)):
        row = []
        for group in range(len(face.group_names)):
            weight = (face.alpha * (groups == group))[..., None].astype(np.float32)
            mean = (weight * face.colors[look, group]).sum((0, 1, 2)) / max(
                float(weight.sum()), 1.0
            )
            row.append("#" + "".join(f"{round(float(value)):02x}" for value in mean))
        found.append(row)
    return found


def mosaic(layers: np.ndarray) -> np.ndarray:
    """(K, H, W, C) -> one picture, layers side by side in rows, the rest black."""
    count, height, width, channels = layers.shape
    columns = _columns(count)
    rows = -(-count // columns)
    padded = np.zeros((rows * columns, height, width, channels), layers.dtype)
    padded[:count] = layers
    grid = padded.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(grid.reshape(rows * height, columns * width, channels))


def encoded(picture: np.ndarray, image_format: ImageFormat) -> bytes:
    """An RGB picture (H, W, 3) as a file of that format."""
    settings: dict[str, object] = {"png": {"optimize": True}, "webp": {"method": 4}}.get(
        image_format, {"subsampling": 0}
    )  # type: ignore[assignment]
    if image_format in QUALITY:
        settings = {**settings, "quality": QUALITY[image_format]}
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, image_format.upper(), **settings)
    return buffer.getvalue()


def deflated(planes: np.ndarray, level: int = 9) -> bytes:
    """Bytes (..., H, W) as differences along each row, by zlib."""
    return zlib.compress(np.diff(planes, axis=-1, prepend=np.uint8(0)).tobytes(), level)


def _columns(layers: int) -> int:
    return int(np.ceil(np.sqrt(layers)))


def _height_range(face: BakedFace) -> tuple[float, float]:
    heights = face.surfaces.heights
    return float(heights.min()), max(float(heights.max()), float(heights.min()) + 1e-6)


def _packed_heights(face: BakedFace, level: int) -> bytes:
    """16 bits each: the planes of the high bytes, then those of the low bytes."""
    lowest, highest = _height_range(face)
    heights = face.surfaces.heights.double().numpy()
    whole = np.rint((heights - lowest) / (highest - lowest) * 65535).astype(np.uint16)
    return deflated(
        np.stack([(whole >> 8).astype(np.uint8), (whole & 255).astype(np.uint8)]), level
    )
