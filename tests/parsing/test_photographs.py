"""Faces are found in photographs, and their maps, crops and poses are read off them.

Procedural heads stand for photographs: their maps and poses are known exactly.
"""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from faces import write_checkpoint
from PIL import Image
from slider_cases import tiny_sliders

from semfaceedit import edit, invert, prepare
from semfaceedit import parse as command
from semfaceedit.api import load
from semfaceedit.data.align import fit_window
from semfaceedit.data.dataset import open_packed
from semfaceedit.data.decoding import read_label_map
from semfaceedit.data.pose import landmarks_from_labels
from semfaceedit.editing.project import FaceProject
from semfaceedit.editing.sliders import KIND
from semfaceedit.editing.target import Target
from semfaceedit.errors import UserError
from semfaceedit.metrics.segmentation import confusion, score_of
from semfaceedit.model.labels import FLIP_IDS, GROUP_OF_CLASS, NUM_CLASSES
from semfaceedit.parsing.head_pose import pose_from_mesh
from semfaceedit.parsing.mesh_parts import ID, MeshParts, coverage
from semfaceedit.parsing.network import Parser, ParserSettings, save_parser
from semfaceedit.parsing.photographs import read_face, with_mesh_parts
from semfaceedit.procedural.render import render_faces

SEEDS, SIZE = (900_000, 900_001, 900_002, 900_003, 900_005, 900_006), 160


@pytest.fixture(scope="module")
def heads():
    """Pictures (N, R, R, 3) uint8, maps (N, R, R) and poses (N, 2)."""
    made = render_faces(SEEDS, SIZE)
    images = ((made.images.movedim(1, -1) + 1) * 127.5).round().byte().numpy()
    return images, made.labels.numpy(), made.poses.numpy()


@pytest.fixture(scope="module")
def read(heads):
    return [read_face(image, "head") for image in heads[0]]


def placed(image: np.ndarray, height: int, width: int, left: int, top: int) -> np.ndarray:
    """A picture on a larger grey one."""
    made = np.full((height, width, 3), 120, np.uint8)
    made[top : top + len(image), left : left + len(image)] = image
    return made


def test_maps_agree_with_the_true_ones(heads, read):
    joint = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    for face, labels in zip(read, heads[1], strict=True):
        joint += confusion(torch.from_numpy(face.labels), torch.from_numpy(labels))
    score = score_of(joint, GROUP_OF_CLASS)
    assert score.groups > 0.8 and min(score.per_group) > 0.6


def test_crops_and_poses_agree_with_the_true_ones(heads, read):
    for face, labels, pose in zip(read, heads[1], heads[2], strict=True):
        own = fit_window(landmarks_from_labels(labels))
        middle = np.subtract((own.left, own.top), (face.window.left, face.window.top))
        assert abs(face.window.side / own.side - 1) < 0.1
        assert np.abs(middle + (own.side - face.window.side) / 2).max() < 0.05 * own.side
        assert np.abs(np.degrees(face.pose) - np.degrees(pose)).max() < 12
    wrong = np.degrees([face.pose for face in read]) - np.degrees(heads[2])
    assert np.sqrt((wrong**2).mean(0)).max() < 6


def test_a_mirrored_face_has_the_mirrored_map_and_pose(heads, read):
    face = read_face(heads[0][0][:, ::-1].copy(), "mirrored")
    mirrored = FLIP_IDS.astype(np.uint8)[face.labels[:, ::-1]]
    assert (mirrored == read[0].labels).mean() > 0.95
    assert face.pose[0] == pytest.approx(-read[0].pose[0], abs=0.05)
    assert face.pose[1] == pytest.approx(read[0].pose[1], abs=0.05)


def test_a_face_anywhere_gives_a_map_of_the_photographs_aspect(heads, read):
    wide = np.asarray(Image.fromarray(heads[0][0]).resize((480, 480), Image.Resampling.BICUBIC))
    face = read_face(placed(wide, 700, 1300, 600, 150), "wide")
    assert face.labels.shape == (551, 1024)
    scale = 1024 / 1300
    part = face.labels[round(150 * scale) :, round(600 * scale) :][: round(480 * scale)]
    small = Image.fromarray(part[:, : round(480 * scale)])
    found = np.asarray(small.resize((SIZE, SIZE), Image.Resampling.NEAREST))
    known = read[0].labels
    assert (found == known)[known > 0].mean() > 0.85
    middle = face.window.left + face.window.side / 2
    assert middle == pytest.approx(600 + 3 * (read[0].window.left + read[0].window.side / 2), abs=9)
    assert np.allclose(face.landmarks.points, [600, 150] + 3 * read[0].landmarks.points, atol=9)


def test_of_several_faces_the_largest_is_taken_unless_another_is_asked_for(heads):
    small = np.asarray(Image.fromarray(heads[0][1]).resize((100, 100), Image.Resampling.BICUBIC))
    image = placed(heads[0][0], 200, 340, 10, 20)
    image[60:160, 220:320] = small
    first, second = (read_face(image, "two", number=number) for number in (1, 2))
    assert first.seen == second.seen == 2
    assert first.window.left < 60 < 200 < second.window.left
    assert "2 faces were found; the largest is taken" in first.remarks[0]
    with pytest.raises(UserError, match="face 3 was asked for, but 2 faces were found"):
        read_face(image, "two", number=3)


@pytest.mark.parametrize("shape", [(80, 90, 3), (7, 7, 3), (9, 400, 3)])
def test_pictures_without_a_face(shape):
    noise = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    with pytest.raises(UserError, match="no face"):
        read_face(noise, "noise")


def test_large_photographs_take_no_longer_than_what_the_networks_see(heads):
    """A search over windows once took 23 s for 12 million pixels, and minutes for a strip."""
    head = Image.fromarray(heads[0][0]).resize((1500, 1500), Image.Resampling.BICUBIC)
    large = placed(np.asarray(head), 3000, 4000, 1200, 700)
    strip = np.full((120, 9000, 3), 120, np.uint8)
    begun = time.process_time()
    face = read_face(large, "large")
    with pytest.raises(UserError, match="no face"):
        read_face(strip, "strip")
    assert time.process_time() - begun < 8
    assert face.window.side > 1000


def test_small_faces_are_said_to_be_coarse(heads):
    small = Image.fromarray(heads[0][0]).resize((40, 40), Image.Resampling.BOX)
    assert "coarse" in read_face(np.asarray(small), "small").remarks[-1]


def test_a_turned_mesh_has_its_pose():
    """The mean mesh turned by known angles, with another roll, place and size each time."""
    from semfaceedit.parsing.head_pose import LEVEL, PITCH_FACTOR, _mean_mesh

    for yaw, pitch, roll in [(0.0, 0.0, 0.0), (0.4, 0.1, 0.3), (-0.6, -0.2, -0.5)]:
        c, s, d, t, e, r = (f(a) for a in (yaw, pitch, roll) for f in (np.cos, np.sin))
        about_y = np.array([(c, 0, s), (0, 1, 0), (-s, 0, c)])
        about_x = np.array([(1, 0, 0), (0, d, t), (0, -t, d)])
        about_z = np.array([(e, -r, 0), (r, e, 0), (0, 0, 1)])
        turned = _mean_mesh() @ (about_z @ about_x @ about_y).T
        found = pose_from_mesh(50 * turned * (1, -1, -1) + (30, 80, 0))
        if roll == 0:
            assert found[0] == pytest.approx(yaw, abs=1e-6)
            assert found[1] == pytest.approx(PITCH_FACTOR * pitch - LEVEL, abs=1e-6)


def test_coverage_of_a_rectangle():
    corners = np.array([(1.5, 1), (4, 1), (4, 3), (1.5, 3)])
    wanted = np.zeros((5, 6))
    wanted[1:3, 2:4], wanted[1:3, 1] = 1, 0.5
    assert np.abs(coverage(corners, (5, 6)) - wanted).max() <= 0.26
    assert coverage(corners + 100, (5, 6)).max() == 0


def test_mesh_parts_show_on_skin_alone(heads):
    """Eyes are drawn over glasses; hair over a brow stays hair."""
    from semfaceedit.parsing.faces import find_faces

    mesh = find_faces(Image.fromarray(heads[0][0]))[0]
    parts = MeshParts(mesh.points)
    shares = np.zeros((NUM_CLASSES, SIZE, SIZE), np.float32)
    for name, kept in (("skin", {"skin", "l_eye", "nose", "l_brow", "u_lip"}),
                       ("eye_g", {"eye_g", "l_eye", "l_brow"}), ("hair", {"hair"})):  # fmt: skip
        shares[:] = 0
        shares[ID[name]] = 1
        found = set(np.unique(with_mesh_parts(shares, parts)).tolist())
        assert {ID[kind] for kind in kept} <= found
        assert name != "hair" or found == {ID["hair"]}
        assert name != "eye_g" or ID["nose"] not in found


def test_the_commands_read_maps_by_themselves(heads, tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    for name, image in zip("ab", heads[0], strict=False):
        Image.fromarray(image).save(photos / f"{name}.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(photos / "c.png")
    (photos / "notes.txt").write_text("no picture")
    assert command.main(["--images", str(photos), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "c.png: no face was found" in said and f"wrote {out / 'a.png'}" in said
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png"}
    truth = heads[1][0]
    assert (read_label_map(out / "a.png") == truth).mean() > 0.85
    Image.fromarray(heads[0][0]).save(photos / "a.jpg")
    assert command.main(["--images", str(photos), "--out", str(out)]) == 1
    assert "several photographs are named a" in capsys.readouterr().err


def test_prepare_reads_maps(heads, read, tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "packed"
    photos.mkdir()
    for name, image in zip("ab", heads[0], strict=False):
        Image.fromarray(image).save(photos / f"{name}.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(photos / "c.png")
    arguments = ["--data", str(photos), "--out", str(out), "--masks", "auto", "--resolution", "32"]
    assert prepare.main(arguments) == 0
    packed = open_packed(out)
    assert packed.names == ["a", "b"] and list(packed.info["skipped"]) == ["c"]
    assert packed.info["pose_source"] == ["mesh", "mesh"]
    assert np.allclose(packed.poses, [face.pose for face in read[:2]], atol=1e-6)
    masks = tmp_path / "packed-masks"
    (masks / "a.png").write_bytes((masks / "b.png").read_bytes())  # mended by hand
    assert prepare.main(arguments) == 0
    mended = open_packed(out)
    assert np.array_equal(read_label_map(masks / "a.png"), read_label_map(masks / "b.png"))
    assert not np.array_equal(mended.labels[0], packed.labels[0])
    assert json.loads((masks / "faces.json").read_text()).keys() == {"a", "b"}


def test_what_prepare_cannot_use_is_said_before_maps_are_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("semfaceedit.prepare.read_folder", None)
    for name in ("photos", "mine", "other"):
        Path(name).mkdir()
    Path("mine/notes.txt").write_text("text")
    Path("other/preview.png").write_bytes(b"a picture of somebody's")
    Path("empty.txt").write_text("")
    for out, landmarks, said in (
        ("mine", [], "mine: exists and is not packed data"),
        ("other", [], "other: exists and is not packed data"),
        ("new", ["--landmarks", "none.txt"], "none.txt: cannot be read"),
        ("new", ["--landmarks", "photos"], "photos: cannot be read (Is a directory)"),
        ("new", ["--landmarks", "empty.txt"], "empty.txt: holds no landmarks"),
    ):
        words = ["--data", "photos", "--masks", "auto", "--out", out, *landmarks]
        assert prepare.main(words) == 1
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert not list(tmp_path.glob("*-masks"))


def test_invert_reads_the_map_off_the_photograph(heads, read, tmp_path, capsys):
    photo, out = tmp_path / "photo.png", tmp_path / "face.safetensors"
    Image.fromarray(heads[0][0]).save(photo)
    common = ["--checkpoint", str(write_checkpoint(tmp_path)), "--no-vgg", "--image", str(photo),
              "--geometry-iterations", "1", "--appearance-iterations", "1"]  # fmt: skip
    assert invert.main([*common, "--out", str(out)]) == 0
    mask = tmp_path / "face.mask.png"
    assert f"wrote {mask}" in capsys.readouterr().err
    assert np.array_equal(read_label_map(mask), read[0].labels)
    again = tmp_path / "again.safetensors"
    yaw, pitch = (str(angle) for angle in read[0].pose)
    given = ["--labels", str(mask), "--yaw", yaw, "--pitch", pitch, "--out", str(again)]
    assert invert.main([*common, *given]) == 0
    one, two = FaceProject.load(out), FaceProject.load(again)
    assert np.array_equal(one.labels, two.labels) and one.labels.any()
    assert torch.equal(one.geometry.phases, two.geometry.phases)


def test_edit_inverts_a_photograph_first(heads, tmp_path, capsys):
    photo, out = tmp_path / "photo.png", tmp_path / "new.safetensors"
    Image.fromarray(heads[0][0]).save(photo)
    common = ["--checkpoint", str(write_checkpoint(tmp_path)), "--image", str(photo),
              "--resolution", "8"]  # fmt: skip
    extra = ["--paint", "fringe", "--iterations", "1"]
    assert edit.main([*common, *extra, "--out", str(out)]) == 0
    assert f"wrote {out}" in capsys.readouterr().err
    assert invert.main([*common, "--out", str(tmp_path / "face.safetensors")]) == 0
    alone = FaceProject.load(tmp_path / "face.safetensors")
    first = FaceProject.load(tmp_path / "new.face.safetensors")
    assert torch.equal(first.geometry.phases, alone.geometry.phases)
    assert first.crop == alone.crop is not None
    assert (FaceProject.load(out).labels != first.labels).any()
    capsys.readouterr()
    early = ["--set", "smle=+1", "--out", str(tmp_path / "early.safetensors")]
    assert edit.main([*common, *early]) == 1
    assert "sliders" in capsys.readouterr().err and not list(tmp_path.glob("early*"))
    for other, what in (
        ([], "--project, or a photograph with --image"),
        (["--project", str(out), "--image", str(photo)], "leave out one of them"),
    ):
        assert edit.main([*other, *extra, "--out", str(out)]) == 1
        said = capsys.readouterr().err
        assert what in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("asked", "said"),
    [(["--set", "skin hue=1"], "'skin hue': the label map shows none of it"),
     (["--paint", "wide mouth"], "wide mouth"), (["--labels", "none.png"], "none.png")],
)  # fmt: skip
def test_what_a_face_does_not_show_is_refused_before_the_fit(
    asked, said, heads, tmp_path, capsys, monkeypatch
):
    """Where its label map tells so; and the note on the fit is left out with it."""
    weights = write_checkpoint(tmp_path)
    generator = load(weights).generator
    tiny_sliders(generator).save(KIND.beside(weights), generator)
    photo = tmp_path / "photo.png"
    Image.fromarray(heads[0][0]).save(photo)
    empty = Target(np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8), np.zeros(2))
    monkeypatch.setattr(invert, "_target", lambda *_, **__: empty)
    monkeypatch.setattr(invert, "invert", None)
    common = ["--checkpoint", str(weights), "--image", str(photo), "--resolution", "8"]
    assert edit.main([*common, *asked, "--out", str(tmp_path / "new.safetensors")]) == 1
    error = capsys.readouterr().err
    assert said in error and error.startswith("semfaceedit edit: error: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("given", "paste", "said"),
    [
        ("folder", "new.png", "is a folder: give the photograph in it"),
        ("text.png", "new.png", "cannot be read"),
        ("other.png", "new.png", "shows another picture"),
        ("clear.png", "new.jpg", "which JPEG cannot keep"),
    ],
)
def test_a_photograph_to_paste_into_is_looked_at_before_the_fit(
    given, paste, said, heads, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("text.png").write_text("text")
    picture = Image.fromarray(heads[0][0])
    picture.save("photo.png")
    picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM).save("other.png")
    picture.putalpha(100)
    picture.save("clear.png")
    monkeypatch.setattr(invert, "invert", None)
    words = ["--checkpoint", str(write_checkpoint(tmp_path)), "--image", "photo.png",
             "--paint", "fringe", "--photograph", given, "--paste", paste]  # fmt: skip
    assert edit.main(words) == 1
    error = capsys.readouterr().err.splitlines()
    assert said in error[-1] and error[-1].startswith("semfaceedit edit: error: ")
    assert not list(tmp_path.glob("new*"))


def test_a_network_of_ones_own_reads_the_crop(heads, tmp_path):
    """It says hair everywhere, so the face's crop is hair and the rest background."""
    settings = ParserSettings(resolution=32, steps=1, widths=(16, 32), warp=True)
    network = Parser(settings.widths)
    torch.nn.init.zeros_(network.last.weight)
    with torch.no_grad():
        network.last.bias.copy_(torch.eye(NUM_CLASSES)[ID["hair"]])
    path, out = tmp_path / "parser.safetensors", tmp_path / "masks"
    save_parser(path, network, settings, {})
    photo = tmp_path / "photo.png"
    Image.fromarray(placed(heads[0][0], 400, 500, 200, 100)).save(photo)
    arguments = ["--parser", str(path), "--images", str(photo), "--out", str(out)]
    assert command.main(arguments) == 0
    labels = read_label_map(out / "photo.png")
    assert set(np.unique(labels)) == {0, ID["hair"]}
    rows, columns = np.nonzero(labels)
    side = 1.15 * read_face(np.asarray(Image.open(photo)), photo).window.side
    assert np.ptp(rows) == pytest.approx(side, abs=3) == np.ptp(columns)
