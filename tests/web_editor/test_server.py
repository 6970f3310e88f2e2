"""The editor's server over a real socket: answers, refusals, long work, and how it ends."""

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings

import numpy as np
import pytest
import torch
from editor_server import KEY, Client, running
from faces import SIZE, write_checkpoint
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from websockets.exceptions import ConnectionClosed, InvalidStatus

from semfaceedit import editor as command
from semfaceedit.editing.mask_edits import EDITS
from semfaceedit.editing.project import FaceProject
from semfaceedit.errors import UserError
from semfaceedit.model.labels import CLASS_NAMES
from semfaceedit.web_editor import http, outbox
from semfaceedit.web_editor import server as server_module
from semfaceedit.web_editor.messages import pack_message, unpack
from semfaceedit.web_editor.server import WRONG_KEY, PageServer
from semfaceedit.web_editor.uploads import clean_name

pytestmark = pytest.mark.usefixtures("one_thread")
VIEW = {"target": "face", "kind": "image", "yaw": 0.2, "pitch": 0}
LONG = 2000


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    with running(tmp_path_factory.mktemp("editor")) as made:
        yield made


@pytest.fixture
def page(editor):
    """A page on the face of seed 5, past its first two messages."""
    server, address = editor
    server.session.choose(5)
    with Client(address) as client:
        client.wait("about")
        client.wait("state")
        yield client
        server.stopping.set()
        while server.job is not None:
            time.sleep(0.01)


def picture(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)))


def other_map(labels: bytes) -> bytes:
    painted = np.frombuffer(labels, np.uint8).copy()
    painted[: len(painted) // 4] = 13
    return painted.tobytes()


def at_hand(server) -> int:
    """The number of the revision that a map was painted on."""
    return server.session.revision.number


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


def test_a_page_learns_all_it_needs(editor):
    server, address = editor
    with Client(address) as page:
        about, _ = page.wait("about")
        state, labels = page.wait("state")
    assert about["classes"] == list(CLASS_NAMES) and about["edits"] == list(EDITS)
    assert len(about["colors"]) == 19 and about["groups"][0] == "hair"
    assert state["size"] == 2 * SIZE and len(labels) == 4 * SIZE**2
    assert state["steps"][state["at"]] == "face 5" and state["busy"] == ""


def test_the_files_of_the_page(editor):
    _, address = editor
    for name, kind in (("", "html"), ("main.js", "javascript"), ("style.css", "css")):
        with urllib.request.urlopen(f"http://{address}/{name}") as answer:
            assert kind in answer.headers["content-type"]
            assert "default-src 'self'" in answer.headers["content-security-policy"]
    with urllib.request.urlopen(f"http://{address}/") as answer:
        assert "http://" not in answer.read().decode()  # nothing comes from elsewhere
    for name in ("../session.py", "%2e%2e/session.py", "none"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{address}/{name}")


def test_other_sites_are_refused(editor):
    _, address = editor
    for origin in ("http://evil.example", "http://127.0.0.1:1", None):
        with pytest.raises(InvalidStatus, match="403") as refused:
            Client(address, origin=origin)
        for name, value in http.HEADERS.items():
            assert refused.value.response.headers[name] == value
    request = urllib.request.Request(f"http://{address}/", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


@pytest.mark.parametrize("key", ["", "another key", KEY[:-1], KEY + "s", "\u00e9"])
def test_who_does_not_know_the_key_is_refused(editor, key):
    server, address = editor
    with Client(address, key) as client:
        with pytest.raises(ConnectionClosed) as closed:
            client.hear()
        assert closed.value.rcvd.code == WRONG_KEY and not server.pages


def test_the_key_is_kept_for_its_owner(tmp_path, monkeypatch):
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path / "cache"))
    key, path = command.page_key(), tmp_path / "cache" / "editor-key"
    assert len(key) >= command.KEY_BYTES and command.page_key() == key == path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)  # others may have read it
    assert command.page_key() != key
    path.write_text("short")
    assert len(command.page_key()) >= command.KEY_BYTES
    path.write_bytes(b"\xff" * 30)
    assert command.page_key() == path.read_text()
    path.unlink()
    path.mkdir()  # nothing can be kept
    assert command.page_key() != command.page_key()


def test_it_listens_on_loopback_alone():
    with command.listen(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_views(editor, page):
    server, _ = editor
    for kind in ("image", "semantics", "depth", "normals"):
        header, data = page.ask("view", **VIEW | {"kind": kind})
        assert header["type"] == "frame" and header["target"] == "face"
        assert np.array_equal(picture(data), server.session.view(kind, (0.2, 0.0)))
    header, data = page.ask("view", **VIEW, moving=True)
    assert picture(data).shape[0] == header["size"] <= 2 * SIZE
    header, data = page.ask("faces", first=8)
    assert (header["first"], header["count"]) == (8, 8)
    assert np.array_equal(picture(data), server.session.views.faces(range(8, 16)))
    header, data = page.ask("looks", group="hair", first=0)
    assert np.array_equal(picture(data), server.session.looks("hair", range(8)))


HAIR = {"region": "hair", "iterations": 1}


@pytest.mark.parametrize(
    "kind, fields, reason",
    [
        ("view", VIEW | {"kind": "x"}, "no picture 'x'"),
        ("view", VIEW | {"yaw": 9}, "yaw is 9: a number from -1.2 to 1.2"),
        ("view", VIEW | {"yaw": "a"}, "yaw is 'a'"),
        ("view", VIEW | {"pitch": None}, "pitch is None"),
        ("view", VIEW | {"step": 1.5}, "a whole number is needed"),
        ("choose", {"seed": -1}, "seed is -1"),
        ("choose", {"seed": True}, "seed is True"),
        ("choose", {}, "seed is None"),
        ("open", {"name": "../../etc/passwd"}, "there is no face"),
        ("save", {"name": "../x"}, "not a name for a face"),
        ("look", {"group": "ears", "seed": 1, "amount": 1}, "no group 'ears'"),
        ("go", {"step": 99}, "no step 99"),
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
def test_what_cannot_be_is_told_and_changes_nothing(editor, page, kind, fields, reason):
    server, _ = editor
    before = server.session.history
    header, _ = page.ask(kind, **fields)
    assert header["type"] == "error" and reason in header["message"]
    assert server.session.history == before
    assert page.ask("view", **VIEW)[0]["type"] == "frame"


@pytest.mark.parametrize(
    "message",
    [
        b"\1\2",
        (200_000).to_bytes(4, "little") + b"[" * 200_000,
        (1000).to_bytes(4, "little") + b"[" * 1000,
        (1 << 17).to_bytes(4, "little") + b'{"type": "stop"}'.ljust(1 << 17),
    ],
)
def test_what_is_not_a_message_is_told(page, message):
    page.socket.send(message)
    assert "reload" in page.wait("error")[0]["message"]
    assert page.ask("view", **VIEW)[0]["type"] == "frame"


def test_a_defect_is_told_and_leaves_a_trace(editor, page, monkeypatch, capfd):
    def fail(*_, **__):
        raise ZeroDivisionError("broken on purpose")

    monkeypatch.setattr(editor[0].session, "view", fail)
    header, _ = page.ask("view", **VIEW)
    assert header["type"] == "error" and "the terminal" in header["message"]
    assert "broken on purpose" in capfd.readouterr().err


@pytest.mark.parametrize(
    "fields", [{"type": "x" * 60000}, VIEW | {"type": "view", "yaw": "x" * 60000}]
)
def test_an_error_repeats_little_of_what_was_sent(page, fields):
    page.socket.send(pack_message(fields))
    header, _ = page.wait("error")
    assert len(header["message"]) < 200 and "x...x" in header["message"]


def test_pictures_that_nobody_waits_for_are_bounded(editor, page, monkeypatch):
    server, _ = editor
    draw = server.session.view
    monkeypatch.setattr(server.session, "view", lambda *a, **k: time.sleep(0.1) or draw(*a, **k))
    for _ in range(server_module.MOST_WANTED + 20):
        page.send("view", **VIEW)
    assert "too many pictures" in page.wait("error")[0]["message"]


def test_changes_reach_every_page(editor, page):
    _, address = editor
    with Client(address) as second:
        second.wait("state")
        page.send("look", group="hair", seed=9, amount=0.5)
        for client in (page, second):
            state, _ = client.wait("state")
            assert state["steps"][-1] == "hair like face 9" and state["seeds"][-1] is None
            assert state["looks"][-1] == {"group": "hair", "seed": 9, "amount": 0.5}
        second.send("go", step=state["at"] - 1)
        for client in (page, second):
            assert client.wait("state")[0]["at"] == state["at"] - 1
        page.send("save", name="a face")
        assert "a face" in second.wait("state")[0]["projects"]
        assert page.wait("saved")[0]["path"].endswith("a face.safetensors")
        second.send("open", name="a face")
        assert second.wait("state")[0]["steps"][-1] == "a face"


def test_an_edit_reports_and_is_kept(editor, page):
    server, _ = editor
    _, labels = page.ask("go", step=server.session.history[1])
    painted = other_map(labels)
    page.send("edit", painted, number=at_hand(server), iterations=20, name="fringe")
    assert "follows" in page.wait("state")[0]["busy"]
    header, data = page.wait("progress")
    assert header["iterations"] == 20 and 0 <= header["agreement"] <= 1
    assert picture(data).shape == (SIZE, SIZE, 3)
    state, after = page.wait("state", busy="")
    assert state["steps"][-1] == "fringe" and after == painted
    assert 0 <= state["metrics"]["labels_inside"] <= 1
    kept = [name for name in state["projects"] if name.startswith("autosave")]
    saved = FaceProject.load(server.session.saved.out / f"{kept[0]}.safetensors")
    assert saved.labels.tobytes() == painted


def test_while_it_runs_views_go_on_and_changes_wait(editor, page):
    server, _ = editor
    _, labels = page.ask("go", step=server.session.history[1])
    page.send("edit", other_map(labels), number=at_hand(server), iterations=LONG)
    page.wait("progress")
    page.send("choose", seed=1)
    assert "wait, or press Stop" in page.wait("error")[0]["message"]
    page.send("view", **VIEW)
    page.wait("frame")
    page.send("stop")
    state, _ = page.wait("state", busy="")
    assert state["steps"][-1] == "painted map (stopped)"
    assert server.session.face.iterations < LONG


def test_an_edit_that_cannot_be_ends_with_its_reason(editor, page):
    _, labels = page.ask("go", step=editor[0].session.history[1])
    page.send("edit", labels, number=at_hand(editor[0]), iterations=5)
    assert "nothing to do" in page.wait("error")[0]["message"]
    assert page.wait("state")[0]["busy"] == ""


def test_what_cannot_be_measured_is_null(editor, page):
    """Where the whole map changes, nothing is left outside of the region."""
    server, _ = editor
    painted = np.full(4 * SIZE**2, 14, np.uint8).tobytes()
    page.send("edit", painted, number=at_hand(server), iterations=1)
    page.wait("state", busy="the face follows the map")
    state, _ = page.wait("state", busy="")
    assert state["metrics"]["change_outside"] is None
    assert state["metrics"]["change_inside"] >= 0


def test_a_map_of_another_face_is_refused(editor, page):
    server, _ = editor
    _, labels = page.ask("go", step=server.session.history[1])
    number = at_hand(server)
    page.send("choose", seed=9)
    page.send("edit", other_map(labels), number=number, iterations=5)
    assert "has changed since" in page.wait("error")[0]["message"]
    assert server.session.revision.name == "face 9"


def test_a_page_that_takes_no_message_is_closed(editor, page, monkeypatch, capfd):
    """And learns, when it comes back, what it missed; the other one waits no longer than that."""
    server, address = editor
    monkeypatch.setattr(outbox, "PATIENCE", 1.0)
    before = set(server.pages)
    with Client(address) as stalled:
        stalled.wait("state")
        (mine,) = set(server.pages) - before
        monkeypatch.setattr(mine, "send_bytes", lambda message: asyncio.sleep(60))
        began = time.monotonic()
        for seed in range(3):
            page.send("choose", seed=seed)
            page.wait("state")
        assert time.monotonic() - began < 0.9
        with pytest.raises(ConnectionClosed):
            stalled.wait("nothing")
    page.ask("view", **VIEW)
    assert "Traceback" not in capfd.readouterr().err


def test_stop_does_not_wait_for_pictures(editor, page, monkeypatch):
    server, _ = editor
    draw = server.session.view
    monkeypatch.setattr(server.session, "view", lambda *a, **k: time.sleep(0.3) or draw(*a, **k))
    server.stopping.clear()
    for _ in range(10):
        page.send("view", **VIEW)
    page.send("stop")
    assert server.stopping.wait(2)  # the pictures take 3 seconds
    for _ in range(10):
        page.wait("frame")


def test_a_file_that_cannot_be_read_locks_nothing(editor, page):
    server, _ = editor
    server.session.saved.out.mkdir(exist_ok=True)
    link = server.session.saved.out / "nowhere.safetensors"
    link.symlink_to(server.session.saved.out / "none")
    try:
        state, labels = page.ask("go", step=server.session.history[1])
        assert "nowhere" not in state["projects"]
        page.send("edit", other_map(labels), number=at_hand(server), iterations=2)
        page.wait("state", busy="the face follows the map")
        page.wait("state", busy="")
    finally:
        link.unlink()


def test_a_transfer_and_a_map_by_code(editor, page):
    page.send("transfer", seed=9, what="appearance", region="hair", iterations=1)
    assert page.wait("state", busy="")[0]["steps"][-1] == "look of hair from face 9"
    labels = np.zeros((2 * SIZE, 2 * SIZE), np.uint8)
    labels[:12] = 13
    labels[12:] = 1
    labels[14:16, 8:12], labels[14:16, 20:24] = 7, 6
    header, painted = page.ask("paint", labels.tobytes(), name="hat")
    assert header["type"] == "map"
    assert painted == EDITS["hat"](labels).tobytes() and painted != labels.tobytes()


def test_a_photograph_that_shows_no_face(page):
    image, mask = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (64, 64)).save(image, "PNG")
    Image.new("L", (64, 64)).save(mask, "PNG")
    payload = image.getvalue() + mask.getvalue()
    page.send("invert", payload, split=len(image.getvalue()), name="ann.jpg")
    message = page.wait("error")[0]["message"]
    assert message.startswith("the label map: shows no face") and "/" not in message
    page.send("invert", image.getvalue(), split=len(image.getvalue()), name="ann.jpg")
    assert page.wait("error")[0]["message"].startswith("the photograph: no face was found")
    page.send("invert", b"no picture", split=4, name="ann.jpg")
    assert "the photograph" in page.wait("error")[0]["message"]


def sent_picture(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("1", (width, height)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_picture_that_is_too_large_is_not_decoded(page, monkeypatch):
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    small, large = sent_picture(8, 8), sent_picture(13_000, 13_000)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for first, second in ((large, b""), (small, large)):
            page.send("invert", first + second, split=len(first), name="ann.png")
            message = page.wait("error")[0]["message"]
            assert "more than 50 million pixels" in message and "make it smaller" in message


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("a\0b.png", "ab"), ("../../x.png", "x"), ("a/b\\c:d.jpg", "b c d"), (".png", "png"),
        ("///", "photograph"), ("\n.png", "photograph"), ("x" * 200 + ".png", "x" * 60),
        ("Screenshot 2026 at 1.00\u202fPM.png", "Screenshot 2026 at 1.00 PM"),
        ("Zo\u00eb.jpeg", "Zo\u00eb"), ("\ud800.png", "photograph"),
    ],
)  # fmt: skip
def test_names_of_photographs_are_cleaned(name, wanted):
    assert clean_name(name) == wanted


def test_a_photograph_of_any_name_is_looked_at(page, capfd):
    """A name that holds a NUL byte used to end in a traceback."""
    small = sent_picture(8, 8)
    page.send("invert", small + small, split=len(small), name="a\0b.png")
    assert "shows no face" in page.wait("error")[0]["message"]
    assert "Traceback" not in capfd.readouterr().err


def test_a_look_is_kept_on_the_disk_without_being_asked(editor, page, monkeypatch):
    server, _ = editor
    monkeypatch.setattr(server_module, "KEEP_AFTER", 0.05)
    page.ask("look", group="hair", seed=3, amount=0.7)
    wanted = server.session.face.appearance.phases
    end = time.monotonic() + 10
    while not any(
        torch.equal(FaceProject.load(path).appearance.phases, wanted)
        for path in server.session.saved.out.glob("autosave-*.safetensors")
    ):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_damaged_projects_lock_no_page_out(editor, page):
    """Each is refused; a page that comes later learns how things stand."""
    server, address = editor
    server.session.save("whole")
    path = server.session.saved.file("whole")
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["semfaceedit"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    damage = (
        ({}, {"pose": torch.tensor([float("nan"), 0])}),
        ({}, {"labels": torch.full((32, 32), 200, dtype=torch.uint8)}),
        ({}, {"labels": torch.tensor(1, dtype=torch.uint8)}),
        ({}, {"labels": torch.zeros(8, 9, dtype=torch.uint8)}),
        ({"metrics": {"psnr": "x"}}, {}), ({"group_of_class": 1}, {}), ({"crop": [1]}, {}),
    )  # fmt: skip
    for changed, values in damage:
        text = json.dumps(header | changed)
        save_file(tensors | values, path, {"semfaceedit": text})
        page.send("open", name="whole")
        assert "it was damaged" in page.wait("error")[0]["message"]
    with Client(address) as later:
        assert later.wait("state")[0]["steps"][-1] == "face 5"
    path.unlink()


def answer_to(address: str, request: bytes, seconds: float = 20) -> bytes:
    """All that the server says to raw bytes, until it closes."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as raw:
        raw.sendall(request)
        said = b""
        while part := raw.recv(1 << 16):
            said += part
        return said


@pytest.mark.parametrize("request_", [b"", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-"])
def test_half_a_request_is_not_waited_for(editor, monkeypatch, request_):
    _, address = editor
    monkeypatch.setattr(http, "PATIENCE", 0.3)
    began = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        answer_to(address, request_)
    assert time.monotonic() - began < 5


def test_half_a_second_request_is_not_waited_for(editor, monkeypatch):
    _, address = editor
    monkeypatch.setattr(http, "PATIENCE", 0.3)
    with contextlib.suppress(ConnectionResetError):
        answer_to(address, b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT")


@pytest.mark.parametrize("kind", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
def test_a_body_is_refused_unread(editor, kind):
    _, address = editor
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n\r\n".encode()
    said = answer_to(address, head)  # and the connection ends, with nothing of the body sent
    assert said.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("path, host", [("/", "localhost"), ("/none", "localhost"), ("/", "evil")])
def test_every_answer_has_the_headers(editor, path, host):
    _, address = editor
    said = answer_to(
        address, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    head = said.partition(b"\r\n\r\n")[0].decode().lower()
    for header in ("referrer-policy: no-referrer", "cross-origin-opener-policy: same-origin",
                   "base-uri 'none'", "form-action 'none'", "nosniff"):  # fmt: skip
        assert header in head


def test_told_to_end_a_fit_is_stopped_first(editor):
    server, _ = editor
    server.stopping.clear()
    PageServer(server).handle_exit(signal.SIGINT, None)
    assert server.stopping.is_set()


def test_a_port_in_use_is_said_in_one_line(tmp_path, capsys):
    weights = write_checkpoint(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code = command.main(["--checkpoint", str(weights), "--port", str(port)])
    said = capsys.readouterr().err
    assert code == 1 and said.count("\n") == 1 and f"port {port}" in said and "--port 0" in said


@pytest.mark.parametrize("out", ["file", "closed/deep/faces"])
def test_a_folder_that_cannot_be_written_to_is_said_at_the_start(
    tmp_path, capsys, monkeypatch, out
):
    (tmp_path / "file").write_text("")
    (tmp_path / "closed").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path / "closed")
    assert command.main(["--out", str(tmp_path / out)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(tmp_path / out) in said and "folder" in said


def test_what_is_not_installed_is_named(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "semfaceedit.web_editor.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert command.main([]) == 1
    assert "pip install 'semfaceedit[editor]'" in capsys.readouterr().err


def test_resolution_is_checked(capsys):
    assert command.main(["--resolution", "5000"]) == 1
    assert "use 16 to 1024" in capsys.readouterr().err


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C as a signal")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_it_keeps_the_face(tmp_path, sent):
    weights = write_checkpoint(tmp_path)
    arguments = ["--checkpoint", str(weights), "--out", str(tmp_path / "out"), "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "SEMFACEEDIT_CACHE": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-m", "semfaceedit.editor", *arguments],
        stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        said = process.stderr.readline()
        address, key = re.search(r"http://([\d.:]+)/\?key=([\w-]+) ", said).groups()
        with Client(address, key) as page:
            page.wait("state")
            state, labels = page.ask("look", group="hair", seed=2, amount=1)
            page.send("edit", other_map(labels), number=state["numbers"][-1], iterations=LONG)
            page.wait("progress")
            process.send_signal(sent)
            said = process.stderr.read()
        began = time.monotonic()
        assert process.wait(30) == 0 and time.monotonic() - began < 20
    assert "Traceback" not in said and "wrote" in said and "autosave" in said
    assert list((tmp_path / "out").glob("autosave-*.safetensors"))
