"""Oklab (Ottosson 2020): lightness and two opponent colours, even to the eye."""

import torch
from torch import Tensor

_TO_LMS = torch.tensor(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = torch.tensor(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def oklab(colours: Tensor) -> Tensor:
    """sRGB (1, 3, h, w) in [0, 1] -> Oklab: lightness in [0, 1], and two opponent colours."""
    linear = torch.where(
        colours <= 0.04045, colours / 12.92, ((colours.clamp(min=0) + 0.055) / 1.055) ** 2.4
    )
    lms = torch.einsum("ij,bjhw->bihw", _TO_LMS, linear).clamp(min=0)
    return torch.einsum("ij,bjhw->bihw", _TO_LAB, lms ** (1 / 3))


def srgb(lab: Tensor) -> Tensor:
    """The inverse of `oklab`, cut to [0, 1]."""
    lms = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(_TO_LAB), lab) ** 3
    linear = torch.einsum("ij,bjhw->bihw", torch.linalg.inv(_TO_LMS), lms).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
