"""What an edit shows in a new place: the rendering, with the photograph's colours and details.

A rendering is coarse. Each class in it is shifted to the colours that the photograph has of it
beside, as by a membrane from there (Pérez et al. 2003: gradient-domain blending, whose border is
free where another class begins), and gets details of the photograph's own: patches of what the
class shows nearby are laid over each other (in the manner of image quilting, Efros and Freeman
2001). So painted hair has strands.
"""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from .guided import blur, spread
from .oklab import oklab, srgb
from .recolour import SCALES

DETAILS = 0.02  # sigma, below which a change of colour is a detail, in sides of the crop
PATCH = 0.09  # side of a patch of details
COVERED = 0.8  # least share of a patch that shows a class, for details to be taken from it
CANDIDATES = 12  # places looked at for each patch
LEAST_SHARE = 0.002  # of the crop, that a class needs in the photograph for its colours to be known
FIRM, STRANDS = 2.5, 0.35  # of a border of hair: how steep it is, and how far strands move it


def new_shapes(
    changed: Tensor,
    kept: Tensor,
    shown: Tensor,
    own: Tensor,
    new_shape: Tensor,
    strands: tuple[int, ...],
) -> tuple[Tensor, Tensor]:
    """Weight (1, 1, w, w) and colours (1, 3, w, w) in [0, 1] of what is new.

    changed: the edited rendering; kept: the photograph, recoloured; both (1, 3, w, w) in [0, 1].
    shown and own: the classes of the two, (1, 1, w, w); new_shape: where to show the rendering.
    strands: classes whose border follows their details. A class of which the photograph has none
    keeps the rendering's colours.
    """
    size = changed.shape[-1]
    made, photo = oklab(blur(changed, 0.003 * size)), oklab(kept)
    weight = (2 * blur((blur(new_shape.float(), 0.008 * size) > 0.4).float(), 0.01 * size)).clamp(
        max=1
    )
    colours = made.clone()
    for label in shown[new_shape].unique().tolist():
        here = shown == label
        fresh = here & new_shape
        beside = (here & (own == label) & ~new_shape).float()
        if float(beside.mean()) < LEAST_SHARE:
            continue
        target = blur(fresh.float(), 0.015 * size) > 0.01  # a little beyond, for its border
        found = details(photo, (own == label) & ~new_shape, target)
        if label in strands:
            border = _strands(fresh, own == label, found[:, :1])
            weight = torch.where(target, border, weight)
            colours = torch.where(target, _carried(photo, made, here, beside) + found, colours)
        else:
            shift = spread(photo - made, beside, tuple(s * size for s in SCALES[:2]))
            colours = torch.where(here, made + shift + found, colours)
    return weight, srgb(colours)


def soft_classes(shown: Tensor, own: Tensor, new_shape: Tensor) -> list[int]:
    """Classes that are shown new without any details, as the photograph has too little of them.

    As `new_shapes`; those of fewer than a `LEAST_SHARE` of the crop do not count.
    """
    found = []
    for label in shown[new_shape].unique().tolist():
        fresh = (shown == label) & new_shape
        source = ((own == label) & ~new_shape).float()
        if float(fresh.float().mean()) >= LEAST_SHARE and float(_covered(source).max()) < COVERED:
            found.append(label)
    return found


def _patch_side(size: int) -> int:
    return max(8, 2 * round(PATCH * size / 2))


def _covered(mask: Tensor) -> Tensor:
    """Of patches at every other place, the share that a mask (1, 1, w, w) covers."""
    side = _patch_side(mask.shape[-1])
    return avg_pool2d(avg_pool2d(mask, (side, 1), 1), (1, side), 1)[0, 0, ::2, ::2]


def _carried(photo: Tensor, made: Tensor, here: Tensor, beside: Tensor) -> Tensor:
    """A class without details, `here` and carried on: in the colours of the photograph `beside` it,
    as light as half that and half the rendering, shifted to it."""
    size = photo.shape[-1]
    sigmas = tuple(s * size for s in SCALES)
    shift = spread(photo - made, beside, sigmas)
    carried = spread(made, here.float(), sigmas[1:])
    lightness = torch.where(here, made, carried)[:, :1] + shift[:, :1]
    own = spread(photo, beside, sigmas[:2])
    return torch.cat([(lightness + own[:, :1]) / 2, own[:, 1:]], 1)


def _strands(new: Tensor, old: Tensor, lightness: Tensor) -> Tensor:
    """The weight of new hair: its border frays as its strands are lighter or darker."""
    size = new.shape[-1]
    deviation = lightness[new].std().clamp(min=1e-3) if int(new.sum()) > 1 else 1.0
    whole = blur((new | old).float(), 0.015 * size)
    there = blur(new.float(), 0.015 * size)
    frayed = FIRM * (whole - 0.5) + 0.5 - STRANDS * lightness / deviation
    return frayed.clamp(0, 1) * (4 * there).clamp(max=1)


def details(photo: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Details (1, 3, w, w) for `target`, of those that the photograph has in `source`, both
    (1, 1, w, w) bool; zero where the source is nowhere as wide as a patch, or the target empty."""
    size = photo.shape[-1]
    made = torch.zeros_like(photo)
    mask = source.float()
    fine = mask * (photo - spread(photo, mask, (3 * DETAILS * size, DETAILS * size)))
    side = _patch_side(size)
    covered = _covered(mask)
    if float(covered.max()) < COVERED or not bool(target.any()):
        return made
    step = side // 2
    ys, xs = (covered >= min(0.97, 0.98 * float(covered.max()))).nonzero().unbind(1)
    places = 2 * torch.stack([ys, xs], 1)
    ramp = torch.sin(
        torch.pi * (torch.arange(side) + 0.5) / side
    )  # squares of shifted ones sum to 1
    window = (ramp[:, None] * ramp) ** 1.5  # between what suits like patches, and unlike ones
    used = torch.zeros(len(places))
    rows, columns = target[0, 0].nonzero().unbind(1)
    padded = torch.nn.functional.pad(made, (side, side, side, side))
    for y in range(int(rows.min()) - step, int(rows.max()) + 1, step):
        for x in range(int(columns.min()) - step, int(columns.max()) + 1, step):
            inside = target[0, 0, max(y, 0) : y + side, max(x, 0) : x + side]
            if not bool(inside.any()):
                continue
            far = (places[:, 0] - y).abs() + 2 * (places[:, 1] - x).abs() + used
            nearest = far.topk(min(CANDIDATES, len(far)), largest=False).indices
            area = padded[:, :, y + side : y + 2 * side, x + side : x + 2 * side]
            fits = torch.stack([
                (area * fine[:, :, a : a + side, b : b + side]).sum()
                for a, b in places[nearest].tolist()
            ])  # fmt: skip
            best = int(nearest[fits.argmax()])
            used[best] += 2 * side
            a, b = places[best].tolist()
            area += window * fine[:, :, a : a + side, b : b + side]
    made = padded[:, :, side:-side, side:-side] * target
    strength = [
        values[:, :, where[0, 0]].std() for values, where in ((fine, source), (made, target))
    ]
    return made * (strength[0] / strength[1].clamp(min=1e-6)).clamp(0.5, 1.5)
