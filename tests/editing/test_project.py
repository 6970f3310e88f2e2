"""Face projects: what is written is what is read, and only the right checkpoint takes it."""

import dataclasses
import json
import math
import os
import signal

import numpy as np
import pytest
import torch
from faces import face, open_editor
from safetensors import safe_open
from safetensors.torch import save_file

from semfaceedit.data.align import Window
from semfaceedit.editing.project import FORMAT, FaceProject
from semfaceedit.editing.target import SourceCrop
from semfaceedit.errors import UserError
from semfaceedit.model.generator import seed_codes
from semfaceedit.model.mean_face import fingerprint, mean_codes
from semfaceedit.model.renderer import render


def test_several_groups_are_seen(editor):
    """What the tests of editing and transfer rest on."""
    for seed in (2, 5):
        groups = editor.generator.group_table(torch.from_numpy(face(editor, seed).labels).long())
        assert (torch.bincount(groups.flatten(), minlength=4) > 12).tolist().count(True) >= 3


def test_round_trip(editor, tmp_path):
    crop = SourceCrop(Window(1.5, -2.0, 40.0), 64, 48)
    project = dataclasses.replace(face(editor, 1), iterations=7, metrics={"psnr": 20.5}, crop=crop)
    project.save(tmp_path / "face.safetensors")
    read = FaceProject.load(tmp_path / "face.safetensors", editor.generator)
    for field in dataclasses.fields(FaceProject):
        kept, made = getattr(read, field.name), getattr(project, field.name)
        if field.name in ("geometry", "appearance"):
            assert torch.equal(kept.frequencies, made.frequencies), field.name
            assert torch.equal(kept.phases, made.phases), field.name
        elif isinstance(made, np.ndarray):
            assert kept.dtype == made.dtype and np.array_equal(kept, made), field.name
        elif isinstance(made, torch.Tensor):
            assert torch.equal(kept, made), field.name
        else:
            assert kept == made, field.name


def test_offsets_have_the_shapes_of_the_layers(editor):
    project, model = face(editor, 1), editor.config.model
    layers = model.geometry_depth + 1
    assert project.geometry.phases.shape == (layers, model.width)
    layers = model.appearance_depth + 1
    assert project.appearance.frequencies.shape == (model.groups, layers, model.width)


def test_a_project_of_a_seed_renders_that_seed(editor):
    project = face(editor, 3)
    codes = seed_codes(editor.generator, 3)
    for found, wanted in (
        (project.codes(editor.generator).geometry, codes.geometry),
        (project.codes(editor.generator).appearance, codes.appearance),
    ):
        torch.testing.assert_close(found.frequencies, wanted.frequencies)
        torch.testing.assert_close(found.phases, wanted.phases)
    image = render(editor.generator, codes, project.pose[None], 16).image
    assert np.abs(project.image - ((image[0].movedim(0, -1) + 1) * 127.5).numpy()).max() < 1


def test_zero_offsets_are_the_mean_face(editor):
    project = face(editor, 1)
    film = project.geometry
    zero = dataclasses.replace(film, frequencies=0 * film.frequencies, phases=0 * film.phases)
    codes = dataclasses.replace(project, geometry=zero).codes(editor.generator)
    assert torch.equal(codes.geometry.phases, mean_codes(editor.generator).geometry.phases)


def test_fingerprints_tell_weights_apart(editor, tmp_path):
    other = open_editor(tmp_path, seed=1)
    same = open_editor(tmp_path)
    assert fingerprint(editor.generator) == fingerprint(same.generator)
    assert fingerprint(editor.generator) != fingerprint(other.generator)


def test_a_project_of_another_checkpoint_is_one_line(editor, tmp_path):
    face(editor, 1).save(tmp_path / "face.safetensors")
    other = open_editor(tmp_path, seed=1).generator
    with pytest.raises(UserError, match="face.safetensors was made with another checkpoint"):
        FaceProject.load(tmp_path / "face.safetensors", other)
    project = FaceProject.load(tmp_path / "face.safetensors")
    with pytest.raises(UserError, match="another checkpoint"):
        project.codes(other)


@pytest.mark.parametrize(
    "damage,said",
    [
        ("missing", "no face project at"),
        ("text", "not a readable face project"),
        ("foreign", "is no face project"),
        ("newer", "format version 99"),
        ("incomplete", "lacks geometry.frequencies.*checkpoint, group_of_class, iterations"),
        ("list", "is no face project"),
        ("folder", "is a folder"),
    ],
)
def test_files_that_are_no_project_are_said(tmp_path, damage, said):
    path = tmp_path / "bad.safetensors"
    if damage == "folder":
        path.mkdir()
    elif damage == "text":
        path.write_text("hello")
    elif damage != "missing":
        header = {
            "newer": {"format": FORMAT, "version": 99},
            "incomplete": {"format": FORMAT, "version": 1},
            "list": [],
        }.get(damage, {})
        save_file({"x": torch.zeros(1)}, path, {"semfaceedit": json.dumps(header)})
    with pytest.raises(UserError, match=said) as error:
        FaceProject.load(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("name", ["version", "checkpoint", "crop", "metrics"])
def test_a_header_that_is_not_whole_is_said(editor, tmp_path, name):
    path = tmp_path / "face.safetensors"
    face(editor, 1).save(path)
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["semfaceedit"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    del header[name]
    save_file(tensors, path, {"semfaceedit": json.dumps(header)})
    with pytest.raises(UserError, match=f"face.safetensors lacks {name}: it is incomplete"):
        FaceProject.load(path)


@pytest.mark.parametrize("part", ["geometry", "appearance"])
def test_offsets_of_another_shape_are_not_spread(editor, tmp_path, part):
    whole = face(editor, 1)
    film = getattr(whole, part)
    project = dataclasses.replace(whole, **{part: film[:1]})
    with pytest.raises(UserError, match=rf"has {part} offsets of shape \(1, .*make it again"):
        project.codes(editor.generator)
    project.save(tmp_path / "face.safetensors")
    with pytest.raises(UserError, match="face.safetensors has"):
        FaceProject.load(tmp_path / "face.safetensors", editor.generator)


def rewritten(path, header: dict, tensors: dict) -> None:
    """Write over a project with these parts of its header and of its tensors changed."""
    with safe_open(path, "pt") as file:
        kept = json.loads(file.metadata()["semfaceedit"]) | header
        all_tensors = {name: file.get_tensor(name) for name in file.keys()} | tensors  # noqa: SIM118
    save_file(all_tensors, path, {"semfaceedit": json.dumps(kept)})


WINDOW = {"left": 1.0, "top": 2.0, "side": 3.0}


@pytest.mark.parametrize(
    "header",
    [
        {"version": "2"}, {"version": True}, {"checkpoint": 3}, {"group_of_class": 5},
        {"group_of_class": [0, 1]}, {"group_of_class": ["0"] * 19}, {"iterations": -1},
        {"iterations": 1.5}, {"metrics": []}, {"metrics": {"psnr": "high"}},
        {"metrics": {"psnr": None}}, {"crop": 7}, {"crop": {"window": WINDOW, "width": 4}},
        {"crop": {"window": WINDOW | {"side": math.nan}, "width": 4, "height": 4}},
        {"crop": {"window": WINDOW | {"side": 0}, "width": 4, "height": 4}},
        {"crop": {"window": {"left": 1}, "width": 4, "height": 4}},
        {"crop": {"window": WINDOW, "width": 0, "height": 4}},
        {"tuned": "../../etc/x"}, {"tuned": 7}, {"tuned": ["a"]},
    ],
)  # fmt: skip
def test_a_header_with_other_values_is_said(editor, tmp_path, header):
    path = tmp_path / "face.safetensors"
    face(editor, 1).save(path)
    rewritten(path, header, {})
    (name,) = header
    with pytest.raises(UserError, match=f"face.safetensors has no sound {name} in its header"):
        FaceProject.load(path, editor.generator)


NAN, BYTES = math.nan, torch.uint8


@pytest.mark.parametrize(
    "tensors, said",
    [
        ({"pose": torch.tensor([NAN, 0.0])}, "a pose of"),
        ({"pose": torch.tensor([1.6, 0.0])}, "a pose of"),
        ({"pose": torch.zeros(3)}, "a pose of shape"),
        ({"pose": torch.zeros(2, dtype=torch.int64)}, "a pose of shape"),
        ({"labels": torch.tensor(3, dtype=BYTES)}, "labels of shape"),
        ({"labels": torch.zeros(8, 8, 1, dtype=BYTES)}, "labels of shape"),
        ({"labels": torch.zeros(8, 9, dtype=BYTES)}, "labels of shape"),
        ({"labels": torch.zeros(0, 0, dtype=BYTES)}, "labels of shape"),
        ({"labels": torch.zeros(3000, 3000, dtype=BYTES)}, "labels of shape"),
        ({"labels": torch.zeros(32, 32)}, "labels of shape.*float32"),
        ({"labels": torch.full((16, 16), 19, dtype=BYTES)}, "the label 19"),
        ({"labels": torch.full((16, 16), 255, dtype=BYTES)}, "the label 255"),
        ({"image": torch.zeros(8, 8, 3, dtype=BYTES)}, "image of shape"),
        ({"image": torch.zeros(16, 16, 3)}, "image of shape"),
        ({"preview": torch.zeros(4, 5, 3, dtype=BYTES)}, "preview of shape"),
        ({"preview": torch.tensor(0, dtype=BYTES)}, "preview of shape"),
        ({"geometry.phases": torch.full((4, 32), NAN)}, "geometry offsets"),
        ({"geometry.frequencies": torch.zeros(0, 0)}, "geometry offsets"),
        ({"appearance.phases": torch.tensor(1.0)}, "appearance offsets"),
    ],
)  # fmt: skip
def test_tensors_that_are_no_faces_are_said(editor, tmp_path, tensors, said):
    path = tmp_path / "face.safetensors"
    face(editor, 1).save(path)
    rewritten(path, {}, tensors)
    with pytest.raises(UserError, match=f"face.safetensors has {said}.*make it again"):
        FaceProject.load(path)


@pytest.mark.parametrize("name", ["geometry.phases", "appearance.frequencies", "pose", "labels",
                                  "image", "preview"])  # fmt: skip
def test_a_sound_number_in_place_of_another_is_said(editor, tmp_path, name):
    path = tmp_path / "face.safetensors"
    face(editor, 1).save(path)
    with safe_open(path, "pt") as file:
        tensor = file.get_tensor(name)
    numbers = tensor.flatten()
    numbers[0] = 0.25 if tensor.is_floating_point() else (int(numbers[0]) + 1) % 19
    rewritten(path, {}, {name: numbers.view(tensor.shape)})
    with pytest.raises(UserError, match="face.safetensors was changed since it was written"):
        FaceProject.load(path, editor.generator)


@pytest.mark.parametrize("name, value", [("iterations", 8), ("metrics", {"psnr": 20.0}),
                                         ("crop", None), ("group_of_class", [0] * 19)])  # fmt: skip
def test_a_sound_header_in_place_of_another_is_said(editor, tmp_path, name, value):
    path = tmp_path / "face.safetensors"
    crop = SourceCrop(Window(1.5, -2.0, 40.0), 64, 48)
    dataclasses.replace(face(editor, 1), iterations=7, metrics={"psnr": 20.5}, crop=crop).save(path)
    FaceProject.load(path, editor.generator)
    rewritten(path, {name: value}, {})
    with pytest.raises(UserError, match="face.safetensors was changed since it was written"):
        FaceProject.load(path, editor.generator)


def test_a_project_of_an_earlier_version_has_no_hash(editor, tmp_path):
    path = tmp_path / "face.safetensors"
    face(editor, 1).save(path)
    rewritten(path, {"sha256": None}, {})
    assert FaceProject.load(path, editor.generator).labels.max() < 19


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e7])
@pytest.mark.parametrize("name", ["geometry.frequencies", "appearance.phases"])
def test_offsets_without_a_finite_face_are_said(editor, tmp_path, name, value):
    whole = face(editor, 1)
    part, film = name.split(".")
    offsets = getattr(getattr(whole, part), film).clone()
    offsets.flatten()[3] = value
    whole.save(tmp_path / "face.safetensors")
    rewritten(tmp_path / "face.safetensors", {}, {name: offsets})
    with pytest.raises(UserError, match=f"has {part} offsets that are not finite"):
        FaceProject.load(tmp_path / "face.safetensors", editor.generator)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
@pytest.mark.parametrize("kind", ["pipe", "device", "link to a device"])
def test_a_file_that_is_none_is_not_waited_for(tmp_path, kind):
    path = tmp_path / "face.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    else:
        path = path.__class__("/dev/zero")

    def hang(*_):
        raise AssertionError("it waits for the pipe")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(5)
    try:
        with pytest.raises(UserError, match="not a file"):
            FaceProject.load(path)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_file_larger_than_any_face_is_not_read(tmp_path):
    path = tmp_path / "face.safetensors"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="are the most that is read"):
        FaceProject.load(path)


def test_a_header_nested_without_end_is_said(tmp_path):
    path = tmp_path / "face.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"semfaceedit": "[" * 100_000})
    with pytest.raises(UserError, match="not a readable face project"):
        FaceProject.load(path)
