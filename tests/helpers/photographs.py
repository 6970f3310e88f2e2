"""A photograph that shows a generated face, and an editor on that face."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from semfaceedit.data.align import Window
from semfaceedit.editing.target import SourceCrop, SourcePhotograph
from semfaceedit.web_editor.session import EditingSession

WIDTH, HEIGHT, WINDOW = 120, 90, Window(left=30, top=10, side=64)


def open_photograph(session: EditingSession) -> Path:
    """Go on with the face of `ann.png`, beside the faces: noise, and seed 5 in WINDOW."""
    session.choose(5)
    session.saved.out.mkdir(exist_ok=True)
    path = session.saved.out / "ann.png"
    shown = np.random.default_rng(3).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    face = Image.fromarray(session.face.image).resize((64, 64))
    shown[10:74, 30:94] = np.asarray(face)
    Image.fromarray(shown).save(path)
    crop = SourceCrop(WINDOW, WIDTH, HEIGHT, SourcePhotograph.of(path))
    session._add("ann", replace(session.face, crop=crop), root=True)
    return path
