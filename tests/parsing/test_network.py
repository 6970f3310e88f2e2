"""The parser learns to read maps and goes on after a kill."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from safetensors import safe_open
from support import change_a_number
from training import drawn_faces

from semfaceedit import train_parser
from semfaceedit.errors import UserError
from semfaceedit.model.checkpoint import SHIPPED_WEIGHTS
from semfaceedit.model.labels import CLASS_NAMES, GROUP_OF_CLASS
from semfaceedit.parsing import network as parser
from semfaceedit.parsing.network import OUTSIDE, Parser, ParserSettings, held_out_score, warped
from semfaceedit.parsing.network import train_parser as train

CPU = torch.device("cpu")
SIZE = 16
QUICK = ParserSettings(resolution=SIZE, steps=3)
SHARP = ParserSettings(resolution=64, steps=1, widths=(16, 32), warp=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return drawn_faces(tmp_path_factory.mktemp("data") / "drawn", count=40, resolution=2 * SIZE)


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


def test_a_damaged_state_is_begun_anew(data, tmp_path, monkeypatch):
    monkeypatch.setattr(parser, "KEEP_EVERY", 1)
    keep = tmp_path / "training.safetensors"
    whole = train(data, QUICK, CPU, keep=keep)
    change_a_number(keep)
    assert same(train(data, QUICK, CPU, keep=keep), whole)
    keep.write_bytes(b"damaged")
    assert same(train(data, QUICK, CPU, keep=keep), whole)


def test_a_damaged_network_of_an_evaluation_is_trained_again(data, tmp_path):
    path = tmp_path / "parser.safetensors"
    whole = parser.saved_parser(path, data, QUICK, CPU)
    change_a_number(path)
    assert same(parser.saved_parser(path, data, QUICK, CPU), whole)
    assert same(parser.load_parser(path, CPU)[0], whole)


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
