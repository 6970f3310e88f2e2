"""Label maps that show several people: the largest face, without the parts of the others."""

import numpy as np

from ..model.labels import CLASS_NAMES
from .pose import FACE, MOUTH, NOSE

PIECES_SIZE = 256  # pixels along the longer edge of the map in which pieces are sought
LEAST_NOSE = 0.15  # of the largest nose's area, below which a piece is a speck
APART = 2.0  # noses' mean heights, between the middles of two noses


def face_centres(labels: np.ndarray) -> np.ndarray:
    """(M, 2) x and y, in pixels, of the nose of each face that a map (H, W) shows, the largest
    face first.

    A face has a nose, and a mouth nearer to it than to any other.
    """
    step = max(1, -(-max(labels.shape) // PIECES_SIZE))
    small = labels[step // 2 :: step, step // 2 :: step]
    noses = _merged(_pieces(small == NOSE))
    if len(noses) < 2:
        return np.array([nose.mean(0) for nose in noses]).reshape(-1, 2) * step
    centres = np.array([nose.mean(0) for nose in noses])
    mouths = nearest(np.isin(small, MOUTH), centres)
    areas = np.bincount(nearest(np.isin(small, FACE), centres), minlength=len(centres))
    shown = [i for i in np.argsort(-areas) if (mouths == i).sum() >= 4]
    return centres[shown] * step


def largest_face(labels: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The map with background in the place of what is nearer to another face than to the first."""
    y, x = np.indices(labels.shape)
    places = np.stack([x, y], -1).reshape(-1, 2) + 0.5
    own = _nearest_centre(places, centres).reshape(labels.shape) == 0
    return np.where(own, labels, CLASS_NAMES.index("background")).astype(np.uint8)


def nearest(mask: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Which centre each set pixel is nearest to."""
    y, x = np.nonzero(mask)
    return _nearest_centre(np.stack([x, y], 1) + 0.5, centres)


def _nearest_centre(places: np.ndarray, centres: np.ndarray) -> np.ndarray:
    distances = [((places - centre) ** 2).sum(1) for centre in centres]
    return np.argmin(distances, 0)


def _pieces(mask: np.ndarray) -> list[np.ndarray]:
    """Connected pieces, the largest first: (m, 2) x and y of the pixels' middles of each."""
    y, x = np.nonzero(mask)
    label = np.full(mask.shape, mask.size, np.int64)
    label[y, x] = np.arange(len(x))
    while True:  # the least number spreads over each piece, doubling its way along runs
        padded = np.pad(label, 1, constant_values=mask.size)
        around = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
        lowest = np.minimum.reduce([label, *around])[y, x]
        lowest = lowest[lowest]
        if (lowest == label[y, x]).all():
            break
        label[y, x] = lowest
    numbers = label[y, x]
    pieces = [np.stack([x, y], 1)[numbers == n] + 0.5 for n in np.unique(numbers)]
    return sorted(pieces, key=len, reverse=True)


def _merged(noses: list[np.ndarray]) -> list[np.ndarray]:
    """Noses of different faces: specks are left out, and pieces of one nose are put together."""
    kept: list[np.ndarray] = []
    for piece in noses:
        if len(piece) < max(4, LEAST_NOSE * len(noses[0])):
            break
        for index, other in enumerate(kept):
            reach = APART * max(np.ptp(other[:, 1]), np.ptp(other[:, 0]), 1)
            if np.linalg.norm(piece.mean(0) - other.mean(0)) < reach:
                kept[index] = np.concatenate([other, piece])
                break
        else:
            kept.append(piece)
    return kept
