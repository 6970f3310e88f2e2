"""A running editor for tests: the server in a thread, and a client that speaks as the page does."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from faces import open_editor
from websockets.sync.client import ClientConnection, connect

from semfaceedit import editor as command
from semfaceedit.web_editor.messages import pack_message, unpack
from semfaceedit.web_editor.server import EditorServer, PageServer
from semfaceedit.web_editor.session import EditingSession

KEY = "a key of the tests"


@contextmanager
def running(folder: Path, seed: int = 5) -> Iterator[tuple[EditorServer, str]]:
    """An editor of the tiny checkpoint and its address, until the block ends."""
    session = EditingSession(open_editor(folder), folder / "out")
    session.choose(seed)
    editor = EditorServer(session, KEY)
    listener = command.listen(0)
    server = PageServer(editor)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        yield editor, f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        editor.end()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


@contextmanager
def started(arguments: list[str]) -> Iterator[str]:
    """The address of an editor in a process of its own, as a person starts it, until the block
    ends."""
    command = [sys.executable, "-m", "semfaceedit.editor", "--port", "0", *arguments]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            line = next(line for line in process.stderr if "the editor is at" in line)
            yield line.split("the editor is at ")[1].split(" ")[0]
        finally:
            process.terminate()


def with_hair_on_top(labels: bytes) -> bytes:
    """Another map to ask for: the upper quarter of this one is hair."""
    painted = np.frombuffer(labels, np.uint8).copy()
    painted[: len(painted) // 4] = 13
    return painted.tobytes()


def number_at_hand(server: EditorServer) -> int:
    """The number of the revision that a map is painted on."""
    return server.session.revision.number


class Client:
    """The page's end of the socket.

    For tests, `about` and `state` keep its first two messages (the fixture `client`).
    """

    about: dict[str, Any]
    state: tuple[dict[str, Any], bytes]

    def __init__(self, address: str, key: str = KEY, **options: Any):
        options.setdefault("origin", f"http://{address}")
        self.stack = ExitStack()
        self.socket: ClientConnection = self.stack.enter_context(
            connect(f"ws://{address}/socket?key={quote(key)}", max_size=None, **options)
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def send(self, kind: str, payload: bytes = b"", /, **fields: Any) -> None:
        self.socket.send(pack_message({"type": kind, **fields}, payload))

    def hear(self) -> tuple[dict[str, Any], bytes]:
        message = self.socket.recv(timeout=60)
        assert isinstance(message, bytes)
        return unpack(message)

    def wait(self, kind: str, /, **fields: Any) -> tuple[dict[str, Any], bytes]:
        """The next message of this type whose fields have these values."""
        while True:
            header, payload = self.hear()
            if header["type"] == kind and fields.items() <= header.items():
                return header, payload
            assert header["type"] != "error" or kind == "error", header

    def ask(
        self, kind: str, payload: bytes = b"", /, **fields: Any
    ) -> tuple[dict[str, Any], bytes]:
        """Send, and give the next message."""
        self.send(kind, payload, **fields)
        return self.hear()
