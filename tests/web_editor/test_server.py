"""Messages of the editor's server over a real socket: answers, refusals and long work."""

import asyncio
import io
import signal
import time

import numpy as np
import pytest
from editor_server import Client, number_at_hand, with_hair_on_top
from faces import SIZE
from PIL import Image
from websockets.exceptions import ConnectionClosed

from semfaceedit.editing.mask_edits import EDITS
from semfaceedit.editing.project import FaceProject
from semfaceedit.errors import UserError
from semfaceedit.web_editor import outbox
from semfaceedit.web_editor import server as server_module
from semfaceedit.web_editor.messages import pack_message, unpack
from semfaceedit.web_editor.server import PageServer

pytestmark = pytest.mark.usefixtures("one_thread")
VIEW = {"target": "face", "kind": "image", "yaw": 0.2, "pitch": 0}
LONG = 2000


def picture(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


def test_messages_survive_packing():
    for header, payload in (({"type": "x", "name": "ü€"}, b"\0\1"), ({"type": "y"}, b"")):
        assert unpack(pack_message(header, payload)) == (header, payload)
    for wrong in (
        b"",
        b"\5\0\0\0{}",
        b"\2\0\0\0[]",
        b"\2\0\0\0{}",
        pack_message({"type": 3}),
        b"\xff" * 9,
    ):
        with pytest.raises(UserError, match="reload"):
            unpack(wrong)
    with pytest.raises(ValueError):
        pack_message({"type": "x", "value": float("nan")})


def test_views(served, client):
    server, _ = served
    for kind in ("image", "semantics", "depth", "normals"):
        header, data = client.ask("view", **VIEW | {"kind": kind})
        assert header["type"] == "frame" and header["target"] == "face"
        assert np.array_equal(picture(data), server.session.view(kind, (0.2, 0.0)))
    header, data = client.ask("view", **VIEW, moving=True)
    assert picture(data).shape[0] == header["size"] <= 2 * SIZE
    header, data = client.ask("faces", first=8)
    assert (header["first"], header["count"]) == (8, 8)
    assert np.array_equal(picture(data), server.session.views.faces(range(8, 16)))
    header, data = client.ask("looks", group="hair", first=0)
    assert np.array_equal(picture(data), server.session.looks("hair", range(8)))


HAIR = {"region": "hair", "iterations": 1}


@pytest.mark.parametrize(
    "kind, fields, reason",
    [
        ("view", VIEW | {"kind": "x"}, "no picture 'x'"),
        ("view", VIEW | {"yaw": 9}, "yaw is 9: a number from -1.2 to 1.2"),
        ("view", VIEW | {"yaw": "a"}, "yaw is 'a'"),
        ("view", VIEW | {"pitch": None}, "pitch is None"),
        ("view", VIEW | {"revision": 1.5}, "a whole number is needed"),
        ("choose", {"seed": -1}, "seed is -1"),
        ("choose", {"seed": True}, "seed is True"),
        ("choose", {}, "seed is None"),
        ("open", {"name": "../../etc/passwd"}, "there is no face"),
        ("save", {"name": "../x"}, "not a name for a face"),
        ("look", {"group": "ears", "seed": 1, "amount": 1}, "no group 'ears'"),
        ("go", {"revision": 99}, "no revision 99"),
        ("paint", {"name": "hat"}, "a map of 0 bytes, 32x32 are needed"),
        ("transfer", HAIR | {"seed": 1, "what": "x"}, "what is 'x': use one of appearance, "),
        ("view", VIEW | {"target": {"a": 1}}, "target is {'a': 1}: use one of face, map"),
        ("save", {"name": "a\0b"}, "characters that are no text"),
        ("open", {"name": "\ud800"}, "characters that are no text"),
        ("transfer", HAIR | {"project": "x", "what": "both"}, "no face"),
        ("edit", {"iterations": 1}, "a map of 0 bytes"),
        ("invert", {"split": 5, "name": "a"}, "split is 5"),
        ("dance", {}, "no message 'dance'"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_and_changes_nothing(served, client, kind, fields, reason):
    server, _ = served
    before = server.session.history
    header, _ = client.ask(kind, **fields)
    assert header["type"] == "error" and reason in header["message"]
    assert server.session.history == before
    assert client.ask("view", **VIEW)[0]["type"] == "frame"


@pytest.mark.parametrize(
    "message",
    [
        b"\1\2",
        (200_000).to_bytes(4, "little") + b"[" * 200_000,
        (1000).to_bytes(4, "little") + b"[" * 1000,
        (1 << 17).to_bytes(4, "little") + b'{"type": "stop"}'.ljust(1 << 17),
    ],
)
def test_what_is_not_a_message_is_told(client, message):
    client.socket.send(message)
    assert "reload" in client.wait("error")[0]["message"]
    assert client.ask("view", **VIEW)[0]["type"] == "frame"


def test_a_defect_is_told_and_leaves_a_trace(served, client, monkeypatch, capfd):
    def fail(*_, **__):
        raise ZeroDivisionError("broken on purpose")

    monkeypatch.setattr(served[0].session, "view", fail)
    header, _ = client.ask("view", **VIEW)
    assert header["type"] == "error" and "the terminal" in header["message"]
    assert "broken on purpose" in capfd.readouterr().err


@pytest.mark.parametrize(
    "fields", [{"type": "x" * 60000}, VIEW | {"type": "view", "yaw": "x" * 60000}]
)
def test_an_error_repeats_little_of_what_was_sent(client, fields):
    client.socket.send(pack_message(fields))
    header, _ = client.wait("error")
    assert len(header["message"]) < 200 and "x...x" in header["message"]


def test_pictures_that_nobody_waits_for_are_bounded(served, client, monkeypatch):
    server, _ = served
    draw = server.session.view
    monkeypatch.setattr(server.session, "view", lambda *a, **k: time.sleep(0.1) or draw(*a, **k))
    for _ in range(server_module.MOST_WANTED + 20):
        client.send("view", **VIEW)
    assert "too many pictures" in client.wait("error")[0]["message"]


def test_changes_reach_every_page(served, client):
    _, address = served
    with Client(address) as second:
        second.wait("state")
        client.send("look", group="hair", seed=9, amount=0.5)
        for each in (client, second):
            state, _ = each.wait("state")
            assert state["revisions"][-1] == "hair like face 9" and state["seeds"][-1] is None
            assert state["looks"][-1] == {"group": "hair", "seed": 9, "amount": 0.5}
        second.send("go", revision=state["at"] - 1)
        for each in (client, second):
            assert each.wait("state")[0]["at"] == state["at"] - 1
        client.send("save", name="a face")
        assert "a face" in second.wait("state")[0]["projects"]
        assert client.wait("saved")[0]["path"].endswith("a face.safetensors")
        second.send("open", name="a face")
        assert second.wait("state")[0]["revisions"][-1] == "a face"


def test_an_edit_reports_and_is_kept(served, client):
    server, _ = served
    _, labels = client.ask("go", revision=server.session.history[1])
    painted = with_hair_on_top(labels)
    client.send("edit", painted, number=number_at_hand(server), iterations=20, name="fringe")
    assert "follows" in client.wait("state")[0]["busy"]
    header, data = client.wait("progress")
    assert header["iterations"] == 20 and 0 <= header["agreement"] <= 1
    assert picture(data).shape == (SIZE, SIZE, 3)
    state, after = client.wait("state", busy="")
    assert state["revisions"][-1] == "fringe" and after == painted
    assert 0 <= state["metrics"]["labels_inside"] <= 1
    kept = [name for name in state["projects"] if name.startswith("autosave")]
    saved = FaceProject.load(server.session.saved.out / f"{kept[0]}.safetensors")
    assert saved.labels.tobytes() == painted


def test_while_it_runs_views_go_on_and_changes_wait(served, client):
    server, _ = served
    _, labels = client.ask("go", revision=server.session.history[1])
    client.send("edit", with_hair_on_top(labels), number=number_at_hand(server), iterations=LONG)
    client.wait("progress")
    client.send("choose", seed=1)
    assert "wait, or press Stop" in client.wait("error")[0]["message"]
    client.send("view", **VIEW)
    client.wait("frame")
    client.send("stop")
    state, _ = client.wait("state", busy="")
    assert state["revisions"][-1] == "painted map (stopped)"
    assert server.session.face.iterations < LONG


def test_an_edit_that_cannot_be_ends_with_its_reason(served, client):
    _, labels = client.ask("go", revision=served[0].session.history[1])
    client.send("edit", labels, number=number_at_hand(served[0]), iterations=5)
    assert "nothing to do" in client.wait("error")[0]["message"]
    assert client.wait("state")[0]["busy"] == ""


def test_what_cannot_be_measured_is_null(served, client):
    """Where the whole map changes, nothing is left outside of the region."""
    server, _ = served
    painted = np.full(4 * SIZE**2, 14, np.uint8).tobytes()
    client.send("edit", painted, number=number_at_hand(server), iterations=1)
    client.wait("state", busy="the face follows the map")
    state, _ = client.wait("state", busy="")
    assert state["metrics"]["change_outside"] is None
    assert state["metrics"]["change_inside"] >= 0


def test_a_map_of_another_face_is_refused(served, client):
    server, _ = served
    _, labels = client.ask("go", revision=server.session.history[1])
    number = number_at_hand(server)
    client.send("choose", seed=9)
    client.send("edit", with_hair_on_top(labels), number=number, iterations=5)
    assert "has changed since" in client.wait("error")[0]["message"]
    assert server.session.revision.name == "face 9"


def test_a_page_that_takes_no_message_is_closed(served, client, monkeypatch, capfd):
    """And learns, when it comes back, what it missed; the other one waits no longer than that."""
    server, address = served
    monkeypatch.setattr(outbox, "PATIENCE", 1.0)
    before = set(server.changes.pages)
    with Client(address) as stalled:
        stalled.wait("state")
        (mine,) = set(server.changes.pages) - before
        monkeypatch.setattr(mine, "send_bytes", lambda message: asyncio.sleep(60))
        began = time.monotonic()
        for seed in range(3):
            client.send("choose", seed=seed)
            client.wait("state")
        assert time.monotonic() - began < 0.9
        with pytest.raises(ConnectionClosed):
            stalled.wait("nothing")
    client.ask("view", **VIEW)
    assert "Traceback" not in capfd.readouterr().err


def test_stop_does_not_wait_for_pictures(served, client, monkeypatch):
    server, _ = served
    draw = server.session.view
    monkeypatch.setattr(server.session, "view", lambda *a, **k: time.sleep(0.3) or draw(*a, **k))
    server.changes.stopping.clear()
    for _ in range(10):
        client.send("view", **VIEW)
    client.send("stop")
    assert server.changes.stopping.wait(2)  # the pictures take 3 seconds
    for _ in range(10):
        client.wait("frame")


def test_a_transfer_and_a_map_by_code(served, client):
    client.send("transfer", seed=9, what="appearance", region="hair", iterations=1)
    assert client.wait("state", busy="")[0]["revisions"][-1] == "look of hair from face 9"
    labels = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    labels[:12] = 13
    labels[12:] = 1
    labels[14:16, 8:12], labels[14:16, 20:24] = 7, 6
    header, painted = client.ask("paint", labels.tobytes(), name="hat")
    assert header["type"] == "map"
    assert painted == EDITS["hat"](labels).tobytes() and painted != labels.tobytes()


def test_told_to_end_a_fit_is_stopped_first(served):
    server, _ = served
    server.changes.stopping.clear()
    PageServer(server).handle_exit(signal.SIGINT, None)
    assert server.changes.stopping.is_set()
