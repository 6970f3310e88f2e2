"""`python -m semfaceedit.prepare`: faces in any known layout -> one packed folder for training."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image, ImageDraw

from .cli import run_command, wrote
from .data.align import crop_pair
from .data.dataset import open_packed
from .data.landmarks_file import read_landmarks
from .data.layouts import Face, Source, find_source
from .data.packing import is_packed
from .data.pose import Landmarks
from .data.preparation import LocatedFace, holds_source, locate, pack_source, source_key
from .errors import UserError
from .model.labels import colorize
from .outputs import check_replaceable, save_picture
from .parsing.folders import read_folder

PREVIEW_FACES = 24
PREVIEW_COLUMNS = 4  # faces in a row, each with its photograph and its crop
PREVIEW_SIZE = 192  # pixels, side of each picture


@dataclass(frozen=True)
class PrepareOptions:
    """Align faces and their masks, and pack them for training.

    Examples: semfaceedit prepare --data CelebAMask-HQ --out packed --resolution 256;
    semfaceedit prepare --data photographs --masks auto --out packed

    Reads CelebAMask-HQ as distributed (CelebA-HQ-img/ with CelebAMask-HQ-mask-anno/), images/ with
    masks/ that hold class ids, or photographs alone (--masks auto). Writes images.npy, labels.npy,
    poses.npy, dataset.json and preview.png.
    """

    data: Path
    """Folder of faces; never written to."""
    out: Path
    """Folder to write: new, empty, or packed before."""
    resolution: int = 256
    """Width and height of the packed pictures in pixels."""
    align: bool = True
    """Crop by five landmarks; --no-align takes the largest centred square."""
    landmarks: Path | None = None
    """File of landmarks, instead of those derived from the label maps: lines `name x y x y x y x y
    x y` or JSON {name: [[x, y], ...]}, in pixels: the eyes (image's left first), nose tip, mouth
    corners."""
    masks: Literal["given", "auto"] = "given"
    """given: label maps lie beside the photographs. auto: predict them and keep them in OUT-masks/,
    where they can be corrected; maps already there are reused."""
    keep_bad_masks: bool = False
    """Keep the CelebAMask-HQ faces whose masks are known to be wrong."""
    preview: bool = True
    """Write preview.png, to check landmarks and crops by eye."""


def run(options: PrepareOptions) -> None:
    """Pack `options.data` into `options.out`."""
    if not 8 <= options.resolution <= 2048:
        raise UserError(f"--resolution {options.resolution}: use 8 to 2048 pixels")
    if is_packed(options.data):
        raise UserError(f"{options.data}: is packed already: give it to `train --data` as it is")
    given: dict[str, Landmarks] = {}
    if options.masks == "auto":
        masks = options.out.with_name(f"{options.out.name}-masks")
        source, given = read_folder(options.data, masks)
        wrote(masks, "label maps, to be looked through")
    else:
        source = find_source(options.data, keep_bad_masks=options.keep_bad_masks)
    if options.landmarks and source.rendered:
        raise UserError(
            f"{options.data}: synthesized faces are not aligned, so landmarks change nothing: "
            "leave out --landmarks"
        )
    if options.landmarks:
        given |= read_landmarks(options.landmarks, source)
    key = source_key(source, options.resolution, align=options.align, landmarks=given)
    if options.preview:
        check_replaceable(options.out / "preview.png")
    if holds_source(options.out, key):
        print(f"{options.out} is up to date", file=sys.stderr)
    else:
        pack_source(
            source,
            options.out,
            resolution=options.resolution,
            align=options.align,
            landmarks=given,
        )
    wrote(options.out)
    if options.preview:
        path = options.out / "preview.png"
        save_picture(path, preview(source, _crops(options.out), given, align=options.align))
        wrote(path)
    print(summary(options.out), file=sys.stderr)


def summary(folder: Path) -> str:
    """One line on what a packed folder holds."""
    info = open_packed(folder).info
    crops, poses = Counter(info.get("crop", [])), Counter(info.get("pose_source", []))

    def counts(counter: Counter[str]) -> str:
        return ", ".join(f"{count} {name}" for name, count in counter.most_common())

    parts = [
        f"{info['count']} faces",
        f"cropped by: {counts(crops)}",
        f"pose from: {counts(poses)}",
    ]
    if info.get("sides_exchanged"):
        parts.append(f"left and right ids set straight in {len(info['sides_exchanged'])}")
    if info.get("skipped"):
        parts.append(f"skipped: {', '.join(info['skipped'])}")
    return "; ".join(parts)


def preview(
    source: Source, crops: list[str], given: dict[str, Landmarks], *, align: bool = True
) -> Image.Image:
    """A contact sheet: each photograph with landmarks and window, beside its crop under its mask.

    crops: what decided each face's window; faces without both eyes in their map come first.
    """
    chosen = _choose(source.faces, crops)
    columns, size = PREVIEW_COLUMNS, PREVIEW_SIZE
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (2 * size * min(columns, len(chosen)), size * rows))
    for index, face in enumerate(chosen):
        located = locate(
            face, align=align, landmarks=given.get(face.name), rendered=source.rendered
        )
        x, y = 2 * size * (index % columns), size * (index // columns)
        sheet.paste(_draw_photograph(located, size), (x, y))
        sheet.paste(_draw_crop(located, size), (x + size, y))
    return sheet


def _choose(faces: list[Face], crops: list[str]) -> list[Face]:
    """Up to half of the sheet: faces cropped by other means than their eyes; then evenly spread."""
    usual = ("eyes", "whole", "given")
    others = [face for face, crop in zip(faces, crops, strict=True) if crop not in usual]
    first = others[: PREVIEW_FACES // 2]
    rest = [face for face in faces if face not in others]
    wanted = min(PREVIEW_FACES - len(first), len(rest))
    return first + [rest[round(i * len(rest) / wanted)] for i in range(wanted)]


def _draw_photograph(located: LocatedFace, size: int) -> Image.Image:
    height, width = located.image.shape[:2]
    margin = 0.25 * max(width, height)  # windows may reach beyond the photograph
    factor = size / (max(width, height) + 2 * margin)
    small = Image.fromarray(located.image).resize(
        (max(1, round(width * factor)), max(1, round(height * factor))), Image.Resampling.BOX
    )
    picture = Image.new("RGB", (size, size), (40, 40, 40))
    start = round(margin * factor)
    picture.paste(small, (start, start))
    draw = ImageDraw.Draw(picture)

    def place(x: float, y: float) -> tuple[float, float]:
        return start + x * factor, start + y * factor

    window = located.window
    end = (window.left + window.side, window.top + window.side)
    draw.rectangle([place(window.left, window.top), place(*end)], outline=(255, 255, 0))
    if located.landmarks is not None:
        for x, y in located.landmarks.points:
            centre = place(x, y)
            draw.ellipse(
                [(centre[0] - 2, centre[1] - 2), (centre[0] + 2, centre[1] + 2)], fill=(0, 255, 0)
            )
    draw.text((3, size - 13), f"{located.face.name[:20]} {located.crop}", fill=(255, 255, 255))
    return picture


def _draw_crop(located: LocatedFace, size: int) -> Image.Image:
    image, labels = crop_pair(located.image, located.labels, located.window, size)
    colors = colorize(torch.from_numpy(labels.copy())).numpy()
    return Image.blend(Image.fromarray(image), Image.fromarray(colors), 0.35)


def _crops(folder: Path) -> list[str]:
    return list(open_packed(folder).info["crop"])


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(PrepareOptions, run, argv, name="prepare")


if __name__ == "__main__":
    sys.exit(main())
