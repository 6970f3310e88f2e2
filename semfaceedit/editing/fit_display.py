"""What a person sees of a fit: a live line, a preview picture, and views of the result."""

import sys
from pathlib import Path

import torch
from torch import Tensor

from ..cli import remark
from ..model.codes import Codes
from ..model.generator import Generator
from ..model.renderer import RenderOutput, render
from ..pictures.grids import picture_rows, save_png, tile
from .fit_terms import FitRecord, Goal

VIEW_YAWS = (-0.4, 0.0, 0.4)  # radians
PREVIEW_PIXELS = 192  # each picture of a preview is enlarged to about this size


class LiveFit:
    """Watches a fit: a line on standard error and, at every evaluation, a preview.

    The preview shows goal and face, as pictures and as label maps. note: a remark on the fit, said
    when that begins and not before errors that keep it from beginning.
    """

    def __init__(self, path: Path, note: str = ""):
        self.path, self.note = path, note
        self.live = sys.stderr.isatty()
        self.pending = False
        self.shown = False

    def __call__(self, record: FitRecord, output: RenderOutput, goal: Goal) -> None:
        if self.note:
            remark(self.note)
            self.note = ""
        line = (
            f"{record.stage} {record.iteration}  loss {record.loss:.4f}  "
            f"mIoU {record.score.groups:.3f} groups, {record.score.classes:.3f} classes  "
            f"PSNR {record.psnr:.1f} dB  yaw {record.pose[0]:+.2f} pitch {record.pose[1]:+.2f}"
        )
        print(f"\r{line}\033[K" if self.live else line, end="" if self.live else "\n",
              file=sys.stderr, flush=True)  # fmt: skip
        self.pending = self.live
        self.show(output, goal)

    def show(self, output: RenderOutput, goal: Goal) -> None:
        """Write the preview: the goal beside the face."""
        self.shown = True
        scale = max(1, PREVIEW_PIXELS // goal.resolution)
        save_png(self.path, fit_preview(output, goal), scale=scale)

    def close(self) -> None:
        """End the live line, if there is one."""
        if self.pending:
            print(file=sys.stderr)
            self.pending = False


def fit_preview(output: RenderOutput, goal: Goal) -> Tensor:
    """(r, 4 r, 3) uint8: the goal's image, the face's, and their label maps."""
    wanted = RenderOutput(goal.image, goal.semantics, output.depth, output.weights)
    goals, faces = picture_rows(wanted), picture_rows(output)
    shown = [goals["image"], faces["image"], goals["semantics"], faces["semantics"]]
    return tile(torch.cat(shown), columns=4)


@torch.no_grad()
def view_sheet(
    generator: Generator,
    faces: list[Codes],
    pitch: float,
    resolution: int,
    *,
    yaws: tuple[float, ...] = VIEW_YAWS,
) -> Tensor:
    """(H, W, 3) uint8: rows of images and of semantic maps of each face, a column for each yaw."""
    device = generator.device
    rows = []
    for codes in faces:
        views = [
            picture_rows(
                render(generator, codes, torch.tensor([[yaw, pitch]], device=device), resolution)
            )
            for yaw in yaws
        ]
        rows += [view[kind] for kind in ("image", "semantics") for view in views]
    return tile(torch.cat(rows), columns=len(yaws))
