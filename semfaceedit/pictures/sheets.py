"""Pictures in rows and columns with titles, drawn with Pillow alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP, HEAD, LINE = 4, 20, 14  # pixels: between cells, above columns, between lines of a title
INK, PAPER = (40, 40, 40), (255, 255, 255)


@dataclass(frozen=True)
class Row:
    """A title, and a picture (H, W, 3) uint8 in each column; None leaves a cell empty."""

    title: str
    cells: Sequence[np.ndarray | None]


def sheet(columns: Sequence[str], rows: Sequence[Row], *, cell: int, margin: int) -> Image.Image:
    """Cells of cell x cell pixels under column titles; row titles stand in a margin on the left.

    Pictures are scaled to the cell: enlarged without smoothing, reduced by area.
    """
    width = margin + len(columns) * (cell + GAP)
    image = Image.new("RGB", (width, HEAD + len(rows) * (cell + GAP)), PAPER)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    for index, title in enumerate(columns):
        middle = margin + index * (cell + GAP) + cell / 2
        draw.text((middle, HEAD / 2), title, INK, font, "mm")
    for index, row in enumerate(rows):
        top = HEAD + index * (cell + GAP)
        lines = row.title.split("\n")
        for number, line in enumerate(lines):
            height = top + cell / 2 + (number - (len(lines) - 1) / 2) * LINE
            draw.text((margin - 6, height), line, INK, font, "rm")
        for column, picture in enumerate(row.cells):
            if picture is not None:
                image.paste(_scaled(picture, cell), (margin + column * (cell + GAP), top))
    return image


def _scaled(picture: np.ndarray, cell: int) -> Image.Image:
    image = Image.fromarray(picture)
    how = Image.Resampling.NEAREST if cell >= image.width else Image.Resampling.BOX
    return image.resize((cell, cell), how)
