"""The camera: one written convention, and converters from the ones that data sets use.

World: y up, the face looks along +z, right-handed. The camera sits on the unit sphere around the
origin, looks at the origin, up is +y, no roll. A pose is (yaw, pitch) in radians, (0, 0) frontal:

* positive yaw moves the camera towards -x, so the nose moves to the image's right;
* positive pitch moves the camera down, so the nose moves up in the image.

Image x runs right, image y runs down. Rays pass through **pixel centres**.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import UserError

FOV_DEGREES = 12.0
NEAR, FAR = 0.88, 1.12  # world units along the ray
VISIBLE = math.pi / 2  # radians: cameras beyond would look at the back of the plane
YAW_STD, PITCH_STD = 0.3, 0.155  # radians, the pose prior
CELEBAMASKHQ_PITCH = 7.05  # degrees, how far that data set's pose table looks down on average


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Intrinsics and the pose prior (radians; distances in world units)."""

    fov_degrees: float = FOV_DEGREES
    near: float = NEAR
    far: float = FAR
    yaw_std: float = YAW_STD
    pitch_std: float = PITCH_STD

    def __post_init__(self) -> None:
        for name in ("yaw_std", "pitch_std"):
            if not 0 <= getattr(self, name) <= VISIBLE:
                raise UserError(f"{name} {getattr(self, name):g}: use 0 to {VISIBLE:.2f} radians")
        if not 0 < self.fov_degrees < 180:
            raise UserError(f"fov_degrees {self.fov_degrees:g}: must be more than 0, less than 180")
        if not 0 <= self.near < self.far < math.inf:
            raise UserError(f"near {self.near:g}, far {self.far:g}: it must see between them")

    @property
    def half_extent(self) -> float:
        """Half the image's width at distance 1: tan(fov / 2)."""
        return math.tan(math.radians(self.fov_degrees) / 2)


def sample_poses(
    count: int, config: CameraConfig, *, generator: torch.Generator | None = None
) -> Tensor:
    """Draw poses (count, 2) = (yaw, pitch) in radians from the Gaussian prior, on the CPU."""
    std = torch.tensor([config.yaw_std, config.pitch_std])
    return torch.randn(count, 2, generator=generator) * std


def camera_to_world(pose: Tensor) -> Tensor:  # (B, 2) yaw, pitch -> (B, 4, 4)
    """Camera-to-world matrices with columns right, up, back, position.

    The camera looks along its own -z ("back" is +z), x is the image's right, y is up.
    """
    yaw, pitch = pose.unbind(-1)
    # The limit keeps the camera off the poles, where "up" has no meaning.
    pitch = pitch.clamp(-math.pi / 2 + 1e-5, math.pi / 2 - 1e-5)
    sin_yaw, cos_yaw, sin_pitch, cos_pitch = yaw.sin(), yaw.cos(), pitch.sin(), pitch.cos()
    zero = torch.zeros_like(yaw)
    back = torch.stack([-sin_yaw * cos_pitch, -sin_pitch, cos_yaw * cos_pitch], -1)
    right = torch.stack([cos_yaw, zero, sin_yaw], -1)
    up = torch.linalg.cross(back, right)
    rotation = torch.stack([right, up, back, back], -1)  # the position on the unit sphere is `back`
    bottom = torch.stack([zero, zero, zero, torch.ones_like(zero)], -1)
    return torch.cat([rotation, bottom[..., None, :]], -2)


def project(points: Tensor, pose: Tensor, config: CameraConfig) -> Tensor:
    """World points (B, M, 3) -> image coordinates (B, M, 2) in [-1, 1], x right and y down."""
    matrix = camera_to_world(pose)
    local = (points - matrix[:, None, :3, 3]) @ matrix[:, :3, :3]
    depth = -local[..., 2]
    xy = local[..., :2] / (depth[..., None] * config.half_extent)
    return xy * xy.new_tensor([1.0, -1.0])


def pose_from_celebamaskhq(yaw_degrees: Tensor, pitch_degrees: Tensor) -> Tensor:
    """CelebAMask-HQ-pose-anno.txt (degrees) -> (..., 2) pose.

    There positive yaw turns the nose to the image's left and positive pitch lifts it. The table's
    mean pitch over its 30,000 faces is -7.05 degrees, here that of a level head: it becomes 0.
    """
    level = pitch_degrees + CELEBAMASKHQ_PITCH
    return torch.deg2rad(torch.stack([-yaw_degrees, level], -1))


def pose_from_eg3d(matrix: Tensor) -> Tensor:
    """EG3D camera-to-world (..., 4, 4), OpenCV axes (x right, y down, z forward) -> (..., 2) pose.

    EG3D keeps the face at the origin looking along +z with +y up, as here; its radius of 2.7 and
    its look-at point just below the origin do not matter: the viewing direction decides.
    """
    back = -matrix[..., :3, 2]
    yaw = torch.atan2(-back[..., 0], back[..., 2])
    pitch = torch.asin((-back[..., 1]).clamp(-1, 1))
    return torch.stack([yaw, pitch], -1)


def pose_from_deep3dfacerecon(angles: Tensor) -> Tensor:
    """Deep3DFaceRecon `angle` (..., 3) radians (pitch, yaw, roll) -> (..., 2) pose.

    GRAM's reading: pitch' = pi/2 - (a0 - 0.1), yaw' = pi/2 + a1, with pi/2 the frontal camera. The
    0.1 is the offset of that reconstruction's mean face.
    """
    return torch.stack([angles[..., 1], 0.1 - angles[..., 0]], -1)
