r"""The picture of docs/editing.md: edits written back into photographs, by `--paste`.

    python tools/paste_figure.py --out docs/paste.png

Without --photographs, procedural heads of 512 x 512 pixels stand for photographs. One row a head:
the photograph, with the hair's colours of another face, and the first of the edits that its map has
room for.
"""

import argparse
import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from semfaceedit import api, synthesize
from semfaceedit.editing.fit_terms import finished
from semfaceedit.editing.paste import paste
from semfaceedit.editing.photograph_file import read_original
from semfaceedit.editing.project import FaceProject
from semfaceedit.editing.refit import EditedFace
from semfaceedit.editing.source_photograph import window_on
from semfaceedit.errors import UserError
from semfaceedit.model.checkpoint import locate_weights
from semfaceedit.pictures.sheets import Row, sheet

SIZE = 320  # pixels of a cell
COLUMNS = ("photograph", "other hair", "and painted")


def painted_first(labels: np.ndarray, edits: list[str]) -> tuple[str, np.ndarray]:
    """The first of the edits that this map has room for, and the map with it."""
    for edit in edits:
        with suppress(UserError):
            return edit, api.paint(labels, [edit])
    raise UserError(f"none of {', '.join(edits)} can be painted: take another head")


def pasted(
    editor: api.Editor, face: FaceProject, edited: EditedFace, pixels: np.ndarray
) -> np.ndarray:
    """The photograph (H, W, 3) that `face` was inverted from, with the edit in it."""
    height, width = pixels.shape[:2]
    assert face.crop is not None
    window = window_on(face.crop, width, height)
    return paste(editor.generator, face, edited.project, edited.region, pixels, window).pixels


def row(editor: api.Editor, photograph: Path, hair: int, edits: list[str]) -> Row:
    """A photograph and the two edits in it."""
    settings = editor.invert_settings(perceptual_weight=0)
    face = finished(editor.invert(photograph, settings=settings)).project
    quick = editor.edit_settings(perceptual_weight=0)
    other = editor.generate(hair).project
    first = finished(
        editor.transfer(face, other, what="appearance", region=["hair"], settings=quick)
    )
    edit, painted = painted_first(first.project.labels, edits)
    second = finished(editor.edit(first.project, painted, settings=quick))
    pixels = read_original(photograph).pixels
    pictures = [pixels, *(pasted(editor, face, edited, pixels) for edited in (first, second))]
    cells = [Image.fromarray(p).resize((SIZE, SIZE), Image.Resampling.LANCZOS) for p in pictures]
    return Row(edit, [np.asarray(cell) for cell in cells])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--photographs", type=Path, nargs="*", default=[])
    parser.add_argument("--checkpoint", type=Path, default=Path("procedural"))
    parser.add_argument("--heads", type=int, default=1, help="procedural heads, if no photographs")
    parser.add_argument("--first-head", type=int, default=900_002, help="seed of the first of them")
    parser.add_argument("--hair", type=int, nargs="+", default=[7, 12], help="seeds of the hair")
    parser.add_argument("--edits", nargs="+", default=["fringe", "longer hair", "wide mouth"])
    parser.add_argument("--out", type=Path, default=Path("docs/paste.png"))
    options = parser.parse_args()
    editor = api.load(locate_weights(options.checkpoint))
    with tempfile.TemporaryDirectory() as name:
        photographs: list[Path] = options.photographs
        if not photographs:
            asked = ["--out", name, "--count", str(options.heads), "--resolution", "512"]
            synthesize.main([*asked, "--seed", str(options.first_head)])
            photographs = sorted(Path(name).rglob("*.jpg"))
        rows = [
            row(editor, photograph, options.hair[index % len(options.hair)], options.edits)
            for index, photograph in enumerate(photographs)
        ]
    sheet(COLUMNS, rows, cell=SIZE, margin=70).save(options.out)


if __name__ == "__main__":
    main()
