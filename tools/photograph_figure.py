r"""The README's first picture: a photograph, its label map, edits, and views from the sides.

    python tools/photograph_figure.py --photographs A.jpg B.jpg --hair 7 12 \
        --edits fringe "open mouth" --out docs/photograph.png

One row a photograph: the map read off it, the face fitted to both, an edit of the map, the result
from the side, and in the photograph the hair colours of a generated face and the edit of the map.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from paste_figure import pasted
from PIL import Image

from semfaceedit import api
from semfaceedit.editing.fit_terms import finished
from semfaceedit.editing.photograph_file import read_original
from semfaceedit.editing.project import FaceProject
from semfaceedit.model.checkpoint import locate_weights
from semfaceedit.model.labels import colorize
from semfaceedit.model.renderer import render
from semfaceedit.pictures.grids import picture_rows
from semfaceedit.pictures.sheets import Row, sheet

SIZE = 160  # pixels of a cell
SIDE = 0.35  # radians of yaw
COLUMNS = (
    "photograph", "label map", "fitted", "map edited", "turned", "other hair, pasted",
    "map edited, pasted",
)  # fmt: skip


@torch.no_grad()
def view(editor: api.Editor, face: FaceProject, yaw: float | None = None) -> np.ndarray:
    """The face at its own pose, or at a yaw, in a cell's size."""
    generator = face.generator(editor.generator)
    pose = face.pose[None] if yaw is None else torch.tensor([[yaw, 0.0]])
    output = render(generator, face.codes(generator), pose, SIZE)
    return picture_rows(output)["image"][0].numpy()


def row(editor: api.Editor, photograph: Path, hair: int, edit: str, steps: int | None) -> Row:
    """A photograph and what becomes of it."""
    settings = editor.invert_settings(perceptual_weight=0)
    if steps:
        settings = replace(settings, appearance_iterations=steps, patience=0)
    face = finished(editor.invert(photograph, settings=settings)).project
    other = editor.generate(hair).project
    quick = editor.edit_settings(perceptual_weight=0)
    recoloured = finished(
        editor.transfer(face, other, what="appearance", region=["hair"], settings=quick)
    )
    edited = finished(editor.edit(face, api.paint(face.labels, [edit]), settings=quick))
    pixels = read_original(photograph).pixels
    colours = colorize(torch.from_numpy(face.labels.astype(np.int64))).numpy()
    pictures = [pixels, colours, view(editor, face), view(editor, edited.project)]
    pictures += [view(editor, edited.project, SIDE)]
    pictures += [pasted(editor, face, made, pixels) for made in (recoloured, edited)]
    enlarged = [
        Image.fromarray(picture).resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        for picture in pictures
    ]
    return Row(edit, [np.asarray(picture) for picture in enlarged])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--photographs", type=Path, nargs="+", required=True)
    parser.add_argument("--hair", type=int, nargs="+", required=True, help="a seed for each")
    parser.add_argument("--edits", nargs="+", required=True, help="an edit of `--paint` for each")
    parser.add_argument("--checkpoint", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=None, help="of each fit at full size")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    editor = api.load(locate_weights(options.checkpoint))
    rows = [
        row(editor, photograph, hair, edit, options.steps)
        for photograph, hair, edit in zip(
            options.photographs, options.hair, options.edits, strict=True
        )
    ]
    sheet(COLUMNS, rows, cell=SIZE, margin=90).save(options.out)


if __name__ == "__main__":
    main()
