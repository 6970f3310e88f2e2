"""Portraits with maps, and procedural faces -> the photograph's network.

    python -m semfaceedit.parsing.photo_training --portraits FOLDER --out photo_parser.safetensors

FOLDER has images/ and masks/ of aligned portraits. With --init NETWORK the masks are what `parse`
wrote, and training starts from that network: so the network that ships came about.

From nothing, masks are drafts that know no glasses. Where they and our own drafts (`drafts`)
disagree, nothing is learned at first, nor about the eyes of those that may wear glasses. Halfway
the network reads the portraits itself: it fills what is unknown, and labels those glasses.

OUT.training keeps crops and the state: the same command goes on from there.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, interpolate

from ..cli import progress, run_command, wrote
from ..data.layouts import find_source
from ..data.seeds import mixed_seed
from ..files import sha256_of_file, write_atomically
from ..model.labels import FLIP_IDS, NUM_CLASSES
from ..threads import FairThreads
from .mesh_parts import ID, MeshParts
from .photo_augment import (
    DRAWN,
    SEEN_THROUGH,
    UNKNOWN,
    Random,
    Sample,
    changed,
    with_background,
    with_glasses,
    with_wrong_outline,
)
from .photo_crops import STORED, WEARING, Crops, about_eyes, portrait_crops, procedural_crops
from .photo_network import (
    ACROSS,
    SIZE,
    WIDTHS,
    PhotoNetwork,
    class_probabilities,
    load_photo_network,
)
from .training_state import TrainingState

BATCH = 16
RATE, WARM_UP = 2e-3, 200
PORTRAITS = 0.7  # share of the samples
AVERAGED = 0.998  # of the weights, from step to step
PATCH, PATCHES = 96, 0.75  # pixels along an edge; share of the steps, the first ones
KEEP_EVERY = 20  # steps
STATE = "state.safetensors"
VERSION = 1  # changes when the same settings give another network
CLASS_WEIGHTS = {"eye_g": 1.6, "l_eye": 2, "r_eye": 2, "l_brow": 1.6, "r_brow": 1.6, "l_ear": 1.6,
                 "r_ear": 1.6, "mouth": 1.6, "u_lip": 1.8, "l_lip": 1.6, "hat": 1.5, "ear_r": 2,
                 "neck_l": 2, "cloth": 1.3}  # fmt: skip


def drawn_sample(portraits: Crops, procedural: Crops, random: Random) -> Sample:
    """One augmented sample."""
    real = random.random() < PORTRAITS
    crops = portraits if real else procedural
    index = int(random.integers(len(crops.images)))
    sample = crops.sample(index)
    if real:
        if crops.suspects[index]:
            sample = replace(sample, labels=_eyes_unknown(sample))
        elif not crops.wearing[index] and random.random() < 0.3:
            sample = with_glasses(sample, random)
    if real or (np.isfinite(sample.points).all() and random.random() < 0.3):
        sample = changed(sample, random)
    if random.random() < (0.45 if real else 0.6):
        other = portraits.images[random.integers(len(portraits.images))]
        sample = with_background(sample, other, random)
    sample = _repeated(sample, crops.labels[index])
    return with_wrong_outline(sample, random) if random.random() < 0.5 else sample


def _repeated(sample: Sample, labels: np.ndarray) -> Sample:
    """Outside the portrait its border repeated, as the network sees photographs; unlabelled."""
    known, widths = labels != UNKNOWN, []
    for axis in (1, 0):
        inside = np.nonzero(known.mean(axis) > 0.5)[0]
        widths.append((inside[0], sample.size - 1 - inside[-1]))
    inner = tuple(slice(low, sample.size - high) for low, high in widths)
    return replace(
        sample,
        image=np.pad(sample.image[inner], [*widths, (0, 0)], mode="edge"),
        labels=np.pad(sample.labels[inner], widths, constant_values=UNKNOWN),
    )


def _eyes_unknown(sample: Sample) -> np.ndarray:
    across, down = about_eyes(sample.points, sample.size)
    zone = (np.abs(across) < 1.3) & (down > -0.4) & (down < 0.5)
    return np.where(zone & (sample.labels == ID["skin"]), np.uint8(UNKNOWN), sample.labels)


def batch_of(samples: Sequence[Sample], random: Random) -> tuple[Tensor, Tensor]:
    """Network inputs (B, 12, 128, 128) and labels (B, 128, 128), warped and recoloured."""
    count = len(samples)
    inputs, labels = map(torch.stack, zip(*(_tensors(s, random) for s in samples), strict=True))
    mirrored = random.random(count) < 0.5
    grid = _warp(mirrored, random)
    given = grid_sample(inputs, grid, padding_mode="border", align_corners=False)
    if random.random() < 0.3:  # the mesh a little beside the face
        beside = grid + torch.from_numpy(random.normal(0, 0.006, (count, 1, 1, 2))).float()
        moved = grid_sample(inputs[:, 4:], beside, padding_mode="border", align_corners=False)
        given[:, 4:] = moved
    places = grid_sample(1.0 + labels[:, None], grid, mode="nearest", align_corners=False)
    wanted = places[:, 0].round().long() - 1
    wanted[wanted < 0] = UNKNOWN
    flips = torch.full((256,), UNKNOWN)
    flips[:NUM_CLASSES] = torch.from_numpy(FLIP_IDS)
    turned = torch.from_numpy(mirrored)
    wanted[turned] = flips[wanted[turned]]
    known = given[:, 4:ACROSS].amax((1, 2, 3)) > -1
    given[turned & known, ACROSS] *= -1
    given[:, :3] = _recoloured(given[:, :3], random)
    return given, wanted


def patches(given: Tensor, wanted: Tensor, random: Random) -> tuple[Tensor, Tensor]:
    """The same square of 96 x 96 pixels of all crops: cheaper, and what is learned is local."""
    top, left = (int(random.integers(SIZE - PATCH + 1)) for _ in range(2))
    place = (..., slice(top, top + PATCH), slice(left, left + PATCH))
    return given[place], wanted[place]


def _tensors(sample: Sample, random: Random) -> tuple[Tensor, Tensor]:
    known = np.isfinite(sample.points).all() and random.random() > 0.08
    guides = (
        MeshParts(sample.points).guides(sample.size)
        if known
        else np.zeros((8, sample.size, sample.size), np.float32)
    )
    image = sample.image.transpose(2, 0, 1) / 255
    given = np.concatenate([image, sample.person[None], guides]).astype(np.float32)
    return torch.from_numpy(2 * given - 1), torch.from_numpy(sample.labels.astype(np.int64))


def _warp(mirrored: np.ndarray, random: Random) -> Tensor:
    """A grid (B, 128, 128, 2) of zooms, turns, shifts and flips."""
    count = len(mirrored)
    zoom, turn = np.exp(random.uniform(-0.22, 0.22, count)), random.normal(0, 0.1, count)
    wide, flip = np.exp(random.normal(0, 0.05, count)), np.where(mirrored, -1, 1)
    rows = np.zeros((count, 2, 3), np.float32)
    rows[:, 0, 0], rows[:, 0, 1] = zoom * np.cos(turn) * flip * wide, -zoom * np.sin(turn) * wide
    rows[:, 1, 0], rows[:, 1, 1] = zoom * np.sin(turn) * flip, zoom * np.cos(turn)
    rows[:, :, 2] = random.uniform(-0.06, 0.06, (count, 2))
    return affine_grid(torch.from_numpy(rows), [count, 1, SIZE, SIZE], align_corners=False)


def _recoloured(images: Tensor, random: Random) -> Tensor:
    """Saturation, gamma, white balance, exposure, contrast, light from a side, blur, noise."""
    count = len(images)

    def each(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.reshape(count, -1, 1, 1)).float()

    saturation = random.uniform(0.3, 1.5, count) * (random.random(count) > 0.12)
    grey = images.mean(1, keepdim=True)
    light = ((grey + (images - grey) * each(saturation)) / 2 + 0.5).clamp(0, 1)
    light = light ** each(np.exp(random.uniform(-0.45, 0.45, count)))
    light = light * each(np.exp(random.normal(0, 0.1, (count, 3))))
    light = light * each(np.exp(random.uniform(-0.3, 0.3, count)))
    light = (light - 0.5) * each(random.uniform(0.7, 1.25, count)) + 0.5
    ramp, side = torch.linspace(-1, 1, SIZE), each(random.normal(0, 0.18, (count, 2)))
    light = light * (1 + side[:, :1] * ramp + side[:, 1:] * ramp[:, None])
    if random.random() < 0.35:
        size = int(random.choice([48, 64, 80, 96]))
        small = interpolate(light, size=(size, size), mode="area")
        light = interpolate(small, size=(SIZE, SIZE), mode="bilinear")
    noise = torch.from_numpy(random.normal(size=tuple(light.shape))).float()
    return (light + random.uniform(0, 0.04) * noise).clamp(0, 1) * 2 - 1


def relabelled(crops: Crops, network: PhotoNetwork) -> Crops:
    """Portraits with what the network reads: unknown pixels filled, glasses of suspects found."""
    labels, wearing = crops.labels.copy(), crops.wearing.copy()
    for index in progress(range(len(labels)), total=len(labels), title="reading the portraits"):
        sample = crops.sample(index)
        still = np.random.default_rng(0)
        given = interpolate(_tensors(sample, still)[0][None], size=(SIZE, SIZE), mode="area")[0]
        shares = interpolate(
            class_probabilities(given, network)[None], size=(STORED, STORED), mode="bilinear"
        )[0].numpy()
        glasses = shares[ID["eye_g"]]
        bare = shares.copy()
        bare[ID["skin"]] += bare[DRAWN].sum(0)
        bare[[*DRAWN, ID["eye_g"]]] = 0
        bare /= bare.sum(0) + 1e-6
        best, sure = bare.argmax(0), bare.max(0)
        row = labels[index]
        drawn, unknown = np.isin(row, DRAWN), row == UNKNOWN
        better = np.where(unknown, sure > 0.6, (sure > 0.85) & ~drawn)
        row[better] = best[better]
        wearing[index] = crops.suspects[index] and (glasses > 0.5).mean() > WEARING
        if wearing[index]:
            seen = np.isin(row, SEEN_THROUGH)
            row[(glasses > 0.45) & ~seen] = ID["eye_g"]
            row[(row == ID["skin"]) & (glasses > 0.15)] = UNKNOWN
    return replace(crops, labels=labels, wearing=wearing, suspects=crops.suspects & ~wearing)


@dataclass(kw_only=True)
class PhotoTrainingOptions:
    """Train the network that reads label maps off photographs. A stopped training goes on."""

    portraits: Path
    """Folder with images/ and masks/ of aligned portraits."""
    out: Path = Path("photo_parser.safetensors")
    """The network to write."""
    init: Path | None = None
    """A network to start from; the masks are then taken as `parse` wrote them, glasses too."""
    procedural: int = 1200
    """Procedural faces."""
    steps: int = 2400
    """Steps of 16 crops."""
    rate: float = RATE
    """Learning rate at its highest."""


def train_photo_network(options: PhotoTrainingOptions) -> None:
    drafts, keep = options.init is None, options.out.with_suffix(".training")
    faces = find_source(options.portraits).faces
    portraits = portrait_crops(faces, keep, drafts=drafts)
    procedural = procedural_crops(options.procedural, keep)
    torch.manual_seed(0)
    network = PhotoNetwork()
    if options.init is not None:
        network.load_state_dict(load_photo_network(options.init).state_dict())
    averaged, reader = (PhotoNetwork().requires_grad_(False) for _ in range(2))
    averaged.load_state_dict(network.state_dict())
    network.requires_grad_(True).train()
    optimizer = torch.optim.AdamW(network.parameters(), options.rate, weight_decay=1e-2)
    warm_up = min(WARM_UP, options.steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            min(1, (step + 1) / warm_up) * 0.5 * (1 + math.cos(math.pi * step / options.steps))
        ),
    )
    networks = {"network": network, "averaged": averaged, "reader": reader}
    state = TrainingState(networks, optimizer, schedule)
    key = json.dumps(
        [VERSION, options.steps, options.rate, options.procedural, [face.name for face in faces],
         None if options.init is None else sha256_of_file(options.init)]
    )  # fmt: skip
    done = state.restore(keep / STATE, key)
    if done:
        print(f"going on after step {done}", file=sys.stderr)
    weights = torch.ones(NUM_CLASSES)
    for name, weight in CLASS_WEIGHTS.items():
        weights[ID[name]] = weight
    half = options.steps // 2
    if drafts and done > half:
        portraits = relabelled(portraits, reader.eval())
    fast = torch.cpu._is_amx_tile_supported()  # type: ignore[attr-defined]
    recent: list[float] = []
    left = range(done, options.steps)
    for step in FairThreads().over(progress(left, total=len(left), title="training")):
        if drafts and step == half:
            reader.load_state_dict(averaged.state_dict())
            portraits = relabelled(portraits, reader.eval())
        random = np.random.default_rng(mixed_seed(0, step))
        samples = [drawn_sample(portraits, procedural, random) for _ in range(BATCH)]
        given, wanted = batch_of(samples, random)
        if step < PATCHES * options.steps:
            given, wanted = patches(given, wanted, random)
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            scores = network(given.contiguous(memory_format=torch.channels_last))
        loss = cross_entropy(
            scores.float(), wanted, weights, ignore_index=UNKNOWN, label_smoothing=0.02
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        _average(averaged, network, min(AVERAGED, (step + 1) / (step + 20)))
        recent = [*recent, loss.item()][-100:]
        if (step + 1) % KEEP_EVERY == 0 or step + 1 == options.steps:
            state.save(keep / STATE, key, step + 1)
            print(f"step {step + 1}: loss {np.mean(recent):.4f}", file=sys.stderr, flush=True)
    save_photo_network(options.out, averaged)
    wrote(options.out)


@torch.no_grad()
def _average(averaged: PhotoNetwork, network: PhotoNetwork, kept: float) -> None:
    pairs = zip(averaged.state_dict().values(), network.state_dict().values(), strict=True)
    for old, new in pairs:
        if old.is_floating_point():
            old.lerp_(new, 1 - kept)
        else:
            old.copy_(new)


def save_photo_network(path: Path, network: PhotoNetwork) -> None:
    """Write weights as float16; variances, which can be large or tiny, stay float32."""
    tensors = {
        name: (tensor if name.endswith("running_var") else tensor.half()).contiguous()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    header = {"format": "semfaceedit-photo-parser", "version": 1, "widths": WIDTHS}
    metadata = {"semfaceedit": json.dumps(header)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


if __name__ == "__main__":
    raise SystemExit(run_command(PhotoTrainingOptions, train_photo_network, name="photo-training"))
