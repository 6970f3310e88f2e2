"""Square windows of pictures: what a discriminator sees of a resolution that is too dear whole."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Windows:
    """One window of side P in each of B pictures of R x R pixels."""

    corner: Tensor  # (B, 2) int64, column and row of the first pixel, from 0 to R - P
    side: int  # P
    resolution: int  # R

    @classmethod
    def draw(cls, count: int, side: int, resolution: int, random: torch.Generator) -> "Windows":
        """Anywhere inside, each place as likely as any other."""
        corner = torch.randint(resolution - side + 1, (count, 2), generator=random)
        return cls(corner, side, resolution)

    def __getitem__(self, part: slice) -> "Windows":
        return Windows(self.corner[part], self.side, self.resolution)

    def cut(self, grid: Tensor) -> Tensor:
        """(R, R, C), the same for all, -> (B, P, P, C)."""
        columns, rows = self._pixels(grid.device)
        return grid[rows[:, :, None], columns[:, None, :]]

    def cut_pictures(self, pictures: Tensor) -> Tensor:
        """(B, C, R, R) -> (B, C, P, P)."""
        columns, rows = self._pixels(pictures.device)
        batch = torch.arange(len(pictures), device=pictures.device)[:, None, None]
        channels_last = pictures.permute(0, 2, 3, 1)
        return channels_last[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    def axes(self, size: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """x and y (B, size) of a grid over each window, where the whole picture spans [-1, 1]."""
        first = 2 * self.corner.to(like) / (self.resolution - 1) - 1  # (B, 2)
        width = 2 * (self.side - 1) / (self.resolution - 1)
        steps = torch.linspace(0, width, size, device=like.device, dtype=like.dtype)
        x, y = (first[:, :, None] + steps).unbind(1)
        return x, y

    def _pixels(self, device: torch.device) -> tuple[Tensor, Tensor]:
        inside = torch.arange(self.side, device=device)
        columns, rows = (self.corner.to(device)[:, :, None] + inside).unbind(1)
        return columns, rows  # (B, P) each
