"""What a page takes along: the edit in the photograph, video, one page; and how that ends."""

import io
import time
from urllib.parse import quote

import numpy as np
import pytest
from browser import CHROMIUM, open_page
from editor_server import KEY
from photographs import HEIGHT, WIDTH, WINDOW, open_photograph
from PIL import Image

from semfaceedit.editing.paste import paste, region_since
from semfaceedit.web_editor import exports
from semfaceedit.web_editor.photograph_view import root_of
from semfaceedit.web_editor.uploads import keep_picture

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(exports, "TEXELS", 16)
    monkeypatch.setattr(exports, "FRAMES", 8)


@pytest.fixture
def photograph(served):
    """The editor on a face that came from a photograph in its folder."""
    return open_photograph(served[0].session)


def test_the_edit_comes_in_the_photograph_at_its_full_size(served, client, photograph):
    session = served[0].session
    client.send("export", what="photograph", name="x")
    assert "nothing has been changed" in client.wait("made")[0]["problem"]
    session.look("hair", 4)
    client.send("export", what="photograph", name="x")
    header, payload = client.wait("made", what="photograph")
    before, after = payload[: header["split"]], payload[header["split"] :]
    sizes = [Image.open(io.BytesIO(data)).size for data in (before, after)]
    assert sizes[0] == sizes[1] and 0 < header["share"] < 60
    assert (header["width"], header["height"]) == (WIDTH, HEIGHT)
    client.send("export", what="pasted", name="x")
    header, payload = client.wait("made", what="pasted")
    assert header["name"] == "ann-edited.png" and header["mime"] == "image/png"
    edited = np.asarray(Image.open(io.BytesIO(payload))).astype(int)
    original = np.asarray(Image.open(photograph)).astype(int)
    moved = (edited != original).any(-1)
    assert edited.shape == original.shape and moved.any()
    before = root_of(session.history[0], session.revision)
    region = region_since(before, session.face, session.generator.config.resolution)
    pasted = paste(
        session.generator, before, session.face, region, original.astype(np.uint8), WINDOW
    )
    assert np.array_equal(edited, pasted.pixels) and not moved[~pasted.region].any()


def test_a_photograph_that_went_or_changed_is_one_line(served, client, photograph):
    session = served[0].session
    session.look("hair", 4)
    data = photograph.read_bytes()
    for change, said in (
        (lambda: photograph.unlink(), "no longer there: put the very file into"),
        (lambda: photograph.write_bytes(data + b"x"), "changed since"),
    ):
        change()
        client.send("export", what="pasted", name="x")
        problem = client.wait("made")[0]["problem"]
        assert said in problem and "\n" not in problem and "--" not in problem
    photograph.write_bytes(data)
    session.turn((0.3, 0.0))
    client.send("export", what="pasted", name="x")
    assert "another side" in client.wait("made")[0]["problem"]


def test_a_turntable_and_a_change_between_faces(served, client):
    session = served[0].session
    session.choose(5)
    wanted = {"what": "video", "name": "my ann", "form": "webp", "kind": "image"}
    client.send("export", **wanted, yaw=0, pitch=0.1)
    assert client.wait("making")[0]["total"] == 2 * 8  # frames rendered, then written
    header, payload = client.wait("made")
    assert header["name"] == "my ann.webp" and header["mime"] == "image/webp"
    frames = pictures(payload)
    assert len(frames) == 8 and np.abs(frames[2] - frames[6]).mean() > 3
    start = session.view("image", (0.0, 0.1)).astype(int)
    assert np.abs(frames[0] - start).max() <= 1

    client.send("export", **wanted, yaw=0.2, pitch=0, seed=9)
    frames = pictures(client.wait("made")[1])
    assert len(frames) == 8  # equal frames at the end are one
    session.choose(9)
    assert np.abs(frames[0] - session.view("image", (0.2, 0.0)).astype(int)).max() <= 1
    session.choose(5)
    assert np.abs(frames[-1] - session.view("image", (0.2, 0.0)).astype(int)).max() <= 1


def pictures(data: bytes) -> list[np.ndarray]:
    with Image.open(io.BytesIO(data)) as animation:
        found = []
        for index in range(animation.n_frames):
            animation.seek(index)
            found.append(np.asarray(animation.convert("RGB")).astype(int))
        return found


def test_a_video_is_cancelled_while_edits_go_on(served, client, monkeypatch):
    monkeypatch.setattr(exports, "FRAMES", 100_000)
    client.send("export", what="video", name="x", form="webp", kind="depth", yaw=0, pitch=0)
    client.wait("making")
    client.send("export", what="page", name="x")
    assert "being made" in client.wait("made", what="page")[0]["problem"]
    client.send("look", group="hair", seed=3, amount=1)
    assert client.wait("state")[0]["looks"][-1]["seed"] == 3
    client.send("cancel")
    assert client.wait("made")[0]["problem"] == "Cancelled."


def test_the_page_needs_no_server(client):
    client.send("export", what="page", name="ann & bob")
    header, payload = client.wait("made")
    assert header["name"] == "ann bob.html" and payload.startswith(b"<!doctype html>")


@pytest.mark.parametrize(
    "wrong, said",
    [
        ({"what": "video", "form": "gif", "kind": "image"}, "use one of"),
        ({"what": "video", "form": "webp", "kind": "x"}, "use one of"),
        ({"what": "video", "form": "webp", "kind": "image", "project": "none"}, "no face"),
    ],
)
def test_what_cannot_be_made(client, wrong, said):
    client.send("export", name="x", yaw=0, pitch=0, **wrong)
    assert said in client.wait("made", what="video")[0]["problem"]
    client.send("export", what="nothing", name="x")
    assert "use one of" in client.wait("error")[0]["message"]


def test_a_photograph_is_kept_once_beside_the_faces(tmp_path):
    first, new = keep_picture(b"one", tmp_path / "faces", "ann", ".png")
    assert new and first.read_bytes() == b"one"
    assert keep_picture(b"one", tmp_path / "faces", "ann", ".png") == (first, False)
    second, new = keep_picture(b"two", tmp_path / "faces", "ann", ".png")
    assert new and second.name == "ann-2.png" and first.read_bytes() == b"one"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_shows_and_downloads_them(served, photograph, tmp_path):
    server, address = served
    server.session.look("hair", 4)
    (tmp_path / "profile").mkdir()
    with open_page(f"http://{address}/?key={quote(KEY)}", tmp_path / "profile") as page:
        page.wait("document.querySelectorAll('#looks button').length == 8")
        page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
        page.click("#export")
        page.wait("!document.querySelector('#paste-sheet').hidden")
        halves = {}
        for place in (0, 50, 100):
            page.run(f"(s => {{ s.value = {place}; s.oninput() }})"
                     "(document.querySelector('#paste-divide'))")  # fmt: skip
            halves[place] = page.run("document.querySelector('#paste').toDataURL()")
        assert len(set(halves.values())) == 3
        page.click("#paste-save")
        end = time.monotonic() + 30
        while not (tmp_path / "ann-edited.png").exists():
            assert time.monotonic() < end
            time.sleep(0.05)
        page.run("document.querySelector('#video-form').value = 'webp'")
        page.click("#video-save")
        page.wait("document.querySelector('#making-text').textContent.includes('face.webp')")
        assert page.run("document.querySelector('#cancel').hidden") and not page.problems
        page.run("document.querySelector('#export-dialog').close()")
        page.run("import('./state.js').then(({ send }) => send({ type: 'choose', seed: 8 }))")
        page.wait("document.querySelector('#in-photograph').hidden")
