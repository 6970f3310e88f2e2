"""One crop for every face: five landmarks, a fixed template, one affine for image and mask.

A weak-perspective camera is fitted to the landmarks by least squares; the crop is centred on the
template's origin and sized by the fitted scale, so that a template unit always has the same length
in the picture. Roll is kept. The same window cuts image (Lanczos) and mask (nearest), and what lies
outside the photograph is filled by reflection in both.
"""

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


def centre_window(width: int, height: int) -> Window:
    """The largest centred square."""
    side = min(width, height)
    return Window((width - side) / 2, (height - side) / 2, side)


def fit_window(landmarks: Landmarks) -> Window | None:
    """The window that the template prescribes; None where the landmarks fit no face."""
    design = np.concatenate([TEMPLATE * (1, -1, -1), np.ones((5, 1))], 1)
    solution = np.linalg.lstsq(design, landmarks.points, rcond=None)[0]  # (4, 2)
    scales = np.linalg.norm(solution[:3], axis=0)
    scale = float(scales.mean())
    if scale <= 0 or scales.max() > 2 * scales.min():
        return None
    side = WINDOW_UNITS * scale
    centre = solution[3]
    return Window(float(centre[0]) - side / 2, float(centre[1]) - side / 2, side)


def crop(
    picture: np.ndarray, window: Window, resolution: int, resample: Image.Resampling
) -> np.ndarray:
    """Cut `window` out of (H, W[, 3]) uint8 and scale it to (resolution, resolution[, 3])."""
    height, width = picture.shape[:2]
    before_x, before_y = max(0, -window.left), max(0, -window.top)
    after_x = max(0, window.left + window.side - width)
    after_y = max(0, window.top + window.side - height)
    left, top, right, bottom = (int(np.ceil(v)) for v in (before_x, before_y, after_x, after_y))
    if left or top or right or bottom:
        padding = [(top, bottom), (left, right)] + [(0, 0)] * (picture.ndim - 2)
        picture = np.pad(picture, padding, mode="symmetric")
    x, y = window.left + left, window.top + top
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
