"""Areas, the segmentation network, locality, ground truth, poses and curves with known answers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from faces import SIZE, write_checkpoint
from training import drawn_faces

from semfaceedit.data.dataset import flip_labels
from semfaceedit.editing.encoder import new_encoder
from semfaceedit.evaluation import consistency, inversion, locality, pictures, sections, semantics
from semfaceedit.evaluation.session import (
    HELD_OUT,
    EvaluateOptions,
    Evaluation,
    Unmeasured,
    plain,
)
from semfaceedit.evaluation.tables import format_number, table
from semfaceedit.metrics.generator_checks import widened
from semfaceedit.model.labels import CLASS_NAMES, GROUP_OF_CLASS
from semfaceedit.model.masking import GroupTable
from semfaceedit.model.renderer import RenderOutput
from semfaceedit.procedural.render import render_faces
from semfaceedit.training.distributed import World


@pytest.fixture(autouse=True)
def _quiet(tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return drawn_faces(tmp_path_factory.mktemp("data") / "drawn", count=40, resolution=2 * SIZE)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory) -> Evaluation:
    """Procedural heads and an untrained tiny checkpoint."""
    folder = tmp_path_factory.mktemp("evaluation")
    options = EvaluateOptions(checkpoint=write_checkpoint(folder), out=folder, pairs=2, faces=3,
                      batch=2, geometry_iterations=10, appearance_iterations=10)  # fmt: skip
    return Evaluation.open(options, torch.device("cpu"), World())


def picture_set(folder: Path, labels: torch.Tensor, key: str) -> pictures.PictureSet:
    images = torch.zeros(len(labels), 3, *labels.shape[1:], dtype=torch.uint8)
    return pictures.PictureSet(
        key, len(labels), lambda: iter([pictures.Chunk(0, images, labels)]), folder
    )


def test_areas_by_hand(tmp_path):
    real = torch.zeros(2, 2, 2, dtype=torch.uint8)
    real[0, 0] = 13  # half of the first picture is hair
    made = torch.zeros(2, 2, 2, dtype=torch.uint8)
    made[0, 0, 0], made[1, 0, 0] = 1, 1
    found = semantics.areas(picture_set(tmp_path, real, "r"), picture_set(tmp_path, made, "m"))
    hair, skin = (found["classes"][CLASS_NAMES[index]] for index in (13, 1))
    assert (hair["real_area"], hair["real_presence"]) == (0.25, 0.5)
    assert (skin["generated_area"], skin["generated_presence"]) == (0.25, 1.0)
    # background 3/4 of both; hair 1/4 against 0, skin 0 against 1/4
    assert float(found["total_variation"]) == pytest.approx(0.25)


def test_statistics_are_kept_and_told_apart(tmp_path, monkeypatch):
    labels = torch.zeros(2, 2, 2, dtype=torch.uint8)
    one, other = (picture_set(tmp_path, labels, key) for key in "ab")
    calls = []

    def compute(chunks):
        calls.append(1)
        return {"sum": sum(chunk.labels.double().sum() for chunk in chunks)[None]}

    for pictures_, inputs in ((one, {"x": 1}), (one, {"x": 1}), (one, {"x": 2}), (other, {"x": 1})):
        pictures_.statistics("s", inputs, compute)
    assert len(calls) == 3
    monkeypatch.setattr(pictures, "METRICS_VERSION", 1000)
    one.statistics("s", {"x": 1}, compute)
    assert len(calls) == 4


def test_real_labels_are_pixels_of_the_packed_maps(data):
    flips = np.array([False, True])
    images, labels = data.labelled(np.array([3, 3]), flips, SIZE)
    assert torch.equal(labels[0], torch.from_numpy(np.array(data.labels[3])[1::2, 1::2]))
    mirrored = torch.from_numpy(flip_labels(labels[0].numpy()))
    assert torch.equal(labels[1], mirrored)
    torch.testing.assert_close(images[1], images[0].flip(-1))


def test_too_few_pictures_for_the_parser(tmp_path):
    few = drawn_faces(tmp_path / "few", count=10)
    options = EvaluateOptions(checkpoint=write_checkpoint(tmp_path), out=tmp_path, resolution=8)
    evaluation = Evaluation.open(options, torch.device("cpu"), World())
    evaluation.__dict__["data"] = few
    with pytest.raises(Unmeasured, match="10 pictures are too few"):
        semantics.agreement(evaluation, picture_set(tmp_path, torch.zeros(1, 8, 8), "few"))


def view(labels: torch.Tensor, image: torch.Tensor, depth: float = 1.0) -> RenderOutput:
    maps = torch.nn.functional.one_hot(labels, 19).movedim(-1, 1).float()
    return RenderOutput(image, maps, torch.full_like(image[:, :1], depth), torch.zeros(1, 1))


def test_changes_by_hand():
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[:, :2] = 1  # face above, background below
    before = view(labels, torch.zeros(1, 3, 4, 4))
    image = torch.zeros(1, 3, 4, 4)
    image[:, :, :2] = 0.5  # the face's colour changes by a quarter of the range
    moved = labels.clone()
    moved[:, 2, :2] = 1  # and it grows by two pixels
    after = view(moved, image, depth=1.1)
    found = locality.changes_of(before, after, GroupTable(GROUP_OF_CLASS))
    means = {name: total / count for name, (total, count) in found.items()}
    assert means["labels"] == 2 / 16 and means["depth"] == pytest.approx(0.1, rel=1e-5)
    assert means["colors"] == pytest.approx(8 * 0.25 / 14)
    # mean colour of the face: 8 pixels of 0.5, and two of 0; of the background: none
    assert means["group_colors"] == pytest.approx(0.5 * (0.5 * 8 / 10) / 2)


def test_far_is_more_than_two_pixels_away():
    mask = torch.zeros(1, 7, 7, dtype=torch.bool)
    mask[0, 3, 0] = True
    wide = widened(mask)[0]
    assert wide[3].tolist() == [True] * 3 + [False] * 4
    assert wide[:, 0].tolist() == [False, *[True] * 5, False]


def test_locality_pools_over_batches(evaluation):
    """The same figures whatever the batch."""
    one = locality.measure_locality(evaluation)
    evaluation.options.batch = 3
    two = locality.measure_locality(evaluation)
    evaluation.options.batch = 2
    assert one["appearance_changed"]["labels"] == 0 == one["appearance_changed"]["depth"]
    assert one["geometry_changed"]["labels"] > 0
    for name, part in one["per_group"].items():
        for key, value in part.items():
            if math.isfinite(value):
                assert two["per_group"][name][key] == pytest.approx(value, rel=1e-4), (name, key)
    assert sum(part["share"] for part in one["per_group"].values()) == pytest.approx(1)


def test_the_truth_agrees_with_itself(evaluation, monkeypatch):
    """A rendering that is the procedural head has no error; one that is 0.01 farther has that."""
    pose = torch.tensor([[0.2, 0.1]])
    truth = consistency.as_output(render_faces([HELD_OUT], SIZE, poses=pose))
    monkeypatch.setattr(consistency, "_view", lambda *_: truth)
    found = consistency.against_truth(evaluation, None, pose, pose, HELD_OUT)
    assert found["depth"] == 0 == found["relief"] and found["normals"] < 0.1
    assert found["groups"] == found["classes"] == 1 and found["psnr"] == 100
    assert found["ssim"] == pytest.approx(1)
    farther = RenderOutput(truth.image, truth.semantics, truth.depth + 0.01, truth.weights)
    monkeypatch.setattr(consistency, "_view", lambda *_: farther)
    found = consistency.against_truth(evaluation, None, pose, pose, HELD_OUT)
    assert found["depth"] == pytest.approx(0.01, rel=1e-4) and found["relief"] < 1e-6


def test_procedural_heads_are_consistent(evaluation):
    found = consistency.reprojection(evaluation)
    pixel = 2 * evaluation.config.model.camera.half_extent / SIZE
    for turn in found["procedural_heads"].values():
        assert turn["pixels"] > 20 and float(turn["depth_median"]) < pixel / 2
    assert all(turn["pixels"] for turn in found["generated"].values())


def test_pose_errors_by_hand():
    poses = np.array([[-0.2, 0.1], [0.0, 0.1], [0.4, 0.1]], np.float32)
    found = consistency.pose_errors(poses + np.array([0.1, -0.2]), poses)
    assert found["yaw"]["error"] == pytest.approx(0.1)
    assert found["yaw"]["correlation"] == pytest.approx(1)
    assert found["yaw"]["guess"] == pytest.approx((0.2 + 0 + 0.4) / 3)
    assert found["pitch"]["error"] == pytest.approx(0.2)
    assert math.isnan(found["pitch"]["correlation"])  # all at one pitch


def test_inversion_and_ground_truth_of_procedural_heads(evaluation):
    inversion.invert_pairs(evaluation)
    found = inversion.curves(evaluation)
    assert found["pairs"] == 2 and found["iterations"] == [0, 10, 20]
    first = [one["groups"][0] for one in inversion.kept_pairs(evaluation)]
    assert found["groups"]["mean"][0] == pytest.approx(np.mean(first))
    assert found["groups"]["deviation"][0] == pytest.approx(np.std(first))
    assert found["psnr"]["mean"][-1] > found["psnr"]["mean"][0]
    assert len(found["ssim"]["mean"]) == 3
    truth = consistency.ground_truth(evaluation)
    assert truth["heads"] == 2 and set(truth["inverted"]) == {
        "own pose", "yaw -0.4", "yaw 0", "yaw 0.4",
    }  # fmt: skip
    # the own pose is what was fitted
    own = [one["groups"][-1] for one in inversion.kept_pairs(evaluation)]
    assert truth["inverted"]["own pose"]["groups"] == pytest.approx(np.mean(own), abs=0.1)


def test_inversion_from_an_encoder(evaluation):
    inversion.invert_pairs(evaluation)
    encoder = new_encoder(evaluation.generator).eval()
    found = inversion.encoder_curves(evaluation, encoder)
    assert found["pairs"] == 2 and list(found["after"]) == ["0", "5", "20", "50"]
    assert found["after"]["50"]["psnr"] > found["after"]["0"]["psnr"]
    assert found["end"]["iterations"] <= 40
    errors = found["depth_error"]
    truth = consistency.ground_truth(evaluation)
    assert errors["plain"] == pytest.approx(truth["inverted"]["own pose"]["depth"], rel=0.02)
    assert errors["mean_face"] == pytest.approx(truth["mean_face"]["own pose"]["depth"], rel=0.02)
    lines = sections.from_encoder({"encoder": plain(found)}, {"encoder": found["timings"]})
    assert "Depth error" in lines[-1] and any("as `invert` ends" in line for line in lines)


def test_a_map_without_a_face_is_skipped(evaluation, monkeypatch):
    pair = inversion.pair(evaluation, 0)
    empty = inversion.Pair("empty", pair.image, np.zeros_like(pair.labels), pair.pose * np.nan, 0)
    monkeypatch.setattr(inversion, "pair", lambda *_: empty)
    assert "shows no face" in inversion.invert_pair(evaluation, 0)["skipped"]


def test_the_pose_in_the_data_serves_where_the_map_shows_none(evaluation, tmp_path, monkeypatch):
    pair = inversion.pair(evaluation, 0)
    empty = inversion.Pair("empty", pair.image, np.zeros_like(pair.labels), pair.pose, 0)
    monkeypatch.setattr(inversion, "pair", lambda *_: empty)
    monkeypatch.setattr(inversion, "project_path", lambda *_: tmp_path / "face.safetensors")
    found = inversion.invert_pair(evaluation, 0)
    assert found["start_pose"] == "data"
    assert found["first_pose"] == pytest.approx(pair.pose.tolist())


def test_the_last_entry_of_each_iteration_counts():
    assert inversion.last_of_each([0, 10, 20, 20, 30]) == [0, 1, 3, 4]


def test_tables():
    assert table(["a", "b"], [["x", None], ["y", 0.123456], ["z", 12345]]) == [
        "| a | b |", "| --- | ---: |", "| x | – |", "| y | 0.1235 |", "| z | 12,345 |",
    ]  # fmt: skip
    assert format_number(float("nan")) == "–" and format_number(54321.0) == "54,321"
