"""Transfer: an appearance swap touches its group alone; geometry goes where the region is."""

import dataclasses
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from faces import SIZE, face, write_checkpoint
from PIL import Image

from semfaceedit import transfer as command
from semfaceedit.cli import parse
from semfaceedit.editing.project import FaceProject
from semfaceedit.editing.refit import EditSettings, render_project
from semfaceedit.editing.region_transfer import _whole_groups, parse_region
from semfaceedit.errors import UserError
from semfaceedit.kernels import semantic_composite
from semfaceedit.model.rays import camera_rays
from semfaceedit.model.renderer import find_intersections
from semfaceedit.transfer import transfer

SETTINGS = EditSettings(iterations=40, perceptual_weight=0, learning_rate=1e-2)
GROUPS = ("hair", "face", "garment", "background")


@pytest.fixture(scope="module")
def pair(editor) -> tuple[FaceProject, FaceProject]:
    return face(editor, 5), editor.generate(2, pose=(-0.2, 0.1)).project


def rays_with(editor, project: FaceProject, group: int) -> torch.Tensor:
    """(SIZE, SIZE) bool: rays any of whose samples carry the group's label."""
    generator = editor.generator
    hits = find_intersections(generator, project.pose[None], SIZE)
    rays = camera_rays(project.pose[None], SIZE, generator.config.camera)
    geometry = generator.geometry(hits, rays.directions[0], project.codes(generator).geometry)
    labels, _ = semantic_composite(geometry.alpha, geometry.semantics)
    found = (generator.group_table(labels) == group) & hits.valid
    return found.any(1).view(SIZE, SIZE)


@pytest.mark.parametrize("group", [0, 1, 3])
def test_appearance_is_swapped_in_one_group_only(editor, pair, group):
    target, source = pair
    result = transfer(
        editor.generator, target, source, what="appearance", region=[GROUPS[group]],
        settings=SETTINGS,
    )  # fmt: skip
    for index in range(4):
        giver = source if index == group else target
        for part in ("frequencies", "phases"):
            found = getattr(result.project.appearance, part)[index]
            assert torch.equal(found, getattr(giver.appearance, part)[index])
    assert torch.equal(result.project.geometry.phases, target.geometry.phases)
    concerned = rays_with(editor, target, group)
    changed = (result.after.image != result.before.image).any(1)[0]
    assert not (changed & ~concerned).any()  # bit for bit
    assert concerned.any() and not concerned.all() and changed.any()
    assert result.change["change_inside"] > 2 * result.change["change_outside"]
    assert torch.equal(result.after.semantics, result.before.semantics)
    assert not result.history and result.project.iterations == 0
    shown = ((result.after.image[0].movedim(0, -1) + 1) * 127.5).numpy()
    assert np.abs(result.project.preview - shown).max() < 1


def test_all_groups_together_are_the_other_faces_look(editor, pair):
    target, source = pair
    result = transfer(
        editor.generator, target, source, what="appearance", region=GROUPS, settings=SETTINGS
    )
    assert torch.equal(result.project.appearance.phases, source.appearance.phases)


def test_geometry_goes_to_the_region_seen_from_the_targets_pose(editor, pair):
    target, source = pair
    result = transfer(
        editor.generator, target, source, what="geometry", region=["hair"], settings=SETTINGS
    )
    guide = render_project(editor.generator, dataclasses.replace(source, pose=target.pose), SIZE)
    inside, classes = result.region[:, 0], torch.tensor([13, 14])
    either = torch.isin(guide.labels, classes) | torch.isin(result.before.labels, classes)
    assert (inside | ~either).all()
    wanted = torch.where(inside, guide.labels, result.before.labels)
    assert np.array_equal(result.project.labels, wanted[0].numpy())
    agreement = [
        (output.labels == wanted)[inside].float().mean() for output in (result.before, result.after)
    ]
    assert agreement[1] > agreement[0] + 0.2
    assert torch.equal(result.project.appearance.phases, target.appearance.phases)
    assert torch.equal(result.project.pose, target.pose)


@pytest.mark.parametrize("what", ["geometry", "both"])
def test_labels_outside_the_region_stay_as_fine_as_they_were(editor, pair, what):
    """The map has twice the pixels of the fit: single cells outside the region are not lost."""
    target, source = face(editor, 5, 2 * SIZE), pair[1]
    labels = target.labels.copy()
    labels[::5, ::7] = 10  # an inner mouth of single cells
    target = dataclasses.replace(target, labels=labels)
    result = transfer(
        editor.generator, target, source, what=what, region=["hair"],
        settings=dataclasses.replace(SETTINGS, iterations=1, resolution=SIZE),
    )  # fmt: skip
    inside = result.region[0, 0].numpy().repeat(2, 0).repeat(2, 1)
    assert np.array_equal(result.project.labels[~inside], labels[~inside])
    assert (labels[~inside] == 10).sum() > 4 and inside.any()
    seen = dataclasses.replace(source, pose=target.pose)
    guide = render_project(editor.generator, seen, 2 * SIZE).labels[0].numpy()
    assert np.array_equal(result.project.labels[inside], guide[inside])


def test_both_takes_the_look_and_then_the_shape(editor, pair):
    target, source = pair
    result = transfer(
        editor.generator, target, source, what="both", region=["hair"], settings=SETTINGS
    )
    assert torch.equal(result.project.appearance.phases[0], source.appearance.phases[0])
    assert torch.equal(result.project.appearance.phases[1:], target.appearance.phases[1:])
    assert not torch.equal(result.project.geometry.phases, target.geometry.phases)
    guide = render_project(editor.generator, dataclasses.replace(source, pose=target.pose), SIZE)
    hair = torch.isin(guide.labels, torch.tensor([13, 14]))[:, None]
    assert hair.sum() > 12
    errors = [
        ((output.image - guide.image).square() * hair).sum()
        for output in (result.before, result.after)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_a_face_gives_itself_nothing_new(editor, pair):
    target, _ = pair
    result = transfer(
        editor.generator, target, target, what="geometry", region=["hair"],
        settings=dataclasses.replace(SETTINGS, iterations=5),
    )  # fmt: skip
    assert result.history[0].loss < 1e-8
    assert torch.equal(result.after.labels, result.before.labels)


def test_regions_by_name(editor):
    config = editor.config.model
    assert parse_region(["hair"], config) == (13, 14)
    assert parse_region(["garment"], config) == (16, 18)
    assert parse_region(["mouth", "nose", "11"], config) == (2, 10, 11)
    for names, said in (
        (["whiskers"], "'whiskers' is unknown"),
        (["19"], "'19' is unknown"),
        ([], "region is empty"),
    ):
        with pytest.raises(UserError, match=said):
            parse_region(names, config)


@pytest.mark.parametrize("what", ["appearance", "both"])
def test_appearance_of_a_part_of_a_group_is_refused(editor, pair, what):
    with pytest.raises(UserError, match="nose: appearance belongs to whole groups"):
        transfer(editor.generator, *pair, what=what, region=["nose"], settings=SETTINGS)


def test_a_region_that_neither_face_shows_is_refused(editor, pair):
    with pytest.raises(UserError, match="neither face shows neck_l, cloth"):
        transfer(editor.generator, *pair, what="geometry", region=["garment"], settings=SETTINGS)


@pytest.fixture
def files(tmp_path, pair):
    for name, project in zip("ab", pair, strict=True):
        project.save(tmp_path / f"{name}.safetensors")
    return tmp_path


def run(files, *arguments: str, weights=None) -> int:
    weights = weights or write_checkpoint(files)
    return command.main(
        ["--checkpoint", str(weights), "--target", str(files / "a.safetensors"),
         "--source", str(files / "b.safetensors"), "--out", str(files / "out" / "c.safetensors"),
         *arguments]
    )  # fmt: skip


def test_the_command_swaps_without_vgg_weights(files, pair, capsys):
    assert run(files, "--region", "hair", "background") == 0
    assert "mean change of RGB" in capsys.readouterr().err
    project = FaceProject.load(files / "out" / "c.safetensors")
    assert torch.equal(project.appearance.phases[0], pair[1].appearance.phases[0])
    assert Image.open(files / "out" / "c.views.png").size == (3 * SIZE, 4 * SIZE)
    assert Image.open(files / "out" / "c.preview.png").height >= SIZE  # before, after, their maps


@pytest.mark.parametrize("quietly", [False, True])
def test_the_command_fits_geometry(files, capsys, quietly):
    """Without VGG weights, which it says unless it is told not to."""
    arguments = ["--region", "hair", "--what", "geometry", "--iterations", "5"]
    assert run(files, *arguments, *["--no-vgg"] * quietly) == 0
    said = capsys.readouterr().err
    assert "after 5 iterations" in said
    assert ("note: the VGG term of the loss is left out; --vgg-weights FILE" in said) != quietly
    assert FaceProject.load(files / "out" / "c.safetensors").iterations == 5


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["--region", "whiskers"], "'whiskers' is unknown"),
        (["--region", "nose"], "belongs to whole groups"),
    ],
)
def test_bad_input_is_one_line(files, capsys, arguments, said):
    assert run(files, *arguments) == 1
    text = capsys.readouterr().err
    assert said in text and text.count("\n") == 1, text


def test_a_folder_of_weights_is_one_line(files, capsys):
    assert run(files, "--region", "hair", weights=files) == 1
    text = capsys.readouterr().err
    assert f"--checkpoint {files} is a folder" in text and text.count("\n") == 1


@pytest.mark.parametrize("page", ["README.md", "docs/editing.md"])
def test_documented_transfers_name_regions_that_can_be_transferred(editor, page):
    text = (Path(__file__).parents[2] / page).read_text().replace("\\\n", " ")
    lines = re.findall(r"^semfaceedit transfer (.*)", text, re.MULTILINE)
    assert lines
    for line in lines:
        options = parse(command.TransferOptions, shlex.split(line), name="transfer")
        classes = parse_region(options.region, editor.generator.config)
        if options.what != "geometry":
            _whole_groups(classes, editor.generator.config)


def test_projects_of_another_checkpoint_are_refused(files, capsys):
    assert run(files, "--region", "hair", weights=write_checkpoint(files, seed=1)) == 1
    text = capsys.readouterr().err
    assert "a.safetensors was made with another checkpoint" in text and text.count("\n") == 1
