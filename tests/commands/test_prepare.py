"""`python -m semfaceedit.prepare`: exit codes, messages, outputs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from face_maps import draw_labels, write_native, write_pairs
from PIL import Image

from semfaceedit.data.dataset import open_packed
from semfaceedit.data.layouts import BAD_MASKS, POSE_TABLE
from semfaceedit.data.pose import landmarks_from_labels
from semfaceedit.prepare import main


@pytest.fixture
def faces(tmp_path) -> Path:
    maps = {f"face{i}": draw_labels(64, yaw=0.2 * (i - 1)) for i in range(3)}
    return write_pairs(tmp_path / "faces", maps)


def run(data: Path, out: Path, *more: str) -> int:
    return main(["--data", str(data), "--out", str(out), "--resolution", "32", *more])


def error_line(capsys) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("semfaceedit prepare: error: ")
    return lines[0]


def test_prepare_writes_a_packed_folder(faces, tmp_path, capsys):
    out = tmp_path / "packed"
    assert run(faces, out) == 0
    files = ["dataset.json", "images.npy", "labels.npy", "poses.npy", "preview.png"]
    assert sorted(path.name for path in out.iterdir()) == files
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "packed"]
    dataset = open_packed(out)
    assert dataset.images.shape == (3, 32, 32, 3)
    assert dataset.info["crop"] == ["eyes"] * 3
    assert "3 faces; cropped by: 3 eyes; pose from: 3 landmarks" in capsys.readouterr().err


def test_alignment_brings_faces_to_one_place(tmp_path):
    maps = {}
    for index, (left, top, size) in enumerate([(0, 0, 128), (50, 10, 70), (20, 40, 85)]):
        canvas = np.zeros((128, 128), np.uint8)
        canvas[top : top + size, left : left + size] = draw_labels(size)
        maps[str(index)] = canvas
    root = write_pairs(tmp_path / "faces", maps)

    def spread(*more: str) -> float:
        out = tmp_path / f"packed{len(more)}"
        assert main(["--data", str(root), "--out", str(out), "--no-preview", *more]) == 0
        found = [landmarks_from_labels(labels).points for labels in open_packed(out).labels]
        return float(np.ptp(found, axis=0).max())

    assert spread() < 8 < 60 < spread("--no-align")  # pixels of 256


def test_unchanged_source_is_not_packed_again(faces, tmp_path, capsys):
    out = tmp_path / "packed"
    assert run(faces, out) == 0
    before = (out / "images.npy").stat().st_mtime_ns
    assert run(faces, out) == 0
    assert "is up to date" in capsys.readouterr().err
    assert (out / "images.npy").stat().st_mtime_ns == before
    assert run(faces, out, "--no-align") == 0
    assert open_packed(out).info["crop"] == ["centre"] * 3


def test_bad_masks_can_be_kept(tmp_path):
    root = write_native(tmp_path / "faces", {BAD_MASKS[0]: draw_labels(64), 1: draw_labels(64)})
    (root / POSE_TABLE).write_text("2\nYaw Pitch Raw\n1.jpg 1 2 3\n")
    assert run(root, tmp_path / "packed") == 0
    assert open_packed(tmp_path / "packed").names == ["1"]
    assert run(root, tmp_path / "packed", "--keep-bad-masks") == 0
    assert open_packed(tmp_path / "packed").names == ["1", str(BAD_MASKS[0])]


@pytest.mark.parametrize("form", ["lines", "json"])
def test_given_landmarks_decide_the_crop(faces, tmp_path, form):
    points = landmarks_from_labels(draw_labels(64, yaw=-0.2)).points * 2  # the image has 128 pixels
    path = tmp_path / "landmarks.txt"
    if form == "json":
        path.write_text(json.dumps({"face0.png": points.tolist()}))
    else:
        path.write_text("face0 " + " ".join(str(value) for value in points.reshape(-1)) + "\n\n")
    assert run(faces, tmp_path / "own") == 0
    assert run(faces, tmp_path / "given", "--landmarks", str(path)) == 0
    own, given = open_packed(tmp_path / "own"), open_packed(tmp_path / "given")
    assert given.info["crop"] == ["given", "eyes", "eyes"]
    np.testing.assert_array_equal(given.labels, own.labels)  # they are the map's own landmarks
    np.testing.assert_allclose(given.poses, own.poses, atol=1e-5)
    path.write_text("face0 " + " ".join(str(value) for value in (points + 9).reshape(-1)))
    assert run(faces, tmp_path / "given", "--landmarks", str(path)) == 0
    moved = open_packed(tmp_path / "given")
    assert not np.array_equal(moved.labels[0], own.labels[0])
    np.testing.assert_array_equal(moved.labels[1:], own.labels[1:])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("face9 1 2 3 4 5 6 7 8 9 10", "'face9' is no face of"),
        ("face0 1 2 3", "line 1 is not a name and ten numbers"),
        ("face0 1 2 3 4 5 6 7 8 9 nan", "'face0' needs five points"),
        ('{"face0": [[1, 2]]}', "'face0' needs five points"),
        ('{"face0": ', "not a JSON object"),
    ],
)
def test_bad_landmark_files(faces, tmp_path, capsys, text, expected):
    path = tmp_path / "landmarks.txt"
    path.write_text(text)
    assert run(faces, tmp_path / "packed", "--landmarks", str(path)) == 1
    line = error_line(capsys)
    assert "landmarks.txt" in line and expected in line
    assert not (tmp_path / "packed").exists()


def test_landmarks_that_fit_no_face(faces, tmp_path, capsys):
    """All on one line, or far outside of the picture."""
    flat = np.array([(10, 60), (120, 60), (64, 61), (12, 62), (118, 62)])
    far = landmarks_from_labels(draw_labels(64)).points + 1000
    path = tmp_path / "landmarks.json"
    for wrong in (flat, far):
        path.write_text(json.dumps({"face0": wrong.tolist()}))
        for more in ([], ["--no-align"]):
            assert run(faces, tmp_path / "packed", "--landmarks", str(path), *more) == 1
            assert "face0.png: the landmarks given for it fit no face" in error_line(capsys)


def test_landmarks_of_names_with_dots_and_spaces(tmp_path):
    points = landmarks_from_labels(draw_labels(64)).points * 2
    numbers = " ".join(str(value) for value in points.reshape(-1))
    names = ["a.b", "anna and bert", "c.d"]
    faces = write_pairs(tmp_path / "faces", {name: draw_labels(64) for name in names})
    path = tmp_path / "landmarks.txt"
    path.write_text(f"a.b {numbers}\nanna and bert.png {numbers}\n images/c.d.png {numbers}\n")
    assert run(faces, tmp_path / "packed", "--landmarks", str(path)) == 0
    assert open_packed(tmp_path / "packed").info["crop"] == ["given"] * 3
    path.write_text(json.dumps({"a.b": points.tolist(), "c.d.png": points.tolist()}))
    assert run(faces, tmp_path / "json", "--landmarks", str(path)) == 0
    assert open_packed(tmp_path / "json").info["crop"] == ["given", "eyes", "given"]


def test_synthesized_faces_take_no_landmarks(tmp_path, capsys):
    root = write_native(tmp_path / "faces", {0: draw_labels(64)})
    np.save(root / "poses.npy", np.zeros((1, 2), np.float32))
    (root / "dataset.json").write_text(json.dumps({"format": "semfaceedit-synthetic"}))
    (tmp_path / "landmarks.json").write_text("{}")
    landmarks = str(tmp_path / "landmarks.json")
    assert run(root, tmp_path / "packed", "--landmarks", landmarks) == 1
    assert "leave out --landmarks" in error_line(capsys)


def test_other_peoples_folders_are_safe(faces, tmp_path, capsys):
    out = tmp_path / "holiday"
    out.mkdir()
    (out / "beach.jpg").write_bytes(b"x")
    assert run(faces, out) == 1
    assert "holiday: exists and is not packed data" in error_line(capsys)
    assert [path.name for path in out.iterdir()] == ["beach.jpg"]
    assert run(faces, faces) == 1
    assert "faces: exists and is not packed data" in error_line(capsys)
    assert (faces / "images" / "face0.png").is_file()


def test_packed_data_is_not_packed_twice(faces, tmp_path, capsys):
    assert run(faces, tmp_path / "packed") == 0
    capsys.readouterr()
    assert run(tmp_path / "packed", tmp_path / "again") == 1
    assert "packed: is packed already" in error_line(capsys)


def test_failure_keeps_the_older_result(faces, tmp_path, capsys):
    out = tmp_path / "packed"
    assert run(faces, out) == 0
    capsys.readouterr()
    before = (out / "images.npy").read_bytes()
    (faces / "masks" / "face2.png").write_bytes(b"no picture")
    assert run(faces, out) == 1
    assert "face2.png: cannot be read" in error_line(capsys)
    assert (out / "images.npy").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "packed"]


def test_resolution_must_be_sensible(faces, tmp_path, capsys):
    assert main(["--data", str(faces), "--out", str(tmp_path / "o"), "--resolution", "0"]) == 1
    assert "--resolution 0" in error_line(capsys)


def test_preview_shows_window_and_landmarks(faces, tmp_path):
    assert run(faces, tmp_path / "packed") == 0
    with Image.open(tmp_path / "packed" / "preview.png") as picture:
        pixels = np.asarray(picture)
    assert pixels.shape == (192, 3 * 2 * 192, 3)
    assert (pixels[:, :192] == (255, 255, 0)).all(-1).sum() > 300  # the window's outline
    assert (pixels[:, :192] == (0, 255, 0)).all(-1).sum() > 40  # five dots


def test_names_that_are_not_utf8_get_a_preview(tmp_path):
    faces = write_pairs(tmp_path / "faces", {os.fsdecode(b"\xff"): draw_labels(64)})
    assert run(faces, tmp_path / "packed") == 0


def test_sigterm_leaves_nothing(tmp_path):
    """The packing waits for a pipe, which nobody writes."""
    faces, pipe = write_pairs(tmp_path / "faces", {"0": draw_labels(64)}), tmp_path / "pipe"
    os.mkfifo(pipe)
    code = (
        "import sys; from pathlib import Path; from semfaceedit import prepare; "
        "from semfaceedit.data import preparation; "
        "preparation.prepare_face = lambda *_: Path(sys.argv[1]).read_bytes(); "
        "sys.exit(prepare.main(sys.argv[2:]))"
    )
    words = [str(pipe), "--data", str(faces), "--out", str(tmp_path / "packed")]
    with subprocess.Popen([sys.executable, "-c", code, *words]) as process:
        with pipe.open("wb"):  # it reads
            assert list(tmp_path.glob(".packed.*"))
            process.terminate()
            time.sleep(0.1)
    assert process.returncode == 143
    assert sorted(path.name for path in tmp_path.iterdir()) == ["faces", "pipe"]


def test_as_a_process(tmp_path):
    """The exit code and the one line that a shell sees."""
    missing = tmp_path / "nothing"
    command = [sys.executable, "-m", "semfaceedit.prepare", "--data", str(missing), "--out", "x"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and f"{missing}: no such folder" in done.stderr
