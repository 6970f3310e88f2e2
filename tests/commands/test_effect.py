"""An option that has no effect in the way a command is used is said to, in one line."""

import dataclasses
import re
from pathlib import Path
from typing import Annotated, get_type_hints

import pytest
from commands import OPTIONS

from semfaceedit import cli, edit, export, gallery, prepare, render, transfer
from semfaceedit.api import generate, load
from semfaceedit.errors import UserError
from semfaceedit.evaluation.run import QUESTIONS, say_of_others
from semfaceedit.evaluation.session import QUESTIONS_OF, EvaluateOptions
from semfaceedit.usage import With, Without, check_effect

MARKED = [
    (name, field, mark)
    for name, options_type in OPTIONS.items()
    for field, kind in get_type_hints(options_type, include_extras=True).items()
    for mark in getattr(kind, "__metadata__", ())
    if isinstance(mark, With)
]


def other_value(options_type: type, name: str) -> object:
    """A value that is not the default."""
    (option,) = [o for o in cli.describe(options_type) if o.field.name == name]
    if option.type is bool:
        return not option.default
    kind = re.sub(r"[^a-z].*", "", str(option.metavar).lower())
    value = {"int": 3, "float": 0.25, "path": Path("a")}.get(kind, "a")
    return (value,) if option.several else value


@pytest.mark.parametrize(
    ("name", "field", "mark"), MARKED, ids=[f"{name} {field}" for name, field, _ in MARKED]
)
def test_every_marked_option_is_refused_where_it_has_no_effect(name, field, mark):
    options_type = OPTIONS[name]
    required = {
        f.name: Path("a") for f in dataclasses.fields(options_type)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }  # fmt: skip
    alone = options_type(**required, **{field: other_value(options_type, field)})
    flag = r"--(no-)?" + field.replace("_", "-")
    for other in mark.names:
        both = dataclasses.replace(alone, **{other: other_value(options_type, other)})
        if isinstance(mark, Without):
            with pytest.raises(UserError, match=rf"^{flag} has no effect with --{other[:2]}"):
                check_effect(both)
        else:
            with pytest.raises(UserError, match=rf"^{flag} is for --.*: give that too, or leave"):
                check_effect(alone)


@dataclasses.dataclass(kw_only=True)
class Sample:
    """Options of which some need others."""

    video: str | None = None
    fps: Annotated[int, With("video", "strip")] = 24
    strip: bool = False
    names: Annotated[tuple[str, ...], Without("quick")] = ()
    quick: bool = False
    half: Annotated[bool, Without("quick")] = True


def test_what_has_an_effect_is_taken():
    for options in (
        Sample(), Sample(fps=24), Sample(fps=3, strip=True), Sample(fps=3, video="a", strip=True),
        Sample(names=("a",)), Sample(quick=True), Sample(half=False),
    ):  # fmt: skip
        check_effect(options)


def test_what_has_none_is_refused_as_it_was_given():
    for options, said in (
        (Sample(fps=3), "--fps is for --video or --strip: give that too, or leave out --fps"),
        (Sample(half=False, quick=True),
         "--no-half has no effect with --quick: leave out one of them"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=f"^{said}$"):
            check_effect(options)


@pytest.fixture(scope="module")
def face(tmp_path_factory):
    path = tmp_path_factory.mktemp("face") / "face.safetensors"
    generate(load("procedural").generator, 1, resolution=8).project.save(path)
    return path


def test_options_without_effect_are_one_line(face, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "CelebA-HQ-img").mkdir()
    (tmp_path / "CelebAMask-HQ-mask-anno").mkdir()
    weights = ["--checkpoint", "procedural"]
    set_alone = [*weights, "--project", face, "--set", "smile=1"]
    swap = [*weights, "--target", face, "--source", face, "--region", "hair"]
    bake = ["--seed", 1, "--bake", "baked"]
    for command, words, said in (
        (render, ["--frames", 3], "--frames is for --video or --interpolate: "),
        (render, ["--seeds", "0,1", "--interpolate", "all", "--fps", 3], "--fps is for --video: "),
        (render, ["--video", "a.gif", "--kinds", "labels"], "--video has no effect on labels"),
        (export, [*bake, "--ema-decay", 0.9], "--ema-decay is for --run: "),
        (export, [*bake, "--no-half"], "--no-half is for --run: "),
        (export, [*bake, "--files", "depth", "--looks", 1], "--looks is for page of --files: "),
        (export, [*bake, "--files", "page", "--mesh-size", 9], "is for gltf and surface of"),
        (export, ["--run", "a", "--out", "b.safetensors", "--device", "cpu"], "--device is for"),
        (export, ["--run", "a", "--out", "b.safetensors", "--looks", 1], "--looks is for --bake"),
        (edit, [*set_alone, "--iterations", 3], "--iterations is for a fit, which --set does"),
        (edit, [*set_alone, "--resolution", 16], "--resolution is for a fit"),
        (edit, [*set_alone, "--vgg-weights", "a.pth"], "--vgg-weights is for a fit"),
        (edit, [*set_alone, "--compare-unmasked"], "--compare-unmasked is for --labels or"),
        (edit, ["--image", "a.png", "--set", "smile=1", "--dilation", 0.1], "--dilation is for a"),
        (edit, [*weights, "--list-sliders", "--paint", "hat"], "--paint has no effect with --list"),
        (edit, [*weights, "--project", face, "--paint", "hat", "--start-samples", 3],
         "--start-samples is for fits without an encoder: give --no-encoder, or leave out"),
        (transfer, [*swap, "--iterations", 3], "--iterations is for a fit, which --what appear"),
        (transfer, [*swap, "--encoder", "a"], "--encoder is for a fit"),
        (prepare, ["--data", ".", "--out", "out", "--mask-order", "bisenet"],
         "leave out --mask-order, which is for maps of ids"),
    ):  # fmt: skip
        assert command.main([str(word) for word in words]) == 1, words
        text = capsys.readouterr().err
        assert text.count("\n") == 1 and said in text and "leave out --" in text, (words, text)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
    ]  # fmt: skip


def test_options_that_have_an_effect_in_some_mode_stay(face, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    weights = ["--checkpoint", "procedural"]
    for command, words in (
        (render, [*weights, "--seeds", "0,1", "--interpolate", "all", "--frames", "2",
                  "--resolution", "8"]),
        (transfer, [*weights, "--target", face, "--source", face, "--region", "hair",
                    "--no-encoder", "--no-vgg", "--resolution", "8"]),
        (edit, [*weights, "--list-sliders", "--device", "cpu"]),
    ):  # fmt: skip
        assert command.main([str(word) for word in words]) == 0, words


def test_options_of_other_questions_are_remarked_on(capsys):
    assert set().union(*QUESTIONS_OF.values()) <= set(QUESTIONS)
    options = EvaluateOptions(edited_faces=3, count=10, no_encoder=True)
    say_of_others(options, ["quality"])
    assert capsys.readouterr().err.splitlines() == [
        "note: --edited-faces has no effect here: it is for editing",
        "note: --no-encoder has no effect here: it is for inversion or editing",
    ]
    say_of_others(options, list(QUESTIONS))
    assert capsys.readouterr().err == ""


def test_options_of_other_figures_are_remarked_on(tmp_path, capsys):
    words = ["--only", "multiview", "--tune", "3", "--checkpoint", str(tmp_path / "none")]
    assert gallery.main([*words, "--out", str(tmp_path / "page")]) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "note: --tune has no effect here: it is for inversion" and len(said) == 2
