"""Landmarks from label maps, and head pose from landmarks.

Measured on the 13 CelebAMask-HQ faces at hand with both a label map and an entry in the data set's
pose table (itself a network's estimate): yaw correlates 0.99 with it, RMS error 2.7 degrees; pitch
0.84 and 5.3 degrees, with a common offset of 3.5. Without the face's outline yaw falls to 0.86 and
10 degrees. The template's depths were chosen with these faces in view, so the figures are not
those of a held-out set. Pitch is weak because a low nose and a bowed head look alike, and a
wide-open mouth reads as a lifted one; the prior pulls it towards level, to a spread of 5.9 degrees
where the table has 8.2.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..model.camera import CameraConfig
from ..model.labels import CLASS_NAMES

NOSE = CLASS_NAMES.index("nose")
GLASSES = CLASS_NAMES.index("eye_g")
EYES = (CLASS_NAMES.index("l_eye"), CLASS_NAMES.index("r_eye"))
BROWS = (CLASS_NAMES.index("l_brow"), CLASS_NAMES.index("r_brow"))
MOUTH = tuple(CLASS_NAMES.index(name) for name in ("mouth", "u_lip", "l_lip"))
SIDES = (EYES, BROWS, (CLASS_NAMES.index("l_ear"), CLASS_NAMES.index("r_ear")))
FACE = (CLASS_NAMES.index("skin"), NOSE, GLASSES, *EYES, *BROWS, *MOUTH)

EyeSource = Literal["eyes", "brows", "glasses", "given"]

EYES_BELOW_BROWS = 0.25  # in distances between the brows' centres, mean of 794 faces
EYES_INSIDE_LENSES = 0.055  # in distances between the lenses' centres, mean of 34 faces
TIP_BAND = (0.65, 0.85)  # the nose tip lies in this part of the nose's height, from its top


@dataclass(frozen=True)
class Landmarks:
    """Five points in pixels (pixel i covers [i, i+1]), x right and y down, and the face's outline.

    Order: eye on the image's left, eye on its right, nose tip, mouth corner on the image's left,
    mouth corner on its right.
    """

    points: np.ndarray  # (5, 2) float64
    outline: np.ndarray | None = None  # (2,): the middle between the face's two contours
    eye_source: EyeSource = "given"

    def scaled(self, factor: float) -> "Landmarks":
        """The same landmarks on a picture that is `factor` times as large."""
        outline = None if self.outline is None else self.outline * factor
        return Landmarks(self.points * factor, outline, self.eye_source)


def landmarks_from_labels(labels: np.ndarray) -> Landmarks | None:
    """Derive landmarks from a label map (H, W) of CelebAMask-HQ ids; None where impossible.

    Left and right come from positions, never from ids: maps with the two sides exchanged, or with
    both eyes under one id, are common. Where the eyes are hidden they are put below the brows, else
    into the middle of the two lenses.
    """
    nose = _coordinates(labels == NOSE)
    mouth = _coordinates(np.isin(labels, MOUTH))
    found = _eyes(labels)
    if nose is None or mouth is None or found is None:
        return None
    eyes, source = found
    height = (nose[:, 1] - nose[:, 1].min()) / max(np.ptp(nose[:, 1]), 1)
    band = nose[(height >= TIP_BAND[0]) & (height <= TIP_BAND[1])]
    if not len(band):
        return None
    tip = band.mean(0)
    width = np.ptp(mouth[:, 0])
    left = mouth[mouth[:, 0] <= mouth[:, 0].min() + 0.05 * width].mean(0)
    right = mouth[mouth[:, 0] >= mouth[:, 0].max() - 0.05 * width].mean(0)
    points = np.stack([*eyes, tip, left, right])
    if not np.isfinite(points).all() or points[:2, 1].max() >= points[3:, 1].min():
        return None
    return Landmarks(points, outline_middle(labels, points), source)


def sides_exchanged(labels: np.ndarray) -> bool:
    """Whether a map (H, W) calls the parts on the image's left "left" throughout.

    CelebAMask-HQ means the person's left, which is on the image's right; about one map in sixteen
    has it the other way round.
    """
    verdicts = []
    for left, right in SIDES:
        pair = _coordinates(labels == left), _coordinates(labels == right)
        if pair[0] is not None and pair[1] is not None:
            verdicts.append(pair[0][:, 0].mean() < pair[1][:, 0].mean())
    return bool(verdicts) and all(verdicts)


def outline_middle(labels: np.ndarray, points: np.ndarray) -> np.ndarray | None:
    """The point (2,) midway between the face's contours, from below the eyes to the mouth.

    It shows the yaw far better than the five landmarks do. Hair over the face counts as outside.
    """
    eyes, mouth = points[:2].mean(0), points[3:].mean(0)
    first, last = (int(eyes[1] + part * (mouth[1] - eyes[1])) for part in (0.3, 0.9))
    face = np.isin(labels[max(first, 0) : last], FACE)
    rows = np.flatnonzero(face.any(1))
    if not len(rows):
        return None
    axis = (mouth - eyes) / np.linalg.norm(mouth - eyes)
    left = face[rows].argmax(1)
    right = face.shape[1] - face[rows, ::-1].argmax(1)
    y = rows + max(first, 0) + 0.5
    # Distance to the line from eyes to mouth, so that roll does not matter.
    offset = ((left + right) / 2 - eyes[0]) * axis[1] - (y - eyes[1]) * axis[0]
    place = 0.6 * np.linalg.norm(mouth - eyes)
    return eyes + place * axis + np.median(offset) * np.array([axis[1], -axis[0]])


def _eyes(labels: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], EyeSource] | None:
    """Centres of the eyes, the one on the image's left first."""
    if (eyes := _two_blobs(labels, EYES)) is not None:
        return eyes, "eyes"
    if (brows := _two_blobs(labels, BROWS)) is not None:
        along = brows[1] - brows[0]
        down = EYES_BELOW_BROWS * np.array([-along[1], along[0]])
        return (brows[0] + down, brows[1] + down), "brows"
    if (lenses := _two_lenses(labels)) is not None:
        return lenses, "glasses"
    return None


def _two_blobs(labels: np.ndarray, ids: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """Centres of two things side by side, parted by the widest empty span of columns."""
    places = _coordinates(np.isin(labels, ids))
    if places is None:
        return None
    columns = np.unique(places[:, 0])
    gaps = np.diff(columns)
    if not len(gaps) or gaps.max() < 0.1 * np.ptp(columns):
        return None
    split = columns[gaps.argmax()] + 0.5
    left, right = places[places[:, 0] <= split], places[places[:, 0] > split]
    if min(len(left), len(right)) < 0.1 * max(len(left), len(right)):
        return None
    return left.mean(0), right.mean(0)


def _two_lenses(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Where the eyes are behind the glasses, whose arms are left out."""
    mask = labels == GLASSES
    heights = mask.sum(0)
    places = _coordinates(mask & (heights >= 0.5 * heights.max()))
    if places is None:
        return None
    split = (places[:, 0].min() + places[:, 0].max()) / 2
    left, right = places[places[:, 0] < split], places[places[:, 0] > split]
    if not len(left) or not len(right):
        return None
    inward = EYES_INSIDE_LENSES * (right.mean(0) - left.mean(0))
    return left.mean(0) + inward, right.mean(0) - inward


def _coordinates(mask: np.ndarray) -> np.ndarray | None:
    """Centres of the set pixels, (M, 2) as x, y; None where too few are set."""
    y, x = np.nonzero(mask)
    if len(x) < 4:
        return None
    return np.stack([x, y], 1) + 0.5


TEMPLATE = np.array(
    [
        (-0.31, 0.09, 0.13),  # eyes
        (0.31, 0.09, 0.13),
        (0.0, -0.265, 0.40),  # nose tip
        (-0.26, -0.57, 0.15),  # mouth corners
        (0.26, -0.57, 0.15),
        (0.0, -0.31, -0.39),  # middle of the outline: the depth of the widest part of the head
    ]
)
"""Mean landmarks of label maps, x right, y up, z forward, in units of `align.TEMPLATE`.

Widths and heights are means over 845 faces, so that the mean face has about pitch 0. The depths
are effective ones: a landmark of a mask moves less than the point of the head it is named after.
They follow from how far the landmarks move with the poses of CelebAMask-HQ's table.
"""

SPREAD = np.array(
    [(0.04, 0.025), (0.04, 0.025), (0.15, 0.02), (0.15, 0.05), (0.15, 0.05), (0.04, np.inf)]
)
"""Standard deviation of each landmark's x and y between faces of one pose, same units. The
outline's height means nothing."""

WORLD_PER_UNIT = 0.0892  # 108.6 pixels of 256, at distance 1 and 12 degrees of view


def estimate_pose(
    points: np.ndarray, outline: np.ndarray | None = None, *, camera: CameraConfig | None = None
) -> tuple[float, float]:
    """Yaw and pitch (radians) of a head from its landmarks in an aligned crop.

    points: (5, 2) and outline: (2,), in [-1, 1], x right and y down, as `camera.project` gives.

    The mean landmarks are projected through the model's own camera, and Gauss-Newton finds yaw,
    pitch, roll and translation under the camera's pose prior: what the landmarks do not show stays
    near the prior's mean.
    """
    camera = camera or CameraConfig()
    used = len(TEMPLATE) if outline is not None else 5
    target = points if outline is None else np.vstack([points, outline])
    precision = (camera.half_extent / WORLD_PER_UNIT / SPREAD[:used]).reshape(-1)
    prior = np.array([1 / camera.yaw_std, 1 / camera.pitch_std, 0, 0, 0, 0])

    def residuals(states: np.ndarray) -> np.ndarray:
        misfit = (_project(states, used, camera) - target).reshape(len(states), -1) * precision
        return np.concatenate([misfit, states * prior], 1)

    step = 1e-5
    probes = np.concatenate([np.zeros((1, 6)), step * np.eye(6)])
    state = np.zeros(6)
    for _ in range(10):
        values = residuals(state + probes)
        jacobian = (values[1:] - values[0]).T / step
        change = np.linalg.lstsq(jacobian, -values[0], rcond=None)[0]
        state = state + np.clip(change, -0.3, 0.3)
        if np.abs(change).max() < 1e-6:
            break
    limit = np.radians(75)
    return float(np.clip(state[0], -limit, limit)), float(np.clip(state[1], -limit, limit))


def _project(states: np.ndarray, used: int, camera: CameraConfig) -> np.ndarray:
    """The template's first landmarks in the picture: (P, 6) states -> (P, used, 2) in [-1, 1].

    A state is yaw, pitch, roll (radians) and a translation along the camera's axes (world units).
    """
    yaw, pitch, roll = states[:, 0], states[:, 1], states[:, 2]
    x, y, z = (TEMPLATE[:used] * WORLD_PER_UNIT).T
    cos, sin = np.cos, np.sin
    # The camera's axes as in camera.camera_to_world, written out.
    across = np.outer(cos(yaw), x) + np.outer(sin(yaw), z)
    forward = np.outer(-sin(yaw), x) + np.outer(cos(yaw), z)
    up = np.outer(cos(pitch), y) + sin(pitch)[:, None] * forward
    back = np.outer(-sin(pitch), y) + cos(pitch)[:, None] * forward
    turned_x = cos(roll)[:, None] * across - sin(roll)[:, None] * up + states[:, 3, None]
    turned_y = sin(roll)[:, None] * across + cos(roll)[:, None] * up + states[:, 4, None]
    extent = (1 - back - states[:, 5, None]) * camera.half_extent
    return np.stack([turned_x / extent, -turned_y / extent], -1)
