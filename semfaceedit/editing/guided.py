"""Edge-aware filters: the guided filter, and averages that look at chosen pixels alone.

All work on float maps (1, C, h, w).
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, conv2d, interpolate, pad


def guided_coefficients(
    guide: Tensor, values: Tensor, radius: int, eps: float
) -> tuple[Tensor, Tensor]:
    """a (1, 3, h, w) and b (1, 1, h, w) of the guided filter (He, Sun and Tang, ECCV 2010).

    values (1, 1, h, w) is near a . guide + b in every square of 2 radius + 1 pixels of the colours
    guide (1, 3, h, w) in [0, 1]; edges whose variance is well above eps are followed. Enlarged
    bilinearly, a and b filter a larger picture of the same (He and Sun, 2015: fast guided filter).
    """
    mean, level = _box(guide, radius), _box(values, radius)
    names = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    rows, columns = (list(part) for part in zip(*names, strict=True))
    upper = _box(guide[:, rows] * guide[:, columns], radius) - mean[:, rows] * mean[:, columns]
    rr, rg, rb, gg, gb, bb = upper[0]
    rr, gg, bb = rr + eps, gg + eps, bb + eps
    # The inverse of the symmetric matrix, by its cofactors.
    cofactors = [
        gg * bb - gb * gb, rb * gb - rg * bb, rg * gb - rb * gg,
        rr * bb - rb * rb, rb * rg - rr * gb, rr * gg - rg * rg,
    ]  # fmt: skip
    determinant = rr * cofactors[0] + rg * cofactors[1] + rb * cofactors[2]
    shared = (_box(guide * values, radius) - mean * level)[0]
    order = ((0, 1, 2), (1, 3, 4), (2, 4, 5))
    a = torch.stack([
        sum(cofactors[k] * s for k, s in zip(row, shared, strict=True)) / determinant  # type: ignore[misc]
        for row in order
    ])[None]  # fmt: skip
    b = level - (a * mean).sum(1, keepdim=True)
    return _box(a, radius), _box(b, radius)


def blur(values: Tensor, sigma: float) -> Tensor:
    """Gaussian average, the border repeated beyond itself; a wide one is found on smaller maps."""
    factor = int(sigma / 2.5)
    if factor > 1 and min(values.shape[2:]) >= 4 * factor:
        size = [math.ceil(edge / factor) for edge in values.shape[2:]]
        small = blur(interpolate(values, size, mode="area"), sigma / factor)
        return interpolate(small, values.shape[2:], mode="bilinear", align_corners=False)
    reach = max(1, math.ceil(2.5 * sigma))
    places = torch.arange(-reach, reach + 1, dtype=values.dtype, device=values.device)
    weights = torch.exp(-0.5 * (places / max(sigma, 1e-3)) ** 2)
    weights = weights / weights.sum()
    channels = values.movedim(1, 0)  # every channel as a picture of its own
    channels = conv2d(pad(channels, (reach, reach, 0, 0), "replicate"), weights[None, None, None])
    channels = conv2d(
        pad(channels, (0, 0, reach, reach), "replicate"), weights[None, None, :, None]
    )
    return channels.movedim(0, 1)


def spread(values: Tensor, weights: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """`values` (1, C, h, w) smoothed where weights (1, 1, h, w) see them, and carried on elsewhere.

    The sigmas go from wide to narrow: a narrow average counts as far as it sees weights; the widest
    of all is the mean of the picture. Zero where nothing has weight.
    """
    total = weights.sum()
    if float(total) == 0:
        return torch.zeros_like(values)
    found = ((values * weights).sum((2, 3), keepdim=True) / total).expand_as(values)
    for sigma in sigmas:
        seen = blur(weights, sigma)
        near = blur(values * weights, sigma) / seen.clamp(min=1e-6)
        trust = seen / (seen + 0.05)
        found = trust * near + (1 - trust) * found
    return found


def _box(values: Tensor, radius: int) -> Tensor:
    """Mean of a square of 2 radius + 1 pixels, of those of them that the picture has."""
    size = 2 * radius + 1
    rows = avg_pool2d(values, (size, 1), 1, (radius, 0), count_include_pad=False)
    return avg_pool2d(rows, (1, size), 1, (0, radius), count_include_pad=False)
