"""What a page sends to be read as a file: its name, its picture's size, and where it is kept."""

import io
import os
import re
from pathlib import Path, PurePath

from PIL import Image

from ..errors import UserError
from ..files import write_atomically

FORMATS = {
    "PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "BMP": ".bmp", "TIFF": ".tif", "GIF": ".gif",
}  # fmt: skip
SUFFIXES = (*FORMATS.values(), ".jpeg", ".tiff")  # of photographs
MOST_PIXELS = 50_000_000  # of a picture, once decoded: 150 MB as RGB
MOST_NAME = 60  # characters


def clean_name(name: str) -> str:
    """The stem of a file's name as letters, digits, spaces, dots and dashes."""
    stem = PurePath(name[:1000].replace("\0", "")).stem
    return re.sub(r"[^\w.-]+", " ", stem)[:MOST_NAME].strip(" .-_") or "photograph"


def check_picture(data: bytes, what: str) -> str:
    """The suffix of a picture's file.

    UserError where `data` is no picture, or one that is too large to decode. Only its first bytes
    are read.
    """
    try:
        with Image.open(io.BytesIO(data), formats=tuple(FORMATS)) as picture:
            (width, height), suffix = picture.size, FORMATS[picture.format or "PNG"]
    except Image.DecompressionBombError:
        width = height = MOST_PIXELS
        suffix = ""
    except Exception:  # a decoder that meets a damaged head may raise anything
        raise UserError(
            f"{what} is no picture that can be read: use PNG, JPEG, WebP, BMP or TIFF"
        ) from None
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{what} has more than {MOST_PIXELS // 10**6} million pixels: make it smaller first"
        )
    return suffix


def keep_picture(data: bytes, folder: Path, name: str, suffix: str) -> tuple[Path, bool]:
    """A picture in the folder, under a name that is free or has the very same bytes; and whether it
    was written just now."""
    folder.mkdir(parents=True, exist_ok=True)
    path, number = folder / f"{name}{suffix}", 1
    while os.path.lexists(path):
        if path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data:
            return path, False
        number += 1
        path = folder / f"{name}-{number}{suffix}"
    write_atomically(path, lambda temporary: temporary.write_bytes(data))  # type: ignore[arg-type]
    return path, True
