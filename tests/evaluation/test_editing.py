"""`evaluate editing`: what it counts, that it goes on where it stopped, and its report."""

import dataclasses

import numpy as np
import pytest
import torch
from faces import write_checkpoint

from semfaceedit.editing.encoder import flat_film
from semfaceedit.evaluation import editing
from semfaceedit.evaluation.figures import draw
from semfaceedit.evaluation.session import EvaluateOptions, Evaluation, Unmeasured
from semfaceedit.evaluation.writing import collect, markdown
from semfaceedit.model.generator import seed_codes
from semfaceedit.training.distributed import World


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


@pytest.fixture
def evaluation(tmp_path) -> Evaluation:
    weights = write_checkpoint(tmp_path)
    options = EvaluateOptions(checkpoint=weights, out=tmp_path / "out", edited_faces=2)
    return Evaluation.open(options, torch.device("cpu"), World())


def hair_above(labels: np.ndarray, name: str) -> np.ndarray | None:
    """Hair along the upper edge, as if it were the fringe; no other edit can be painted."""
    return np.where(np.arange(len(labels))[:, None] < 4, 13, labels) if name == "fringe" else None


@pytest.fixture
def short(monkeypatch):
    """Two steps of every edit, and one edit that every face can take."""
    monkeypatch.setattr(editing, "painted", hair_above)
    plain = editing.edit_settings

    def two_steps(evaluation):
        return dataclasses.replace(plain(evaluation), iterations=2, start_samples=0)

    monkeypatch.setattr(editing, "edit_settings", two_steps)


def test_every_face_counts_and_the_report_says_so(evaluation, short):
    editing.editing(evaluation)
    found = evaluation.results.values["editing"]
    assert list(found["edits"]) == ["fringe"]
    row = found["edits"]["fringe"]
    assert row["faces"] == 2 and 0 <= row["labels_inside"] <= 1
    assert 0 < row["identity"] < 1 and row["change_outside"] >= 0
    draw(evaluation)
    text = markdown(collect(evaluation, ["editing"]), ["editing.png"])
    assert "## Editing" in text and "| fringe | 2 |" in text and "figures/editing.png" in text
    assert (evaluation.options.out / "figures" / "editing.png").is_file()


def test_faces_that_were_edited_are_not_edited_again(evaluation, short, monkeypatch):
    real, edited = editing.edit, []

    def stopped(*arguments, **more):
        if edited:
            raise KeyboardInterrupt
        edited.append(1)
        return real(*arguments, **more)

    monkeypatch.setattr(editing, "edit", stopped)
    with pytest.raises(KeyboardInterrupt):
        editing.editing(evaluation)
    monkeypatch.setattr(editing, "edit", lambda *a, **m: edited.append(1) or real(*a, **m))
    editing.editing(evaluation)
    assert len(edited) == 2
    assert evaluation.results.values["editing"]["edits"]["fringe"]["faces"] == 2


def test_faces_that_can_take_no_edit_are_no_result(evaluation, monkeypatch):
    monkeypatch.setattr(editing, "painted", lambda labels, name: None)
    settings = editing.edit_settings(evaluation)
    with pytest.raises(Unmeasured, match="no face can take an edit"):
        editing.measure_editing(evaluation, settings, {})


def test_the_unit_of_identity_is_the_distance_of_faces(evaluation):
    generator = evaluation.generator
    codes = [flat_film(seed_codes(generator, seed).geometry)[0] for seed in range(20)]
    gaps = [float((a - b).norm()) for a in codes for b in codes if a is not b]
    assert editing.distance_of_faces(generator) == pytest.approx(np.mean(gaps), rel=0.25)
