"""Head pose from a face mesh.

The mean mesh was averaged over 1,041 public-domain portraits and made symmetric. Yaw comes from a
weak-perspective fit of it to the mesh's x and y, since the mesh is too shallow to tell; pitch is
the mean of what that fit and a rigid fit in space say. A constant and a factor give pitches the
mean and the spread that CelebAMask-HQ's table has.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

MEAN_MESH = Path(__file__).parent / "models" / "mean_mesh.safetensors"
PITCH_FACTOR = 0.936
LEVEL = math.radians(3.69)  # of a level head, by both fits, times the factor


def pose_from_mesh(points: np.ndarray) -> tuple[float, float]:
    """Yaw and pitch (radians, as in `model.camera`) of a mesh (468, 3), x right and y down.

    Depth grows away from the camera. Roll does not matter.
    """
    seen = points * (1, -1, -1)
    seen = seen - seen.mean(0)
    across = _forward(_weak_perspective(seen[:, :2]))
    within = _forward(_rotation(seen))
    yaw = math.atan2(across[0], across[2])
    pitch = (_pitch(across) + _pitch(within)) / 2
    return yaw, PITCH_FACTOR * pitch - LEVEL


@cache
def _mean_mesh() -> np.ndarray:
    """(468, 3) x right, y up, z towards the camera; its centre is the origin."""
    return load_file(MEAN_MESH)["points"].astype(np.float64)


def _weak_perspective(places: np.ndarray) -> np.ndarray:
    """The head's rotation (3, 3) whose orthographic picture of the mean mesh is nearest."""
    linear = np.linalg.lstsq(_mean_mesh(), places, rcond=None)[0].T
    left, _, right = np.linalg.svd(linear, full_matrices=False)
    rows = left @ right
    return np.vstack([rows, np.cross(*rows)])


def _rotation(seen: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) that brings the mean mesh nearest to a mesh (Kabsch)."""
    left, _, right = np.linalg.svd(seen.T @ _mean_mesh())
    mirror = np.diag([1, 1, np.sign(np.linalg.det(left @ right))])
    return left @ mirror @ right


def _forward(rotation: np.ndarray) -> np.ndarray:
    """Where the face looks."""
    return rotation[:, 2]


def _pitch(forward: np.ndarray) -> float:
    return math.atan2(forward[1], math.hypot(forward[0], forward[2]))
