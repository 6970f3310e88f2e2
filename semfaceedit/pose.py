"""Landmarks from label maps, and head pose from landmarks."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from .labels import CLASS_NAMES

NOSE = CLASS_NAMES.index("nose")
GLASSES = CLASS_NAMES.index("eye_g")
EYES = (CLASS_NAMES.index("l_eye"), CLASS_NAMES.index("r_eye"))
BROWS = (CLASS_NAMES.index("l_brow"), CLASS_NAMES.index("r_brow"))
MOUTH = tuple(CLASS_NAMES.index(name) for name in ("mouth", "u_lip", "l_lip"))

EyeSource = Literal["eyes", "glasses", "brows", "given"]


@dataclass(frozen=True)
class Landmarks:
    """Five points in pixels (pixel i covers [i, i+1]): x right, y down.

    Order: eye on the image's left, eye on its right, nose tip, mouth corner on the image's left,
    mouth corner on its right.
    """

    points: np.ndarray  # (5, 2) float64
    eye_source: EyeSource = "given"

    def scaled(self, factor: float) -> "Landmarks":
        """The same landmarks on a picture that is `factor` times as large."""
        return Landmarks(self.points * factor, self.eye_source)


def landmarks_from_labels(labels: np.ndarray) -> Landmarks | None:
    """Derive five landmarks from a label map (H, W) of CelebAMask-HQ ids; None where impossible."""
    nose = _coordinates(labels == NOSE)
    mouth = _coordinates(np.isin(labels, MOUTH))
    if nose is None or mouth is None:
        return None
    found = _eyes(labels)
    if found is None:
        return None
    eyes, source = found
    top, bottom = nose[:, 1].min(), nose[:, 1].max()
    tip = nose[nose[:, 1] >= top + 0.6 * (bottom - top)].mean(0)
    width = np.ptp(mouth[:, 0])
    left = mouth[mouth[:, 0] <= mouth[:, 0].min() + 0.05 * width].mean(0)
    right = mouth[mouth[:, 0] >= mouth[:, 0].max() - 0.05 * width].mean(0)
    return Landmarks(np.stack([*eyes, tip, left, right]), source)


def _eyes(labels: np.ndarray) -> tuple[list[np.ndarray], EyeSource] | None:
    """Centres of the eyes, the one on the image's left first."""
    eyes = [_coordinates(labels == index) for index in EYES]
    if eyes[0] is not None and eyes[1] is not None:
        return sorted((e.mean(0) for e in eyes if e is not None), key=lambda p: p[0]), "eyes"
    return None


def _coordinates(mask: np.ndarray) -> np.ndarray | None:
    """Centres of the set pixels, (M, 2) as x, y; None where too few are set."""
    y, x = np.nonzero(mask)
    if len(x) < 4:
        return None
    return np.stack([x, y], 1) + 0.5


def estimate_pose(points: np.ndarray) -> tuple[float, float]:
    """Yaw and pitch (radians) of five landmarks (5, 2) in an aligned crop, in [-1, 1], y down."""
    eyes, nose, mouth = points[:2], points[2], points[3:]
    middle = eyes.mean(0)
    distance = np.linalg.norm(eyes[1] - eyes[0])
    yaw = np.arctan(4.2 * (nose[0] - middle[0]) / distance / 2.0)
    del mouth
    return float(yaw), 0.0
