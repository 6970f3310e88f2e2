"""Albedo, gloss and class of points on a procedural head.

Features that are flat on a face (eyes, brows, lips) are painted on its surface in the face's own
coordinates, so that they stay in place from every view.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..model.labels import CLASS_NAMES
from .heads import Backdrop, Color, Head, HeadParameters
from .shape import (
    CLOTH,
    EARRING,
    GLASSES,
    HAIR,
    HAT,
    LENS,
    NECKLACE,
    SKIN,
    Array,
    bump,
    clip,
    lens_outline,
    mouth_frame,
    positive,
    skin_parts,
)

Ids = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
ID = {name: index for index, name in enumerate(CLASS_NAMES)}
SURFACE_CLASS = {
    CLOTH: ID["cloth"], HAIR: ID["hair"], HAT: ID["hat"], GLASSES: ID["eye_g"],
    LENS: ID["eye_g"], EARRING: ID["ear_r"], NECKLACE: ID["neck_l"],
}  # fmt: skip


@dataclass
class Paint:
    """What a surface looks like at N points before it is lit."""

    albedo: Array  # (3, N) sRGB in [0, 1]
    gloss: Array  # (N,) strength of the highlight
    labels: Ids  # (N,) class ids


def smoothstep(low: float, high: float, value: Array) -> Array:
    """0 below `low`, 1 above `high` (or the reverse), smooth between."""
    t = clip((value - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def blend(albedo: Array, color: Color | Array, weight: Array | Mask) -> Array:
    """Move `albedo` (3, N) towards a colour by `weight` (N,)."""
    target = np.reshape(np.asarray(color, np.float32), (3, -1))
    return albedo + (target - albedo) * weight.astype(np.float32, copy=False)


def fill(color: Color, like: Array) -> Array:
    """One colour everywhere: (3, N)."""
    return np.tile(np.array(color, np.float32)[:, None], (1, len(like)))


def darken(color: Color, factor: float) -> Color:
    return (color[0] * factor, color[1] * factor, color[2] * factor)


def paint_head(head: Head, surface: Ids, x: Array, y: Array, z: Array) -> Paint:
    """Paint N points (head units) that lie on the surfaces with the given ids (N,)."""
    count = len(x)
    result = Paint(
        np.zeros((3, count), np.float32), np.zeros(count, np.float32), np.zeros(count, np.uint8)
    )
    for index in np.unique(surface).tolist():
        chosen = np.nonzero(surface == index)[0]
        part = _paint_surface(head, index, x[chosen], y[chosen], z[chosen])
        result.albedo[:, chosen] = part.albedo
        result.gloss[chosen] = part.gloss
        result.labels[chosen] = part.labels
    return result


def _paint_surface(head: Head, surface: int, x: Array, y: Array, z: Array) -> Paint:
    if surface == SKIN:
        return _paint_skin(head, x, y, z)
    labels = np.full(len(x), SURFACE_CLASS[surface], np.uint8)
    if surface == HAIR:
        return Paint(_hair_albedo(head, x, y, z), np.full_like(x, head.hair.shine), labels)
    if surface == CLOTH:
        return Paint(_cloth_albedo(head, x, y, z), np.full_like(x, 0.05), labels)
    if surface == HAT:
        return Paint(_hat_albedo(head, x, y, z), np.full_like(x, 0.05), labels)
    if surface == LENS:
        color, gloss = (0.05, 0.05, 0.06), 0.9
    elif surface == GLASSES:
        color, gloss = head.accessories.frame_color, 0.5
    elif surface == EARRING:
        color, gloss = head.accessories.earring_color, 0.9
    else:
        color, gloss = head.garment.necklace_color, 0.7
    return Paint(fill(color, x), np.full_like(x, gloss), labels)


def _paint_skin(head: Head, x: Array, y: Array, z: Array) -> Paint:
    face = head.face
    labels = np.full(len(x), ID["skin"], np.uint8)
    parts = skin_parts(head, x, y, z)
    left = x > 0  # the person's left is +x, on the image's right
    nose = (parts.nose < parts.head + 0.012) & (y < face.eye_y - 0.01)
    labels[nose] = ID["nose"]
    ear = (parts.ear < parts.head) & (parts.ear < parts.neck)
    labels[ear & left], labels[ear & ~left] = ID["l_ear"], ID["r_ear"]
    neck = (parts.neck < parts.head) & ~ear & ~nose
    labels[neck] = ID["neck"]
    on_head = ~neck & ~ear
    albedo = _complexion(head, x, y, z, on_head)
    gloss = 0.16 * np.ones_like(x)
    front = (z > -0.06) & on_head
    if face.beard:
        albedo = _beard(face, albedo, x, y, z, on_head & ~nose)
    albedo = _brows(face, albedo, labels, x, y, front)
    albedo, gloss = _lips(face, albedo, gloss, labels, x, y, front & (z > 0))
    albedo, gloss = _eyes(head, albedo, gloss, labels, x, y, front)
    if head.accessories.glasses is not None:
        albedo = _through_lenses(head, albedo, labels, x, y, z)
    return Paint(albedo, gloss, labels)


def _complexion(head: Head, x: Array, y: Array, z: Array, on_head: Mask) -> Array:
    """Skin with blush, darker lids and nostrils."""
    face = head.face
    mirrored = np.abs(x)
    skin = face.skin
    albedo = fill(skin, x)
    rosy = (min(skin[0] * 1.02, 1.0), skin[1] * 0.72, skin[2] * 0.70)
    cheeks = bump((mirrored - 0.40) / 0.17, (y + 0.22) / 0.14) * (z > -0.2)
    tip = 0.5 * bump(x / 0.12, (y - face.nose_tip[0]) / 0.1, (z - face.nose_tip[1]) / 0.15)
    ears = 0.4 * ((mirrored > 0.72) & (z < -0.1))
    albedo = blend(albedo, rosy, face.blush * (cheeks + tip + ears))
    lids = bump((mirrored - face.eye_x) / 0.17, (y - face.eye_y - 0.06) / 0.06) * (z > 0)
    albedo = blend(albedo, darken(rosy, 0.62), (0.22 + 0.45 * face.makeup) * lids)
    under = bump((mirrored - face.eye_x + 0.02) / 0.12, (y - face.eye_y + 0.095) / 0.04) * (z > 0)
    albedo = blend(albedo, darken(rosy, 0.8), 0.22 * under)
    shell = bump((mirrored - 0.75 * face.width) / 0.07, (y + 0.02) / 0.10, (z + 0.32) / 0.07)
    albedo = blend(albedo, darken(rosy, 0.55), 0.5 * shell * ~on_head)
    tip_y, tip_z = face.nose_tip
    nostril = bump(
        (mirrored - 0.058 * face.nose_width) / 0.034, (y - tip_y + 0.078) / 0.020,
        (z - tip_z + 0.14) / 0.09,
    )  # fmt: skip
    return blend(albedo, darken(rosy, 0.22), nostril)


def _beard(face: HeadParameters, albedo: Array, x: Array, y: Array, z: Array, where: Mask) -> Array:
    mirrored = np.abs(x)
    line = -0.46 + 0.75 * positive(mirrored - 0.12) ** 1.5
    jaw = smoothstep(0.05, -0.06, y - line) * smoothstep(-0.42, -0.25, z)
    moustache_y = face.mouth_y + face.lip_upper + 0.055
    moustache = bump(x / (0.9 * face.mouth_width), (y - moustache_y) / 0.045)
    cover = np.maximum(jaw, moustache * (z > 0)) * where
    strands = 0.94 + 0.06 * np.sin(60 * mirrored + 25 * y)
    return blend(albedo, face.brow_color, face.beard * cover * strands)


def _brows(
    face: HeadParameters, albedo: Array, labels: Ids, x: Array, y: Array, front: Mask
) -> Array:
    along = (np.abs(x) - face.eye_x + 0.20) / 0.41
    inside = clip(along, 0, 1)
    peak = 1 - ((inside - 0.62) / 0.62) ** 2
    centre = face.brow_y + face.brow_arch * (peak - 0.4) + face.brow_tilt * inside
    thickness = face.brow_thickness * (1 - 0.7 * inside**2.5)
    off = np.abs((y - centre) / thickness)
    cover = smoothstep(1.25, 0.65, off)
    cover = cover * smoothstep(-0.05, 0.10, along) * smoothstep(1.04, 0.92, along) * front
    labels[(cover > 0.5) & (x > 0)] = ID["l_brow"]
    labels[(cover > 0.5) & (x <= 0)] = ID["r_brow"]
    strands = 0.90 + 0.06 * np.sin(95 * np.abs(x) - 60 * (y - centre))
    return blend(albedo, face.brow_color, cover * strands)


def _lips(
    face: HeadParameters, albedo: Array, gloss: Array, labels: Ids, x: Array, y: Array, front: Mask
) -> tuple[Array, Array]:
    u, v, arch = mouth_frame(face, x, y)
    gap = face.mouth_open
    bow = 1 - 0.24 * bump(u / 0.17) + 0.06 * bump((np.abs(u) - 0.32) / 0.16)
    ceiling, floor = 0.4 * gap * arch, -0.6 * gap * arch
    top = ceiling + face.lip_upper * arch**0.9 * bow
    bottom = floor - face.lip_lower * arch**0.75
    inside = front & (arch > 0)
    upper = inside & (v <= top) & (v >= ceiling)
    lower = inside & (v >= bottom) & (v < floor if gap else v < 0)
    mouth = inside & (v < ceiling) & (v >= floor) if gap else np.zeros_like(upper)
    labels[upper], labels[lower], labels[mouth] = ID["u_lip"], ID["l_lip"], ID["mouth"]
    edge = np.minimum(top - v, v - bottom)
    cover = smoothstep(-0.008, 0.014, edge) * front * (arch > 0)
    albedo = blend(albedo, face.lip, cover)
    albedo = blend(albedo, darken(face.lip, 0.72), 0.55 * upper)
    seam = bump((v - ceiling) / 0.010) + (bump((v - floor) / 0.012) if gap else 0.0)
    albedo = blend(albedo, darken(face.lip, 0.30), 0.8 * np.minimum(seam, 1) * (arch > 0) * front)
    corner = bump((np.abs(u) - 1.0) / 0.09, v / 0.022) * front
    albedo = blend(albedo, darken(face.lip, 0.40), 0.55 * corner)
    gloss = gloss + 0.25 * lower + 0.1 * upper
    if gap:
        inner = blend(
            fill((0.20, 0.05, 0.06), x),
            (0.62, 0.26, 0.28),
            smoothstep(0.35, 0.95, (ceiling - v) / (gap * arch + 1e-3)),
        )
        teeth = smoothstep(0.66, 0.56, (ceiling - v) / (gap * arch + 1e-3))
        ivory = 0.93 - 0.07 * np.maximum(np.cos(x * 75), 0.8) - 0.25 * u * u
        inner = blend(inner, np.stack([ivory, 0.97 * ivory, 0.92 * ivory]), teeth)
        albedo = np.where(mouth, inner, albedo)
        gloss = np.where(mouth, gloss * 0 + 0.1, gloss)
    return albedo, gloss


def _eyes(
    head: Head, albedo: Array, gloss: Array, labels: Ids, x: Array, y: Array, front: Mask
) -> tuple[Array, Array]:
    face = head.face
    u = (np.abs(x) - face.eye_x) / face.eye_width
    v = y - face.eye_y - face.eye_tilt * u
    arch = positive(1 - u * u)
    upper = face.lid_upper * arch**0.75 * (1 - 0.12 * u)
    lower = -face.lid_lower * arch**0.9 * (1 + 0.15 * u)
    eye = front & (np.abs(u) < 1) & (v < upper) & (v > lower)
    left = x > 0
    labels[eye & left], labels[eye & ~left] = ID["l_eye"], ID["r_eye"]
    # Lashes, thicker outwards and with make-up; the fold of the lid above them.
    width = (0.011 + 0.009 * face.makeup) * (1 + 0.5 * clip(u, -1, 1.2))
    lash = bump((v - upper - 0.3 * width) / width) * smoothstep(1.16, 0.95, np.abs(u)) * front
    rim = bump((v - lower) / 0.008) * smoothstep(1.05, 0.9, np.abs(u)) * front
    fold_y = upper + 0.030 + 0.012 * arch
    fold = bump((v - fold_y) / 0.010) * smoothstep(1.2, 0.8, np.abs(u)) * front
    albedo = blend(albedo, darken(face.skin, 0.45), 0.55 * fold)
    albedo = blend(albedo, darken(face.skin, 0.45), (0.35 + 0.3 * face.makeup) * rim)
    white = _eyeball(head, x, y, u, v, upper)
    albedo = np.where(eye, white, albedo)
    albedo = blend(albedo, (0.07, 0.05, 0.045), (0.75 + 0.25 * face.makeup) * lash)
    return albedo, np.where(eye, np.full_like(gloss, 0.12), gloss)


def _eyeball(head: Head, x: Array, y: Array, u: Array, v: Array, upper: Array) -> Array:
    """Sclera, iris, pupil and the light's reflection, (3, N)."""
    face = head.face
    side = np.copysign(np.float32(1), x)
    dx = x - side * face.eye_x - face.gaze[0]
    dy = y - face.eye_y - 0.012 - face.gaze[1]
    radius = np.sqrt(dx * dx + dy * dy) / face.iris
    ball = fill((0.93, 0.91, 0.90), x)
    ball = blend(ball, (0.75, 0.48, 0.45), 0.55 * smoothstep(0.6, 1.05, np.abs(u)))
    iris = fill(face.iris_color, x)
    iris = blend(iris, darken(face.iris_color, 0.35), smoothstep(0.65, 1.0, radius))
    glow = bump(dx / (0.6 * face.iris), (dy + 0.5 * face.iris) / (0.5 * face.iris))
    iris = iris * (1 + 0.45 * glow)
    ball = blend(ball, iris, smoothstep(1.06, 0.94, radius))
    ball = blend(ball, (0.02, 0.018, 0.018), smoothstep(0.50, 0.40, radius))
    ball = ball * (1 - 0.45 * bump(positive(upper - v) / 0.028))
    shine_x = 0.025 if head.light.direction[0] > 0 else -0.025
    shine = smoothstep(0.021, 0.013, np.sqrt((dx - shine_x) ** 2 + (dy - 0.022) ** 2))
    return blend(ball, (1.0, 1.0, 1.0), 0.95 * shine)


def _through_lenses(head: Head, albedo: Array, labels: Ids, x: Array, y: Array, z: Array) -> Array:
    """Tint what lies behind a lens; CelebAMask-HQ counts it as glasses, but not eyes and brows."""
    behind = (lens_outline(head, np.abs(x), y) < 0) & (z > -0.05)
    shown = (labels == ID["skin"]) | (labels == ID["nose"])
    labels[behind & shown] = ID["eye_g"]
    return blend(albedo, (0.75, 0.82, 0.88), 0.12 * behind)


def strands(head: Head, x: Array, y: Array, z: Array) -> Array:
    """Light and dark streaks along the hair, about [-1, 1]."""
    hair = head.hair
    p = hair.phases
    angle = np.arctan2(x - 0.6 * hair.parting_x, z + 0.42)
    bend = angle + 0.10 * np.sin(3.0 * y + p[0]) + 0.35 * hair.sweep * y
    if hair.wave:
        bend = bend + 1.2 * hair.wave * np.sin(9.0 * y + hair.wave_phase)
    if hair.curl:
        return 0.6 * np.sin(14 * x + p[0]) * np.sin(14 * y + p[1]) + 0.4 * np.sin(
            22 * z + 9 * x + p[2]
        )
    return (
        0.45 * np.sin(13 * bend + p[1])
        + 0.35 * np.sin(29 * bend + p[2] + np.sin(4 * y))
        + 0.20 * np.sin(53 * bend + p[3])
    )


def _hair_albedo(head: Head, x: Array, y: Array, z: Array) -> Array:
    hair = head.hair
    tone = 1 + 0.26 * strands(head, x, y, z) + 0.10 * smoothstep(0.6, -0.8, y)
    if hair.parting:
        part = bump((x - hair.parting_x) / 0.035) * smoothstep(0.45, 0.7, y) * (z > -0.45)
        tone = tone * (1 - 0.45 * part)
    return clip(fill(hair.color, x) * tone, 0, 1)


def _cloth_albedo(head: Head, x: Array, y: Array, z: Array) -> Array:
    garment = head.garment
    albedo = fill(garment.color, x)
    mirrored = np.abs(x)
    if garment.pattern == "stripes":
        wave = np.sin(garment.frequency * 1.6 * (y + 0.15 * mirrored) + garment.phase)
        albedo = blend(albedo, garment.second, smoothstep(-0.25, 0.25, wave))
    elif garment.pattern == "bands":
        wave = np.sin(garment.frequency * x + garment.phase)
        albedo = blend(albedo, garment.second, 0.6 * smoothstep(0.2, 0.6, wave))
    if garment.neckline == "jacket":
        edge = mirrored - 0.30 - 0.55 * (y - garment.shoulder_y)
        shirt = smoothstep(0.02, -0.02, edge) * (z > -0.35)
        albedo = blend(albedo, garment.second, shirt)
        albedo = albedo * (1 - 0.5 * bump(edge / 0.02))
    elif garment.pattern == "buttons":
        albedo = albedo * (1 - 0.35 * bump((x - 0.05) / 0.015) * (z > -0.2))
        spot = (y * 9 - np.round(y * 9)) / 9
        albedo = blend(albedo, garment.second, smoothstep(0.035, 0.025, np.sqrt(x * x + spot**2)))
    folds = np.sin(7 * mirrored + 4 * y + garment.phase) * np.sin(5 * y - 6 * x)
    return clip(albedo * (1 + 0.07 * folds), 0, 1)


def _hat_albedo(head: Head, x: Array, y: Array, z: Array) -> Array:
    hair = head.hair
    albedo = fill(hair.hat_color, x)
    height = y - 0.46 - 0.25 * z
    if hair.hat == "beanie":
        ribs = np.sin(38 * np.arctan2(x, z + 0.4))
        albedo = albedo * (1 + 0.10 * ribs)
        return clip(blend(albedo, hair.hat_trim, smoothstep(0.13, 0.11, height)), 0, 1)
    if hair.hat == "brim":
        band = smoothstep(0.20, 0.18, height) * smoothstep(0.05, 0.07, height)
        return blend(albedo, darken(hair.hat_trim, 0.5), band)
    seam = bump(np.sin(3 * np.arctan2(x, z + 0.4)) / 0.06) * (height > 0.12)
    return blend(albedo, hair.hat_trim, 0.6 * seam)


def backdrop(settings: Backdrop, x: Array, y: Array) -> Array:
    """Colours (3, N) of the background plane at x, y in head units."""
    slope = (x * math.cos(settings.angle) + y * math.sin(settings.angle)) / 2.6 + 0.5
    colors = fill(settings.first, x)
    colors = blend(colors, settings.second, smoothstep(0.0, 1.0, slope))
    for cx, cy, radius, weight, color in settings.discs:
        off = np.sqrt((x - cx) ** 2 + (y - cy) ** 2)
        colors = blend(colors, color, weight * smoothstep(radius * 1.25, radius * 0.6, off))
    return colors
