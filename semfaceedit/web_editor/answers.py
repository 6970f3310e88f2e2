"""What the editor answers: pictures, how things stand, and errors, each as one message."""

from __future__ import annotations

import io
import math
from dataclasses import asdict
from typing import Any

import numpy as np
from PIL import Image

from ..editing.fit_terms import FitRecord
from ..editing.mask_edits import EDITS
from ..model.labels import CLASS_NAMES, PALETTE
from ..model.renderer import RenderOutput
from ..pictures.grids import picture_rows
from ..pictures.video import forms_here
from .messages import STRIP, pack_message
from .revisions import unpainted
from .session import EditingSession

DEFECT = "Internal error; see the terminal for the traceback"


def about(session: EditingSession) -> bytes:
    """What does not change: classes, colours, groups, edits by code."""
    model = session.model
    header = {
        "type": "about",
        "classes": CLASS_NAMES,
        "colors": PALETTE.tolist(),
        "groups": model.group_names,
        "group_of_class": model.group_of_class,
        "edits": list(EDITS),
        "strip": STRIP,
        "follows": session.follows,
        "folder": str(session.saved.out),
        "recovered": session.saved.recovered,
        "videos": [form for form in forms_here() if form != "gif"],
        "sliders": _sliders(session),
    }
    return pack_message(header)


def state(session: EditingSession, job_name: str, job_kind: str) -> bytes:
    """The revisions and where the face at hand stands among them, with its label map and, where
    it was painted on, the map that it had before."""
    revisions, at = session.history
    face = revisions[at].project
    header = {
        "type": "state",
        "revisions": [revision.name for revision in revisions],
        "numbers": [revision.number for revision in revisions],
        "seeds": [revision.seed for revision in revisions],
        "looks": [revision.look and asdict(revision.look) for revision in revisions],
        "sliders": [dict(revision.sliders) for revision in revisions],
        "at": at,
        "version": revisions[at].version,
        "root": revisions[at].root,
        "pose": face.pose.tolist(),
        "photograph": face.crop is not None and face.crop.photograph is not None,
        "size": len(face.labels),
        "metrics": {name: _finite(value) for name, value in revisions[at].metrics},
        "projects": session.saved.names(),
        "busy": job_name,
        "job": job_kind,
    }
    maps = [face.labels]
    before = unpainted(revisions, at).labels
    if not np.array_equal(before, face.labels):
        maps.append(before)
    return pack_message(header, b"".join(np.ascontiguousarray(labels).tobytes() for labels in maps))


def _sliders(session: EditingSession) -> list[dict[str, Any]]:
    """The sliders of the weights, by the part of the face that they move; none without a file."""
    directions, groups = session.editor.directions, session.model.group_names
    if directions is None:
        return []
    return [
        {
            "name": s.name,
            "part": "shape" if s.part < 0 else groups[s.part],
            "weak": s.grade == "weak",
        }
        for s in directions.offered
    ]


def encoded(picture: np.ndarray, form: str = "PNG") -> bytes:
    """(H, W, 3) uint8 as the bytes of a file."""
    buffer = io.BytesIO()
    options = {"quality": 88} if form == "JPEG" else {"compress_level": 1}
    Image.fromarray(picture).save(buffer, form, **options)
    return buffer.getvalue()


def progress(name: str, iterations: int, record: FitRecord, output: RenderOutput) -> bytes:
    """How far a fit is, with the face as it is now at the pose of its map."""
    header = {
        "type": "progress",
        "name": name,
        "iteration": record.iteration,
        "iterations": iterations,
        "agreement": _finite(record.score.groups),
    }
    return pack_message(header, encoded(picture_rows(output)["image"][0].numpy()))


def error(message: str) -> bytes:
    """What the page shows in its status line."""
    return pack_message({"type": "error", "message": message})


def _finite(value: float) -> float | None:
    """None for NaN: nothing to measure."""
    return value if math.isfinite(value) else None
