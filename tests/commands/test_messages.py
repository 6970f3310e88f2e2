"""What commands say of input that cannot be used: what, where, and what to do, in one line."""

import os
import shutil
import sys
import threading
from pathlib import Path

import pytest

from semfaceedit import (
    edit,
    evaluate,
    export,
    gallery,
    invert,
    parse,
    profile,
    render,
    train,
    train_encoder,
    transfer,
)
from semfaceedit.__main__ import main
from semfaceedit.api import generate, load
from semfaceedit.model.checkpoint import locate_weights, shipped_weights

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


def test_a_folder_is_no_file_of_weights(tmp_path, capsys):
    for command, words in (
        (render, ["--checkpoint", tmp_path]),
        (profile, ["--checkpoint", tmp_path]),
        (evaluate, ["cost", "--checkpoint", tmp_path, "--out", tmp_path / "out"]),
        (train, ["--init", tmp_path, "--procedural-count", 8, "--preset", "tiny"]),
        (train_encoder, ["--init", tmp_path]),
    ):
        text = said(command, words, capsys)
        assert f"{tmp_path} is a folder: give the file of weights in it" in text, words


def test_damaged_files_are_said_in_our_words(damaged, capsys):
    pickle = damaged.replace(".safetensors", ".pth")
    Path(pickle).write_bytes(b"no weights at all")
    for command, words in (
        (render, ["--checkpoint", damaged]),
        (edit, ["--project", damaged, "--paint", "hat"]),
        (invert, ["--seed", 0, "--encoder", damaged]),
        (invert, ["--seed", 0, "--vgg-weights", damaged]),
        (invert, ["--seed", 0, "--vgg-weights", pickle]),
        (train, ["--init", damaged, "--procedural-count", 8, "--preset", "tiny"]),
    ):
        text = said(command, words, capsys)
        assert DAMAGED in text and str(words[-1] if pickle in words else damaged) in text, words
        assert "PyTorch" not in text
        assert "deserializ" not in text


@pytest.fixture
def pipe(tmp_path):
    """A pipe that nobody writes to; one who opens it all the same reads an empty file."""
    path = tmp_path / "a.safetensors"
    os.mkfifo(path)
    ends = threading.Thread(target=lambda: path.open("wb").close())
    ends.start()
    yield path
    os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))  # lets the thread end
    ends.join()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
@pytest.mark.parametrize(
    ("command", "words"),
    [
        (render, ["--checkpoint"]),
        (edit, ["--paint", "hat", "--project"]),
        (invert, ["--seed", 0, "--encoder"]),
        (invert, ["--seed", 0, "--vgg-weights"]),
        (invert, ["--image", "a.jpg", "--parser"]),
        (edit, ["--list-sliders", "--directions"]),
        (parse, ["--images"]),
    ],
)
def test_a_pipe_is_not_waited_for(command, words, pipe, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = said(command, [*words, pipe], capsys)
    assert "it is a pipe" in text and str(pipe) in text


def test_weights_of_the_package_are_named(capsys):
    assert shipped_weights() == ["portraits", "portraits-128", "procedural"]
    text = said(render, ["--checkpoint", "portrait"], capsys)
    assert text.endswith("or portraits or portraits-128 or procedural")


def test_a_mistyped_name_is_met_with_the_one_that_may_be_meant(tmp_path, capsys, monkeypatch):
    weights = shipped_weights()[-1]
    there = tmp_path / "generator-ema0.998.safetensors"
    shutil.copy(locate_weights(Path(weights)), there)
    face = tmp_path / "a.safetensors"
    generate(load(weights).generator, 1, resolution=8).project.save(face)
    for command, words, near in (
        (render, ["--checkpoint", "portrait"], "portraits"),
        (edit, ["--checkpoint", "Procedual", "--project", "a", "--paint", "hat"], "procedural"),
        (evaluate, ["cost", "--checkpoint", "procedurals"], "procedural"),
        (evaluate, ["qualty"], "quality"),
        (profile, ["--checkpoint", "portraits128"], "portraits-128"),
        (train, ["--init", "portrait", "--procedural-count", 1, "--resolution", 4], "portraits"),
        (render, ["--checkpoint", tmp_path / "generator-ema0.99.safetensors"], there),
        (train, ["--preset", "smal"], "small"),
        (render, ["--kinds", "Image"], "image"),
        (render, ["--checkpoint", weights, "--interpolate", "hiar"], "hair"),
        (gallery, ["--only", "multivew"], "multiview"),
        (export, ["--bake", "x", "--seed", 1, "--files", "gtlf"], "gltf"),
        (edit, ["--checkpoint", weights, "--project", face, "--no-vgg", "--paint", "haet"], "hat"),
        (transfer, ["--checkpoint", weights, "--target", face, "--source", face, "--region",
                    "hairs"], "hair"),
    ):  # fmt: skip
        monkeypatch.chdir(tmp_path)
        assert f"(did you mean {str(near)!r}?)" in said(command, words, capsys), words
    assert "did you mean" not in said(render, ["--checkpoint", "zzz"], capsys)


def test_a_mistyped_command_is_met_with_the_one_that_may_be_meant(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["semfaceedit", "rendr"])
    assert main() == 2
    assert "no command 'rendr' (did you mean 'render'?): use one of" in capsys.readouterr().err


def test_a_face_is_named_once(capsys):
    words = ["--project", "a.safetensors", "--image", "b.jpg", "--paint", "hat"]
    assert "leave out one of them" in said(edit, words, capsys)
    assert "give the face to edit" in said(edit, ["--paint", "hat"], capsys)
    words = ["--bake", "x", "--seed", 1, "--project", "a.safetensors"]
    assert "with either --project or --seed" in said(export, words, capsys)


def test_the_name_of_an_edit_is_looked_at_before_its_photograph(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.jpg").write_bytes(b"none")
    words = ["--image", "b.jpg", "--set", "smile=+1", "--out", "edited"]
    assert "--out edited: name a file that ends in .safetensors" in said(edit, words, capsys)


def test_a_run_without_a_state(tmp_path, capsys):
    text = said(train, ["--resume", tmp_path], capsys)
    assert "(none found): give a run folder whose training saved one" in text
