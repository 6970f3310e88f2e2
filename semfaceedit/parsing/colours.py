"""What the colours of one photograph say of its regions.

Mixtures of Gaussians learn the colours of each kind of region from where it probably is, and labels
spread over pixels of one colour (a random walk with priors: Grady, 2005).
"""

import numpy as np
import torch
from torch import Tensor

from .mesh_parts import ID

COMPONENTS, SAMPLES = 4, 2500  # of a mixture, and the pixels it is fitted to
STIFFNESS, PULL = 60.0, 0.25  # of the random walk: colour differences, and the prior
OFFSETS = ((0, 1), (1, 0), (1, 1), (1, -1))
COLOUR_WEIGHT, WALK = 0.8, 30  # of what a network says, sharpened by colours
FURTHEST = 8.0  # of log-likelihoods, below the best
KINDS = (
    [ID[name] for name in ("hair", "hat", "ear_r")],
    [ID["cloth"]],
    [ID["background"]],
)


def sharpened(shares: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Class shares (19, N, N) of a crop, brought in line with its colours (N, N, 3) uint8.

    Hair, cloth, background and all that is skin take each other's pixels; within these the shares
    keep their ratios.
    """
    size = len(image)
    skin = [index for index in range(len(shares)) if all(index not in kind for kind in KINDS)]
    kinds = (*KINDS, skin)
    prior = np.stack([shares[kind].sum(0) for kind in kinds])
    colours = lightness_and_hue(image)
    terms, random = quadratic_terms(colours), np.random.default_rng(0)
    said = np.stack([likelihood(colours, terms, kind.reshape(-1) ** 2, random) for kind in prior])
    said = np.maximum(said, said.max(0) - FURTHEST).reshape(-1, size, size)
    made = np.log(prior + 1e-3) + COLOUR_WEIGHT * said
    made = np.exp(made - made.max(0))
    walked = walk(made / made.sum(0), colours, WALK)
    walked /= walked.sum(0)
    found = np.empty_like(shares)
    for kind, new, old in zip(kinds, walked, prior, strict=True):
        found[kind] = shares[kind] * (new / (old + 1e-6))
    return found


def lightness_and_hue(image: np.ndarray) -> np.ndarray:
    """(N, N, 3) uint8 sRGB -> (N * N, 3): CIE L, a and b, in hundreds; a and b half as large again.

    Their mean is 0.
    """
    light = image / 255
    light = np.where(light > 0.04045, ((light + 0.055) / 1.055) ** 2.4, light / 12.92)
    matrix = np.array(
        [(0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505)]
    )
    x, y, z = np.moveaxis(np.cbrt(light @ matrix.T / (0.9505, 1, 1.089) + 1e-4), -1, 0)
    found = np.stack([1.16 * y - 0.16, 7.5 * (x - y), 3 * (y - z)], -1).reshape(-1, 3)
    return found - found.mean(0)


def quadratic_terms(colours: np.ndarray) -> np.ndarray:
    """(M, 10): the terms of a quadratic form of (M, 3)."""
    a, b, c = colours.T
    return np.stack([a * a, b * b, c * c, a * b, a * c, b * c, a, b, c, np.ones_like(a)], 1)


def likelihood(
    colours: np.ndarray, terms: np.ndarray, weights: np.ndarray, random: np.random.Generator
) -> np.ndarray:
    """(M,) log-likelihood of colours in a mixture of Gaussians fitted where weights are large."""
    if weights.sum() < 20:
        return np.full(len(colours), -4.0)
    picked = random.choice(len(colours), min(SAMPLES, len(colours)), p=weights / weights.sum())
    known, squares = colours[picked], terms[picked]
    means = known[random.choice(len(known), COMPONENTS)]
    spreads = np.tile(np.cov(known.T) + 1e-4 * np.eye(3), (COMPONENTS, 1, 1))
    shares = np.full(COMPONENTS, 1 / COMPONENTS)
    for _ in range(5):
        logs = squares @ _coefficients(shares, means, spreads)
        owned = np.exp(logs - logs.max(1, keepdims=True))
        owned /= owned.sum(1, keepdims=True)
        totals = owned.sum(0) + 1e-3
        means = owned.T @ known / totals[:, None]
        moments = owned.T @ squares[:, :6] / totals[:, None]
        second = moments[:, [0, 3, 4, 3, 1, 5, 4, 5, 2]].reshape(-1, 3, 3)
        spreads = second - means[:, :, None] * means[:, None] + 6e-4 * np.eye(3)
        shares = totals / totals.sum()
    logs = terms @ _coefficients(shares, means, spreads)
    largest = logs.max(1)
    return largest + np.log(np.exp(logs - largest[:, None]).sum(1))


def _coefficients(shares: np.ndarray, means: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    """(10, K): weighted log-densities of Gaussians as quadratic forms."""
    p = np.linalg.inv(spreads)
    h = (p @ means[:, :, None])[:, :, 0]
    constant = -0.5 * (means * h).sum(1) - 0.5 * np.linalg.slogdet(spreads)[1]
    constant += np.log(shares + 1e-9) - 1.5 * np.log(2 * np.pi)
    squares = [-0.5 * p[:, i, i] for i in range(3)]
    return np.stack([*squares, -p[:, 0, 1], -p[:, 0, 2], -p[:, 1, 2], *h.T, constant])


def walk(shares: np.ndarray, colours: np.ndarray, iterations: int) -> np.ndarray:
    """Shares (K, N, N) spread over neighbours of like colours, by Jacobi iterations."""
    size = shares.shape[-1]
    picture = torch.from_numpy(colours.reshape(size, size, 3)).movedim(-1, 0).float()
    given = torch.from_numpy(shares).float()
    links: list[tuple[tuple[slice, slice], tuple[slice, slice], Tensor]] = []
    total = torch.full((size, size), PULL)
    for down, right in OFFSETS:
        here = (slice(0, size - down), slice(max(0, -right), size - max(0, right)))
        there = (slice(down, size), slice(max(0, right), size - max(0, -right)))
        apart = (picture[:, *here] - picture[:, *there]).square().sum(0)
        weight = (-STIFFNESS * apart).exp() / np.hypot(down, right) + 1e-3
        total[here] += weight
        total[there] += weight
        links.append((here, there, weight))
    found = given
    for _ in range(iterations):
        summed = PULL * given
        for here, there, weight in links:
            summed[:, *here].addcmul_(weight, found[:, *there])
            summed[:, *there].addcmul_(weight, found[:, *here])
        found = summed / total
    return found.numpy()
