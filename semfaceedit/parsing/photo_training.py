"""Portraits with draft maps, and procedural faces -> the photograph's network.

    python -m semfaceedit.parsing.photo_training --portraits FOLDER --out photo_parser.safetensors

FOLDER has images/ and masks/ of aligned portraits; where the masks and our own drafts (`drafts`)
disagree, nothing is learned at first. Glasses on portraits are unknown to the masks, so what lies
about the eyes of those that may wear some does not count. Halfway the network reads the portraits
itself: it fills what is unknown, and labels the glasses of those that wear some.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, interpolate

from ..cli import progress, run_command, wrote
from ..data.decoding import read_image, read_label_map
from ..data.layouts import find_source
from ..data.seeds import mixed_seed
from ..errors import UserError
from ..files import write_atomically
from ..model.camera import CameraConfig
from ..model.labels import FLIP_IDS, NUM_CLASSES
from ..procedural.heads import sample_head
from ..procedural.render import render_faces
from .drafts import draft_map
from .faces import Square, find_faces
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
from .photo_network import (
    ACROSS,
    MARGIN,
    SIZE,
    WIDTHS,
    PhotoNetwork,
    class_probabilities,
    frame_of,
    person_share,
)

STORED = 160  # pixels along an edge of the crops that samples are cut from
BATCH = 16
RATE, WARM_UP = 2e-3, 200
PORTRAITS = 0.65  # share of the samples
AVERAGED = 0.998  # of the weights, from step to step
SUSPECTS = 0.3  # share of the portraits that may wear glasses
WEARING = 0.0035  # share of a crop's pixels that glasses take up
CLASS_WEIGHTS = {"eye_g": 1.6, "l_eye": 2, "r_eye": 2, "l_brow": 1.6, "r_brow": 1.6, "l_ear": 1.6,
                 "r_ear": 1.6, "mouth": 1.6, "u_lip": 1.8, "l_lip": 1.6, "hat": 1.5, "ear_r": 2,
                 "neck_l": 2, "cloth": 1.3}  # fmt: skip


@dataclass
class Crops:
    """Crops in memory: images (M, N, N, 3), labels and person (M, N, N), meshes (M, 468, 2)."""

    images: np.ndarray
    labels: np.ndarray  # 255: unknown
    person: np.ndarray  # uint8
    points: np.ndarray
    suspects: np.ndarray  # (M,) bool: may wear glasses that are not labelled
    wearing: np.ndarray  # (M,) bool: wear glasses that are labelled

    def sample(self, index: int) -> Sample:
        return Sample(
            self.images[index].astype(np.float32),
            self.labels[index],
            self.person[index].astype(np.float32) / 255,
            self.points[index],
        )


def portrait_crops(folder: Path) -> Crops:
    """Aligned portraits whose mesh is found, labelled where mask and draft agree."""
    rows = []
    faces = find_source(folder).faces
    for face in progress(faces, total=len(faces), title="portraits"):
        picture = Image.fromarray(read_image(face.image))
        meshes = find_faces(picture)
        window = MeshParts(meshes[0].points).window if meshes else None
        if window is None:
            continue
        frame = frame_of(window)
        image, person, points = _crop(picture, meshes[0].points, frame)
        given = Image.fromarray(read_label_map(face.masks[0]))
        given = given.resize(picture.size, Image.Resampling.NEAREST)
        mask = np.asarray(_nearest(given, frame))
        inside = np.asarray(_nearest(Image.new("L", picture.size, 1), frame)) > 0
        parts = MeshParts(points)
        draft = draft_map(image, parts, person / 255, inside)
        rows.append((image, _agreed(draft, mask, parts, inside), person, points))
    if not rows:
        raise UserError(f"{folder}: no portrait shows a face")
    images, labels, persons, points = (np.stack(column) for column in zip(*rows, strict=True))
    scores = np.array([_edges_about_eyes(*pair) for pair in zip(images, points, strict=True)])
    suspects = scores >= np.quantile(scores, 1 - SUSPECTS)
    return Crops(images, labels, persons, points, suspects, np.zeros(len(images), bool))


def procedural_crops(count: int) -> Crops:
    """Procedural faces: three fifths as they come, the rest with glasses or hats."""
    view = CameraConfig().half_extent * MARGIN
    camera = CameraConfig(fov_degrees=2 * math.degrees(math.atan(view)))
    rows = []
    for seed in progress(_seeds(count), total=count, title="procedural faces"):
        made = render_faces([seed], STORED, camera)
        image = ((made.images[0].movedim(0, -1) + 1) * 127.5).round().byte().numpy()
        picture = Image.fromarray(image)
        meshes = find_faces(picture)
        frame = Square(STORED / 2, STORED / 2, STORED, 0.0)
        unknown = np.full((468, 3), np.nan)
        crop = _crop(picture, meshes[0].points if meshes else unknown, frame)
        rows.append((crop[0], made.labels[0].numpy(), *crop[1:]))
    images, labels, persons, points = (np.stack(column) for column in zip(*rows, strict=True))
    none = np.zeros(count, bool)
    return Crops(images, labels, persons, points, none, none)


def _seeds(count: int) -> list[int]:
    plain = list(range(500_000, 500_000 + count - 2 * count // 5))
    chosen: list[int] = []
    seed = 510_000
    while len(plain) + len(chosen) < count:
        head = sample_head(seed, CameraConfig())
        if head.accessories.glasses is not None or head.hair.hat is not None:
            chosen.append(seed)
        seed += 1
    return plain + chosen


def _crop(
    picture: Image.Image, points: np.ndarray, frame: Square
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, the person's share (uint8) and mesh of a crop."""
    image = np.asarray(frame.cut(picture, (STORED, STORED)))
    share = Image.fromarray(person_share(picture, frame))
    person = np.asarray(share.resize((STORED, STORED), Image.Resampling.BILINEAR))
    corner = (frame.x - frame.side / 2, frame.y - frame.side / 2)
    placed = MeshParts(points).scaled(corner, STORED / frame.side).points
    return image, (255 * person).astype(np.uint8), placed.astype(np.float32)


def _nearest(picture: Image.Image, frame: Square) -> Image.Image:
    step = frame.side / STORED
    left, top = frame.x - frame.side / 2, frame.y - frame.side / 2
    matrix = (step, 0, left, 0, step, top)
    return picture.transform((STORED, STORED), Image.Transform.AFFINE, matrix)


def _agreed(
    draft: np.ndarray, mask: np.ndarray, parts: MeshParts, inside: np.ndarray
) -> np.ndarray:
    """The draft's label where the mask says the same, or is known to say it better."""
    _, down = parts.places(len(draft))
    drawn = np.isin(draft, DRAWN)
    bare = np.where(np.isin(mask, [*DRAWN, ID["eye_g"]]), np.uint8(ID["skin"]), mask)
    made = np.where((draft == bare) | drawn, draft, np.uint8(UNKNOWN))
    collar = (draft == ID["hair"]) & (bare == ID["cloth"]) & (down > 0.75)
    made[collar] = ID["cloth"]
    sides = [ID["l_ear"], ID["r_ear"]]
    ear = np.isin(bare, sides) & np.isin(draft, [ID["skin"], *sides])
    made[ear] = bare[ear]
    neck = (bare == ID["neck"]) & np.isin(draft, [ID["neck"], ID["skin"]])
    made[neck] = ID["neck"]
    made[~inside] = UNKNOWN
    return made


def _about_eyes(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """across and down of each pixel from the middle between the eyes, in their distance."""
    right, left = MeshParts(points).eyes
    apart = np.linalg.norm(left - right)
    across = (left - right) / apart**2
    y, x = np.mgrid[:size, :size] + 0.5
    pixels = np.stack([x, y], -1) - (right + left) / 2
    return pixels @ across, pixels @ np.array([-across[1], across[0]])


def _edges_about_eyes(image: np.ndarray, points: np.ndarray) -> float:
    """How sharply brightness changes on the bridge of the nose and below the eyes: glasses do."""
    right, left = MeshParts(points).eyes
    across = left - right
    down = np.array([-across[1], across[0]])
    corner = (right + left) / 2 - across - down / 2
    step = 2 / 96
    matrix = (across[0] * step, down[0] * step, corner[0],
              across[1] * step, down[1] * step, corner[1])  # fmt: skip
    grey = Image.fromarray(image).convert("L")
    patch = grey.transform((96, 60), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    light = np.asarray(patch, float)
    edges = np.abs(np.diff(light / (light[30:, 24:72].mean() + 20), axis=0))
    bridge = edges[12:32, 44:52].mean(1).max()
    below = np.mean([edges[34:52, at : at + 20].mean(1).max() for at in (14, 62)])
    return float(np.log(bridge + 1e-4) + np.log(below + 1e-4))


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
        sample = changed(sample, random)
    if random.random() < (0.45 if real else 0.6):
        other = portraits.images[random.integers(len(portraits.images))]
        sample = with_background(sample, other, random)
    return with_wrong_outline(sample, random) if random.random() < 0.5 else sample


def _eyes_unknown(sample: Sample) -> np.ndarray:
    across, down = _about_eyes(sample.points, sample.size)
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
    """Train the network that reads label maps off photographs."""

    portraits: Path
    """Folder with images/ and masks/ of aligned portraits."""
    out: Path = Path("photo_parser.safetensors")
    """The network to write."""
    procedural: int = 1450
    """Procedural faces."""
    steps: int = 2400
    """Steps of 16 crops."""


def train_photo_network(options: PhotoTrainingOptions) -> None:
    portraits = portrait_crops(options.portraits)
    procedural = procedural_crops(options.procedural)
    torch.manual_seed(0)
    network, averaged = PhotoNetwork(), PhotoNetwork()
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    averaged.load_state_dict(network.state_dict())
    weights = torch.ones(NUM_CLASSES)
    for name, weight in CLASS_WEIGHTS.items():
        weights[ID[name]] = weight
    for step in progress(range(options.steps), total=options.steps, title="training"):
        if step == options.steps // 2:
            portraits = relabelled(portraits, averaged.eval())
        random = np.random.default_rng(mixed_seed(0, step))
        samples = [drawn_sample(portraits, procedural, random) for _ in range(BATCH)]
        given, wanted = batch_of(samples, random)
        rate = 0.5 * RATE * (1 + math.cos(math.pi * step / options.steps))
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / WARM_UP)
        with torch.autocast("cpu", torch.bfloat16):
            scores = network(given.contiguous(memory_format=torch.channels_last))
        loss = cross_entropy(
            scores.float(), wanted, weights, ignore_index=UNKNOWN, label_smoothing=0.02
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        _average(averaged, network, min(AVERAGED, (step + 1) / (step + 20)))
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
