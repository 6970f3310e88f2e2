"""Nearest pictures of training: copies are found, and others set the scale."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from faces import SIZE, write_checkpoint
from training import drawn_faces

from semfaceedit.data.dataset import FaceDataset
from semfaceedit.evaluation import figures, novelty, pictures
from semfaceedit.evaluation.session import EvaluateOptions, Evaluation
from semfaceedit.training.distributed import World


@pytest.fixture
def training(tmp_path) -> FaceDataset:
    return drawn_faces(tmp_path / "training", count=40, resolution=2 * SIZE)


@pytest.fixture
def evaluation(training, tmp_path, monkeypatch) -> Evaluation:
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path / "cache"))
    drawn_faces(tmp_path / "others", count=9, resolution=2 * SIZE)
    options = EvaluateOptions(
        checkpoint=write_checkpoint(tmp_path), out=tmp_path / "out", data=tmp_path / "others",
        training_data=tmp_path / "training", count=12, parser_steps=2, batch=4,
    )  # fmt: skip
    evaluation = Evaluation.open(options, torch.device("cpu"), World())
    pictures.generate_pictures(evaluation, 12)
    return evaluation


def test_copies_of_training_are_found(evaluation, training, monkeypatch, tmp_path):
    """A generator that repeats twelve pictures of training, every other one mirrored; those of
    others have other colours."""
    squares = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)
    training = dataclasses.replace(training, images=squares.repeat(4, 1).repeat(4, 2))
    chunk = pictures.real_chunk(training, range(12), SIZE)
    images = chunk.images.clone()
    images[1::2] = images[1::2].flip(3)
    sets = {"generated_pictures": images, "real_pictures": 255 - images}
    for name, shown in sets.items():
        chunks = [pictures.Chunk(0, shown, chunk.labels)]
        known = pictures.PictureSet(name, 12, lambda chunks=chunks: iter(chunks), tmp_path)
        monkeypatch.setattr(novelty, name, lambda _, known=known: known)
    found = novelty.measure_novelty(evaluation, training)
    for space in found["spaces"].values():
        assert float(space["generated"]["median"]) < 0.02  # rounded to eight bits
        assert float(space["held_out"]["least"]) > 0.1
        assert space["nearer_than_any_held_out"] == 1
        assert all(made == known for made, known, _ in space["closest"])
        assert len({made for made, *_ in space["closest"]}) == 12


def test_the_question_is_answered_and_drawn(evaluation):
    novelty.novelty(evaluation)
    found = evaluation.results.values["novelty"]
    assert (found["generated"], found["held_out"], found["training"]) == (12, 9, 40)
    figures.draw(evaluation)
    folder: Path = evaluation.options.out / "figures"
    names = {f"novelty-{space}.png" for space in ("pixels", "features")}
    assert {path.name for path in folder.iterdir()} == names
    evaluation.options.training_data = None
    evaluation.results.values.clear()
    novelty.novelty(evaluation)
    assert "--training-data" in evaluation.results.missing["novelty"]


def test_distances_are_root_mean_squares_to_the_nearest():
    features = torch.tensor([[1.0, 1.0], [0.0, 4.0]])
    known = torch.tensor([[0.0, 0.0], [2.0, 4.0], [9.0, 9.0]])
    distances, indices = novelty._nearest(features, known)
    torch.testing.assert_close(distances, torch.tensor([1.0, 2.0**0.5]).double())
    assert indices.tolist() == [0, 1]
