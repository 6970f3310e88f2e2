"""What an encoder learns from: samples of the generator, procedural heads and real pairs."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d

from ..data.dataset import FaceDataset, area_one_hot
from ..model.camera import CameraConfig, sample_poses
from ..model.codes import Codes
from ..model.generator import Generator, sample_latents
from ..model.labels import CLASS_NAMES
from ..model.mean_face import mean_codes
from ..model.renderer import render
from ..procedural.render import render_faces
from .encoder import Encoder, flat_film

POSE_SPREAD = 1.2  # of the samples, in deviations of the prior
RENDERED = 8  # samples at a time
HELD_OUT_EVERY, MOST_HELD_OUT = 20, 48  # pairs kept out for the report
HEAD_SEEDS = 2_000_000  # first seed of the procedural heads


@dataclass
class FaceStore:
    """Faces in bytes, at s x s pixels, with what is known of them."""

    images: Tensor  # (M, 3, s, s) uint8
    semantics: Tensor  # (M, N, s, s) uint8 shares
    poses: Tensor  # (M, 2); NaN where unknown
    depth: Tensor | None = None  # (M, 1, s, s) world units; NaN where it does not count
    geometry: Tensor | None = None  # (M, k) true coefficients
    appearance: Tensor | None = None  # (M, n, k)
    written: int = 0  # rows in all; the oldest are overwritten

    @classmethod
    def empty(cls, count: int, size: int) -> "FaceStore":
        """Room for so many faces."""
        return cls(
            torch.zeros(count, 3, size, size, dtype=torch.uint8),
            torch.zeros(count, len(CLASS_NAMES), size, size, dtype=torch.uint8),
            torch.full((count, 2), math.nan),
        )

    @property
    def count(self) -> int:
        """How many rows hold a face."""
        return min(len(self.images), self.written)

    @property
    def full(self) -> bool:
        return self.count == len(self.images)

    def rows(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images in [-1, 1] and shares in [0, 1]."""
        return self.images[index].float() / 127.5 - 1, self.semantics[index].float() / 255

    def write(self, images: Tensor, semantics: Tensor, poses: Tensor) -> Tensor:
        """Add faces, in [-1, 1] and shares in [0, 1]; the rows that they have now."""
        rows = (self.written + torch.arange(len(images))) % len(self.images)
        self.written += len(images)
        self.images[rows] = _bytes((images + 1) * 127.5)
        self.semantics[rows] = _bytes(semantics * 255)
        self.poses[rows] = poses.cpu()
        return rows


def draw_codes(
    generator: Generator, count: int, random: torch.Generator
) -> tuple[Codes, Tensor]:  # codes and poses (B, 2)
    """Samples, more or less near the mean face, and poses a little wider than the prior."""
    model, mean = generator.config, mean_codes(generator)
    z, looks = sample_latents(model, count, generator=random)
    pose = POSE_SPREAD * sample_poses(count, model.camera, generator=random)
    device = generator.device
    share = (0.6 + 0.6 * torch.rand(count, generator=random)).to(device)
    codes = generator.map(z.to(device), looks.to(device))
    pulled = Codes(
        mean.geometry.lerp(codes.geometry, share[:, None, None]),
        mean.appearance.lerp(codes.appearance, share[:, None, None, None]),
    )
    return pulled, pose.to(device).clamp(-1.2, 1.2)


def sample_store(encoder: Encoder, count: int, groups: int) -> FaceStore:
    """Room for so many samples, whose coefficients and depth are known."""
    size = encoder.settings.size
    store = FaceStore.empty(count, size)
    store.depth = torch.zeros(count, 1, size, size)
    store.geometry = torch.zeros(count, encoder.settings.components)
    store.appearance = torch.zeros(count, groups, encoder.settings.components)
    return store


@torch.no_grad()
def add_samples(
    store: FaceStore, generator: Generator, encoder: Encoder, count: int, random: torch.Generator
) -> None:
    """Render samples into a `sample_store`."""
    assert store.geometry is not None and store.appearance is not None
    assert store.depth is not None
    basis, looks = encoder.geometry_basis, encoder.appearance_basis
    for first in range(0, count, RENDERED):
        codes, pose = draw_codes(generator, min(RENDERED, count - first), random)
        output = render(generator, codes, pose, encoder.settings.size)
        rows = store.write(output.image, output.semantics, pose)
        head = (output.labels > 0)[:, None]
        store.depth[rows] = torch.where(head, output.depth, math.nan).cpu()
        offsets = codes - mean_codes(generator)
        store.geometry[rows] = (
            flat_film(offsets.geometry) @ basis.T / basis.square().sum(1).clamp(min=1e-12)
        ).cpu()
        store.appearance[rows] = (
            torch.einsum("bnf,nkf->bnk", flat_film(offsets.appearance), looks)
            / looks.square().sum(2).clamp(min=1e-12)
        ).cpu()


def head_store(count: int, size: int) -> FaceStore:
    """Room for so many procedural heads, whose depth is known."""
    store = FaceStore.empty(count, size)
    store.depth = torch.zeros(count, 1, size, size)
    return store


def add_heads(store: FaceStore, camera: CameraConfig, count: int) -> None:
    """Render so many procedural heads more into a `head_store`, while there is room."""
    assert store.depth is not None
    size = store.images.shape[-1]
    first, last = HEAD_SEEDS + store.count, HEAD_SEEDS + len(store.images)
    for seed in range(first, min(first + count, last), RENDERED):
        seeds = range(seed, min(seed + RENDERED, first + count, last))
        made = render_faces(list(seeds), 2 * size, camera)
        images = adaptive_avg_pool2d(made.images, size)
        rows = store.write(images, area_one_hot(made.labels.numpy(), size), made.poses)
        store.depth[rows] = head_depth(made.depth, made.labels, size)


def pair_store(data: FaceDataset, size: int) -> FaceStore:
    """All pairs but those kept out, in memory."""
    out = set(held_out(len(data)).tolist())
    chosen = [index for index in range(len(data)) if index not in out]
    store = FaceStore.empty(len(chosen), size)
    for first in range(0, len(chosen), 32):
        part = chosen[first : first + 32]
        batch = data.batch(part, [False] * len(part), size)
        store.write(batch.images, batch.semantics, batch.poses)
    return store


def held_out(count: int) -> np.ndarray:
    """Places of the pairs that training does not see."""
    return np.arange(count)[HELD_OUT_EVERY - 1 :: HELD_OUT_EVERY][:MOST_HELD_OUT]


def head_depth(depth: Tensor, labels: Tensor, size: int) -> Tensor:
    """Depth (B, R, R) and labels -> (B, 1, s, s): means over footprints, NaN where one is not all
    of the head or holds a step."""
    far = torch.where(labels > 0, depth, torch.full_like(depth, math.inf))
    largest = adaptive_max_pool2d(far[:, None], size)
    smallest = -adaptive_max_pool2d(-depth[:, None], size)
    mean = adaptive_avg_pool2d(depth[:, None], size)
    return torch.where(largest - smallest < 0.02, mean, torch.full_like(mean, math.nan))


def _bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8).cpu()
