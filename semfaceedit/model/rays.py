"""Camera -> rays."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .camera import CameraConfig, camera_to_world
from .windows import Windows

FRONTAL_DIRECTION = (0.0, 0.0, -1.0)


@dataclass(frozen=True)
class Rays:
    """Rays in world coordinates, row-major over the image."""

    origins: Tensor  # (B, R, 3)
    directions: Tensor  # (B, R, 3) unit length

    def chunk(self, size: int | None) -> Iterator["Rays"]:
        """Split along R into pieces of at most `size` rays (None: one piece)."""
        count = self.origins.shape[1]
        step = count if size is None else size
        for start in range(0, count, step):
            part = slice(start, start + step)
            yield Rays(self.origins[:, part], self.directions[:, part])


def pixel_directions(resolution: int, config: CameraConfig) -> Tensor:
    """Unit directions (H, H, 3) float64 through the pixel centres, in camera axes (back is +z)."""
    centres = (2 * torch.arange(resolution, dtype=torch.float64) + 1) / resolution
    extent = (centres - 1) * config.half_extent
    y, x = torch.meshgrid(-extent, extent, indexing="ij")
    return torch.nn.functional.normalize(torch.stack([x, y, -torch.ones_like(x)], -1), dim=-1)


def camera_rays(
    pose: Tensor,  # (B, 2) yaw, pitch in radians
    resolution: int,
    config: CameraConfig,
    *,
    shift: Tensor | None = None,  # (B, 2) right and down, in pixels
    windows: Windows | None = None,
) -> Rays:
    """Rays through the pixel centres of a square image, or beside them by `shift`.

    windows: the rays of a square part of each image alone. Returns B x (side * side) rays, first
    row first; differentiable with respect to the pose.
    """
    grid = pixel_directions(resolution, config).to(pose)  # (H, H, 3)
    local = grid.reshape(-1, 3) if windows is None else windows.cut(grid).flatten(1, 2)
    if shift is not None:
        step = 2 * config.half_extent / resolution * shift * shift.new_tensor([1.0, -1.0])
        moved = local / -local[..., 2:] + nn.functional.pad(step, (0, 1))[:, None]
        local = nn.functional.normalize(moved, dim=-1)
    with torch.autocast(pose.device.type, enabled=False):  # a pixel is finer than 16 bits
        matrix = camera_to_world(pose)
        directions = local @ matrix[:, :3, :3].transpose(1, 2)
    origins = matrix[:, None, :3, 3].expand_as(directions)
    return Rays(origins, directions)
