"""Procedural faces as training data."""

import os
import signal

import numpy as np
import pytest
import torch

from semfaceedit.data.parallel import mapped
from semfaceedit.errors import UserError
from semfaceedit.procedural.render import render_faces
from semfaceedit.procedural.sources import open_training_data


def test_procedural_faces_are_made_once_and_hold_the_rendered_faces(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path))
    data = open_training_data(None, resolution=16, procedural_count=3)
    said = capsys.readouterr().err
    assert f"drawing 3 procedural faces at 32x32, once, into {tmp_path}" in said.splitlines()[0]
    assert len(data) == 3 and data.resolution == 32
    faces = render_faces([1], 32)
    np.testing.assert_array_equal(data.labels[1], faces.labels[0].numpy())
    np.testing.assert_allclose(data.poses[1], faces.poses[0].numpy(), rtol=0)
    stored = torch.from_numpy(np.array(data.images[1])).movedim(-1, 0) / 127.5 - 1
    assert (stored - faces.images[0]).abs().max() < 1 / 127
    monkeypatch.setattr(
        "semfaceedit.procedural.sources.make_procedural", None
    )  # a second call must not need it
    assert len(open_training_data(None, resolution=16, procedural_count=3)) == 3
    assert capsys.readouterr().err == ""


def test_a_packed_folder_is_opened_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    open_training_data(None, resolution=16, procedural_count=2)
    (folder,) = tmp_path.iterdir()
    assert len(open_training_data(folder, resolution=16, procedural_count=0)) == 2


def die_at_one(task: int) -> int:
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def test_a_killed_worker_is_an_error():
    with pytest.raises(UserError, match="killed"), mapped(die_at_one, range(12), 2) as results:
        list(results)


def test_results_of_workers_keep_their_order_and_can_be_left():
    with mapped(str, range(1000), 2) as results:
        assert [next(results) for _ in range(20)] == [str(task) for task in range(20)]


def test_a_folder_packed_at_the_training_resolution(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    open_training_data(None, resolution=16, procedural_count=2)
    (folder,) = tmp_path.iterdir()
    capsys.readouterr()
    assert open_training_data(folder, resolution=16, procedural_count=0).resolution == 32
    assert not capsys.readouterr().err
    assert open_training_data(folder, resolution=32, procedural_count=0).resolution == 32
    assert "packed at 32x32, so class borders are hard at 32x32" in capsys.readouterr().err
    with pytest.raises(UserError, match="--resolution 64"):
        open_training_data(folder, resolution=64, procedural_count=0)
