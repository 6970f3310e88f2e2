"""Photograph -> its face's label map, landmarks and pose.

The face is found and placed by its mesh. Its map is read by the network that ships, or by one of
`train-parser`.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate, softmax

from ..data.align import Window, crop
from ..data.decoding import read_image, save_label_map
from ..data.pose import Landmarks
from ..errors import UserError
from ..model.labels import CLASS_NAMES
from .colours import sharpened
from .faces import Mesh, find_faces
from .head_pose import pose_from_mesh
from .mesh_parts import MeshParts
from .network import Parser, ParserSettings
from .photo_network import class_probabilities, frame_of, network_input

OwnParser = tuple[Parser, ParserSettings]

LARGEST_MAP = 1024  # pixels along the longer edge of a label map
WORKING = 2048  # pixels along the longer edge of what is looked at
BACKGROUND, SKIN, GLASSES = (CLASS_NAMES.index(name) for name in ("background", "skin", "eye_g"))
BEHIND = 2.0  # factor of the background's share: training paints much before it
THROUGH_GLASSES = [CLASS_NAMES.index(name) for name in ("l_eye", "r_eye", "l_brow", "r_brow")]
MESH_CLASSES = [*THROUGH_GLASSES, *map(CLASS_NAMES.index, ("nose", "mouth", "u_lip", "l_lip"))]
SMALL = 64  # pixels of an aligned crop, below which a map is coarse
TURNED = math.radians(45)  # yaw, beyond which half of the face is hidden
TILTED = math.radians(40)  # beyond which maps are poor


@dataclass(frozen=True)
class PhotographedFace:
    """What was read off a photograph."""

    labels: np.ndarray  # (h, w) uint8 class ids, the photograph's aspect, at most 1024 pixels
    landmarks: Landmarks  # in pixels of the photograph
    window: Window  # the aligned crop, in pixels of the photograph
    pose: tuple[float, float]  # yaw, pitch in radians
    seen: int  # faces in the photograph
    remarks: tuple[str, ...]  # what may have gone wrong

    @property
    def placed(self) -> dict[str, Any]:
        """Landmarks and pose by their names, as `editing.target.read_target` takes them."""
        return {"landmarks": self.landmarks, "pose": self.pose}


def parse_file(
    image: Path, out: Path, *, parser: OwnParser | None = None, number: int = 1
) -> PhotographedFace:
    """Write the label map of a photograph's face; UserError where it is not seen."""
    face = read_face(read_image(image), image, parser=parser, number=number)
    save_label_map(out, face.labels)
    return face


def read_face(
    image: np.ndarray, name: Path | str, *, parser: OwnParser | None = None, number: int = 1
) -> PhotographedFace:
    """Read the face of a photograph (H, W, 3) uint8: the largest, or the number-th largest.

    name: the photograph's, for errors. parser: reads the map in place of the network that ships.
    UserError where that face is not seen.
    """
    if min(image.shape[:2]) < 16:
        raise UserError(f"{name}: {image.shape[1]}x{image.shape[0]} pixels hold no face")
    picture, factor = _reduced(Image.fromarray(image))
    meshes = find_faces(picture)
    if not meshes:
        raise UserError(
            f"{name}: no face was found: it should be upright, seen from the front or half from "
            "the side, and a twentieth of the picture or more: crop or turn the photograph, or "
            "paint its label map and give that"
        )
    if not 1 <= number <= len(meshes):
        raise UserError(
            f"{name}: face {number} was asked for, but {_counted(len(meshes))} found: "
            + (f"give --face 1 to {len(meshes)}, 1 the largest" if meshes[1:] else "give --face 1")
        )
    mesh = meshes[number - 1]
    parts = MeshParts(mesh.points)
    window = parts.window
    if window is None:
        raise UserError(
            f"{name}: the face is turned too far to be placed: give a photograph that shows both "
            "eyes, or a label map with --labels"
        )
    labels = _label_map(picture, mesh, window, image.shape, parser)
    pose = pose_from_mesh(mesh.points)
    landmarks = parts.landmarks.scaled(factor)
    remarks = _remarks(pose, mesh.square.turn, window.side * factor, len(meshes), number)
    return PhotographedFace(labels, landmarks, window.scaled(factor), pose, len(meshes), remarks)


def _reduced(picture: Image.Image) -> tuple[Image.Image, float]:
    """The picture at most 2048 pixels long, and how many of its pixels one of those is."""
    shrink = math.ceil(max(picture.size) / WORKING)
    if shrink == 1:
        return picture, 1.0
    smaller = picture.reduce(shrink)
    return smaller, picture.width / smaller.width


def _label_map(
    picture: Image.Image,
    mesh: Mesh,
    window: Window,
    shape: tuple[int, ...],
    parser: OwnParser | None,
) -> np.ndarray:
    """The map (h, w) of a photograph of that shape, in which the face's crop was read."""
    height, width = (
        max(1, round(edge * min(1.0, LARGEST_MAP / max(shape[:2])))) for edge in shape[:2]
    )
    scale = width / picture.width
    frame = frame_of(window)
    size = max(1, round(scale * frame.side))
    corner = (frame.x - frame.side / 2, frame.y - frame.side / 2)
    square = Window(*corner, frame.side)
    if parser is None:
        parts = MeshParts(mesh.points).scaled(corner, size / frame.side)
        given = network_input(picture, mesh.points, frame)
        colours = (127.5 * (given[:3] + 1)).round().byte().movedim(0, -1).numpy()
        shares = class_probabilities(given).numpy()
        shares[BACKGROUND] *= BEHIND
        labels = with_mesh_parts(_enlarged(sharpened(shares, colours), size), parts)
    else:
        labels = _enlarged(_own_shares(parser, picture, square).numpy(), size).argmax(0)
    return _placed(labels.astype(np.uint8), square.scaled(scale), height, width)


@torch.no_grad()
def _own_shares(parser: OwnParser, picture: Image.Image, square: Window) -> Tensor:
    """Class shares (19, r, r) by a network of `train-parser`."""
    network, settings = parser
    cut = crop(np.asarray(picture), square, settings.resolution, Image.Resampling.LANCZOS)
    given = torch.from_numpy(cut.copy()).movedim(-1, 0)[None].float() / 127.5 - 1
    return softmax(network(given.to(next(network.parameters()).device)), 1)[0].cpu()


def _enlarged(shares: np.ndarray, size: int) -> np.ndarray:
    """Class shares (19, r, r) -> (19, size, size)."""
    given = torch.from_numpy(shares)[None]
    scaled = interpolate(given, size=(size, size), mode="bilinear", align_corners=False)
    return scaled[0].numpy()


def with_mesh_parts(shares: np.ndarray, parts: MeshParts) -> np.ndarray:
    """Class shares (19, s, s) -> ids (s, s), with the outlines of the mesh where skin shows.

    The mesh is sharper than the network; the network knows what covers the face. Eyes and brows
    are seen through glasses.
    """
    bare = shares.copy()
    bare[SKIN] += bare[MESH_CLASSES].sum(0)
    bare[MESH_CLASSES] = 0
    labels = bare.argmax(0).astype(np.uint8)
    drawn = parts.painted(labels)
    seen = (labels == SKIN) | ((labels == GLASSES) & np.isin(drawn, THROUGH_GLASSES))
    return np.where(seen, drawn, labels)


def _placed(labels: np.ndarray, window: Window, height: int, width: int) -> np.ndarray:
    """A square map put where `window` is on a map of background of that size."""
    made = np.full((height, width), BACKGROUND, np.uint8)
    rows, columns = (
        np.floor((np.arange(edge) + 0.5 - start) * len(labels) / window.side).astype(int)
        for edge, start in ((height, window.top), (width, window.left))
    )
    inside = [(0 <= places) & (places < len(labels)) for places in (rows, columns)]
    made[np.ix_(*inside)] = labels[rows[inside[0]]][:, columns[inside[1]]]
    return made


def _remarks(
    pose: tuple[float, float], turn: float, side: float, seen: int, number: int
) -> tuple[str, ...]:
    """turn: how far the head is tilted to a side, in radians."""
    said = []
    if seen > 1:
        which = "the largest" if number == 1 else f"number {number} by size"
        said.append(f"{_counted(seen)} found; {which} is taken (choose with --face)")
    if side < SMALL:
        said.append(f"the face's crop is only {side:.0f} pixels wide, so its map is coarse")
    if abs(pose[0]) > TURNED:
        said.append("the face is turned far to the side, so its map is a guess")
    if abs(turn) > TILTED:
        tilt = math.degrees(turn)
        said.append(f"the face is tilted by {abs(tilt):.0f} degrees: turn the photograph upright")
    return tuple(said)


def _counted(faces: int) -> str:
    return "1 face was" if faces == 1 else f"{faces} faces were"
