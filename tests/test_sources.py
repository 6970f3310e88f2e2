"""Procedural faces as training data."""

import numpy as np
import torch

from semfaceedit.procedural import render_faces
from semfaceedit.sources import open_training_data


def test_procedural_faces_are_made_once_and_hold_the_rendered_faces(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path))
    data = open_training_data(None, resolution=16, procedural_count=3)
    assert len(data) == 3 and data.resolution == 32
    faces = render_faces([1], 32)
    np.testing.assert_array_equal(data.labels[1], faces.labels[0].numpy())
    np.testing.assert_allclose(data.poses[1], faces.poses[0].numpy(), rtol=0)
    stored = torch.from_numpy(np.array(data.images[1])).movedim(-1, 0) / 127.5 - 1
    assert (stored - faces.images[0]).abs().max() < 1 / 127
    monkeypatch.setattr(
        "semfaceedit.sources.make_procedural", None
    )  # a second call must not need it
    assert len(open_training_data(None, resolution=16, procedural_count=3)) == 3


def test_a_packed_folder_is_opened_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path))
    open_training_data(None, resolution=16, procedural_count=2)
    (folder,) = tmp_path.iterdir()
    assert len(open_training_data(folder, resolution=16, procedural_count=0)) == 2
