"""The editor's session: what changes a face adds a revision, and views show what a render shows."""

import functools
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from face_maps import draw_labels, paint
from faces import SIZE
from PIL import Image

from semfaceedit import api
from semfaceedit.api import EditSettings, Generator, edit, generate, transfer
from semfaceedit.data.decoding import save_label_map
from semfaceedit.editing.fit_terms import StopFit
from semfaceedit.editing.project import FaceProject
from semfaceedit.errors import UserError
from semfaceedit.invert import InvertSettings
from semfaceedit.model.generator import seed_codes
from semfaceedit.model.renderer import render
from semfaceedit.pictures.grids import picture_rows
from semfaceedit.web_editor import face_views, saved_faces
from semfaceedit.web_editor.session import EditingSession

pytestmark = pytest.mark.usefixtures("one_thread")
HAIR, FACE, GARMENT, BACKGROUND = range(4)
NAMES = ("hair", "face", "garment", "background")


@pytest.fixture(scope="module")
def generator(editor) -> Generator:
    return editor.generator


def drawn(generator, project, pose, size, kind="image") -> np.ndarray:
    """The picture of a project, without the session."""
    with torch.no_grad():
        codes = project.codes(generator)
        output = render(project.generator(generator), codes, torch.tensor([pose]), size)
    return picture_rows(output, generator.config.camera)[kind][0].numpy()


def painted(session) -> np.ndarray:
    """The map with hair in its upper rows; faces 7 and 2 of these weights follow it."""
    labels = session.face.labels.copy()
    labels[:6] = 13
    return labels


def test_faces_and_steps(session):
    assert session.face.labels.shape == (2 * SIZE, 2 * SIZE)
    first = session.face
    session.choose(6)
    session.choose(7)
    assert [r.name for r in session.history[0]] == ["face 5", "face 6", "face 7"]
    session.go(0)
    assert session.face is first
    session.go(1)
    session.choose(8)
    assert [r.name for r in session.history[0]] == ["face 5", "face 6", "face 8"]
    assert len({r.number for r in session.history[0]}) == 3
    for index in (-1, 3):
        with pytest.raises(UserError, match="there is no revision"):
            session.go(index)


def test_steps_are_bounded(session, monkeypatch):
    monkeypatch.setattr("semfaceedit.web_editor.session.MOST_STEPS", 3)
    for seed in range(5):
        session.choose(seed)
    assert [r.name for r in session.history[0]] == ["face 2", "face 3", "face 4"]
    assert session.history[1] == 2


@pytest.mark.parametrize("group", [HAIR, FACE, BACKGROUND])
def test_a_look_is_that_of_the_seed_in_its_group_alone(session, generator, group):
    before = session.face
    session.look(NAMES[group], 9)
    wanted = generate(generator, 9).project.appearance
    for index in range(4):
        source = wanted if index == group else before.appearance
        for part in ("frequencies", "phases"):
            found = getattr(session.face.appearance, part)[index]
            assert torch.allclose(found, getattr(source, part)[index], atol=1e-6)
    assert session.face.geometry is before.geometry
    assert np.array_equal(session.face.labels, before.labels)


def test_looks_of_a_group_are_one_step_from_one_face(session):
    start = session.face.appearance.phases
    session.look("hair", 9, 1.0)
    session.look("hair", 8, 1.0)
    session.look("hair", 8, 0.25)
    quarter = session.face.appearance.phases[HAIR]
    session.look("hair", 8, 1.0)
    assert len(session.history[0]) == 2
    whole = session.face.appearance.phases[HAIR]
    assert torch.allclose(quarter, start[HAIR] + 0.25 * (whole - start[HAIR]), atol=1e-6)
    session.look("hair", 8, 0.0)
    assert torch.equal(session.face.appearance.phases, start)
    session.look("face", 8)
    session.look("hair", 9)
    assert len(session.history[0]) == 4
    with pytest.raises(UserError, match="no group 'beard'.*hair, face"):
        session.look("beard", 1)


def test_views_are_renders_also_after_a_look(session, generator):
    pose = (0.3, -0.1)
    for kind in face_views.KINDS:
        shown = session.view(kind, pose)
        assert np.array_equal(shown, drawn(generator, session.face, pose, 2 * SIZE, kind)), kind
    old = session.view("image", pose)
    session.look("face", 9)
    new = session.view("image", pose)
    assert not np.array_equal(old, new)
    expected = drawn(generator, session.face, pose, 2 * SIZE)
    assert np.abs(new.astype(int) - expected).max() <= 1  # the colours alone were made anew
    assert np.array_equal(session.view("image", pose, revision=0), old)
    side = session.view("image", (-0.3, -0.1))
    assert np.array_equal(side, drawn(generator, session.face, (-0.3, -0.1), 2 * SIZE))
    with pytest.raises(UserError, match="no picture 'x'"):
        session.view("x", pose)


def test_a_view_without_room_for_shading_is_rendered_anew(session, generator, monkeypatch):
    monkeypatch.setattr(face_views, "SHADING_BYTES", 0)
    session.view("image", (0.0, 0.0))
    session.look("hair", 9)
    expected = drawn(generator, session.face, (0.0, 0.0), 2 * SIZE)
    assert np.array_equal(session.view("image", (0.0, 0.0)), expected)


@pytest.mark.parametrize("seconds, size", [(1e9, 2 * SIZE), (1e-9, face_views.SMALLEST_FRAME)])
def test_moving_frames_are_as_large_as_time_allows(session, generator, monkeypatch, seconds, size):
    session.view("image", (0.0, 0.0))
    monkeypatch.setattr(face_views, "FRAME_SECONDS", seconds)
    frame = session.view("image", (0.1, 0.0), moving=True)
    assert frame.shape == (size, size, 3)
    change = np.abs(frame.astype(int) - drawn(generator, session.face, (0.1, 0.0), size)).max()
    assert change <= np.ceil(255 * 1.001 * session.model.manifolds * face_views.FRAME_CULL)
    for kind in ("semantics", "depth"):
        quick = session.view(kind, (0.1, 0.0), moving=True)
        assert np.array_equal(quick, drawn(generator, session.face, (0.1, 0.0), size, kind))
    assert session.view("image", (0.1, 0.0)).shape == (2 * SIZE, 2 * SIZE, 3)


def test_thumbnails(session, generator):
    strip = session.views.faces(range(2, 5))
    assert strip.shape == (SIZE, 3 * SIZE, 3)
    with torch.no_grad():
        one = render(generator, seed_codes(generator, 3), torch.zeros(1, 2), SIZE)
    assert np.array_equal(strip[:, SIZE : 2 * SIZE], picture_rows(one)["image"][0].numpy())
    looks = session.looks("face", range(2, 5))
    session.look("face", 4)
    expected = drawn(generator, session.face, (0.0, 0.0), SIZE)
    assert np.abs(looks[:, 2 * SIZE :].astype(int) - expected).max() <= 1
    assert not np.array_equal(looks[:, :SIZE], looks[:, 2 * SIZE :])


def test_seeds_that_are_none_are_said(session):
    for work in (lambda: session.views.faces([]), lambda: session.looks("hair", [])):
        with pytest.raises(UserError, match="no seeds"):
            work()
    with pytest.raises(UserError, match="seed 1180591620717411303424"):
        session.choose(2**70)
    assert len(session.history[0]) == 1


@pytest.mark.parametrize("size", [SIZE // 2, 3 * SIZE // 2])
def test_a_face_inverted_at_another_size_is_edited(editor, generator, tmp_path, size):
    """Its map has other sides than twice those of the checkpoint."""
    session = EditingSession(editor, tmp_path)
    generate(generator, 7, resolution=size).project.save(tmp_path / "face.safetensors")
    session.open(tmp_path / "face.safetensors")
    goals = []
    session.edit(
        np.full_like(session.face.labels, 13), iterations=1,
        watch=lambda record, output, goal: goals.append(goal.semantics),
    )  # fmt: skip
    assert (goals[0][:, 13] == 1).all() and session.face.labels.shape == (size, size)


def test_an_edit_is_that_of_the_api(session, generator):
    session.choose(7)
    start, labels = session.face, painted(session)
    session.edit(labels, iterations=30, name="a fringe")
    settings = EditSettings(iterations=30, perceptual_weight=0, resolution=SIZE)
    expected = edit(generator, start, labels, settings=settings)
    assert torch.equal(session.face.geometry.phases, expected.project.geometry.phases)
    assert not torch.equal(session.face.geometry.phases, start.geometry.phases)
    assert np.array_equal(session.face.labels, labels)
    assert session.revision.name == "a fringe"
    assert dict(session.revision.metrics) == expected.project.metrics
    with pytest.raises(UserError, match="nothing to do"):
        session.edit(labels)
    assert len(session.history[0]) == 3


def test_a_stopped_edit_keeps_the_best_so_far(session):
    def watch(record, output, goal):
        if record.iteration >= 10:
            raise StopFit

    session.edit(painted(session), iterations=500, watch=watch)
    assert session.revision.name == "painted map (stopped)"
    assert session.face.iterations <= 20


def test_transfers_from_seeds_and_saved_faces(session, generator):
    start = session.face
    session.transfer(9, "appearance", ["hair"])
    giver = generate(generator, 9).project
    assert torch.equal(session.face.appearance.phases[HAIR], giver.appearance.phases[HAIR])
    assert session.revision.name == "look of hair from face 9"
    session.choose(9)
    session.save("nine")
    session.go(0)
    session.transfer(session.saved.file("nine"), "geometry", ["face"], iterations=30)
    settings = EditSettings(iterations=30, perceptual_weight=0, resolution=SIZE)
    saved = FaceProject.load(session.saved.out / "nine.safetensors")
    expected = transfer(
        generator, start, saved, what="geometry", region=["face"], settings=settings
    )
    assert torch.equal(session.face.geometry.phases, expected.project.geometry.phases)
    assert not torch.equal(session.face.geometry.phases, start.geometry.phases)
    assert session.revision.name == "shape of face from nine"


def test_a_map_from_another_side(session, generator):
    before = session.face
    session.turn((0.4, 0.1))
    assert session.face.pose.tolist() == pytest.approx([0.4, 0.1])
    with torch.no_grad():
        codes = before.codes(generator)
        output = render(generator, codes, torch.tensor([[0.4, 0.1]]), 2 * SIZE)
    assert np.array_equal(session.face.labels, output.labels[0].numpy())
    assert torch.equal(session.face.geometry.phases, before.geometry.phases)
    session.edit(painted(session), iterations=2)
    assert session.face.pose.tolist() == pytest.approx([0.4, 0.1])


def test_saved_faces_come_back_and_none_is_overwritten(session, generator):
    session.look("hair", 9)
    first = session.save("my face")
    session.look("hair", 8)
    second = session.save("my face")
    assert [first.name, second.name] == ["my face.safetensors", "my face-2.safetensors"]
    assert set(session.saved.names()) == {"my face", "my face-2"}
    labels = np.array(Image.open(session.saved.out / "my face.labels.png"))
    assert np.array_equal(labels, session.face.labels)
    wanted = session.face
    other = EditingSession(session.editor, session.saved.out)
    other.open(other.saved.file("my face-2"))
    assert torch.equal(other.face.appearance.phases, wanted.appearance.phases)
    assert np.array_equal(other.face.preview, drawn(generator, wanted, (0.0, 0.0), SIZE))
    other.open(first)
    assert other.revision.name == "my face"
    for name in ("", "../up", "a/b", ".hidden", "tuned-1", "x" * 90):
        with pytest.raises(UserError, match="not a name for a face"):
            session.save(name)
    with pytest.raises(UserError, match="too long for a file"):
        session.save("漢" * 80)
    with pytest.raises(UserError, match="there is no face 'none'"):
        session.saved.file("none")


def test_what_would_be_lost_is_kept(session):
    assert session.autosave() is None  # a seed can be had again
    session.look("hair", 9)
    path = session.autosave()
    assert path is not None and path.exists()
    written = path.stat().st_mtime_ns
    assert session.autosave() == path and path.stat().st_mtime_ns == written
    kept = FaceProject.load(path)
    assert torch.equal(kept.appearance.phases, session.face.appearance.phases)
    session.save("mine.safetensors")
    assert session.saved.names() == ["mine"] and session.autosave() is None
    assert not list(session.saved.out.glob("autosave*"))


def test_an_autosave_of_another_face_stays(session):
    session.look("hair", 9)
    first = session.face
    path = session.autosave()
    session.look("face", 9)
    session.save("later")
    assert path is not None and path.exists()
    assert torch.equal(FaceProject.load(path).appearance.phases, first.appearance.phases)
    session.go(1)
    session.save("earlier")
    assert not path.exists() and set(session.saved.names()) == {"later", "earlier"}


@pytest.mark.parametrize("taken", ["my face.safetensors", "my face.labels.png"])
def test_saving_overwrites_no_file_of_the_users(session, taken):
    session.saved.out.mkdir()
    (session.saved.out / taken).write_text("mine")
    assert session.save("my face").name == "my face-2.safetensors"
    assert (session.saved.out / taken).read_text() == "mine"
    assert (session.saved.out / "my face-2.labels.png").exists()


def test_a_full_disk_leaves_no_half_of_a_face(session, monkeypatch):
    def full(path, labels):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(saved_faces, "save_label_map", full)
    with pytest.raises(OSError, match="No space left"):
        session.save("my face")
    assert not list(session.saved.out.iterdir()) and not session.saved.names()


def test_each_face_has_an_autosave_of_its_own(session):
    session.look("hair", 9)
    first, kept = session.face, session.autosave()
    session.choose(6)
    session.look("hair", 8)
    second = session.autosave()
    assert kept != second
    assert torch.equal(FaceProject.load(kept).appearance.phases, first.appearance.phases)
    session.go(1)
    session.look("face", 8)
    assert session.autosave() == kept


def test_a_face_that_was_not_saved_is_offered_at_the_next_start(session):
    assert session.saved.recovered == ""
    session.look("hair", 9)
    kept = session.autosave()
    assert EditingSession(session.editor, session.saved.out).saved.recovered == kept.stem
    os.utime(kept, (1, 1))
    session.save("newer")
    assert EditingSession(session.editor, session.saved.out).saved.recovered == ""


def test_a_face_that_is_none_changes_nothing(session, monkeypatch):
    """As where a fit diverged: no later state holds it."""
    before = session.history
    broken = replace(session.face, pose=torch.tensor([float("nan"), 0.0]))
    monkeypatch.setattr(FaceProject, "load", lambda *_: broken)
    with pytest.raises(UserError, match="the new face has a pose of"):
        session.open(session.saved.out / "face.safetensors")
    assert session.history == before


@pytest.mark.skipif(os.name != "posix", reason="pipes and names that are no text")
def test_what_is_no_regular_file_is_not_listed(session):
    session.save("mine")
    os.mkfifo(session.saved.out / "pipe.safetensors")
    os.symlink("/dev/zero", session.saved.out / "zero.safetensors")
    (session.saved.out / "folder.safetensors").mkdir()
    with open(os.fsencode(session.saved.out) + b"/\xff.safetensors", "w"):
        assert session.saved.names() == ["mine"]


def test_thumbnails_of_saved_faces(session):
    session.save("mine")
    preview = FaceProject.load(session.saved.file("mine")).preview
    assert np.array_equal(session.saved.thumbnail("mine"), preview)
    with pytest.raises(UserError, match="there is no face"):
        session.saved.thumbnail("none")


def test_a_photograph(editor, tmp_path, monkeypatch):
    """Found as `invert` finds it; a mask without a face is refused and changes nothing."""
    session = EditingSession(editor, tmp_path)
    session.choose(1)
    labels = draw_labels(128)
    Image.fromarray(paint(labels)).save(tmp_path / "ann.png")
    save_label_map(tmp_path / "mask.png", labels)
    short = functools.partial(InvertSettings, geometry_iterations=2, appearance_iterations=2)
    monkeypatch.setattr(editor, "invert_settings", short)
    seen = []
    session.invert(
        tmp_path / "ann.png", tmp_path / "mask.png", watch=lambda record, *_: seen.append(record)
    )
    assert session.revision.name == "ann" and len(seen) >= 3
    assert session.face.labels.shape == (2 * SIZE, 2 * SIZE)
    save_label_map(tmp_path / "empty.png", np.zeros((64, 64), np.uint8))
    with pytest.raises(UserError, match="shows no face"):
        session.invert(tmp_path / "ann.png", tmp_path / "empty.png")
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "black.png")
    with pytest.raises(UserError, match="no face was found"):
        session.invert(tmp_path / "black.png", None)
    assert len(session.history[0]) == 2


def test_a_photograph_without_a_map(editor, tmp_path, monkeypatch):
    """It is read off by the editor's own parser, and then counts like one that is given."""
    labels, parser = draw_labels(128), (object(), object())

    def read(image, out, *, parser):
        assert (image, parser) == (tmp_path / "ann.png", editor.parser)
        save_label_map(out, labels)
        return SimpleNamespace(placed={}, pose=None)

    Image.fromarray(paint(labels)).save(tmp_path / "ann.png")
    short = functools.partial(InvertSettings, geometry_iterations=2, appearance_iterations=2)
    monkeypatch.setattr(editor, "invert_settings", short)
    monkeypatch.setattr(api, "parse_file", read)
    monkeypatch.setattr(editor, "parser", parser)
    session = EditingSession(editor, tmp_path)
    session.choose(1)
    session.invert(tmp_path / "ann.png", None)
    save_label_map(tmp_path / "mask.png", labels)
    found = session.face
    session.invert(tmp_path / "ann.png", tmp_path / "mask.png")
    assert np.array_equal(session.face.labels, found.labels) and found.labels.any()
