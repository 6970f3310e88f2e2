"""Weights adapted to one face: what pivotal tuning finds, kept in a file beside the face project.

Tuned are the stacks of both modules. Manifolds and mapping networks stay, so that the mean face and
the rays' intersections do too.
"""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn

from ..errors import UserError
from ..files import read_regular, write_atomically
from ..model.generator import Generator
from ..model.mean_face import share_means
from ..tensor_files import hash_tensors, reason_of

FORMAT = "semfaceedit-tuned"
MOST_BYTES = 4 << 30  # of a file of tuned weights
STACKS = ("geometry.stack.", "appearance.stacks.")


@dataclass(frozen=True, eq=False)
class TunedWeights:
    """Tensors that stand in for those of a checkpoint, under the names they have there."""

    tensors: Mapping[str, Tensor]
    generators: WeakKeyDictionary[Generator, Generator] = field(
        default_factory=WeakKeyDictionary, init=False, repr=False
    )  # those that hold these weights, by the checkpoint's own

    @cached_property
    def fingerprint(self) -> str:
        return hash_tensors(self.tensors)

    @property
    def bytes(self) -> int:
        return sum(4 * tensor.numel() for tensor in self.tensors.values())

    def beside(self, project: Path) -> Path:
        """The file of these weights for a face project at `project`."""
        return tuned_path(project, self.fingerprint)

    def save(self, project: Path) -> None:
        """Write them beside a face project, unless they are there."""
        path = self.beside(project)
        if path.exists():
            return
        kept = {name: tensor.float().cpu().contiguous() for name, tensor in self.tensors.items()}
        write_atomically(path, lambda temporary: save_file(kept, temporary, {"format": FORMAT}))

    @classmethod
    def load(cls, project: Path, fingerprint: str) -> "TunedWeights":
        """Read what the face project at `project` names."""
        path = tuned_path(project, fingerprint)
        try:
            weights = cls(load(read_regular(path, MOST_BYTES)))
        except FileNotFoundError:
            raise UserError(
                f"{project} needs the weights that were tuned to it, but {path.name} is not beside "
                "it: copy that file there too, or invert the face again"
            ) from None
        except (SafetensorError, OSError, ValueError) as error:
            raise UserError(
                f"{path} is not a readable file of tuned weights: {reason_of(error)}"
            ) from None
        if weights.fingerprint != fingerprint:
            raise UserError(f"{path} was changed since {project} was written: restore it")
        return weights


@dataclass(frozen=True)
class Tuning:
    """What a tuned generator was made from."""

    base: Generator
    weights: TunedWeights | None  # None: on the way


def is_fingerprint(value: object) -> bool:
    """Whether this may name a file of tuned weights: 16 hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{16}", value) is not None


def tuned_path(project: Path, fingerprint: str) -> Path:
    return project.with_name(f"tuned-{fingerprint}.safetensors")


def weights_of(generator: Generator) -> TunedWeights | None:
    """What distinguishes a tuned generator from its checkpoint; None for a checkpoint's own."""
    return None if generator.tuning is None else generator.tuning.weights


def with_weights(generator: Generator, weights: TunedWeights | None) -> Generator:
    """The generator of the same checkpoint with these weights, or untuned; `generator` stays.

    Mean codes and fingerprint are the checkpoint's.
    """
    base = generator if generator.tuning is None else generator.tuning.base
    if weights is None:
        return base
    if base not in weights.generators:
        tuned = trainable_copy(base)
        wanted = dict(_tuned_parameters(tuned))
        shapes = {name: tensor.shape for name, tensor in weights.tensors.items()}
        if shapes != {name: parameter.shape for name, parameter in wanted.items()}:
            raise UserError("the tuned weights do not fit this checkpoint: invert the face again")
        with torch.no_grad():
            for name, parameter in wanted.items():
                parameter.copy_(weights.tensors[name])
        tuned.requires_grad_(False).tuning = Tuning(base, weights)
        weights.generators[base] = tuned
    return weights.generators[base]


def trainable_copy(generator: Generator) -> Generator:
    """A copy whose stacks take gradients."""
    base = with_weights(generator, None)
    made = copy.deepcopy(base).requires_grad_(False)
    made.load_state_dict(generator.state_dict())
    made.tuning = Tuning(base, None)
    for parameter in tuned_parameters(made):
        parameter.requires_grad_()
    share_means(made, base)
    return made


def tuned_parameters(generator: Generator) -> list[nn.Parameter]:
    """What tuning moves."""
    return [parameter for _, parameter in _tuned_parameters(generator)]


def read_weights(generator: Generator) -> TunedWeights:
    """A copy of what tuning moves, as it is now."""
    found = _tuned_parameters(generator)
    return TunedWeights({name: parameter.detach().clone() for name, parameter in found})


def blend(
    generator: Generator, start: TunedWeights | None, end: TunedWeights | None, weight: float
) -> TunedWeights | None:
    """Weights between those of two faces of a checkpoint; None where neither is tuned."""
    if start is None and end is None:
        return None
    own = read_weights(with_weights(generator, None)).tensors
    a, b = (own if w is None else w.tensors for w in (start, end))
    return TunedWeights(
        {name: torch.lerp(a[name].to(t), b[name].to(t), weight) for name, t in own.items()}
    )


def _tuned_parameters(generator: Generator) -> list[tuple[str, nn.Parameter]]:
    return [(n, p) for n, p in generator.named_parameters() if n.startswith(STACKS)]
