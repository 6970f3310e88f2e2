"""A face being edited: the steps that led to it, and pictures of it; nothing of the network."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import stat
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import WeakSet

import numpy as np
import torch
from torch import Tensor

from ..api import Editor
from ..data.decoding import save_label_map
from ..editing.encoder import follow_map
from ..editing.fit import Goal, Step, StopFit, Watch
from ..editing.project import FaceProject
from ..editing.refit import EditedFace, EditSettings, render_project
from ..editing.region_transfer import What
from ..editing.target import OVERSAMPLING, check_labels
from ..errors import UserError
from ..model.codes import Codes, Film, interpolate
from ..model.generator import seed_codes
from ..model.mean_face import mean_codes
from ..model.renderer import RenderOutput, recolor, render
from ..pictures.grids import picture_rows

KINDS = ("image", "semantics", "depth", "normals")
FRAME_SECONDS = 0.08  # what a frame may take while the head turns
FRAME_CULL = 1e-3  # compositing weight below which such a frame leaves points black
SMALLEST_FRAME, SMALLEST_FOLLOWED = 16, 32  # pixels along an edge; of a face that follows the brush
CHUNK_RAYS = 16384
SHADING_BYTES = 256 << 20  # what may be kept of a view, so that a changed look needs no geometry
MOST_STEPS = 200
MOST_NAME = 200  # bytes; a file's name with all that is put around it may have 255
THUMBNAIL = 64  # pixels along an edge, at most
SHARPEN_STEPS, SHARPEN_SECONDS = 20, 1.0  # of the fit after a stroke, at most
SHARPEN_IMAGE_WEIGHT = 4.0  # its picture outside what was painted counts more than in a long fit
AUTOSAVE = "autosave-"  # how the names of faces begin that nobody saved


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
    version: int = 0  # counts on where a short fit has sharpened it


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

    editor: the checkpoint, with what edits and inversions use: where it has no VGG weights, they
    leave that term out. resolution: pixels of a still view, by default twice those of the
    checkpoint.
    """

    def __init__(self, editor: Editor, out: Path, *, resolution: int | None = None):
        self.editor, self.out = editor, out
        self.generator, self.model = editor.generator, editor.generator.config
        self.resolution = resolution or OVERSAMPLING * self.model.resolution
        self._history: tuple[tuple[Revision, ...], int] = ((), -1)  # one value, for other threads
        newest = next(iter(self.projects()), "")
        self.recovered = newest if newest.startswith(AUTOSAVE) else ""  # left by an earlier session
        self._started = time.strftime("%Y%m%d-%H%M%S")
        self._safe: WeakSet[FaceProject] = WeakSet()  # in a file of its own, or a seed as it is
        self._autosaved: dict[Path, FaceProject] = {}
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
        project = self.editor.generate(seed, resolution=size).project
        self._safe.add(project)
        self._add(f"face {seed}", project, seed=seed, root=True)

    def open(self, path: Path) -> None:
        """Go on with a face project."""
        project = FaceProject.load(path, self.generator)
        self._safe.add(project)
        self._add(path.stem, project, root=True)

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
        """Let the face follow a painted map (Eq. 10); the map that it has: follow it closer."""
        settings = replace(self._settings(iterations), appearance=appearance)
        if np.array_equal(labels, self.face.labels):
            before = unpainted(*self._history)
            edited = self.editor.refine(before, self.face, settings=settings, watch=watch)
        else:
            edited = self.editor.edit(self.face, labels, settings=settings, watch=watch)
        self._add_edited(name, edited)

    @property
    def follows(self) -> bool:
        """Whether there is an encoder, so that the face can follow each stroke."""
        return self.editor.encoder is not None

    def stroke(self, labels: np.ndarray, name: str = "painted map") -> None:
        """Let the face follow a stroke at once, by what the encoder reads."""
        before = unpainted(*self._history)
        undone = np.array_equal(labels, before.labels)
        project = before if undone else self._follow(self.face, labels)
        self._add(name, project, painted=True)

    def sharpen(self, watch: Watch | None = None) -> None:
        """Bring the face nearer to the map after a stroke: `SHARPEN_STEPS` of Eq. 10's fit at half
        the resolution, or as many as `SHARPEN_SECONDS` allow. It takes the place of the
        stroke's own face."""
        revisions, at = self._history
        before, revision = unpainted(revisions, at), revisions[at]
        project, metrics = revision.project, revision.metrics
        if revision.painted and not np.array_equal(before.labels, project.labels):
            edited = self._sharpened(before, project, watch)
            project, metrics = edited.project, tuple(edited.project.metrics.items())
        sharp = replace(revision, project=project, metrics=metrics, version=revision.version + 1)
        self._history = ((*revisions[:at], sharp, *revisions[at + 1 :]), at)

    def _sharpened(
        self, before: FaceProject, project: FaceProject, watch: Watch | None
    ) -> EditedFace:
        end = time.monotonic() + SHARPEN_SECONDS

        def limited(step: Step, output: RenderOutput, goal: Goal) -> None:
            if watch is not None:
                watch(step, output, goal)
            if time.monotonic() > end:
                raise StopFit

        settings = self.editor.edit_settings(
            iterations=SHARPEN_STEPS,
            resolution=max(1, self.model.resolution // 2),
            image_weight=SHARPEN_IMAGE_WEIGHT,
            perceptual_weight=0.0,
            evaluate_every=4,
        )
        edited = self.editor.refine(before, project, settings=settings, watch=limited)
        edited.project.check_values("the new face")
        return edited

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
            giver, giver_name = self.editor.generate(source).project, f"face {source}"
        else:
            giver, giver_name = FaceProject.load(source, self.generator), source.stem
        settings = self._settings(iterations)
        edited = self.editor.transfer(
            self.face, giver, what=what, region=region, settings=settings, watch=watch
        )
        words = {"appearance": "look", "geometry": "shape", "both": "shape and look"}
        self._add_edited(f"{words[what]} of {', '.join(region)} from {giver_name}", edited)

    def invert(self, image: Path, labels: Path | None, *, watch: Watch | None = None) -> None:
        """Go on with the face of a photograph, found by inversion (Eq. 9).

        Without `labels` a map is read off it.
        """
        settings = self.editor.invert_settings(perceptual_weight=self._perceptual_weight)
        found = self.editor.invert(image, labels, settings=settings, watch=watch)
        self._add(image.stem, found.project, metrics=found.project.metrics, root=True)

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
            # Removed meanwhile, a link to nothing, or a name that is no text.
            with contextlib.suppress(OSError, UnicodeEncodeError):
                status, _ = path.stat(), path.name.encode()
                if stat.S_ISREG(status.st_mode) and not path.name.startswith("tuned-"):
                    found.append((status.st_mtime, path.stem))
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
        while any(os.path.lexists(taken) for taken in _files(path)):
            number += 1
            path = self.out / f"{name}-{number}.safetensors"
        face = self.face
        try:
            self._write(face, path)
        except BaseException:  # a full disk: not half of it is left
            _remove(path)
            raise
        self._safe.add(face)
        for kept, project in tuple(self._autosaved.items()):
            if project in self._safe:
                _remove(kept)
                del self._autosaved[kept]
        return path

    def autosave(self) -> Path | None:
        """Keep the face at hand in a file of this session, which is given back.

        Each face that was chosen, opened or found has its own, with all that was made of it. None
        where there is nothing to lose: a face in a file of its own, or a seed's as it is.
        """
        revision = self.revision
        if revision.project in self._safe:
            return None
        path = self.out / f"{AUTOSAVE}{self._started}-{revision.root}.safetensors"
        if revision.project is not self._autosaved.get(path):
            self._write(revision.project, path)
            self._autosaved[path] = revision.project
        return path

    def thumbnail(self, name: str) -> np.ndarray:
        """A small picture of a face project of the folder, (h, h, 3) uint8."""
        preview = FaceProject.load(self.file(name)).preview
        return preview[:: -(-len(preview) // THUMBNAIL), :: -(-len(preview) // THUMBNAIL)]

    # What is shown.

    def view(
        self,
        kind: str,
        pose: tuple[float, float],
        *,
        moving: bool = False,
        revision: int | None = None,
        labels: np.ndarray | None = None,
    ) -> np.ndarray:  # (H, H, 3) uint8
        """A picture of the face, or of an earlier revision, from one side.

        moving: as many pixels as `FRAME_SECONDS` allow, by what views took before. labels: of the
        face as it follows this map, (R, R) class ids.
        """
        if kind not in KINDS:
            raise UserError(f"there is no picture {kind!r}: use {', '.join(KINDS)}")
        revisions, at = self._history
        if revision is not None and 0 <= revision < len(revisions):
            at = revision
        project = revisions[at].project
        with self._lock:
            began = time.monotonic()
            if labels is not None:
                project = self._follow(project, labels)
            if moving:
                least = SMALLEST_FRAME if labels is None else SMALLEST_FOLLOWED
                output = self._frame(project, pose, least, colored=kind == "image")
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
        root: bool = False,
        painted: bool = False,
    ) -> None:
        """A revision after the one at hand; those after it are dropped.

        UserError for a face that is none, as where a fit diverged: nothing changes then.
        """
        project.check_values("the new face")
        revisions, at = self._history
        if look is not None and self._has_look(look.group):
            at -= 1
        told = tuple((metrics or {}).items())
        number = next(self._numbers)
        origin = number if root else revisions[at].root
        added = Revision(name, project, number, origin, seed, look, told, painted)
        revisions = (*revisions[: at + 1], added)[-MOST_STEPS:]
        self._history = (revisions, len(revisions) - 1)

    def _has_look(self, group: str) -> bool:
        """Whether the revision at hand is a look of this group, with the face before it at hand."""
        revisions, at = self._history
        look = revisions[at].look if at > 0 else None
        return look is not None and look.group == group

    def _follow(self, face: FaceProject, labels: np.ndarray) -> FaceProject:
        if self.editor.encoder is None:
            raise UserError("these weights have no encoder to follow a stroke: press Apply")
        return follow_map(self.editor.encoder, face, check_labels(labels))

    def _write(self, face: FaceProject, path: Path) -> None:
        """The face, and its label map beside it."""
        output = render_project(self.generator, face, self.model.resolution)
        self.out.mkdir(parents=True, exist_ok=True)
        project, labels = _files(path)
        replace(face, preview=picture_rows(output)["image"][0].numpy()).save(project)
        save_label_map(labels, face.labels)

    def _settings(self, iterations: int) -> EditSettings:
        return self.editor.edit_settings(
            iterations=iterations,
            resolution=self.model.resolution,
            perceptual_weight=self._perceptual_weight,
        )

    @property
    def _perceptual_weight(self) -> float:
        return EditSettings.perceptual_weight if self.editor.perceptual else 0.0

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
        return torch.tensor([pose], device=self.generator.device)

    @torch.no_grad()
    def _frame(
        self, project: FaceProject, pose: tuple[float, float], least: int, *, colored: bool
    ) -> RenderOutput:
        """A rendering in as many pixels as time allows, without colours where none are shown."""
        return render(
            project.generator(self.generator),
            project.codes(self.generator),
            self._pose(pose),
            self._frame_resolution(least),
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

    def _frame_resolution(self, least: int) -> int:
        """The still size, halved until a frame is expected to take at most `FRAME_SECONDS`."""
        resolution = self.resolution
        while resolution // 2 >= least and self._seconds_per_pixel * resolution**2 > FRAME_SECONDS:
            resolution //= 2
        return resolution


def unpainted(revisions: Sequence[Revision], at: int) -> FaceProject:
    """The face as it was before it was painted on, with the looks that it has now."""
    looks = revisions[at].project.appearance
    while at > 0 and (revisions[at].painted or revisions[at].look is not None):
        at -= 1
    return replace(revisions[at].project, appearance=looks)


def _same(a: Film, b: Film) -> bool:
    return a is b or (torch.equal(a.frequencies, b.frequencies) and torch.equal(a.phases, b.phases))


def _files(project: Path) -> tuple[Path, Path]:
    """Where a face is written: the project, and the label map beside it."""
    return project, project.with_suffix(".labels.png")


def _remove(project: Path) -> None:
    for path in _files(project):
        path.unlink(missing_ok=True)
