"""TIFF files of 16 bits a channel, of which Pillow reads the high bytes alone.

The decoder is told that each value's bytes are the other way round, and so gives the low ones.
"""

import sys
from pathlib import Path

from PIL import Image

OPPOSITE = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}


def low_bytes(path: Path) -> Image.Image | None:
    """The low bytes of all channels, as Pillow has the high ones: RGB or RGBA.

    None where the file is no TIFF of 16 bits with colours, or keeps each channel apart.
    """
    try:
        with Image.open(path) as picture:
            if picture.format != "TIFF" or picture.mode not in ("RGB", "RGBA"):
                return None
            for index, tile in enumerate(picture.tile):
                raw_mode, *rest = tuple(tile.args or ())
                picture.tile[index] = tile._replace(args=(_opposite(raw_mode), *rest))
            picture.load()
            return picture.copy()
    except (OSError, ValueError, TypeError, AttributeError):  # of another layout
        return None


def _opposite(raw_mode: str) -> str:
    """RGB;16L -> RGB;16B, and so on; ValueError where the values have not 16 bits."""
    name, order = raw_mode[:-1], raw_mode[-1]
    if not name.endswith(";16"):
        raise ValueError(raw_mode)
    return name + OPPOSITE[order]
