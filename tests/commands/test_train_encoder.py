"""`train-encoder`: a file that `invert` finds, a report, and errors in one line."""

import json

import pytest
from faces import write_checkpoint
from safetensors.torch import load_file
from training import drawn_faces

from semfaceedit import invert, train_encoder
from semfaceedit.editing.encoder import encoder_beside
from semfaceedit.editing.project import FaceProject


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    pass


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A checkpoint with an encoder beside it, trained for three rounds on drawn faces too."""
    folder = tmp_path_factory.mktemp("encoder")
    weights = write_checkpoint(folder)
    data = folder / "drawn"
    drawn_faces(data, count=20, resolution=64)
    arguments = ["--checkpoint", str(weights), "--data", str(data), "--steps", "3", "--heads", "1"]
    assert train_encoder.main([*arguments, "--report-faces", "1"]) == 0
    return weights


def test_it_writes_an_encoder_and_its_report(trained):
    path = encoder_beside(trained)
    assert path.is_file() and path.stat().st_size < 8e6
    report = json.loads(path.with_suffix(".report.json").read_text())
    assert report["format"] == "semfaceedit-encoder-report"
    for kind in ("samples", "pairs", "heads"):
        assert report[kind]["faces"] == 1
        for steps in (0, 5, 20, 50):
            assert 0 <= report[kind][f"miou_after_{steps}"] <= 1
    assert report["heads"]["mean_face_depth_error"] > 0
    assert "depth_error_after_0" not in report["pairs"]
    assert not path.with_suffix(".training.safetensors").exists()


def test_invert_finds_it(trained, tmp_path, capsys):
    out = tmp_path / "face.safetensors"
    arguments = ["--checkpoint", str(trained), "--seed", "3", "--no-vgg", "--out", str(out)]
    assert invert.main(arguments) == 0
    near = FaceProject.load(out).iterations
    assert near <= 40
    short = ["--geometry-iterations", "21", "--appearance-iterations", "20"]
    assert invert.main([*arguments, *short, "--no-encoder", "--patience", "0"]) == 0
    assert FaceProject.load(out).iterations == 41
    capsys.readouterr()
    assert invert.main([*arguments, "--no-encoder", "--encoder", str(encoder_beside(trained))]) == 1
    assert "not both" in capsys.readouterr().err


def test_it_begins_with_the_encoder_of_older_weights(trained, tmp_path, capsys):
    newer = write_checkpoint(tmp_path, seed=4)
    arguments = ["--checkpoint", str(newer), "--steps", "1", "--report-faces", "1"]
    assert train_encoder.main([*arguments, "--init", str(trained)]) == 0
    first = [load_file(encoder_beside(w))["first.weight"].float() for w in (trained, newer)]
    assert (first[0] - first[1]).abs().max() < 1e-3  # one step of AdamW's rate away
    capsys.readouterr()
    encoder_beside(newer).unlink()
    assert train_encoder.main([*arguments, "--init", str(newer)]) == 1
    error = capsys.readouterr().err
    assert "no encoder lies beside" in error and error.count("\n") == 1


def test_an_encoder_of_other_weights_is_refused(trained, tmp_path, capsys):
    other = write_checkpoint(tmp_path, seed=4)
    arguments = ["--checkpoint", str(other), "--seed", "3", "--no-vgg"]
    given = ["--encoder", str(encoder_beside(trained)), "--out", str(tmp_path / "f.safetensors")]
    assert invert.main([*arguments, *given]) == 1
    said = capsys.readouterr().err
    assert "other weights" in said and said.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--minutes", "0"], "--minutes"), (["--steps", "0"], "--steps"),
     (["--heads=-1"], "--heads"), (["--learning-rate", "nan"], "--learning-rate"),
     (["--out", "encoder.pt"], "ends in .safetensors")],
)  # fmt: skip
def test_bad_options_are_one_line(trained, arguments, said, capsys):
    assert train_encoder.main(["--checkpoint", str(trained), *arguments]) == 1
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_nobody_elses_file_is_replaced(trained, tmp_path, capsys):
    mine = tmp_path / "mine.safetensors"
    mine.write_bytes(b"mine")
    assert train_encoder.main(["--checkpoint", str(trained), "--out", str(mine)]) == 1
    assert "did not write it" in capsys.readouterr().err
    assert mine.read_bytes() == b"mine"
    assert train_encoder.main(["--checkpoint", str(trained), "--out", str(trained)]) == 1
