"""Decoding photographs and label maps, whatever programs and cameras wrote them."""

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..files import check_regular
from ..model.labels import CLASS_NAMES, NUM_CLASSES, PALETTE
from ..outputs import save_picture

PALETTE_VARIANTS = {(51, 255, 255): CLASS_NAMES.index("r_brow")}
"""Colours that label pictures in circulation use beside those of `labels.PALETTE`."""

COLORS = np.concatenate([PALETTE, np.array(list(PALETTE_VARIANTS), np.uint8)]).astype(int)
IDS = np.array([*range(NUM_CLASSES), *PALETTE_VARIANTS.values()], np.uint8)  # of COLORS
SNAP = 8  # a colour this near to a class's, in each channel, is meant to be it

MOST_PIXELS = 100_000_000  # of a photograph that is read at its full size
LARGEST_PICTURE = 500_000_000  # pixels; decoded, they take 1.5 GB
_PILLOW = threading.RLock()

BEHIND = 255  # the grey that transparent photographs are laid on: white
ORIENTATION = 0x112  # the tag of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90,
}  # fmt: skip
"""What turns the stored pixels upright, by the value of the tag."""


def read_image(path: Path) -> np.ndarray:
    """Decode a photograph: (H, W, 3) uint8 RGB, turned upright where EXIF says so."""
    return read_photograph(path)[0]


def read_photograph(path: Path) -> tuple[np.ndarray, Image.Transpose | None]:
    """A photograph (H, W, 3) uint8 RGB upright, and the turn that its stored pixels needed.

    Of 16-bit grey the upper eight bits are taken, as Pillow does with 16-bit colour. What is
    transparent is laid on white. EXIF data that cannot be read say nothing. A photograph of more
    than 100 million pixels is read at a half, a third, ... of its size.
    """
    with opened_picture(path, most_pixels=MOST_PIXELS) as picture:
        turn = turn_of(picture)
        if turn is not None:
            picture = picture.transpose(turn)
        if picture.mode.startswith("I;16"):
            picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
        if picture.mode in ("I", "F"):
            raise UserError(
                f"{path}: its pixels have 32 bits, and what is white is unknown: save the picture "
                "with 8 or 16 bits a channel"
            )
        if is_transparent(picture):
            rgba = picture.convert("RGBA")
            plain = Image.new("RGBA", rgba.size, (BEHIND, BEHIND, BEHIND, 255))
            picture = Image.alpha_composite(plain, rgba)
        return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB")), turn


def upright_size(path: Path) -> tuple[int, int, int]:
    """Width and height of a photograph as turned upright, and its EXIF orientation, 1 to 8."""
    with opened_picture(path, decode=False) as picture:
        width, height = picture.size
        number = next((n for n, turn in TURNS.items() if turn == turn_of(picture)), 1)
    turned = number > 4 and picture.format != "TIFF"  # whose size Pillow gives upright
    return (height, width, number) if turned else (width, height, number)


def read_label_map(path: Path) -> np.ndarray:
    """Decode an id map (palette or grey: the stored value is the id) or a picture in the
    CelebAMask-HQ colours: (H, W) uint8.

    A palette that holds these colours in another order, as picture editors write it, is read by
    colour. What is transparent is background.
    """
    with opened_picture(path) as picture:
        turn = turn_of(picture)
        if turn is not None:
            picture = picture.transpose(turn)
        values = _label_values(picture, path)
        if is_transparent(picture):
            alpha = np.asarray(picture.convert("RGBA").getchannel("A"))
            values = np.where(alpha < 128, 0, values)
        return _checked_ids(values, path)


def save_label_map(path: Path, labels: np.ndarray) -> None:
    """Write class ids (H, W) as a palette PNG in CelebAMask-HQ colours."""
    picture = Image.fromarray(labels)
    picture.putpalette(PALETTE.tobytes())
    save_picture(path, picture)


def merge_parts(paths: Iterable[Path]) -> np.ndarray:
    """Paint part files over one another in the order of their ids: (H, W) uint8.

    Parts may overlap; the later one wins. A pixel belongs to a part where any channel is not 0.
    """
    labels: np.ndarray | None = None
    for path in sorted(paths, key=lambda path: part_of(path) or 0):
        with opened_picture(path) as picture:
            if picture.mode not in ("1", "L", "RGB", "I", "F") and "I;16" not in picture.mode:
                picture = picture.convert("RGB")
            values = np.asarray(picture)
        if values.ndim == 3:
            values = values[..., 0] | values[..., 1] | values[..., 2]
        if labels is None:
            labels = np.zeros(values.shape, np.uint8)
        if labels.shape != values.shape:
            raise UserError(
                f"{path}: {values.shape[1]}x{values.shape[0]} pixels, but the face's other parts "
                f"have {labels.shape[1]}x{labels.shape[0]}: extract the archive's file again"
            )
        labels[values != 0] = part_of(path) or 0
    if labels is None:
        raise ValueError("no part files")
    return labels


def part_of(path: Path) -> int | None:
    """The class id of `00012_l_eye.png`; None for other names."""
    number, _, part = path.stem.partition("_")
    return CLASS_NAMES.index(part) if number.isdecimal() and part in CLASS_NAMES[1:] else None


@contextmanager
def opened_picture(
    path: Path, most_pixels: int = LARGEST_PICTURE, *, decode: bool = True
) -> Iterator[Image.Image]:
    """Open and decode a picture; whatever is wrong with it, here or in the block, names the
    file.

    most_pixels: a larger picture is made smaller by a whole factor. decode: False for what the
    header says alone.
    """
    try:
        if path.suffix.lower() in (".heic", ".heif"):
            _register_heif(path)
        with _opened_by_pillow(path) as picture:
            yield _decoded(picture, path, most_pixels) if decode else picture
    except (UserError, MemoryError):
        raise
    except Image.DecompressionBombError:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise UserError(f"{path}: has more than {most:.0f} megapixels: scale it down") from None
    except Exception as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        action = (
            "check the path"
            if isinstance(error, FileNotFoundError)
            else "give another file; in a folder of pairs, remove both of the pair"
        )
        raise UserError(f"{path}: cannot be read ({_one_line(reason)}): {action}") from None


def _opened_by_pillow(path: Path) -> Image.Image:
    """Without Pillow's own limit, which is for servers that read other people's files."""
    check_regular(path)
    with _PILLOW:
        limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(path)
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def _decoded(picture: Image.Image, path: Path, most_pixels: int) -> Image.Image:
    pixels = picture.width * picture.height
    if pixels > LARGEST_PICTURE:
        raise UserError(
            f"{path}: {picture.width}x{picture.height} pixels are more than "
            f"{LARGEST_PICTURE // 10**6} million: scale it down"
        )
    factor = math.ceil(math.sqrt(pixels / most_pixels))
    if factor <= 1:
        picture.load()
        return picture
    picture.draft(None, (picture.width // factor, picture.height // factor))  # JPEG: cheaper
    factor = math.ceil(math.sqrt(picture.width * picture.height / most_pixels))
    exif = picture.getexif()
    smaller = picture.reduce(factor) if factor > 1 else picture.copy()
    smaller.getexif().update(exif)
    return smaller


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _register_heif(path: Path) -> None:
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        raise UserError(
            f"{path}: HEIC needs pillow-heif: pip install pillow-heif, or convert the photograph "
            "to JPEG or PNG"
        ) from None
    register_heif_opener()


def turn_of(picture: Image.Image) -> Image.Transpose | None:
    """What EXIF says of the stored pixels; None where it says nothing or is damaged."""
    with suppress(Exception):
        return TURNS.get(picture.getexif().get(ORIENTATION, 1))
    return None


def is_transparent(picture: Image.Image) -> bool:
    return picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info


def _label_values(picture: Image.Image, path: Path) -> np.ndarray:
    """Ids as they are stored or coloured, (H, W), not checked yet."""
    if picture.mode in ("P", "PA"):
        indices = np.asarray(picture)
        indices = indices[..., 0] if indices.ndim == 3 else indices
        ids = _ids_of_palette(picture, indices, path)
        return indices if ids is None else ids[indices]
    if picture.mode in ("LA", "La"):
        return np.asarray(picture)[..., 0]
    if picture.mode not in ("1", "L", "I", "F", "RGB") and "I;16" not in picture.mode:
        hidden = np.asarray(picture.convert("RGBA").getchannel("A")) < 128
        colors = np.array(picture.convert("RGB"))
        colors[hidden] = 0
        return _ids_of_colors(colors, path)
    values = np.asarray(picture)
    return _ids_of_colors(values, path) if values.ndim == 3 else values


def _checked_ids(values: np.ndarray, path: Path) -> np.ndarray:
    if not values.size:
        raise UserError(f"{path}: has no pixels: replace the file")
    # NaN compares false, and fractions are not what rounding down makes of them
    good = (values >= 0) & (values < NUM_CLASSES)
    if values.dtype.kind == "f":
        good &= values == np.floor(values)
    if not good.all():
        y, x = np.argwhere(~good)[0].tolist()
        raise UserError(
            f"{path}: holds the label {values[y, x]:g} at x {x}, y {y} "
            f"({_count(int((~good).sum()))} such in all), but ids are whole numbers from 0 to "
            f"{NUM_CLASSES - 1} (CelebAMask-HQ order): convert the mask to those ids"
        )
    return values.astype(np.uint8)


def _count(pixels: int) -> str:
    return f"{pixels:,} pixel{'s' if pixels != 1 else ''}"


def _nearest_class(colors: np.ndarray) -> np.ndarray:
    """(U, 3) colours -> (U,) ids of the classes whose colours they are or nearly are, else -1."""
    distance = np.abs(colors[:, None].astype(int) - COLORS).max(-1)
    nearest = distance.argmin(1)
    near = distance[np.arange(len(colors)), nearest] <= SNAP
    return np.where(near, IDS[nearest].astype(int), -1)


def _ids_of_colors(values: np.ndarray, path: Path) -> np.ndarray:
    """RGB (H, W, 3) -> ids: class colours, or equal channels that hold the id itself."""
    if (values == values[..., :1]).all() and values.max(initial=0) < NUM_CLASSES:
        return values[..., 0]
    codes = values.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], np.int32)
    found, inverse = np.unique(codes, return_inverse=True)
    colors = np.stack([found >> 16, found >> 8 & 255, found & 255], 1)
    ids = np.concatenate([_nearest_class(part) for part in np.array_split(colors, 64)])
    made = ids[inverse].reshape(codes.shape)
    _refuse_colors(made < 0, lambda y, x: values[y, x], path)
    return made


def _refuse_colors(wrong: np.ndarray, color_at: Any, path: Path) -> None:
    if not wrong.any():
        return
    y, x = np.argwhere(wrong)[0].tolist()
    color = tuple(int(value) for value in color_at(y, x))
    raise UserError(
        f"{path}: the colour {color} at x {x}, y {y} belongs to no CelebAMask-HQ class "
        f"({_count(int(wrong.sum()))} with such colours): switch antialiasing off and paint with "
        "the classes' own colours, or save an id map (palette or grey PNG, never JPEG)"
    )


def _ids_of_palette(picture: Image.Image, indices: np.ndarray, path: Path) -> np.ndarray | None:
    """(256,) class of each palette entry by its colour; None: the entries' numbers are the ids.

    By colour where most of the entries that the picture uses have the colours of classes, and
    several of them at other places than their ids. UserError where one of the others is used.
    """
    palette = np.zeros((256, 3), np.uint8)
    stored = np.array(picture.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
    palette[: len(stored)] = stored
    used = np.flatnonzero(np.bincount(indices.reshape(-1), minlength=256))
    ids = _nearest_class(palette)
    ids[len(stored) :] = -1
    moved = {int(ids[index]) for index in used if ids[index] not in (-1, index)}
    if len(moved) < 2 or 2 * (ids[used] >= 0).sum() < len(used):
        return None
    _refuse_colors(ids[indices] < 0, lambda y, x: palette[indices[y, x]], path)
    return ids
