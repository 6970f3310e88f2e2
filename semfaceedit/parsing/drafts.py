"""Draft label maps of portraits, from the mesh, the person's outline and colours alone.

They are what the photograph's network was trained on first. Each crop has four kinds of region:
hair, skin, cloth and background. Where they usually lie about a face is the prior; mixtures of
Gaussians learn their colours from that, twice again from what they found; and labels spread over
pixels of one colour (a random walk with priors: Grady, 2005).
"""

import numpy as np

from ..model.labels import CLASS_NAMES
from .colours import lightness_and_hue, likelihood, quadratic_terms, walk
from .mesh_parts import OVAL, SIDES, MeshParts, coverage

HAIR, SKIN, CLOTH, BACKGROUND = range(4)
CLASSES = ("hair", "skin", "cloth", "background")
ROUNDS = 3
COLOUR_WEIGHT = 0.6  # of a colour's likelihood against the place's
WALKS, LAST_WALK = 15, 50  # iterations


def draft_map(
    image: np.ndarray,  # (N, N, 3) uint8, the crop
    parts: MeshParts,  # in pixels of the crop
    person: np.ndarray,  # (N, N) in [0, 1]
    inside: np.ndarray,  # (N, N) bool: within the photograph
) -> np.ndarray:
    """(N, N) uint8 class ids, with the mesh's parts."""
    regions, shape = _regions(image, parts, person, inside)
    kinds = regions.argmax(0)
    labels = np.array([CLASS_NAMES.index(name) for name in CLASSES], np.uint8)[kinds]
    outer = (kinds == SKIN) & (shape.oval < 0.5)
    labels[outer & (shape.down > 0.75)] = CLASS_NAMES.index("neck")
    ears = outer & (shape.down > -0.2) & (shape.down <= 0.75)
    labels[ears & (shape.across < 0)] = CLASS_NAMES.index("r_ear")
    labels[ears & (shape.across > 0)] = CLASS_NAMES.index("l_ear")
    return parts.painted(labels)


class _Shape:
    """Where each pixel is about the face: `mesh_parts.MeshParts.places` and the oval."""

    def __init__(self, parts: MeshParts, size: int) -> None:
        self.across, self.down = parts.places(size)
        self.oval = coverage(parts.at(OVAL), (size, size))
        right, left = parts.eyes
        unit = np.linalg.norm(parts.points[152, :2] - (right + left) / 2)
        along = (left - right) / np.linalg.norm(left - right)
        first, last = parts.at(SIDES)
        self.aside = np.abs(self.across) / max(abs((last - first) @ along) / 2 / unit, 0.4)
        self.collar = 1.08 - 0.18 * np.clip(self.aside - 0.7, 0, 1.2)  # above it cloth is rare


def _priors(shape: _Shape, person: np.ndarray) -> np.ndarray:
    """(4, N, N): how likely each kind is at a place, before any colour is seen."""
    across, down, aside, oval = shape.across, shape.down, shape.aside, shape.oval
    brow = np.exp(-np.maximum(0, -down - 0.6) / 0.12)
    forehead = 0.7 * brow * _step((1.0 - aside) / 0.12) * _step((-0.25 - down) / 0.05)
    ear = _step((1.35 - aside) / 0.06) * _step((down + 0.15) / 0.06) * _step((0.75 - down) / 0.06)
    neck = _step((0.85 - aside) / 0.12) * _step((down - 0.8) / 0.06)
    neck = 0.9 * neck * np.exp(-np.maximum(0, down - 1.15) / 0.25)
    skin = np.clip(0.06 + forehead + 0.45 * ear + neck, 0, 0.97)
    line = 1.12 - 0.22 * np.clip(aside - 0.7, 0, 1.2)
    cloth = 0.6 * _step((down - line) / 0.05) + 0.3 * _step((down - line - 0.3) / 0.08)
    hair = 0.9 * (1 - 0.75 * _step((down - 1.25) / 0.12)) * (1 - neck)
    hair = hair * np.exp(-np.maximum(0, aside - 1.9) / 0.4) + 0.03
    outside = np.stack([hair * (1 - forehead), skin, np.clip(cloth * (1 - 0.8 * neck), 0.004, 1)])
    outside /= outside.sum(0)
    high = down < -0.3
    within = np.stack([np.where(high, 0.25, 0.04), np.where(high, 0.75, 0.96), 0.002 + 0 * across])
    kinds = outside * (1 - oval) + within * oval
    share = np.maximum(np.clip(person, 0.02, 0.98), 0.995 * oval)
    made = np.maximum(np.concatenate([kinds * share, (1 - share)[None]]), 1e-4)
    return made / made.sum(0)


def _regions(
    image: np.ndarray, parts: MeshParts, person: np.ndarray, inside: np.ndarray
) -> tuple[np.ndarray, _Shape]:
    """(4, N, N) shares of the kinds."""
    size = len(image)
    shape = _Shape(parts, size)
    usual = prior = _priors(shape, person)
    colours = lightness_and_hue(image)
    terms = quadratic_terms(colours)
    random = np.random.default_rng(0)
    weights = usual.copy()
    weights[HAIR] *= _step((0.75 - shape.down) / 0.06)  # colours of hair are learned on the head
    weights[CLOTH] *= _step((shape.down - shape.collar) / 0.06)
    low = _step((shape.down - shape.collar) / 0.06)
    for turn in range(ROUNDS):
        chosen = (weights**2 * inside).reshape(4, -1)
        likelihoods = np.stack([likelihood(colours, terms, row, random) for row in chosen])
        likelihoods = np.maximum(likelihoods, likelihoods.max(0) - 8).reshape(4, size, size)
        made = np.log(prior) + COLOUR_WEIGHT * likelihoods
        made = np.exp(made - made.max(0))
        walked = walk(made / made.sum(0), colours, WALKS if turn < ROUNDS - 1 else LAST_WALK)
        regions = walked / walked.sum(0)
        prior = _with_short_hair(usual, regions, shape, inside)
        weights = regions.copy()
        weights[HAIR] *= 1 - 0.7 * low
    return regions, shape


def _with_short_hair(
    usual: np.ndarray, regions: np.ndarray, shape: _Shape, inside: np.ndarray
) -> np.ndarray:
    """Where no hair falls beside the jaw, what is below it is cloth, however dark."""
    made = usual.copy()
    across, down, aside = shape.across, shape.down, shape.aside
    beside = (aside > 1.08) & (aside < 1.7) & (down > 0.5) & (down < 0.8) & inside
    low = _step((down - shape.collar) / 0.06)
    shoulder = _step((down - 1.0 + 0.2 * np.clip(aside - 0.7, 0, 0.8)) / 0.04)
    for side in (-1, 1):
        seen = beside & (side * across > 0)
        share = float(regions[HAIR][seen].mean()) if seen.sum() > 5 else 0.5
        long = np.clip((share - 0.25) / 0.4, 0, 1)
        half = _step(side * across / 0.05)
        jaw = half * _step((down - 0.78) / 0.04) * _step((aside - 0.6) / 0.08)
        made[HAIR] *= 1 - jaw * (0.985 - 0.985 * long)
        made[CLOTH] += half * (1 - long) * shoulder * 0.5 * (made[HAIR] + 0.3 * made[SKIN])
        made[CLOTH] *= 1 + half * low * (1 - 0.6 * long)
    return made / made.sum(0)


def _step(values: np.ndarray) -> np.ndarray:
    """A soft step from 0 to 1."""
    return 1 / (1 + np.exp(-np.clip(values, -30, 30)))
