"""The photograph's own file: its stored pixels and what it says of them, read and written."""

import io
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from ..data.decoding import ORIENTATION, is_transparent, opened_picture, turn_of
from ..errors import UserError
from ..files import write_atomically
from ..outputs import (
    TIFF_MARK,
    check_replaceable,
    jpeg_mark,
    picture_mark,
)
from . import deep_tiff
from .deep_png import low_bytes, with_low_bytes

FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}
QUALITY = 95  # of JPEG
LAYOUT_TAGS = (
    254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 301, 317, 320, 322, 323, 324,
    325, 338, 339, 347, 529, 530, 531, 532, 34675,
)  # fmt: skip
"""Of a TIFF file's tags those that say how its pixels are stored, which its EXIF data hold too."""
GREY = (0.299, 0.587, 0.114)  # shares of red, green and blue in a grey, as Pillow has them
PNG_XMP = "XML:com.adobe.xmp"  # the text of a PNG that holds XMP data
XMP_TAG = 700  # the same of TIFF
BACK = {
    Image.Transpose.ROTATE_270: Image.Transpose.ROTATE_90,
    Image.Transpose.ROTATE_90: Image.Transpose.ROTATE_270,
}  # turns that are not their own inverse


@dataclass(frozen=True)
class Photograph:
    """A photograph upright, with all that its file says."""

    pixels: np.ndarray  # (H, W, 3) uint8, what is transparent included
    low: np.ndarray | None  # (H, W, 3) uint8: the low bytes of pixels of 16 bits, where kept
    alpha: np.ndarray | None  # (H, W), of as many bits
    turn: Image.Transpose | None  # from the stored pixels to upright
    exif: Image.Exif
    settings: dict[str, Any]  # icc_profile, dpi and XMP data, as Pillow takes them
    subsampling: int  # of JPEG's colours, as Pillow counts
    deep: bool  # the file has 16 bits a channel
    grey: bool  # it has no colours, and shall have none

    @property
    def finest(self) -> np.ndarray:
        """(H, W, 3) uint8, or uint16 where all 16 bits were read."""
        return self.pixels if self.low is None else _joined(self.pixels, self.low)


def read_original(path: Path) -> Photograph:
    """UserError where the file cannot be read."""
    with opened_picture(path, decode=False) as picture:
        deep = "16" in picture.mode or any(
            "16" in str(tile[3]) for tile in getattr(picture, "tile", ())
        )
        sampling = -1
        if isinstance(picture, JpegImagePlugin.JpegImageFile):
            sampling = JpegImagePlugin.get_sampling(picture)
        if picture.mode in ("I", "F"):
            raise UserError(f"{path}: its pixels have 32 bits: save it with 8 bits a channel")
        picture.load()
        turn = turn_of(picture)
        exif = picture.getexif()
        info = picture.info
        kept = {name: info[name] for name in ("icc_profile", "dpi") if info.get(name)}
        xmp = info.get("xmp") or info.get(PNG_XMP)
        if xmp:
            kept["xmp"] = xmp if isinstance(xmp, bytes) else str(xmp).encode()
        lower = (low_bytes(path) or deep_tiff.low_bytes(path)) if deep else None
        grey = picture.mode in ("1", "L", "LA") or picture.mode.startswith("I;16")
        grey = grey or (lower is not None and lower.mode == "LA")  # RGBA to Pillow
        # A profile of CMYK describes no RGB.
        if picture.mode not in ("RGB", "RGBA", "L", "LA", "I;16"):
            kept.pop("icc_profile", None)
        if picture.mode.startswith("I;16"):
            both = np.asarray(picture)
            high, rest = both >> 8, both & 255
            picture, lower = (Image.fromarray(part.astype(np.uint8)) for part in (high, rest))
        mode = "RGBA" if is_transparent(picture) else "RGB"
        values, low = (
            None if part is None else np.asarray(_turned(part.convert(mode), turn))
            for part in (picture, lower)
        )
        assert values is not None
        alpha = None
        if mode == "RGBA":
            alpha = values[..., 3] if low is None else _joined(values[..., 3], low[..., 3])
        return Photograph(
            pixels=values[..., :3],
            low=None if low is None else low[..., :3],
            alpha=alpha,
            turn=turn,
            exif=exif,
            settings=kept,
            subsampling=sampling if sampling in (0, 1, 2) else 0,
            deep=deep,
            grey=grey,
        )


def _turned(picture: Image.Image, turn: Image.Transpose | None) -> Image.Image:
    return picture if turn is None else picture.transpose(turn)


def _joined(high: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Values of 16 bits of two bytes each."""
    return high.astype(np.uint16) << 8 | low


def check_format(path: Path) -> None:
    """UserError where the name ends in no format that can be written."""
    if path.suffix.lower() not in FORMATS:
        raise UserError(f"--paste {path}: name a file that ends in {', '.join(FORMATS)}")


def check_alpha(path: Path, original: Photograph) -> None:
    """UserError where the format would lose the photograph's transparency."""
    if original.alpha is not None and FORMATS[path.suffix.lower()] == "JPEG":
        raise UserError(
            f"--paste {path}: the photograph is transparent in places, which JPEG cannot keep: "
            "name a .png"
        )


def save_like(path: Path, pixels: np.ndarray, original: Photograph) -> None:
    """Write (H, W, 3) uint8, upright, turned and described as the photograph was.

    uint16 becomes a PNG of 16 bits; other formats get eight. TIFF is written upright, as programs
    differ in whether they turn it. UserError where it would replace what is not ours. The preview
    that EXIF data may hold shows the photograph as it was, and is left out.
    """
    check_format(path)
    check_alpha(path, original)
    check_replaceable(path)
    kind = FORMATS[path.suffix.lower()]
    values = _as_stored(pixels, original)
    back = None
    if original.turn is not None and kind != "TIFF":
        back = BACK.get(original.turn, original.turn)
    deep = values.dtype == np.uint16
    high = values >> 8 if deep else values
    picture, low = (
        _turned(Image.fromarray(part.astype(np.uint8)), back) for part in (high, values)
    )
    settings: dict[str, Any] = dict(original.settings)
    exif = _exif_bytes(original.exif)
    if kind == "PNG":
        info = PngInfo()
        mark = picture_mark(picture)
        if deep and picture.mode == "L":  # which Pillow reads with all 16 bits
            with Image.open(io.BytesIO(_deep_png(picture, low, {}))) as decoded:
                mark = picture_mark(decoded)
        info.add_text("Software", mark)
        if xmp := settings.pop("xmp", b""):
            info.add_itxt(PNG_XMP, xmp.decode("utf-8", "replace"))
        settings |= {"pnginfo": info} | ({"exif": exif} if exif else {})
    elif kind == "TIFF":
        tags = _tiff_tags(original.exif, picture)
        if xmp := settings.pop("xmp", b""):
            tags[XMP_TAG] = xmp
            tags.tagtype[XMP_TAG] = 1
        settings |= {"tiffinfo": tags}
    else:
        settings |= {"quality": QUALITY, "subsampling": original.subsampling}
        settings |= {"exif": exif} if exif else {}
        plain = io.BytesIO()
        picture.save(plain, format=kind, **settings)
        with Image.open(plain) as decoded:
            settings["comment"] = jpeg_mark(decoded)
    if deep and kind == "PNG":
        data = _deep_png(picture, low, settings)
        write_atomically(path, lambda temporary: temporary.write_bytes(data))  # type: ignore[arg-type]
    else:
        write_atomically(path, lambda temporary: picture.save(temporary, format=kind, **settings))


def _deep_png(high: Image.Image, low: Image.Image, settings: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    high.save(file, format="PNG", compress_level=0, **settings)
    return with_low_bytes(file.getvalue(), np.asarray(high), np.asarray(low))


def _as_stored(pixels: np.ndarray, original: Photograph) -> np.ndarray:
    """With the photograph's transparency, and without colours where it has none: (H, W) or
    (H, W, C), of the type of `pixels`."""
    parts = [pixels]
    if original.grey:
        grey = (pixels.astype(np.float64) * GREY).sum(-1, keepdims=True)
        parts = [grey.round().astype(pixels.dtype)]
    if original.alpha is not None:
        alpha = original.alpha
        if alpha.dtype != pixels.dtype:
            alpha = (alpha >> 8).astype(np.uint8)
        parts.append(alpha[..., None])
    values = np.concatenate(parts, 2)
    return np.ascontiguousarray(values[..., 0] if values.shape[2] == 1 else values)


def _exif_bytes(exif: Image.Exif) -> bytes:
    """The data without the preview; nothing where they are damaged."""
    with suppress(Exception):
        for tag in LAYOUT_TAGS:
            if tag in exif:
                del exif[tag]
        return exif.tobytes() if len(exif) else b""
    return b""


def _tiff_tags(exif: Image.Exif, picture: Image.Image) -> ImageFileDirectory_v2:
    """What the photograph says of itself, and our mark."""
    tags = ImageFileDirectory_v2()
    with suppress(Exception):
        for tag, value in exif.items():
            if tag not in LAYOUT_TAGS and tag not in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                tags[tag] = value
        for part in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if found := exif.get_ifd(part):
                tags[part] = dict(found)
    tags[ORIENTATION] = 1
    tags[TIFF_MARK] = picture_mark(picture)
    tags.tagtype[TIFF_MARK] = 2
    return tags
