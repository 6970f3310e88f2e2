"""The face project: an inverted or edited face as one file.

It holds offsets from the mean face of a checkpoint, the pose, and the picture and label map that
they were fitted to. The codes of the face are the checkpoint's mean codes plus the offsets. A face
that weights were tuned to names them; they are a file beside it.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from .. import __version__
from ..data.align import Window
from ..errors import UserError
from ..files import read_regular
from ..model.codes import Codes, Film
from ..model.generator import Generator
from ..model.labels import NUM_CLASSES
from ..model.mean_face import fingerprint, mean_codes
from ..outputs import check_replaceable
from ..tensor_files import is_unchanged, reason_of, write_tensors
from .target import SourceCrop, SourcePhotograph, resize_labels
from .tuning import TunedWeights, is_fingerprint, with_weights

FORMAT = "semfaceedit-face"
FORMAT_VERSION = 2  # 2: with tuned weights
TENSORS = ("geometry.frequencies", "geometry.phases", "appearance.frequencies",
           "appearance.phases", "pose", "labels", "image", "preview")  # fmt: skip
ORIGIN = (*(f"origin.{name}" for name in TENSORS[:4]), "origin.labels", "origin.region")
FACTS = ("version", "checkpoint", "group_of_class", "iterations", "metrics", "crop")
MOST_BYTES = 256 << 20  # of a project file
MOST_PIXELS = 2048  # along an edge of its label map and pictures
MOST_OFFSET = 1e6  # far beyond what a fit finds, and well within what renders to finite colours


@dataclass(frozen=True, eq=False)
class Origin:
    """The face as it was inverted, before its edits: what its photograph shows."""

    geometry: Film  # offsets, as those of the project
    appearance: Film
    labels: np.ndarray  # (R, R) uint8
    region: np.ndarray  # (R, R) bool: where edits since were to change shapes

    def grown(self, region: np.ndarray) -> "Origin":
        """With another region (r, r) bool of an edit."""
        here = resize_labels(region, len(self.labels))
        return dataclasses.replace(self, region=self.region | here)


@dataclass(frozen=True, kw_only=True, eq=False)
class FaceProject:
    """A face of a checkpoint. Offsets are added to the mean frequencies and phases."""

    checkpoint: str  # `fingerprint` of the generator
    group_of_class: tuple[int, ...]
    geometry: Film  # (L + 1, W) offsets
    appearance: Film  # (n, L + 1, W) offsets
    pose: Tensor  # (2,) yaw, pitch in radians
    labels: np.ndarray  # (R, R) uint8, the map that the face was fitted to
    image: np.ndarray  # (R, R, 3) uint8, the picture that it was fitted to
    preview: np.ndarray  # (r, r, 3) uint8, the face as rendered at its pose
    iterations: int = 0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    crop: SourceCrop | None = None  # where the photograph shows this face
    tuned: TunedWeights | None = None  # what stands in for the checkpoint's weights
    origin: Origin | None = None  # None: the face is as it was inverted, or had no photograph

    @property
    def offsets(self) -> Codes:
        """The offsets as a batch of one."""
        return Codes(self.geometry[None], self.appearance[None])

    def codes(self, generator: Generator) -> Codes:
        """Mean codes plus offsets, batch 1, on the generator's device."""
        self.check(generator)
        mean = mean_codes(generator)
        films = (self.offsets.geometry, self.offsets.appearance)
        like = mean.geometry.phases
        moved = (Film(f.frequencies.to(like), f.phases.to(like)) for f in films)
        return mean + Codes(*moved)

    def generator(self, generator: Generator) -> Generator:
        """The generator that renders this face: its checkpoint's, with the tuned weights if any."""
        self.check(generator)
        return with_weights(generator, self.tuned)

    def with_origin(self) -> "FaceProject":
        """The same before an edit: where it has a photograph, it remembers what that shows."""
        if self.crop is None or self.origin is not None:
            return self
        nowhere = np.zeros(self.labels.shape, bool)
        return dataclasses.replace(
            self, origin=Origin(self.geometry, self.appearance, self.labels, nowhere)
        )

    def as_inverted(self) -> "FaceProject":
        """The face that the photograph shows."""
        if self.origin is None:
            return self
        known = self.origin
        return dataclasses.replace(
            self, geometry=known.geometry, appearance=known.appearance, labels=known.labels,
            origin=None,
        )  # fmt: skip

    def check(self, generator: Generator, name: str | Path = "the face project") -> None:
        """UserError where the project was made with another checkpoint, or does not fit it."""
        found = fingerprint(generator)
        if found != self.checkpoint:
            raise UserError(
                f"{name} was made with another checkpoint (fingerprint {self.checkpoint}, this one "
                f"has {found}): give that checkpoint, or invert the face again"
            )
        mean = mean_codes(generator)
        for part in ("geometry", "appearance"):
            own, wanted = getattr(self, part), getattr(mean, part)
            for tensor in (own.frequencies, own.phases):
                if tensor.shape != wanted.phases.shape[1:]:
                    raise UserError(
                        f"{name} has {part} offsets of shape {tuple(tensor.shape)}, not "
                        f"{tuple(wanted.phases.shape[1:])}: it was damaged, make it again"
                    )

    def check_values(self, name: str | Path = "the face project") -> None:
        """UserError where shapes, ranges or values are such as no face has."""
        for problem in _problems(self):
            raise UserError(f"{name} {problem}: it was damaged, make it again")

    def save(self, path: Path | str) -> None:
        """Write one safetensors file, and tuned weights beside it."""
        path = Path(path)
        check_replaceable(path, kind=FORMAT)
        crop = None if self.crop is None else dataclasses.asdict(self.crop)
        photograph = None if crop is None else crop.pop("photograph")
        header = {
            "format": FORMAT,
            "version": 1 if self.tuned is None else FORMAT_VERSION,
            "software": __version__,
            "checkpoint": self.checkpoint,
            "group_of_class": self.group_of_class,
            "iterations": self.iterations,
            "metrics": self.metrics,
            "crop": crop,
            "photograph": photograph,
            "tuned": None if self.tuned is None else self.tuned.fingerprint,
        }
        films = {"geometry": self.geometry, "appearance": self.appearance}
        if self.origin is not None:
            films |= {f"origin.{n}": getattr(self.origin, n) for n in ("geometry", "appearance")}
        tensors = {
            f"{name}.{part}": getattr(film, part).detach().float().cpu().clone().contiguous()
            for name, film in films.items()
            for part in ("frequencies", "phases")
        }
        tensors["pose"] = self.pose.detach().float().cpu().contiguous()
        for name in ("labels", "image", "preview"):
            tensors[name] = torch.from_numpy(np.array(getattr(self, name), order="C"))
        if self.origin is not None:
            tensors["origin.labels"] = torch.from_numpy(np.array(self.origin.labels, order="C"))
            tensors["origin.region"] = torch.from_numpy(self.origin.region.astype(np.uint8))
        if self.tuned is not None:
            self.tuned.save(path)
        write_tensors(path, tensors, header)

    @classmethod
    def load(cls, path: Path | str, generator: Generator | None = None) -> "FaceProject":
        """Read a face project; with `generator` given it must be the one it was made with.

        UserError for whatever is no whole, regular file of a face.
        """
        path = Path(path)
        header, tensors = _read(path)
        crop, tuned = header["crop"], header.get("tuned")
        project = cls(
            checkpoint=header["checkpoint"],
            group_of_class=tuple(header["group_of_class"]),
            geometry=Film(tensors["geometry.frequencies"], tensors["geometry.phases"]),
            appearance=Film(tensors["appearance.frequencies"], tensors["appearance.phases"]),
            pose=tensors["pose"],
            labels=tensors["labels"].numpy(),
            image=tensors["image"].numpy(),
            preview=tensors["preview"].numpy(),
            iterations=header["iterations"],
            metrics=header["metrics"],
            crop=crop and _crop_of(crop, header.get("photograph")),
            tuned=tuned and TunedWeights.load(path, tuned),
            origin=_origin_of(tensors),
        )
        project.check_values(path)
        if not is_unchanged(header, tensors):
            raise UserError(
                f"{path} was changed since it was written: restore it, or make it again"
            )
        if generator is not None:
            project.check(generator, path)
        return project


def _origin_of(tensors: dict[str, Tensor]) -> Origin | None:
    if not set(ORIGIN) <= tensors.keys():
        return None
    geometry, appearance = (
        Film(tensors[f"origin.{part}.frequencies"], tensors[f"origin.{part}.phases"])
        for part in ("geometry", "appearance")
    )
    labels, region = (tensors[name].numpy() for name in ORIGIN[-2:])
    return Origin(geometry, appearance, labels, region.astype(bool))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a project file; all that the header says has its right type."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the face project, a .safetensors file")
    try:
        data = read_regular(path, MOST_BYTES)
        tensors = load(data)
        length = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        header = json.loads(metadata.get("semfaceedit", "{}"))
    except FileNotFoundError:
        raise UserError(f"no face project at {path}: `invert` writes one") from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a readable face project: {reason_of(error)}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(f"{path} is no face project: give a file that `invert` or `edit` wrote")
    version = header.get("version", 0)
    if _is_whole(version) and version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, this semfaceedit reads up to "
            f"{FORMAT_VERSION}: install a newer version"
        )
    missing = [name for name in TENSORS if name not in tensors]
    missing += [name for name in FACTS if name not in header]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: it is incomplete, make it again")
    for name, sound in _FACTS.items():
        if not sound(header.get(name)):
            raise UserError(f"{path} has no sound {name} in its header: it was damaged, make it "
                            "again")  # fmt: skip
    return header, tensors


def _is_whole(value: object, least: int = 0) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _crop_of(crop: dict[str, Any], photograph: dict[str, Any] | None) -> SourceCrop:
    found = None if photograph is None else SourcePhotograph(**photograph)
    return SourceCrop(Window(**crop["window"]), crop["width"], crop["height"], found)


def _is_photograph(value: object) -> bool:
    """What `dataclasses.asdict` makes of a `SourcePhotograph`."""
    names = {field.name for field in dataclasses.fields(SourcePhotograph)}
    if not isinstance(value, dict) or value.keys() != names:
        return False
    return (
        isinstance(value["path"], str)
        and isinstance(value["sha256"], str)
        and all(_is_whole(value[name], 1) for name in ("width", "height", "orientation"))
        and _is_whole(value["bytes"])
    )


def _is_crop(value: object) -> bool:
    """What `dataclasses.asdict` makes of a `SourceCrop`, but for its photograph."""
    if not isinstance(value, dict) or value.keys() != {"window", "width", "height"}:
        return False
    window = value["window"]
    return (
        isinstance(window, dict)
        and window.keys() == {"left", "top", "side"}
        and all(_is_number(edge) and math.isfinite(edge) for edge in window.values())
        and window["side"] > 0
        and all(_is_whole(value[edge], 1) for edge in ("width", "height"))
    )


_FACTS = {
    "version": lambda value: _is_whole(value, 1),
    "checkpoint": lambda value: isinstance(value, str),
    "group_of_class": lambda value: (
        isinstance(value, list) and len(value) == NUM_CLASSES and all(map(_is_whole, value))
    ),
    "iterations": _is_whole,
    "metrics": lambda value: isinstance(value, dict) and all(map(_is_number, value.values())),
    "crop": lambda value: value is None or _is_crop(value),
    "photograph": lambda value: value is None or _is_photograph(value),
    "tuned": lambda value: value is None or is_fingerprint(value),
}  # of the header: whether a value is one that `save` writes


def _problems(project: FaceProject) -> Iterator[str]:
    """What no face has, the worst first; nothing where all is well."""
    for part, dimensions in (("geometry", 2), ("appearance", 3)):
        film: Film = getattr(project, part)
        for tensor in (film.frequencies, film.phases):
            shape = tuple(tensor.shape)
            if len(shape) != dimensions or 0 in shape or shape != tuple(film.phases.shape):
                yield f"has {part} offsets of shape {shape}"
            elif not tensor.is_floating_point() or not bool(tensor.abs().max() <= MOST_OFFSET):
                yield f"has {part} offsets that are not finite, or beyond {MOST_OFFSET:g}"
    pose = project.pose
    if pose.shape != (2,) or not pose.is_floating_point():
        yield f"has a pose of shape {tuple(pose.shape)}, not two angles"
    elif not bool(pose.abs().max() <= math.pi / 2):
        yield f"has a pose of {pose.tolist()}, not two angles up to 90 degrees"
    side = len(project.labels) if project.labels.ndim else 0
    shapes = {"labels": (side, side), "image": (side, side, 3)}
    shapes["preview"] = (*project.preview.shape[:1], *project.preview.shape[:1], 3)
    for name, wanted in shapes.items():
        array: np.ndarray = getattr(project, name)
        if array.dtype != np.uint8 or array.shape != wanted or not 0 < wanted[0] <= MOST_PIXELS:
            yield (
                f"has {name} of shape {array.shape} and type {array.dtype}, not a square of bytes "
                f"with at most {MOST_PIXELS} pixels along an edge"
            )
        elif name == "labels" and int(array.max()) >= NUM_CLASSES:
            yield f"has the label {array.max()}, but class ids run from 0 to {NUM_CLASSES - 1}"
    if project.origin is not None:
        yield from _problems_of_origin(project, project.origin)


def _problems_of_origin(project: FaceProject, origin: Origin) -> Iterator[str]:
    for part in ("geometry", "appearance"):
        for name in ("frequencies", "phases"):
            kept, own = (getattr(getattr(p, part), name) for p in (origin, project))
            if kept.shape != own.shape or not kept.is_floating_point():
                yield f"has {part} offsets of shape {tuple(kept.shape)} before its edits"
            elif not bool(kept.abs().max() <= MOST_OFFSET):
                yield f"has {part} offsets before its edits that are not finite"
    for array in (origin.labels, origin.region):
        if array.shape != project.labels.shape:
            yield f"has a map of shape {array.shape} before its edits"
    if origin.labels.dtype != np.uint8 or origin.labels.max(initial=0) >= NUM_CLASSES:
        yield "has labels before its edits that are no class ids"
