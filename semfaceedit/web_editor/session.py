"""A face being edited: the steps that led to it, and pictures of it; nothing of the network."""

from __future__ import annotations

import contextlib
import itertools
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from ..api import generate
from ..editing.fit import Watch
from ..editing.inversion import InvertSettings, invert
from ..editing.map_edit import edit
from ..editing.project import FaceProject
from ..editing.refit import EditedFace, EditSettings, render_project
from ..editing.region_transfer import What, transfer
from ..editing.target import OVERSAMPLING, read_target, save_label_map
from ..errors import UserError
from ..metrics.perceptual import PerceptualFeatures
from ..model.codes import Codes, Film, interpolate
from ..model.generator import Generator, seed_codes
from ..model.mean_face import mean_codes
from ..model.renderer import RenderOutput, recolor, render
from ..parsing.network import Parser, ParserSettings
from ..parsing.photographs import parse_file
from ..pictures.grids import picture_rows

KINDS = ("image", "semantics", "depth", "normals")
FRAME_SECONDS = 0.08  # what a frame may take while the head turns
FRAME_CULL = 1e-3  # compositing weight below which such a frame leaves points black
SMALLEST_FRAME = 16  # pixels along an edge
CHUNK_RAYS = 16384
SHADING_BYTES = 256 << 20  # what may be kept of a view, so that a changed look needs no geometry
MOST_STEPS = 200
MOST_NAME = 200  # bytes; a file's name with all that is put around it may have 255
THUMBNAIL = 64  # pixels along an edge, at most


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
    seed: int | None = None  # whose face this is
    look: Look | None = None  # the next look of the same group takes this one's place
    metrics: tuple[tuple[str, float], ...] = ()  # of the edit or transfer that made it


@dataclass(frozen=True)
class _Shown:
    """The last still view: what it shows, and all that a change of kind or look needs."""

    project: FaceProject
    pose: tuple[float, float]
    output: RenderOutput

    def has_shape_of(self, project: FaceProject, pose: tuple[float, float]) -> bool:
        """Whether a view of `project` from `pose` has the same shape."""
        same = self.pose == pose and self.project.tuned is project.tuned
        return same and _same(self.project.geometry, project.geometry)


class EditingSession:
    """The face at hand, its revisions, and what can be done with it.

    Methods that change the face add a revision, or raise UserError and change nothing. Views may be
    asked for from another thread than the one that changes the face.

    resolution: pixels of a still view, by default twice those of the checkpoint. perceptual: the
    VGG term of edits and inversions; None leaves it out. parser: reads the label map off a
    photograph that has none; None: the network that ships.
    """

    def __init__(
        self,
        generator: Generator,
        out: Path,
        *,
        resolution: int | None = None,
        perceptual: PerceptualFeatures | None = None,
        parser: tuple[Parser, ParserSettings] | None = None,
    ):
        self.generator, self.out, self.perceptual = generator, out, perceptual
        self.parser = parser
        self.model = generator.config
        self.resolution = resolution or OVERSAMPLING * self.model.resolution
        self._history: tuple[tuple[Revision, ...], int] = ((), -1)  # one value, for other threads
        self._autosave = out / f"autosave-{time.strftime('%Y%m%d-%H%M%S')}.safetensors"
        self._safe: WeakSet[FaceProject] = WeakSet()  # in a file of its own, or a seed as it is
        self._autosaved: FaceProject | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._shown: _Shown | None = None
        self._seconds_per_pixel = 0.0

    @property
    def history(self) -> tuple[tuple[Revision, ...], int]:
        """All revisions, and which of them is at hand."""
        return self._history

    @property
    def revision(self) -> Revision:
        """The one at hand."""
        revisions, at = self._history
        return revisions[at]

    @property
    def face(self) -> FaceProject:
        """The face at hand."""
        return self.revision.project

    # What changes the face.

    def choose(self, seed: int) -> None:
        """Go on with the generated face of a seed, seen from the front."""
        size = OVERSAMPLING * self.model.resolution
        project = generate(self.generator, seed, resolution=size).project
        self._safe.add(project)
        self._add(f"face {seed}", project, seed=seed)

    def open(self, path: Path) -> None:
        """Go on with a face project."""
        project = FaceProject.load(path, self.generator)
        self._safe.add(project)
        self._add(path.stem, project)

    def look(self, group: str, seed: int, amount: float = 1.0) -> None:
        """Give one group the appearance code of a seed, or a mixture: 0 is its own, 1 the seed's.

        Looks of a group that follow one another are one revision, and start from the same face.
        """
        self._check_group(group)
        revisions, at = self._history
        base = revisions[at - self._has_look(group)].project
        wanted = Codes(base.offsets.geometry, self._looks([seed]))
        codes = interpolate(base.offsets, wanted, amount, group, self.model.group_names)
        project = replace(base, appearance=codes.appearance[0])
        self._add(f"{group} like face {seed}", project, look=Look(group, seed, amount))

    def turn(self, pose: tuple[float, float]) -> None:
        """Let the map be painted from this side: it becomes what the face shows from there."""
        size = OVERSAMPLING * self.model.resolution
        project = replace(self.face, pose=torch.tensor(pose), crop=None)
        output = render_project(self.generator, project, size)
        labels = output.labels[0].to(torch.uint8).cpu().numpy()
        image = picture_rows(output)["image"][0].numpy()
        self._add("map from another side", replace(project, labels=labels, image=image))

    def edit(
        self,
        labels: np.ndarray,  # (R, R) class ids, as large as the face's map
        *,
        iterations: int = EditSettings.iterations,
        appearance: bool = False,
        name: str = "painted map",
        watch: Watch | None = None,
    ) -> None:
        """Let the face follow a painted map (Eq. 10)."""
        settings = replace(self._settings(iterations), appearance=appearance)
        edited = edit(
            self.generator, self.face, labels, settings=settings, perceptual=self.perceptual,
            watch=watch,
        )  # fmt: skip
        self._add_edited(name, edited)

    def transfer(
        self,
        source: int | Path,  # a seed, or a face project
        what: What,
        region: Sequence[str],
        *,
        iterations: int = EditSettings.iterations,
        watch: Watch | None = None,
    ) -> None:
        """Take the shape or the look of a region, or both, from another face (Eq. 11)."""
        if isinstance(source, int):
            giver, giver_name = generate(self.generator, source).project, f"face {source}"
        else:
            giver, giver_name = FaceProject.load(source, self.generator), source.stem
        edited = transfer(
            self.generator, self.face, giver, what=what, region=region,
            settings=self._settings(iterations), perceptual=self.perceptual, watch=watch,
        )  # fmt: skip
        words = {"appearance": "look", "geometry": "shape", "both": "shape and look"}
        self._add_edited(f"{words[what]} of {', '.join(region)} from {giver_name}", edited)

    def invert(self, image: Path, labels: Path | None, *, watch: Watch | None = None) -> None:
        """Go on with the face of a photograph, found by inversion (Eq. 9).

        Without `labels` a map is read off it, which is written beside the photograph.
        """
        size, pose = OVERSAMPLING * self.model.resolution, None
        if labels is None:
            labels = image.with_suffix(".mask.png")
            face = parse_file(image, labels, parser=self.parser)
            target, pose = read_target(image, labels, size, **face.placed), face.pose
        else:
            target = read_target(image, labels, size)
        settings = InvertSettings(perceptual_weight=self._perceptual_weight)
        found = invert(
            self.generator, target.image, target.labels, pose=pose, settings=settings,
            perceptual=self.perceptual, crop=target.crop, watch=watch,
        )  # fmt: skip
        self._add(image.stem, found.project, metrics=found.project.metrics)

    def go(self, index: int) -> None:
        """Take up an earlier or a later revision again; none is lost until another is added."""
        revisions, _ = self._history
        if not 0 <= index < len(revisions):
            raise UserError(f"there is no step {index}: use 0 to {len(revisions) - 1}")
        self._history = (revisions, index)

    # What is kept.

    def projects(self) -> list[str]:
        """Names of the face projects in the folder, the newest first."""
        found = []
        for path in self.out.glob("*.safetensors"):
            with contextlib.suppress(OSError):  # removed meanwhile, or a link to nothing
                if not path.name.startswith("tuned-"):
                    found.append((path.stat().st_mtime, path.stem))
        return [name for _, name in sorted(found, reverse=True)]

    def file(self, name: str) -> Path:
        """The file of a face project of the folder."""
        if name not in self.projects():
            raise UserError(f"there is no face {name!r} in {self.out}: save one first")
        return self.out / f"{name}.safetensors"

    def save(self, name: str) -> Path:
        """Write the face and its label map under a name that is free; an autosave of it goes."""
        name = name.strip().removesuffix(".safetensors")
        if not re.fullmatch(r"\w[\w .-]{0,79}", name) or name.startswith("tuned-"):
            raise UserError(
                f"{name!r} is not a name for a face: use letters, digits, spaces, dots and dashes"
            )
        if len(name.encode()) > MOST_NAME:
            raise UserError(f"{name!r} is too long for a file: use fewer letters")
        path, number = self.out / f"{name}.safetensors", 1
        while path.exists():
            number += 1
            path = self.out / f"{name}-{number}.safetensors"
        self._write(path)
        self._safe.add(self.face)
        if self._autosaved is not None and self._autosaved in self._safe:
            for spare in (self._autosave, self._autosave.with_suffix(".labels.png")):
                spare.unlink(missing_ok=True)
            self._autosaved = None
        return path

    def autosave(self) -> Path | None:
        """Keep the face at hand in this session's own file, which is given back.

        None where there is nothing to lose: a face in a file of its own, or a seed's as it is.
        """
        face = self.face
        if face in self._safe:
            return None
        if face is not self._autosaved:
            self._write(self._autosave)
            self._autosaved = face
        return self._autosave

    # What is shown.

    def view(
        self,
        kind: str,
        pose: tuple[float, float],
        *,
        moving: bool = False,
        revision: int | None = None,
    ) -> np.ndarray:  # (H, H, 3) uint8
        """A picture of the face, or of an earlier revision, from one side.

        moving: as many pixels as `FRAME_SECONDS` allow, by what views took before.
        """
        if kind not in KINDS:
            raise UserError(f"there is no picture {kind!r}: use {', '.join(KINDS)}")
        revisions, at = self._history
        if revision is not None and 0 <= revision < len(revisions):
            at = revision
        project = revisions[at].project
        with self._lock:
            began = time.monotonic()
            if moving:
                output = self._frame(project, pose, colored=kind == "image")
            else:
                output = self._still(project, pose)
            picture = picture_rows(output, self.model.camera)[kind][0].numpy()
            seconds = (time.monotonic() - began) / len(picture) ** 2
            if moving:
                self._seconds_per_pixel = (self._seconds_per_pixel + seconds) / 2
            elif not self._seconds_per_pixel:
                self._seconds_per_pixel = seconds
        return picture

    @torch.no_grad()
    def faces(self, seeds: Sequence[int]) -> np.ndarray:
        """Generated faces side by side, (h, n h, 3) uint8; at least one."""
        self._check_seeds(seeds)
        size = min(THUMBNAIL, self.model.resolution)
        pose = self._pose((0.0, 0.0))
        outputs = (render(self.generator, seed_codes(self.generator, s), pose, size) for s in seeds)
        return np.hstack([picture_rows(output)["image"][0].numpy() for output in outputs])

    @torch.no_grad()
    def looks(self, group: str, seeds: Sequence[int]) -> np.ndarray:
        """The face at hand with one group's look of each seed, side by side, (h, n h, 3) uint8."""
        self._check_group(group)
        self._check_seeds(seeds)
        size = min(THUMBNAIL, self.model.resolution)
        index = self.model.group_names.index(group)
        own = self.face.generator(self.generator)
        codes = self.face.codes(self.generator)
        output = render(own, codes, self._pose((0.0, 0.0)), size, keep_shading=True)
        mean, others = mean_codes(self.generator).appearance, self._looks(seeds)
        pictures = []
        for other in range(len(seeds)):
            film = Film(codes.appearance.frequencies.clone(), codes.appearance.phases.clone())
            film.frequencies[:, index] = (mean + others[other : other + 1]).frequencies[:, index]
            film.phases[:, index] = (mean + others[other : other + 1]).phases[:, index]
            pictures.append(picture_rows(recolor(own, output, film))["image"][0].numpy())
        return np.hstack(pictures)

    def _add_edited(self, name: str, edited: EditedFace) -> None:
        name += " (stopped)" if edited.interrupted else ""
        self._add(name, edited.project, metrics=edited.project.metrics)

    def _add(
        self,
        name: str,
        project: FaceProject,
        *,
        seed: int | None = None,
        look: Look | None = None,
        metrics: dict[str, float] | None = None,
    ) -> None:
        """A revision after the one at hand; those after it are dropped."""
        revisions, at = self._history
        if look is not None and self._has_look(look.group):
            at -= 1
        told = tuple((metrics or {}).items())
        added = Revision(name, project, next(self._numbers), seed, look, told)
        revisions = (*revisions[: at + 1], added)[-MOST_STEPS:]
        self._history = (revisions, len(revisions) - 1)

    def _has_look(self, group: str) -> bool:
        """Whether the revision at hand is a look of this group, with the face before it at hand."""
        revisions, at = self._history
        look = revisions[at].look if at > 0 else None
        return look is not None and look.group == group

    def _write(self, path: Path) -> None:
        face = self.face
        output = render_project(self.generator, face, self.model.resolution)
        self.out.mkdir(parents=True, exist_ok=True)
        saved = replace(face, preview=picture_rows(output)["image"][0].numpy())
        save_label_map(path.with_suffix(".labels.png"), face.labels)
        saved.save(path)

    def _settings(self, iterations: int) -> EditSettings:
        return EditSettings(
            iterations=iterations,
            resolution=self.model.resolution,
            perceptual_weight=self._perceptual_weight,
        )

    @property
    def _perceptual_weight(self) -> float:
        return EditSettings.perceptual_weight if self.perceptual else 0.0

    def _check_group(self, group: str) -> None:
        if group not in self.model.group_names:
            names = ", ".join(self.model.group_names)
            raise UserError(f"there is no group {group!r}: use one of {names}")

    def _check_seeds(self, seeds: Sequence[int]) -> None:
        if not len(seeds):
            raise UserError("there are no seeds: give at least one")

    def _looks(self, seeds: Sequence[int]) -> Film:  # (n, groups, L + 1, W) offsets
        mean = mean_codes(self.generator).appearance
        first, *others = (seed_codes(self.generator, seed).appearance - mean for seed in seeds)
        return first.cat(*others).detach()

    def _pose(self, pose: tuple[float, float]) -> Tensor:  # (1, 2)
        return torch.tensor([pose], device=next(self.generator.parameters()).device)

    @torch.no_grad()
    def _frame(
        self, project: FaceProject, pose: tuple[float, float], *, colored: bool
    ) -> RenderOutput:
        """A rendering in as many pixels as time allows, without colours where none are shown."""
        return render(
            project.generator(self.generator),
            project.codes(self.generator),
            self._pose(pose),
            self._frame_resolution(),
            chunk_rays=CHUNK_RAYS,
            shade=colored,
            cull=FRAME_CULL,
        )

    @torch.no_grad()
    def _still(self, project: FaceProject, pose: tuple[float, float]) -> RenderOutput:
        """The full rendering; of a view seen with another look, only the colours are made anew."""
        own, codes = project.generator(self.generator), project.codes(self.generator)
        shown = self._shown if self._shown and self._shown.has_shape_of(project, pose) else None
        if shown is not None and _same(shown.project.appearance, project.appearance):
            return shown.output
        if shown is not None and shown.output.shading is not None:
            output = recolor(own, shown.output, codes.appearance)
        else:
            floats = (self.model.width + 11) * (self.model.manifolds + 1) * self.resolution**2
            output = render(
                own,
                codes,
                self._pose(pose),
                self.resolution,
                chunk_rays=CHUNK_RAYS,
                keep_shading=4 * floats <= SHADING_BYTES,
            )
        self._shown = _Shown(project, pose, output)
        return output

    def _frame_resolution(self) -> int:
        """The still size, halved until a frame is expected to take at most `FRAME_SECONDS`."""
        resolution = self.resolution
        while (
            resolution // 2 >= SMALLEST_FRAME
            and self._seconds_per_pixel * resolution**2 > FRAME_SECONDS
        ):
            resolution //= 2
        return resolution


def _same(a: Film, b: Film) -> bool:
    return a is b or (torch.equal(a.frequencies, b.frequencies) and torch.equal(a.phases, b.phases))
