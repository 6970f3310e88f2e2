"""Where the faces of a photograph are: boxes, then a mesh of 468 points on each.

Two networks of MediaPipe (see `models/NOTICE`) find a face's box with six points, and the mesh in a
square turned upright about it. The mesh is sought twice: the second square follows the first mesh.
"""

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .graphs import Graph, load_graph

MODELS = Path(__file__).parent / "models"
SCORE = 0.5  # least probability of a box
FACTORS = (1, 2)  # sides of the squares looked at, in longer sides of the picture
SAME_FACE = 0.3  # overlap (IoU) of boxes that mean one face
PRESENT = 0.5  # least probability that a mesh lies on a face
AROUND = 1.5  # side of the mesh's square in longer sides of the face's box
EYES = (33, 263)  # outer corners of the eyes in the mesh, the one on the image's left first


@dataclass(frozen=True)
class Box:
    """A face's place: middle, edges and the two eyes in pixels, x right and y down."""

    score: float
    x: float
    y: float
    width: float
    height: float
    eyes: np.ndarray  # (2, 2), the one on the image's left first

    @property
    def square(self) -> "Square":
        side = AROUND * max(self.width, self.height)
        return Square(self.x, self.y, side, _turn(self.eyes))


@dataclass(frozen=True)
class Square:
    """A square about (x, y), turned clockwise by `turn` radians, in pixels."""

    x: float
    y: float
    side: float
    turn: float

    def places(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2) in sides of the square from its upper left corner -> pixels."""
        across = self.side * np.array([math.cos(self.turn), math.sin(self.turn)])
        down = np.array([-across[1], across[0]])
        corner = np.array([self.x, self.y]) - (across + down) / 2
        return corner + points[..., :1] * across + points[..., 1:2] * down

    def cut(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """What the square shows, (height, width) pixels; black outside the picture."""
        shrink = max(1, int(self.side / max(size)))
        if shrink == 1:
            return self._sampled(image, size)
        left, top, right, bottom = self._bounds(image)
        part = image.crop((left, top, right, bottom)).reduce(shrink)
        x, y = (self.x - left) / shrink, (self.y - top) / shrink
        return Square(x, y, self.side / shrink, self.turn)._sampled(part, size)

    def cut_repeating(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The same with the picture's border repeated outside."""
        left, top, right, bottom = self._bounds(image)
        part = np.asarray(image.crop((left, top, right, bottom)))
        low = np.floor(self.places(np.zeros(2))).astype(int)
        high = np.ceil(self.places(np.ones(2))).astype(int)
        before = np.maximum((left, top) - low, 0)
        after = np.maximum(high - (right, bottom), 0)
        widths = [(before[axis], after[axis]) for axis in (1, 0)]
        wide = Image.fromarray(np.pad(part, [*widths, (0, 0)], mode="edge"))
        x, y = self.x - left + before[0], self.y - top + before[1]
        return Square(float(x), float(y), self.side, self.turn).cut(wide, size)

    def _bounds(self, image: Image.Image) -> tuple[int, int, int, int]:
        corners = self.places(np.array([(0, 0), (1, 0), (0, 1), (1, 1)], float))
        low, high = np.floor(corners.min(0)).astype(int), np.ceil(corners.max(0)).astype(int)
        left, top = (int(v) for v in np.clip(low, 0, (image.width - 1, image.height - 1)))
        return (
            left,
            top,
            max(left + 1, min(int(high[0]), image.width)),
            max(top + 1, min(int(high[1]), image.height)),
        )

    def _sampled(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        height, width = size
        origin, right, down = self.places(np.array([(0, 0), (1 / width, 0), (0, 1 / height)]))
        (a, d), (b, e) = right - origin, down - origin
        matrix = (a, b, origin[0], d, e, origin[1])
        return image.transform(
            (width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR
        )


@dataclass(frozen=True)
class Mesh:
    """A face's surface: 468 points in pixels of the photograph, depth in the same unit.

    x right, y down, z away from the camera, from an origin at the head's middle.
    """

    points: np.ndarray  # (468, 3) float64
    score: float  # probability that it lies on a face

    @property
    def square(self) -> Square:
        """The square about the face, turned as its eyes are."""
        turn = _turn(self.points[list(EYES), :2])
        axes = np.array([(math.cos(turn), math.sin(turn)), (-math.sin(turn), math.cos(turn))])
        along = self.points[:, :2] @ axes.T
        low, high = along.min(0), along.max(0)
        x, y = (low + high) / 2 @ axes
        return Square(float(x), float(y), AROUND * float((high - low).max()), turn)

    @property
    def size(self) -> float:
        """Geometric mean of the mesh's width and height in pixels."""
        return float(np.sqrt(np.prod(np.ptp(self.points[:, :2], axis=0))))


def find_faces(picture: Image.Image) -> list[Mesh]:
    """The meshes of a photograph's faces, the largest first; empty where none is seen."""
    found = [mesh for box in find_boxes(picture) if (mesh := fit_mesh(picture, box)) is not None]
    return sorted(found, key=lambda mesh: -mesh.size)


def find_boxes(picture: Image.Image) -> list[Box]:
    """Boxes of faces, each face once.

    The whole picture is looked at, and once more from farther off, for a face that fills it; where
    nothing is seen, overlapping parts of it are, for small faces.
    """
    middle, side = (picture.width / 2, picture.height / 2), max(picture.size)
    found = _boxes_in(picture, [Square(*middle, factor * side, 0.0) for factor in FACTORS])
    return _each_once(found or _boxes_in(picture, _parts(picture)))


def _parts(picture: Image.Image) -> list[Square]:
    """Squares of half the longer side, half covering one another."""
    side = max(picture.size) / 2
    xs, ys = (
        np.linspace(side / 2, edge - side / 2, 1 + math.ceil((edge - side) / (side / 2)))
        if edge > side
        else [edge / 2]
        for edge in picture.size
    )
    return [Square(float(x), float(y), side, 0.0) for y in ys for x in xs]


@torch.no_grad()
def _boxes_in(picture: Image.Image, squares: list[Square]) -> list[Box]:
    network = network_of("face_detection")
    edge = network.size[0]
    cuts = torch.cat([tensor_of(square.cut(picture, network.size)) for square in squares])
    rows, scores = (made.double().numpy() for made in network(2 * cuts - 1))
    chances = 1 / (1 + np.exp(-scores[..., 0].clip(-80, 80)))
    anchors = _anchors(chances.shape[1])
    boxes = []
    for which, index in zip(*np.nonzero(chances >= SCORE), strict=True):
        square = squares[which]
        middle, extent, *points = rows[which, index].reshape(-1, 2) / edge
        x, y = square.places(middle + anchors[index])
        width, height = extent * square.side
        eyes = square.places(np.stack(points[:2]) + anchors[index])
        boxes.append(Box(float(chances[which, index]), float(x), float(y), width, height, eyes))
    return boxes


def _anchors(count: int) -> np.ndarray:
    """(count, 2): the middles of the cells that rows of detections belong to, in [0, 1]."""
    cells = math.isqrt(count)
    middles = (np.arange(cells) + 0.5) / cells
    return np.stack(np.meshgrid(middles, middles), -1).reshape(-1, 2)


def _each_once(boxes: list[Box]) -> list[Box]:
    """Of overlapping boxes the mean, weighted by their scores; the surest first."""
    left = sorted(boxes, key=lambda box: -box.score)
    kept = []
    while left:
        same = [box for box in left if _overlap(box, left[0]) > SAME_FACE]
        weights = np.array([box.score for box in same])
        values = np.array([(b.x, b.y, b.width, b.height, *b.eyes.flat) for b in same])
        x, y, width, height, *eyes = weights @ values / weights.sum()
        kept.append(Box(left[0].score, x, y, width, height, np.reshape(eyes, (2, 2))))
        left = [box for box in left if box not in same]
    return kept


def _overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    width = min(a.x + a.width / 2, b.x + b.width / 2) - max(a.x - a.width / 2, b.x - b.width / 2)
    height = min(a.y + a.height / 2, b.y + b.height / 2) - max(
        a.y - a.height / 2, b.y - b.height / 2
    )
    both = max(0.0, width) * max(0.0, height)
    return both / (a.width * a.height + b.width * b.height - both)


@torch.no_grad()
def fit_mesh(picture: Image.Image, box: Box) -> Mesh | None:
    """The mesh of the face in a box; None where there is none after all."""
    mesh = _mesh_in(picture, box.square)
    mesh = _mesh_in(picture, mesh.square)
    return mesh if mesh.score >= PRESENT else None


def _mesh_in(picture: Image.Image, square: Square) -> Mesh:
    network = network_of("face_mesh")
    points, present = network(tensor_of(square.cut(picture, network.size)))
    local = points.double().numpy().reshape(-1, 3) / network.size[0]
    depth = local[:, 2:] * square.side
    score = float(torch.sigmoid(present.reshape(())))
    return Mesh(np.concatenate([square.places(local[:, :2]), depth], 1), score)


@cache
def network_of(name: str) -> Graph:
    """One of the networks in `models`."""
    return load_graph(MODELS / f"{name}.safetensors")


def tensor_of(picture: Image.Image) -> Tensor:
    """(1, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.asarray(picture).copy()).movedim(-1, 0)[None].float() / 255


def _turn(eyes: np.ndarray) -> float:
    """By how much the line from the left eye to the right one is turned clockwise, in radians."""
    across = eyes[1] - eyes[0]
    return float(math.atan2(across[1], across[0]))
