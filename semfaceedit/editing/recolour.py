"""How the look of one group of a photograph changes, as maps that can be enlarged to its pixels.

The *change* between two renderings, in Oklab, is smoothed and added to the photograph, within an
outline that follows the photograph's edges. Oklab pulls the last bits of what is nearly black far
apart: there, details are taken in sRGB and colours from the group's mean, and it grows lighter only
as far as a multiple of the light that it has.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d

from .guided import blur, guided_coefficients, spread
from .oklab import oklab, srgb

SCALES = (0.15, 0.05, 0.015)  # sigmas that smooth and extend a change, in sides of the crop
EVEN = (0.3,)  # the same for a change of look, whose spots are the fit's and not meant
OUTLINE = 0.02  # how far the outline of a group may move to the photograph's edges, in sides
CONTRAST = (0.5, 2.0)  # how far the contrast of details may follow the lightness
DARK = (
    0.3,
    0.5,
)  # lightness, below which a pixel counts as dark wholly, and above which not at all
MOST_LIGHT = 3.0  # times the lightness that a place has: 27 times its light
HEADROOM = 0.12  # lightness above the group's new one, to which a change may raise a pixel
APART = 0.2  # of colours in sRGB, from which on they tell a group from what is beside it
LUMA = (0.2126, 0.7152, 0.0722)
CELLS = 64  # along the crop, in which hair is followed beyond it
KEPT = 0.975  # of a change, from a cell to the next one


@dataclass(frozen=True)
class GroupChange:
    """How a group's look changes, over a square of w x w places."""

    outline: Tensor  # (1, 4, w, w): how far a colour belongs to the group: a . colour + b
    support: Tensor  # (1, 1, w, w) in [0, 1]: where it may
    change: Tensor  # (1, 3, w, w) of Oklab
    contrast: Tensor  # (1, 1, w, w): by how much details grow, 0 for not at all
    lightness: Tensor  # (1, 1, w, w): without details
    luma: Tensor  # (1, 1, w, w): the same in sRGB
    chroma: Tensor  # (1, 2, w, w): the group's mean in the photograph, near or of all of it
    turn: Tensor  # (1, 2, w, w): what colours about that mean are multiplied by, complex, less 1

    @property
    def maps(self) -> Tensor:
        """(1, 15, w, w), as `recoloured` takes them."""
        return torch.cat(list(vars(self).values()), 1)


def group_change(
    photo: Tensor,
    inside: Tensor,
    steady: Tensor,
    change: Tensor,
    reach: Tensor,
    *,
    side: float,
    even: bool,
) -> GroupChange | None:
    """How a group changes that the photograph (1, 3, w, w) shows `inside`, (1, 1, w, w) bool.

    steady: where both renderings show it too, and `change` (1, 3, w, w) is known. reach: how far
    pixels may change. side: of the crop, in pixels of these maps. even: one change everywhere.
    """
    if not bool(inside.any()) or not bool(steady.any()):
        return None
    mask = inside.float()
    wide = blur(mask, OUTLINE * side)
    moved = spread(change, steady.float(), tuple(s * side for s in (EVEN if even else SCALES)))
    lab = oklab(photo)
    near = (0.05 * side, 0.015 * side)
    mean, turn = spread(lab[:, 1:], mask, near), torch.zeros_like(moved[:, 1:])
    if even:
        moved[:, 1:] = spread(change[:, 1:], steady.float(), ())
        mean = spread(lab[:, 1:], mask, ())
        turn = _turn(mean, mean + moved[:, 1:])
    lightness = spread(lab[:, :1], mask, near)
    moved[:, :1] = torch.minimum(moved[:, :1], (MOST_LIGHT - 1) * lightness)
    ratio = (lightness + moved[:, :1]) / lightness.clamp(min=0.05)
    return GroupChange(
        _outline(photo, mask, side),
        (8 * wide).clamp(max=1) * reach,
        moved,
        ratio.clamp(*CONTRAST) - 1,
        lightness,
        spread(_luma(photo), mask, near),
        mean,
        turn,
    )


def _outline(photo: Tensor, mask: Tensor, side: float) -> Tensor:
    """a and b (1, 4, w, w) by which colours belong to what `mask` shows.

    Near the mask's border: by where a colour lies between those of the group and of what is beside
    it, which finds single strands; where the two are alike, the guided filter's answer. Further
    inside everything belongs, further outside nothing.
    """
    radius = max(2, round(OUTLINE * side))
    guided = torch.cat(guided_coefficients(photo, blur(mask, 0.004 * side), radius, 1e-3), 1)
    deep = blur(mask, OUTLINE * side)
    own = spread(photo, ((deep > 0.7) & (mask > 0)).float(), (0.15 * side, 0.04 * side))
    other = spread(photo, ((deep < 0.3) & (deep > 0.001)).float(), (0.15 * side, 0.04 * side))
    way = own - other
    length = way.square().sum(1, keepdim=True)
    line = torch.cat([way, -(way * other).sum(1, keepdim=True)], 1) / length.clamp(min=1e-4)
    trust = length / (length + APART**2)
    found = trust * line + (1 - trust) * guided
    surely = ((deep - 0.8) / 0.15).clamp(0, 1)
    found = (1 - surely) * found
    found[:, 3:] += surely
    return found


def _luma(photo: Tensor) -> Tensor:
    return (photo * photo.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


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


def weight_of(photo: Tensor, maps: Tensor) -> Tensor:
    """How far pixels (1, 3, h, w) belong to a group, (1, 1, h, w)."""
    matte = (maps[:, :3] * photo).sum(1, keepdim=True) + maps[:, 3:4]
    matte = ((matte - 0.25) / 0.6).clamp(0, 1)
    return matte * maps[:, 4:5]


def recoloured(photo: Tensor, maps: list[Tensor]) -> Tensor:
    """Colours (1, 3, h, w) in [0, 1] with the change of every group."""
    if not maps:
        return photo
    lab, luma = oklab(photo), _luma(photo)
    total = torch.zeros_like(lab)
    for own in maps:
        change, contrast, lightness = own[:, 5:8], own[:, 8:9], own[:, 9:10]
        mean = own[:, 11:13]
        a, b = (lab[:, 1:] - mean).split(1, 1)
        real, imaginary = own[:, 13:].split(1, 1)
        turned = torch.cat([a * real - b * imaginary, a * imaginary + b * real], 1)
        light = change[:, :1] + contrast * (lab[:, :1] - lightness)
        step = torch.cat([light, change[:, 1:] + turned], 1)
        dark = ((DARK[1] - lightness) / (DARK[1] - DARK[0])).clamp(0, 1)
        details = (1 + contrast) * (luma - own[:, 10:11])
        flat = torch.cat([lightness + change[:, :1] + details, mean + change[:, 1:]], 1) - lab
        step = step + dark * (flat - step)
        # What is lighter than the group, beside it, is not made lighter still.
        most = (lightness + change[:, :1] + HEADROOM).maximum(lab[:, :1]) - lab[:, :1]
        lighter = (change[:, :1] > 0) & (dark > 0)
        step[:, :1] = torch.where(lighter, step[:, :1].minimum(most), step[:, :1])
        total += weight_of(photo, own) * step
    return srgb(lab + total)


@torch.no_grad()
def followed(photo: Tensor, inside: Tensor, known: Tensor) -> Tensor:
    """How far what is `inside` goes on where the map ends, (1, 1, w, w) in [0, 1].

    photo (1, 3, w, w); inside and known (1, 1, w, w) bool: the group, and where the map says. From
    the map's end it goes on through like colours, a little less with every step.
    """
    size = photo.shape[-1]
    cells = min(2 * CELLS, size)
    small = interpolate(photo, (cells, cells), mode="area")
    mask = interpolate(inside.float(), (cells, cells), mode="area")
    seen = interpolate(known.float(), (cells, cells), mode="area") > 0.5
    bins = (oklab(small) * small.new_tensor([16.0, 40.0, 40.0])[:, None, None]).round().long()[0]
    bins = (bins[0].clamp(0, 16) * 41 + (bins[1] + 20).clamp(0, 40)) * 41 + (bins[2] + 20).clamp(
        0, 40
    )
    own, all_ = (
        torch.bincount(bins[seen[0, 0]], weights.float(), minlength=17 * 41 * 41)
        for weights in (mask[seen], torch.ones(int(seen.sum())))
    )
    grown = [interpolate(n.view(1, 1, 17, 41, 41), scale_factor=1) for n in (own, all_)]
    grown = [torch.nn.functional.avg_pool3d(n, 3, 1, 1).flatten() for n in grown]
    likely = (grown[0] / (grown[1] + 0.1))[bins][None, None]
    passing = KEPT * ((likely - 0.3) / 0.4).clamp(0, 1)
    edge = max_pool2d((~seen).float(), 5, 1, 2)
    found = mask * seen * edge
    for _ in range(cells // 2):
        found = torch.where(seen, found, max_pool2d(found, 3, 1, 1) * passing)
    found = torch.where(seen, mask, found)
    return interpolate(blur(found, 1.0), (size, size), mode="bilinear", align_corners=False)
