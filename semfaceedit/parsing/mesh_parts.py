"""What the mesh says of a face: landmarks and crop, the outlines of its parts, and guides.

The numbers are points of MediaPipe's face mesh; "left" is the person's own, on the image's right.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

from ..data.align import Window, fit_window
from ..data.pose import Landmarks
from ..model.labels import CLASS_NAMES

LEFT_EYE = (
    263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466,
)  # fmt: skip
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)  # upper edge, lower edge back
RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
UPPER_LIP, LOWER_LIP = (  # outer edges, from the right corner to the left one
    (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291),
    (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291),
)
MOUTH_ABOVE, MOUTH_BELOW = (
    (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308),
    (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308),
)
NOSE = (
    168, 193, 245, 188, 174, 217, 198, 129, 64, 98, 97, 2, 326, 327, 294, 358, 420, 437, 399, 412,
    465, 417,
)  # fmt: skip
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
NOSE_TIP, CHIN, MOUTH_CORNERS, SIDES = 4, 152, (61, 291), (234, 454)

WINDOW_SHARE = 1.0276  # the five points' window, in that of CelebAMask-HQ's own maps
EYE_SIZE = 0.95  # of the outline in the label maps' eyes
BROW_HEIGHT, BROW_DROP = 1.7, 0.38  # of a brow: the mesh's are thin and high
SUPERSAMPLING = 4

ID = {name: index for index, name in enumerate(CLASS_NAMES)}


@dataclass(frozen=True)
class MeshParts:
    """A mesh (468, 2 or 3) in pixels of some picture, x right and y down."""

    points: np.ndarray

    def scaled(self, origin: tuple[float, float], factor: float) -> "MeshParts":
        """The same mesh on a picture whose corner is at `origin`, scaled by `factor`."""
        return MeshParts((self.points[:, :2] - origin) * factor)

    def at(self, ids: tuple[int, ...]) -> np.ndarray:
        return self.points[list(ids), :2]

    @cached_property
    def eyes(self) -> tuple[np.ndarray, np.ndarray]:
        """Middles of the eyes, the one on the image's left first."""
        return self.at(RIGHT_EYE).mean(0), self.at(LEFT_EYE).mean(0)

    @property
    def landmarks(self) -> Landmarks:
        corners = self.at(MOUTH_CORNERS)
        return Landmarks(np.stack([*self.eyes, self.points[NOSE_TIP, :2], *corners]))

    @property
    def window(self) -> Window | None:
        """The crop that alignment asks for; None where the points fit no face."""
        fitted = fit_window(self.landmarks)
        if fitted is None:
            return None
        less = fitted.side * (1 - 1 / WINDOW_SHARE)
        return Window(fitted.left + less / 2, fitted.top + less / 2, fitted.side - less)

    def outlines(self) -> list[tuple[str, np.ndarray]]:
        """Classes and polygons (M, 2), to be painted in this order."""
        return [
            ("nose", self.at(NOSE)),
            ("r_brow", _brow(self.at(RIGHT_BROW))),
            ("l_brow", _brow(self.at(LEFT_BROW))),
            ("r_eye", _about_middle(self.at(RIGHT_EYE), EYE_SIZE)),
            ("l_eye", _about_middle(self.at(LEFT_EYE), EYE_SIZE)),
            ("mouth", self.at(MOUTH_ABOVE + MOUTH_BELOW[::-1])),
            ("u_lip", self.at(UPPER_LIP + MOUTH_ABOVE[::-1])),
            ("l_lip", self.at(LOWER_LIP + MOUTH_BELOW[::-1])),
        ]

    def painted(self, labels: np.ndarray) -> np.ndarray:
        """The label map (H, W) with the parts painted on it."""
        made = labels.copy()
        for name, polygon in self.outlines():
            made[coverage(polygon, labels.shape) > 0.5] = ID[name]
        return made

    def guides(self, size: int) -> np.ndarray:
        """(8, size, size) float32 in [0, 1] for a network.

        Oval, nose, eyes, brows, lips and mouth by their coverage; then places across and down the
        face, in distances from the eyes to the chin.
        """
        polygons = dict(self.outlines())
        shape = (size, size)

        def pair(name: str) -> np.ndarray:
            sides = (coverage(polygons[f"{side}_{name}"], shape) for side in "rl")
            return np.maximum(*sides)

        mouth = coverage(polygons["mouth"], shape)
        whole = coverage(self.at(UPPER_LIP + LOWER_LIP[::-1][1:-1]), shape)
        across, down = self.places(size)
        return np.stack(
            [
                coverage(self.at(OVAL), shape),
                coverage(polygons["nose"], shape),
                pair("eye"),
                pair("brow"),
                np.maximum(whole - mouth, 0),
                mouth,
                np.clip(across / 2.5 + 0.5, 0, 1),
                np.clip((down + 1.2) / 3, 0, 1),
            ]
        ).astype(np.float32)

    def places(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """How far across (to the image's right) and down each pixel is: (size, size) each.

        From the face's middle line and from the eyes, in distances from the eyes to the chin.
        """
        right, left = self.eyes
        eyes, chin = (right + left) / 2, self.points[CHIN, :2]
        unit = float(np.linalg.norm(chin - eyes))
        across = (left - right) / (np.linalg.norm(left - right) * unit)
        down = np.array([-across[1], across[0]])
        middle = chin / 2 + self.at(SIDES).mean(0) / 2
        y, x = np.mgrid[:size, :size] + 0.5
        pixels = np.stack([x, y], -1)
        return (pixels - middle) @ across, (pixels - eyes) @ down


def coverage(polygon: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """How much of each pixel a polygon (M, 2) covers: (H, W) float32 in [0, 1]."""
    made = np.zeros(shape, np.float32)
    low = np.maximum(np.floor(polygon.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(polygon.max(0)).astype(int) + 1, shape[::-1])
    if (high <= low).any():
        return made
    width, height = (int(edge) for edge in high - low)
    fine = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    corners = (polygon - low) * SUPERSAMPLING - 0.5
    ImageDraw.Draw(fine).polygon([tuple(point) for point in corners.tolist()], fill=255)
    part = fine.resize((width, height), Image.Resampling.BOX)
    made[low[1] : high[1], low[0] : high[0]] = np.asarray(part, np.float32) / 255
    return made


def _about_middle(polygon: np.ndarray, factor: float) -> np.ndarray:
    return polygon.mean(0) + (polygon - polygon.mean(0)) * factor


def _brow(points: np.ndarray) -> np.ndarray:
    """The mesh's brow (10, 2) made as thick as label maps have it."""
    upper, lower = points[:5], points[5:][::-1]
    middle, height = (upper + lower) / 2, upper - lower
    edges = [middle + height * (half * BROW_HEIGHT / 2 - BROW_DROP) for half in (1, -1)]
    return np.concatenate([edges[0], edges[1][::-1]])
