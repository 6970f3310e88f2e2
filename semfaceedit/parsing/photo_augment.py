"""Changes to training crops of the photograph's network, each with its map.

Portraits of officials show suits, short hair and few glasses; what they lack is painted on them:
glasses, hats, long hair, fringes, bare necklines, other cloth and hair, jewellery, hands, other
backgrounds.
Crops are N x N; across and down are places about the face as in `mesh_parts.MeshParts.places`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageDraw

from .mesh_parts import ID, SIDES, MeshParts
from .photo_textures import Random, clouds, metal, soft, waves

UNKNOWN = 255  # the label of a pixel that does not count
DRAWN = [ID[n] for n in ("nose", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")]
SEEN_THROUGH = [ID[name] for name in ("l_eye", "r_eye", "l_brow", "r_brow")]
OVER_BROWS = [ID[name] for name in ("skin", "l_brow", "r_brow")]
HAIR_COLOURS = (
    (25, 20, 18), (60, 40, 28), (110, 75, 45), (170, 130, 80), (200, 170, 120), (120, 50, 30),
    (170, 170, 170),
)  # fmt: skip
SUPERSAMPLING = 3


@dataclass(frozen=True)
class Sample:
    """One crop in training."""

    image: np.ndarray  # (N, N, 3) float32 in [0, 255]
    labels: np.ndarray  # (N, N) uint8; 255: unknown
    person: np.ndarray  # (N, N) float32 in [0, 1]
    points: np.ndarray  # (468, 2) mesh in pixels of the crop; NaN where there is none

    @property
    def size(self) -> int:
        return len(self.labels)

    def places(self) -> tuple[np.ndarray, np.ndarray, float]:
        """across, down, and half the face's width in the same unit."""
        parts = MeshParts(self.points)
        across, down = parts.places(self.size)
        right, left = parts.eyes
        unit = np.linalg.norm(self.points[152] - (right + left) / 2)
        axis = (left - right) / np.linalg.norm(left - right)
        first, last = parts.at(SIDES)
        return across, down, max(float(abs((last - first) @ axis) / 2 / unit), 0.4)

    def painted(
        self, where: np.ndarray, colours: np.ndarray, label: int | None = None, strength: float = 1
    ) -> "Sample":
        """Colours (N, N, 3) laid on where a mask is, with soft borders; labels there set."""
        share = strength * soft(where)[..., None]
        image = self.image * (1 - share) + colours.clip(0, 255) * share
        labels = self.labels if label is None else np.where(where, np.uint8(label), self.labels)
        return replace(self, image=image.astype(np.float32), labels=labels)


def changed(sample: Sample, random: Random) -> Sample:
    """A portrait with a few of these changes."""
    for chance, change in CHANGES:
        if random.random() < chance:
            sample = change(sample, random)
    return sample


def with_other_hair(sample: Sample, random: Random) -> Sample:
    hair = sample.labels == ID["hair"]
    if hair.sum() < 100:
        return sample
    light = sample.image.mean(-1, keepdims=True)
    colour = np.array(HAIR_COLOURS[random.integers(len(HAIR_COLOURS))]) * random.uniform(0.7, 1.3)
    shade = np.clip(light / max(light[hair].mean(), 12), 0.2, 2.2) ** random.uniform(0.6, 1.2)
    return sample.painted(hair, colour * shade, strength=random.uniform(0.6, 1))


def with_other_cloth(sample: Sample, random: Random) -> Sample:
    cloth, hair = sample.labels == ID["cloth"], sample.labels == ID["hair"]
    if cloth.sum() < 60:
        return sample
    light = sample.image.mean(-1, keepdims=True)
    kind = random.random()
    colour = random.uniform(0, 255, 3)
    if kind < 0.25 and hair.any():  # as the hair
        colour = sample.image[hair].mean(0) * random.uniform(0.7, 1.2)
    elif kind < 0.5:  # dark, or white
        colour = random.choice([30, 225]) + random.normal(0, 15) + random.normal(0, 7, 3)
    made = colour + (light - light[cloth].mean()) / 255 * random.uniform(60, 300)
    if random.random() < 0.3:  # striped
        y, x = np.mgrid[: sample.size, : sample.size]
        turn, width = random.uniform(0, np.pi), random.uniform(0.15, 0.9)
        wave = np.sin((x * np.cos(turn) + y * np.sin(turn)) * width)
        made = made + (wave > random.uniform(-0.5, 0.7))[..., None] * random.uniform(-80, 80, 3)
    return sample.painted(cloth, made)


def with_bare_neckline(sample: Sample, random: Random) -> Sample:
    cloth, neck = sample.labels == ID["cloth"], sample.labels == ID["neck"]
    skin = neck if neck.sum() > 60 else sample.labels == ID["skin"]
    if cloth.sum() < 60 or skin.sum() < 60:
        return sample
    across, down, half = sample.places()
    depth = random.uniform(1.0, 1.9) if random.random() < 0.7 else 9
    line = depth - random.uniform(0, 0.9) * np.abs(across / half) ** random.uniform(0.7, 2)
    shade = clouds(sample.size, random).mean(-1, keepdims=True)
    shade = (shade - shade.mean()) / (shade.std() + 1) * random.uniform(0.03, 0.12)
    colour = np.median(sample.image[skin], 0) * random.uniform(0.8, 1.12)
    made = colour * (1 + shade + random.normal(0, 0.12) * across[..., None])
    return sample.painted(cloth & (down < line + 0.05 * waves(across, random)), made, ID["neck"])


def with_long_hair(sample: Sample, random: Random) -> Sample:
    hair = sample.labels == ID["hair"]
    if hair.sum() < 200:
        return sample
    across, down, half = sample.places()
    size = sample.size
    made = _strands(sample, random)
    where = np.zeros((size, size), bool)
    end = random.uniform(0.8, 2.2) + 0.05 * waves(3 * across, random)
    for side in (-1, 1):
        if random.random() < 0.15:
            continue
        out = side * across
        inner = half * random.uniform(0.7, 1.02) + 0.04 * waves(down, random)
        outer = half * random.uniform(1.2, 1.9) + 0.06 * waves(down, random)
        outer = outer + random.uniform(-0.1, 0.4) * np.clip(down - 0.3, 0, 2)
        outer = inner + (outer - inner) * np.clip((down + 0.5) / 0.7, 0, 1) ** 0.5
        where |= (out > inner) & (out < outer) & (down > -0.5) & (down < end)
    where &= ~np.isin(sample.labels, DRAWN)
    person = np.where(
        where, np.minimum(sample.person + 0.9, random.uniform(0.85, 1)), sample.person
    )
    return replace(sample.painted(where, made, ID["hair"]), person=person.astype(np.float32))


def with_fringe(sample: Sample, random: Random) -> Sample:
    """Hair over the forehead, and over the brows of some."""
    hair = sample.labels == ID["hair"]
    if hair.sum() < 200:
        return sample
    across, down, half = sample.places()
    line = random.uniform(-0.5, -0.1) + 0.05 * waves(6 * across, random)
    line = line + random.normal(0, 0.2) * across / half  # swept to a side
    parting = random.uniform(-0.6, 0.6) * half
    if random.random() < 0.5:
        line = line - random.uniform(0.1, 0.5) * np.exp(-(((across - parting) / 0.12) ** 2))
    else:  # one side alone
        line = np.where((across > parting) == (random.random() < 0.5), line, -9)
    where = (down < line) & np.isin(sample.labels, OVER_BROWS)
    return sample.painted(where, _strands(sample, random), ID["hair"])


def with_hat(sample: Sample, random: Random) -> Sample:
    """A dome over the head, with a brim at times."""
    across, down, half = sample.places()
    wide = half * random.uniform(1.15, 1.5)
    rim = random.uniform(-0.62, -0.22) + random.uniform(-0.1, 0.35) * (across / half) ** 2
    rim = rim + random.normal(0, 0.1) * across
    top = random.uniform(-1.6, -1.0)
    dome = np.abs(across / wide) ** random.uniform(2, 5) + np.abs(np.clip(down / top, 0, 9)) ** 3
    where = (dome < 1) & (down < rim)
    if random.random() < 0.4:
        reach, thick = random.uniform(1.2, 2.4) * half, random.uniform(0.05, 0.16)
        where |= (np.abs(across) < reach) & (down < rim) & (down > rim - thick)
    person = np.where(where, np.float32(random.uniform(0.7, 1)), sample.person)
    made = sample.painted(where, _fabric(sample, random), ID["hat"])
    return replace(made, person=person.astype(np.float32))


def with_shoulder(sample: Sample, random: Random) -> Sample:
    """Cloth that reaches higher beside the neck."""
    across, down, half = sample.places()
    where = np.zeros(across.shape, bool)
    for side in (-1, 1):
        if random.random() < 0.3:
            continue
        out = side * across / half
        line = random.uniform(0.35, 1.3) + random.uniform(-0.5, 0.2) * (out - 1.2)
        line = line + 0.05 * waves(3 * across, random)
        where |= (out > random.uniform(0.6, 1.1)) & (down > line)
    where &= np.isin(sample.labels, [0, ID["cloth"], ID["neck"]])
    person = np.where(where, np.float32(random.uniform(0.5, 1)), sample.person)
    made = sample.painted(where, _fabric(sample, random), ID["cloth"])
    return replace(made, person=person.astype(np.float32))


def with_hand(sample: Sample, random: Random) -> Sample:
    """A hand beside the face or before it: label maps call it background."""
    skin = sample.labels == ID["skin"]
    if skin.sum() < 200:
        return sample
    across, down, half = sample.places()
    side = random.choice([-1, 1])
    x, y = side * random.uniform(0.4, 1.5) * half, random.uniform(0.5, 1.25)
    turn = random.uniform(-0.9, 0.9)
    u = (across - x) * np.cos(turn) + (down - y) * np.sin(turn)
    v = (down - y) * np.cos(turn) - (across - x) * np.sin(turn)
    size = random.uniform(0.22, 0.38)
    where = (np.abs(u / size) ** 3 + np.abs(v / size / 1.1) ** 3 < 1) | (
        (np.abs(u) < 0.7 * size) & (v > 0)  # the arm
    )
    shade = np.zeros_like(across)
    for place in np.linspace(-0.75, 0.75, 4):
        long, thick = random.uniform(0.6, 1.9) * size, random.uniform(0.17, 0.24) * size
        finger = (np.hypot(u - place * size, np.clip(-v - long, 0, 9)) < thick) & (v < 0)
        where |= finger
        shade = np.maximum(shade, np.exp(-(((u - place * size) / thick / 0.5) ** 2)))
    colour = np.median(sample.image[skin], 0) * random.uniform(0.75, 1.15)
    light = 0.8 + 0.25 * shade + random.normal(0, 0.2) * u / size
    made = colour * light[..., None] + random.normal(0, 4, (sample.size, sample.size, 1))
    person = np.where(where, np.float32(random.uniform(0.6, 1)), sample.person)
    done = sample.painted(where, made, ID["background"])
    return replace(done, person=person.astype(np.float32))


def _strands(sample: Sample, random: Random) -> np.ndarray:
    """(N, N, 3): the colour of a sample's hair in strands that hang down."""
    size, hair = sample.size, sample.labels == ID["hair"]
    strands = np.zeros((size, size), np.float32)
    for weight, shape in ((1, (8, 64)), (0.5, (5, 120))):
        rough = Image.fromarray(random.normal(size=shape).astype(np.float32))
        strands += weight * np.asarray(rough.resize((size, size), Image.Resampling.BICUBIC))
    spread = min(float(sample.image[hair].mean(-1).std()), 35)
    return np.median(sample.image[hair], 0) + 0.7 * spread * strands[..., None]


def _fabric(sample: Sample, random: Random) -> np.ndarray:
    """(N, N, 3): cloth of any colour, as dark as most, or as the hair; folds, weave or fur."""
    hair = sample.labels == ID["hair"]
    kind = random.random()
    if kind < 0.2 and hair.any():
        colour = np.median(sample.image[hair], 0) * random.uniform(0.7, 1.3)
    elif kind < 0.5:
        colour = random.uniform(8, 60) + random.normal(0, 6, 3)
    else:
        colour = random.uniform(0, 255, 3)
    folds = clouds(sample.size, random).mean(-1, keepdims=True)
    folds = (folds - folds.mean()) / (folds.std() + 1) * random.uniform(2, 30)
    grain = random.normal(0, random.choice([1, 4, 14]), (sample.size, sample.size, 1))
    return colour + folds + grain


def with_necklace(sample: Sample, random: Random) -> Sample:
    across, down, half = sample.places()
    low, width = random.uniform(1.12, 1.5), random.uniform(0.015, 0.045)
    line = low - random.uniform(0.2, 0.6) * (across / half) ** 2
    where = (np.abs(down - line) < width) & (sample.labels == ID["neck"])
    return sample.painted(where, metal(sample.size, random), ID["neck_l"])


def with_earrings(sample: Sample, random: Random) -> Sample:
    across, down, half = sample.places()
    colours = metal(sample.size, random)
    over_hair = random.random() < 0.7
    for side in (-1, 1):
        if random.random() < 0.15:
            continue
        x = across - side * half * random.uniform(1.02, 1.12)
        y = down - random.uniform(0.5, 0.68)
        kind = random.integers(3)
        if kind == 0:  # stud
            where = np.hypot(x, y) < random.uniform(0.03, 0.07)
        elif kind == 1:  # drop
            long, width = random.uniform(0.12, 0.4), random.uniform(0.025, 0.07)
            where = (np.abs(x) < width * (0.5 + np.clip(y / long, 0, 1))) & (y > -0.02) & (y < long)
        else:  # hoop
            radius = random.uniform(0.1, 0.22)
            ring = np.hypot(x / random.uniform(0.5, 1), y - radius) - radius
            where = np.abs(ring) < random.uniform(0.015, 0.035)
        where &= (sample.labels != ID["skin"]) | (np.abs(across) > 0.97 * half)
        if not over_hair:
            where &= sample.labels != ID["hair"]
        sample = sample.painted(where, colours, ID["ear_r"])
    return sample


CHANGES: tuple[tuple[float, Callable[[Sample, Random], Sample]], ...] = (
    (0.35, with_other_hair),
    (0.5, with_other_cloth),
    (0.4, with_bare_neckline),
    (0.3, with_shoulder),
    (0.3, with_long_hair),
    (0.25, with_fringe),
    (0.1, with_hat),
    (0.12, with_necklace),
    (0.15, with_earrings),
    (0.15, with_hand),
)
"""What happens to portraits, and how often."""


def with_glasses(sample: Sample, random: Random) -> Sample:
    """Glasses drawn over the eyes: frame, lenses, bridge, temples, reflections, shadow."""
    parts = MeshParts(sample.points)
    right, left = parts.eyes
    apart = float(np.linalg.norm(left - right))
    across = (left - right) / apart
    down = np.array([-across[1], across[0]])
    width = random.uniform(0.34, 0.46) * apart
    height, corner = width * random.uniform(0.5, 0.98), random.uniform(2, 5)
    drop, dark = random.uniform(-0.02, 0.12) * apart, random.random() < 0.18
    tip = sample.points[4]
    turned = (np.linalg.norm(tip - right) - np.linalg.norm(tip - left)) / apart
    canvas = (sample.size * SUPERSAMPLING,) * 2
    frame, lens = Image.new("L", canvas), Image.new("L", canvas)
    draw, fill = ImageDraw.Draw(frame), ImageDraw.Draw(lens)
    thick = max(1, round(random.choice([0.012, 0.02, 0.035, 0.055, 0.08]) * apart * SUPERSAMPLING))
    rim, angle = random.random(), np.linspace(0, 2 * np.pi, 48, endpoint=False)
    bridge = []
    for eye, side, temple in ((right, -1, 127), (left, 1, 356)):
        wide = width * np.clip(1 - 0.5 * side * turned, 0.6, 1.15)
        x, y = (
            np.sign(f(angle)) * np.abs(f(angle)) ** (2 / corner) * edge
            for f, edge in ((np.cos, wide), (np.sin, height))
        )
        outline = eye + drop * down + x[:, None] * across + y[:, None] * down
        fill.polygon(_corners(outline), fill=255)
        shown = outline if rim < 0.8 else outline[np.sin(angle) < 0.1] if rim < 0.9 else None
        if shown is not None:
            closed = np.concatenate([shown, shown[:2]]) if rim < 0.8 else shown
            draw.line(_corners(closed), fill=255, width=thick, joint="curve")
        bridge.append(eye - side * wide * across + (drop - 0.06 * apart) * down)
        hinge, ear = (
            eye + side * wide * across + (drop - 0.3 * height) * down,
            sample.points[temple],
        )
        if (ear - hinge) @ (side * across) > 0.02 * apart:
            draw.line(_corners(np.stack([hinge, ear])), fill=255, width=max(1, round(0.8 * thick)))
    draw.line(_corners(np.stack(bridge)), fill=255, width=thick)
    small = (sample.size,) * 2
    on_frame, on_lens = (
        np.asarray(layer.resize(small, Image.Resampling.BOX), np.float32) / 255
        for layer in (frame, lens)
    )
    tint = random.uniform(0, 60, 3) if dark else random.uniform(60, 255, 3)
    share = (random.uniform(0.6, 0.98) if dark else random.choice([0, 0.05, 0.12, 0.2])) * on_lens
    image = sample.image * (1 - share[..., None]) + share[..., None] * tint
    if random.random() < 0.5:  # a reflection
        y, x = np.mgrid[: sample.size, : sample.size]
        slope = random.normal(size=2)
        wave = np.sin((x * slope[0] + y * slope[1]) * 0.12 + random.uniform(0, 6))
        shine = np.clip(np.clip(wave - 0.6, 0, 1) * random.uniform(0.2, 1.2), 0, 0.8) * on_lens
        image = image + (255 - image) * shine[..., None]
    if random.random() < 0.4:  # the frame's shadow
        image = image * (1 - 0.25 * np.roll(on_frame, 2, 0)[..., None])
    colour = random.uniform(0, 70, 3) if random.random() < 0.6 else random.uniform(0, 230, 3)
    image = image * (1 - on_frame[..., None]) + on_frame[..., None] * colour
    eyes = np.isin(sample.labels, SEEN_THROUGH)
    where = ((on_frame > 0.4) | (on_lens > 0.5)) & ((sample.labels != 0) | (on_lens > 0.5))
    where &= ~eyes | dark
    where &= (sample.labels != ID["hair"]) | (on_frame >= 0.5)
    labels = np.where(where, np.uint8(ID["eye_g"]), sample.labels)
    return replace(sample, image=image.clip(0, 255).astype(np.float32), labels=labels)


def with_background(sample: Sample, other: np.ndarray, random: Random) -> Sample:
    """The person before a part of another picture (M, M, 3), or before clouds of colour."""
    size, kind = sample.size, random.random()
    own = np.isin(sample.labels, [ID["hair"], ID["cloth"]])
    if kind < 0.5:
        behind = clouds(size, random)
    elif kind < 0.7 and own.any():  # of the colour of hair or cloth
        pixel = sample.image[own][random.integers(own.sum())]
        behind = pixel + (clouds(size, random) - 128) * random.uniform(0.02, 0.3)
        behind = behind.clip(0, 255)
    else:
        side = len(other) * random.uniform(0.15, 0.6)
        left, top = random.uniform(0, len(other) - side, 2)
        box = (left, top, left + side, top + side)
        part = Image.fromarray(other).resize((size, size), Image.Resampling.BILINEAR, box)
        behind = np.asarray(part, np.float32)
    share = np.clip((soft(sample.labels != 0) - 0.25) / 0.5, 0, 1)
    share = np.where(sample.labels == UNKNOWN, 1, share)[..., None]
    image = sample.image * share + behind * (1 - share)
    return replace(sample, image=image.astype(np.float32))


def with_wrong_outline(sample: Sample, random: Random) -> Sample:
    """The person's outline mistaken in places, or unknown."""
    if random.random() < 0.25:
        return replace(sample, person=np.full_like(sample.person, 0.5))
    rough = Image.fromarray(random.normal(size=(6, 6)).astype(np.float32))
    blobs = np.asarray(rough.resize((sample.size,) * 2, Image.Resampling.BICUBIC))
    error = random.choice([-1, 1]) * random.uniform(0.2, 0.9)
    wrong = np.clip(sample.person + error, 0, 1)
    person = np.where(blobs > random.uniform(1, 2), wrong, sample.person)
    return replace(sample, person=person.astype(np.float32))


def _corners(points: np.ndarray) -> list[tuple[float, float]]:
    return [(x, y) for x, y in (points * SUPERSAMPLING - 0.5).tolist()]
