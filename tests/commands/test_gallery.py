"""The gallery: every figure is made, again the same, and mask edits do what their names say."""

import json
import re
import shutil

import numpy as np
import pytest
from face_maps import ID, draw_labels
from faces import write_checkpoint
from PIL import Image

from semfaceedit import gallery
from semfaceedit.editing.mask_edits import EDITS, painted
from semfaceedit.pictures.sheets import GAP, HEAD, Row, sheet

QUICK = ["--iterations", "1", "--invert-iterations", "3", "--tune", "1", "--seeds", "0-5"]


def run(weights, out, *arguments: str) -> int:
    return gallery.main(["--checkpoint", str(weights), "--out", str(out), *QUICK, *arguments])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    weights = write_checkpoint(folder)
    assert run(weights, folder / "page") == 0
    return weights, folder / "page"


def test_every_figure_is_on_the_page(made):
    _, page = made
    text = (page / "README.md").read_text()
    for name, (title, _) in gallery.FIGURES.items():
        assert f"## {title}" in text and f"({name}.png)" in text
        assert Image.open(page / f"{name}.png").width > 400
    assert "semfaceedit gallery --checkpoint tiny-kept.safetensors" in text
    facts = json.loads((page / "gallery.json").read_text())["figures"]["inversion"]["facts"]
    assert len(facts) == 4 and all("tuned" in entry for entry in facts.values())


def test_one_figure_made_again_is_the_same_and_keeps_the_others(made):
    weights, page = made
    before = {path.name: path.read_bytes() for path in page.iterdir()}
    (page / "appearance.png").unlink()
    assert run(weights, page, "--only", "appearance") == 0
    assert {path.name: path.read_bytes() for path in page.iterdir()} == before


def test_a_figure_made_with_other_settings_names_its_own_command(made, tmp_path):
    """Also beside figures of a page that kept one command for all."""
    weights, page = made
    other = shutil.copytree(page, tmp_path / "page")
    record = json.loads((other / "gallery.json").read_text())
    for entry in record["figures"].values():
        record["command"] = entry.pop("command")
    (other / "gallery.json").write_text(json.dumps(record))
    assert run(weights, other, "--only", "appearance", "--resolution", "20") == 0
    text = (other / "README.md").read_text()
    before, after = re.findall(r"^semfaceedit gallery .*", text, re.MULTILINE)
    names = [name for name in gallery.FIGURES if name != "appearance"]
    assert before.endswith("--tune 1 --only " + " ".join(names)) and "--resolution" not in before
    assert "--resolution 20 " in after and after.endswith("--tune 1 --only appearance")


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["--only", "smiles"], "--only smiles: the figures are multiview"),
        (["--seeds", "0-2"], "give at least 5: the figures show as many faces"),
        (["--iterations", "0"], "must be at least 1"),
    ],
)
def test_bad_input_is_one_line(made, tmp_path, capsys, arguments, said):
    assert run(made[0], tmp_path / "out", *arguments) == 1
    text = capsys.readouterr().err
    assert said in text and text.count("\n") == 1 and not (tmp_path / "out").exists()


def test_figures_of_two_checkpoints_are_not_mixed(made, tmp_path, capsys):
    other = write_checkpoint(tmp_path, seed=1)
    assert run(other, made[1], "--only", "appearance") == 1
    assert "figures of another checkpoint" in capsys.readouterr().err


def count(labels: np.ndarray, *names: str) -> int:
    return int(np.isin(labels, [ID[name] for name in names]).sum())


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_what_its_name_says(name):
    # the drawn face has hair below the nose; a cut one takes the other edits
    face = draw_labels(128)
    short = EDITS["shorter hair"](face)
    start = face if name == "shorter hair" else short
    edited = EDITS[name](start)
    assert edited is not None and edited.dtype == np.uint8 and edited.shape == start.shape
    grows = {
        "longer hair": ("hair",), "fringe": ("hair",), "high hairline": ("skin",),
        "open mouth": ("mouth", "u_lip", "l_lip"), "wide mouth": ("u_lip", "l_lip"),
        "big nose": ("nose",), "glasses": ("eye_g",), "hat": ("hat",), "shorter hair": (),
    }[name]  # fmt: skip
    if name == "shorter hair":
        assert count(edited, "hair") < count(start, "hair")
    else:
        assert count(edited, *grows) > count(start, *grows)
    share = (edited != start).mean()
    assert 0.002 < share < 0.25


def test_eyes_and_brows_are_seen_through_glasses():
    face = draw_labels(128)
    behind = np.isin(face, [ID[name] for name in ("l_eye", "r_eye", "l_brow", "r_brow")])
    edited = EDITS["glasses"](face)
    assert edited is not None and behind.any()
    assert np.array_equal(edited[behind], face[behind])


@pytest.mark.parametrize("name", EDITS)
def test_figures_put_on_what_a_face_does_not_wear(name):
    start = EDITS["shorter hair"](draw_labels(128))
    worn = EDITS[name](start)
    if name in ("glasses", "hat"):
        assert painted(start, name) is not None and painted(worn, name) is None
    elif worn is not None:
        assert np.array_equal(painted(start, name), worn)


@pytest.mark.parametrize("name", EDITS)
def test_a_map_without_a_face_takes_no_edit(name):
    assert EDITS[name](np.zeros((64, 64), np.uint8)) is None


def test_a_sheet_by_hand():
    red = np.zeros((2, 2, 3), np.uint8)
    red[..., 0] = 200
    image = np.asarray(sheet(["a", "b"], [Row("one", [red, None])], cell=4, margin=10))
    assert image.shape == (HEAD + 4 + GAP, 10 + 2 * (4 + GAP), 3)
    assert (image[HEAD : HEAD + 4, 10:14] == (200, 0, 0)).all()
    assert (image[HEAD : HEAD + 4, 14:] == 255).all()
