"""Sliders of a generator, found by measuring its own samples; no labels are needed.

Faces are drawn and measured (`attributes`), which gives each attribute's unit and range and the
principal components of the codes (`Gauge`). Then every slider is moved on faces drawn afterwards
(`Steering`) and judged by what it did.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.codes import Codes
from ..model.generator import Generator, sample_latents
from ..model.renderer import find_intersections, render
from .attributes import SHAPES, colours, find_places, shapes
from .encoder import flat_film, principal_components
from .sliders import Directions, Slider
from .steering import (
    SIZE,
    Gauge,
    Steering,
    attribute_names,
    difference,
    is_angle,
    part_of,
)

BATCH = 16
COMPONENTS = 64  # of each part's codes
CODES = 4000  # drawn for their principal components
RARE = 5e-4  # of the picture: a class with less of it on average is one the generator lacks
RARE_CLASSES = ("glasses", "hat", "neck", "mouth opening", "eye size")
ENDS = (0.02, 0.98)  # quantiles of an attribute, between which a slider moves
MIDDLE = (0.16, 0.84)  # two deviations of a normal attribute
LEAST_SHARE = 0.25  # of the standard deviation that a unit has, where most faces are alike
LEAST_COLOUR, LEAST_HUE, MOST_HUE = 4.0, 0.15, 0.5  # units of CIELAB, and radians, of a step
STILL = 0.1  # of a step: a face that is asked for less than this stands at the end of the slider
MOST_LEAKS = 1000.0  # shares; also where the own attribute does not move


@dataclass(frozen=True)
class FindSettings:
    """How much is drawn: faces measured, and faces on which each slider is judged."""

    samples: int = 320
    judged: int = 16
    seed: int = 0


Progress = Callable[[str], None]


def find_directions(
    generator: Generator, settings: FindSettings | None = None, *, say: Progress = lambda _: None
) -> Directions:
    """The sliders of a generator, with the figures of those that do not pass too."""
    settings = settings or FindSettings()
    drawing = torch.Generator().manual_seed(settings.seed)
    say(f"measuring {settings.samples} samples")
    gauge = find_gauge(generator, settings.samples, drawing)
    steering, names = Steering(generator, gauge), attribute_names(generator)
    results: dict[int, list[_Trial]] = {c: [] for c in range(len(names)) if gauge.shown[c]}
    signs = random.Random(settings.seed)
    faces = _draw(generator, settings.judged, drawing)
    for index in range(settings.judged):
        say(f"judging sliders on face {index + 1} of {settings.judged}")
        face = Codes(faces.geometry[[index]], faces.appearance[[index]])
        for column, found in results.items():
            if (trial := _tried(steering, face, column, signs.choice((-1.0, 1.0)))) is not None:
                found.append(trial)
    sliders = [
        _judged(names, gauge, column, trials) for column, trials in results.items() if trials
    ]
    return Directions.of(generator, sliders, gauge)


@torch.no_grad()
def find_gauge(generator: Generator, samples: int, drawing: torch.Generator) -> Gauge:
    """Units, ranges and principal components, from faces drawn with `drawing`."""
    codes = _draw(generator, max(CODES, samples), drawing)
    geometry, looks = flat_film(codes.geometry), flat_film(codes.appearance)
    pose = torch.zeros(BATCH, 2, device=generator.device)
    intersections = find_intersections(generator, pose, SIZE)
    maps, seen = [], []
    for first in range(0, samples, BATCH):
        chosen = list(range(first, first + BATCH))
        some = Codes(codes.geometry[chosen], codes.appearance[chosen])
        output = render(generator, some, pose, SIZE, intersections=intersections)
        maps.append(output.semantics)
        seen.append(colours(output.image, output.semantics, generator.config.group_of_class))
    semantics = torch.cat(maps)
    places = find_places(semantics.mean(0))
    measured = torch.cat([shapes(semantics, places), torch.cat(seen)], 1).cpu()
    scale, low, high, shown = _units(measured)
    groups = generator.config.groups
    return Gauge(
        places, scale, low, high, shown,
        _components(geometry), torch.stack([_components(looks[:, g]) for g in range(groups)]),
    )  # fmt: skip


def _units(measured: Tensor) -> tuple[Tensor, Tensor, Tensor, tuple[bool, ...]]:
    """(M, A) with NaN -> unit, least and most of each attribute, and whether faces show it."""
    scale, low, high, shown = [], [], [], []
    for column, values in enumerate(measured.unbind(1)):
        here = values[values.isfinite()]
        often = len(here) > len(values) / 2
        if column < len(SHAPES) and SHAPES[column] in RARE_CLASSES:
            often = often and float(here.mean()) > RARE
        if len(here) < 2:
            here = torch.zeros(2)
        if is_angle(column):  # about their mean direction
            middle = torch.atan2(here.sin().mean(), here.cos().mean())
            here = torch.remainder(here - middle + torch.pi, 2 * torch.pi) - torch.pi
        ends = here.quantile(torch.tensor([*ENDS, *MIDDLE]).to(here))
        unit = float(torch.maximum((ends[3] - ends[2]) / 2, LEAST_SHARE * here.std()))
        if is_angle(column):
            unit = min(max(unit, LEAST_HUE), MOST_HUE)
        elif column >= len(SHAPES):
            unit = max(unit, LEAST_COLOUR)
        shown.append(often and unit > 1e-6)
        scale.append(max(unit, 1e-6))
        low.append(float(ends[0]))
        high.append(float(ends[1]))
    return torch.tensor(scale), torch.tensor(low), torch.tensor(high), tuple(shown)


def _components(flat: Tensor) -> Tensor:
    count = min(COMPONENTS, *flat.shape)
    return principal_components(flat - flat.mean(0), count).to(flat.device)


def _draw(generator: Generator, count: int, drawing: torch.Generator) -> Codes:
    z, looks = sample_latents(generator.config, count, generator=drawing)
    with torch.no_grad():
        return generator.map(z.to(generator.device), looks.to(generator.device))


@dataclass(frozen=True)
class _Trial:
    """A face before and after a slider was moved by a step."""

    sign: float
    asked: float  # steps of the own attribute, less than 1 at the end of the slider
    change: Tensor  # (A,) of all attributes, in steps


def _tried(steering: Steering, face: Codes, column: int, sign: float) -> _Trial | None:
    """None where the face does not show the attribute, or stands at the end of the slider."""
    scale = steering.gauge.scale
    with torch.no_grad():
        before = steering.measure(face).cpu()
    if not before[column].isfinite():
        return None
    goal = steering.asked(before, {column: sign})
    asked = float((difference(goal, before) / scale)[column])
    if abs(asked) < STILL:
        return None
    moved = steering.move(face, {column: sign})
    with torch.no_grad():
        change = difference(steering.measure(moved).cpu(), before) / scale
    return _Trial(sign, asked, change)


def _judged(names: tuple[str, ...], gauge: Gauge, column: int, trials: list[_Trial]) -> Slider:
    changes = torch.stack([trial.change for trial in trials])
    asked = torch.tensor([trial.asked for trial in trials])
    own = changes[:, column]
    others = [c for c in range(len(names)) if gauge.shown[c] and c != column]
    moves = own.abs().mean()
    leaks = changes[:, others].abs().nanmean(0) / moves
    leaks = leaks.nan_to_num(MOST_LEAKS, MOST_LEAKS).clamp(max=MOST_LEAKS)
    worst = int(leaks.argmax()) if others else 0
    return Slider(
        name=names[column],
        part=part_of(column),
        r2=float(1 - (own - asked).square().sum() / asked.square().sum()),
        leakage=float(leaks[worst]) if others else 0.0,
        leaks_into=names[others[worst]] if others else "",
        moves=float(moves),
        follows=float((own * asked > 0).float().mean()),
        faces=len(trials),
    )
