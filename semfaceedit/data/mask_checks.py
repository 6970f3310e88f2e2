"""Does a label map mean what its ids say? Maps in another order of ids, and blurred ones.

A map in the order of face-parsing.PyTorch (BiSeNet) holds valid ids that mean other parts: the
"nose" is then a brow and the "neck" hair. One that was resized with interpolation has rims of ids
that lie between those of the neighbours. Neither fails anywhere; both make nonsense.
"""

from typing import Literal

import numpy as np

from ..model.labels import CLASS_NAMES, NUM_CLASSES

MaskOrder = Literal["celebamask-hq", "bisenet"]

BISENET_NAMES = (
    "background", "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r",
    "nose", "mouth", "u_lip", "l_lip", "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
"""The ids of zllrunning/face-parsing.PyTorch and of what is built on it."""

FROM_BISENET = np.array([CLASS_NAMES.index(name) for name in BISENET_NAMES], np.uint8)

BLURRED = 0.3  # of the border pixels have an id between their neighbours'; see `between_share`
LEAST_BORDERS = 50  # pixels, below which the share says nothing


def doubt_about(labels: np.ndarray) -> str | None:
    """What looks wrong with the ids of a map (H, W), and what to do; None where nothing does."""
    if wrong_order(labels):
        return (
            "its ids look like those of face-parsing.PyTorch (BiSeNet), not CelebAMask-HQ's: give "
            "--mask-order bisenet, or convert them"
        )
    if blurred(labels):
        return (
            "it looks as if it had been resized with interpolation, with ids at the borders that "
            "mean other parts: resize the original with nearest neighbour"
        )
    return None


def wrong_order(labels: np.ndarray) -> bool:
    """Whether a map (H, W) makes no face as CelebAMask-HQ ids, but one as those of BiSeNet."""
    return misplaced(labels) >= 2 and misplaced(FROM_BISENET[labels]) == 0


def misplaced(labels: np.ndarray) -> int:
    """How many rules of a face a map breaks: what lies above what, by mean heights."""
    heights = _mean_heights(labels)

    def height(*names: str) -> float:
        known = [heights[CLASS_NAMES.index(name)] for name in names]
        found = [value for value in known if np.isfinite(value)]
        return float(np.mean(found)) if found else float("nan")

    brows, eyes = height("l_brow", "r_brow"), height("l_eye", "r_eye")
    nose, mouth = height("nose"), height("mouth", "u_lip", "l_lip")
    lower = (height("neck"), height("neck_l"), height("cloth"))
    pairs = [(eyes, nose), (brows, nose), (nose, mouth), (height("u_lip"), height("l_lip")),
             (height("hat"), nose), (height("hair"), height("cloth")),
             *((mouth, part) for part in lower)]  # fmt: skip
    return sum(above > below for above, below in pairs)  # NaN, of what is not shown, is not


def blurred(labels: np.ndarray) -> bool:
    """Whether a map looks as if it had been resized with interpolation."""
    share, borders = between_share(labels)
    return borders >= LEAST_BORDERS and share > BLURRED


def between_share(labels: np.ndarray) -> tuple[float, int]:
    """Of the places along rows and columns where the id goes from one value to another by two or
    more, the share where the pixel between has an id between; and how many places there are."""
    values = labels.astype(np.int16)
    between = borders = 0
    for lines in (values, values.T):
        before, here, after = lines[:, :-2], lines[:, 1:-1], lines[:, 2:]
        far = np.abs(after - before) >= 2
        inside = (here > np.minimum(before, after)) & (here < np.maximum(before, after))
        borders += int(far.sum())
        between += 2 * int((far & inside).sum())  # a sharp border has two such places
    return (between / borders if borders else 0.0), borders


def _mean_heights(labels: np.ndarray) -> np.ndarray:
    """(19,) mean row of each class, NaN where it is not shown by four pixels."""
    rows = np.broadcast_to(np.arange(len(labels))[:, None], labels.shape)
    counts = np.bincount(labels.reshape(-1), minlength=NUM_CLASSES)
    sums = np.bincount(labels.reshape(-1), weights=rows.reshape(-1), minlength=NUM_CLASSES)
    return np.where(counts >= 4, sums / np.maximum(counts, 1), np.nan)
