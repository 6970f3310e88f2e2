"""The face follows the brush: strokes are revisions, sharpened until something else happens."""

import time

import numpy as np
import pytest
import torch
from browser import CHROMIUM
from editor_page import editor_page, wait_for_revision
from editor_server import running
from faces import SIZE
from photographs import open_photograph

from semfaceedit.api import Editor
from semfaceedit.editing.encoder import EncoderSettings, follow_map, new_encoder
from semfaceedit.editing.fit_terms import StopFit
from semfaceedit.editing.project import FaceProject
from semfaceedit.editing.target import resize_labels
from semfaceedit.errors import UserError
from semfaceedit.web_editor.photograph_view import PastedFaces
from semfaceedit.web_editor.revisions import unpainted
from semfaceedit.web_editor.session import EditingSession

pytestmark = pytest.mark.usefixtures("one_thread")
HAIR = 13


def with_encoder(editor):
    """The same editor with an untrained encoder that answers to maps."""
    sizes = EncoderSettings(width=8, features=32, components=12)
    made = new_encoder(editor.generator, sizes, seed=3)
    random = torch.Generator().manual_seed(2)
    torch.nn.init.normal_(made.geometry.weight, std=0.1, generator=random)
    editor.encoder = made.eval().requires_grad_(False)
    return editor


@pytest.fixture(scope="module")
def editor(editor):
    return with_encoder(editor)


@pytest.fixture(scope="module")
def served(served):
    with_encoder(served[0].session.editor)
    return served


def painted(labels: np.ndarray, rows: int = 6) -> np.ndarray:
    labels = labels.copy()
    labels[:rows] = HAIR
    return labels


def same_shape(one, other) -> bool:
    return torch.equal(one.geometry.phases, other.geometry.phases)


def test_a_stroke_is_what_the_encoder_says_and_one_revision(session):
    face, labels = session.face, painted(session.face.labels)
    session.stroke(labels, "painted map")
    assert [r.painted for r in session.history[0]] == [False, True]
    assert same_shape(session.face, follow_map(session.editor.encoder, face, labels))
    assert not same_shape(session.face, face)
    assert np.array_equal(session.face.labels, labels)
    session.go(0)
    assert session.face is face
    session.go(1)
    assert np.array_equal(session.face.labels, labels)


def test_a_stroke_keeps_a_look_in_the_photograph(session):
    """What a face is sharpened from does not forget what its photograph shows."""
    open_photograph(session)
    plain, model = session.face, session.model
    below = plain.labels[len(plain.labels) // 2 :]  # the stroke
    group = model.group_of_class[np.bincount(below.flatten()).argmax()]
    session.look(model.group_names[group], 4)
    session.stroke(painted(session.face.labels))
    session.sharpen()
    known = session.face.origin
    assert torch.equal(known.appearance.phases, plain.appearance.phases)
    assert not torch.equal(session.face.appearance.phases, plain.appearance.phases)
    found = PastedFaces(session).pasted(session.revision).pasted.region[42:74, 30:94]
    own = np.isin(resize_labels(plain.labels, 64)[32:], np.flatnonzero(
        np.array(model.group_of_class) == group
    ))  # fmt: skip
    assert found[own].mean() > 0.5


def test_a_preview_changes_nothing_and_shows_the_stroke(session):
    labels, pose = painted(session.face.labels), (0.0, 0.0)
    history = session.history
    shown = session.view("image", pose, labels=labels)
    assert session.history is history
    own = session.view("image", pose)
    session.stroke(labels)
    again = session.view("image", pose)
    assert np.array_equal(shown, again) and not np.array_equal(shown, own)
    labels[0, 0] = 77
    with pytest.raises(UserError, match="labels hold 77"):
        session.view("image", pose, labels=labels)


def test_sharpening_takes_the_place_of_the_stroke(session, monkeypatch):
    monkeypatch.setattr("semfaceedit.web_editor.session.SHARPEN_SECONDS", 60.0)
    session.stroke(painted(session.face.labels))
    before = session.revision
    session.sharpen()
    after = session.revision
    assert (after.number, after.version) == (before.number, before.version + 1)
    assert not same_shape(after.project, before.project)
    told = dict(after.metrics)
    assert told["miou_groups"] >= told["start_miou_groups"] - 0.05
    assert len(session.history[0]) == 2


def test_sharpening_ends_where_it_is_when_the_next_stroke_comes(session):
    session.stroke(painted(session.face.labels))
    stroke = session.face

    def stop(*_):
        raise StopFit

    session.sharpen(stop)
    assert same_shape(session.face, stroke) and session.revision.version == 1


def test_sharpening_is_limited_in_time(session, monkeypatch):
    monkeypatch.setattr("semfaceedit.web_editor.session.SHARPEN_SECONDS", 0.0)
    session.stroke(painted(session.face.labels))
    stroke = session.face
    session.sharpen()
    assert same_shape(session.face, stroke)


def test_a_fit_that_fails_leaves_the_stroke_as_it_is(session, monkeypatch):
    session.stroke(painted(session.face.labels))
    stroke = session.face

    def fail(*_):
        raise UserError("it diverged")

    monkeypatch.setattr(session, "_sharpened", fail)
    with pytest.raises(UserError, match="diverged"):
        session.sharpen()
    assert session.face is stroke and session.revision.version == 1  # pages ask for a still view


def test_strokes_are_fitted_from_the_face_before_them_all(session):
    """What is held is the picture before the first stroke, with the looks of now."""
    first = session.face
    session.stroke(painted(first.labels))
    session.sharpen()
    session.look("hair", 9)
    session.stroke(painted(session.face.labels, 8))
    before = unpainted(*session.history)
    assert np.array_equal(before.labels, first.labels) and same_shape(before, first)
    assert torch.equal(before.appearance.phases, session.face.appearance.phases)
    session.stroke(first.labels, "reset")
    assert same_shape(session.face, first)
    session.sharpen()
    assert same_shape(session.face, first)


def test_refining_starts_at_the_followed_face(session):
    labels = painted(session.face.labels)
    session.stroke(labels)
    seen = []
    session.edit(labels, iterations=80, watch=lambda record, output, goal: seen.append(record.loss))
    assert not session.revision.painted and session.history[1] == 2
    assert min(seen) < seen[0]  # at rates for trained weights it rises at first
    assert np.array_equal(unpainted(*session.history).labels, labels)
    with pytest.raises(UserError, match="nothing to do"):
        session.edit(labels, iterations=5)


def test_without_an_encoder_nothing_follows(session, editor):
    plain = EditingSession(Editor(editor.generator, editor.config), session.saved.out)
    plain.choose(5)
    assert session.follows and not plain.follows
    with pytest.raises(UserError, match="no encoder .* Apply"):
        plain.stroke(painted(plain.face.labels))


# Over the socket.


def test_a_page_paints(served, client):
    server, _ = served
    assert client.about["follows"]
    header, maps = client.state
    cells = header["size"] ** 2
    number = header["numbers"][header["at"]]
    labels = painted(np.frombuffer(maps, np.uint8).reshape(2 * SIZE, -1)).tobytes()
    view = {"target": "face", "kind": "image", "yaw": 0, "pitch": 0, "moving": True}
    client.send("follow", labels, **view)
    assert client.wait("frame")[0]["moving"]
    client.send("stroke", labels, name="painted map", number=number)
    state, told = client.wait("state", version=0)
    assert state["at"] == header["at"] + 1 and not state["busy"]
    assert told[:cells] == labels and told[cells:] == maps
    state, _ = client.wait("state", version=1)
    assert state["metrics"]["labels_inside"] is not None and not state["busy"]
    client.send("go", revision=header["at"])
    assert client.wait("state", at=header["at"])[1] == maps
    client.send("stroke", labels, name="painted map", number=number + 10**6)
    assert "has changed" in client.wait("error")[0]["message"]
    client.send("follow", labels[:-1], **view)
    assert "bytes" in client.wait("error")[0]["message"]


def test_a_stroke_is_on_the_disk_at_its_end(served, client, monkeypatch):
    server, _ = served
    monkeypatch.setattr("semfaceedit.web_editor.changes.KEEP_AFTER", 600)
    header, maps = client.state
    cells = header["size"] ** 2
    labels = painted(np.frombuffer(maps[:cells], np.uint8).reshape(header["size"], -1))
    client.send("stroke", labels.tobytes(), number=header["numbers"][header["at"]], name="hair")
    end = time.monotonic() + 20
    root = server.session.revision.root
    while not any(
        np.array_equal(FaceProject.load(path).labels, labels)
        for path in server.session.saved.out.glob(f"autosave-*-{root}.safetensors")
    ):
        assert time.monotonic() < end
        time.sleep(0.05)
    if server.changes.sharpening is not None:
        client.wait("state", version=1)


def test_nothing_waits_for_sharpening(served, client, monkeypatch):
    """A fit without end gives way to the next stroke, to a preview and to any other change."""
    server, _ = served
    monkeypatch.setattr("semfaceedit.web_editor.session.SHARPEN_STEPS", 10**6)
    monkeypatch.setattr("semfaceedit.web_editor.session.SHARPEN_SECONDS", 60.0)
    header, maps = client.state
    labels = np.frombuffer(maps, np.uint8).reshape(2 * SIZE, -1)
    view = {"target": "face", "kind": "image", "yaw": 0, "pitch": 0, "moving": True}
    number, began = header["numbers"][header["at"]], time.monotonic()
    for rows in (4, 5):
        client.send("stroke", painted(labels, rows).tobytes(), name="painted map", number=number)
        state, _ = client.wait("state", version=0)
        number = state["numbers"][state["at"]]
    client.send("follow", painted(labels, 6).tobytes(), **view)
    client.wait("state", version=1)
    client.send("stroke", painted(labels, 6).tobytes(), name="painted map", number=number)
    client.wait("state", version=0)
    client.send("look", group="hair", seed=3, amount=1)
    while "hair like face 3" not in client.wait("state")[0]["revisions"]:
        pass
    assert time.monotonic() - began < 30 and server.changes.sharpening is None


# In a browser.


def test_the_face_follows_the_brush_in_the_page(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with running(tmp_path_factory.mktemp("editor"), seed=7) as (server, address):
        with_encoder(server.session.editor)
        folder = tmp_path_factory.mktemp("profile")
        with editor_page(address, folder) as page:
            shown = "document.querySelector('#apply').textContent"
            assert page.run(shown) == "Refine"
            face = "document.querySelector('#face').toDataURL()"
            page.run("new Promise(done => setTimeout(done, 500))")
            plain = page.run(face)
            session = server.session

            def at_revision(count: int, version: int = 1) -> None:
                for _ in range(200):
                    at = session.history[1]
                    if at == count and session.revision.version >= version:
                        break
                    page.run("new Promise(done => setTimeout(done, 50))")
                assert session.history[1] == count and session.revision.version >= version
                page.run("new Promise(done => setTimeout(done, 300))")

            page.drag("#map", (0.1, 0.1), (0.5, 0.1), (0.9, 0.1))
            at_revision(1)
            assert session.face.labels[3, 16] == HAIR
            followed = page.run(face)
            assert followed != plain
            page.drag("#map", (0.1, 0.9), (0.9, 0.9))
            at_revision(2)
            assert session.face.labels[3, 16] == session.face.labels[28, 16] == HAIR
            for count in (1, 0):
                page.press("z", control=True)
                at_revision(count, count)
            page.wait(f"{face} == {plain!r}")
            for count in (1, 2):
                page.press("y", control=True)
                at_revision(count)
            page.click("#reset")  # the map before all strokes, as one more
            at_revision(3)
            assert np.array_equal(session.face.labels, session.history[0][0].project.labels)
            page.press("z", control=True)
            at_revision(2)
            page.click("#apply")
            wait_for_revision(page, "refined")
            assert page.run("document.querySelector('#apply').disabled")
