"""Files that belong to a weights file and lie beside it: an encoder, directions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from .. import __version__
from ..errors import UserError
from ..files import check_regular
from ..model.generator import Generator
from ..model.mean_face import fingerprint
from ..tensor_files import is_unchanged, reason_of, write_tensors

DAMAGE = (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)
"""What reading a damaged file may raise."""


LEAST_IN_BYTES = 8192  # numbers of a matrix whose rows are kept as bytes
SCALE = ".scale"


def in_bytes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of layers (rows, ...) as int8 with a scale each row, all else in fp16.

    A row of NAME is NAME times NAME.scale; the largest number of a row becomes 127.
    """
    kept = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        if not name.endswith(".weight") or tensor.numel() < LEAST_IN_BYTES:
            kept[name] = tensor.half()
            continue
        rows = tensor.float().flatten(1)
        scales = (rows.abs().amax(1, keepdim=True) / 127).clamp(min=1e-30)
        kept[name] = (rows / scales).round().to(torch.int8).view_as(tensor)
        kept[name + SCALE] = scales[:, 0]
    return kept


def from_bytes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fp32 tensors of what `in_bytes` gave, or of plain ones."""
    found = {}
    for name, tensor in tensors.items():
        if name.endswith(SCALE):
            continue
        scales = tensors.get(name + SCALE)
        if (scales is None) != (tensor.dtype != torch.int8):
            raise ValueError(f"{name} and its scales do not fit")
        found[name] = tensor.float()
        if scales is not None:
            found[name] *= scales.float().view(-1, *[1] * (tensor.dim() - 1))
    return found


@dataclass(frozen=True)
class Kind:
    """A kind of file that belongs to weights, and the words of its errors."""

    name: str  # W-NAME.safetensors
    what: str  # "an encoder"
    format: str
    version: int
    command: str  # that writes it
    way_out: str  # what to do about one that does not fit
    bytes: bool = False  # large weights are kept as `in_bytes` has them

    def beside(self, weights: Path) -> Path:
        """Where the file of the weights file `weights` is looked for."""
        return weights.with_name(f"{weights.stem}-{self.name}.safetensors")

    def find(self, generator: Generator, path: Path | None = None) -> Path | None:
        """`path`, by default the file beside the generator's weights; None where there is none."""
        if path is not None:
            return path
        if generator.source is None or not (beside := self.beside(generator.source)).is_file():
            return None
        return beside

    def save(
        self,
        path: Path,
        tensors: Mapping[str, Tensor],
        generator: Generator,
        facts: Mapping[str, Any],
    ) -> None:
        """Write tensors in fp16 or `in_bytes`; the header says whose they are, and `facts`."""
        if self.bytes:
            kept = in_bytes(tensors)
        else:
            kept = {name: t.detach().half() for name, t in tensors.items()}
        header = {
            "format": self.format,
            "version": self.version,
            "software": __version__,
            "checkpoint": fingerprint(generator),
            "group_of_class": list(generator.config.group_of_class),
            **facts,
        }
        write_tensors(path, kept, header)

    def read(self, path: Path, generator: Generator) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Header and fp32 tensors of a file of this generator; UserError for any other file."""
        try:
            check_regular(path)
            with safe_open(path, "pt") as file:
                header = json.loads((file.metadata() or {}).get("semfaceedit", "{}"))
            if not isinstance(header, dict) or header.get("format") != self.format:
                raise UserError(
                    f"{path} holds no {self.noun}: give a file that `{self.command}` wrote"
                )
            if header["version"] > self.version:
                raise UserError(f"{path} was written by a newer semfaceedit: install that")
            if tuple(header["group_of_class"]) != tuple(generator.config.group_of_class):
                raise UserError(
                    f"{path} is {self.what} for another grouping of the classes: {self.way_out}"
                )
            if header["checkpoint"] != fingerprint(generator):
                raise UserError(
                    f"{path} is the {self.noun} of other weights than these: {self.way_out}"
                )
            kept = load_file(path)
            if not all(bool(tensor.float().isfinite().all()) for tensor in kept.values()):
                raise ValueError("it holds NaN or infinity")
            if "sha256" not in header or not is_unchanged(header, kept):
                raise ValueError("it was changed since it was written")
            tensors = from_bytes(kept)
        except FileNotFoundError:
            raise UserError(f"no {self.noun} at {path}: `{self.command}` writes one") from None
        except DAMAGE as error:
            raise self.unreadable(path, error) from None
        return header, tensors

    def unreadable(self, path: Path, error: Exception) -> UserError:
        """The one line about a damaged file."""
        reason = reason_of(error)
        return UserError(f"{path} is not a readable {self.noun}: {reason}: {self.way_out}")

    @property
    def noun(self) -> str:
        return self.what.split(" ", 1)[1]
