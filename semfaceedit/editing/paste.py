"""Back into the photograph: an edit of the small crop, carried to the pixels of the whole.

Where the face kept its shape, the photograph is kept with all its detail and only the *change*
between the fitted and the edited rendering is added, in Oklab (Ottosson 2020), within an outline
that follows the photograph's edges. Where labels changed, the rendering takes its place, shifted to
the colours that the photograph has beside it, with a soft border.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from ..cli import remark, wrote
from ..data.align import Window, crop
from ..errors import UserError
from ..files import sha256_of_file
from ..model.generator import Generator
from ..model.renderer import RenderOutput
from ..outputs import check_outputs
from .guided import blur, guided_coefficients, spread
from .photograph_file import FORMATS, check_alpha, check_format, read_original, save_like
from .project import FaceProject
from .refit import EditedFace, EditSettings, dilate, footprint, render_project
from .target import SourceCrop, resize_labels

WORKING = 512  # pixels along the crop, at which outlines and changes are found
RENDERED = 256  # at most, of both renderings
SCALES = (0.15, 0.05, 0.015)  # sigmas that smooth and extend a change, in sides of the crop
EVEN = (0.3,)  # the same for a change of look, whose spots are the fit's and not meant
OUTLINE = 0.02  # how far the outline of a group may move to the photograph's edges, in sides
FADE = 0.08  # along an edge of the crop that lies within the photograph, in sides
CONTRAST = (0.5, 2.0)  # how far the contrast of details may follow the lightness
LEAST = 1 / 512  # weight, below which a pixel of the photograph is kept as it is
STRIP = 1 << 20  # pixels worked on at a time


@dataclass(frozen=True)
class Pasted:
    """A photograph with an edit in it. Outside the region it has the pixels it had."""

    pixels: np.ndarray  # (H, W, 3) uint8
    region: np.ndarray  # (H, W) bool


@dataclass(frozen=True)
class _Group:
    """How the look of one group changes, over the crop."""

    outline: Tensor  # (1, 4, w, w): a and b of the guided filter
    support: Tensor  # (1, 1, w, w) in [0, 1]: where the outline may lie
    change: Tensor  # (1, 3, w, w) of Oklab
    contrast: Tensor  # (1, 1, w, w): by how much details grow, 0 for not at all
    lightness: Tensor  # (1, 1, w, w): without details
    chroma: Tensor  # (1, 2, w, w): the group's mean in the photograph
    turn: Tensor  # (1, 2, w, w): what colours about that mean are multiplied by, complex, less 1


class NoPhotograph(UserError):
    """There is no photograph to paste into: `fact` says why, without what to do about it."""

    def __init__(self, fact: str, way_out: str):
        super().__init__(f"{fact}: {way_out}")
        self.fact = fact.removeprefix("--paste: ")


def find_photograph(
    project: FaceProject, given: Path | None = None, near: Path | None = None
) -> Path:
    """The photograph that a face was inverted from.

    given: another file that shows the same picture, of any size. near: the project's file, beside
    which the photograph is looked for where it is not in its old place. UserError where there is
    none, or where it changed since.
    """
    source = project.crop
    if source is None:
        raise NoPhotograph(
            "--paste: this face was not inverted from a photograph",
            "leave --paste out, or `invert` one",
        )
    known = source.photograph
    if given is not None:
        if known is None or sha256_of_file(_existing(given)) != known.sha256:
            remark(f"{given}: is not the very file that the face was inverted from")
        return given
    if known is None:
        raise NoPhotograph(
            "--paste: the face project does not say which photograph it was inverted from",
            "give it with --photograph",
        )
    places = [Path(known.path)]
    if near is not None:
        places.append(near.parent / places[0].name)
    found = [path for path in places if path.is_file()]
    for path in found:
        if path.stat().st_size == known.bytes and sha256_of_file(path) == known.sha256:
            return path
    if found:
        raise NoPhotograph(
            f"{found[0]}: changed since the face was inverted from it",
            "invert it again, or give the right file with --photograph",
        )
    raise NoPhotograph(
        f"{known.path}: the photograph is no longer there", "give it with --photograph"
    )


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise UserError(f"--photograph {path}: no such file: check the path")
    return path


def check_paste(
    project: FaceProject, out: Path, given: Path | None = None, near: Path | None = None
) -> Path:
    """The photograph, where `out` can be written from it; else UserError, before any work."""
    check_format(out)
    path = find_photograph(project, given, near)
    check_outputs([out], [path])
    check_alpha(out, read_original(path))
    return path


def paste_to_file(
    generator: Generator, before: FaceProject, edited: EditedFace, photograph: Path, out: Path
) -> Pasted:
    """Write the photograph with the edit in it, described as its file was; says what was lost."""
    original = read_original(photograph)
    height, width = original.pixels.shape[:2]
    assert before.crop is not None
    window = window_on(before.crop, width, height)
    pasted = paste(generator, before, edited, original.pixels, window)
    save_like(out, pasted.pixels, original)
    share = f"{100 * pasted.region.mean():.1f} % of its pixels"
    wrote(out, f"the photograph at {width}x{height}, changed in {share}")
    if FORMATS[out.suffix.lower()] == "JPEG":
        remark(
            f"{out}: JPEG is compressed anew, quality 95, and so changes everywhere a little: "
            "name a .png to keep all other pixels as they are"
        )
    if original.deep:
        remark(f"{photograph}: has 16 bits a channel, of which eight were kept")
    return pasted


def since(generator: Generator, before: FaceProject, project: FaceProject) -> EditedFace:
    """All that was done to a face, as one edit: `paste` finds in it where the face changed.

    Its region is where the label map changed, a little wider, and the groups of other looks.
    """
    resolution = generator.config.resolution
    group_of = np.array(before.group_of_class)
    groups = _changed_groups(before, project)
    where = dilate(before.labels != project.labels, EditSettings.dilation)
    for labels in (before.labels, project.labels):
        where |= np.isin(group_of[labels], groups)
    shown = render_project(generator, before, resolution)
    return EditedFace(
        project=project,
        region=footprint(where, shown.image),
        before=shown,
        after=render_project(generator, project, resolution),
        history=[],
    )


def window_on(source: SourceCrop, width: int, height: int) -> Window:
    """The crop's window on a photograph of that size; UserError where it has another shape."""
    known = source.photograph
    wanted = (known.width, known.height) if known else (source.width, source.height)
    if abs(width / height * wanted[1] / wanted[0] - 1) > 2 / min(*wanted, width, height):
        raise UserError(
            f"--photograph: {width}x{height} pixels are not the shape of the photograph that the "
            f"face was inverted from ({wanted[0]}x{wanted[1]}): give that, or invert this one"
        )
    return source.window.scaled(width / source.width)


@torch.no_grad()
def paste(
    generator: Generator,
    before: FaceProject,
    edited: EditedFace,
    pixels: np.ndarray,  # (H, W, 3) uint8, upright
    window: Window,  # of the crop, in these pixels
) -> Pasted:
    """Carry what `edited` changed in `before` to the photograph that it was inverted from.

    UserError where nothing changed within the photograph.
    """
    after = edited.project
    size = int(min(max(round(window.side), 64), WORKING))
    renderings = [render_project(generator, p, min(size, RENDERED)) for p in (before, after)]
    fitted, changed = ((r.image.cpu().clamp(-1, 1) + 1) / 2 for r in renderings)
    shown = torch.from_numpy(crop(pixels, window, size, Image.Resampling.LANCZOS).copy())
    photo = shown.movedim(-1, 0)[None].float() / 255
    labels = [_labels(r, size) for r in renderings]
    own = torch.from_numpy(resize_labels(before.labels, size).astype(np.int64))[None, None]
    asked = torch.from_numpy(resize_labels(after.labels, size).astype(np.int64))[None, None]
    frame = _frame(window, pixels.shape[1], pixels.shape[0], size)

    group_of = torch.tensor(before.group_of_class)
    looks = _changed_groups(before, after)
    reshaped = not _same(before.geometry, after.geometry)
    reach = frame
    if reshaped:
        looks = list(range(len(before.appearance.phases)))
        chosen = edited.region.float().cpu()
        reach = frame * blur(_enlarged(chosen, size), 0.012 * size)
    change = _enlarged(oklab(changed) - oklab(fitted), size)
    groups = []
    new_shape = _new_shape(own, asked, *labels) if reshaped else torch.zeros_like(own).bool()
    for group in looks:
        inside = group_of[own] == group
        steady = inside & (group_of[labels[0]] == group) & (group_of[labels[1]] == group)
        found = _group(photo, inside, steady & ~new_shape, change, reach, even=not reshaped)
        groups += [] if found is None else [found]
    weight, colours = torch.zeros_like(frame), photo
    if bool(new_shape.any()):
        kept = _recoloured(photo, groups, [_maps(g) for g in groups])
        grown = blur((blur(new_shape.float(), 0.008 * size) > 0.4).float(), 0.01 * size)
        weight = (2 * grown).clamp(max=1) * reach
        colours = _harmonised(_enlarged(changed, size), kept, labels[1], own, new_shape)
    return _composed(pixels, window, groups, torch.cat([weight, colours], 1))


def _same(a: object, b: object) -> bool:
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in ("frequencies", "phases"))


def _changed_groups(before: FaceProject, after: FaceProject) -> list[int]:
    a, b = before.appearance, after.appearance
    moved = (a.frequencies != b.frequencies) | (a.phases != b.phases)
    return [index for index, differs in enumerate(moved.flatten(1).any(1).tolist()) if differs]


def _labels(output: RenderOutput, size: int) -> Tensor:
    """(1, 1, size, size) class ids."""
    return interpolate(output.labels[:, None].cpu().float(), size=size).long()


def _enlarged(values: Tensor, size: int) -> Tensor:
    return interpolate(values, size=(size, size), mode="bilinear", align_corners=False)


def _frame(window: Window, width: int, height: int, size: int) -> Tensor:
    """(1, 1, size, size) in [0, 1]: fades along edges of the crop that the photograph crosses."""
    places = (torch.arange(size) + 0.5) / size
    sides = []
    for start, length in ((window.left, width), (window.top, height)):
        fade = torch.ones(size)
        if start > 1:
            fade = fade * (places / FADE).clamp(max=1)
        if start + window.side < length - 1:
            fade = fade * ((1 - places) / FADE).clamp(max=1)
        sides.append(fade * fade * (3 - 2 * fade))
    return (sides[1][:, None] * sides[0])[None, None]


def _new_shape(own: Tensor, asked: Tensor, fitted: Tensor, shown: Tensor) -> Tensor:
    """(1, 1, w, w) bool: where the edit shows another class than the photograph does.

    own: the photograph's map; asked: the edited one; fitted and shown: what both renderings show.
    """
    moved = (shown != fitted) | ((shown == asked) & (asked != own))
    return moved & (shown != own)


def _group(
    photo: Tensor,
    inside: Tensor,
    steady: Tensor,
    change: Tensor,
    reach: Tensor,
    *,
    even: bool,
) -> _Group | None:
    """How a group changes that the photograph shows `inside`, and both renderings `steady`."""
    size = photo.shape[-1]
    if not bool(inside.any()) or not bool(steady.any()):
        return None
    mask = inside.float()
    soft = blur(mask, 0.004 * size)
    a, b = guided_coefficients(photo, soft, max(2, round(OUTLINE * size)), 1e-3)
    wide = blur(mask, OUTLINE * size / 2)
    sigmas = tuple(scale * size for scale in (EVEN if even else SCALES))
    moved = spread(change, steady.float(), sigmas)
    lab = oklab(photo)
    mean, turn = torch.zeros_like(moved[:, 1:]), torch.zeros_like(moved[:, 1:])
    if even:
        moved[:, 1:] = spread(change[:, 1:], steady.float(), ())
        mean = spread(lab[:, 1:], mask, ())
        turn = _turn(mean, mean + moved[:, 1:])
    lightness = spread(lab[:, :1], mask, (0.05 * size, 0.015 * size))
    ratio = (lightness + moved[:, :1]) / lightness.clamp(min=0.05)
    return _Group(
        torch.cat([a, b], 1),
        (8 * wide).clamp(max=1) * reach,
        moved,
        ratio.clamp(*CONTRAST) - 1,
        lightness,
        mean,
        turn,
    )


def _turn(old: Tensor, new: Tensor) -> Tensor:
    """(1, 2, h, w) opponent colours -> the complex number that turns old into new, less 1.

    It never makes colours livelier, and grey stays grey: highlights of red hair that becomes grey
    do not become green.
    """
    a, b = old[:, :1], old[:, 1:]
    scale = a**2 + b**2 + 0.02**2
    real = (new[:, :1] * a + new[:, 1:] * b) / scale
    imaginary = (new[:, 1:] * a - new[:, :1] * b) / scale
    size = (real**2 + imaginary**2).sqrt().clamp(min=1)
    return torch.cat([real / size - 1, imaginary / size], 1)


def _maps(group: _Group) -> Tensor:
    return torch.cat(
        [
            group.outline,
            group.support,
            group.change,
            group.contrast,
            group.lightness,
            group.chroma,
            group.turn,
        ],
        1,
    )


def _weight(photo: Tensor, maps: Tensor) -> Tensor:
    """How far pixels (1, 3, h, w) belong to a group, (1, 1, h, w)."""
    matte = (maps[:, :3] * photo).sum(1, keepdim=True) + maps[:, 3:4]
    matte = ((matte - 0.15) / 0.7).clamp(0, 1)
    return matte * maps[:, 4:5]


def _recoloured(photo: Tensor, groups: list[_Group], maps: list[Tensor]) -> Tensor:
    """Colours (1, 3, h, w) in [0, 1] with the change of every group."""
    if not groups:
        return photo
    lab = oklab(photo)
    total = torch.zeros_like(lab)
    for own in maps:
        detail = own[:, 8:9] * (lab[:, :1] - own[:, 9:10])
        a, b = (lab[:, 1:] - own[:, 10:12]).split(1, 1)
        real, imaginary = own[:, 12:].split(1, 1)
        turned = torch.cat([a * real - b * imaginary, a * imaginary + b * real], 1)
        step = torch.cat([own[:, 5:6] + detail, own[:, 6:8] + turned], 1)
        total += _weight(photo, own) * step
    return srgb(lab + total)


def _harmonised(
    changed: Tensor, kept: Tensor, shown: Tensor, own: Tensor, new_shape: Tensor
) -> Tensor:
    """The rendering, each class shifted to the colours that the photograph has of it nearby.

    A class of which the photograph has none keeps the rendering's colours.
    """
    size = changed.shape[-1]
    made = changed.clone()
    for label in shown[new_shape].unique():
        here = shown == label
        beside = (here & (own == label) & ~new_shape).float()
        if float(beside.mean()) < 0.002:
            continue
        shift = spread(kept - changed, beside, tuple(s * size for s in SCALES[:2]))
        made = torch.where(here, changed + shift, made)
    return blur(made, 0.003 * size).clamp(0, 1)


def _composed(pixels: np.ndarray, window: Window, groups: list[_Group], shape: Tensor) -> Pasted:
    """The photograph with the change of all groups, and the new shape over it."""
    height, width = pixels.shape[:2]
    result, region = pixels.copy(), np.zeros((height, width), bool)
    maps = [_maps(group) for group in groups]
    for rows, columns in _strips(window, width, height):
        photo = torch.from_numpy(pixels[rows, columns].copy()).movedim(-1, 0)[None].float() / 255
        grid = _places(window, rows, columns)
        local = [_sampled(own, grid) for own in maps]
        made = _recoloured(photo, groups, local)
        weights = sum((_weight(photo, own) for own in local), torch.zeros_like(photo[:, :1]))
        over = _sampled(shape, grid)
        made = made + over[:, :1] * (over[:, 1:] - made)
        mask = ((weights > LEAST) | (over[:, :1] > LEAST))[0, 0].numpy()
        values = (made[0].movedim(0, -1) * 255).round().clamp(0, 255).byte().numpy()
        result[rows, columns][mask] = values[mask]
        region[rows, columns] = mask
    if not region.any():
        raise UserError(
            "--paste: the region that changed lies outside the photograph, or nothing changed: "
            "nothing was written"
        )
    return Pasted(result, region)


def _strips(window: Window, width: int, height: int) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the photograph within the window, some rows at a time."""
    left, top = max(0, int(np.ceil(window.left))), max(0, int(np.ceil(window.top)))
    right = min(width, int(window.left + window.side))
    bottom = min(height, int(window.top + window.side))
    if right <= left:
        return
    step = max(1, STRIP // (right - left))
    for start in range(top, bottom, step):
        yield slice(start, min(start + step, bottom)), slice(left, right)


def _places(window: Window, rows: slice, columns: slice) -> Tensor:
    """(1, h, w, 2): where these pixels lie in the crop, as `grid_sample` counts."""
    x = (torch.arange(columns.start, columns.stop) + 0.5 - window.left) * (2 / window.side) - 1
    y = (torch.arange(rows.start, rows.stop) + 0.5 - window.top) * (2 / window.side) - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)[None].float()


def _sampled(maps: Tensor, grid: Tensor) -> Tensor:
    return grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)


_TO_LMS = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(colours: Tensor) -> Tensor:
    """sRGB (1, 3, h, w) in [0, 1] -> Oklab: lightness in [0, 1], and two opponent colours."""
    linear = torch.where(
        colours <= 0.04045, colours / 12.92, ((colours.clamp(min=0) + 0.055) / 1.055) ** 2.4
    )
    lms = torch.einsum("ij,bjhw->bihw", _TO_LMS, linear).clamp(min=0)
    return torch.einsum("ij,bjhw->bihw", _TO_LAB, lms ** (1 / 3))


def srgb(lab: Tensor) -> Tensor:
    """The inverse of `oklab`, cut to [0, 1]."""
    lms = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(_TO_LAB), lab) ** 3
    linear = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(_TO_LMS), lms).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
