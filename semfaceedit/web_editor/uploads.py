"""What a page sends to be read as a file: its name, and the size of its picture."""

import io
import re
from pathlib import PurePath

from PIL import Image

from ..errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")
MOST_PIXELS = 50_000_000  # of a picture, once decoded: 150 MB as RGB
MOST_NAME = 60  # characters


def clean_name(name: str) -> str:
    """The stem of a file's name as letters, digits, spaces, dots and dashes."""
    stem = PurePath(name[:1000].replace("\0", "")).stem
    return re.sub(r"[^\w.-]+", " ", stem)[:MOST_NAME].strip(" .-_") or "photograph"


def check_picture(data: bytes, what: str) -> None:
    """UserError where `data` is no picture, or one that is too large to decode.

    Only its first bytes are read.
    """
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
    except Image.DecompressionBombError:
        width = height = MOST_PIXELS
    except Exception:  # a decoder that meets a damaged head may raise anything
        raise UserError(
            f"{what} is no picture that can be read: use PNG, JPEG, WebP, BMP or TIFF"
        ) from None
    if width * height > MOST_PIXELS:
        raise UserError(
            f"{what} has more than {MOST_PIXELS // 10**6} million pixels: make it smaller first"
        )
