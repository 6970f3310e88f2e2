"""Views of faces, one after the other: what grids and video are made of."""

import math
from collections.abc import Sequence
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


def turn(
    faces: Sequence[RenderedFace], yaws: Sequence[float], pitch: float, frames: int
) -> list[View]:
    """`frames` views of each face, from one outermost yaw to the other and back, slowing at the
    ends."""
    low, high = min(yaws), max(yaws)
    middle, half = (low + high) / 2, (high - low) / 2
    steps = [2 * math.pi * frame / frames for frame in range(frames)]
    return [(face, (middle + half * math.sin(step), pitch)) for face in faces for step in steps]


def path(
    generator: Generator,
    faces: Sequence[RenderedFace],
    which: str,
    pose: tuple[float, float],
    frames: int,
) -> list[View]:
    """`frames` views from each face to the next, in the codes that `which` names."""
    views: list[View] = []
    current = faces[0]
    for target in faces[1:]:
        for frame in range(frames):
            weight = frame / max(frames - 1, 1)
            views.append((between(generator, current, target, weight, which), pose))
        current = views[-1][0]
    return views
