"""What can be measured of a frontal face: shapes from its label map, colours from its picture.

Shapes are soft: class scores are summed, so that they change smoothly with the codes. Places (rows
of the eyes, brows and mouth) are those of the mean map, the same for all faces of a generator.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.labels import CLASS_NAMES

FACE = tuple(range(1, 8)) + (10, 11, 12)  # skin and what lies within
LIPS = (("mouth",), ("u_lip",), ("l_lip",))
OUTLINES = {  # of each shape: the classes, alone or together, whose outline it moves
    "hair length": (("hair",),), "hair volume": (("hair",),), "fringe": (("hair",),),
    "mouth opening": LIPS, "smile": LIPS, "nose width": (("nose",),),
    "brow height": (("l_brow", "r_brow"),), "eye size": (("l_eye", "r_eye"),),
    "face width": (tuple(CLASS_NAMES[i] for i in FACE),), "neck": (("neck", "neck_l"),),
    "glasses": (("eye_g",),), "hat": (("hat",),),
}  # fmt: skip
SHAPES = tuple(OUTLINES)
COLOURS = ("lightness", "hue", "saturation")  # CIELAB L*, h in radians, and C*
GREY = 3.0  # C* below which a colour has no hue
LEAST_COLOURED = 0.005  # of the picture, that a face must show of a part to have its colour
PRIOR = 0.02  # of the mean map, that a part counts where a face does not show it


def colour_names(groups: tuple[str, ...]) -> tuple[str, ...]:
    """The colour attributes of appearance groups; those of the group face are called skin."""
    called = ["skin" if group == "face" else group for group in groups]
    return tuple(f"{group} {colour}" for group in called for colour in COLOURS)


@dataclass(frozen=True)
class Places:
    """Where the parts of the mean face are, in the picture's [-1, 1], y down."""

    mean: Tensor  # (19, s, s) mean class scores
    x: float  # of the nose
    brows: float
    eyes: float
    mouth: float


def find_places(mean: Tensor) -> Places:
    """Places in a mean map (19, s, s)."""
    eyes = _where(mean, "l_eye", "r_eye", "eye_g")
    mouth = _where(mean, "mouth", "u_lip", "l_lip")
    return Places(
        mean,
        _where(mean, "nose")[0],
        _where(mean, "l_brow", "r_brow")[1],
        eyes[1],
        mouth[1],
    )


def outline_moved(name: str, before: Tensor, after: Tensor) -> Tensor:
    """(..., H, W) bool: what one of two label maps counts to the shape's classes, the other not."""
    moved = torch.zeros_like(before, dtype=torch.bool)
    for names in OUTLINES[name]:
        classes = before.new_tensor([CLASS_NAMES.index(one) for one in names])
        moved |= torch.isin(before, classes) != torch.isin(after, classes)
    return moved


def _where(mean: Tensor, *names: str) -> tuple[float, float]:
    mass = _mass(mean[None], *names)[0] + 1e-6
    x, y = _axes(mass)
    return float((mass * x).sum() / mass.sum()), float((mass * y).sum() / mass.sum())


def _mass(semantics: Tensor, *names: str) -> Tensor:  # (B, 19, s, s) -> (B, s, s)
    return semantics[:, [CLASS_NAMES.index(name) for name in names]].sum(1).clamp(min=0)


def _axes(like: Tensor) -> tuple[Tensor, Tensor]:
    """x (1, s) to the right and y (s, 1) downwards, pixel centres in [-1, 1]."""
    size = like.shape[-1]
    line = (torch.arange(size).to(like) + 0.5) * (2 / size) - 1
    return line[None], line[:, None]


def shapes(semantics: Tensor, places: Places) -> Tensor:
    """Frontal maps (B, 19, s, s) of class scores -> (B, 12) `SHAPES`.

    Areas are shares of the picture, lengths are in half widths of the picture. hair length: hair
    below the mouth. hair volume: hair above the eyes. fringe: hair over the forehead. mouth
    opening, eye size, neck, glasses, hat: areas. smile: how much higher the corners of the mouth
    are than its middle. nose width: deviation of its columns. brow height: above the eyes. face
    width: mean width between eyes and mouth.
    """
    semantics = semantics.float()
    x, y = _axes(semantics)
    mean = places.mean[None].to(semantics)

    def area(*names: str) -> Tensor:
        return _mass(semantics, *names).mean((1, 2))

    def spread(*names: str) -> Tensor:
        mass = _mass(semantics, *names) + PRIOR * _mass(mean, *names) + 1e-9
        return mass / mass.sum((1, 2), keepdim=True)

    hair = _mass(semantics, "hair")
    reach = places.mouth - places.eyes
    soft = 2 / semantics.shape[-1]  # an edge is one pixel wide
    below = torch.sigmoid((y - places.mouth) / soft)
    above = torch.sigmoid((places.eyes - y) / soft)
    forehead = torch.sigmoid((places.brows - y) / soft) * torch.sigmoid(
        (y - places.brows + 0.6 * reach) / soft
    )
    forehead = forehead * (abs(x - places.x) < 0.4 * reach)
    cheeks = torch.sigmoid((y - places.eyes) / soft) * torch.sigmoid((places.mouth - y) / soft)

    mouth, nose = spread("mouth", "u_lip", "l_lip"), spread("nose")
    centre = (mouth * x).sum((1, 2))[:, None, None]
    square = (x - centre).square().expand_as(mouth)
    square = square - (mouth * square).sum((1, 2), keepdim=True)
    curve = (mouth * square * y).sum((1, 2)) / (mouth * square.square()).sum((1, 2)).sqrt()
    middle = (nose * x).sum((1, 2))[:, None, None]
    brows = (spread("l_brow", "r_brow") * y).sum((1, 2))
    eyes = (spread("l_eye", "r_eye", "eye_g") * y).sum((1, 2))
    face = semantics[:, FACE].sum(1)
    columns = [
        (hair * below).mean((1, 2)),
        (hair * above).mean((1, 2)),
        (hair * forehead).mean((1, 2)) / forehead.mean().clamp(min=1e-6),
        area("mouth"),
        -curve,
        (nose * (x - middle).square()).sum((1, 2)).sqrt(),
        eyes - brows,
        area("l_eye", "r_eye"),
        2 * (face * cheeks).mean((1, 2)) / cheeks.mean().clamp(min=1e-6),
        area("neck", "neck_l"),
        area("eye_g"),
        area("hat"),
    ]
    return torch.stack(columns, 1)


def colours(image: Tensor, semantics: Tensor, group_of_class: tuple[int, ...]) -> Tensor:
    """Pictures (B, 3, s, s) in [-1, 1] and class scores -> (B, 3 n): L*, hue (radians) and C* of
    the mean colour of each group; NaN where a face shows next to nothing of it, and the hue of what
    is grey. Of hair without the hat, of the group face the skin alone."""
    found = []
    for group in range(max(group_of_class) + 1):
        names = (CLASS_NAMES[label] for label in coloured_classes(group, group_of_class))
        weight = _mass(semantics.float(), *names)
        total = weight.sum((1, 2))
        mean = ((image.float() + 1) / 2 * weight[:, None]).sum((2, 3)) / total[:, None]
        lightness, a, b = cielab(mean.clamp(0, 1)).unbind(1)
        chroma = torch.sqrt(a * a + b * b + 1e-6)
        hue = torch.where(chroma > GREY, torch.atan2(b, a), torch.nan)
        three = torch.stack([lightness, hue, chroma], 1)
        enough = total > LEAST_COLOURED * weight.shape[-1] ** 2
        found.append(torch.where(enough[:, None], three, torch.nan))
    return torch.cat(found, 1)


def coloured_classes(group: int, group_of_class: tuple[int, ...]) -> tuple[int, ...]:
    """The classes whose colour is that of a group: hair without the hat, of the face the skin."""
    own = tuple(label for label, its in enumerate(group_of_class) if its == group)
    for whole in ("hair", "skin"):
        if CLASS_NAMES.index(whole) in own:
            own = (CLASS_NAMES.index(whole),)
    return own


def cielab(rgb: Tensor) -> Tensor:
    """sRGB (..., 3) in [0, 1] -> CIELAB (D65; IEC 61966-2-1, CIE 15)."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    matrix = rgb.new_tensor(
        [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    )
    xyz = linear @ (matrix / matrix.sum(1, keepdim=True)).T
    cut = 6 / 29
    f = torch.where(xyz > cut**3, xyz.clamp(min=1e-9) ** (1 / 3), xyz / (3 * cut**2) + 4 / 29)
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)
