"""The revisions that led to a face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..editing.project import FaceProject


@dataclass(frozen=True)
class Look:
    """The appearance code of a seed in one group: 0 of it is the group's own, 1 the seed's."""

    group: str
    seed: int
    amount: float


@dataclass(frozen=True)
class Revision:
    """A face, and what made it from the one before."""

    name: str
    project: FaceProject
    number: int  # no other revision of the session has it
    root: int  # the number of the revision that chose, opened or found the face it comes from
    seed: int | None = None  # whose face this is
    look: Look | None = None  # the next look of the same group takes this one's place
    metrics: tuple[tuple[str, float], ...] = ()  # of the edit or transfer that made it
    painted: bool = False  # a stroke, which the face followed at once
    sliders: tuple[tuple[str, float], ...] = ()  # moved since the revision before, each by so much
    version: int = 0  # counts on where a short fit has sharpened it


def unpainted(revisions: Sequence[Revision], at: int) -> FaceProject:
    """The face as it was before it was painted on, with the looks that it has now."""
    looks = revisions[at].project.appearance
    while at > 0 and (revisions[at].painted or revisions[at].look is not None):
        at -= 1
    # What its photograph shows has the looks that it had.
    return replace(revisions[at].project.with_origin(), appearance=looks)
