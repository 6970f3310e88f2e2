"""Landmarks and pose from label maps: drawn faces, and CelebAMask-HQ's pose table."""

import math

import numpy as np
import pytest
import torch
from face_maps import ID, draw_labels, template_points

from semfaceedit.data.decoding import read_label_map
from semfaceedit.data.layouts import SourcePair, read_pose_table
from semfaceedit.data.pose import (
    TEMPLATE,
    WORLD_PER_UNIT,
    _project,
    estimate_pose,
    landmarks_from_labels,
    sides_exchanged,
)
from semfaceedit.data.preparation import locate, prepare_face
from semfaceedit.model.camera import CameraConfig, project
from semfaceedit.model.labels import FLIP_IDS

# CelebAMask-HQ id of each id in the order of BiSeNet's face parsing.
FROM_BISENET = np.array(
    [0, 1, 6, 7, 4, 5, 3, 8, 9, 15, 2, 10, 11, 12, 17, 16, 18, 13, 14], np.uint8
)


def test_projection_is_the_models_camera():
    state = np.array([[0.3, -0.2, 0, 0, 0, 0], [-0.5, 0.1, 0, 0, 0, 0]])
    points = torch.tensor(TEMPLATE * WORLD_PER_UNIT).expand(2, -1, -1)
    expected = project(points, torch.tensor(state[:, :2]), CameraConfig())
    np.testing.assert_allclose(_project(state, 6, CameraConfig()), expected.numpy(), atol=1e-12)


@pytest.mark.parametrize("pose", [(0.0, 0.0), (0.4, 0.0), (-0.3, 0.2), (0.1, -0.25)])
def test_exact_landmarks_give_back_the_pose(pose):
    points = template_points(*pose)
    wide = CameraConfig()
    for name in ("yaw_std", "pitch_std"):  # no camera may have it: the landmarks are left alone
        object.__setattr__(wide, name, math.inf)
    found = estimate_pose(points[:5], points[5], camera=wide)
    np.testing.assert_allclose(found, pose, atol=1e-4)


def test_pose_ignores_roll_and_place():
    points = template_points(0.3, 0.1)
    angle = 0.2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    moved = points @ turn.T * 0.8 + (0.1, -0.05)
    found = estimate_pose(moved[:5], moved[5])
    np.testing.assert_allclose(found, estimate_pose(points[:5], points[5]), atol=0.03)


def test_prior_draws_pitch_towards_level():
    points = template_points(0.0, 0.2)
    loose = estimate_pose(points[:5], points[5])[1]
    tight = estimate_pose(points[:5], points[5], camera=CameraConfig(pitch_std=0.01))[1]
    assert 0.1 < loose < 0.2
    assert 0 < tight < 0.02


@pytest.mark.parametrize("pose", [(0.0, 0.0), (0.35, 0.0), (-0.35, 0.1), (0.0, -0.1)])
def test_pose_of_drawn_faces(pose):
    landmarks = landmarks_from_labels(draw_labels(256, *pose))
    found = estimate_pose(landmarks.points / 128 - 1, landmarks.outline / 128 - 1)
    np.testing.assert_allclose(found, pose, atol=0.08)


def test_landmarks_lie_on_the_drawn_features():
    landmarks = landmarks_from_labels(draw_labels(256, 0.2, 0.1))
    expected = (template_points(0.2, 0.1) + 1) * 128
    np.testing.assert_allclose(landmarks.points, expected[:5], atol=2.5)
    assert abs(landmarks.outline[0] - expected[5, 0]) < 1.5
    assert landmarks.eye_source == "eyes"


@pytest.mark.parametrize(
    ("hidden", "source"),
    [(("l_eye",), "brows"), (("l_eye", "r_eye"), "brows"), (("r_eye", "r_brow"), None)],
)
def test_hidden_eyes_are_put_below_the_brows(hidden, source):
    landmarks = landmarks_from_labels(draw_labels(256, hidden=hidden))
    if source is None:
        assert landmarks is None
        return
    assert landmarks.eye_source == source
    whole = landmarks_from_labels(draw_labels(256))
    np.testing.assert_allclose(landmarks.points, whole.points, atol=3)


def test_eyes_behind_glasses():
    labels = draw_labels(256, hidden=("l_eye", "r_eye", "l_brow", "r_brow"))
    labels[108:130, 80:177] = ID["eye_g"]
    labels[112:116, 40:80] = ID["eye_g"]  # an arm
    landmarks = landmarks_from_labels(labels)
    assert landmarks.eye_source == "glasses"
    np.testing.assert_allclose(landmarks.points[0], [108, 119], atol=3)
    np.testing.assert_allclose(landmarks.points[1], [149, 119], atol=3)


@pytest.mark.parametrize("part", ["nose", "mouth"])
def test_no_landmarks_without_nose_or_mouth(part):
    hidden = ("nose",) if part == "nose" else ("u_lip", "l_lip")
    assert landmarks_from_labels(draw_labels(128, hidden=hidden)) is None


def test_no_landmarks_in_an_empty_map():
    assert landmarks_from_labels(np.zeros((64, 64), np.uint8)) is None


def test_left_and_right_come_from_positions():
    labels = draw_labels(256, 0.1)
    exchanged = FLIP_IDS.astype(np.uint8)[labels]
    one_id = np.where(labels == ID["r_eye"], ID["l_eye"], labels)
    expected = landmarks_from_labels(labels).points
    for other in (exchanged, one_id):
        np.testing.assert_array_equal(landmarks_from_labels(other).points, expected)


def test_exchanged_sides_are_recognised():
    labels = draw_labels(128)
    assert not sides_exchanged(labels)
    assert sides_exchanged(FLIP_IDS.astype(np.uint8)[labels])
    mixed = labels.copy()  # only the brows exchanged: left as it is
    mixed[labels == ID["l_brow"]] = ID["r_brow"]
    mixed[labels == ID["r_brow"]] = ID["l_brow"]
    assert not sides_exchanged(mixed)
    assert not sides_exchanged(np.zeros((8, 8), np.uint8))


def test_against_the_pose_table(real_faces):
    """Both signs and the accuracy that the module's docstring states."""
    table = read_pose_table(real_faces / "celebamaskhq_meta/CelebAMask-HQ-pose-anno.txt")
    assert len(table) == 30_000
    np.testing.assert_allclose(np.array(list(table.values())).mean(0), [-0.035, 0], atol=1e-3)
    estimates, truths = [], []
    masks = sorted((real_faces / "sean_celebahq256/labels_index").glob("*.png"))
    masks += sorted((real_faces / "yakhyo_bisenet_order/masks_pred_bisenet_order").glob("*.png"))
    for path in masks:
        labels = read_label_map(path)
        if "bisenet" in path.parent.name:
            labels = FROM_BISENET[labels]
        landmarks = landmarks_from_labels(labels)
        half = len(labels) / 2
        estimates.append(estimate_pose(landmarks.points / half - 1, landmarks.outline / half - 1))
        truths.append(table[path.stem])
    found, truth = np.degrees(estimates), np.degrees(truths)
    assert len(found) == 13
    correlation = [np.corrcoef(found[:, axis], truth[:, axis])[0, 1] for axis in (0, 1)]
    error = np.sqrt(((found - truth) ** 2).mean(0))
    assert correlation[0] > 0.97 and error[0] < 3.5, (correlation, error)
    assert correlation[1] > 0.75 and error[1] < 6.5, (correlation, error)


def test_spread_over_real_faces(real_faces):
    """Estimated poses are centred and spread like the prior, and few faces have none."""
    root = real_faces / "ce7454_celebamaskhq512"
    poses = []
    for path in sorted((root / "masks").glob("*.png"))[:120]:
        face = SourcePair(path.stem, root / "images" / f"{path.stem}.jpg", (path,))
        poses.append(prepare_face(locate(face), 16).pose)
    known = np.array([pose for pose in poses if np.isfinite(pose).all()])
    assert len(known) >= 117
    assert np.abs(known.mean(0)).max() < 0.06
    assert 0.17 < known[:, 0].std() < 0.3 and 0.07 < known[:, 1].std() < 0.155
