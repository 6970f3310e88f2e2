"""Sets of pictures that are compared: generated once, in pieces on the disk; real ones in chunks.

Both sides are 8-bit pictures with label maps (the class with the largest score) at the evaluated
resolution. A generated picture depends on the seed and its index alone, so that any number of
processes makes the same set.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..cli import progress
from ..data.dataset import FaceDataset
from ..data.seeds import mixed_seed
from ..files import cache_root
from ..model.camera import sample_poses
from ..model.codes import Codes, truncate
from ..model.generator import Generator, sample_latents
from ..model.mean_face import mean_codes
from ..model.renderer import render
from ..pictures.grids import picture_rows
from ..tensor_files import read_kept, write_tensors
from .session import METRICS_VERSION, Evaluation, digest

PIECE = 100  # pictures in a file

Statistics = dict[str, Tensor]


@dataclass(frozen=True)
class Chunk:
    """Pictures first, first + 1, ... of a set."""

    first: int
    images: Tensor  # (B, 3, R, R) uint8
    labels: Tensor  # (B, R, R) uint8


@dataclass(frozen=True)
class PictureSet:
    """A set that can be read again and again, and where its statistics are kept."""

    key: str
    count: int
    read: Callable[[], Iterator[Chunk]]
    folder: Path

    def statistics(
        self, name: str, inputs: dict[str, Any], compute: Callable[[Iterator[Chunk]], Statistics]
    ) -> Statistics:
        """`compute` over the whole set, or what it gave before."""
        key = digest([METRICS_VERSION, self.key, self.count, inputs])
        path = self.folder / f"{name}-{key}.safetensors"
        kept = _read(path)
        if kept is None:
            kept = compute(self.read())
            self.folder.mkdir(parents=True, exist_ok=True)
            write_tensors(path, kept)
        return kept


def real_pictures(evaluation: Evaluation) -> PictureSet:
    """At most --count pictures of the data, in its order, averaged to the resolution."""
    data, resolution = evaluation.data, evaluation.resolution
    count = min(len(data), evaluation.options.count)

    def read() -> Iterator[Chunk]:
        for first in range(0, count, PIECE):
            yield real_chunk(data, range(first, min(first + PIECE, count)), resolution)

    key = digest([evaluation.data_key, resolution])
    return PictureSet(key, count, read, cache_root() / "statistics")


def real_chunk(data: FaceDataset, indices: range, resolution: int) -> Chunk:
    """Those pictures of the data at `resolution`, which must divide the packed one."""
    images, labels = data.labelled(np.array(indices), np.zeros(len(indices), bool), resolution)
    return Chunk(indices.start, ((images + 1) * 127.5).round().byte(), labels)


def generated_pictures(evaluation: Evaluation) -> PictureSet:
    """The --count generated pictures; `generate` must have made them."""
    folder, count = generated_folder(evaluation), evaluation.options.count
    return PictureSet(
        folder.name, count, lambda: first_generated(evaluation, count), folder / "statistics"
    )


def first_generated(evaluation: Evaluation, count: int) -> Iterator[Chunk]:
    """The first `count` generated pictures."""
    for first in range(0, count, PIECE):
        piece = load_file(_piece(generated_folder(evaluation), first))
        stop = min(PIECE, count - first)
        yield Chunk(first, piece["images"][:stop], piece["labels"][:stop])


def generated_folder(evaluation: Evaluation) -> Path:
    return evaluation.options.out / "generated" / digest(evaluation.generated_inputs)


def generate_pictures(evaluation: Evaluation, count: int) -> None:
    """Make those of the first `count` pictures that are not there yet, each process its own."""
    folder, world = generated_folder(evaluation), evaluation.world
    folder.mkdir(parents=True, exist_ok=True)
    firsts = range(0, count, PIECE)
    own = list(itertools.islice(firsts, world.rank, None, world.size))
    todo = [first for first in own if _read(_piece(folder, first)) is None]
    for first in progress(todo, total=len(todo), title=f"generating, {PIECE} pictures each"):
        piece = generated_piece(evaluation, range(first, first + PIECE))
        write_tensors(_piece(folder, first), piece)
    world.barrier()


@torch.no_grad()
def generated_piece(evaluation: Evaluation, indices: range) -> Statistics:
    """`images` (M, 3, R, R) uint8, `labels` (M, R, R) uint8 and `poses` (M, 2) of a set."""
    options, generator = evaluation.options, evaluation.generator
    parts: dict[str, list[Tensor]] = {"images": [], "labels": [], "poses": []}
    for start in range(indices.start, indices.stop, options.batch):
        part = range(start, min(start + options.batch, indices.stop))
        codes, poses = sampled_faces(generator, part, options.seed, options.truncation)
        output = render(
            generator, codes, poses, evaluation.resolution, chunk_rays=options.chunk_rays
        )
        parts["images"].append(picture_rows(output)["image"].movedim(-1, 1))
        parts["labels"].append(output.labels.byte().cpu())
        parts["poses"].append(poses.cpu())
    return {name: torch.cat(tensors).contiguous() for name, tensors in parts.items()}


def sampled_faces(
    generator: Generator, indices: range, seed: int, truncation: float = 1.0
) -> tuple[Codes, Tensor]:
    """Codes and poses (B, 2) of generated faces, poses from the prior."""
    config, device = generator.config, generator.device
    draws = []
    for index in indices:
        random = torch.Generator().manual_seed(mixed_seed(seed, index))
        latents = sample_latents(config, 1, generator=random)
        draws.append((*latents, sample_poses(1, config.camera, generator=random)))
    z, appearance, poses = (torch.cat(parts).to(device) for parts in zip(*draws, strict=True))
    codes = generator.map(z, appearance)
    if truncation < 1:
        codes = truncate(codes, mean_codes(generator), truncation)
    return codes, poses


def float_images(images: Tensor) -> Tensor:
    """8-bit pictures as float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def halves(values: Tensor, each: int) -> tuple[Tensor, Tensor]:
    """Rows of even and of odd pictures, `each` rows a picture, as many of one as of the other."""
    rows = values.unflatten(0, (-1, each))
    pairs = len(rows) // 2 * 2
    return rows[0:pairs:2].flatten(0, 1), rows[1:pairs:2].flatten(0, 1)


def _piece(folder: Path, first: int) -> Path:
    return folder / f"pictures-{first:06d}.safetensors"


def _read(path: Path) -> Statistics | None:
    kept = read_kept(path)
    return None if kept is None else kept[1]


def poses_of(evaluation: Evaluation, count: int) -> np.ndarray:
    """Poses (count, 2) of the first generated pictures."""
    folder = generated_folder(evaluation)
    pieces = [load_file(_piece(folder, first))["poses"] for first in range(0, count, PIECE)]
    return torch.cat(pieces)[:count].numpy()
