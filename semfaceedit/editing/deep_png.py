"""PNG files of 16 bits a channel, which Pillow reads with eight and writes in grey alone.

The filters of PNG predict each byte from the same byte of pixels beside it (PNG specification,
section 9), so a file's low bytes are, filters and all, the pixels of an 8-bit file: Pillow decodes
them as that.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}  # by the colour type of the header
UP = 2  # the filter that is written: the difference from the pixel above
ROWS = 256  # filtered at a time


def low_bytes(path: Path) -> Image.Image | None:
    """The low bytes of all channels, as Pillow has the high ones: L, LA, RGB or RGBA.

    None where the file is no PNG of 16 bits, is interlaced, or names a transparent colour.
    """
    data = path.read_bytes()
    if not data.startswith(SIGNATURE):
        return None
    chunks = list(_chunks(data))
    width, height, bits, colours, *_, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if bits != 16 or interlaced or any(name == b"tRNS" for name, _ in chunks):
        return None
    filtered = zlib.decompress(b"".join(content for name, content in chunks if name == b"IDAT"))
    channels = CHANNELS[colours]
    rows = np.frombuffer(filtered, np.uint8, height * (1 + 2 * channels * width))
    rows = rows.reshape(height, -1)
    low = np.concatenate([rows[:, :1], rows[:, 2::2]], 1)
    header = struct.pack(">IIBBBBB", width, height, 8, colours, 0, 0, 0)
    plain = [(b"IHDR", header), (b"IDAT", zlib.compress(low.tobytes(), 1)), (b"IEND", b"")]
    picture = Image.open(io.BytesIO(_file(plain)))
    picture.load()
    return picture


def with_low_bytes(png: bytes, high: np.ndarray, low: np.ndarray) -> bytes:
    """A PNG of 16 bits with all that an 8-bit one of Pillow's says beside its pixels.

    high and low: the bytes of its pixels, (H, W) or (H, W, C) uint8.
    """
    height, width = high.shape[:2]
    both = np.stack([high, low], -1).reshape(height, -1)
    packer, parts = zlib.compressobj(6), []
    above = np.zeros((1, both.shape[1]), np.uint8)
    for start in range(0, height, ROWS):
        rows = np.concatenate([above, both[start : start + ROWS]])
        filtered = np.full((len(rows) - 1, 1 + both.shape[1]), UP, np.uint8)
        filtered[:, 1:] = rows[1:] - rows[:-1]  # of bytes, modulo 256
        parts.append(packer.compress(filtered.tobytes()))
        above = rows[-1:]
    packed = b"".join([*parts, packer.flush()])
    made: list[tuple[bytes, bytes]] = []
    for name, content in _chunks(png):
        if name == b"IHDR":
            content = content[:8] + b"\x10" + content[9:12] + b"\0"
        if name != b"IDAT":
            made.append((name, content))
        elif made[-1][0] != b"IDAT":
            made.append((name, packed))
    return _file(made)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and content of each."""
    place = len(SIGNATURE)
    while place + 12 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        yield name, data[place + 8 : place + 8 + length]
        place += 12 + length


def _file(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + name + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    )  # fmt: skip
