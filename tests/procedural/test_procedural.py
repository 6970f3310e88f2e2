"""Procedural faces: determinism, labels, poses, depth, and the command that writes them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semfaceedit.data.layouts import find_source, read_labels
from semfaceedit.files import replacing
from semfaceedit.model.camera import CameraConfig, project
from semfaceedit.model.labels import CLASS_NAMES
from semfaceedit.model.rays import camera_rays
from semfaceedit.procedural import render as procedural
from semfaceedit.procedural.dataset import DEPTH_SCALE
from semfaceedit.procedural.heads import HEAD_UNIT, sample_head
from semfaceedit.procedural.render import render_faces
from semfaceedit.synthesize import main

CONFIG = CameraConfig()
ID = {name: index for index, name in enumerate(CLASS_NAMES)}


def centre(labels, name):
    """Mean (x, y) of a class in pixels."""
    where = (labels == ID[name]).nonzero().float()
    assert len(where), f"no {name}"
    return where[:, 1].mean().item(), where[:, 0].mean().item()


def bare_seeds(count):
    """Seeds of heads without anything that hides eyes, ears or nose."""
    heads = (sample_head(seed, CONFIG) for seed in range(1000))
    shown = (
        head.seed
        for head in heads
        if head.hair.style in ("short", "crop", "bald")
        and head.hair.hat is None
        and head.accessories.glasses is None
    )
    return [next(shown) for _ in range(count)]


def test_seed_decides_everything():
    batch = render_faces([5, 6, 7], 24)
    alone = render_faces([6], 24)
    for name in ("images", "labels", "depth", "poses"):
        assert torch.equal(getattr(batch, name)[1:2], getattr(alone, name)), name
    assert not torch.equal(batch.images[0], batch.images[2])
    assert torch.equal(render_faces([6], 16).poses, alone.poses)
    assert batch.images.shape == (3, 3, 24, 24) and batch.images.abs().max() <= 1
    assert batch.labels.dtype == torch.uint8 and batch.depth.shape == (3, 24, 24)


def test_resolution_changes_only_the_sampling():
    coarse, fine = render_faces([3], 32), render_faces([3], 64)
    pooled = torch.nn.functional.avg_pool2d(fine.images, 2)
    assert (pooled - coarse.images).abs().mean() < 0.02


def test_poses_follow_the_prior():
    poses = torch.tensor([sample_head(seed, CONFIG).pose for seed in range(600)])
    assert torch.allclose(poses.std(0), torch.tensor([0.3, 0.155]), rtol=0.12)
    assert poses.mean(0).abs().max() < 0.04


def test_every_class_occurs_and_rare_things_stay_rare():
    heads = [sample_head(seed, CONFIG) for seed in range(400)]
    share = {
        "hat": np.mean([h.hair.hat is not None for h in heads]),
        "glasses": np.mean([h.accessories.glasses is not None for h in heads]),
        "necklace": np.mean([h.garment.necklace is not None for h in heads]),
        "open": np.mean([h.face.mouth_open > 0 for h in heads]),
    }
    assert 0.01 < share["hat"] < 0.1 and 0.02 < share["glasses"] < 0.12
    assert 0.03 < share["necklace"] < 0.25 and 0.35 < share["open"] < 0.55

    def first(test):
        return next(h.seed for h in heads if test(h))

    seeds = [
        first(lambda h: h.hair.hat is not None),
        first(lambda h: h.accessories.glasses == "round"),
        first(lambda h: h.accessories.earrings == "hoop"),
        first(lambda h: h.garment.necklace and h.garment.neckline == "vee"),
        first(lambda h: h.face.mouth_open > 0 and h.hair.style == "short"),
    ]
    labels = render_faces(seeds, 48, poses=torch.zeros(len(seeds), 2)).labels
    assert set(labels.unique().tolist()) == set(range(19))


def test_pose_convention_and_sides():
    seed = bare_seeds(1)[0]
    poses = torch.tensor([[0.0, 0.0], [0.4, 0.0], [0.0, 0.25]])
    front, turned, lifted = render_faces([seed] * 3, 48, poses=poses).labels
    assert centre(turned, "nose")[0] > centre(front, "nose")[0] + 2
    assert centre(lifted, "nose")[1] < centre(front, "nose")[1] - 1
    for part in ("eye", "brow", "ear"):
        assert centre(front, f"l_{part}")[0] > 24 > centre(front, f"r_{part}")[0]
    assert (turned == ID["r_ear"]).sum() > (turned == ID["l_ear"]).sum()


def test_landmarks_follow_the_template():
    """Eyes, nose and mouth of frontal faces lie where the pose convention's template has them."""
    seeds, size = bare_seeds(6), 64
    labels = render_faces(seeds, size, poses=torch.zeros(6, 2)).labels
    template = torch.tensor(
        [[0.31, 0.09, 0.13], [-0.31, 0.09, 0.13], [0, -0.2, 0.5], [0, -0.58, 0.25]]
    )
    expected = (project(template[None] * HEAD_UNIT, torch.zeros(1, 2), CONFIG)[0] + 1) / 2 * size
    found = []
    for face in labels:
        lips = [centre(face, "u_lip"), centre(face, "l_lip")]
        mouth = tuple(np.mean(lips, axis=0))
        found.append([centre(face, "l_eye"), centre(face, "r_eye"), centre(face, "nose"), mouth])
    off = torch.tensor(found) + 0.5 - expected
    assert off.mean(0).abs().max() < 2.0 and off.abs().max() < 4.0


def test_depth_is_the_distance_along_the_model_camera_s_rays():
    """Points of one view, seen from another, have that view's depth wherever they are visible."""
    size, poses = 64, torch.tensor([[0.0, 0.0], [0.25, 0.1]])
    faces = render_faces(bare_seeds(1) * 2, size, poses=poses)
    rays = camera_rays(poses, size, CONFIG)
    points = rays.origins + rays.directions * faces.depth.view(2, -1, 1)
    first = points[:1]
    image = project(first, poses[1:], CONFIG)
    seen = torch.nn.functional.grid_sample(
        faces.depth[1][None, None], image[:, :, None], align_corners=False
    ).flatten()
    distance = (first[0] - rays.origins[1, 0]).norm(dim=-1)
    inside = (image[0].abs() < 0.95).all(-1) & torch.isin(
        faces.labels[0].flatten(), torch.tensor([ID["skin"], ID["nose"], ID["u_lip"], ID["l_lip"]])
    )
    # Hidden points are behind what is seen; no point is ever in front of it.
    error = (distance - seen)[inside]
    assert error.abs().median() < 0.0005
    assert (error > -0.004).float().mean() > 0.95
    plane = points[:, :, 2].view(2, size, size)[faces.labels == 0]
    assert (plane + 0.12).abs().max() < 1e-4


def test_noses_are_nearer_than_ears():
    faces = render_faces(bare_seeds(3), 48, poses=torch.zeros(3, 2))
    for labels, depth in zip(faces.labels, faces.depth, strict=True):
        nose = depth[labels == ID["nose"]].min()
        ears = depth[(labels == ID["l_ear"]) | (labels == ID["r_ear"])].mean()
        assert nose + 0.04 < ears < depth[labels == 0].min()


def test_heads_stay_inside_the_scene():
    poses = torch.tensor([[0.6, 0.2], [-0.6, -0.2], [0.0, 0.0]])
    for seed in range(4):
        faces = render_faces([seed] * 3, 24, poses=poses)
        rays = camera_rays(poses, 24, CONFIG)
        z = (rays.origins + rays.directions * faces.depth.view(3, -1, 1))[..., 2]
        z = z.view_as(faces.labels)[faces.labels > 0]
        assert z.max() < 0.075 and z.min() > -0.1201


def test_no_faces():
    assert render_faces([], 16).images.shape == (0, 3, 16, 16)


def synthesize(out, *options):
    return main(["--out", str(out), "--resolution", "32", "--workers", "1", *options])


def files(root: Path):
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_command_writes_the_native_layout(tmp_path):
    assert synthesize(tmp_path / "a", "--count", "3", "--seed", "40") == 0
    source = find_source(tmp_path / "a")
    expected = render_faces([40, 41, 42], 32)
    assert source.rendered and len(source.faces) == 3
    for index, face in enumerate(source.faces):
        assert face.pose == pytest.approx(expected.poses[index].tolist(), abs=1e-6)
        assert np.array_equal(read_labels(face), expected.labels[index].numpy())
        with Image.open(tmp_path / "a" / "depth" / f"{index:05d}.png") as picture:
            depth = np.asarray(picture) * DEPTH_SCALE
        assert np.abs(depth - expected.depth[index].numpy()).max() <= DEPTH_SCALE
    # Without dataset.json the table is read, in the data set's signs and degrees.
    (tmp_path / "a" / "dataset.json").unlink()
    for face, pose in zip(find_source(tmp_path / "a").faces, expected.poses, strict=True):
        assert face.pose == pytest.approx(pose.tolist(), abs=1e-6)


def test_command_goes_on_after_an_interruption(tmp_path, monkeypatch, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert synthesize(whole, "--count", "3") == 0

    def interrupt(seeds, *rest):
        if seeds[0] == 1:
            raise KeyboardInterrupt
        return render_faces(seeds, *rest)

    monkeypatch.setattr("semfaceedit.procedural.dataset.render_faces", interrupt)
    assert synthesize(stopped, "--count", "3") == 130
    assert json.loads((stopped / "dataset.json").read_text())["complete"] is False
    rendered = []
    monkeypatch.setattr(
        "semfaceedit.procedural.dataset.render_faces",
        lambda seeds, *rest: (rendered.extend(seeds), render_faces(seeds, *rest))[1],
    )
    assert synthesize(stopped, "--count", "3") == 0
    assert rendered == [1, 2]
    assert files(stopped) == files(whole)
    assert synthesize(stopped, "--count", "4") == 1
    assert "holds faces with count 3" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, message",
    [
        (["--count", "0"], "--count 0"),
        (["--resolution", "8"], "--resolution 8"),
        (["--resolution", "2000"], "--resolution 2000"),
        (["--seed", "-1"], "--seed -1"),
        (["--workers", "0"], "--workers 0"),
    ],
)
def test_command_refuses_bad_options(tmp_path, capsys, options, message):
    assert main(["--out", str(tmp_path / "new"), *options]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_two_processes_use_names_of_their_own(tmp_path, monkeypatch):
    used = set()
    for process in (1, 2):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        with pytest.raises(OSError), replacing(tmp_path / "a.png") as path:
            path.write_text("half")
            used.add(path)
            raise OSError
    assert len(used) == 2 and not list(tmp_path.iterdir())


def test_command_leaves_strange_folders_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    assert synthesize(tmp_path, "--count", "1") == 1
    assert "is not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert synthesize(tmp_path / "thesis.txt", "--count", "1") == 1
    assert "lies in a file" in capsys.readouterr().err


def test_appearance_does_not_move_geometry(monkeypatch):
    """A head with other colours keeps its labels and its depth."""
    before = render_faces([8], 32)
    head = sample_head(8, CONFIG)
    recolored = replace(head, hair=replace(head.hair, color=(0.1, 0.8, 0.2)))
    monkeypatch.setattr(procedural, "sample_head", lambda *_: recolored)
    after = render_faces([8], 32)
    assert torch.equal(before.labels, after.labels) and torch.equal(before.depth, after.depth)
    changed = (before.images != after.images).any(1)
    assert changed[after.labels == ID["hair"]].float().mean() > 0.9
