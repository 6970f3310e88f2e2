"""Who the editor's server answers, over a real socket, and what it makes of odd requests."""

import contextlib
import socket
import time
import urllib.error
import urllib.request

import pytest
from editor_server import KEY, Client
from faces import SIZE
from websockets.exceptions import ConnectionClosed, InvalidStatus

from semfaceedit import editor as command
from semfaceedit.editing.mask_edits import EDITS
from semfaceedit.model.labels import CLASS_NAMES
from semfaceedit.web_editor import http
from semfaceedit.web_editor.server import WRONG_KEY

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_page_learns_all_it_needs(served):
    server, address = served
    with Client(address) as client:
        about, _ = client.wait("about")
        state, labels = client.wait("state")
    assert about["classes"] == list(CLASS_NAMES) and about["edits"] == list(EDITS)
    assert len(about["colors"]) == 19 and about["groups"][0] == "hair"
    assert state["size"] == 2 * SIZE and len(labels) == 4 * SIZE**2
    assert state["revisions"][state["at"]] == "face 5" and state["busy"] == ""


def test_the_files_of_the_page(served):
    _, address = served
    for name, kind in (("", "html"), ("main.js", "javascript"), ("style.css", "css")):
        with urllib.request.urlopen(f"http://{address}/{name}") as answer:
            assert kind in answer.headers["content-type"]
            assert "default-src 'self'" in answer.headers["content-security-policy"]
    with urllib.request.urlopen(f"http://{address}/") as answer:
        assert "http://" not in answer.read().decode()  # nothing comes from elsewhere
    for name in ("../session.py", "%2e%2e/session.py", "none"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://{address}/{name}")


def test_other_sites_are_refused(served):
    _, address = served
    for origin in ("http://evil.example", "http://127.0.0.1:1", None):
        with pytest.raises(InvalidStatus, match="403") as refused:
            Client(address, origin=origin)
        for name, value in http.HEADERS.items():
            assert refused.value.response.headers[name] == value
    request = urllib.request.Request(f"http://{address}/", headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


@pytest.mark.parametrize("key", ["", "another key", KEY[:-1], KEY + "s", "\u00e9"])
def test_who_does_not_know_the_key_is_refused(served, key):
    server, address = served
    with Client(address, key) as client:
        with pytest.raises(ConnectionClosed) as closed:
            client.hear()
        assert closed.value.rcvd.code == WRONG_KEY and not server.changes.pages


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
def test_half_a_request_is_not_waited_for(served, monkeypatch, request_):
    _, address = served
    monkeypatch.setattr(http, "PATIENCE", 0.3)
    began = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        answer_to(address, request_)
    assert time.monotonic() - began < 5


def test_half_a_second_request_is_not_waited_for(served, monkeypatch):
    _, address = served
    monkeypatch.setattr(http, "PATIENCE", 0.3)
    with contextlib.suppress(ConnectionResetError):
        answer_to(address, b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\nGET / HT")


@pytest.mark.parametrize("kind", ["Content-Length: 1000000000", "Transfer-Encoding: chunked"])
def test_a_body_is_refused_unread(served, kind):
    _, address = served
    head = f"POST / HTTP/1.1\r\nHost: localhost\r\n{kind}\r\n\r\n".encode()
    said = answer_to(address, head)  # and the connection ends, with nothing of the body sent
    assert said.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("path, host", [("/", "localhost"), ("/none", "localhost"), ("/", "evil")])
def test_every_answer_has_the_headers(served, path, host):
    _, address = served
    said = answer_to(
        address, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    head = said.partition(b"\r\n\r\n")[0].decode().lower()
    for header in ("referrer-policy: no-referrer", "cross-origin-opener-policy: same-origin",
                   "base-uri 'none'", "form-action 'none'", "nosniff"):  # fmt: skip
        assert header in head
