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
        self.intersections = find_intersections(generator, self.pose, SIZE)

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
        goal = before.clone()
        for part in sorted({part_of(column) for column in changes}):
            own = {column: steps for column, steps in changes.items() if part_of(column) == part}
            goal = self.asked(goal, own)
            codes = self._steer(codes, (part,), goal)
            if part < 0:
                codes = self._steer(codes, tuple(range(len(self.gauge.appearance))), goal)
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

    def ahead(self, codes: Codes, before: Tensor, part: int) -> tuple[Tensor, Tensor]:
        """How a part's codes answer, at first order: (k, A) of moves of the face `codes`, whose
        attributes are `before`, for a step of each attribute, the others held; and the basis."""
        steered = _Steered(self, codes, (part,), before)
        _, jacobian = steered.linear(torch.zeros(steered.size, device=before.device))
        inverse = jacobian.new_zeros(steered.size, len(before))
        columns = torch.arange(len(before), device=before.device)[steered.rows][steered.kept]
        gram = jacobian @ jacobian.T
        damping = DAMPING * torch.eye(len(gram), device=gram.device)
        inverse[:, columns] = torch.linalg.solve(gram + damping, jacobian).T
        return inverse, steered.bases[0]

    def _steer(self, codes: Codes, parts: tuple[int, ...], goal: Tensor) -> Codes:
        """Codes of `parts` moved until the attributes that they steer come to `goal`."""
        steered = _Steered(self, codes, parts, goal)
        if not steered.kept.any():
            return codes
        here = torch.zeros(steered.size, device=goal.device)
        for _ in range(ROUNDS):
            gap, jacobian = steered.linear(here)
            least = float(gap.norm())
            if least < CLOSE:
                break
            gram = jacobian @ jacobian.T
            damping = DAMPING * torch.eye(len(gram), device=gram.device)
            step = shortened(jacobian.T @ torch.linalg.solve(gram + damping, gap))
            with torch.no_grad():
                ahead = (here + share * step for share in SHARES)
                nearer = next((u for u in ahead if float(steered.missed(u).norm()) < least), None)
            if nearer is None:
                break
            here = nearer
        with torch.no_grad():
            return steered.at(here)

    def _render(self, codes: Codes, *, shade: bool) -> RenderOutput:
        return render(
            self.generator, codes, self.pose, SIZE, intersections=self.intersections, shade=shade
        )  # fmt: skip

    def _shapes(self, output: RenderOutput) -> Tensor:
        return shapes(output.semantics, self.gauge.places)[0]

    def _colours(self, output: RenderOutput) -> Tensor:
        return colours(output.image, output.semantics, self.generator.config.group_of_class)[0]


class _Steered:
    """A face as a function of the coefficients (k,) of some parts' principal components."""

    def __init__(self, steering: Steering, codes: Codes, parts: tuple[int, ...], goal: Tensor):
        self.steering, self.codes, self.parts, self.goal = steering, codes, parts, goal
        gauge = steering.gauge
        self.bases = [gauge.basis(part).to(goal) for part in parts]
        self.sizes = [len(basis) for basis in self.bases]
        self.size, self.scale = sum(self.sizes), gauge.scale.to(goal)
        self.shapes = parts == (-1,)
        self.rows = SHAPE_COLUMNS if self.shapes else slice(len(SHAPES), None)
        shown = torch.tensor(gauge.shown, device=goal.device)
        self.kept = (shown & goal.isfinite())[self.rows]

    def at(self, u: Tensor) -> Codes:
        moved, width = self.codes, self.steering.generator.config.width
        for part, basis, own in zip(self.parts, self.bases, u.split(self.sizes), strict=True):
            moved = add_way(moved, part, film_of(own @ basis, width))
        return moved

    def missed(self, u: Tensor) -> Tensor:
        """What is missing to the goal, in steps, of the attributes that count."""
        output = self.steering._render(self.at(u), shade=not self.shapes)
        value = self.goal.clone()
        read = self.steering._shapes if self.shapes else self.steering._colours
        value[self.rows] = read(output)
        gap = difference(self.goal, value) / self.scale
        return gap[self.rows][self.kept].nan_to_num()

    def linear(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """What is missing (m,) at u, and how the attributes answer there (m, k)."""
        u = u.clone().requires_grad_()
        with torch.enable_grad():
            gap = self.missed(u)
            rows = [torch.autograd.grad(g, u, retain_graph=True)[0] for g in gap]
        if not rows:
            return gap.detach(), u.new_zeros(0, self.size).detach()
        return gap.detach(), -torch.stack(rows).nan_to_num()


def shortened(step: Tensor) -> Tensor:
    """At most `LONGEST` deviations of the codes."""
    return step * min(1.0, LONGEST / max(float(step.norm()), 1e-9))
