"""FiLM codes of a face: what they are, and how they are added, mixed, swapped and truncated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Film:
    """Frequencies f and phases p of every layer, before f^ = 15 f + 30.

    This is the space of inversion and editing: means and offsets are taken here.
    """

    frequencies: Tensor  # (..., L + 1, W)
    phases: Tensor  # (..., L + 1, W)

    def __getitem__(self, index: Any) -> Film:  # indexes the leading dimensions
        return Film(self.frequencies[index], self.phases[index])

    def __add__(self, other: Film) -> Film:
        return Film(self.frequencies + other.frequencies, self.phases + other.phases)

    def __sub__(self, other: Film) -> Film:
        return Film(self.frequencies - other.frequencies, self.phases - other.phases)

    def cat(self, *others: Film) -> Film:
        """All of them one after the other along the first dimension."""
        films = (self, *others)
        return Film(torch.cat([f.frequencies for f in films]), torch.cat([f.phases for f in films]))

    def lerp(self, other: Film, weight: float | Tensor) -> Film:
        """self + weight (other - self); truncation is mean.lerp(film, psi)."""
        return Film(
            torch.lerp(self.frequencies, other.frequencies, weight),
            torch.lerp(self.phases, other.phases, weight),
        )

    def detach(self) -> Film:
        return Film(self.frequencies.detach(), self.phases.detach())


@dataclass(frozen=True)
class Codes:
    """What conditions a picture: FiLM vectors of the geometry and of each appearance group."""

    geometry: Film  # (B, L + 1, W)
    appearance: Film  # (B, n, L + 1, W)

    def __add__(self, other: Codes) -> Codes:
        return Codes(self.geometry + other.geometry, self.appearance + other.appearance)

    def __sub__(self, other: Codes) -> Codes:
        return Codes(self.geometry - other.geometry, self.appearance - other.appearance)


def swap_group(codes: Codes, others: Codes, group: int) -> Codes:
    """`codes` with the appearance of one group taken from `others`."""
    frequencies = codes.appearance.frequencies.clone()
    phases = codes.appearance.phases.clone()
    frequencies[:, group] = others.appearance.frequencies[:, group]
    phases[:, group] = others.appearance.phases[:, group]
    return replace(codes, appearance=Film(frequencies, phases))


def truncate(codes: Codes, mean: Codes, share: float) -> Codes:
    """Codes pulled towards `mean`: 1 leaves them, 0 is the mean face."""
    return Codes(
        mean.geometry.lerp(codes.geometry, share), mean.appearance.lerp(codes.appearance, share)
    )


def interpolate(
    start: Codes, end: Codes, weight: float, which: str, group_names: tuple[str, ...]
) -> Codes:
    """Codes between two faces in FiLM space: in all codes, in the geometry (`z`), or in the
    appearance of one group; the others stay those of `start`."""
    geometry, appearance = start.geometry, start.appearance
    if which in ("all", "z"):
        geometry = geometry.lerp(end.geometry, weight)
    if which == "all":
        appearance = appearance.lerp(end.appearance, weight)
    elif which != "z":
        chosen = torch.tensor([name == which for name in group_names])
        share = (weight * chosen)[:, None, None].to(appearance.phases)
        appearance = Film(
            torch.lerp(appearance.frequencies, end.appearance.frequencies, share),
            torch.lerp(appearance.phases, end.appearance.phases, share),
        )
    return Codes(geometry, appearance)
