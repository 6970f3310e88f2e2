"""Watching a run: pixel Frechet distance, collapse of the geometry, rate and time left."""

import math
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import FaceDataset, sample_order
from ..metrics.pictures import FEATURE_SIZE, PixelFrechet, pixel_features
from ..model.camera import sample_poses
from ..model.generator import Generator, sample_latents
from ..model.renderer import affordable_rays

MONITOR_SAMPLES = 256
MONITOR_SEED = 1_000_003  # apart from training's own seeds
MONITOR_BATCH = 32
MOST_FACES = 1000  # that samples are compared with, so that the first measurement takes seconds
PART = 512


class Monitor:
    """Pixel Frechet distance of generated images and semantic maps to a data set and its flips.

    256 samples, poses from the prior, no truncation. The same latents and poses every time. With
    `rare_share` the data set counts as an epoch of training shows it (`FaceDataset.repeats`). Of
    more than 1,000 faces, 1,000 are taken at even distances.
    """

    def __init__(self, data: FaceDataset, rare_share: float = 0.0):
        images, maps = zip(*_real_features(data, rare_share), strict=True)
        self.images = PixelFrechet.from_features(torch.cat(images))
        self.maps = PixelFrechet.from_features(torch.cat(maps))

    @torch.no_grad()
    def measure(
        self, generator: Generator, resolution: int, stopping: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """`frechet_image` and `frechet_semantic` of what `generator` makes at `resolution`; None
        where `stopping` says so before the end."""
        config = generator.config
        device = generator.device
        random = torch.Generator().manual_seed(MONITOR_SEED)
        z, appearance = sample_latents(config, MONITOR_SAMPLES, generator=random)
        poses = sample_poses(MONITOR_SAMPLES, config.camera, generator=random)
        images, maps = [], []
        for part in torch.arange(MONITOR_SAMPLES).split(MONITOR_BATCH):
            if stopping():
                return None
            output = generator(
                z[part].to(device),
                appearance[part].to(device),
                poses[part].to(device),
                resolution=resolution,
                chunk_rays=affordable_rays(generator, len(part)),
            )
            images.append(pixel_features(output.image.cpu()))
            maps.append(pixel_features(2 * output.semantics.cpu() - 1))
        return {
            "frechet_image": self.images.distance(torch.cat(images)),
            "frechet_semantic": self.maps.distance(torch.cat(maps)),
        }


def _real_features(data: FaceDataset, rare_share: float) -> Iterator[tuple[Tensor, Tensor]]:
    size = min(FEATURE_SIZE, data.resolution)
    repeats = data.repeats(rare_share)
    epoch = np.sort(sample_order(MONITOR_SEED, repeats, 0, math.ceil(repeats.sum()))[0])
    if len(epoch) > MOST_FACES:
        epoch = epoch[np.arange(MOST_FACES) * len(epoch) // MOST_FACES]
    for flip in (False, True):
        for part in np.array_split(epoch, -(-len(epoch) // PART)):
            batch = data.batch(part, np.full(len(part), flip), size)
            yield pixel_features(batch.images), pixel_features(2 * batch.semantics - 1)


def manifold_warning(weights: Tensor, limit: float) -> str | None:
    """What to say when one manifold takes nearly all the compositing weight, (K,) plane last."""
    share, index = weights.max(0)
    if share <= limit:
        return None
    last = len(weights) - 1
    which = "the background plane" if index == last else f"manifold {int(index)} of {last}"
    return (
        f"geometry is collapsing: {which} has {float(share):.0%} of the mean weight (limit "
        f"{limit:.0%}); pictures turn flat. Restart with a smaller density gain, or an initial "
        "opacity per manifold near 0.1"
    )


class RateDisplay:
    """A progress line on standard error: step, images, images per second, time left, losses."""

    def __init__(self, total_steps: int, completed: int):
        self.total, self.first = total_steps, completed
        self.start = self.last_time = time.monotonic()
        self.live = sys.stderr.isatty()

    def update(self, completed: int, images: int, images_per_second: float, note: str) -> None:
        elapsed = time.monotonic() - self.start
        left = elapsed / max(completed - self.first, 1) * (self.total - completed)
        line = (
            f"step {completed}/{self.total}  {images / 1000:.1f} kimg  "
            f"{images_per_second:.1f} img/s  ETA {_clock(left)}  {note}"
        )
        print(f"\r{line}\033[K" if self.live else line, end="" if self.live else "\n",
              file=sys.stderr, flush=True)  # fmt: skip

    def message(self, text: str) -> None:
        print(f"\n{text}" if self.live else text, file=sys.stderr, flush=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
