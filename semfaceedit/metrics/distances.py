"""Distances between two sets of pictures: sliced Wasserstein over a pyramid, Frechet, kernel."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad

from ..data.seeds import mixed_seed
from .pictures import frechet_distance

COARSEST = 16  # pixels along an edge of the pyramid's last level
PATCH = 7  # pixels along an edge of a descriptor
MOST_DESCRIPTORS = 32_768  # a level
MOST_PATCHES = 64  # a picture and level
DIRECTIONS = 512
KID_SUBSETS, KID_SUBSET = 100, 1000


def levels(resolution: int) -> list[int]:
    """Edge lengths of a pyramid, finest first: halved down to 16 pixels while that goes evenly."""
    sizes = [resolution]
    while sizes[-1] % 2 == 0 and sizes[-1] // 2 >= COARSEST:
        sizes.append(sizes[-1] // 2)
    return sizes


def laplacian_pyramid(pictures: Tensor) -> list[Tensor]:  # (B, C, R, R) -> [(B, C, r, r)]
    """Bands of detail, finest first (Burt & Adelson 1983); the last is what is left.

    Adding each band to the enlarged next one gives the pictures back.
    """
    bands = []
    for _ in levels(pictures.shape[-1])[1:]:
        smaller = _blur(pictures)[:, :, ::2, ::2]
        bands.append(pictures - enlarge(smaller))
        pictures = smaller
    return [*bands, pictures]


def enlarge(pictures: Tensor) -> Tensor:  # (B, C, r, r) -> (B, C, 2r, 2r)
    """The pyramid's doubling: zeros between the pixels, then a blur that keeps constants."""
    count, channels, height, width = pictures.shape
    wide = pictures.new_zeros(count, channels, 2 * height, 2 * width)
    wide[:, :, ::2, ::2] = 4 * pictures
    return _blur(wide)


def _blur(pictures: Tensor) -> Tensor:
    """The binomial filter 1 4 6 4 1 along both axes, mirrored at the border."""
    line = pictures.new_tensor([1, 4, 6, 4, 1]) / 16
    flat = pad(pictures.flatten(0, 1)[:, None], (2, 2, 2, 2), mode="reflect")
    flat = conv2d(conv2d(flat, line.view(1, 1, 1, 5)), line.view(1, 1, 5, 1))
    return flat.view_as(pictures)


def patches_per_picture(count: int) -> int:
    """How many descriptors each of `count` pictures gives to a level."""
    return max(1, min(MOST_PATCHES, MOST_DESCRIPTORS // count))


def descriptors(
    pictures: Tensor,  # (B, C, R, R)
    first: int,  # index of the first picture in its set
    each: int,  # patches a picture
    seed: int,
) -> list[Tensor]:  # a level: (B * each, C * 49)
    """Square patches at random places of each pyramid level; the index decides the places."""
    parts = []
    for level, band in enumerate(laplacian_pyramid(pictures)):
        size = min(PATCH, band.shape[-1])
        places = np.stack(
            [
                np.random.default_rng([seed, level, first + index]).integers(
                    0, band.shape[-1] - size + 1, (2, each)
                )
                for index in range(len(pictures))
            ]
        )  # (B, 2, each)
        y, x = torch.from_numpy(places).unbind(1)
        step = torch.arange(size)
        batch = torch.arange(len(pictures))[:, None, None, None]
        rows = (y[:, :, None] + step)[:, :, :, None]
        columns = (x[:, :, None] + step)[:, :, None, :]
        cut = band.movedim(1, -1)[batch, rows, columns]  # (B, each, size, size, C)
        parts.append(cut.flatten(2).flatten(0, 1))
    return parts


def directions(dimensions: int, seed: int) -> Tensor:  # (D, 512)
    """Random unit vectors."""
    random = torch.Generator().manual_seed(mixed_seed(seed, dimensions))
    return torch.nn.functional.normalize(
        torch.randn(dimensions, DIRECTIONS, generator=random), dim=0
    )


def sliced_wasserstein(a: Tensor, b: Tensor, unit_vectors: Tensor) -> float:
    """Mean over directions of the 1-Wasserstein distance between projections.

    a, b: (M, D), the same number of descriptors; unit_vectors: (D, S).
    """
    if a.shape != b.shape:
        raise ValueError(f"sets of shapes {tuple(a.shape)} and {tuple(b.shape)}")
    total = 0.0
    for part in unit_vectors.split(64, dim=1):
        gap = (a @ part).sort(0).values - (b @ part).sort(0).values
        total += float(gap.abs().double().mean(0).sum())
    return total / unit_vectors.shape[1]


def spread(values: Tensor) -> float:  # (M, D)
    """The root of the mean variance of the dimensions; 1 where nothing varies."""
    return float(values.double().var(0, unbiased=False).mean().sqrt()) or 1.0


def gaussian_distance(a: Tensor, b: Tensor) -> float:  # (M, D), (N, D)
    """Frechet distance of the Gaussians of two sets of features (Heusel et al. 2017)."""
    a, b = a.double(), b.double()
    moments = (x for features in (a, b) for x in (features.mean(0), torch.cov(features.T)))
    return max(0.0, float(frechet_distance(*moments)))


def polynomial_mmd(a: Tensor, b: Tensor) -> float:  # (M, D), (N, D)
    """Unbiased squared MMD under the kernel (x y / D + 1)^3 (Binkowski et al. 2018, Eq. 4)."""
    a, b = a.double(), b.double()

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def within(x: Tensor) -> Tensor:
        values = kernel(x, x)
        return (values.sum() - values.trace()) / (len(x) * (len(x) - 1))

    return float(within(a) + within(b) - 2 * kernel(a, b).mean())


@dataclass(frozen=True)
class KernelDistance:
    """A mean of `polynomial_mmd`, and what it was taken over."""

    mean: float
    deviation: float | None  # None of one subset
    subsets: int
    size: int | None  # features of a subset; None: both sets whole


def kernel_distance(a: Tensor, b: Tensor, seed: int) -> KernelDistance:
    """`polynomial_mmd` over 100 random subsets of 1,000; sets without choice are taken whole."""
    if min(len(a), len(b)) < KID_SUBSET or len(a) == len(b) == KID_SUBSET:
        return KernelDistance(polynomial_mmd(a, b), None, 1, None)
    random = np.random.default_rng(seed)
    values = []
    for _ in range(KID_SUBSETS):
        chosen = (random.choice(len(f), KID_SUBSET, replace=False) for f in (a, b))
        values.append(polynomial_mmd(*(f[i] for f, i in zip((a, b), chosen, strict=True))))
    return KernelDistance(float(np.mean(values)), float(np.std(values)), KID_SUBSETS, KID_SUBSET)
