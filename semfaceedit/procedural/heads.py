"""Procedural identities: every number that describes one head, drawn from its seed.

Lengths are in **head units**: the face template of the camera's convention has its eyes at
(+-0.31, 0.09), its nose tip at (0, -0.25, 0.55) and its mouth corners at (+-0.25, -0.58), and one
unit is `HEAD_UNIT` world units. Colours are sRGB in [0, 1].
"""

import math
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import numpy as np
from numpy.random import Generator

from ..model.camera import CameraConfig

HEAD_UNIT = 0.089  # world units

Color = tuple[float, float, float]
HairStyle = Literal["short", "crop", "quiff", "long", "bob", "curly", "bun", "receding", "bald"]
HatStyle = Literal["beanie", "cap", "brim"]
Neckline = Literal["crew", "vee", "collar", "turtle", "jacket"]
Pattern = Literal["plain", "stripes", "bands", "buttons"]

SKIN_TONES = ((88, 54, 38), (128, 82, 58), (176, 122, 90), (212, 160, 126), (240, 200, 172))
HAIR_COLORS = (
    (22, 18, 18), (46, 31, 24), (78, 50, 33), (112, 70, 42), (124, 66, 40), (176, 128, 74),
    (216, 178, 116), (226, 206, 164), (128, 124, 122), (196, 194, 192), (150, 78, 44),
)  # fmt: skip
HAIR_WEIGHTS = (0.2, 0.2, 0.16, 0.1, 0.06, 0.09, 0.08, 0.03, 0.03, 0.02, 0.03)
EYE_COLORS = ((62, 38, 22), (92, 60, 32), (74, 108, 140), (104, 142, 172), (90, 112, 66))


@dataclass(frozen=True)
class HeadParameters:
    """Shape and colours of skull, features and skin."""

    width: float  # factors on the average head
    cranium: float
    jaw_width: float
    jaw_depth: float
    chin_width: float
    chin_y: float
    cheek: float
    neck_radius: float
    eye_x: float
    eye_y: float
    eye_width: float
    lid_upper: float
    lid_lower: float
    eye_tilt: float
    iris: float
    gaze: tuple[float, float]
    brow_y: float
    brow_arch: float
    brow_tilt: float
    brow_thickness: float
    nose_tip: tuple[float, float]  # y, z
    nose_width: float
    nose_bridge: float
    mouth_y: float
    mouth_width: float
    smile: float
    lip_upper: float
    lip_lower: float
    mouth_open: float  # height of the gap between the lips, 0 when closed
    ear_size: float
    ear_angle: float
    skin: Color
    lip: Color
    iris_color: Color
    brow_color: Color
    blush: float
    makeup: float
    beard: float


@dataclass(frozen=True)
class Hair:
    """Style, extent and colour of the hair, of the hat and of how strands run."""

    style: HairStyle
    thickness: float
    hairline: float  # y of the hairline above the nose
    opening: float  # half-width of the face opening
    locks: float  # how far single locks reach over the forehead
    sides: float  # thickness at the sides, relative to the top
    sweep: float  # shear of the hairline: hair combed to one side
    parting: float  # depth of the notch where the hair parts
    parting_x: float
    length: float  # y where hanging hair ends
    tucked: bool  # hanging hair worn behind the ears
    spread: float  # how far hanging hair stands off
    wave: float
    wave_phase: float
    curl: float
    phases: tuple[float, float, float, float]
    color: Color
    shine: float
    hat: HatStyle | None
    hat_color: Color
    hat_trim: Color


@dataclass(frozen=True)
class Garment:
    """Cloth, its neckline and the necklace."""

    neckline: Neckline
    pattern: Pattern
    shoulder_y: float
    color: Color
    second: Color
    frequency: float
    phase: float
    necklace: Literal["chain", "beads"] | None
    necklace_color: Color


@dataclass(frozen=True)
class Accessories:
    """Glasses and earrings."""

    glasses: Literal["round", "square", "dark"] | None
    frame_color: Color
    frame_radius: float
    earrings: Literal["stud", "drop", "hoop"] | None
    earring_color: Color


@dataclass(frozen=True)
class Backdrop:
    """Colours of the plane behind the head: a gradient and soft discs (x, y, radius, weight)."""

    first: Color
    second: Color
    angle: float
    discs: tuple[tuple[float, float, float, float, Color], ...]


@dataclass(frozen=True)
class Light:
    """Direction towards the key light, and strengths."""

    direction: tuple[float, float, float]
    key: float
    ambient: float
    warmth: float


@dataclass(frozen=True)
class Head:
    """Everything that one seed decides."""

    seed: int
    pose: tuple[float, float]  # yaw, pitch in radians
    face: HeadParameters
    hair: Hair
    garment: Garment
    accessories: Accessories
    backdrop: Backdrop
    light: Light = field(repr=False)


def sample_head(seed: int, config: CameraConfig) -> Head:
    """The head of `seed`: independent streams for pose, shape and each group's appearance."""
    streams = [np.random.default_rng([seed, stream]) for stream in range(8)]
    feminine = bool(streams[1].random() < 0.58)
    hair = _sample_hair(streams[2], streams[3], feminine)
    accessories = _sample_accessories(streams[6], feminine)
    if hair.style in ("long", "bob", "curly") and not hair.tucked:
        accessories = replace(accessories, earrings=None)  # hair covers the ears
    yaw, pitch = streams[0].normal(0.0, (config.yaw_std, config.pitch_std))
    return Head(
        seed=seed,
        pose=(float(yaw), float(pitch)),
        face=_sample_face(streams[1], streams[4], feminine),
        hair=hair,
        garment=_sample_garment(streams[5], feminine),
        accessories=accessories,
        backdrop=_sample_backdrop(streams[7]),
        light=_sample_light(streams[0]),
    )


def _normal(rng: Generator, mean: float, std: float) -> float:
    """A Gaussian cut at two standard deviations."""
    return mean + std * float(np.clip(rng.standard_normal(), -2.0, 2.0))


def _uniform(rng: Generator, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _scale(color: tuple[int, int, int]) -> Color:
    return (color[0] / 255, color[1] / 255, color[2] / 255)


def _mix(a: Color, b: Color, weight: float) -> Color:
    mixed = [x + (y - x) * weight for x, y in zip(a, b, strict=True)]
    return (mixed[0], mixed[1], mixed[2])


def _shift(rng: Generator, color: Color, amount: float) -> Color:
    """Vary brightness and, less, hue."""
    gain = 1.0 + _normal(rng, 0.0, amount)
    shifted = [min(max(c * gain * (1 + _normal(rng, 0.0, amount / 4)), 0.02), 0.97) for c in color]
    return (shifted[0], shifted[1], shifted[2])


def _hsv(hue: float, saturation: float, value: float) -> Color:
    def channel(n: float) -> float:
        k = (n + hue * 6.0) % 6.0
        return value * (1.0 - saturation * max(0.0, min(k, 4.0 - k, 1.0)))

    return (channel(5.0), channel(3.0), channel(1.0))


def _sample_face(shape: Generator, paint: Generator, feminine: bool) -> HeadParameters:
    f = 1.0 if feminine else 0.0
    skin = _sample_skin(paint)
    open_mouth = shape.random() < 0.45
    smile = max(_normal(shape, 0.30, 0.27), -0.2) + (0.35 if open_mouth else 0.0)
    eye_x, eye_y = _normal(shape, 0.31, 0.014), _normal(shape, 0.09, 0.015)
    lip_tint = (0.70, 0.16, 0.20) if feminine and paint.random() < 0.55 else (0.66, 0.30, 0.29)
    return HeadParameters(
        width=_normal(shape, 1.0, 0.035),
        cranium=_normal(shape, 1.0, 0.03),
        jaw_width=_normal(shape, 1.0 - 0.09 * f, 0.07),
        jaw_depth=_normal(shape, 0.0, 0.03),
        chin_width=_normal(shape, 1.1 - 0.22 * f, 0.12),
        chin_y=_normal(shape, -0.85 + 0.02 * f, 0.025),
        cheek=_normal(shape, 1.0, 0.12),
        neck_radius=_normal(shape, 0.39 - 0.07 * f, 0.022),
        eye_x=eye_x,
        eye_y=eye_y,
        eye_width=_normal(shape, 0.135 + 0.006 * f, 0.007),
        lid_upper=_normal(shape, 0.066 + 0.008 * f, 0.008),
        lid_lower=_normal(shape, 0.040, 0.005),
        eye_tilt=_normal(shape, 0.010, 0.010),
        iris=_normal(shape, 0.063, 0.003),
        gaze=(_normal(shape, 0.0, 0.012), _normal(shape, 0.004, 0.005)),
        brow_y=_normal(shape, eye_y + 0.185 + 0.02 * f, 0.016),
        brow_arch=_normal(shape, 0.03 + 0.02 * f, 0.014),
        brow_tilt=_normal(shape, 0.01, 0.018),
        brow_thickness=_normal(shape, 0.040 - 0.010 * f, 0.005),
        nose_tip=(_normal(shape, -0.25, 0.022), _normal(shape, 0.54, 0.03)),
        nose_width=_normal(shape, 1.04 - 0.1 * f, 0.11),
        nose_bridge=_normal(shape, 1.0, 0.15),
        mouth_y=_normal(shape, -0.565, 0.018),
        mouth_width=_normal(shape, 0.242, 0.014) + 0.022 * smile,
        smile=smile,
        lip_upper=_normal(shape, 0.050 + 0.012 * f, 0.009),
        lip_lower=_normal(shape, 0.070 + 0.014 * f, 0.010),
        mouth_open=_uniform(shape, 0.05, 0.13) if open_mouth else 0.0,
        ear_size=_normal(shape, 1.0, 0.09),
        ear_angle=_normal(shape, 0.30, 0.10),
        skin=skin,
        lip=_shift(paint, _mix(skin, lip_tint, _uniform(paint, 0.45, 0.75)), 0.06),
        iris_color=_shift(
            paint, _scale(EYE_COLORS[int(paint.choice(5, p=(0.36, 0.24, 0.16, 0.14, 0.1)))]), 0.1
        ),
        brow_color=_mix(
            _shift(paint, (0.16, 0.11, 0.085), 0.25), skin, 0.05 + 0.3 * float(paint.random()) ** 2
        ),
        blush=_uniform(paint, 0.05, 0.35) + 0.15 * f,
        makeup=_uniform(paint, 0.2, 0.7) * f,
        beard=_uniform(paint, 0.25, 0.85) if not feminine and paint.random() < 0.35 else 0.0,
    )


def _sample_skin(rng: Generator) -> Color:
    position = float(rng.beta(2.6, 1.3)) * (len(SKIN_TONES) - 1)
    index = min(int(position), len(SKIN_TONES) - 2)
    tone = _mix(_scale(SKIN_TONES[index]), _scale(SKIN_TONES[index + 1]), position - index)
    return _shift(rng, tone, 0.025)


def _sample_hair(shape: Generator, paint: Generator, feminine: bool) -> Hair:
    styles = get_args(HairStyle)
    weights = (
        (0.03, 0.02, 0.01, 0.50, 0.20, 0.12, 0.12, 0.0, 0.0)
        if feminine
        else (0.32, 0.16, 0.20, 0.05, 0.03, 0.08, 0.02, 0.09, 0.05)
    )
    style: HairStyle = styles[int(shape.choice(len(styles), p=weights))]
    hanging = style in ("long", "bob")
    fringe = bool(shape.random() < (0.28 if style in ("long", "bob", "short", "bun") else 0.0))
    parted = not fringe and bool(shape.random() < (0.75 if hanging else 0.3))
    hairline = _normal(shape, 0.66, 0.035)
    if fringe:
        hairline = _normal(shape, 0.40, 0.03)
    if style == "receding":
        hairline = _normal(shape, 0.84, 0.03)
    thickness = {"crop": 0.035, "bun": 0.05, "receding": 0.03, "bald": 0.02, "quiff": 0.08}
    length = _normal(shape, -1.45, 0.25) if style == "long" else _normal(shape, -0.62, 0.12)
    hat_styles = get_args(HatStyle)
    hat = hat_styles[int(shape.integers(3))] if shape.random() < 0.045 else None
    color = _shift(
        paint, _scale(HAIR_COLORS[int(paint.choice(len(HAIR_COLORS), p=HAIR_WEIGHTS))]), 0.10
    )
    hat_color = _hsv(float(paint.random()), _uniform(paint, 0.1, 0.75), _uniform(paint, 0.15, 0.85))
    return Hair(
        style=style,
        thickness=max(_normal(shape, thickness.get(style, 0.10), 0.015), 0.02),
        hairline=hairline,
        opening=_normal(shape, 0.55 if hanging else 0.60, 0.02),
        locks=_uniform(shape, 0.0, 0.03) * (1.0 if fringe else 0.6),
        sides=_uniform(shape, 0.6, 1.1)
        if hanging or style == "curly"
        else _uniform(shape, 0.3, 0.8),
        sweep=_normal(shape, 0.0, 0.14),
        parting=_uniform(shape, 0.25, 0.5) if parted else 0.0,
        parting_x=_uniform(shape, -0.28, 0.28) if parted else 0.0,
        length=length,
        tucked=hanging and bool(shape.random() < 0.4),
        spread=_uniform(shape, 0.0, 0.10),
        wave=_uniform(shape, 0.0, 0.05) if hanging else 0.0,
        wave_phase=_uniform(shape, 0.0, 2 * math.pi),
        curl=_uniform(shape, 0.12, 0.3) * (0.4 if hat else 1.0) if style == "curly" else 0.0,
        phases=tuple(float(p) for p in shape.uniform(0.0, 2 * math.pi, 4)),  # type: ignore[arg-type]
        color=color,
        shine=_uniform(paint, 0.25, 0.8),
        hat=hat,
        hat_color=hat_color,
        hat_trim=_mix(hat_color, (0.9, 0.88, 0.84), _uniform(paint, 0.1, 0.6)),
    )


def _sample_garment(rng: Generator, feminine: bool) -> Garment:
    weights = (0.30, 0.34, 0.12, 0.10, 0.14) if feminine else (0.36, 0.12, 0.22, 0.08, 0.22)
    necklines = get_args(Neckline)
    neckline: Neckline = necklines[int(rng.choice(len(necklines), p=weights))]
    patterns = get_args(Pattern)
    saturation = _uniform(rng, 0.05, 0.75) * float(rng.random() < 0.75)
    color = _hsv(float(rng.random()), saturation, _uniform(rng, 0.12, 0.92))
    second = _hsv(float(rng.random()), _uniform(rng, 0.0, 0.4), _uniform(rng, 0.6, 0.95))
    gold = _mix((0.85, 0.66, 0.28), (0.85, 0.85, 0.87), float(rng.random() < 0.4))
    necklace = rng.random() < (0.13 if feminine else 0.02)
    return Garment(
        neckline=neckline,
        pattern=patterns[int(rng.choice(len(patterns), p=(0.58, 0.16, 0.14, 0.12)))],
        shoulder_y=_normal(rng, -0.99, 0.035),
        color=color,
        second=second,
        frequency=_uniform(rng, 14.0, 26.0),
        phase=_uniform(rng, 0.0, 2 * math.pi),
        necklace=("beads" if rng.random() < 0.5 else "chain") if necklace else None,
        necklace_color=gold if rng.random() < 0.7 else second,
    )


def _sample_accessories(rng: Generator, feminine: bool) -> Accessories:
    kind = rng.choice(3, p=(0.35, 0.4, 0.25))
    glasses = ("round", "square", "dark")[int(kind)] if rng.random() < 0.06 else None
    frame = _hsv(float(rng.random()), _uniform(rng, 0.0, 0.5), _uniform(rng, 0.05, 0.4))
    shapes = ("stud", "drop", "hoop")
    worn = rng.random() < (0.75 if feminine else 0.04)
    metal = (0.86, 0.70, 0.34) if rng.random() < 0.6 else (0.84, 0.85, 0.88)
    bright = _hsv(float(rng.random()), 0.6, 0.8)
    return Accessories(
        glasses=glasses,  # type: ignore[arg-type]
        frame_color=frame,
        frame_radius=_normal(rng, 0.205, 0.012),
        earrings=shapes[int(rng.integers(3))] if worn else None,  # type: ignore[arg-type]
        earring_color=metal if rng.random() < 0.75 else bright,
    )


def _sample_backdrop(rng: Generator) -> Backdrop:
    hue = float(rng.random())
    base = _hsv(hue, _uniform(rng, 0.0, 0.4), _uniform(rng, 0.2, 0.9))
    other = _hsv(
        (hue + _normal(rng, 0, 0.12)) % 1, _uniform(rng, 0.0, 0.45), _uniform(rng, 0.1, 0.95)
    )
    discs = []
    for _ in range(int(rng.integers(0, 6))):
        color = _hsv((hue + _normal(rng, 0, 0.2)) % 1, _uniform(rng, 0, 0.7), _uniform(rng, 0.2, 1))
        x, y = _uniform(rng, -1.6, 1.6), _uniform(rng, -1.3, 1.3)
        discs.append((x, y, _uniform(rng, 0.2, 0.7), _uniform(rng, 0.2, 0.7), color))
    return Backdrop(base, other, _uniform(rng, 0.0, 2 * math.pi), tuple(discs))


def _sample_light(rng: Generator) -> Light:
    azimuth, elevation = _normal(rng, 0.0, 0.45), _normal(rng, 0.55, 0.18)
    direction = (
        math.sin(azimuth) * math.cos(elevation),
        math.sin(elevation),
        math.cos(azimuth) * math.cos(elevation),
    )
    return Light(
        direction, _normal(rng, 0.95, 0.1), _normal(rng, 0.42, 0.05), _normal(rng, 0, 0.06)
    )
