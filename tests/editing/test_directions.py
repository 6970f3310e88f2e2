"""Sliders: what is measured, what the directions do, their file, and their use."""

import dataclasses
import json

import pytest
import torch
from faces import face, open_editor, write_checkpoint
from safetensors.torch import load_file, save_file

from semfaceedit.api import load
from semfaceedit.edit import main as edit_main
from semfaceedit.editing.attributes import SHAPES, cielab, colours, find_places, shapes
from semfaceedit.editing.directions import FindSettings, _regress, find_directions
from semfaceedit.editing.sliders import (
    KIND,
    Directions,
    Slider,
    adjust,
    find_sliders,
    load_directions,
    move,
    parse_changes,
    table,
)
from semfaceedit.errors import UserError
from semfaceedit.find_directions import main
from semfaceedit.model.labels import CLASS_NAMES, GROUP_OF_CLASS, one_hot


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    return open_editor(tmp_path_factory.mktemp("sliders"))


def slider(name: str, part: int, **figures: float) -> Slider:
    plain = {"r2": 0.9, "leakage": 0.01, "moves": 1.0, "follows": 1.0, "length": 1.0}
    return Slider(name=name, part=part, leaks_into="hat", **(plain | figures))


def directions(editor) -> Directions:
    """One slider of the geometry and one of the hair's look."""
    config = editor.generator.config
    random = torch.Generator().manual_seed(2)
    ways = [
        0.1 * torch.randn(2 * (depth + 1) * config.width, generator=random)
        for depth in (config.geometry_depth, config.appearance_depth)
    ]
    sliders = [slider("nose width", -1), slider("hair warmth", 0)]
    return Directions.of(editor.generator, sliders, ways)


def drawn_map(**boxes: tuple[int, int, int, int]) -> torch.Tensor:
    """(1, 19, 32, 32): skin but for boxes (left, top, right, bottom) of classes."""
    labels = torch.full((1, 32, 32), CLASS_NAMES.index("skin"))
    for name, (left, top, right, bottom) in boxes.items():
        labels[:, top:bottom, left:right] = CLASS_NAMES.index(name)
    return one_hot(labels)


PLAIN = dict(
    l_brow=(8, 8, 12, 9), r_brow=(20, 8, 24, 9), l_eye=(8, 12, 12, 13), r_eye=(20, 12, 24, 13),
    nose=(14, 14, 18, 20), u_lip=(12, 23, 20, 24), l_lip=(12, 25, 20, 26),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "boxes"),
    [
        ("hair length", {"hair": (0, 24, 4, 32)}),
        ("hair volume", {"hair": (0, 0, 4, 8)}),
        ("fringe", {"hair": (14, 2, 18, 7)}),
        ("mouth opening", {"mouth": (12, 24, 20, 25)}),
        (
            "smile",
            {"u_lip": (12, 23, 20, 24), "l_lip": (10, 20, 12, 22), "mouth": (20, 20, 22, 22)},
        ),
        ("nose width", {"nose": (12, 14, 20, 20)}),
        ("brow height", {"l_brow": (8, 5, 12, 6), "r_brow": (20, 5, 24, 6)}),
        ("eye size", {"l_eye": (8, 11, 12, 14)}),
        ("neck", {"neck": (8, 29, 24, 32)}),
        ("glasses", {"eye_g": (6, 11, 10, 15)}),
        ("hat", {"hat": (0, 0, 32, 3)}),
    ],
)
def test_a_map_with_more_of_it_measures_more(name, boxes):
    plain = drawn_map(**PLAIN)
    places = find_places(plain[0])
    more = drawn_map(**(PLAIN | boxes))
    column = SHAPES.index(name)
    assert shapes(more, places)[0, column] > shapes(plain, places)[0, column] + 1e-3


def test_a_narrower_face_measures_less():
    plain = drawn_map(**PLAIN)
    narrow = drawn_map(background=(0, 0, 6, 32), **PLAIN)
    places, column = find_places(plain[0]), SHAPES.index("face width")
    assert shapes(narrow, places)[0, column] < shapes(plain, places)[0, column] - 0.1


def test_cielab_of_known_colours():
    """Values of CIE 15 for white, black and the primary red of sRGB."""
    rgb = torch.tensor([[1.0, 1, 1], [0, 0, 0], [1, 0, 0]])
    wanted = torch.tensor([[100.0, 0, 0], [0, 0, 0], [53.24, 80.09, 67.20]])
    torch.testing.assert_close(cielab(rgb), wanted, atol=0.1, rtol=0)


def test_colours_are_those_of_the_group_alone():
    maps = drawn_map(hair=(0, 0, 32, 8), background=(0, 8, 32, 16))
    image = torch.full((1, 3, 32, 32), -1.0)
    image[:, :, :8] = 1.0
    found = colours(image, maps, GROUP_OF_CLASS)[0]
    assert found[0] == pytest.approx(100, abs=0.1) and abs(float(found[3])) < 0.1  # hair, skin
    assert bool(found[6:9].isnan().all())  # there is no garment


def test_regression_finds_what_depends_linearly():
    random = torch.Generator().manual_seed(0)
    x = torch.randn(400, 8, generator=random).double()
    weights = torch.randn(2, 8, generator=random).double()
    wanted = x @ weights.T
    wanted[:, 1] = torch.randn(400, generator=random)
    found, r2 = _regress(x[:300], wanted[:300], x[300:], wanted[300:])
    torch.testing.assert_close(found[0], weights[0], atol=0.02, rtol=0)
    assert r2[0] > 0.99 and r2[1] < 0.1


def test_directions_of_a_tiny_generator(editor):
    settings = FindSettings(samples=60, moved=4, judged=4, fresh=20)
    found = find_directions(editor.generator, settings)
    again = find_directions(editor.generator, settings)
    assert found.sliders == again.sliders and found.sliders
    assert {s.name for s in found.offered} == {s.name for s in found.sliders if s.grade != "no"}


@pytest.mark.parametrize(
    ("figures", "grade"),
    [
        ({}, "good"),
        ({"r2": 0.69}, "weak"),
        ({"leakage": 0.06}, "weak"),
        ({"leakage": 0.16}, "no"),
        ({"r2": 0.1, "follows": 0.8}, "no"),
    ],
)
def test_only_what_passes_is_offered(editor, figures, grade):
    judged = slider("neck", -1, **figures)
    assert judged.grade == grade
    length = 2 * (editor.generator.config.geometry_depth + 1) * editor.generator.config.width
    made = Directions.of(editor.generator, [judged], [torch.ones(length)])
    assert bool(made.offered) == (grade != "no")
    assert ("neck" in table(made)) == (grade != "no") and "neck" in table(made, everything=True)


def test_a_slider_moves_its_own_codes_alone(editor):
    project, made = face(editor, 3), directions(editor)
    wider = move(project, {"nose width": 2.0}, made)
    way = made.ways["nose width"]
    torch.testing.assert_close(wider.geometry.phases, project.geometry.phases + 2 * way.phases)
    assert torch.equal(wider.appearance.phases, project.appearance.phases)
    warmer = move(project, {"hair warmth": -1.0}, made)
    assert torch.equal(warmer.geometry.phases, project.geometry.phases)
    assert torch.equal(warmer.appearance.phases[1:], project.appearance.phases[1:])
    assert not torch.equal(warmer.appearance.phases[0], project.appearance.phases[0])
    back = move(wider, {"nose width": -2.0}, made)
    torch.testing.assert_close(back.geometry.phases, project.geometry.phases)


def test_adjust_renders_and_keeps_the_map_where_nothing_moved(editor):
    project = face(editor, 3)
    edited = adjust(editor.generator, project, {"nose width": 3.0}, directions(editor))
    still = (edited.before.labels == edited.after.labels)[0].numpy()
    assert not still.all()
    assert (edited.project.labels == project.labels)[still].all()
    assert (edited.project.labels == edited.after.labels[0].numpy())[~still].all()
    nothing = adjust(editor.generator, project, {"nose width": 0.0}, directions(editor))
    assert torch.equal(nothing.before.image, nothing.after.image)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"beard": 1.0}, "'beard' is unknown: these are offered: nose width, hair warmth"),
        ({"nose width": 9.0}, "use -5 to +5"),
    ],
)
def test_bad_changes(editor, changes, said):
    with pytest.raises(UserError) as error:
        move(face(editor, 3), changes, directions(editor))
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["smile", "smile=", "=1", "smile=nan", "smile=a"])
def test_changes_are_names_and_numbers(text):
    with pytest.raises(UserError, match="NAME=STEPS"):
        parse_changes((text,))


def test_changes_add_up():
    assert parse_changes(("Mouth  opening=+1.5", "mouth opening=-1")) == {"mouth opening": 0.5}


def test_the_file_beside_the_weights_is_found(tmp_path):
    weights = write_checkpoint(tmp_path)
    editor = load(weights)
    assert find_sliders(editor.generator) is None
    with pytest.raises(UserError, match="find-directions"):
        editor.adjust(face(editor, 3), {"nose width": 1.0})
    made = directions(editor)
    made.save(KIND.beside(weights), editor.generator)
    again = load(weights)
    assert again.directions is not None and again.directions.sliders == made.sliders
    assert again.adjust(face(editor, 3), {"nose width": 1.0}).project.preview.size


def damaged(path, editor, how):
    tensors = load_file(path)
    header = json.loads(json.loads(_metadata(path))["semfaceedit"])
    name = sorted(tensors)[0]
    if how == "nan":
        tensors[name][0] = float("nan")
    if how == "changed":
        tensors[name] += 1
    if how == "figures":
        header["sliders"][0]["r2"] = float("nan")
    if how == "part":
        header["sliders"][0]["part"] = 99
    if how == "lacks":
        del tensors[name]
        from semfaceedit.tensor_files import hash_tensors

        header["sha256"] = hash_tensors(tensors)
    save_file(tensors, path, {"semfaceedit": json.dumps(header)})
    if how == "cut":
        path.write_bytes(path.read_bytes()[:200])


def _metadata(path) -> str:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.dumps(json.loads(data[8 : 8 + length])["__metadata__"])


@pytest.mark.parametrize("how", ["nan", "changed", "figures", "part", "lacks", "cut"])
def test_damaged_files_are_one_line(editor, tmp_path, how):
    path = tmp_path / "d.safetensors"
    directions(editor).save(path, editor.generator)
    damaged(path, editor, how)
    with pytest.raises(UserError) as error:
        load_directions(path, editor.generator)
    assert "find-directions" in str(error.value) and "\n" not in str(error.value)


def test_directions_of_other_weights_are_refused(editor, tmp_path):
    path = tmp_path / "d.safetensors"
    directions(editor).save(path, editor.generator)
    other = open_editor(tmp_path, seed=1)
    with pytest.raises(UserError, match="of other weights"):
        load_directions(path, other.generator)
    foreign = dataclasses.replace(directions(editor), checkpoint="0" * 16)
    with pytest.raises(UserError, match="different weights"):
        move(face(editor, 3), {"nose width": 1.0}, foreign)


def test_commands(editor, tmp_path, capsys):
    weights = write_checkpoint(tmp_path)
    assert main(["--checkpoint", str(weights), "--samples", "60", "--moved", "2"]) == 0
    assert "slider" in capsys.readouterr().out
    assert main(["--checkpoint", str(weights), "--samples", "5"]) == 1
    directions(editor).save(KIND.beside(weights), editor.generator)
    checkpoint = ["--checkpoint", str(weights)]
    capsys.readouterr()
    assert edit_main([*checkpoint, "--list-sliders"]) == 0
    assert "hair warmth" in capsys.readouterr().out
    project, out = tmp_path / "face.safetensors", tmp_path / "out.safetensors"
    face(editor, 3).save(project)
    asked = [*checkpoint, "--project", str(project), "--out", str(out)]
    assert edit_main([*asked, "--set", "nose width=+1.5", "hair warmth=-1"]) == 0
    assert out.is_file() and out.with_suffix(".views.png").is_file()
    capsys.readouterr()
    assert edit_main([*asked, "--set", "beard=1"]) == 1
    assert edit_main([*checkpoint, "--set", "nose width=1"]) == 1
    said = capsys.readouterr().err
    assert "'beard' is unknown" in said and "--project" in said and said.count("\n") == 2
