"""Back into the photograph: an edit of the small crop, carried to the pixels of the whole.

Where the face kept its shape, the photograph is kept with all its detail and only the *change*
between the fitted and the edited rendering is added, within an outline that follows the
photograph's edges (`recolour.py`), and beyond the crop. Where labels changed, the rendering takes
its place, with colours and details of the photograph beside it (`new_shapes.py`). An edit of an
edited face brings all edits since the inversion.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d, pad

from ..cli import remark, wrote
from ..data.align import Window, crop
from ..model.codes import Film
from ..model.generator import Generator
from ..model.labels import CLASS_NAMES
from ..model.renderer import RenderOutput
from ..outputs import check_outputs
from .composition import Pasted, composed, shares
from .guided import blur
from .moved_parts import displacements, drawn_along, enlarged
from .new_shapes import new_shapes, soft_classes
from .oklab import oklab
from .photograph_file import FORMATS, check_alpha, check_format, read_original, save_like
from .project import FaceProject
from .recolour import GroupChange, followed, group_change, recoloured
from .refit import EditedFace, EditSettings, dilate, footprint, render_project
from .source_photograph import find_photograph, window_on
from .target import resize_labels

WORKING = 512  # pixels along the crop, at which outlines and changes are found
RENDERED = 256  # at most, of both renderings
FADE = 0.08  # along an edge of the crop that lies within the photograph, in sides
STRANDS = (CLASS_NAMES.index("hair"),)  # classes whose border frays
THIN = 0.012  # sides: what is twice as thin at the border of a moved part is no new shape


ROUNDING = 1e-5  # of offsets, below which they are the same: files of before hold such differences
CULL = 1e-4  # least weight of a point that is coloured: no value moves by a tenth of a step of 255

Rendered = Callable[[Generator, FaceProject, int], RenderOutput]


def check_paste(
    project: FaceProject, out: Path, given: Path | None = None, near: Path | None = None
) -> Path:
    """The photograph, where `out` can be written from it; else UserError, before any work."""
    check_format(out)
    path = find_photograph(project, given, near)
    check_outputs([out], [path], flag="--paste")
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
    pasted = paste(generator, before, edited.project, edited.region, original.finest, window)
    save_like(out, pasted.pixels, original)
    share = f"{100 * pasted.region.mean():.1f} % of its pixels"
    wrote(out, f"the photograph at {width}x{height}, changed in {share}")
    if pasted.soft:
        remark(
            f"{out}: new places of {', '.join(pasted.soft)} are as soft as the model draws them: "
            "the photograph shows too little of that to take details from"
        )
    if FORMATS[out.suffix.lower()] == "JPEG":
        remark(
            f"{out}: JPEG is compressed anew, quality 95, and so changes everywhere a little: "
            "name a .png to keep all other pixels as they are"
        )
    if original.deep and (original.low is None or FORMATS[out.suffix.lower()] != "PNG"):
        way = "" if original.low is None else f": name a .png instead of {out.name} to keep them"
        remark(f"{photograph}: has 16 bits a channel, of which eight were kept{way}")
    return pasted


def region_since(before: FaceProject, after: FaceProject, resolution: int) -> Tensor:
    """(1, 1, r, r) bool: where `after` may differ from `before` by all that was done since.

    That is where the label map changed, a little wider, and the groups of other looks.
    """
    group_of = np.array(before.group_of_class)
    groups = _changed_groups(before, after)
    where = dilate(before.labels != after.labels, EditSettings.dilation)
    for labels in (before.labels, after.labels):
        where |= np.isin(group_of[labels], groups)
    return footprint(where, torch.empty(resolution, resolution))


def rendering(generator: Generator, face: FaceProject, resolution: int) -> RenderOutput:
    """A face at its own pose, as its photograph shows it."""
    return render_project(generator, face, resolution, cull=CULL)


@torch.no_grad()
def paste(
    generator: Generator,
    before: FaceProject,
    after: FaceProject,
    region: Tensor,  # (1, 1, r, r) bool: where it was to change
    pixels: np.ndarray,  # (H, W, 3) uint8 or uint16, upright
    window: Window,  # of the crop, in these pixels
    *,
    working: int = WORKING,
    rendered: Rendered | None = None,
) -> Pasted:
    """Carry what became of a face to the photograph that it was inverted from.

    A face that was edited before brings all of its edits. A change of look goes on beyond the crop
    through like colours. NothingChanged where nothing changed within the photograph. working:
    pixels along the crop, at which outlines and changes are found; fewer are quicker and coarser.
    rendered: renders a face at a resolution, by default `rendering`.
    """
    if after.origin is not None:
        before = after.as_inverted()
        known = after.origin.grown(region[0, 0].cpu().numpy()).region
        region = torch.from_numpy(known)[None, None]
    size = int(min(max(round(window.side), 64), working))
    most = RENDERED * working // WORKING
    rendered = rendered or rendering
    renderings = [rendered(generator, p, min(size, most)) for p in (before, after)]
    fitted, changed = ((r.image.cpu().clamp(-1, 1) + 1) / 2 for r in renderings)
    labels = [_labels(r, size) for r in renderings]
    own = torch.from_numpy(resize_labels(before.labels, size).astype(np.int64))[None, None]
    asked = torch.from_numpy(resize_labels(after.labels, size).astype(np.int64))[None, None]
    change = _enlarged(oklab(changed) - oklab(fitted), size)
    seen = _Seen(before, own, labels, change)
    height, width = pixels.shape[:2]
    frame = _frame(window, width, height, size)
    if _same(before.geometry, after.geometry):
        looks, square = _changed_groups(before, after), window
        if bool((frame < 1).any()):
            square = Window(
                window.left - window.side / 2, window.top - window.side / 2, 2 * window.side
            )
            photo = _shown(pixels, square, 2 * size)
            groups = [
                _beyond(seen, group, photo, frame, _frame(square, width, height, 2 * size))
                for group in looks
            ]
        else:
            photo = _shown(pixels, window, size)
            groups = [seen.change_of(group, photo, frame, even=True) for group in looks]
        return composed(pixels, square, groups, None)
    photo = _shown(pixels, window, size)
    within = _enlarged(region.float().cpu(), size)
    reach = frame * blur(within, 0.012 * size)
    new_shape = _new_shape(own, asked, *labels)
    field = displacements(own, torch.where(new_shape & (within > 0.5), labels[1], own))
    if field is not None:
        field = field * _enlarged(frame, field.shape[-1])
        photo, fitted = (drawn_along(picture, field) for picture in (photo, fitted))
        own, labels[0] = (
            drawn_along(classes.float(), field, "nearest").long() for classes in (own, labels[0])
        )
        moved = _new_shape(own, asked, *labels)
        new_shape = torch.where(_moves(field, size), _broad(moved), moved)
        new_shape |= enlarged(field, size)
        seen = _Seen(before, own, labels, _enlarged(oklab(changed) - oklab(fitted), size))
    # Of hair whose look was not changed, the renderings differ by what the fit drifted.
    kept_hair = {before.group_of_class[c] for c in STRANDS} - set(_changed_groups(before, after))
    groups = [
        seen.change_of(group, photo, reach, without=new_shape)
        for group in range(len(before.appearance.phases))
        if group not in kept_hair
    ]
    shape = None
    if bool(new_shape.any()):
        kept = recoloured(photo, [g.maps for g in groups if g is not None])
        weight, colours = new_shapes(
            _enlarged(changed, size), kept, labels[1], own, new_shape, STRANDS
        )
        shape = torch.cat([weight * reach, colours], 1)
    pasted = composed(pixels, window, groups, shape, field)
    soft = soft_classes(labels[1], own, new_shape & (reach > 0.5))
    return replace(pasted, soft=tuple(CLASS_NAMES[label] for label in soft))


def _shown(pixels: np.ndarray, window: Window, size: int) -> Tensor:
    """What the photograph shows in the window, (1, 3, size, size) in [0, 1]."""
    if pixels.dtype == np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return shares(crop(pixels, window, size, Image.Resampling.LANCZOS))


@dataclass(frozen=True)
class _Seen:
    """What is known of the crop, w x w places."""

    before: FaceProject
    own: Tensor  # (1, 1, w, w): classes of the photograph
    labels: list[Tensor]  # (1, 1, w, w): classes of both renderings
    change: Tensor  # (1, 3, w, w): of Oklab, from one to the other

    def of(self, group: int) -> tuple[Tensor, Tensor]:
        """Where the photograph shows a group, and where both renderings do too."""
        group_of = torch.tensor(self.before.group_of_class)
        inside = group_of[self.own] == group
        return inside, inside & (group_of[self.labels[0]] == group) & (
            group_of[self.labels[1]] == group
        )

    def change_of(
        self,
        group: int,
        photo: Tensor,
        reach: Tensor,
        *,
        without: Tensor | None = None,
        even: bool = False,
    ) -> GroupChange | None:
        inside, steady = self.of(group)
        if without is not None:
            steady = steady & ~without
        side = photo.shape[-1]
        return group_change(photo, inside, steady, self.change, reach, side=side, even=even)


def _beyond(
    seen: _Seen, group: int, photo: Tensor, frame: Tensor, whole: Tensor
) -> GroupChange | None:
    """The change of a group in a square of twice the crop's side (1, 3, 2w, 2w) around it.

    frame: what fades towards the crop's edges; whole: the same of that square. Where the group does
    not go on beyond the crop, its change fades within.
    """
    size = frame.shape[-1]
    edges = [size // 2, size - size // 2] * 2
    inside, steady = (pad(values, edges) for values in seen.of(group))
    known = pad(torch.ones_like(frame), edges) > 0
    on = followed(photo, inside, known)
    near = blur(max_pool2d(on * ~known, 2 * (size // 24) + 1, 1, size // 24), FADE * size / 2)
    within = pad(frame, edges)
    reach = torch.where(known, within + (1 - within) * (2 * near).clamp(max=1), on)
    reach = blur(reach, 0.01 * size) * whole
    inside = inside | (~known & (on > 0.2))
    change = pad(seen.change, edges)
    return group_change(photo, inside, steady, change, reach, side=size, even=True)


def _same(a: Film, b: Film) -> bool:
    return not bool(_differs(a, b).any())


def _changed_groups(before: FaceProject, after: FaceProject) -> list[int]:
    moved = _differs(before.appearance, after.appearance)
    return [index for index, differs in enumerate(moved.flatten(1).any(1).tolist()) if differs]


def _differs(a: Film, b: Film) -> Tensor:
    return ((a.frequencies - b.frequencies).abs() > ROUNDING) | (
        (a.phases - b.phases).abs() > ROUNDING
    )


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


def _moves(field: Tensor, size: int) -> Tensor:
    """(1, 1, size, size) bool: where displacements (1, 2, s, s) are not nothing."""
    return _enlarged(field.abs().amax(1, keepdim=True), size) > 0


def _broad(mask: Tensor) -> Tensor:
    """A mask (1, 1, w, w) without what is thin, such as the border of a part that moved."""
    reach = max(1, round(THIN * mask.shape[-1]))
    eroded = -max_pool2d(-mask.float(), 2 * reach + 1, 1, reach)
    return (max_pool2d(eroded, 2 * reach + 1, 1, reach) > 0.5) & mask
