"""Crops that the photograph's network learns from: aligned portraits and procedural faces."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..cli import progress
from ..data.decoding import read_image, read_label_map
from ..data.layouts import SourcePair
from ..errors import UserError
from ..files import write_atomically
from ..model.camera import CameraConfig
from ..procedural.heads import sample_head
from ..procedural.render import render_faces
from .drafts import draft_map
from .faces import Square, find_faces
from .mesh_parts import ID, MeshParts
from .photo_augment import DRAWN, UNKNOWN, Sample
from .photo_network import MARGIN, frame_of, person_share

STORED = 160  # pixels along an edge
PART = 100  # crops in a file
SUSPECTS = 0.3  # share of the portraits that may wear glasses, where maps do not know
WEARING = 0.0035  # share of a crop's pixels that glasses take up, at least
VERSION = 1  # changes when the same faces give other crops

Given = TypeVar("Given")
Row = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # image, labels, person, mesh


@dataclass
class Crops:
    """Crops in memory: images (M, N, N, 3), labels and person (M, N, N), meshes (M, 468, 2)."""

    images: np.ndarray
    labels: np.ndarray  # 255: unknown
    person: np.ndarray  # uint8
    points: np.ndarray  # NaN where no mesh was found
    suspects: np.ndarray  # (M,) bool: may wear glasses that are not labelled
    wearing: np.ndarray  # (M,) bool: wear glasses that are labelled

    def sample(self, index: int) -> Sample:
        return Sample(
            self.images[index].astype(np.float32),
            self.labels[index],
            self.person[index].astype(np.float32) / 255,
            self.points[index],
        )


def portrait_crops(faces: Sequence[SourcePair], keep: Path, *, drafts: bool) -> Crops:
    """Aligned portraits whose mesh is found, with their masks as `parse` wrote them.

    drafts: the masks are drafts that know no glasses: labelled where they agree with our own draft.
    keep: a folder for the crops, so that what is there need not be made again.
    """

    def row(face: SourcePair) -> Row | None:
        return _portrait(face, drafts)

    names = [face.name for face in faces]
    rows = _kept(faces, row, names, keep / f"portraits-{'drafts' if drafts else 'maps'}")
    if not rows:
        raise UserError("no portrait shows a face")
    images, labels, persons, points = (np.stack(column) for column in zip(*rows, strict=True))
    suspects = np.zeros(len(images), bool)
    if drafts:
        scores = np.array([_edges_about_eyes(*pair) for pair in zip(images, points, strict=True)])
        suspects = scores >= np.quantile(scores, 1 - SUSPECTS)
    wearing = (labels == ID["eye_g"]).mean((1, 2)) > WEARING
    return Crops(images, labels, persons, points, suspects, wearing)


def _portrait(face: SourcePair, drafts: bool) -> Row | None:
    picture = Image.fromarray(read_image(face.image))
    meshes = find_faces(picture)
    window = MeshParts(meshes[0].points).window if meshes else None
    if window is None:
        return None
    frame = frame_of(window)
    image, person, points = _crop(picture, meshes[0].points, frame)
    given = Image.fromarray(read_label_map(face.masks[0]))
    given = given.resize(picture.size, Image.Resampling.NEAREST)
    mask = np.asarray(_nearest(given, frame))
    inside = np.asarray(_nearest(Image.new("L", picture.size, 1), frame)) > 0
    if not drafts:
        return image, np.where(inside, _without_specks(mask), np.uint8(UNKNOWN)), person, points
    parts = MeshParts(points)
    draft = draft_map(image, parts, person / 255, inside)
    return image, _agreed(draft, mask, parts, inside), person, points


def _without_specks(mask: np.ndarray) -> np.ndarray:
    """A map in which a few pixels of glasses are unknown: they are wrinkles or reflections."""
    glasses = mask == ID["eye_g"]
    left = glasses[:, : len(mask) // 2].sum() / max(1, glasses.sum())
    few = glasses.mean() < WEARING or not 0.2 < left < 0.8
    return np.where(glasses & few, np.uint8(UNKNOWN), mask)


def procedural_crops(count: int, keep: Path) -> Crops:
    """Procedural faces: three fifths as they come, the rest with glasses or hats."""
    seeds = _seeds(count)
    rows = _kept(seeds, _procedural, seeds, keep / "procedural")
    images, labels, persons, points = (np.stack(column) for column in zip(*rows, strict=True))
    none = np.zeros(count, bool)
    return Crops(images, labels, persons, points, none, none)


def _procedural(seed: int) -> Row:
    view = CameraConfig().half_extent * MARGIN
    camera = CameraConfig(fov_degrees=2 * math.degrees(math.atan(view)))
    made = render_faces([seed], STORED, camera)
    image = ((made.images[0].movedim(0, -1) + 1) * 127.5).round().byte().numpy()
    picture = Image.fromarray(image)
    meshes = find_faces(picture)
    unknown = np.full((468, 3), np.nan)
    frame = Square(STORED / 2, STORED / 2, STORED, 0.0)
    crop = _crop(picture, meshes[0].points if meshes else unknown, frame)
    return crop[0], made.labels[0].numpy(), *crop[1:]


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


def _kept(
    given: Sequence[Given],
    row: Callable[[Given], Row | None],
    names: Sequence[object],
    folder: Path,
) -> list[Row]:
    """Rows of all that is given, a file for every hundred; None are left out."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    starts = range(0, len(given), PART)
    for start in progress(starts, total=len(starts), title=f"{folder.name}, in hundreds"):
        part = slice(start, start + PART)
        path, key = folder / f"{start:06d}.safetensors", json.dumps([VERSION, *names[part]])
        found = _read_part(path, key)
        if found is None:
            found = [made for one in given[part] if (made := row(one)) is not None]
            _write_part(path, key, found)
        rows += found
    return rows


def _read_part(path: Path, key: str) -> list[Row] | None:
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
        columns = load_file(path)
    except (SafetensorError, OSError):
        return None
    made = [columns[name].numpy() for name in ROW]
    return list(zip(*made, strict=True))  # type: ignore[arg-type]


def _write_part(path: Path, key: str, rows: list[Row]) -> None:
    columns: dict[str, Tensor] = {
        name: torch.from_numpy(np.stack([row[place] for row in rows]) if rows else np.empty(0))
        for place, name in enumerate(ROW)
    }
    write_atomically(path, lambda temporary: save_file(columns, temporary, {"key": key}))


ROW = tuple(field.name for field in fields(Crops))[:4]


def _crop(
    picture: Image.Image, points: np.ndarray, frame: Square
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image, the person's share (uint8) and mesh of a crop."""
    image = np.asarray(frame.cut_repeating(picture, (STORED, STORED)))
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


def about_eyes(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
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
