"""No command replaces what it reads or what it did not write."""

import json
import os
import re
import shutil
import stat
from dataclasses import MISSING, dataclass, make_dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from commands import OPTIONS
from face_maps import draw_labels, paint, write_pairs
from PIL import Image

from semfaceedit import cli, edit, export, gallery, invert, outputs, parse, prepare, profile, render
from semfaceedit.data.decoding import save_label_map
from semfaceedit.errors import UserError
from semfaceedit.files import check_writable
from semfaceedit.outputs import is_own, save_page
from semfaceedit.pictures.video import save_animation

QUICK = ("--no-vgg", "--resolution", "8", "--yaw", "0", "--pitch", "0")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder that the commands run in, with a photograph and its map."""
    monkeypatch.chdir(tmp_path)
    labels = draw_labels(64)
    Image.fromarray(paint(labels)).save("photo.png")
    Image.fromarray(labels).save("face.labels.png")
    return tmp_path


def refused(capsys, path, before: bytes, code: int, *said: str) -> None:
    assert code == 1
    assert path.read_bytes() == before
    error = capsys.readouterr().err
    assert "choose another --out" in error and len(error.strip().splitlines()) == 1
    assert all(part in error for part in said)


def write_map(_image, out, **_options) -> SimpleNamespace:
    save_label_map(out, draw_labels(16))
    return SimpleNamespace(remarks=())


def test_parse_keeps_photographs_and_mended_maps(here, monkeypatch, capsys):
    monkeypatch.setattr(parse, "parse_file", write_map)
    parsing = ["--images", "photo.png", "--out"]
    photo = here / "photo.png"
    refused(capsys, photo, photo.read_bytes(), parse.main([*parsing, "."]), "photo.png")
    assert parse.main([*parsing, "masks"]) == parse.main([*parsing, "masks"]) == 0
    capsys.readouterr()
    mended = here / "masks" / "photo.png"
    with Image.open(mended) as picture:
        picture.putpixel((0, 0), 14)
        picture.save(mended)
    refused(capsys, mended, mended.read_bytes(), parse.main([*parsing, "masks"]), "changed since")


def test_parse_names_all_that_failed(here, capsys):
    for name in ("a.png", "b.png"):
        (here / name).write_bytes(b"no picture")
    assert parse.main(["--images", "a.png", "b.png"]) == 1
    error = capsys.readouterr().err
    assert "2 of 2 photographs failed" in error and "a.png: " in error and "b.png: " in error
    assert parse.main(["--images"]) == 1


def test_invert_keeps_the_mask_it_reads(editor, here, capsys):
    mask = here / "face.labels.png"
    command = ["--checkpoint", str(editor.generator.source), "--image", "photo.png", "--labels",
               "face.labels.png", *QUICK, "--geometry-iterations", "1",
               "--appearance-iterations", "1"]  # fmt: skip
    refused(capsys, mask, mask.read_bytes(), invert.main(command), "face.labels.png")
    assert invert.main([*command, "--out", "new.safetensors"]) == 0
    assert invert.main([*command, "--out", "new.safetensors"]) == 0
    capsys.readouterr()
    for name in ("new.labels.png", "new.preview.png"):
        other = here / name
        shutil.copy("photo.png", other)
        refused(capsys, other, other.read_bytes(),
                invert.main([*command, "--out", "new.safetensors"]), name)  # fmt: skip
        other.unlink()
    weights = here / "weights.safetensors"
    shutil.copy(editor.generator.source, weights)
    refused(capsys, weights, weights.read_bytes(),
            invert.main([*command, "--out", "weights.safetensors"]))  # fmt: skip


def test_edit_keeps_the_face_it_reads(editor, here, capsys):
    face = editor.generate(1, resolution=8).project
    face.save("a.safetensors")
    save_label_map(here / "b.png", face.labels)
    project = here / "a.safetensors"
    command = ["--checkpoint", str(editor.generator.source), "--project", "a.safetensors",
               "--labels", "b.png", "--no-vgg", "--out", "a.safetensors"]  # fmt: skip
    refused(capsys, project, project.read_bytes(), edit.main(command), "a.safetensors")


@pytest.mark.parametrize("name", ["image.png", "labels-0001.png", "turn.gif", "face-1.labels.png"])
def test_render_keeps_other_pictures(editor, here, capsys, name):
    other = here / name
    Image.open("photo.png").save(other)
    command = ["--checkpoint", str(editor.generator.source), "--resolution", "8", "--seeds", "1",
               "--yaws", "0", "0.2", "--out", "."]  # fmt: skip
    kinds = {"labels-0001.png": ["--kinds", "labels"],
             "turn.gif": ["--video", "turn.gif", "--frames", "2"],
             "face-1.labels.png": ["--save-projects"]}  # fmt: skip
    refused(capsys, other, other.read_bytes(), render.main(command + kinds.get(name, [])), name)


def test_render_replaces_its_own_pictures(editor, here):
    command = ["--checkpoint", str(editor.generator.source), "--resolution", "8", "--seeds", "1",
               "--kinds", "image", "labels", "--save-projects", "--out", "r"]  # fmt: skip
    assert render.main(command) == render.main(command) == 0
    for suffix in ("gif", "webp"):
        turn = [*command, "--video", f"sub/TURN.{suffix.upper()}", "--frames", "2"]
        assert render.main(turn) == render.main(turn) == 0
        assert (here / "r" / "sub" / f"TURN.{suffix.upper()}").is_file()


def test_export_keeps_weights_of_another_kind(editor, here, capsys):
    project = here / "a.safetensors"
    editor.generate(1, resolution=8).project.save(project)
    (here / "run").mkdir()
    code = export.main(["--run", "run", "--out", "a.safetensors"])
    refused(capsys, project, project.read_bytes(), code)


def test_export_names_its_own_option(here, capsys):
    assert export.main(["--run", "nothing", "--out", "a.safetensors"]) == 1
    assert "--run nothing: no such run folder" in capsys.readouterr().err


def test_gallery_keeps_the_page_of_a_project(editor, here, capsys):
    page = here / "README.md"
    page.write_text("# My project\n")
    command = ["--checkpoint", str(editor.generator.source), "--out", "."]
    refused(capsys, page, page.read_bytes(), gallery.main(command), "README.md")


def test_profile_keeps_what_lies_at_trace(here, capsys):
    before = (here / "photo.png").read_bytes()
    assert profile.main(["--preset", "tiny", "--trace", "photo.png"]) == 1
    assert "name another file" in capsys.readouterr().err
    assert (here / "photo.png").read_bytes() == before


def test_prepare_keeps_what_was_put_into_its_folder(here, capsys):
    write_pairs(here / "data", {"a": draw_labels(64)}, image_size=64)
    command = ["--data", "data", "--out", "packed", "--resolution"]
    assert prepare.main([*command, "16"]) == prepare.main([*command, "8"]) == 0
    notes = here / "packed" / "notes.txt"
    notes.write_text("mine")
    capsys.readouterr()
    assert prepare.main([*command, "16"]) == 1
    assert "notes.txt would be lost" in capsys.readouterr().err
    assert notes.read_text() == "mine"


def test_a_page_that_was_changed_is_its_writers(tmp_path):
    page = tmp_path / "report.md"
    save_page(page, "# Report\n")
    save_page(page, "# Report\n\nmore\n")
    page.write_text(page.read_text().replace("more", "my notes"))
    with pytest.raises(UserError, match="changed since"):
        save_page(page, "# Report\n")


def test_a_hard_link_to_an_input_counts_as_the_input(tmp_path):
    one, other = tmp_path / "a.png", tmp_path / "b.png"
    save_label_map(one, draw_labels(16))
    os.link(one, other)
    with pytest.raises(UserError, match="is read"):
        outputs.check_outputs([other], [one])


@pytest.mark.parametrize("name", ["a.gif", "a.webp"])
def test_animations_are_known_again(tmp_path, name):
    frames = [np.full((8, 8, 3), value, np.uint8) for value in (0, 200)]
    save_animation(tmp_path / name, frames, fps=10)
    assert is_own(tmp_path / name)
    Image.fromarray(frames[0]).save(tmp_path / name)
    assert not is_own(tmp_path / name)


def test_files_have_the_mode_that_the_umask_leaves(editor, tmp_path):
    before = os.umask(0o027)
    try:
        project = tmp_path / "a.safetensors"
        editor.generate(1, resolution=8).project.save(project)
        save_label_map(tmp_path / "b.png", draw_labels(8))
    finally:
        os.umask(before)
    for path in (project, tmp_path / "b.png"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_report_is_known_by_its_format(tmp_path):
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"accuracy": 1}))
    assert not is_own(path)
    path.write_text(json.dumps({"format": "semfaceedit-evaluation"}))
    assert is_own(path)


def test_a_folder_that_cannot_be_made_is_one_line(editor, here, capsys):
    name = 300 * "n"
    command = ["--checkpoint", str(editor.generator.source), "--seeds", "1", "--out", name]
    assert render.main(command) == 1
    said = capsys.readouterr().err
    assert "error: file name too long (" in said and "): choose another --out" in said
    assert said.count("\n") == 1


@dataclass(kw_only=True)
class Writing:
    """Options of a command that writes."""

    out: Path
    dry_run: bool = False


@pytest.mark.parametrize(
    "out,said",
    [("file/x", "file is or lies in a file"), ("/proc/x", "(/proc/x)"), ("a" * 300, "long")],
)
def test_an_out_that_cannot_be_written_is_refused_before_the_work(out, said, tmp_path, capsys):
    (tmp_path / "file").touch()
    work = []
    out = str(tmp_path / out)  # /proc/x stays as it is
    assert cli.run_command(Writing, work.append, ["--out", out], name="sample") == 1
    text = capsys.readouterr().err
    assert said in text and "choose another --out" in text and text.count("\n") == 1
    assert work == []
    assert cli.run_command(Writing, work.append, ["--out", out, "--dry-run"], name="sample") == 0
    assert len(work) == 1


@pytest.mark.parametrize("out", ["a/b/c.safetensors", "here", "."])
def test_the_look_at_an_out_leaves_nothing_behind(out, tmp_path):
    (tmp_path / "here").mkdir()
    before = sorted(tmp_path.rglob("*"))
    check_writable(tmp_path / out)
    assert sorted(tmp_path.rglob("*")) == before


INPUTS = {
    "--checkpoint", "--config", "--data", "--directions", "--encoder", "--image", "--images",
    "--inception-weights", "--init", "--labels", "--landmarks", "--parser", "--photograph",
    "--project", "--projects", "--resume", "--run", "--run-folder", "--source", "--target",
    "--training-data", "--vgg-weights",
}  # fmt: skip


def test_every_path_is_read_or_known_to_be_written():
    flags = {
        option.flag
        for options_type in OPTIONS.values()
        for option in cli.describe(options_type)
        if re.search(r"\bPath\b", str(option.type))
    }
    assert flags - INPUTS == {f"--{name}" for name in outputs.WRITTEN}


@pytest.mark.parametrize("name", outputs.WRITTEN)
def test_every_output_is_tried_before_the_work_and_named(name, tmp_path, capsys):
    options_type = make_dataclass("Options", [(name, Path)], kw_only=True)
    (tmp_path / "file").touch()
    work = []
    words = [f"--{name}", str(tmp_path / "file" / "x")]
    assert cli.run_command(options_type, work.append, words, name="sample") == 1
    assert f"choose another --{name}\n" in capsys.readouterr().err
    assert cli.run_command(options_type, work.append, [f"--{name}", "/proc/x"], name="sample") == 1
    assert f"choose another --{name}; " in capsys.readouterr().err
    assert work == []


@pytest.mark.parametrize("name", OPTIONS)
def test_a_file_in_the_place_of_a_folder_is_refused(name, tmp_path, capsys):
    """A default without a suffix names a folder."""
    (tmp_path / "file").touch()
    for option in cli.describe(OPTIONS[name]):
        if option.flag == "--out" and isinstance(option.default, Path):
            required = [o for o in cli.describe(OPTIONS[name]) if o.default is MISSING]
            words = [word for o in required for word in (o.flag, "a")]
            words += ["--out", str(tmp_path / "file")]
            options = cli.parse(OPTIONS[name], words, name=name)
            if option.default.suffix:
                outputs.check_written(options)
                continue
            with pytest.raises(UserError, match="file is or lies in a file: choose another --out"):
                outputs.check_written(options)


def test_a_full_disk_is_said_of_the_option_that_names_the_file(tmp_path, capsys):
    def fill(_options: object) -> None:
        raise OSError(28, "full", str(tmp_path / "b" / "x.png"))

    options_type = make_dataclass("Options", [("paste", Path), ("out", Path)], kw_only=True)
    words = ["--out", str(tmp_path / "a" / "x"), "--paste", str(tmp_path / "b" / "x.png")]
    assert cli.run_command(options_type, fill, words, name="sample") == 1
    said = capsys.readouterr().err
    assert "x.png): free some space or choose another --paste; " in said


def test_folders_are_made_when_there_is_something_to_write(editor, here, capsys):
    face = editor.generate(1, resolution=8).project
    face.save("a.safetensors")
    before = sorted(here.rglob("*"))
    command = ["--checkpoint", str(editor.generator.source), "--project", "a.safetensors",
               "--no-vgg", "--iterations", "1", "--out", "no/such/b.safetensors"]  # fmt: skip
    for wrong in (["--paint", "nothing"], ["--paint", "hat", "--paste", "no/other/p.png"],
                  ["--labels", "none.png"]):  # fmt: skip
        assert edit.main([*command, *wrong]) == 1
        assert capsys.readouterr().err.count("error: ") == 1
        assert sorted(here.rglob("*")) == before
    Image.fromarray(np.roll(face.labels, 1, 0)).save("map.png")
    assert edit.main([*command, "--labels", "map.png"]) == 0
    assert (here / "no" / "such" / "b.views.png").is_file()
