"""What commands say of input that cannot be used: what, where, and what to do, in one line."""

import pytest

from semfaceedit import edit, export, invert, render, train
from semfaceedit.model.checkpoint import shipped_weights

DAMAGED = "it is damaged, or of another kind"


@pytest.fixture
def damaged(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(bytes(range(256)) * 8)
    return str(path)


def said(command, words, capsys) -> str:
    assert command.main([str(word) for word in words]) == 1
    text = capsys.readouterr().err.splitlines()[-1]
    assert text.startswith("semfaceedit ")
    return text


def test_damaged_files_are_said_in_our_words(damaged, capsys):
    for command, words in (
        (render, ["--checkpoint", damaged]),
        (edit, ["--project", damaged, "--paint", "hat"]),
        (invert, ["--seed", 0, "--encoder", damaged]),
        (invert, ["--seed", 0, "--vgg-weights", damaged]),
        (train, ["--init", damaged, "--procedural-count", 8, "--preset", "tiny"]),
    ):
        text = said(command, words, capsys)
        assert DAMAGED in text and damaged in text, words
        assert "deserializ" not in text


def test_weights_of_the_package_are_named(capsys):
    assert shipped_weights() == ["portraits", "portraits-128", "procedural"]
    text = said(render, ["--checkpoint", "portrait"], capsys)
    assert text.endswith("or portraits or portraits-128 or procedural")


def test_a_face_is_named_once(capsys):
    words = ["--project", "a.safetensors", "--image", "b.jpg", "--paint", "hat"]
    assert "leave out one of them" in said(edit, words, capsys)
    assert "give the face to edit" in said(edit, ["--paint", "hat"], capsys)
    words = ["--bake", "x", "--seed", 1, "--project", "a.safetensors"]
    assert "with either --project or --seed" in said(export, words, capsys)


def test_a_run_without_a_state(tmp_path, capsys):
    text = said(train, ["--resume", tmp_path], capsys)
    assert "(none found): give a run folder whose training saved one" in text
