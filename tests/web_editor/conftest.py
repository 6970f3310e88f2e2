"""A running editor, its page in a browser, and clients that speak as the page does.

Modules that need more of the editor (an encoder, sliders) add it to `served` or `editor`.
"""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Page
from editor_page import editor_page, ready, reload, resize, shared
from editor_server import Client, running

from semfaceedit.api import Editor
from semfaceedit.web_editor.server import EditorServer
from semfaceedit.web_editor.session import EditingSession

Served = tuple[EditorServer, str]  # and its address


@pytest.fixture
def session(editor: Editor, tmp_path: Path) -> EditingSession:
    made = EditingSession(editor, tmp_path / "faces")
    made.choose(5)
    return made


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with running(tmp_path_factory.mktemp("served")) as (server, address):
        yield server, address


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    """One on the face of seed 5, past the two messages that tell how things stand."""
    server, address = served
    server.session.choose(5)
    with Client(address) as made:
        made.about = made.wait("about")[0]
        made.state = made.wait("state")
        yield made
        server.changes.stopping.set()
        while server.changes.job is not None:
            time.sleep(0.01)


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EditorServer, Page]]:
    """An editor, and its page in a browser; one for all tests of the page."""
    with running(tmp_path_factory.mktemp("editor"), seed=7) as (server, address):
        folder = tmp_path_factory.mktemp("profile")
        with editor_page(address, folder) as page:
            yield server, page


@pytest.fixture
def page(opened: tuple[EditorServer, Page]) -> Page:
    """The page on the face of seed 7, with nothing painted."""
    server, page = opened
    server.session.choose(7)
    ready(page)
    shared(page, "page.painter.reset()")
    page.run("dispatchEvent(new Event('pagehide')); sessionStorage.clear()")
    reload(page)
    resize(page, 1280, 800)
    return page
