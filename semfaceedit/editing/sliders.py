"""Sliders: what `find-directions` measured of a generator, its file, and moving a face by it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, meant
from ..model.generator import Generator
from ..model.labels import NUM_CLASSES
from ..model.mean_face import fingerprint
from ..pictures.grids import picture_rows
from .attributes import LEAST_COLOURED, coloured_classes, find_places, outline_moved
from .beside import DAMAGE, Kind
from .encoder import film_of
from .project import FaceProject
from .refit import EditedFace, EditSettings, dilate, render_project, with_metrics
from .steering import (
    SIZE,
    Gauge,
    Steering,
    add_way,
    attribute_names,
    difference,
    part_of,
    shortened,
)
from .target import resize_labels

KIND = Kind(
    name="directions",
    what="a set of directions",
    format="semfaceedit-directions",
    version=2,
    command="find-directions",
    way_out="find them again with `find-directions`",
)
LEAST_R2, MOST_LEAKAGE = 0.7, 0.05  # of a good slider
WEAK_FOLLOWS, WEAK_LEAKAGE = 0.9, 0.15  # of a weak one, whose R2 is no less
MOST = 5.0  # deviations that a slider moves, at most
TENSORS = ("scale", "low", "high", "geometry", "appearance")  # of a gauge, beside its mean map


@dataclass(frozen=True)
class Slider:
    """What a slider changes, and how well: on faces drawn afterwards, each moved by one step."""

    name: str
    part: int  # -1: the geometry; else the appearance group
    r2: float  # of the change that was asked for, as a prediction of what came about
    leakage: float  # the largest mean |change| of another attribute, in shares of the own one's
    leaks_into: str  # that other attribute
    moves: float  # steps that the attribute moved, on average; faces at the end move less
    follows: float  # share of faces on which it moves the right way
    faces: int  # that could be moved

    @property
    def grade(self) -> str:
        """good or weak, which are offered, or no, which is not."""
        if self.r2 < LEAST_R2:
            return "no"
        if self.leakage <= MOST_LEAKAGE:
            return "good"
        weak = self.follows >= WEAK_FOLLOWS and self.leakage <= WEAK_LEAKAGE
        return "weak" if weak else "no"


@dataclass(frozen=True)
class Directions:
    """All sliders of a generator, and what it takes to move them."""

    checkpoint: str  # fingerprint of the generator
    names: tuple[str, ...]  # of all attributes
    sliders: tuple[Slider, ...]
    gauge: Gauge

    @classmethod
    def of(cls, generator: Generator, sliders: list[Slider], gauge: Gauge) -> Directions:
        return cls(fingerprint(generator), attribute_names(generator), tuple(sliders), gauge)

    @property
    def offered(self) -> tuple[Slider, ...]:
        return tuple(slider for slider in self.sliders if slider.grade != "no")

    def columns(self, changes: Mapping[str, float]) -> dict[int, float]:
        """The same changes by the attribute's place; UserError for a slider that is not offered."""
        found: dict[int, float] = {}
        offered = [slider.name for slider in self.offered]
        for name, steps in changes.items():
            if name not in offered:
                known = any(slider.name == name for slider in self.sliders)
                why = "did not pass" if known else "is unknown"
                near = "" if known else meant(name, offered)
                names = ", ".join(offered) or "none"
                raise UserError(f"slider {name!r} {why}{near}: these are offered: {names}")
            if not -MOST <= steps <= MOST:
                raise UserError(f"slider {name!r} by {steps:g}: use -{MOST:g} to +{MOST:g}")
            found[self.names.index(name)] = steps
        return found

    def save(self, path: Path, generator: Generator) -> None:
        """Write one safetensors file."""
        gauge = self.gauge
        tensors = {name: getattr(gauge, name) for name in TENSORS} | {"mean": gauge.places.mean}
        facts = {"sliders": [asdict(s) for s in self.sliders], "shown": list(gauge.shown)}
        KIND.save(path, tensors, generator, facts)


def find_sliders(generator: Generator, path: Path | None = None) -> Directions | None:
    """The directions in `path`, by default in the file beside the generator's weights; None where
    there is none. UserError where the file is damaged or belongs to other weights."""
    found = KIND.find(generator, path)
    return None if found is None else load_directions(found, generator)


def load_directions(path: Path, generator: Generator) -> Directions:
    """Directions that `find-directions` wrote for this generator; UserError for any other file."""
    header, tensors = KIND.read(path, generator)
    names, model = attribute_names(generator), generator.config
    try:
        if header["version"] < KIND.version:
            raise ValueError("it was written by an earlier semfaceedit")
        sliders = tuple(Slider(**fields) for fields in header["sliders"])
        for slider in sliders:
            figures = (slider.r2, slider.leakage, slider.follows)
            named = slider.name in names and isinstance(slider.leaks_into, str)
            if not (named and slider.part == part_of(names.index(slider.name))
                    and all(map(math.isfinite, figures))):  # fmt: skip
                raise ValueError(f"slider {slider.name!r} is not sound")
        shown = tuple(header["shown"])
        if not all(type(flag) is bool for flag in shown):
            raise ValueError("it does not say what faces show")
        kept = {name: tensors[name] for name in TENSORS}
        widths = [2 * (depth + 1) * model.width
                  for depth in (model.geometry_depth, model.appearance_depth)]  # fmt: skip
        count, components = len(names), len(kept["geometry"])
        wanted = {
            "scale": (count,), "low": (count,), "high": (count,),
            "geometry": (components, widths[0]),
            "appearance": (model.groups, kept["appearance"].shape[1], widths[1]),
        }  # fmt: skip
        if len(shown) != count or any(kept[n].shape != shape for n, shape in wanted.items()):
            raise ValueError("it has another shape than the codes")
        if tensors["mean"].shape != (NUM_CLASSES, SIZE, SIZE) or not bool(
            (kept["scale"] > 0).all()
        ):
            raise ValueError("its units or its mean map are not sound")
        gauge = Gauge(places=find_places(tensors["mean"]), shown=shown, **kept)
    except DAMAGE as error:
        raise KIND.unreadable(path, error) from None
    return Directions(header["checkpoint"], names, sliders, gauge)


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


def check_shown(
    directions: Directions,
    changes: Mapping[str, float],
    labels: np.ndarray,
    group_of_class: tuple[int, ...],
) -> None:
    """UserError, before a face is fitted to a label map (R, R), for a slider of colours of which
    the map shows nothing. `move` refuses what the fitted face shows too little of."""
    for column in directions.columns(changes):
        classes = coloured_classes(part_of(column), group_of_class) if part_of(column) >= 0 else ()
        if classes and np.isin(labels, classes).mean() < LEAST_COLOURED / 5:
            raise UserError(
                f"slider {directions.names[column]!r}: the label map shows none of it on this face"
            )


def parse_changes(texts: tuple[str, ...]) -> dict[str, float]:
    """`NAME=STEPS` texts, such as "mouth opening=+1.5"; UserError for others, and for a name
    given twice."""
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
        if name in changes:
            raise UserError(f"--set gives {name!r} twice: give it once")
        changes[name] = steps
    return changes


@torch.no_grad()
def move(
    generator: Generator,
    project: FaceProject,
    changes: Mapping[str, float],
    directions: Directions,
) -> FaceProject:
    """The face with sliders moved by some steps; only its offsets change (`Steering.move`).

    A step is a deviation of the attribute over generated faces. UserError for an unknown slider,
    and where the face does not show what it changes.
    """
    if directions.checkpoint != project.checkpoint:
        raise UserError("the face project and the directions are of different weights")
    wanted = directions.columns(changes)
    steering = Steering(project.generator(generator), directions.gauge)
    codes = project.codes(generator)
    seen = steering.measure(codes)
    for column in wanted:
        if not bool(seen[column].isfinite()):
            raise UserError(f"slider {directions.names[column]!r}: this face does not show it")
    # What did not move stays to the last bit: `paste` asks whether the shape is the same.
    offsets = project.offsets + (steering.move(codes, wanted) - codes)
    return replace(project, geometry=offsets.geometry[0], appearance=offsets.appearance[0])


class LiveFace:
    """A face whose sliders are dragged: first-order answers, for which nothing is rendered again.

    The first move of each part takes its Jacobian; `adjust` then gives the face as it was asked.
    """

    def __init__(self, generator: Generator, project: FaceProject, directions: Directions):
        if directions.checkpoint != project.checkpoint:
            raise UserError("the face project and the directions are of different weights")
        self.project, self._directions = project, directions
        self._width = generator.config.width
        self._steering = Steering(project.generator(generator), directions.gauge)
        self._codes = project.codes(generator)
        with torch.no_grad():
            self._before = self._steering.measure(self._codes)
        self._ahead: dict[int, tuple[Tensor, Tensor]] = {}

    def moved(self, changes: Mapping[str, float]) -> FaceProject:
        """The face with sliders moved by so many steps; UserError for an unknown slider."""
        wanted = self._directions.columns(changes)
        offsets = self.project.offsets
        for part in sorted({part_of(column) for column in wanted}):
            if part not in self._ahead:
                self._ahead[part] = self._steering.ahead(self._codes, self._before, part)
            inverse, basis = self._ahead[part]
            own = {column: steps for column, steps in wanted.items() if part_of(column) == part}
            goal = self._steering.asked(self._before, own)
            gap = difference(goal, self._before) / self._directions.gauge.scale.to(goal)
            u = shortened(inverse @ gap.nan_to_num())
            way = film_of(u @ basis, self._width)
            offsets = add_way(offsets, part, way)
        return replace(self.project, geometry=offsets.geometry[0], appearance=offsets.appearance[0])


@torch.no_grad()
def adjust(
    generator: Generator,
    project: FaceProject,
    changes: Mapping[str, float],
    directions: Directions | None = None,
) -> EditedFace:
    """Move sliders of a face: {"mouth opening": 1.5}, in deviations over generated faces.

    directions: by default those beside the weights. The label map follows where the rendered one
    changes. UserError for an unknown slider, and where there are no directions.
    """
    project.check(generator)
    directions = need_directions(directions or find_sliders(generator))
    moved = move(generator, project.with_origin(), changes, directions)
    resolution = len(project.preview)
    before = render_project(generator, project, resolution)
    after = render_project(generator, moved, resolution)
    changed = before.labels != after.labels
    region = _region(generator, before.labels[0], after.labels[0], directions.columns(changes))
    edited = EditedFace(
        project=replace(
            moved,
            labels=_labels_after(project.labels, changed[0], after.labels[0]),
            preview=picture_rows(after)["image"][0].numpy(),
            iterations=0,
            metrics={},
            origin=moved.origin and moved.origin.grown(region),
        ),
        region=torch.from_numpy(region)[None, None],
        before=before,
        after=after,
        history=[],
    )
    return with_metrics(edited, edited.change)


def _region(
    generator: Generator, before: Tensor, after: Tensor, columns: Iterable[int]
) -> np.ndarray:
    """(R, R) bool: a little around the outlines that moved of the shapes that were asked for, and
    the groups whose colours were. before, after: (R, R) labels.

    The codes of a shape change every pixel a little; all else is not meant.
    """
    names, group_of = attribute_names(generator), generator.config.group_of_class
    moved, groups = torch.zeros_like(before, dtype=torch.bool), []
    for column in columns:
        if part_of(column) < 0:
            moved |= outline_moved(names[column], before, after)
        else:
            groups.append(part_of(column))
    where = dilate(moved.cpu().numpy(), EditSettings.dilation)
    for labels in (before, after):
        where |= np.isin(np.array(group_of)[labels.cpu().numpy()], groups)
    return where


def _labels_after(labels: np.ndarray, changed: Tensor, after: Tensor) -> np.ndarray:
    """(R, R) the map, with the rendered labels (r, r) where these changed."""
    size = len(labels)
    new = resize_labels(after.to(torch.uint8).cpu().numpy(), size)
    return np.where(resize_labels(changed.cpu().numpy(), size), new, labels)
