"""Face projects: what is written is what is read, and only the right checkpoint takes it."""

import dataclasses
import json

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


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    return open_editor(tmp_path_factory.mktemp("project"))


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
