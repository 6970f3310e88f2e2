"""Sliders: directions that `find-directions` found for a generator, their file, and their use."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..model.codes import Codes, Film
from ..model.generator import Generator
from ..model.mean_face import fingerprint
from ..pictures.grids import picture_rows
from .beside import DAMAGE, Kind
from .encoder import film_of
from .project import FaceProject
from .refit import EditedFace, render_project, with_metrics
from .target import resize_labels

KIND = Kind(
    name="directions",
    what="a set of directions",
    format="semfaceedit-directions",
    version=1,
    command="find-directions",
    way_out="find them again with `find-directions`",
)
LEAST_R2, MOST_LEAKAGE = 0.7, 0.05  # of a good slider
WEAK_R2, WEAK_FOLLOWS, WEAK_LEAKAGE = 0.5, 0.9, 0.15  # of a weak one
MOST = 5.0  # deviations that a slider moves, at most


@dataclass(frozen=True)
class Slider:
    """What a direction changes, and how well."""

    name: str
    part: int  # -1: the geometry; else the appearance group
    r2: float  # of the attribute's regression on the codes, on fresh samples
    leakage: float  # the largest mean change of another attribute, in shares of the own one's
    leaks_into: str  # that other attribute
    moves: float  # deviations that one step moves the attribute by, on fresh samples
    follows: float  # share of fresh faces on which it moves the right way
    length: float  # of one step, in deviations of the codes

    @property
    def grade(self) -> str:
        """good or weak, which are offered, or no, which is not."""
        if self.r2 >= LEAST_R2 and self.leakage <= MOST_LEAKAGE:
            return "good"
        followed = self.r2 >= WEAK_R2 and self.follows >= WEAK_FOLLOWS
        if followed and self.leakage <= WEAK_LEAKAGE:
            return "weak"
        return "no"


@dataclass(frozen=True)
class Directions:
    """All sliders of a generator, and the directions of those that are offered."""

    checkpoint: str  # fingerprint of the generator
    sliders: tuple[Slider, ...]
    ways: dict[str, Film]  # (L + 1, W) offsets of one step, by name

    @classmethod
    def of(cls, generator: Generator, sliders: list[Slider], ways: list[Tensor]) -> Directions:
        """Sliders and their flat offsets (F,)."""
        width = generator.config.width
        films = {
            slider.name: film_of(way.float(), width)
            for slider, way in zip(sliders, ways, strict=True)
            if slider.grade != "no"
        }
        return cls(fingerprint(generator), tuple(sliders), films)

    @property
    def offered(self) -> tuple[Slider, ...]:
        return tuple(slider for slider in self.sliders if slider.name in self.ways)

    def save(self, path: Path, generator: Generator) -> None:
        """Write one safetensors file."""
        tensors = {
            f"{name}.{part}": getattr(film, part)
            for name, film in self.ways.items()
            for part in ("frequencies", "phases")
        }
        KIND.save(path, tensors, generator, {"sliders": [asdict(s) for s in self.sliders]})


def find_sliders(generator: Generator, path: Path | None = None) -> Directions | None:
    """The directions in `path`, by default in the file beside the generator's weights; None where
    there is none. UserError where the file is damaged or belongs to other weights."""
    found = KIND.find(generator, path)
    return None if found is None else load_directions(found, generator)


def load_directions(path: Path, generator: Generator) -> Directions:
    """Directions that `find-directions` wrote for this generator; UserError for any other file."""
    header, tensors = KIND.read(path, generator)
    model = generator.config
    try:
        sliders = tuple(Slider(**fields) for fields in header["sliders"])
        for slider in sliders:
            figures = (slider.r2, slider.leakage, slider.follows)
            words = isinstance(slider.name, str) and isinstance(slider.leaks_into, str)
            placed = type(slider.part) is int and -1 <= slider.part < model.groups
            if not (words and placed and all(map(math.isfinite, figures))):
                raise ValueError(f"slider {slider.name!r} is not sound")
        ways = {}
        for slider in sliders:
            if slider.grade == "no":
                continue
            film = Film(*(tensors[f"{slider.name}.{part}"] for part in ("frequencies", "phases")))
            depth = model.geometry_depth if slider.part < 0 else model.appearance_depth
            if {film.frequencies.shape, film.phases.shape} != {(depth + 1, model.width)}:
                raise ValueError(f"slider {slider.name!r} has another shape than the codes")
            ways[slider.name] = film
    except DAMAGE as error:
        raise KIND.unreadable(path, error) from None
    return Directions(header["checkpoint"], sliders, ways)


def table(directions: Directions, *, everything: bool = False) -> str:
    """The sliders on offer as lines of text: how well each works; `everything`: the others too."""
    lines = [f"{'slider':<24}{'R2':>6}{'follows':>9}{'leakage':>9}  into"]
    for slider in directions.sliders if everything else directions.offered:
        note = {"good": "", "weak": "  (weak)", "no": "  (not offered)"}[slider.grade]
        lines.append(
            f"{slider.name:<24}{slider.r2:>6.2f}{slider.follows:>9.0%}{slider.leakage:>9.1%}  "
            f"{slider.leaks_into}{note}"
        )
    return "\n".join(lines)


def need_directions(directions: Directions | None) -> Directions:
    """UserError where a generator has none."""
    if directions is None:
        raise UserError("these weights have no sliders: find some with `find-directions`")
    return directions


def add_way(codes: Codes, part: int, way: Film) -> Codes:
    """Codes with an offset (L + 1, W) added to the geometry (part -1) or to a group's look."""
    if part < 0:
        return Codes(codes.geometry + way, codes.appearance)
    frequencies, phases = codes.appearance.frequencies.clone(), codes.appearance.phases.clone()
    frequencies[:, part] += way.frequencies.to(frequencies)
    phases[:, part] += way.phases.to(phases)
    return Codes(codes.geometry, Film(frequencies, phases))


def parse_changes(texts: tuple[str, ...]) -> dict[str, float]:
    """`NAME=STEPS` texts, such as "mouth opening=+1.5"; of a name given twice, the sum."""
    changes: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.rpartition("=")
        try:
            steps = float(number) if equals else math.nan
        except ValueError:
            steps = math.nan
        name = " ".join(name.split()).lower()
        if not name or not math.isfinite(steps):
            raise UserError(f'--set {text!r}: write NAME=STEPS, as in "mouth opening=+1.5"')
        changes[name] = changes.get(name, 0.0) + steps
    return changes


def move(project: FaceProject, changes: Mapping[str, float], directions: Directions) -> FaceProject:
    """The face with sliders moved by some steps, each a standard deviation of the attribute over
    generated faces; only its offsets change. UserError for an unknown slider."""
    if directions.checkpoint != project.checkpoint:
        raise UserError("the face project and the directions are of different weights")
    offsets, known = project.offsets, {slider.name: slider for slider in directions.sliders}
    for name, steps in changes.items():
        if name not in directions.ways:
            why = "did not pass" if name in known else "is unknown"
            names = ", ".join(directions.ways) or "none"
            raise UserError(f"slider {name!r} {why}: these are offered: {names}")
        if not -MOST <= steps <= MOST:
            raise UserError(f"slider {name!r} by {steps:g}: use -{MOST:g} to +{MOST:g}")
        way = directions.ways[name]
        film = Film(*(steps * t.to(project.geometry.phases) for t in (way.frequencies, way.phases)))
        offsets = add_way(offsets, known[name].part, film)
    return replace(project, geometry=offsets.geometry[0], appearance=offsets.appearance[0])


@torch.no_grad()
def adjust(
    generator: Generator,
    project: FaceProject,
    changes: Mapping[str, float],
    directions: Directions | None = None,
) -> EditedFace:
    """Move sliders of a face: {"mouth opening": 1.5}, in standard deviations; nothing is fitted.

    directions: by default those beside the weights. The label map follows where the rendered one
    changes. UserError for an unknown slider, and where there are no directions.
    """
    project.check(generator)
    directions = need_directions(directions or find_sliders(generator))
    moved = move(project.with_origin(), changes, directions)
    resolution = len(project.preview)
    before = render_project(generator, project, resolution)
    after = render_project(generator, moved, resolution)
    changed = before.labels != after.labels
    region = (after.image - before.image).abs().amax(1, keepdim=True) > 2 / 255
    edited = EditedFace(
        project=replace(
            moved,
            labels=_labels_after(project.labels, changed[0], after.labels[0]),
            preview=picture_rows(after)["image"][0].numpy(),
            iterations=0,
            metrics={},
            origin=moved.origin and moved.origin.grown(region[0, 0].cpu().numpy()),
        ),
        region=region | changed[:, None],
        before=before,
        after=after,
        history=[],
    )
    return with_metrics(edited, edited.change)


def _labels_after(labels: np.ndarray, changed: Tensor, after: Tensor) -> np.ndarray:
    """(R, R) the map, with the rendered labels (r, r) where these changed."""
    size = len(labels)
    new = resize_labels(after.to(torch.uint8).cpu().numpy(), size)
    return np.where(resize_labels(changed.cpu().numpy(), size), new, labels)
