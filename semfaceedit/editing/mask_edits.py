"""Edits of a label map as a person would paint them, by code: longer hair, an open mouth, a hat ...

Each takes class ids (R, R) of an upright face and gives the edited map, or None where the face does
not show what the edit needs. Sizes are shares of the picture's width.
"""

from collections.abc import Callable, Sequence

import numpy as np

from ..errors import UserError, meant
from ..model.labels import CLASS_NAMES

ID = {name: index for index, name in enumerate(CLASS_NAMES)}
BACKGROUND, SKIN, NOSE, GLASSES = (ID[n] for n in ("background", "skin", "nose", "eye_g"))
HAIR, HAT, CLOTH, MOUTH = (ID[n] for n in ("hair", "hat", "cloth", "mouth"))
UPPER_LIP, LOWER_LIP = ID["u_lip"], ID["l_lip"]
LIPS, EYES = (MOUTH, UPPER_LIP, LOWER_LIP), (ID["l_eye"], ID["r_eye"])
BROWS, EARS = (ID["l_brow"], ID["r_brow"]), (ID["l_ear"], ID["r_ear"])
Edit = Callable[[np.ndarray], np.ndarray | None]


def longer_hair(labels: np.ndarray) -> np.ndarray | None:
    """A lock at each side of the face hangs down to the shoulders."""
    brows, low, size = np.isin(labels, BROWS), _lowest(labels, LIPS), len(labels)
    hair = labels == HAIR
    if low is None or not brows.any() or hair.sum() < 0.05 * size**2:
        return None
    if hair[low:].sum() > 0.01 * size**2:
        return None
    top = int(np.nonzero(brows.any(1))[0][0])
    face = np.nonzero((labels[top:low] == SKIN).any(0))[0]
    columns = np.arange(size)
    left, right = columns - face[0], face[-1] - columns
    locks = [(side > -0.1 * size) & (side < 0.04 * size) for side in (left, right)]
    rows = (columns >= top) & (columns < 0.94 * size)
    free = np.isin(labels, (BACKGROUND, CLOTH, *EARS))
    return _painted(labels, rows[:, None] & (locks[0] | locks[1]) & free, HAIR)


def shorter_hair(labels: np.ndarray) -> np.ndarray | None:
    """Hair below the nose is cut off."""
    low = _lowest(labels, (NOSE,))
    if low is None:
        return None
    cut = (labels == HAIR) & (np.arange(len(labels))[:, None] > low)
    if cut.sum() < 0.02 * labels.size:
        return None
    cloth = (labels == CLOTH).any(1) & (np.arange(len(labels)) > 0.85 * len(labels))
    return _painted(_painted(labels, cut, BACKGROUND), cut & cloth[:, None], CLOTH)


def fringe(labels: np.ndarray) -> np.ndarray | None:
    """Hair covers the forehead down to the brows."""
    brows = np.isin(labels, BROWS)
    if not brows.any() or (labels == HAIR).sum() < 0.05 * labels.size:
        return None
    top = int(np.nonzero(brows.any(1))[0][0])
    forehead = (labels == SKIN) & (np.arange(len(labels))[:, None] < top)
    return _painted(labels, forehead, HAIR) if forehead.sum() > 0.008 * labels.size else None


def high_hairline(labels: np.ndarray) -> np.ndarray | None:
    """The forehead reaches further up into the hair, in an arch."""
    brows, hair = np.isin(labels, BROWS), labels == HAIR
    if not brows.any() or hair.sum() < 0.05 * labels.size:
        return None
    top, columns = int(np.nonzero(brows.any(1))[0][0]), np.nonzero(brows.any(0))[0]
    crown = np.nonzero(hair.any(1))[0][0] + 0.07 * len(labels)
    middle, half = (columns[0] + columns[-1]) / 2, (columns[-1] - columns[0]) / 2
    if top - crown < 0.1 * len(labels) or half < 0.1 * len(labels):
        return None
    arch = _ellipse(labels, top, middle, top - crown, 1.1 * half) & hair
    arch &= np.arange(len(labels))[:, None] < top
    return _painted(labels, arch, SKIN) if arch.sum() > 0.01 * labels.size else None


def wide_mouth(labels: np.ndarray) -> np.ndarray | None:
    """Lips and what is between them, a third wider."""
    lips = _lips(labels)
    if lips is None:
        return None
    columns = np.nonzero(lips.any(0))[0]
    middle = (columns[0] + columns[-1]) / 2
    from_ = np.rint(middle + (np.arange(len(labels)) - middle) / 1.35).astype(int)
    wide = labels[:, from_.clip(0, len(labels) - 1)]
    free = lips | (labels == SKIN)
    return np.where(np.isin(wide, LIPS) & free, wide, _painted(labels, lips, SKIN))


def open_mouth(labels: np.ndarray) -> np.ndarray | None:
    """The lower lip drops by two thirds of the height of the mouth; the upper lip stays."""
    lips = _lips(labels)
    if lips is None or not (labels == LOWER_LIP).any():
        return None
    rows, columns = (np.nonzero(lips.any(axis))[0] for axis in (1, 0))
    middle, half = (columns[0] + columns[-1]) / 2, (columns[-1] - columns[0] + 1) / 2
    made = labels.copy()
    for column in columns:
        low = np.nonzero(labels[:, column] == LOWER_LIP)[0]
        round_ = np.sqrt(max(0.0, 1 - ((column - middle) / half) ** 2))
        drop = round(0.67 * len(rows) * round_)
        if not len(low) or low[-1] + drop >= len(labels):
            continue
        made[low[0] : low[-1] + 1 + drop, column] = MOUTH
        made[low + drop, column] = LOWER_LIP
    free = lips | (labels == SKIN)
    return np.where(free, made, labels).astype(np.uint8)


def big_nose(labels: np.ndarray) -> np.ndarray | None:
    """The nose is wider on all sides."""
    nose = labels == NOSE
    if nose.sum() < 0.005 * labels.size:
        return None
    return _painted(labels, _widen(nose, 0.025) & (labels == SKIN), NOSE)


def glasses(labels: np.ndarray) -> np.ndarray | None:
    """Two round lenses and a bridge around the eyes."""
    middles = [_middle(labels == eye) for eye in EYES]
    if any(m is None for m in middles):
        return None
    (row_a, column_a), (row_b, column_b) = sorted(middles, key=lambda m: m[1])  # type: ignore
    if column_b - column_a < 0.1 * len(labels):
        return None
    half = 0.42 * (column_b - column_a)
    worn = _ellipse(labels, row_a, column_a, 0.8 * half, half)
    worn |= _ellipse(labels, row_b, column_b, 0.8 * half, half)
    row = round((row_a + row_b) / 2)
    worn[row - 1 : row + 1, round(column_a) : round(column_b)] = True
    kept = (
        BACKGROUND,
        HAIR,
        *EYES,
        *BROWS,
    )  # seen through the lenses, as CelebAMask-HQ labels them
    return _painted(labels, worn & ~np.isin(labels, kept), GLASSES)


def hat(labels: np.ndarray) -> np.ndarray | None:
    """What covers the head above the forehead becomes a hat, a little wider than the hair."""
    brows = np.isin(labels, BROWS)
    if not brows.any() or (labels == HAIR).sum() < 0.05 * labels.size:
        return None
    line = np.nonzero(brows.any(1))[0][0] - 0.08 * len(labels)
    above = np.arange(len(labels))[:, None] < line
    return _painted(labels, _widen(labels == HAIR, 0.04) & above, HAT)


EDITS: dict[str, Edit] = {
    "longer hair": longer_hair,
    "shorter hair": shorter_hair,
    "fringe": fringe,
    "high hairline": high_hairline,
    "wide mouth": wide_mouth,
    "open mouth": open_mouth,
    "big nose": big_nose,
    "glasses": glasses,
    "hat": hat,
}


WORN = {"glasses": GLASSES, "hat": HAT}  # what an edit puts on


def painted(labels: np.ndarray, name: str) -> np.ndarray | None:
    """Class ids (R, R) after the edit `name` of `EDITS`; None where the face does not show what it
    needs, or wears already what it would put on."""
    if name in WORN and bool((labels == WORN[name]).any()):
        return None
    return EDITS[name](labels)


def paint(labels: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Class ids (R, R) after the edits of those names (keys of `EDITS`), one after another.

    UserError where a name is unknown or the face does not show what its edit needs.
    """
    for name in names:
        if name not in EDITS:
            raise UserError(
                f"there is no edit {name!r}{meant(name, EDITS)}: use one of {', '.join(EDITS)}"
            )
        painted = EDITS[name](labels)
        if painted is None:
            raise UserError(
                f"{name!r} cannot be painted: this label map does not show what it needs, or has "
                "no room for it; edit the map by hand, or take another face"
            )
        labels = painted
    return labels


def _lips(labels: np.ndarray) -> np.ndarray | None:
    """Lips and what is between them (R, R) bool; None where there is next to nothing."""
    lips = np.isin(labels, LIPS)
    return None if lips.sum() < 0.004 * labels.size else lips


def _painted(labels: np.ndarray, where: np.ndarray, label: int) -> np.ndarray:
    return np.where(where, np.uint8(label), labels).astype(np.uint8)


def _widen(mask: np.ndarray, share: float) -> np.ndarray:
    """Every pixel within `share` of the width, by Manhattan distance."""
    grown = mask.copy()
    for _ in range(max(1, round(share * len(mask)))):
        here = grown.copy()
        grown[1:] |= here[:-1]
        grown[:-1] |= here[1:]
        grown[:, 1:] |= here[:, :-1]
        grown[:, :-1] |= here[:, 1:]
    return grown


def _ellipse(
    like: np.ndarray, row: float, column: float, half_height: float, half_width: float
) -> np.ndarray:
    rows, columns = np.indices(like.shape)
    distance = ((rows - row) / half_height) ** 2 + ((columns - column) / half_width) ** 2
    return np.asarray(distance <= 1)


def _middle(mask: np.ndarray) -> tuple[float, float] | None:
    rows, columns = np.nonzero(mask)
    return (rows.mean(), columns.mean()) if len(rows) else None


def _lowest(labels: np.ndarray, classes: tuple[int, ...]) -> int | None:
    rows = np.nonzero(np.isin(labels, classes).any(1))[0]
    return int(rows[-1]) if len(rows) else None
