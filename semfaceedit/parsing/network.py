"""A small network that reads label maps off pictures, trained here on pairs.

`train-parser` trains one for `parse` and `invert`, which read the label map of a photograph that
has none; `evaluate` trains one to judge whether a generated picture shows what its map says. One
picture in eight is held out of its training, and its score on those says what can be expected.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, interpolate, max_pool2d

from .. import __version__
from ..cli import progress
from ..data.dataset import FaceDataset, sample_order
from ..data.seeds import mixed_seed
from ..errors import UserError
from ..files import check_regular
from ..metrics.segmentation import SegmentationScore, confusion, score_of
from ..model.labels import NUM_CLASSES
from ..tensor_files import is_unchanged, reason_of, write_tensors
from ..threads import FairThreads
from ..training.augment import Augmentation
from .training_state import TrainingState

FORMAT, FORMAT_VERSION = "semfaceedit-parser", 1
WIDTHS = (16, 32, 48, 64)  # channels, each level at half the resolution of the one before
HELD_OUT_EVERY = 8  # every eighth picture is for testing
LEAST = 32  # pictures
BATCH = 16
RATE = 2e-3
AUGMENT = 0.5  # probability of each augmentation
KEEP_EVERY = 100  # steps between states on the disk
VERSION = 1  # changes when the same settings give another network
MOST_WEIGHT = 20.0  # of a class
OUTSIDE = 255  # the label of what lies outside a warped picture: it does not count

MAX_ZOOM = 1.5  # of a warp, and its inverse
MAX_TURN = 0.26  # radians
MAX_MOVE = 0.15  # of the picture's width


@dataclass(frozen=True)
class ParserSettings:
    """How a network is made and trained.

    Example: ParserSettings(resolution=128, steps=3000, widths=(16, 32, 64, 96, 128), warp=True,
    balance=True)
    """

    resolution: int  # pixels along an edge
    steps: int
    seed: int = 0
    widths: tuple[int, ...] = WIDTHS
    warp: bool = False  # zoom, turn and move pictures: for photographs that are not aligned yet
    balance: bool = False  # errors of small classes count more, so that eyes and lips come early


class Parser(nn.Module):
    """Pictures (B, 3, R, R) in [-1, 1] -> class scores (B, 19, R, R)."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        inputs = (3, *widths[:-1])
        self.down = nn.ModuleList(_block(a, b) for a, b in zip(inputs, widths, strict=True))
        reverse = widths[::-1]
        self.up = nn.ModuleList(
            _block(a + b, b) for a, b in zip(reverse, reverse[1:], strict=False)
        )
        self.last = nn.Conv2d(widths[0], NUM_CLASSES, 1)

    def forward(self, pictures: Tensor) -> Tensor:
        kept = self._levels(pictures)
        h = kept[-1]
        for block, skip in zip(self.up, kept[-2::-1], strict=True):
            larger = interpolate(h, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            h = block(torch.cat([larger, skip], 1))
        return self.last(h)

    @torch.no_grad()
    def features(self, pictures: Tensor) -> Tensor:  # (B, C, R / 8, R / 8), deepest activations
        return self._levels(pictures)[-1]

    def _levels(self, pictures: Tensor) -> list[Tensor]:
        """Activations of each level on the way down."""
        h, kept = pictures, []
        for index, block in enumerate(self.down):
            h = block(max_pool2d(h, 2, ceil_mode=True) if index else h)
            kept.append(h)
        return kept

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
    data: FaceDataset, settings: ParserSettings, device: torch.device, *, keep: Path | None = None
) -> Parser:
    """Adam on cross entropy, the rate falling to 0.

    keep: a file for the state of training every 100 steps; a training of the same data and settings
    goes on from it, to the same network. UserError for fewer than 32 pictures.
    """
    chosen, _ = split(len(data))
    if len(data) < LEAST:
        raise UserError(f"{len(data)} pictures are too few to train a parser: at least {LEAST}")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        parser = Parser(settings.widths).to(device)
    optimizer = torch.optim.Adam(parser.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    training = TrainingState({"parser": parser}, optimizer, schedule)
    key = json.dumps([VERSION, asdict(settings), data.info["sha256"]], sort_keys=True)
    weight = class_weights(data, chosen).to(device) if settings.balance else None
    first = 0 if keep is None else training.restore(keep, key)
    title = "training the parser"
    left = range(first, settings.steps)
    for step in FairThreads().over(progress(left, total=len(left), title=title)):
        images, labels = _batch(data, chosen, settings, step)
        optimizer.zero_grad(set_to_none=True)
        scores = parser(images.to(device))
        loss = cross_entropy(scores, labels.to(device), weight, ignore_index=OUTSIDE)
        loss.backward()
        optimizer.step()
        schedule.step()
        if keep is not None and (step + 1) % KEEP_EVERY == 0:
            training.save(keep, key, step + 1)
    return parser.eval().requires_grad_(False)


def class_weights(data: FaceDataset, chosen: np.ndarray) -> Tensor:
    """(19,) what an error counts: less the larger a class is, by the root of its share of pixels.

    Of at most 500 maps; the largest class counts 1, none more than 20.
    """
    counts = np.zeros(NUM_CLASSES)
    for labels in data.labels[chosen[:: max(1, len(chosen) // 500)]]:
        counts += np.bincount(labels.reshape(-1), minlength=NUM_CLASSES)
    weights = np.sqrt(counts.max() / counts.clip(1))
    return torch.from_numpy(weights.clip(max=MOST_WEIGHT)).float()


def _batch(
    data: FaceDataset, chosen: np.ndarray, settings: ParserSettings, step: int
) -> tuple[Tensor, Tensor]:
    """Augmented pictures (16, 3, R, R) and labels (16, R, R) int64 of a step."""
    seed = settings.seed
    indices, flips = sample_order(seed, np.ones(len(chosen)), step * BATCH, BATCH)
    images, labels = data.labelled(chosen[indices], flips, settings.resolution)
    random = torch.Generator().manual_seed(mixed_seed(seed, step))
    change = Augmentation.draw(
        BATCH, AUGMENT, random, device=torch.device("cpu"), dtype=torch.float32
    )
    images, labels = change.image(images), change.semantics(labels[:, None])[:, 0].long()
    return warped(images, labels, random) if settings.warp else (images, labels)


def warped(
    images: Tensor,  # (B, 3, R, R)
    labels: Tensor,  # (B, R, R) int64
    random: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Both zoomed, turned and moved alike; outside the picture labels are 255, images mirrored."""
    count = len(images)
    zoom, turn, x, y = (2 * torch.rand(count, 4, generator=random) - 1).unbind(1)
    zoom, turn = torch.exp(math.log(MAX_ZOOM) * zoom), MAX_TURN * turn
    cosine, sine = zoom * turn.cos(), zoom * turn.sin()
    rows = torch.stack([cosine, -sine, 2 * MAX_MOVE * x, sine, cosine, 2 * MAX_MOVE * y], 1)
    grid = affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    shown = grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    # labels from 1 up, so that the 0 outside is told from a class
    places = grid_sample(1.0 + labels[:, None], grid, mode="nearest", align_corners=False)
    moved = places[:, 0].round().long() - 1
    return shown, torch.where(moved < 0, OUTSIDE, moved)


def saved_parser(
    path: Path, data: FaceDataset, settings: ParserSettings, device: torch.device
) -> Parser:
    """The network in that file, else a newly trained one that is written there."""
    if path.is_file():
        try:
            return load_parser(path, device)[0]
        except UserError:  # damaged: another one takes its place
            pass
    path.parent.mkdir(parents=True, exist_ok=True)
    keep = path.with_suffix(".training.safetensors")
    parser = train_parser(data, settings, device, keep=keep)
    save_parser(path, parser, settings, {})
    keep.unlink(missing_ok=True)
    return parser


def save_parser(
    path: Path, parser: Parser, settings: ParserSettings, facts: Mapping[str, Any]
) -> None:
    """Write a network; its header carries its settings and `facts`."""
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "software": __version__,
        "settings": asdict(settings),
        **facts,
    }
    write_tensors(path, parser.state_dict(), header)


def load_parser(path: Path, device: torch.device) -> tuple[Parser, ParserSettings]:
    """A network that `train-parser` wrote, and its settings."""
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("semfaceedit", "{}"))
        if header.get("format") != FORMAT:
            raise UserError(f"{path} holds no parser: give a file that `train-parser` wrote")
        if header["version"] > FORMAT_VERSION:
            raise UserError(f"{path} was written by a newer semfaceedit: install that")
        found = header["settings"]
        settings = ParserSettings(**{**found, "widths": tuple(found["widths"])})
        sizes = (settings.resolution, *settings.widths)
        if len(sizes) > 12 or not all(type(n) is int and 1 <= n <= 4096 for n in sizes):
            raise ValueError(f"its resolution and widths are {sizes}")
        tensors = load_file(path)
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise ValueError("it holds NaN or infinity")
        if not is_unchanged(header, tensors):
            raise ValueError("it was changed since it was written")
        parser = Parser(settings.widths)
        parser.load_state_dict(tensors)
    except FileNotFoundError:
        raise UserError(f"no parser at {path}: `train-parser` writes one") from None
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError,
            AttributeError) as error:  # fmt: skip
        raise UserError(f"{path} is not a readable parser: {reason_of(error)}") from None
    return parser.to(device).eval().requires_grad_(False), settings


def held_out_score(
    parser: Parser, data: FaceDataset, resolution: int, group_of_class: tuple[int, ...]
) -> tuple[SegmentationScore, int]:
    """The score over the pictures that training did not see, and how many they are."""
    _, held_out = split(len(data))
    joint = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    for part in np.array_split(held_out, -(-len(held_out) // BATCH)):
        images, labels = data.labelled(part, np.zeros(len(part), bool), resolution)
        joint += confusion(parser.labels(images), labels)
    return score_of(joint, group_of_class), len(held_out)
