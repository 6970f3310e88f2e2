"""The 19 CelebAMask-HQ classes: names, colours, left/right pairs and the grouping into regions."""

import numpy as np
import torch
from torch import Tensor

CLASS_NAMES = (
    "background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear",
    "mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth",
)  # fmt: skip
NUM_CLASSES = len(CLASS_NAMES)

PALETTE = np.array(
    [
        (0, 0, 0), (204, 0, 0), (76, 153, 0), (204, 204, 0), (51, 51, 255), (204, 0, 204),
        (0, 255, 255), (255, 204, 204), (102, 51, 0), (255, 0, 0), (102, 204, 0), (255, 255, 0),
        (0, 0, 153), (0, 0, 204), (255, 51, 153), (0, 204, 204), (0, 51, 0), (255, 153, 51),
        (0, 204, 0),
    ],
    dtype=np.uint8,
)  # fmt: skip
"""Colours of CelebAMask-HQ's own label pictures, (19, 3) RGB."""

FLIP_IDS = np.array([0, 1, 2, 3, 5, 4, 7, 6, 9, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18])
"""Class id after a horizontal flip: left and right eyes, brows and ears change places."""

GROUP_NAMES = ("hair", "face", "garment", "background")
GROUP_OF_CLASS = (3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 2, 1, 2)
"""Default grouping: hair {13, 14}, face {1-12, 15, 17}, garment {16, 18}, background {0}."""


def colorize(labels: Tensor) -> Tensor:
    """Label ids (..., H, W) -> CelebAMask-HQ colours (..., H, W, 3) uint8."""
    return torch.from_numpy(PALETTE)[labels.cpu().long()]


def one_hot(labels: Tensor, size: int | None = None) -> Tensor:
    """Label ids (B, H, W) -> one-hot maps (B, 19, size, size) float32 in [0, 1].

    Downsampling is by area: a pixel of the small map holds the share of each class in its
    footprint. `size` must divide H and W.
    """
    maps = torch.nn.functional.one_hot(labels.long(), NUM_CLASSES).movedim(-1, 1).float()
    if size is not None and size != maps.shape[-1]:
        maps = torch.nn.functional.adaptive_avg_pool2d(maps, size)
    return maps
