"""Views of faces, one after the other: what grids and video are made of."""

from dataclasses import dataclass

from ..model.codes import Codes, interpolate
from ..model.generator import Generator
from .tuning import TunedWeights, blend


@dataclass(frozen=True)
class RenderedFace:
    """What is rendered: codes of batch 1, and the weights that were tuned to them, if any."""

    codes: Codes
    tuned: TunedWeights | None = None


View = tuple[RenderedFace, tuple[float, float]]  # (yaw, pitch)


def between(
    generator: Generator, start: RenderedFace, end: RenderedFace, weight: float, which: str
) -> RenderedFace:
    """The face between two: `interpolate`d codes. Tuned weights go along in "all" codes, and stay
    those of `start` otherwise."""
    codes = interpolate(start.codes, end.codes, weight, which, generator.config.group_names)
    tuned = blend(generator, start.tuned, end.tuned, weight) if which == "all" else start.tuned
    return RenderedFace(codes, tuned)
