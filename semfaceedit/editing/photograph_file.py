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

FORMATS = {".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".jpg": "JPEG", ".jpeg": "JPEG"}
QUALITY = 95  # of JPEG
LAYOUT_TAGS = (
    254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 301, 317, 320, 322, 323, 324,
    325, 338, 339, 347, 529, 530, 531, 532, 34675,
)  # fmt: skip
"""Of a TIFF file's tags those that say how its pixels are stored, which its EXIF data hold too."""
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
    alpha: np.ndarray | None  # (H, W) uint8
    turn: Image.Transpose | None  # from the stored pixels to upright
    exif: Image.Exif
    settings: dict[str, Any]  # icc_profile, dpi and XMP data, as Pillow takes them
    subsampling: int  # of JPEG's colours, as Pillow counts
    deep: bool  # the file has 16 bits a channel, of which Pillow keeps eight
    grey: bool  # it has no colours, and shall have none


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
        grey = picture.mode in ("1", "L", "LA") or picture.mode.startswith("I;16")
        if picture.mode not in ("RGB", "RGBA", "L", "LA"):  # a profile of CMYK describes no RGB
            kept.pop("icc_profile", None)
        if picture.mode.startswith("I;16"):
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        picture = picture.convert("RGBA" if is_transparent(picture) else "RGB")
        if turn is not None:
            picture = picture.transpose(turn)
        values = np.asarray(picture)
        alpha = values[..., 3] if values.shape[2] == 4 else None
        return Photograph(
            pixels=values[..., :3],
            alpha=alpha,
            turn=turn,
            exif=exif,
            settings=kept,
            subsampling=sampling if sampling in (0, 1, 2) else 0,
            deep=deep,
            grey=grey,
        )


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

    TIFF is written upright, as programs differ in whether they turn it. UserError where it would
    replace what is not ours. The preview that EXIF data may hold shows the
    photograph as it was, and is left out.
    """
    check_format(path)
    check_alpha(path, original)
    check_replaceable(path)
    kind = FORMATS[path.suffix.lower()]
    if original.alpha is not None:
        pixels = np.concatenate([pixels, original.alpha[..., None]], 2)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if original.grey:
        picture = picture.convert("L" if original.alpha is None else "LA")
    if original.turn is not None and kind != "TIFF":
        picture = picture.transpose(BACK.get(original.turn, original.turn))
    settings: dict[str, Any] = dict(original.settings)
    exif = _exif_bytes(original.exif)
    if kind == "PNG":
        info = PngInfo()
        info.add_text("Software", picture_mark(picture))
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
    write_atomically(path, lambda temporary: picture.save(temporary, format=kind, **settings))


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
