"""Moves of a face's codes that change one measured attribute and, on this face, no other.

Attributes (`attributes`) are soft sums over a frontal rendering, so that they have gradients. How a
face answers to its codes differs from face to face: the Jacobian is taken where it is, the shortest
change of the codes (in deviations of the generator's own) with the wanted effect and none on the
others follows from it, and what was missed is mended by doing it again from there (Gauss-Newton).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.codes import Codes, Film
from ..model.generator import Generator
from ..model.renderer import RenderOutput, find_intersections, render
from .attributes import COLOURS, SHAPES, Places, colour_names, colours, shapes
from .encoder import film_of

SHAPE_COLUMNS = slice(len(SHAPES))
SIZE = 32  # pixels along an edge of what is measured
ROUNDS = 4  # Jacobians taken, at most
DAMPING = 0.003  # of squared answers, in deviations of an attribute a deviation of the codes
LONGEST = 2.0  # deviations of the codes that a round moves, at most
SHARES = (1.0, 0.5, 0.25, 0.1)  # of a step that are tried, until it helps
CLOSE = 0.02  # deviations of the attributes that may be missed


@dataclass(frozen=True)
class Gauge:
    """What is measured of a generator's faces, in which units, and along which codes they move."""

    places: Places
    scale: Tensor  # (A,) a deviation of each attribute over faces
    low: Tensor  # (A,) least and most that faces show, in the attributes' own units
    high: Tensor
    shown: tuple[bool, ...]  # whether faces show the attribute at all
    geometry: Tensor  # (k, F) principal components of geometry codes, as long as these deviate
    appearance: Tensor  # (n, k, F') of each group's

    def basis(self, part: int) -> Tensor:
        return self.geometry if part < 0 else self.appearance[part]


def attribute_names(generator: Generator) -> tuple[str, ...]:
    """All A of them: shapes, then the colours of each group."""
    return (*SHAPES, *colour_names(generator.config.group_names))


def part_of(column: int) -> int:
    """The part whose codes steer an attribute."""
    return -1 if column < len(SHAPES) else (column - len(SHAPES)) // len(COLOURS)


def is_angle(column: int) -> bool:
    """Whether an attribute is a hue, in radians."""
    return column >= len(SHAPES) and COLOURS[(column - len(SHAPES)) % len(COLOURS)] == "hue"


def difference(after: Tensor, before: Tensor) -> Tensor:
    """after - before (..., A), the short way round where an attribute is an angle."""
    change = after - before
    angles = [is_angle(column) for column in range(change.shape[-1])]
    around = torch.remainder(change + torch.pi, 2 * torch.pi) - torch.pi
    return torch.where(torch.tensor(angles, device=change.device), around, change)


def add_way(codes: Codes, part: int, way: Film) -> Codes:
    """Codes with an offset (L + 1, W) added to the geometry (part -1) or to a group's look."""
    if part < 0:
        return Codes(codes.geometry + way, codes.appearance)
    films = []
    for own, extra in (
        (codes.appearance.frequencies, way.frequencies),
        (codes.appearance.phases, way.phases),
    ):
        rows = list(own.unbind(1))
        rows[part] = rows[part] + extra.to(own)
        films.append(torch.stack(rows, 1))
    return Codes(codes.geometry, Film(*films))


class Steering:
    """Measures and moves faces of a generator, one at a time."""

    def __init__(self, generator: Generator, gauge: Gauge):
        self.generator, self.gauge = generator, gauge
        self.pose = torch.zeros(1, 2, device=generator.device)
        self.hits = find_intersections(generator, self.pose, SIZE)

    def measure(self, codes: Codes) -> Tensor:
        """The attributes (A,) of a face (batch 1); NaN where it does not show them."""
        output = self._render(codes, shade=True)
        return torch.cat([self._shapes(output), self._colours(output)])

    def move(self, codes: Codes, changes: Mapping[int, float]) -> Codes:
        """A face (batch 1) with attributes changed, {column: deviations}, and the others held.

        The geometry codes move for shapes and hold the other shapes; colours, which go with them,
        are brought back by the appearance codes. For a colour the codes of its group move. Goals
        end at what faces show (`low` and `high`).
        """
        with torch.no_grad():
            before = self.measure(codes)
        goal = self.asked(before, changes)
        parts = {part_of(column) for column in changes}
        if -1 in parts:
            codes = self._steer(codes, (-1,), goal)
            held = before.clone()
            held[SHAPE_COLUMNS] = goal[SHAPE_COLUMNS]
            codes = self._steer(codes, tuple(range(len(self.gauge.appearance))), held)
        for part in sorted(parts - {-1}):
            codes = self._steer(codes, (part,), goal)
        return codes

    def asked(self, before: Tensor, changes: Mapping[int, float]) -> Tensor:
        """What the attributes (A,) should come to, in their own units, from where they are."""
        goal = before.clone()
        for column, steps in changes.items():
            value, gauge = before[column], self.gauge
            aim = value + steps * gauge.scale[column]
            if not is_angle(column):
                ends = gauge.low[column].minimum(value), gauge.high[column].maximum(value)
                aim = aim.clamp(*ends)
            goal[column] = aim
        return goal

    def _steer(self, codes: Codes, parts: tuple[int, ...], goal: Tensor) -> Codes:
        """Codes of `parts` moved until the attributes that they steer come to `goal`."""
        rows = SHAPE_COLUMNS if parts == (-1,) else slice(len(SHAPES), None)
        of_face = self._shapes if parts == (-1,) else self._colours
        bases = [self.gauge.basis(part).to(goal) for part in parts]
        scale, width = self.gauge.scale.to(goal), self.generator.config.width
        shown = torch.tensor(self.gauge.shown, device=goal.device)
        kept = (shown & goal.isfinite())[rows]
        if not kept.any():
            return codes

        def at(u: Tensor) -> Codes:
            moved = codes
            for part, basis, own in zip(
                parts, bases, u.split([len(b) for b in bases]), strict=True
            ):
                moved = add_way(moved, part, film_of(own @ basis, width))
            return moved

        def missed(u: Tensor) -> Tensor:
            value = goal.clone()
            value[rows] = of_face(self._render(at(u), shade=parts != (-1,)))
            return (difference(goal, value) / scale)[rows][kept].nan_to_num()

        here = torch.zeros(sum(len(b) for b in bases), device=goal.device)
        for _ in range(ROUNDS):
            u = here.clone().requires_grad_()
            with torch.enable_grad():
                gap = missed(u)
                rows_of = [torch.autograd.grad(g, u, retain_graph=True)[0] for g in gap]
            jacobian, gap = -torch.stack(rows_of).nan_to_num(), gap.detach()
            least = float(gap.norm())
            if least < CLOSE:
                break
            gram = jacobian @ jacobian.T
            damping = DAMPING * torch.eye(len(gram), device=gram.device)
            step = jacobian.T @ torch.linalg.solve(gram + damping, gap)
            step = step * min(1.0, LONGEST / max(float(step.norm()), 1e-9))
            with torch.no_grad():
                ahead = (here + share * step for share in SHARES)
                nearer = next((u for u in ahead if float(missed(u).norm()) < least), None)
            if nearer is None:
                break
            here = nearer
        with torch.no_grad():
            return at(here)

    def _render(self, codes: Codes, *, shade: bool) -> RenderOutput:
        return render(
            self.generator, codes, self.pose, SIZE, intersections=self.hits, shade=shade
        )  # fmt: skip

    def _shapes(self, output: RenderOutput) -> Tensor:
        return shapes(output.semantics, self.gauge.places)[0]

    def _colours(self, output: RenderOutput) -> Tensor:
        return colours(output.image, output.semantics, self.generator.config.group_of_class)[0]
