"""The parser learns to read maps, goes on after a kill, and finds faces in photographs."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from face_maps import draw_labels, paint
from faces import write_checkpoint
from PIL import Image
from safetensors import safe_open
from training import drawn_faces

from semfaceedit import invert, train_parser
from semfaceedit import parse as command
from semfaceedit.data.align import Window, crop, fit_window
from semfaceedit.data.decoding import read_label_map
from semfaceedit.data.pose import landmarks_from_labels
from semfaceedit.editing.project import FaceProject
from semfaceedit.errors import UserError
from semfaceedit.metrics.segmentation import segmentation_score
from semfaceedit.model.checkpoint import SHIPPED_WEIGHTS
from semfaceedit.model.labels import CLASS_NAMES, GROUP_OF_CLASS, one_hot
from semfaceedit.parsing import network as parser
from semfaceedit.parsing import photographs
from semfaceedit.parsing.network import OUTSIDE, Parser, ParserSettings, held_out_score, warped
from semfaceedit.parsing.network import train_parser as train
from semfaceedit.parsing.photographs import find_face, read_labels_off

CPU = torch.device("cpu")
SIZE = 16
QUICK = ParserSettings(resolution=SIZE, steps=3)
TRUTH: dict[bytes, np.ndarray] = {}  # the map of every photograph that was made
SHARP = ParserSettings(resolution=64, steps=1, widths=(16, 32), warp=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return drawn_faces(tmp_path_factory.mktemp("data") / "drawn", count=40, resolution=2 * SIZE)


@pytest.fixture
def reader(monkeypatch) -> Parser:
    """Stands for a parser without errors: crops of the true map, which it knows by the picture."""

    def scores(_, settings, image, windows):
        truth = TRUTH[image.tobytes()]
        crops = [crop(truth, w, settings.resolution, Image.Resampling.NEAREST) for w in windows]
        return one_hot(torch.from_numpy(np.stack(crops)))

    monkeypatch.setattr(photographs, "_scores", scores)
    return Parser(SHARP.widths)


@pytest.fixture
def parser_file(tmp_path, reader):
    path = tmp_path / "parser.safetensors"
    parser.save_parser(path, reader, SHARP, {})
    return path


def same(one: Parser, two: Parser) -> bool:
    pairs = zip(one.parameters(), two.parameters(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_it_learns_to_read_drawn_faces(data):
    trained = train(data, dataclasses.replace(QUICK, steps=60), CPU)
    score, count = held_out_score(trained, data, SIZE, GROUP_OF_CLASS)
    before, _ = held_out_score(Parser().eval(), data, SIZE, GROUP_OF_CLASS)
    assert count == 5 and score.groups > 0.5 > 1.5 * before.groups


def test_the_same_settings_give_the_same_network(data):
    assert same(train(data, QUICK, CPU), train(data, QUICK, CPU))
    other = dataclasses.replace(QUICK, seed=1)
    assert not same(train(data, QUICK, CPU), train(data, other, CPU))


@pytest.mark.parametrize("warp", [False, True])
def test_a_killed_training_goes_on_to_the_same_network(data, tmp_path, monkeypatch, warp):
    settings = dataclasses.replace(QUICK, steps=5, warp=warp)
    whole, keep = train(data, settings, CPU), tmp_path / "training.safetensors"
    monkeypatch.setattr(parser, "KEEP_EVERY", 2)
    batch, done = parser._batch, []

    def killed(*arguments):
        if arguments[-1] == 3 and len(done) == 3:
            raise KeyboardInterrupt
        done.append(arguments[-1])
        return batch(*arguments)

    monkeypatch.setattr(parser, "_batch", killed)
    with pytest.raises(KeyboardInterrupt):
        train(data, settings, CPU, keep=keep)
    assert same(train(data, settings, CPU, keep=keep), whole)
    assert done == [0, 1, 2, 2, 3, 4]
    # a state of other settings is not gone on from
    done[:] = [0] * 9
    train(data, dataclasses.replace(settings, seed=1), CPU, keep=keep)
    assert done[9:] == [0, 1, 2, 3, 4]


def test_a_damaged_state_is_begun_anew(data, tmp_path):
    keep = tmp_path / "training.safetensors"
    keep.write_bytes(b"damaged")
    assert same(train(data, QUICK, CPU, keep=keep), train(data, QUICK, CPU))


def test_small_classes_count_more(data):
    weights = parser.class_weights(data, np.arange(len(data)))
    counts = np.bincount(np.asarray(data.labels).reshape(-1), minlength=19)
    largest, eye = int(counts.argmax()), CLASS_NAMES.index("l_eye")
    assert weights[largest] == 1 and weights.max() <= 20
    assert weights[eye] == pytest.approx(min(20, math.sqrt(counts[largest] / counts[eye])))
    assert weights[eye] > 5 and weights[CLASS_NAMES.index("hat")] == 20  # none is drawn
    plain = dataclasses.replace(QUICK, balance=False)
    assert not same(
        train(data, plain, CPU), train(data, dataclasses.replace(QUICK, balance=True), CPU)
    )


def test_held_out_pictures_are_never_trained_on(data, monkeypatch):
    seen: set[int] = set()
    original = type(data).labelled

    def watched(self, indices, flips, resolution):
        seen.update(indices.tolist())
        return original(self, indices, flips, resolution)

    monkeypatch.setattr(type(data), "labelled", watched)
    train(data, dataclasses.replace(QUICK, resolution=8, steps=6), CPU)
    training, held_out = parser.split(len(data))
    assert seen == set(training.tolist()) and not seen & set(held_out.tolist())


def test_too_few_pictures(tmp_path):
    few = drawn_faces(tmp_path / "few", count=10)
    with pytest.raises(UserError, match="10 pictures are too few"):
        train(few, QUICK, CPU)


def test_odd_sizes_are_parsed():
    assert Parser()(torch.zeros(1, 3, 10, 10)).shape == (1, 19, 10, 10)


def test_a_warp_moves_picture_and_map_alike():
    """Where the label is 7 the picture is 1; outside nothing counts."""
    labels = torch.zeros(64, 32, 32, dtype=torch.long)
    labels[:, 10:24, 6:20] = 7
    images = (labels == 7)[:, None].float().expand(-1, 3, -1, -1)
    shown, moved = warped(images, labels, torch.Generator().manual_seed(0))
    assert set(moved.unique().tolist()) == {0, 7, OUTSIDE}
    counts = moved != OUTSIDE
    clear = counts & ((shown[:, 0] > 0.75) | (shown[:, 0] < 0.25))
    assert ((shown[:, 0] > 0.5) == (moved == 7))[clear].float().mean() > 0.999
    sizes = (moved == 7).flatten(1).sum(1).float() / (labels[0] == 7).sum()
    assert sizes.max() > 1.6 and sizes.min() < 0.6  # zooms both ways
    places = (moved == 7).float().argmax(2).argmax(1)
    assert places.float().std() > 1
    assert 0 < (~counts).float().mean() < 0.4


def photograph(height: int, width: int, left: int, top: int, side: int, pose=(0.1, 0.0)):
    """A drawn face in a photograph, and the true map."""
    random = np.random.default_rng(height)
    labels = np.zeros((height, width), np.uint8)
    drawn = draw_labels(side, *pose)
    labels[top : top + side, left : left + side] = drawn
    image = np.broadcast_to(paint(drawn)[0, 0], (height, width, 3)).copy()
    image[top : top + side, left : left + side] = paint(drawn)
    noise = random.integers(-6, 7, image.shape)
    image = (image.astype(int) + noise).clip(0, 255).astype(np.uint8)
    TRUTH[image.tobytes()] = labels
    return image, labels


@pytest.mark.parametrize(
    "height, width, left, top, side",
    [(64, 64, 0, 0, 64), (150, 260, 150, 30, 90), (300, 170, 20, 40, 120)],
)
def test_a_face_is_found_wherever_it_is(reader, height, width, left, top, side):
    image, labels = photograph(height, width, left, top, side)
    window = find_face(reader, SHARP, image)
    assert window is not None
    middle = np.array([window.left, window.top]) + window.side / 2
    assert np.abs(middle - (left + side / 2, top + side / 2)).max() < 0.12 * side
    read = read_labels_off(reader, SHARP, image)
    assert read.shape == labels.shape
    face = torch.from_numpy(labels > 0)
    agree = (torch.from_numpy(read) == torch.from_numpy(labels))[face].float().mean()
    assert agree > 0.8
    groups = segmentation_score(
        torch.from_numpy(read)[None].long(), torch.from_numpy(labels)[None].long(), GROUP_OF_CLASS
    )
    assert groups.groups > 0.6


def test_features_that_fit_no_face_are_none(reader):
    """Eyes, nose and mouth are there, but the mouth is far wider than a face has it."""
    image, labels = photograph(64, 64, 0, 0, 64)
    assert find_face(reader, SHARP, image) is not None
    labels = labels.copy()
    rows = np.nonzero(labels == CLASS_NAMES.index("u_lip"))[0]
    labels[rows.min(), 17:48] = CLASS_NAMES.index("u_lip")
    landmarks = landmarks_from_labels(labels)
    assert fit_window(landmarks) is not None
    TRUTH[image.tobytes()] = labels
    assert find_face(reader, SHARP, image) is None


def test_a_crop_must_ask_for_itself_again(monkeypatch):
    image = np.zeros((40, 50, 3), np.uint8)
    squares = set(photographs._squares(50, 40))

    def asked(_, __, ___, windows):
        return [Window(w.left + 1, w.top, w.side) if w in squares else None for w in windows]

    monkeypatch.setattr(photographs, "_asked", asked)
    assert find_face(None, SHARP, image) is None


def test_the_parser_sees_the_crop():
    """Pixels of the window in [-1, 1], mirrored where it leaves the photograph."""
    image, _ = photograph(60, 60, 0, 0, 60)
    seen = []
    network = torch.nn.Conv2d(3, 3, 1)
    network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    photographs._scores(network, SHARP, image, [Window(0, 0, 64), Window(-2, 4, 32)])
    inside = torch.from_numpy(image).movedim(-1, 0) / 127.5 - 1
    assert seen[0].shape == (2, 3, 64, 64)
    torch.testing.assert_close(seen[0][0, :, :60, :60], inside)
    torch.testing.assert_close(seen[0][0, :, :60, 60:], inside[:, :, 56:].flip(-1))


def test_a_photograph_without_a_face(reader, parser_file, tmp_path, capsys):
    image = np.random.default_rng(0).integers(0, 255, (80, 90, 3), dtype=np.uint8)
    TRUTH[image.tobytes()] = np.random.default_rng(1).integers(0, 19, (80, 90), dtype=np.uint8)
    assert read_labels_off(reader, SHARP, image) is None
    path = tmp_path / "noise.png"
    Image.fromarray(image).save(path)
    out = tmp_path / "masks"
    arguments = ["--parser", str(parser_file), "--images", str(path), "--out", str(out)]
    assert command.main(arguments) == 1
    assert "no face was found" in capsys.readouterr().err
    assert not (out / "noise.png").exists()


def test_large_photographs_give_maps_of_their_aspect(reader):
    image, _ = photograph(700, 1300, 300, 60, 560)
    read = read_labels_off(reader, SHARP, image)
    assert read.shape == (551, 1024)


def test_photographs_of_a_folder(parser_file, tmp_path, capsys):
    photos, out = tmp_path / "photos", tmp_path / "masks"
    photos.mkdir()
    truth = {}
    for name, place in (("a", (64, 64, 0, 0, 64)), ("b", (100, 160, 60, 10, 80))):
        image, truth[name] = photograph(*place)
        Image.fromarray(image).save(photos / f"{name}.png")
    (photos / "notes.txt").write_text("no picture")
    arguments = ["--parser", str(parser_file), "--images", str(photos), "--out", str(out)]
    assert command.main(arguments) == 0
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png"}
    for name, labels in truth.items():
        assert (read_label_map(out / f"{name}.png") == labels).mean() > 0.8
    Image.fromarray(image).save(photos / "a.jpg")
    assert command.main(arguments) == 1
    assert "several photographs are named a" in capsys.readouterr().err


def test_the_command_trains_a_parser(tmp_path, capsys, monkeypatch):
    drawn = drawn_faces(tmp_path / "drawn", count=40, resolution=32)
    monkeypatch.setattr(train_parser, "open_training_data", lambda *_, **__: drawn)
    out = tmp_path / "new" / "parser.safetensors"
    arguments = ["--out", str(out), "--resolution", "16", "--steps", "4"]
    assert train_parser.main(arguments) == 0
    assert "5 pictures not trained on" in capsys.readouterr().err
    found, settings = parser.load_parser(out, CPU)
    assert settings == ParserSettings(16, 4, widths=train_parser.WIDTHS, warp=True, balance=True)
    assert same(found, train(drawn, settings, CPU))
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    with safe_open(out, "pt") as file:
        header = json.loads(file.metadata()["semfaceedit"])
    assert header["pictures"] == 35 and 0 <= header["held_out"]["miou_groups"] <= 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--out", "parser.pt"], "ends in .safetensors"),
        (["--resolution", "40"], "a multiple of 16"),
        (["--steps", "0"], "at least 1"),
    ],
)
def test_settings_that_cannot_work(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train_parser.main(arguments) == 1
    assert message in capsys.readouterr().err


def test_files_that_are_no_parser(tmp_path):
    with pytest.raises(UserError, match="`train-parser` writes one"):
        parser.load_parser(tmp_path / "nothing.safetensors", CPU)
    whole, broken = tmp_path / "parser.safetensors", tmp_path / "broken.safetensors"
    parser.save_parser(whole, Parser(SHARP.widths), SHARP, {})
    assert parser.load_parser(whole, CPU)[1] == SHARP
    broken.write_bytes(whole.read_bytes()[:-8])
    with pytest.raises(UserError, match="not a readable parser"):
        parser.load_parser(broken, CPU)
    with pytest.raises(UserError, match="holds no parser"):
        parser.load_parser(SHIPPED_WEIGHTS, CPU)


def test_invert_reads_the_map_off_the_photograph(tmp_path, parser_file, capsys):
    image, _ = photograph(150, 260, 150, 30, 90)
    photo, out = tmp_path / "photo.png", tmp_path / "face.safetensors"
    Image.fromarray(image).save(photo)
    common = ["--checkpoint", str(write_checkpoint(tmp_path)), "--no-vgg", "--image", str(photo),
              "--geometry-iterations", "1", "--appearance-iterations", "1"]  # fmt: skip
    assert invert.main([*common, "--parser", str(parser_file), "--out", str(out)]) == 0
    mask = tmp_path / "face.mask.png"
    assert f"wrote {mask}" in capsys.readouterr().err
    again = tmp_path / "again.safetensors"
    assert invert.main([*common, "--labels", str(mask), "--out", str(again)]) == 0
    one, two = FaceProject.load(out), FaceProject.load(again)
    assert np.array_equal(one.labels, two.labels) and one.labels.any()
    assert torch.equal(one.geometry.phases, two.geometry.phases)
    assert invert.main([*common, "--parser", str(parser_file), "--labels", str(mask)]) == 1
    assert "--labels or --parser" in capsys.readouterr().err
