"""The face project: an inverted or edited face as one file.

It holds offsets from the mean face of a checkpoint, the pose, and the picture and label map that
they were fitted to. The codes of the face are the checkpoint's mean codes plus the offsets. A face
that weights were tuned to names them; they are a file beside it.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .. import __version__
from ..data.align import Window
from ..errors import UserError
from ..files import write_atomically
from ..model.codes import Codes, Film
from ..model.generator import Generator
from ..model.mean_face import fingerprint, mean_codes
from ..outputs import check_replaceable
from .target import SourceCrop
from .tuning import TunedWeights, with_weights

FORMAT = "semfaceedit-face"
FORMAT_VERSION = 2  # 2: with tuned weights
TENSORS = ("geometry.frequencies", "geometry.phases", "appearance.frequencies",
           "appearance.phases", "pose", "labels", "image", "preview")  # fmt: skip
FACTS = ("version", "checkpoint", "group_of_class", "iterations", "metrics", "crop")


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
    crop: SourceCrop | None = None  # where the original mask shows this face
    tuned: TunedWeights | None = None  # what stands in for the checkpoint's weights

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

    def save(self, path: Path | str) -> None:
        """Write one safetensors file, and tuned weights beside it."""
        path = Path(path)
        check_replaceable(path, kind=FORMAT)
        header = {
            "format": FORMAT,
            "version": 1 if self.tuned is None else FORMAT_VERSION,
            "software": __version__,
            "checkpoint": self.checkpoint,
            "group_of_class": self.group_of_class,
            "iterations": self.iterations,
            "metrics": self.metrics,
            "crop": None if self.crop is None else dataclasses.asdict(self.crop),
            "tuned": None if self.tuned is None else self.tuned.fingerprint,
        }
        films = {"geometry": self.geometry, "appearance": self.appearance}
        tensors = {
            f"{name}.{part}": getattr(film, part).detach().float().cpu().contiguous()
            for name, film in films.items()
            for part in ("frequencies", "phases")
        }
        tensors["pose"] = self.pose.detach().float().cpu().contiguous()
        for name in ("labels", "image", "preview"):
            tensors[name] = torch.from_numpy(np.array(getattr(self, name), order="C"))
        if self.tuned is not None:
            self.tuned.save(path)
        metadata = {"semfaceedit": json.dumps(header)}
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))

    @classmethod
    def load(cls, path: Path | str, generator: Generator | None = None) -> "FaceProject":
        """Read a face project; with `generator` given it must be the one it was made with."""
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
            crop=crop and SourceCrop(Window(**crop["window"]), crop["width"], crop["height"]),
            tuned=tuned and TunedWeights.load(path, tuned),
        )
        if generator is not None:
            project.check(generator, path)
        return project


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the face project, a .safetensors file")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("semfaceedit", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"no face project at {path}: `invert` writes one") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable face project: {error}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise UserError(f"{path} is no face project: give a file that `invert` or `edit` wrote")
    if header.get("version", 0) > FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {header['version']}, this semfaceedit reads up to "
            f"{FORMAT_VERSION}: install a newer version"
        )
    missing = [name for name in TENSORS if name not in tensors]
    missing += [name for name in FACTS if name not in header]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}: it is incomplete, make it again")
    return header, tensors
