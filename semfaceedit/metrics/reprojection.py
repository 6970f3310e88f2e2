"""Whether two views of a scene show the same surface: depth carried from one into the other."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, max_pool2d

from ..model.camera import CameraConfig, project
from ..model.rays import camera_rays

EDGE_SLOPE = 4.0  # pixel widths of depth across three pixels: beyond, it is an edge
HIDDEN = 0.02  # world units behind the other view's surface: hidden there, not misplaced


@dataclass(frozen=True)
class Carried:
    """The pixels of view a as points of view b."""

    place: Tensor  # (B, H, W, 2) where in b, [-1, 1], x right and y down
    behind: Tensor  # (B, H, W) world units that the point lies behind b's surface
    valid: Tensor  # (B, H, W) bool: inside b's picture, and at no depth edge of either view

    @property
    def hidden(self) -> Tensor:
        """Valid points that lie so far behind b's surface that something hides them there."""
        return self.valid & (self.behind > HIDDEN)

    @property
    def seen(self) -> Tensor:
        return self.valid & (self.behind <= HIDDEN)


def carry(
    depth_a: Tensor,  # (B, H, W) world distance along the rays through the pixel centres
    pose_a: Tensor,  # (B, 2)
    depth_b: Tensor,
    pose_b: Tensor,
    camera: CameraConfig,
) -> Carried:
    """Turn a's depth into points and compare their distances from b's camera with b's depth."""
    size = depth_a.shape[-1]
    rays = camera_rays(pose_a, size, camera)
    points = rays.origins + rays.directions * depth_a.flatten(1)[..., None]
    place = project(points, pose_b, camera).unflatten(1, (size, size))
    origin = camera_rays(pose_b, 1, camera).origins
    distance = (points - origin).norm(dim=-1).view_as(depth_a)
    pixel = 2 * camera.half_extent / size
    smooth = [~edges(depth, EDGE_SLOPE * pixel) for depth in (depth_a, depth_b)]
    inside = (place.abs() <= 1 - 1 / size).all(-1)
    landed = sample(smooth[1].to(depth_a)[:, None], place)[:, 0] > 0.99
    behind = distance - sample(depth_b[:, None], place)[:, 0]
    return Carried(place, behind, inside & smooth[0] & landed)


def edges(depth: Tensor, limit: float) -> Tensor:  # (B, H, W) -> bool
    """Where depth changes by more than `limit` within the 3 x 3 pixels around."""
    high = max_pool2d(depth[:, None], 3, stride=1, padding=1)
    low = -max_pool2d(-depth[:, None], 3, stride=1, padding=1)
    return (high - low)[:, 0] > limit


def sample(picture: Tensor, place: Tensor, mode: str = "bilinear") -> Tensor:
    """Values of (B, C, H, W) at places (B, h, w, 2), pixel centres as in `rays`."""
    return grid_sample(picture, place, mode=mode, padding_mode="border", align_corners=False)


def normal_angle(a: Tensor, b: Tensor) -> Tensor:  # (..., 3) unit vectors -> (...) degrees
    return torch.rad2deg((a * b).sum(-1).clamp(-1, 1).acos())
