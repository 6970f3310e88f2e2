"""Differentiable augmentation of what discriminators see, against overfitting few photographs.

The same kind of change is applied to real and generated pictures, each with a probability below
one, so that it stays visible as a change and does not leak into what the generator makes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

MAX_SHIFT = 0.125  # of the picture's width
MAX_BRIGHTNESS = 0.25  # in units of [-1, 1]
MAX_CONTRAST = 0.35
MAX_SATURATION = 0.6


@dataclass(frozen=True)
class Augmentation:
    """One draw for B pictures: `image` and `semantics` change pictures of the two kinds."""

    active: bool
    shift: Tensor  # (B, 2) in units of the picture's width, x then y
    brightness: Tensor  # (B,)
    contrast: Tensor  # (B,)
    saturation: Tensor  # (B,)

    @classmethod
    def draw(
        cls,
        count: int,
        probability: float,
        random: torch.Generator,
        *,
        device: torch.device,
        dtype: torch.dtype,
    ) -> "Augmentation":
        """Each change happens to each picture with this probability."""
        draws = torch.rand(count, 9, generator=random, dtype=torch.float64)
        chosen = (draws[:, :4] < probability).to(dtype)
        centred = (2 * draws[:, 4:] - 1).to(dtype)
        return cls(
            probability > 0,
            (MAX_SHIFT * chosen[:, :1] * centred[:, :2]).to(device),
            (MAX_BRIGHTNESS * chosen[:, 1] * centred[:, 2]).to(device),
            (1 + MAX_CONTRAST * chosen[:, 2] * centred[:, 3]).to(device),
            (1 + MAX_SATURATION * chosen[:, 3] * centred[:, 4]).to(device),
        )

    def __getitem__(self, part: slice) -> "Augmentation":
        return Augmentation(
            self.active,
            self.shift[part],
            self.brightness[part],
            self.contrast[part],
            self.saturation[part],
        )

    def image(self, image: Tensor) -> Tensor:  # (B, 3, H, W) in [-1, 1]
        """Shift, brightness, contrast and saturation."""
        if not self.active:
            return image

        def each(values: Tensor) -> Tensor:
            return values[:, None, None, None]

        grey = image.mean(1, keepdim=True)
        image = grey + (image - grey) * each(self.saturation)
        mean = image.mean((1, 2, 3), keepdim=True)
        image = mean + (image - mean) * each(self.contrast) + each(self.brightness)
        return self._shifted(image)

    def semantics(self, semantics: Tensor) -> Tensor:  # (B, N, H, W)
        """The same shift as the image's."""
        return self._shifted(semantics) if self.active else semantics

    def _shifted(self, picture: Tensor) -> Tensor:
        """Move by whole pixels, repeating the border: soft class shares stay as they are."""
        size = picture.shape[-1]
        steps = (self.shift * size).round().long()
        grid = torch.arange(size, device=picture.device)
        x = (grid + steps[:, :1]).clamp(0, size - 1)
        y = (grid + steps[:, 1:]).clamp(0, size - 1)
        batch = torch.arange(len(picture), device=picture.device)[:, None, None]
        return picture.permute(0, 2, 3, 1)[batch, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)
