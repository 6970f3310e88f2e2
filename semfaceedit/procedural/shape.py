"""Signed distances of a procedural head, in head units, as functions of three coordinate arrays.

Every function takes x, y, z of one shape and returns distances of that shape: negative inside,
positive outside, never much more than the true distance, so that sphere tracing is safe.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .heads import Head, HeadParameters

# The surfaces of a head, in the order of `surfaces`.
SKIN, CLOTH, HAIR, HAT, GLASSES, LENS, EARRING, NECKLACE = range(8)
ABSENT = 9.0  # a distance larger than any in the scene
EAR_CENTRE = (0.71, -0.03, -0.34)

Array = npt.NDArray[Any]  # float32 throughout
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class SkinParts:
    """Distances to the components of the skin before they are blended."""

    head: Array
    nose: Array
    ear: Array
    neck: Array
    blended: Array


def positive(values: Array) -> Array:
    """Values below zero become zero."""
    return np.maximum(values, 0.0)


def clip(values: Array, low: float, high: float) -> Array:
    """np.clip without its overhead on small arrays."""
    return np.minimum(np.maximum(values, low), high)


def ellipsoid(x: Array, y: Array, z: Array, centre: Triple, radii: Triple) -> Array:
    """First-order distance to an axis-aligned ellipsoid."""
    px, py, pz = ((c - m) / r for c, m, r in zip((x, y, z), centre, radii, strict=True))
    norm = np.sqrt(px * px + py * py + pz * pz)
    px, py, pz = px / radii[0], py / radii[1], pz / radii[2]
    gradient = np.sqrt(px * px + py * py + pz * pz) + 1e-9
    return norm * (norm - 1) / gradient


def round_cone(x: Array, y: Array, z: Array, a: Triple, b: Triple, ra: float, rb: float) -> Array:
    """Distance to a capsule from `a` to `b` whose radius goes from ra to rb."""
    bx, by, bz = b[0] - a[0], b[1] - a[1], b[2] - a[2]
    px, py, pz = x - a[0], y - a[1], z - a[2]
    along = clip((px * bx + py * by + pz * bz) / (bx * bx + by * by + bz * bz), 0, 1)
    px, py, pz = px - along * bx, py - along * by, pz - along * bz
    return np.sqrt(px * px + py * py + pz * pz) - ra - (rb - ra) * along


def smooth_min(a: Array, b: Array, width: float) -> Array:
    """Union of two distances, rounded where they differ by less than `width`."""
    overlap = positive(1 - np.abs(a - b) / width)
    return np.minimum(a, b) - overlap * overlap * (width / 4)


def smooth_max(a: Array, b: Array, width: float) -> Array:
    """Intersection, rounded like `smooth_min`."""
    overlap = positive(1 - np.abs(a - b) / width)
    return np.maximum(a, b) + overlap * overlap * (width / 4)


def bump(*offsets: Array) -> Array:
    """Gaussian bump exp(-sum of squares)."""
    total = offsets[0] * offsets[0]
    for offset in offsets[1:]:
        total = total + offset * offset
    return np.exp(-total)


def mouth_frame(face: HeadParameters, x: Array, y: Array) -> tuple[Array, Array, Array]:
    """(u, v, arch): position along the mouth in [-1, 1], height above its line, 1 - u^2 >= 0."""
    u = x / face.mouth_width
    square = u * u
    line = face.mouth_y + 0.085 * face.smile * (np.minimum(square, 2.0) - 0.45)
    return u, y - line, positive(1 - square)


def relief(face: HeadParameters, x: Array, mirrored: Array, y: Array, z: Array) -> Array:
    """What is added to the head's distance in front: sockets and folds > 0, bulges < 0."""
    ex, ey = face.eye_x, face.eye_y
    depth = 0.085 * bump((mirrored - ex + 0.03) / 0.17, (y - ey - 0.045) / 0.10)
    depth -= 0.060 * bump((mirrored - ex) / 0.12, (y - ey) / 0.075)
    depth -= 0.025 * bump((mirrored - 0.27) / 0.22, (y - face.brow_y + 0.01) / 0.055)
    u, v, arch = mouth_frame(face, x, y)
    gap = face.mouth_open
    upper, lower = face.lip_upper, face.lip_lower
    s = (v - (gap * 0.4 * arch) - upper / 2) / (upper * 0.5 + 0.03)
    depth -= 0.040 * arch * positive(1 - s * s)
    s = (v + (gap * 0.6 * arch) + lower / 2) / (lower * 0.5 + 0.03)
    depth -= 0.048 * arch * positive(1 - s * s)
    if gap > 0:
        s = (v + 0.1 * gap) / (gap * 0.5 + 0.015)
        depth += 0.055 * arch * positive(1 - s * s)
    under = face.mouth_y - 0.6 * gap - lower - 0.055
    depth += 0.028 * bump(x / 0.17, (y - under) / 0.05)
    fold = mirrored - 0.13 - 0.42 * (face.nose_tip[0] - 0.02 - y)
    depth += (0.006 + 0.010 * max(face.smile, 0.0)) * bump(fold / 0.045, (y + 0.42) / 0.13)
    return depth * clip(z * 5 + 0.5, 0, 1)


def nose_distance(face: HeadParameters, x: Array, mirrored: Array, y: Array, z: Array) -> Array:
    """The nose: a bridge, a tip and two wings."""
    tip_y, tip_z = face.nose_tip
    width = face.nose_width
    bridge = round_cone(
        x, y, z, (0, 0.16, 0.17), (0, tip_y + 0.03, tip_z - 0.12),
        0.058 * face.nose_bridge, 0.072 * width,
    )  # fmt: skip
    tip = ellipsoid(x, y, z, (0, tip_y, tip_z - 0.095), (0.088 * width, 0.078, 0.095))
    wing = ellipsoid(
        mirrored, y, z, (0.095 * width, tip_y - 0.035, tip_z - 0.19), (0.062 * width, 0.058, 0.10)
    )
    return smooth_min(smooth_min(bridge, tip, 0.08), wing, 0.05)


def ear_distance(face: HeadParameters, mirrored: Array, y: Array, z: Array) -> Array:
    """A tilted disc with a dent."""
    cx, cy, cz = EAR_CENTRE
    sin, cos = math.sin(face.ear_angle), math.cos(face.ear_angle)
    px, py, pz = mirrored - cx * face.width, y - cy, z - cz
    # Turned about the vertical so that the rear edge stands off, and leaning back.
    px, pz = px * cos + pz * sin, pz * cos - px * sin
    pz = pz - 0.2 * py
    size = face.ear_size
    disc = ellipsoid(px, py, pz, (0, 0, 0), (0.055, 0.20 * size, 0.125 * size))
    dent = ellipsoid(px, py, pz, (0.06, 0.01, 0.0), (0.05, 0.12 * size, 0.07 * size))
    return smooth_max(disc, -dent, 0.04)


def skull_distance(face: HeadParameters, mirrored: Array, y: Array, z: Array) -> Array:
    """Cranium, face, jaw, cheeks and chin, without relief."""
    w, c = face.width, face.cranium
    x = mirrored
    head = ellipsoid(x, y, z, (0, 0.22, -0.40), (0.70 * w, 0.76 * c, 0.68))
    front = ellipsoid(x, y, z, (0, -0.26, -0.20), (0.53 * w, 0.64, 0.47))
    head = smooth_min(head, front, 0.25)
    jaw = ellipsoid(
        x, y, z, (0.24 * face.jaw_width, -0.46 - face.jaw_depth, -0.14), (0.22, 0.30, 0.33)
    )
    head = smooth_min(head, jaw, 0.22)
    cheek = ellipsoid(x, y, z, (0.35 * w, -0.17, 0.05), (0.17, 0.16 * face.cheek, 0.17))
    head = smooth_min(head, cheek, 0.20)
    chin = ellipsoid(x, y, z, (0, face.chin_y, 0.13), (0.16 * face.chin_width, 0.13, 0.15))
    head = smooth_min(head, chin, 0.22)
    muzzle = ellipsoid(x, y, z, (0, face.mouth_y, 0.11), (0.25, 0.22, 0.18))
    return smooth_min(head, muzzle, 0.24)


def neck_distance(
    face: HeadParameters, shoulder_y: float, mirrored: Array, y: Array, z: Array
) -> tuple[Array, Array]:
    """(neck, torso): a leaning column, and a body that carries it."""
    lean = z + 0.40 + 0.16 * (y + 1.0)
    column = np.sqrt(mirrored * mirrored + lean * lean) - face.neck_radius
    neck = np.maximum(column, y + 0.45)
    torso = ellipsoid(mirrored, y, z, (0.0, shoulder_y - 0.95, -0.50), (1.45, 0.90, 0.50))
    return neck, torso


def skin_parts(head: Head, x: Array, y: Array, z: Array) -> SkinParts:
    """All skin: head with relief, nose, ears, neck and chest."""
    face = head.face
    mirrored = np.abs(x)
    skull = skull_distance(face, mirrored, y, z) + relief(face, x, mirrored, y, z)
    nose = nose_distance(face, x, mirrored, y, z)
    ear = ear_distance(face, mirrored, y, z)
    neck, torso = neck_distance(face, head.garment.shoulder_y, mirrored, y, z)
    neck = smooth_min(neck, torso, 0.22)
    blended = smooth_min(skull, nose, 0.07)
    blended = smooth_min(blended, ear, 0.05)
    blended = smooth_min(blended, neck, 0.06)
    return SkinParts(skull, nose, ear, neck, blended)


def cloth_distance(head: Head, skin_neck: Array, x: Array, y: Array, z: Array) -> Array:
    """The garment: a shell over the body, cut by the neckline."""
    face, garment = head.face, head.garment
    mirrored = np.abs(x)
    lean = z + 0.40 + 0.16 * (y + 1.0)
    column = np.sqrt(mirrored * mirrored + lean * lean) - face.neck_radius
    body = skin_neck - 0.035
    base = garment.shoulder_y
    style = garment.neckline
    if style == "turtle":
        return smooth_max(skin_neck - 0.05, y - (base + 0.02) - 0.03 * lean, 0.04)
    if style == "crew":
        return smooth_max(body, 0.05 - column + (y - base) * 0.6, 0.04)
    wedge = (mirrored - (y - base + 0.42) * 0.75) * 0.8
    front = np.maximum(wedge, -(z + 0.35))
    opened = np.maximum(body, -front)
    shell = smooth_max(opened, 0.02 - column + (y - base) * 0.3, 0.04)
    if style == "vee":
        return shell
    # A collar stands around the neck, open in front.
    ring = np.abs(column - 0.045) - 0.022
    height = np.maximum(y - base - 0.07 + 0.5 * (z + 0.2), -9.0)
    gap = 0.10 - mirrored + (y - base) * 0.5
    collar = np.maximum(np.maximum(ring, height), np.minimum(gap, z + 0.2))
    return smooth_min(shell, collar, 0.02)


def hair_distance(head: Head, skull: Array, x: Array, y: Array, z: Array) -> Array:
    """A shell over the cranium, and what hangs or stands off it, cut by the face opening."""
    face, hair = head.face, head.hair
    mirrored = np.abs(x)
    w, c, t = face.width, face.cranium, hair.thickness + hair.curl
    centre = (0.0, 0.22 + 0.25 * hair.curl, -0.40)
    radii = (0.70 * w + hair.sides * t, 0.76 * c + t * 1.2, 0.68 + 0.6 * t)
    solid = ellipsoid(x, y, z, centre, radii)
    if hair.style == "quiff":
        lift = ellipsoid(x, y, z, (0.1 * hair.sweep, 0.80, 0.0), (0.46 * w, 0.24, 0.30))
        solid = smooth_min(solid, lift, 0.15)
    if hair.style == "bun":
        bun = ellipsoid(x, y, z, (0, 1.06, -0.42), (0.24, 0.2, 0.24))
        solid = smooth_min(solid, bun, 0.06)
    if hair.style in ("long", "bob"):
        solid = smooth_min(solid, _hanging(head, mirrored, x, y, z), 0.16)
    elif hair.style == "curly":
        mass = ellipsoid(x, y, z, (0, -0.05, -0.5), (0.74 * w + 0.8 * t, 0.7, 0.55))
        solid = smooth_min(solid, mass, 0.2)
    solid = smooth_max(solid, -_face_opening(head, x, y, z), 0.10)
    if hair.style not in ("long", "bob", "curly"):
        nape = (0.02 - y + 0.80 * (z + 0.26)) * 0.78
        solid = smooth_max(solid, nape, 0.05)
        around_ear = ellipsoid(
            mirrored, y, z, (EAR_CENTRE[0] * w, EAR_CENTRE[1], EAR_CENTRE[2]), (0.2, 0.21, 0.15)
        )
        solid = smooth_max(solid, -around_ear, 0.04)
    if hair.tucked:
        behind = ellipsoid(
            mirrored, y, z, (EAR_CENTRE[0] * w, EAR_CENTRE[1] - 0.32, -0.18), (0.32, 0.58, 0.27)
        )
        solid = smooth_max(solid, -behind, 0.16)
    if hair.style == "bald":
        solid = smooth_max(solid, y - 0.34, 0.05)
    if hair.curl > 0:
        p = hair.phases
        f = 15.0
        rough = np.sin(f * x + p[0]) * np.sin(f * y + p[1]) * np.sin(f * z + p[2])
        solid = (solid + 0.035 * rough) * 0.85
    return solid


def _hanging(head: Head, mirrored: Array, x: Array, y: Array, z: Array) -> Array:
    """Locks beside the face and a mass behind the neck."""
    hair, w = head.hair, head.face.width
    end, out = hair.length, hair.spread
    side = mirrored
    if hair.wave:
        side = mirrored + hair.wave * np.sin(9.0 * y + hair.wave_phase)
    upper = (0.58 * w, 0.35, -0.34)
    middle = (0.66 * w + out, -0.35, -0.34)
    lower = (0.62 * w + out, end + 0.1, -0.28)
    locks = round_cone(side, y, z, upper, middle, 0.17, 0.17)
    locks = smooth_min(locks, round_cone(side, y, z, middle, lower, 0.17, 0.10), 0.08)
    back = ellipsoid(
        side, y, z, (0, 0.5 * (end + 0.3), -0.70), (0.72 * w + out, 0.5 * (0.9 - end), 0.42)
    )
    return smooth_min(locks, back, 0.15)


def _face_opening(head: Head, x: Array, y: Array, z: Array) -> Array:
    """The volume in front of the face that hair leaves free; locks fringe its upper edge."""
    hair = head.hair
    off = x - hair.parting_x
    top = y - hair.hairline - hair.sweep * x
    if hair.parting:
        top = top + hair.parting * (np.sqrt(off * off + 0.004) - 0.22)
    p = hair.phases
    top = top + hair.locks * (np.sin(17 * x + p[0]) + np.sin(29 * x + p[1]))
    side = np.abs(x) - hair.opening * head.face.width + 0.10 * (y - 0.1)
    window = smooth_max(side, 0.85 * top, 0.45)
    return smooth_max(window, -0.30 - z, 0.2)


def hat_distance(head: Head, x: Array, y: Array, z: Array) -> Array:
    """A beanie, a cap with a visor, or a hat with a brim."""
    face, style = head.face, head.hair.hat
    t = 0.10
    radii = (0.70 * face.width + t, 0.76 * face.cranium + t + 0.02, 0.68 + 0.6 * t)
    dome = ellipsoid(x, y, z, (0, 0.22, -0.40), radii)
    edge = (0.46 + 0.25 * z - y) * 0.95
    crown = smooth_max(dome, edge, 0.04)
    if style == "beanie":
        cuff = np.maximum(dome - 0.045, np.abs(edge - 0.02) - 0.10)
        return smooth_min(crown, cuff, 0.03)
    if style == "cap":
        slant = (y + 0.28 * (z - 0.24) + 0.25 * x * x) * 0.95
        visor = ellipsoid(x, slant, z, (0, 0.53, 0.24), (0.54, 0.035, 0.50))
        return smooth_min(crown, visor, 0.05)
    slant = y - 0.12 * (z + 0.4) - 0.06 * x * x
    brim = ellipsoid(x, slant, z, (0, 0.47, -0.30), (1.08, 0.045, 0.86))
    return smooth_min(crown, brim, 0.06)


def lens_outline(head: Head, mirrored: Array, y: Array) -> Array:
    """Distance in the face's plane to the outline of a lens, negative inside."""
    face, worn = head.face, head.accessories
    px, py = mirrored - (face.eye_x + 0.005), y - (face.eye_y - 0.02)
    r = worn.frame_radius
    if worn.glasses == "round":
        return np.sqrt(px * px + py * py) - r * 0.95
    corner = 0.09
    qx = positive(np.abs(px) - r * 1.08 + corner)
    qy = positive(np.abs(py) - r * 0.80 + corner)
    return np.sqrt(qx * qx + qy * qy) - corner


def glasses_distance(head: Head, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """(frame, lenses): rims, bridge and temples; the lenses are solid only when dark."""
    face, worn = head.face, head.accessories
    mirrored = np.abs(x)
    outline = lens_outline(head, mirrored, y)
    sheet = z - 0.335 + 0.30 * mirrored * mirrored
    rim = np.sqrt(outline * outline + sheet * sheet) - 0.020
    inner = face.eye_x - worn.frame_radius
    bridge = round_cone(
        x, y, z, (-inner, face.eye_y + 0.03, 0.32), (inner, face.eye_y + 0.03, 0.32), 0.017, 0.017
    )
    outer = (face.eye_x + worn.frame_radius, face.eye_y + 0.04, 0.26)
    ear = (0.74 * face.width, face.eye_y + 0.03, -0.35)
    temple = round_cone(mirrored, y, z, outer, ear, 0.016, 0.016)
    frame = np.minimum(np.minimum(rim, bridge), temple) * 0.85
    if worn.glasses != "dark":
        return frame, np.full_like(x, ABSENT)
    return frame, np.maximum(outline, np.abs(sheet) - 0.012) * 0.85


def earring_distance(head: Head, x: Array, y: Array, z: Array) -> Array:
    """A stud, a drop or a hoop below the ear lobe."""
    cx, cy, cz = EAR_CENTRE
    face = head.face
    px = np.abs(x) - cx * face.width - 0.04
    py, pz = y - cy + 0.19 * face.ear_size, z - cz - 0.04
    kind = head.accessories.earrings
    if kind == "stud":
        return np.sqrt(px * px + (py - 0.03) ** 2 + pz * pz) - 0.042
    if kind == "drop":
        bead = ellipsoid(px, py, pz, (0, -0.11, 0.0), (0.042, 0.085, 0.042))
        return smooth_min(bead, np.sqrt(px * px + py * py + pz * pz) - 0.028, 0.03)
    ring = np.sqrt(pz * pz * 0.8 + px * px * 0.8 + (py + 0.10) ** 2) - 0.10
    across = (px - 0.6 * pz) * 0.85
    return (np.sqrt(ring * ring + across * across) - 0.020) * 0.8


def necklace_distance(head: Head, skin_neck: Array, x: Array, y: Array, z: Array) -> Array:
    """A chain or beads lying on the neck where a slanted plane cuts it."""
    plane = (y - (head.garment.shoulder_y + 0.015) + 0.38 * (z + 0.1)) * 0.93
    if head.garment.necklace == "chain":
        return np.sqrt(plane * plane + skin_neck * skin_neck) - 0.020
    angle = np.arctan2(x, z + 0.45)
    beads = 0.008 * np.cos(angle * 26.0)
    return (np.sqrt(plane * plane + skin_neck * skin_neck) - 0.030 - beads) * 0.85


def surfaces(head: Head, x: Array, y: Array, z: Array) -> dict[int, Array]:
    """Distances to the surfaces that this head has, by surface id."""
    skin = skin_parts(head, x, y, z)
    found = {SKIN: skin.blended, CLOTH: cloth_distance(head, skin.neck, x, y, z)}
    hair = hair_distance(head, skin.head, x, y, z)
    if head.hair.hat is not None:
        found[HAT] = hat_distance(head, x, y, z)
        # A hat presses the hair flat.
        hair = smooth_max(hair, 0.03 - found[HAT], 0.03)
        hair = np.maximum(hair, y - 0.60 - 0.25 * z)
    found[HAIR] = hair
    if head.accessories.glasses is not None:
        frame, lens = glasses_distance(head, x, y, z)
        found[GLASSES] = frame
        if head.accessories.glasses == "dark":
            found[LENS] = lens
    if head.accessories.earrings is not None:
        found[EARRING] = earring_distance(head, x, y, z)
    if head.garment.necklace is not None:
        found[NECKLACE] = necklace_distance(head, skin.neck, x, y, z)
    return found


def distance(head: Head, x: Array, y: Array, z: Array) -> Array:
    """Distance to the nearest surface."""
    nearest: Array | None = None
    for value in surfaces(head, x, y, z).values():
        nearest = value if nearest is None else np.minimum(nearest, value)
    assert nearest is not None
    return nearest
