"""Photographs in TIFF files of 16 bits a channel are read with all of them."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semfaceedit.editing.deep_tiff import low_bytes
from semfaceedit.editing.photograph_file import read_original


def write_tiff(path: Path, values: np.ndarray, order: str, *, deflate: bool, turn: int = 1) -> None:
    """A TIFF (6.0) of one strip, byte by byte, with pixels (H, W, 3 or 4) of 16 bits."""
    height, width, channels = values.shape
    data = values.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if deflate else data
    count = 10 + (channels == 4)
    bits = 8 + 2 + 12 * count + 4  # where their numbers are; the pixels follow
    tags = [
        (256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, bits),
        (259, 3, 1, 8 if deflate else 1), (262, 3, 1, 2), (273, 4, 1, bits + 2 * channels),
        (274, 3, 1, turn), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data)),
        (338, 3, 1, 2),
    ]  # fmt: skip
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, count)
    for tag, kind, number, value in tags[:count]:
        content += struct.pack(f"{order}HHI", tag, kind, number)
        short = kind == 3 and number == 1
        content += struct.pack(f"{order}HH" if short else f"{order}I", value, *[0] * short)
    content += struct.pack(f"{order}I{channels}H", 0, *[16] * channels)
    path.write_bytes(content + data)


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("deflate", [False, True])
def test_sixteen_bits_are_read(tmp_path, channels, order, deflate):
    path = tmp_path / "deep.tif"
    values = np.random.default_rng(0).integers(0, 1 << 16, (12, 7, channels)).astype(np.uint16)
    write_tiff(path, values, order, deflate=deflate)
    original = read_original(path)
    assert original.finest.dtype == np.uint16 and (original.finest == values[..., :3]).all()
    assert (original.pixels == values[..., :3] >> 8).all() and original.deep
    if channels == 4:
        assert original.alpha is not None and (original.alpha == values[..., 3]).all()
    write_tiff(path, values, order, deflate=deflate, turn=6)
    assert (read_original(path).finest == np.rot90(values[..., :3], -1)).all()


def test_grey_values_keep_sixteen_bits(tmp_path):
    path = tmp_path / "grey.tif"
    values = np.random.default_rng(0).integers(0, 1 << 16, (12, 7)).astype(np.uint16)
    Image.fromarray(values).save(path)
    original = read_original(path)
    assert original.grey and (original.finest == values[..., None]).all()


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_other_files_have_no_low_bytes(tmp_path):
    path = tmp_path / "plain.tif"
    Image.new("RGB", (8, 8)).save(path)
    assert low_bytes(path) is None
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert low_bytes(tmp_path / "a.png") is None
    path.write_bytes(path.read_bytes()[:40])
    assert low_bytes(path) is None
