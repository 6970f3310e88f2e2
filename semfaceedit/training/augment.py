"""Differentiable augmentation of what discriminators see, against overfitting few photographs.

The same kind of change is applied to real and generated pictures, each with a probability below
one, so that it stays visible as a change and does not leak into what the generator makes.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.config import TrainConfig

MAX_SHIFT = 0.125  # of the picture's width
MAX_BRIGHTNESS = 0.25  # in units of [-1, 1]
MAX_CONTRAST = 0.35
MAX_SATURATION = 0.6
CUTOUT = 0.5  # side of the blank square, of the picture's width (DiffAugment, Zhao et al. 2020)
NO_CLASS = -1.0  # the value of every class where a map is blank


@dataclass(frozen=True)
class Augmentation:
    """One draw for B pictures: `image` and `semantics` change pictures of the two kinds."""

    active: bool
    shift: Tensor  # (B, 2) in units of the picture's width, x then y
    brightness: Tensor  # (B,)
    contrast: Tensor  # (B,)
    saturation: Tensor  # (B,)
    blank: Tensor | None = None  # (B, 2) middle of the blank square in [0, 1]; NaN: none

    @classmethod
    def draw(
        cls,
        count: int,
        probability: float,
        random: torch.Generator,
        *,
        device: torch.device,
        dtype: torch.dtype,
        cutout: float = 0.0,
    ) -> "Augmentation":
        """Each change happens to each picture with this probability, the blank square with that
        of `cutout`."""
        draws = torch.rand(count, 9, generator=random, dtype=torch.float64)
        chosen = (draws[:, :4] < probability).to(dtype)
        centred = (2 * draws[:, 4:] - 1).to(dtype)
        return cls(
            probability > 0,
            (MAX_SHIFT * chosen[:, :1] * centred[:, :2]).to(device),
            (MAX_BRIGHTNESS * chosen[:, 1] * centred[:, 2]).to(device),
            (1 + MAX_CONTRAST * chosen[:, 2] * centred[:, 3]).to(device),
            (1 + MAX_SATURATION * chosen[:, 3] * centred[:, 4]).to(device),
            _squares(count, cutout, random).to(device) if cutout else None,
        )

    def __getitem__(self, part: slice) -> "Augmentation":
        return Augmentation(
            self.active,
            self.shift[part],
            self.brightness[part],
            self.contrast[part],
            self.saturation[part],
            None if self.blank is None else self.blank[part],
        )

    def image(self, image: Tensor) -> Tensor:  # (B, 3, H, W) in [-1, 1]
        """Shift, brightness, contrast and saturation; blank is grey."""
        return self._blanked(self._colored(image), 0.0)

    def _colored(self, image: Tensor) -> Tensor:
        if not self.active:
            return image

        def each(values: Tensor) -> Tensor:
            return values[:, None, None, None]

        grey = image.mean(1, keepdim=True)
        image = grey + (image - grey) * each(self.saturation)
        mean = image.mean((1, 2, 3), keepdim=True)
        image = mean + (image - mean) * each(self.contrast) + each(self.brightness)
        return self._shifted(image)

    def semantics(self, semantics: Tensor) -> Tensor:  # (B, N, H, W) in [-1, 1]
        """The same shift and blank square as the image's."""
        return self._blanked(self._shifted(semantics) if self.active else semantics, NO_CLASS)

    def _shifted(self, picture: Tensor) -> Tensor:
        """Move by whole pixels, repeating the border: soft class shares stay as they are."""
        size = picture.shape[-1]
        steps = (self.shift * size).round().long()
        grid = torch.arange(size, device=picture.device)
        x = (grid + steps[:, :1]).clamp(0, size - 1)
        y = (grid + steps[:, 1:]).clamp(0, size - 1)
        batch = torch.arange(len(picture), device=picture.device)[:, None, None]
        return picture.permute(0, 2, 3, 1)[batch, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)

    def _blanked(self, picture: Tensor, value: float) -> Tensor:
        if self.blank is None:
            return picture
        size = picture.shape[-1]
        middles = (torch.arange(size, device=picture.device) + 0.5) / size
        across, down = ((middles - at[:, None]).abs() < CUTOUT / 2 for at in self.blank.unbind(1))
        return picture.masked_fill((down[:, :, None] & across[:, None, :])[:, None], value)


def _squares(count: int, probability: float, random: torch.Generator) -> Tensor:
    """(count, 2) float64 middles of squares, x then y; NaN where there is none."""
    draws = torch.rand(count, 3, generator=random, dtype=torch.float64)
    return torch.where(draws[:, :1] < probability, draws[:, 1:], torch.nan)


SIGN_MEMORY = 500  # images over which the mean sign of D_c on photographs is taken


@dataclass
class AdaptiveAugmentation:
    """How strong augmentation is: 1 for the probabilities that the settings name, 0 for none.

    With a target it starts at 0, and grows while D_c knows photographs too well: while the mean
    sign of its scores on them is above the target (adaptive discriminator augmentation, Karras et
    al. 2020).
    """

    strength: float
    sign: float = 0.0  # mean over about `SIGN_MEMORY` images

    @classmethod
    def of(cls, train: TrainConfig) -> "AdaptiveAugmentation":
        return cls(0.0 if train.augment_target else 1.0)

    def adapt(self, sign: float, images: int, train: TrainConfig) -> None:
        """After a step of so many images with this mean sign."""
        self.sign += min(1.0, images / SIGN_MEMORY) * (sign - self.sign)
        change = math.copysign(images / train.augment_ramp, self.sign - train.augment_target)
        self.strength = min(1.0, max(0.0, self.strength + change))
