"""A small network that reads label maps off pictures, trained here on the data set itself.

It judges whether a generated picture shows what its semantic map says. One picture in eight is held
out of its training, and its score on those bounds what agreement can be expected.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, max_pool2d

from ..augment import Augmentation
from ..checkpoint import write_atomically
from ..cli import progress
from ..data import FaceDataset, sample_order
from ..labels import NUM_CLASSES
from ..seeds import mixed_seed
from ..segmentation_metrics import SegmentationScore, confusion, score_of
from .pictures import labelled
from .session import Unmeasured

WIDTHS = (16, 32, 48, 64)  # channels, each level at half the resolution of the one before
HELD_OUT_EVERY = 8  # every eighth picture is for testing
LEAST = 32  # pictures
BATCH = 16
RATE = 2e-3
AUGMENT = 0.5  # probability of each augmentation
VERSION = 1  # changes when the same seed gives another network


class Parser(nn.Module):
    """Pictures (B, 3, R, R) in [-1, 1] -> class scores (B, 19, R, R)."""

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *WIDTHS[:-1])
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(inputs, WIDTHS, strict=True))
        reverse = WIDTHS[::-1]
        self.up = nn.ModuleList(
            _block(a + b, b) for a, b in zip(reverse, reverse[1:], strict=False)
        )
        self.last = nn.Conv2d(WIDTHS[0], NUM_CLASSES, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        h, kept = pictures, []
        for index, block in enumerate(self.down):
            h = block(max_pool2d(h, 2, ceil_mode=True) if index else h)
            kept.append(h)
        for block, skip in zip(self.up, kept[-2::-1], strict=True):
            larger = interpolate(h, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            h = block(torch.cat([larger, skip], 1))
        return self.last(h)

    @torch.no_grad()
    def labels(self, pictures: Tensor) -> Tensor:  # (B, 3, R, R) -> (B, R, R) int64, on the CPU
        device = next(self.parameters()).device
        return self(pictures.to(device)).argmax(1).cpu()


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(8, outputs),
        nn.ReLU(),
    )


def split(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of pictures for training and of held-out ones."""
    everything = np.arange(count)
    held_out = everything % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return everything[~held_out], everything[held_out]


def train_parser(
    data: FaceDataset, resolution: int, steps: int, seed: int, device: torch.device
) -> Parser:
    """Adam on cross entropy, the rate falling to 0."""
    chosen, _ = split(len(data))
    if len(data) < LEAST:
        raise Unmeasured(
            f"{len(data)} pictures are too few to train the segmentation network: at least {LEAST}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parser = Parser().to(device)
    optimizer = torch.optim.Adam(parser.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in progress(range(steps), total=steps, title="training the segmentation network"):
        indices, flips = sample_order(seed, np.ones(len(chosen)), step * BATCH, BATCH)
        images, labels = labelled(data, chosen[indices], flips, resolution)
        random = torch.Generator().manual_seed(mixed_seed(seed, step))
        change = Augmentation.draw(
            BATCH, AUGMENT, random, device=torch.device("cpu"), dtype=torch.float32
        )
        pictures = change.image(images).to(device)
        target = change.semantics(labels[:, None])[:, 0].long().to(device)
        optimizer.zero_grad(set_to_none=True)
        cross_entropy(parser(pictures), target).backward()
        optimizer.step()
        schedule.step()
    return parser.eval().requires_grad_(False)


def saved_parser(
    path: Path,
    data: FaceDataset,
    resolution: int,
    steps: int,
    seed: int,
    device: torch.device,
) -> Parser:
    """The network in that file, else a newly trained one that is written there."""
    if path.is_file():
        parser = Parser().to(device)
        parser.load_state_dict(load_file(path))
        return parser.eval().requires_grad_(False)
    parser = train_parser(data, resolution, steps, seed, device)
    path.parent.mkdir(parents=True, exist_ok=True)
    weights: dict[str, Any] = {name: t.contiguous() for name, t in parser.state_dict().items()}
    write_atomically(path, lambda temporary: save_file(weights, temporary))
    return parser


def held_out_score(
    parser: Parser, data: FaceDataset, resolution: int, group_of_class: tuple[int, ...]
) -> tuple[SegmentationScore, int]:
    """The score over the pictures that training did not see, and how many they are."""
    _, held_out = split(len(data))
    joint = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    for part in np.array_split(held_out, -(-len(held_out) // BATCH)):
        images, labels = labelled(data, part, np.zeros(len(part), bool), resolution)
        joint += confusion(parser.labels(images), labels)
    return score_of(joint, group_of_class), len(held_out)
