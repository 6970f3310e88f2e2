"""Files that never answer block nothing."""

import asyncio
import threading
import time

import pytest
from editor_server import Client, running

from semfaceedit.editing.project import FaceProject
from semfaceedit.errors import UserError
from semfaceedit.web_editor import patience
from semfaceedit.web_editor.patience import read_within

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def stalled(monkeypatch):
    """An event for which reads wait that no drive answers."""
    monkeypatch.setattr(patience, "SECONDS", 0.1)
    event = threading.Event()
    yield event
    event.set()
    time.sleep(0.05)


def test_what_is_read_comes_back():
    assert asyncio.run(read_within(lambda: 7, "a file")) == 7
    with pytest.raises(ZeroDivisionError):
        asyncio.run(read_within(lambda: 1 / 0, "a file"))


def test_a_read_is_left_behind_and_few_are(stalled):
    async def read() -> None:
        for _ in range(patience.MOST_STALLED + 2):
            with pytest.raises(UserError, match="a file does not answer"):
                await read_within(lambda: stalled.wait(60), "a file")

    began = threading.active_count()
    asyncio.run(read())
    assert threading.active_count() - began <= patience.MOST_STALLED


def test_a_stalled_project_holds_nobody_up(stalled, tmp_path, monkeypatch):
    with running(tmp_path) as (server, address):
        server.session.save("far away")
        load = FaceProject.load

        def loaded(path, generator=None):
            if path.stem == "far away":
                assert stalled.wait(60)
            return load(path, generator)

        monkeypatch.setattr(FaceProject, "load", loaded)
        with Client(address) as client:
            client.wait("state")
            asked = {"what": "geometry", "region": "nose", "iterations": 5}
            for kind, fields in (
                ("open", {"name": "far away"}),
                ("thumbnail", {"name": "far away"}),
                ("transfer", {"project": "far away", **asked}),
            ):
                client.send(kind, **fields)
                assert "far away does not answer" in client.wait("error")[0]["message"]
            client.send("choose", seed=3)
            assert client.wait("state")[0]["revisions"][-1] == "face 3"
