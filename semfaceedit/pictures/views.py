"""Views of faces, one after the other: what grids and video are made of."""

from dataclasses import dataclass

from ..editing.tuning import TunedWeights, blend
from ..model.codes import Codes, interpolate
from ..model.generator import Generator


@dataclass(frozen=True)
class Face:
    """What is rendered: codes of batch 1, and the weights that were tuned to them, if any."""

    codes: Codes
    tuned: TunedWeights | None = None


View = tuple[Face, tuple[float, float]]  # (yaw, pitch)


def between(generator: Generator, start: Face, end: Face, weight: float, which: str) -> Face:
    """The face between two: `interpolate`d codes. Tuned weights go along in "all" codes, and stay
    those of `start` otherwise."""
    codes = interpolate(start.codes, end.codes, weight, which, generator.config.group_names)
    tuned = blend(generator, start.tuned, end.tuned, weight) if which == "all" else start.tuned
    return Face(codes, tuned)
