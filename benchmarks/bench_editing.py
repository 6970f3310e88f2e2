"""What a person waits for in the web editor, with the weights in the package: frames and looks."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import needs_native

from semfaceedit.api import load
from semfaceedit.editing.mask_edits import paint
from semfaceedit.model.renderer import render
from semfaceedit.pictures.grids import picture_rows
from semfaceedit.web_editor.face_views import FRAME_CULL
from semfaceedit.web_editor.session import EditingSession

pytestmark = needs_native
POSE = (0.3, 0.1)
LEVELS = 255


@pytest.fixture
def session(tmp_path: Path) -> EditingSession:
    made = EditingSession(load(), tmp_path)
    made.choose(3)
    made.view("image", (0.0, 0.0))
    return made


@torch.no_grad()
def drawn(session: EditingSession, size: int) -> np.ndarray:
    """The face at hand, without the session's short cuts."""
    codes = session.face.codes(session.generator)
    output = render(session.generator, codes, torch.tensor([POSE]), size)
    return picture_rows(output)["image"][0].numpy().astype(int)


def test_a_frame_while_the_head_turns(
    session: EditingSession, record: dict[str, Any], compare: Callable[..., None]
) -> None:
    for _ in range(5):  # until the size of a frame has settled
        frame = session.view("image", POSE, moving=True)
    worst = np.abs(frame - drawn(session, len(frame))).max()
    bound = np.ceil(LEVELS * 1.001 * session.model.manifolds * FRAME_CULL)
    assert worst <= bound
    yaws = itertools.count()
    record.update(pixels=len(frame), worst_level=int(worst))
    compare(
        {"cpu": lambda: session.view("image", (0.01 * (next(yaws) % 60), 0.1), moving=True)},
        rounds=15,
    )


def test_a_still_view(
    session: EditingSession, record: dict[str, Any], compare: Callable[..., None]
) -> None:
    assert np.array_equal(session.view("image", POSE), drawn(session, session.views.resolution))
    yaws = itertools.count()
    record.update(pixels=session.views.resolution)
    compare({"cpu": lambda: session.view("image", (0.01 * next(yaws), 0.0))})


def test_a_changed_look(
    session: EditingSession, record: dict[str, Any], compare: Callable[..., None]
) -> None:
    """The amount of another face's hair, and the still view of it."""
    session.view("image", POSE)
    amounts = itertools.cycle((0.25, 0.5, 0.75))

    def change() -> np.ndarray:
        session.look("hair", 6, next(amounts))
        return session.view("image", POSE)

    worst = np.abs(change() - drawn(session, session.views.resolution)).max()
    assert worst <= 1
    record.update(pixels=session.views.resolution, worst_level=int(worst))
    compare({"cpu": change}, rounds=15)


def test_the_face_follows_a_fringe(
    session: EditingSession, record: dict[str, Any], compare: Callable[..., None]
) -> None:
    """A whole edit, 150 iterations at the checkpoint's resolution."""
    labels = paint(session.face.labels, ["fringe"])

    def follow() -> None:
        session.go(0)
        session.edit(labels)

    compare({"cpu": follow}, rounds=1)
    metrics = dict(session.revision.metrics)
    record.update(
        iterations=session.face.iterations, labels_inside=round(metrics["labels_inside"], 3)
    )
    assert metrics["labels_inside"] > 0.9
