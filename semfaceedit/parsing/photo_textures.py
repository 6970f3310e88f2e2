"""What is painted on crops: clouds and metal, smooth curves, and soft borders."""

import numpy as np
from PIL import Image

Random = np.random.Generator


def soft(where: np.ndarray) -> np.ndarray:
    """A mask (N, N) with borders two pixels wide, float32 in [0, 1]."""
    half = tuple(edge // 2 for edge in where.shape[::-1])
    small = Image.fromarray(where.astype(np.uint8) * 255).resize(half, Image.Resampling.BOX)
    return np.asarray(small.resize(where.shape[::-1], Image.Resampling.BILINEAR), np.float32) / 255


def clouds(size: int, random: Random) -> np.ndarray:
    """(size, size, 3) float32: blurred colours at several scales."""
    made = np.zeros((80, 80, 3), np.float32)
    for cells in (2, 4, 8, 16, 40):
        rough = random.normal(size=(3, cells, cells)).astype(np.float32)
        rough *= np.float32(random.uniform(0, 1) * (3 / cells) ** 0.5)
        layers = [Image.fromarray(c).resize((80, 80), Image.Resampling.BILINEAR) for c in rough]
        made += np.stack([np.asarray(layer) for layer in layers], -1)
    made = made / made.std() * random.uniform(10, 70) + random.uniform(0, 255, 3)
    grey = made.mean(-1, keepdims=True)
    made = (grey + (made - grey) * random.uniform(0, 1.2)).clip(0, 255).astype(np.uint8)
    scaled = Image.fromarray(made).resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(scaled, np.float32)


def waves(places: np.ndarray, random: Random) -> np.ndarray:
    """A smooth random curve over places."""
    made = np.zeros_like(places)
    for order in (1, 2, 3):
        steep, start = order * random.uniform(1.5, 4), random.uniform(0, 6)
        made += random.normal() * 0.5 / order * np.sin(places * steep + start)
    return made


def metal(size: int, random: Random) -> np.ndarray:
    """(size, size, 3): silver to gold, speckled."""
    colour = random.uniform(110, 255) * np.array(
        [1, random.uniform(0.75, 1), random.uniform(0.4, 1)]
    )
    return colour + random.normal(0, 32, (size, size, 1))
