"""The network that reads the classes of a photograph's crop, guided by the face's mesh.

It sees the crop with 9 guides: how likely each pixel shows a person, and what the mesh says
(`mesh_parts.MeshParts.guides`). It was trained on public-domain portraits and procedural faces.
"""

import json
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import (
    interpolate,
    max_pool2d,
    pixel_shuffle,
    pixel_unshuffle,
    relu,
    softmax,
)

from ..data.align import Window
from ..model.labels import FLIP_IDS, NUM_CLASSES
from .faces import MODELS, Square, network_of, tensor_of
from .mesh_parts import MeshParts

WIDTHS = (32, 48, 64, 96, 128)  # channels, each level at half the resolution of the one before
INPUTS = 3 + 1 + 8  # colours, person, guides of the mesh
SIZE = 128  # pixels along an edge of the crop
MARGIN = 1.15  # side of the crop in sides of the aligned one
PERSON_MARGIN = 1.6  # the same of what the network for persons sees
ACROSS = 4 + 6  # the channel that changes sign in a mirror


class PhotoNetwork(nn.Module):
    """(B, 12, R, R) in [-1, 1] -> class scores (B, 19, R, R); 32 divides R."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        inputs = (4 * INPUTS, *widths[:-1])
        self.down = nn.ModuleList(_level(a, b) for a, b in zip(inputs, widths, strict=True))
        reverse = widths[::-1]
        self.up = nn.ModuleList(
            _level(a + b, b) for a, b in zip(reverse, reverse[1:], strict=False)
        )
        self.last = nn.Conv2d(widths[0], 4 * NUM_CLASSES, 1)

    def forward(self, given: Tensor) -> Tensor:
        h, kept = pixel_unshuffle(given, 2), []
        for index, level in enumerate(self.down):
            h = level(max_pool2d(h, 2) if index else h)
            kept.append(h)
        for level, skip in zip(self.up, kept[-2::-1], strict=True):
            h = level(torch.cat([interpolate(h, scale_factor=2, mode="nearest"), skip], 1))
        return pixel_shuffle(self.last(h), 2)


class _Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weights = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, h: Tensor) -> Tensor:
        return relu(self.norm(self.weights(h)))


def _level(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(_Convolution(inputs, outputs), _Convolution(outputs, outputs))


@cache
def photo_network() -> PhotoNetwork:
    """The network that ships."""
    return load_photo_network(MODELS / "photo_parser.safetensors")


def load_photo_network(path: Path) -> PhotoNetwork:
    """A network in evaluation mode, on the CPU."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["semfaceedit"])
    network = PhotoNetwork(tuple(header["widths"]))
    network.load_state_dict({name: t.float() for name, t in load_file(path).items()}, strict=False)
    return network.eval().requires_grad_(False)


def frame_of(window: Window) -> Square:
    """The square that the network sees, for a face's aligned crop."""
    middle = (window.left + window.side / 2, window.top + window.side / 2)
    return Square(*middle, MARGIN * window.side, 0.0)


def network_input(image: Image.Image, points: np.ndarray, frame: Square) -> Tensor:
    """What the network sees of a photograph, (12, 128, 128) in [-1, 1].

    points: the mesh, in pixels of the photograph.
    """
    corner = (frame.x - frame.side / 2, frame.y - frame.side / 2)
    parts = MeshParts(points).scaled(corner, SIZE / frame.side)
    colours = tensor_of(frame.cut_repeating(image, (SIZE, SIZE)))[0]
    person = torch.from_numpy(person_share(image, frame).copy())[None]
    guides = torch.from_numpy(parts.guides(SIZE))
    return 2 * torch.cat([colours, person, guides]) - 1


@torch.no_grad()
def person_share(image: Image.Image, frame: Square) -> np.ndarray:
    """(128, 128) float32 in [0, 1]: how likely each pixel of the frame shows a person."""
    network = network_of("person")
    factor = PERSON_MARGIN / MARGIN
    wide = Square(frame.x, frame.y, factor * frame.side, frame.turn)
    share = network(tensor_of(wide.cut(image, network.size)))[0][0, 0].numpy()
    edge = network.size[0]
    start = edge * (1 - 1 / factor) / 2
    box = (start, start, edge - start, edge - start)
    return np.asarray(Image.fromarray(share).resize((SIZE, SIZE), Image.Resampling.BILINEAR, box))


@torch.no_grad()
def class_probabilities(given: Tensor, network: PhotoNetwork | None = None) -> Tensor:
    """Probabilities (19, 128, 128) of a crop: the mean of what it and its mirror image show."""
    network = network or photo_network()
    mirrored = given.flip(-1).clone()
    mirrored[ACROSS] *= -1
    both = torch.stack([given, mirrored]).contiguous(memory_format=torch.channels_last)
    plain, other = softmax(network(both), 1)
    return (plain + other.flip(-1)[torch.from_numpy(FLIP_IDS)]) / 2
