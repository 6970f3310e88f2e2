"""Pictures of a face from any side, in as many pixels as time allows."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..api import Editor
from ..editing.project import FaceProject
from ..errors import UserError
from ..model.codes import Film
from ..model.config import ModelConfig
from ..model.generator import Generator, seed_codes
from ..model.mean_face import mean_codes
from ..model.renderer import RenderOutput, recolor, render
from ..pictures.grids import picture_rows

KINDS = ("image", "semantics", "depth", "normals")
FRAME_SECONDS = 0.05  # what a frame may take, of a face that moves or turns
FRAME_CULL = 1e-3  # compositing weight below which such a frame leaves points black
SMALLEST_FRAME, SMALLEST_FOLLOWED = 16, 32  # pixels along an edge; of a face that changes
CHUNK_RAYS = 16384
SHADING_BYTES = 256 << 20  # what may be kept of a view, so that a changed look needs no geometry
SMALL = 64  # pixels along an edge of the pictures in a strip, at most


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


class FaceViews:
    """Draws faces of a checkpoint; several threads may ask.

    resolution: pixels of a still view along an edge.
    """

    def __init__(self, editor: Editor, resolution: int):
        self.editor, self.resolution = editor, resolution
        self.generator, self.model = editor.generator, editor.generator.config
        self._lock = threading.Lock()
        self._shown: _Shown | None = None
        self._seconds_per_pixel = 0.0

    def view(
        self,
        project: FaceProject,
        kind: str,
        pose: tuple[float, float],
        *,
        moving: bool = False,
        labels: np.ndarray | None = None,
        followed: bool = False,
    ) -> np.ndarray:  # (H, H, 3) uint8
        """A picture of a face from one side.

        moving: as many pixels as `FRAME_SECONDS` allow, by what views took before. labels: of the
        face as it follows this map, (R, R) class ids. followed: it is the face that changes, and
        not the side, so that a picture has some more pixels at least.
        """
        if kind not in KINDS:
            raise UserError(f"there is no picture {kind!r}: use {', '.join(KINDS)}")
        with self._lock:
            began = time.monotonic()
            if labels is not None:
                project = self.editor.follow(project, labels)
            if moving:
                least = SMALLEST_FOLLOWED if followed or labels is not None else SMALLEST_FRAME
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
        _check_seeds(seeds)
        size = min(SMALL, self.model.resolution)
        pose = self._pose((0.0, 0.0))
        outputs = (render(self.generator, seed_codes(self.generator, s), pose, size) for s in seeds)
        return np.hstack([picture_rows(output)["image"][0].numpy() for output in outputs])

    @torch.no_grad()
    def looks(self, face: FaceProject, group: str, seeds: Sequence[int]) -> np.ndarray:
        """A face with one group's look of each seed, side by side, (h, n h, 3) uint8."""
        check_group(self.model, group)
        _check_seeds(seeds)
        size = min(SMALL, self.model.resolution)
        index = self.model.group_names.index(group)
        own = face.generator(self.generator)
        codes = face.codes(self.generator)
        output = render(own, codes, self._pose((0.0, 0.0)), size, keep_shading=True)
        mean, others = mean_codes(self.generator).appearance, look_offsets(self.generator, seeds)
        pictures = []
        for other in range(len(seeds)):
            film = Film(codes.appearance.frequencies.clone(), codes.appearance.phases.clone())
            film.frequencies[:, index] = (mean + others[other : other + 1]).frequencies[:, index]
            film.phases[:, index] = (mean + others[other : other + 1]).phases[:, index]
            pictures.append(picture_rows(recolor(own, output, film))["image"][0].numpy())
        return np.hstack(pictures)

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


def look_offsets(generator: Generator, seeds: Sequence[int]) -> Film:  # (n, groups, L + 1, W)
    """The appearance offsets of seeds; at least one."""
    mean = mean_codes(generator).appearance
    first, *others = (seed_codes(generator, seed).appearance - mean for seed in seeds)
    return first.cat(*others).detach()


def check_group(model: ModelConfig, group: str) -> None:
    """UserError for a group that the model has not."""
    if group not in model.group_names:
        names = ", ".join(model.group_names)
        raise UserError(f"there is no group {group!r}: use one of {names}")


def _check_seeds(seeds: Sequence[int]) -> None:
    if not len(seeds):
        raise UserError("there are no seeds: give at least one")


def _same(a: Film, b: Film) -> bool:
    return a is b or (torch.equal(a.frequencies, b.frequencies) and torch.equal(a.phases, b.phases))
