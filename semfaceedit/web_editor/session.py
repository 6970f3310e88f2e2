"""A face being edited, and the revisions that led to it; nothing of the network."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from ..api import Editor
from ..editing.fit_terms import FitRecord, Goal, StopFit, Watch, perceptual_weight
from ..editing.project import FaceProject
from ..editing.refit import EditedFace, EditSettings, render_project
from ..editing.region_transfer import What
from ..editing.sliders import LiveFace, need_directions
from ..editing.target import OVERSAMPLING
from ..errors import UserError
from ..model.codes import Codes, interpolate
from ..model.renderer import RenderOutput
from ..pictures.grids import picture_rows
from .face_views import FaceViews, check_group, look_offsets
from .revisions import Look, Revision, unpainted
from .saved_faces import SavedFaces

MOST_STEPS = 200
SHARPEN_STEPS, SHARPEN_SECONDS = 20, 1.0  # of the fit after a stroke, at most
SHARPEN_IMAGE_WEIGHT = 8.0  # of the picture outside what was painted: many strokes move it little


class EditingSession:
    """The face at hand, its revisions, and what can be done with it.

    Methods that change the face add a revision, or raise UserError and change nothing. Views may be
    asked for from another thread than the one that changes the face.

    editor: the checkpoint, with what edits and inversions use: where it has no VGG weights, they
    leave that term out. resolution: pixels of a still view, by default twice those of the
    checkpoint.
    """

    def __init__(self, editor: Editor, out: Path, *, resolution: int | None = None):
        self.editor = editor
        self.generator, self.model = editor.generator, editor.generator.config
        self.views = FaceViews(editor, resolution or OVERSAMPLING * self.model.resolution)
        self.saved = SavedFaces(out, editor.generator)
        self._history: tuple[tuple[Revision, ...], int] = ((), -1)  # one value, for other threads
        self._numbers = itertools.count()
        self._live: LiveFace | None = None  # whose sliders are dragged

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
        self.saved.mark_safe(project)
        self._add(f"face {seed}", project, seed=seed, root=True)

    def open(self, path: Path) -> None:
        """Go on with a face project."""
        self.take(FaceProject.load(path, self.generator), path.stem)

    def take(self, project: FaceProject, name: str) -> None:
        """Go on with a face that was read from a file of this name."""
        self.saved.mark_safe(project)
        self._add(name, project, root=True)

    def look(self, group: str, seed: int, amount: float = 1.0) -> None:
        """Give one group the appearance code of a seed, or a mixture: 0 is its own, 1 the seed's.

        Looks of a group that follow one another are one revision, and start from the same face.
        """
        check_group(self.model, group)
        revisions, at = self._history
        base = revisions[at - self._has_look(group)].project
        wanted = Codes(base.offsets.geometry, look_offsets(self.generator, [seed]))
        codes = interpolate(base.offsets, wanted, amount, group, self.model.group_names)
        project = replace(base.with_origin(), appearance=codes.appearance[0])
        self._add(f"{group} like face {seed}", project, look=Look(group, seed, amount))

    def adjust(self, changes: Mapping[str, float]) -> None:
        """Move sliders by so many deviations; those that follow one another are one revision, and
        `changes` counts from the face before it. Without any it is the face before again."""
        revisions, at = self._history
        base = self._unadjusted(at)
        moved = {name: steps for name, steps in changes.items() if steps}
        if not moved:
            if base < at:
                self._history = (revisions, base)
            return
        edited = self.editor.adjust(revisions[base].project, moved)
        name = ", ".join(f"{name} {steps:+.1f}" for name, steps in moved.items())
        self._add(name, edited.project, sliders=tuple(moved.items()))

    def _unadjusted(self, at: int) -> int:
        """The place of the face that the sliders of a revision were moved from."""
        revisions, _ = self._history
        return at - 1 if at > 0 and revisions[at].sliders else at

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
        project = before if undone else self.editor.follow(self.face, labels)
        self._add(name, project, painted=True)

    def sharpen(self, watch: Watch | None = None) -> None:
        """Bring the face nearer to the map after a stroke: `SHARPEN_STEPS` of Eq. 10's fit at half
        the resolution, or as many as `SHARPEN_SECONDS` allow. It takes the place of the
        stroke's own face, which stays where the fit fails."""
        revisions, at = self._history
        before, revision = unpainted(revisions, at), revisions[at]
        sharp = replace(revision, version=revision.version + 1)  # pages ask for a still view of it
        try:
            if revision.painted and not np.array_equal(before.labels, revision.project.labels):
                project = self._sharpened(before, revision.project, watch).project
                metrics = tuple(project.metrics.items())
                sharp = replace(sharp, project=project, metrics=metrics)
        finally:
            self._history = ((*revisions[:at], sharp, *revisions[at + 1 :]), at)

    def _sharpened(
        self, before: FaceProject, project: FaceProject, watch: Watch | None
    ) -> EditedFace:
        end = time.monotonic() + SHARPEN_SECONDS

        def limited(record: FitRecord, output: RenderOutput, goal: Goal) -> None:
            if watch is not None:
                watch(record, output, goal)
            if time.monotonic() > end:
                raise StopFit

        settings = self.editor.edit_settings(
            iterations=SHARPEN_STEPS,
            resolution=max(1, self.model.resolution // 2),
            image_weight=SHARPEN_IMAGE_WEIGHT,
            perceptual_weight=0.0,
            interleave=False,  # half of the resolution is few pixels as it is
            evaluate_every=4,
        )
        edited = self.editor.refine(before, project, settings=settings, watch=limited)
        edited.project.check_values("the new face")
        return edited

    def transfer(
        self,
        source: int | Path | FaceProject,  # a seed, or a face project
        what: What,
        region: Sequence[str],
        *,
        iterations: int = EditSettings.iterations,
        watch: Watch | None = None,
        name: str = "another face",  # of a project that was read before
    ) -> None:
        """Take the shape or the look of a region, or both, from another face (Eq. 11)."""
        if isinstance(source, int):
            giver, giver_name = self.editor.generate(source).project, f"face {source}"
        elif isinstance(source, FaceProject):
            giver, giver_name = source, name
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
        settings = self.editor.invert_settings(
            perceptual_weight=perceptual_weight(self.editor.perceptual)
        )
        found = self.editor.invert(image, labels, settings=settings, watch=watch)
        self._add(image.stem, found.project, metrics=found.project.metrics, root=True)

    def go(self, index: int) -> None:
        """Take up an earlier or a later revision again; none is lost until another is added."""
        revisions, _ = self._history
        if not 0 <= index < len(revisions):
            raise UserError(f"there is no revision {index}: use 0 to {len(revisions) - 1}")
        self._history = (revisions, index)

    def save(self, name: str) -> Path:
        """Write the face and its label map under a name that is free; an autosave of it goes."""
        return self.saved.save(self.face, name)

    def autosave(self) -> Path | None:
        """Keep the face at hand in a file: see `SavedFaces.autosave`."""
        revision = self.revision
        return self.saved.autosave(revision.project, revision.root)

    def view(
        self,
        kind: str,
        pose: tuple[float, float],
        *,
        moving: bool = False,
        revision: int | None = None,
        labels: np.ndarray | None = None,
        changes: Mapping[str, float] | None = None,
    ) -> np.ndarray:  # (H, H, 3) uint8
        """A picture of the face, or of an earlier revision, from one side: see `FaceViews.view`.

        changes: with sliders moved, nearly as by `adjust`, but at once.
        """
        revisions, at = self._history
        if revision is not None and 0 <= revision < len(revisions):
            at = revision
        project = revisions[at].project
        if changes is not None:
            directions = need_directions(self.editor.directions)
            base = revisions[self._unadjusted(at)].project
            if self._live is None or self._live.project is not base:
                self._live = LiveFace(self.generator, base, directions)
            project = self._live.moved(changes)
        followed = changes is not None
        return self.views.view(project, kind, pose, moving=moving, labels=labels, followed=followed)

    def looks(self, group: str, seeds: Sequence[int]) -> np.ndarray:
        """The face at hand with one group's look of each seed, side by side, (h, n h, 3) uint8."""
        return self.views.looks(self.face, group, seeds)

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
        sliders: tuple[tuple[str, float], ...] = (),
    ) -> None:
        """A revision after the one at hand; those after it are dropped.

        UserError for a face that is none, as where a fit diverged: nothing changes then.
        """
        project.check_values("the new face")
        revisions, at = self._history
        if look is not None and self._has_look(look.group):
            at -= 1
        if sliders:
            at = self._unadjusted(at)
        told = tuple((metrics or {}).items())
        number = next(self._numbers)
        origin = number if root else revisions[at].root
        added = Revision(name, project, number, origin, seed, look, told, painted, sliders)
        revisions = (*revisions[: at + 1], added)[-MOST_STEPS:]
        self._history = (revisions, len(revisions) - 1)

    def _has_look(self, group: str) -> bool:
        """Whether the revision at hand is a look of this group, with the face before it at hand."""
        revisions, at = self._history
        look = revisions[at].look if at > 0 else None
        return look is not None and look.group == group

    def _settings(self, iterations: int) -> EditSettings:
        return self.editor.edit_settings(
            iterations=iterations,
            resolution=self.model.resolution,
            perceptual_weight=perceptual_weight(self.editor.perceptual),
        )
