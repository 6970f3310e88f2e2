"""What figures of the gallery are made with, and what they are."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..api import generate
from ..editing.project import FaceProject
from ..editing.refit import EditedFace, EditSettings
from ..metrics.pictures import rgb_change
from ..model.codes import Codes
from ..model.generator import Generator
from ..model.renderer import render
from ..pictures.grids import picture_rows
from ..pictures.sheets import Row, sheet

FACES = 5  # the figures take at least so many seeds
SIDES = (-0.4, 0.4)
MARGIN, CELL = 96, 96  # pixels of a sheet: row titles, and pictures at least
GAIN = 4  # differences are shown so many times as large


@dataclass(frozen=True)
class Figure:
    """A picture, what is seen in it, and the numbers it rests on."""

    image: Image.Image
    caption: str  # Markdown
    facts: dict[str, Any]


@dataclass
class Studio:
    """A checkpoint, the seeds that figures take from, and how long fits may take."""

    generator: Generator
    seeds: list[int]
    resolution: int
    iterations: int
    image_weight: float
    invert_iterations: int
    tune: int
    _faces: dict[int, FaceProject] = field(default_factory=dict)

    def face(self, seed: int) -> FaceProject:
        """The frontal face of a seed, at the checkpoint's resolution."""
        if seed not in self._faces:
            self._faces[seed] = generate(self.generator, seed).project
        return self._faces[seed]

    def first(self, shows: Callable[[np.ndarray], object], *, unlike: tuple[int, ...] = ()) -> int:
        """The first seed whose map `shows` what is needed, but for `unlike`; else any seed."""
        order = [seed for seed in self.seeds if seed not in unlike] + self.seeds
        return next((s for s in order if shows(self.face(s).labels) is not None), order[0])

    @torch.no_grad()
    def view(
        self, codes: Codes, yaw: float = 0.0, pitch: float = 0.0, generator: Generator | None = None
    ) -> dict[str, np.ndarray]:
        """Each kind of picture, (H, H, 3) uint8."""
        pose = torch.tensor([[yaw, pitch]]).to(codes.geometry.phases)
        output = render(generator or self.generator, codes, pose, self.resolution)
        kinds = picture_rows(output, self.generator.config.camera)
        return {kind: picture[0].numpy() for kind, picture in kinds.items()}

    def project(self, project: FaceProject, yaw: float | None = None) -> dict[str, np.ndarray]:
        """A project from a side, by default from its own pose."""
        own_yaw, own_pitch = (float(angle) for angle in project.pose)
        return self.view(
            project.codes(self.generator),
            own_yaw if yaw is None else yaw,
            own_pitch,
            project.generator(self.generator),
        )

    def sheet(self, columns: list[str], rows: list[Row]) -> Image.Image:
        return sheet(columns, rows, cell=max(CELL, self.resolution), margin=MARGIN)

    @property
    def edit_settings(self) -> EditSettings:
        return EditSettings(
            iterations=self.iterations, image_weight=self.image_weight, perceptual_weight=0
        )


def difference(made: EditedFace) -> np.ndarray:
    """|change| in grey, enlarged in value, on white: (r, r, 3) uint8."""
    change = rgb_change(made.before.image, made.after.image)[0]
    shade = (255 * (1 - GAIN * change).clamp(0, 1)).round().byte()
    return shade[..., None].expand(-1, -1, 3).cpu().numpy()


def finite_mean(values: list[float]) -> float:
    """Of the finite ones, to five digits; NaN of none."""
    finite = [value for value in values if np.isfinite(value)]
    return round(sum(finite) / len(finite), 5) if finite else float("nan")
