"""One crop for every face: five landmarks, a fixed template, one affine for image and mask.

A weak-perspective camera is fitted to the landmarks by least squares; the crop is centred on the
template's origin and sized by the fitted scale, so that a template unit always has the same length
in the picture. Roll is kept. The same window cuts image (Lanczos) and mask (nearest), and what lies
outside the photograph is filled by reflection at its border in both.
"""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .pose import Landmarks

ALIGNMENT_VERSION = 1  # part of every cache's key: raise it when crops change

TEMPLATE = np.array(
    [
        (-0.31, 0.09, 0.13),  # eye on the image's left
        (0.31, 0.09, 0.13),
        (0.0, -0.25, 0.55),  # nose tip
        (-0.25, -0.58, 0.22),  # mouth corners
        (0.25, -0.58, 0.22),
    ]
)
"""Five landmarks of the mean face, x right, y up, z towards the camera, in template units."""

DESIGN = np.concatenate([TEMPLATE * (1, -1, -1), np.ones((5, 1))], 1)
"""The template in a picture's axes, y down, with a column of ones for the shift."""

WINDOW_UNITS = 256 / 108.6
"""Side of the crop in template units (one unit is 108.6 pixels at 256 x 256)."""


@dataclass(frozen=True)
class Window:
    """A square window on a photograph, in pixels of that photograph (pixel i covers [i, i+1])."""

    left: float
    top: float
    side: float

    def scaled(self, factor: float) -> "Window":
        """The same window on a picture that is `factor` times as large."""
        return Window(self.left * factor, self.top * factor, self.side * factor)

    def to_crop(self, points: np.ndarray, resolution: int) -> np.ndarray:
        """Photograph pixels (..., 2) -> pixels of the crop at `resolution`."""
        return (points - (self.left, self.top)) * (resolution / self.side)


def fit_window(landmarks: Landmarks) -> Window | None:
    """The window that the template prescribes; None where the landmarks fit no face."""
    solution = np.linalg.lstsq(DESIGN, landmarks.points, rcond=None)[0]  # (4, 2)
    scales = np.linalg.norm(solution[:3], axis=0)
    if scales.min() <= 0 or scales.max() > 2 * scales.min():
        return None
    side = WINDOW_UNITS * float(scales.mean())
    x, y = (float(value) for value in solution[3])
    return Window(x - side / 2, y - side / 2, side)


def template_misfit(landmarks: Landmarks, window: Window) -> float:
    """RMS distance of the landmarks from the fitted template, in sides of its window."""
    solution = np.linalg.lstsq(DESIGN, landmarks.points, rcond=None)[0]
    distances = np.linalg.norm(DESIGN @ solution - landmarks.points, axis=1)
    return float(np.sqrt(np.mean(distances**2)) / window.side)


def choose_window(landmarks: Landmarks | None, width: int, height: int) -> tuple[Window, str]:
    """The window for a photograph of that size, and what decided it.

    "eyes", "brows", "glasses" or "given": landmarks with eyes from there; "centre": the largest
    centred square, where there are no landmarks or their window would hardly show the photograph.
    """
    window = None if landmarks is None else fit_window(landmarks)
    if window is not None and landmarks is not None and _on_picture(window, width, height):
        return window, landmarks.eye_source
    side = min(width, height)
    return Window((width - side) / 2, (height - side) / 2, side), "centre"


def _on_picture(window: Window, width: int, height: int) -> bool:
    x, y = window.left + window.side / 2, window.top + window.side / 2
    fits = 8 <= window.side <= 2.5 * max(width, height)
    return fits and 0 <= x <= width and 0 <= y <= height


def crop(
    picture: np.ndarray, window: Window, resolution: int, resample: Image.Resampling
) -> np.ndarray:
    """Cut `window` out of (H, W[, 3]) uint8 and scale it to (resolution, resolution[, 3])."""
    height, width = picture.shape[:2]
    right, bottom = window.left + window.side - width, window.top + window.side - height
    before_x, before_y, after_x, after_y = (
        max(0, math.ceil(value)) for value in (-window.left, -window.top, right, bottom)
    )
    if before_x or before_y or after_x or after_y:
        padding = [(before_y, after_y), (before_x, after_x)] + [(0, 0)] * (picture.ndim - 2)
        picture = np.pad(picture, padding, mode="symmetric")
    x, y = window.left + before_x, window.top + before_y
    box = (
        max(x, 0.0),
        max(y, 0.0),
        min(x + window.side, picture.shape[1]),
        min(y + window.side, picture.shape[0]),
    )
    resized = Image.fromarray(picture).resize((resolution, resolution), resample, box=box)
    return np.asarray(resized)


def crop_pair(
    image: np.ndarray, labels: np.ndarray, window: Window, resolution: int
) -> tuple[np.ndarray, np.ndarray]:
    """The aligned pair: (resolution, resolution, 3) and (resolution, resolution), uint8.

    window is in pixels of the image; the mask may be smaller or larger than the image.
    """
    small = window.scaled(labels.shape[1] / image.shape[1])
    return (
        crop(image, window, resolution, Image.Resampling.LANCZOS),
        crop(labels, small, resolution, Image.Resampling.NEAREST),
    )
