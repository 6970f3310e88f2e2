"""Sliders: what is measured, what the directions do, their file, and their use."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from faces import face, open_editor, write_checkpoint
from PIL import Image
from safetensors.torch import load_file, save_file
from slider_cases import slider, tiny_gauge, tiny_sliders

from semfaceedit.api import load
from semfaceedit.edit import main as edit_main
from semfaceedit.editing import directions as finding
from semfaceedit.editing.attributes import (
    COLOURS,
    SHAPES,
    cielab,
    coloured_classes,
    colours,
    find_places,
    outline_moved,
    shapes,
)
from semfaceedit.editing.refit import EditSettings, dilate
from semfaceedit.editing.sliders import (
    KIND,
    Directions,
    LiveFace,
    adjust,
    check_shown,
    find_sliders,
    load_directions,
    move,
    parse_changes,
    table,
)
from semfaceedit.editing.steering import Steering, difference
from semfaceedit.errors import UserError
from semfaceedit.find_directions import main
from semfaceedit.model.codes import Codes, Film
from semfaceedit.model.labels import CLASS_NAMES, GROUP_OF_CLASS, one_hot
from semfaceedit.model.mean_face import mean_codes

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True, scope="module")
def _few_codes():
    """Enough for the principal components of a tiny generator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "CODES", 200)
        yield


@pytest.fixture(scope="module")
def gauge(editor):
    return tiny_gauge(editor.generator)


@pytest.fixture(scope="module")
def directions(editor) -> Directions:
    return tiny_sliders(editor.generator)


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


def test_an_outline_moves_where_its_classes_come_and_go():
    plain, more = (
        drawn_map(**(PLAIN | boxes)).argmax(1)[0]
        for boxes in ({}, {"nose": (12, 14, 18, 20), "hair": (0, 0, 2, 2)})
    )
    nose = outline_moved("nose width", plain, more)
    assert nose[14:20, 12:14].all() and int(nose.sum()) == 12
    assert int(outline_moved("hair volume", plain, more).sum()) == 4
    assert int(outline_moved("face width", plain, more).sum()) == 4  # nose and skin: both face
    lips = drawn_map(**(PLAIN | {"mouth": (12, 24, 20, 26)})).argmax(1)[0]
    assert int(outline_moved("smile", plain, lips).sum()) == 16  # half of it was the lower lip
    assert not outline_moved("eye size", plain, lips).any()


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


def test_differences_of_hues_go_the_short_way():
    after, before = torch.zeros(24), torch.zeros(24)
    hue = len(SHAPES) + COLOURS.index("hue")
    after[0], before[0] = 3.0, -3.0
    after[hue], before[hue] = 3.0, -3.0
    change = difference(after, before)
    assert change[0] == 6 and change[hue] == pytest.approx(6 - 2 * torch.pi, abs=1e-5)


class Plain(Steering):
    """A face whose attributes depend on its codes as is said here: the first is the sum of two
    codes, the second the square of the first of them."""

    def __init__(self, editor, gauge):
        super().__init__(editor.generator, gauge)
        self.seen = 0

    def _render(self, codes, *, shade):
        self.seen += 1
        return codes

    def _shapes(self, codes):
        x = codes.geometry.phases.flatten()
        rest = torch.zeros(len(SHAPES) - 2)
        return torch.cat([torch.stack([x[0] + x[1], (1 + x[0]) ** 2]), rest])

    def _colours(self, codes):
        return torch.zeros(len(COLOURS) * self.generator.config.groups)


def test_one_attribute_moves_and_the_other_stays(editor, gauge):
    """Gauss-Newton reaches x0 + x1 = 0.5 with (1 + x0)^2 still 1, and no further than faces go."""
    length = gauge.geometry.shape[1]
    plain = dataclasses.replace(
        gauge,
        geometry=torch.eye(length)[length // 2 : length // 2 + 4],  # the first phases
        scale=torch.ones_like(gauge.scale),
        low=torch.full_like(gauge.low, -2.0),
        high=torch.full_like(gauge.high, 2.0),
        shown=(True, True, *[False] * (len(gauge.shown) - 2)),
    )
    codes = mean_codes(editor.generator)
    zero = Codes(
        Film(*(torch.zeros_like(t) for t in (codes.geometry.frequencies, codes.geometry.phases))),
        codes.appearance,
    )
    steering = Plain(editor, plain)
    moved = steering.move(zero, {0: 0.5})
    x = moved.geometry.phases.flatten()
    assert float(x[0] + x[1]) == pytest.approx(0.5, abs=0.02)
    assert float(x[0]) == pytest.approx(0.0, abs=0.02)
    far = steering.move(zero, {0: 4.0}).geometry.phases.flatten()
    assert float(far[0] + far[1]) == pytest.approx(2.0, abs=0.05)
    still = steering.move(zero, {0: 0.0})
    assert torch.equal(still.geometry.phases, zero.geometry.phases)


@pytest.mark.parametrize(
    ("figures", "grade"),
    [
        ({}, "good"),
        ({"r2": 0.69}, "no"),
        ({"leakage": 0.06}, "weak"),
        ({"leakage": 0.16}, "no"),
        ({"r2": 0.1, "follows": 0.8}, "no"),
    ],
)
def test_only_what_passes_is_offered(editor, gauge, figures, grade):
    judged = slider("neck", -1, **figures)
    assert judged.grade == grade
    made = Directions.of(editor.generator, [judged], gauge)
    assert bool(made.offered) == (grade != "no")
    assert ("neck" in table(made)) == (grade != "no") and "neck" in table(made, everything=True)


def test_a_slider_moves_its_own_attribute(editor, directions):
    project = face(editor, 3)
    steering = Steering(editor.generator, directions.gauge)
    seen = [
        steering.measure(move(editor.generator, project, {"face width": steps}, directions)
                         .codes(editor.generator))
        for steps in (-0.5, 0.0, 0.5)
    ]  # fmt: skip
    width = SHAPES.index("face width")
    assert seen[0][width] < seen[1][width] < seen[2][width]
    hued = move(editor.generator, project, {"skin hue": 1.0}, directions)
    assert torch.equal(hued.geometry.phases, project.geometry.phases)
    other = [0, 2]
    torch.testing.assert_close(hued.appearance.phases[other], project.appearance.phases[other])
    assert not torch.equal(hued.appearance.phases[1], project.appearance.phases[1])


def test_adjust_renders_and_keeps_the_map_where_nothing_moved(editor, directions):
    project = face(editor, 3)
    edited = adjust(editor.generator, project, {"face width": -2.0}, directions)
    still = (edited.before.labels == edited.after.labels)[0].numpy()
    assert not still.all()
    assert (edited.project.labels == project.labels)[still].all()
    assert (edited.project.labels == edited.after.labels[0].numpy())[~still].all()
    moved = outline_moved("face width", edited.before.labels[0], edited.after.labels[0]).numpy()
    assert moved.any()
    assert (edited.region[0, 0].numpy() == dilate(moved, EditSettings.dilation)).all()
    nothing = adjust(editor.generator, project, {"face width": 0.0}, directions)
    assert not nothing.region.any()
    torch.testing.assert_close(nothing.before.image, nothing.after.image)


def test_a_colour_slider_is_meant_for_its_group_alone(editor, directions):
    edited = adjust(editor.generator, face(editor, 3), {"skin hue": 1.0}, directions)
    groups = np.array(GROUP_OF_CLASS)[edited.before.labels[0].numpy()]
    assert (edited.region[0, 0].numpy() == (groups == 1)).all()


def test_a_colour_slider_leaves_all_other_codes_to_the_last_bit(editor, directions):
    """So that a photograph is recoloured, and not fitted with new shapes."""
    random = torch.Generator().manual_seed(0)
    start = face(editor, 3)

    def film(codes):  # offsets of any size, to which rounding adds
        both = (codes.frequencies, codes.phases)
        return Film(*(v + torch.randn(v.shape, generator=random) for v in both))

    start = dataclasses.replace(
        start, geometry=film(start.geometry), appearance=film(start.appearance)
    )
    moved = move(editor.generator, start, {"skin hue": 1.0}, directions)
    assert torch.equal(moved.geometry.frequencies, start.geometry.frequencies)
    assert torch.equal(moved.geometry.phases, start.geometry.phases)
    for name in ("frequencies", "phases"):
        ours, theirs = getattr(moved.appearance, name), getattr(start.appearance, name)
        differs = (ours != theirs).flatten(1).any(1).tolist()
        assert differs == [False, True, False, False], name


def test_a_live_face_goes_the_same_way_without_a_fit(editor, directions, monkeypatch):
    project = face(editor, 3)
    live = LiveFace(editor.generator, project, directions)
    steering, width = Steering(editor.generator, directions.gauge), SHAPES.index("face width")

    def measured(made):
        return float(steering.measure(made.codes(editor.generator))[width])

    wider, narrower = (live.moved({"face width": steps}) for steps in (0.3, -0.3))
    assert measured(narrower) < measured(project) < measured(wider)
    monkeypatch.setattr(Steering, "_render", None)  # its Jacobian is known by now
    again = live.moved({"face width": 0.3})
    assert torch.equal(again.geometry.phases, wider.geometry.phases)
    assert torch.equal(live.moved({}).geometry.phases, project.geometry.phases)
    with pytest.raises(UserError, match="'beard' is unknown"):
        live.moved({"beard": 1.0})


def test_what_a_face_does_not_show_cannot_be_moved(editor, directions, monkeypatch):
    unseen = torch.full((24,), float("nan"))
    monkeypatch.setattr(Steering, "measure", lambda self, codes: unseen)
    with pytest.raises(UserError, match="'skin hue': this face does not show it"):
        move(editor.generator, face(editor, 3), {"skin hue": 1.0}, directions)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"beard": 1.0}, "'beard' is unknown: these are offered: face width, skin hue"),
        ({"skn hue": 1.0}, "'skn hue' is unknown (did you mean 'skin hue'?): these are"),
        ({"face width": 9.0}, "use -5 to +5"),
    ],
)
def test_bad_changes(editor, directions, changes, said):
    with pytest.raises(UserError) as error:
        move(editor.generator, face(editor, 3), changes, directions)
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["smile", "smile=", "=1", "smile=nan", "smile=a"])
def test_changes_are_names_and_numbers(text):
    with pytest.raises(UserError, match="NAME=STEPS"):
        parse_changes((text,))


def test_a_slider_is_given_once():
    assert parse_changes(("Mouth  opening=+1.5",)) == {"mouth opening": 1.5}
    with pytest.raises(UserError, match="gives 'mouth opening' twice"):
        parse_changes(("Mouth  opening=+1.5", "mouth opening=-1"))


def test_the_file_beside_the_weights_is_found(tmp_path, directions):
    weights = write_checkpoint(tmp_path)
    editor = load(weights)
    assert find_sliders(editor.generator) is None
    with pytest.raises(UserError, match="find-directions"):
        editor.adjust(face(editor, 3), {"face width": 1.0})
    directions.save(KIND.beside(weights), editor.generator)
    again = load(weights)
    assert again.directions is not None and again.directions.sliders == directions.sliders
    assert again.adjust(face(editor, 3), {"face width": 1.0}).project.preview.size


DAMAGES = {"nan", "changed", "figures", "part", "earlier", "shown", "lacks", "cut"}


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
    if how == "earlier":
        header["version"] = 1
    if how == "shown":
        header["shown"] = header["shown"][1:]
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


@pytest.mark.parametrize("how", sorted(DAMAGES))
def test_damaged_files_are_one_line(editor, directions, tmp_path, how):
    path = tmp_path / "d.safetensors"
    directions.save(path, editor.generator)
    damaged(path, editor, how)
    with pytest.raises(UserError) as error:
        load_directions(path, editor.generator)
    assert "find-directions" in str(error.value) and "\n" not in str(error.value)


def test_directions_of_other_weights_are_refused(editor, directions, tmp_path):
    path = tmp_path / "d.safetensors"
    directions.save(path, editor.generator)
    other = open_editor(tmp_path, seed=1)
    with pytest.raises(UserError, match="of other weights"):
        load_directions(path, other.generator)
    foreign = dataclasses.replace(directions, checkpoint="0" * 16)
    with pytest.raises(UserError, match="different weights"):
        move(editor.generator, face(editor, 3), {"face width": 1.0}, foreign)


def test_commands(editor, directions, tmp_path, capsys):
    weights = write_checkpoint(tmp_path)
    assert main(["--checkpoint", str(weights), "--samples", "64", "--judged", "1"]) == 0
    assert "slider" in capsys.readouterr().out
    found = load_directions(KIND.beside(weights), editor.generator).sliders
    assert found and {slider.part for slider in found} >= {-1, 1}
    assert all(slider.faces == 1 and 0 <= slider.follows <= 1 for slider in found)
    assert main(["--checkpoint", str(weights), "--samples", "5"]) == 1
    directions.save(KIND.beside(weights), editor.generator)
    checkpoint = ["--checkpoint", str(weights)]
    capsys.readouterr()
    assert edit_main([*checkpoint, "--list-sliders"]) == 0
    assert "skin hue" in capsys.readouterr().out
    project, out = tmp_path / "face.safetensors", tmp_path / "out.safetensors"
    face(editor, 3).save(project)
    asked = [*checkpoint, "--project", str(project), "--out", str(out)]
    assert edit_main([*asked, "--set", "face width=+1.5", "skin hue=-1"]) == 0
    shown = np.asarray(Image.open(out.with_suffix(".preview.png")).convert("RGB")).astype(int)
    before, after = np.split(shown, 4, 1)[:2]
    assert before.shape == after.shape and np.abs(after - before).mean() > 1
    assert out.is_file() and out.with_suffix(".views.png").is_file()
    capsys.readouterr()
    assert edit_main([*asked, "--set", "beard=1"]) == 1
    assert edit_main([*checkpoint, "--set", "face width=1"]) == 1
    said = capsys.readouterr().err
    assert "'beard' is unknown" in said and "--project" in said and said.count("\n") == 2


def test_a_label_map_tells_what_cannot_be_coloured(editor, directions):
    group_of = editor.generator.config.group_of_class
    nothing, skin = np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8)
    skin[8:24, 8:24] = 1
    with pytest.raises(UserError, match="'skin hue': the label map shows none of it"):
        check_shown(directions, {"face width": 1.0, "skin hue": 1.0}, nothing, group_of)
    check_shown(directions, {"face width": 1.0}, nothing, group_of)
    check_shown(directions, {"face width": 1.0, "skin hue": 1.0}, skin, group_of)
    assert coloured_classes(group_of[1], group_of) == (1,)
