"""`python -m semfaceedit.prepare`: faces in any known layout -> one packed folder for training."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from PIL import Image, ImageDraw

from .cli import run_command, wrote
from .data.align import crop_pair
from .data.dataset import open_packed
from .data.landmarks_file import landmarks_of, read_points
from .data.layouts import Source, SourcePair, find_source
from .data.mask_checks import MaskOrder
from .data.packing import check_packable, is_packed
from .data.pose import Landmarks
from .data.preparation import LocatedFace, holds_source, locate, pack_source, source_key
from .errors import UserError
from .model.labels import colorize
from .outputs import FOLDER, check_replaceable, save_picture
from .parsing.folders import read_folder
from .usage import Within, Without

PREVIEW_FACES = 24
PREVIEW_COLUMNS = 4  # faces in a row, each with its photograph and its crop
PREVIEW_SIZE = 192  # pixels, side of each picture


@dataclass(frozen=True)
class PrepareOptions:
    """Align faces and their masks, and pack them for training.

    Example: semfaceedit prepare --data CelebAMask-HQ --out packed --resolution 256

    Example: semfaceedit prepare --data photographs --masks auto --out packed

    Reads CelebAMask-HQ as distributed (CelebA-HQ-img/ with CelebAMask-HQ-mask-anno/), images/ with
    masks/ that hold class ids, or photographs alone (--masks auto). Writes images.npy, labels.npy,
    poses.npy, dataset.json and preview.png.
    """

    data: Path
    """Folder of faces; never written to."""
    out: Annotated[Path, FOLDER]
    """Folder to write: new, empty, or packed before."""
    resolution: Annotated[int, Within(8, 2048)] = 256
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
    mask_order: Annotated[MaskOrder | None, Without("masks")] = None
    """What the ids of id maps mean: celebamask-hq, or bisenet for maps of face-parsing.PyTorch
    (default: CelebAMask-HQ's, refused where many maps do not look like it)."""
    skip_bad: bool = False
    """Leave out faces whose files cannot be read or do not fit, and record them."""
    keep_bad_masks: Annotated[bool, Without("masks")] = False
    """Keep the CelebAMask-HQ faces whose masks are known to be wrong."""
    preview: bool = True
    """Write preview.png, to check landmarks and crops by eye."""


def run(options: PrepareOptions) -> None:
    """Pack `options.data` into `options.out`."""
    if is_packed(options.data):
        raise UserError(f"{options.data}: is packed already: give it to `train --data` as it is")
    check_packable(options.out)
    if options.preview:
        check_replaceable(options.out / "preview.png")
    points = {} if options.landmarks is None else read_points(options.landmarks)
    given: dict[str, Landmarks] = {}
    if options.masks == "auto":
        masks = options.out.with_name(f"{options.out.name}-masks")
        source, given = read_folder(options.data, masks)
        wrote(masks, "label maps, to be looked through")
    else:
        source = find_source(
            options.data, keep_bad_masks=options.keep_bad_masks, mask_order=options.mask_order
        )
    if options.landmarks and source.rendered:
        raise UserError(
            f"{options.data}: synthesized faces are not aligned, so landmarks change nothing: "
            "leave out --landmarks"
        )
    if options.landmarks:
        given |= landmarks_of(points, source, options.landmarks)
    key = source_key(source, options.resolution, align=options.align, landmarks=given)
    if holds_source(options.out, key):
        print(f"{options.out} is up to date", file=sys.stderr)
    else:
        pack_source(
            source,
            options.out,
            resolution=options.resolution,
            align=options.align,
            landmarks=given,
            skip_bad=options.skip_bad,
        )
    wrote(options.out)
    if options.preview:
        path = options.out / "preview.png"
        save_picture(path, crop_sheet(source, _crops(options.out), given, align=options.align))
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
    centred = [n for n, crop in zip(info["names"], info.get("crop", []), strict=False)
               if crop == "centre" and info.get("aligned")]  # fmt: skip
    for what, names in (
        ("skipped", info.get("skipped", ())),
        ("cropped about the middle, for lack of a face that could be placed", centred),
        ("of several faces the largest was taken in", info.get("several_faces", ())),
        ("maps that look wrong", info.get("doubtful_masks", ())),
    ):
        if names:
            parts.append(f"{what}: {_some(list(names))}")
    return "; ".join(parts)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return ", ".join(names[:20]) + more


def crop_sheet(
    source: Source, crops: dict[str, str], given: dict[str, Landmarks], *, align: bool = True
) -> Image.Image:
    """A contact sheet: each photograph with landmarks and window, beside its crop under its mask.

    crops: what decided each face's window, by its name; faces without both eyes in their map come
    first, faces that are not among them do not come.
    """
    chosen = _choose([face for face in source.faces if face.name in crops], crops)
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


def _choose(faces: list[SourcePair], crops: dict[str, str]) -> list[SourcePair]:
    """Up to half of the sheet: faces cropped by other means than their eyes; then evenly spread."""
    usual = ("eyes", "whole", "given")
    others = [face for face in faces if crops[face.name] not in usual]
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


def _crops(folder: Path) -> dict[str, str]:
    info = open_packed(folder).info
    return dict(zip(info["names"], info["crop"], strict=True))


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(PrepareOptions, run, argv, name="prepare")


if __name__ == "__main__":
    sys.exit(main())
