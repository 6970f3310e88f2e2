"""The photograph with all edits in it, while a face is edited: what the page is sent and shows."""

import base64
import io

import numpy as np
import pytest
import torch
from browser import CHROMIUM
from editor_page import click_text, editor_page, pixels, resize, shared, wait_for_revision
from photographs import HEIGHT, WIDTH, WINDOW, open_photograph
from PIL import Image

from semfaceedit.editing.paste import WORKING
from semfaceedit.web_editor import photograph_view
from semfaceedit.web_editor.photograph_view import PastedFaces

pytestmark = pytest.mark.usefixtures("one_thread")
LEFT, TOP = 11, 0  # of what is shown about the face: 0.3 sides beyond WINDOW, within the photograph


@pytest.fixture
def photograph(served):
    """The editor on a face that came from a photograph in its folder."""
    return open_photograph(served[0].session)


def ask(client, number: int, **fields):
    client.send("photograph", number=number)
    header, payload = client.wait("photograph", number=number, **fields)
    picture = np.asarray(Image.open(io.BytesIO(payload))).astype(int) if payload else None
    return header, picture


def test_the_page_is_sent_the_surroundings_of_the_face(served, client, photograph):
    session = served[0].session
    original = np.asarray(Image.open(photograph)).astype(int)
    header, plain = ask(client, session.revision.number, fine=True)
    assert header["crop"] == [30 - LEFT, 10 - TOP, 64] and "problem" not in header
    assert plain.shape == (HEIGHT, min(WIDTH, 94 + 19) - LEFT, 3)
    assert np.abs(plain - original[:, LEFT : LEFT + plain.shape[1]]).mean() < 6  # JPEG of noise
    session.look("hair", 4)
    header, edited = ask(client, session.revision.number, fine=True)
    assert header["version"] == 0 and edited.shape == plain.shape
    region = served[0].exporter.faces.pasted(session.revision).pasted.region[:, LEFT : LEFT + 102]
    change = np.abs(edited - plain).max(-1)
    assert 0.02 < region.mean() < 0.6 and change[region].mean() > 3
    assert change[~wide(torch.from_numpy(region)).numpy()].max() == 0


def test_one_paste_serves_the_page_and_the_export(served, client, photograph, monkeypatch):
    session = served[0].session
    session.look("hair", 6)
    pastes = []
    real = photograph_view.paste
    monkeypatch.setattr(
        photograph_view, "paste", lambda *a, **k: pastes.append(k["working"]) or real(*a, **k)
    )
    ask(client, session.revision.number, fine=True)
    assert pastes == [photograph_view.QUICK, photograph_view.WORKING]
    for what in ("photograph", "pasted"):
        client.send("export", what=what, name="x")
        assert "problem" not in client.wait("made", what=what)[0]
    ask(client, session.revision.number, fine=True)
    assert len(pastes) == 2


def test_the_face_as_inverted_is_rendered_once(served, photograph, monkeypatch):
    """Of two edits, each seen coarse and fine; every picture is as that of a first paste."""
    session, sizes = served[0].session, []
    inverted, real = session.face, photograph_view.rendering

    def counted(generator, face, resolution):
        if face.appearance is inverted.appearance:
            sizes.append(resolution)
        return real(generator, face, resolution)

    monkeypatch.setattr(photograph_view, "rendering", counted)
    faces = PastedFaces(session)
    for seed in (4, 9):
        session.look("hair", seed)
        found = [faces.pasted(session.revision, w) for w in (photograph_view.QUICK, WORKING)]
        fresh = PastedFaces(session).pasted(session.revision)
        assert np.array_equal(found[1].pasted.pixels, fresh.pasted.pixels)
    assert len(sizes) == 1 + 2  # once, and for each of the fresh ones


def test_a_large_photograph_is_shown_smaller_and_exported_whole(served, photograph, monkeypatch):
    monkeypatch.setattr(photograph_view, "ALONG", 32)
    session = served[0].session
    session.look("hair", 4)
    faces = PastedFaces(session)
    found = faces.pasted(session.revision)
    assert found.pasted.pixels.shape == (HEIGHT // 2, WIDTH // 2, 3)
    assert found.sized.window == WINDOW.scaled(0.5)
    original, pixels = faces.whole(session.revision)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    moved = (pixels != original.photograph.pixels).any(-1)
    assert 0.02 < moved.mean() < 0.6


def test_a_picture_that_is_outdated_is_left(served, client, photograph, monkeypatch):
    """In the middle of a paste, while edits go on."""
    session = served[0].session
    first = session.revision.number
    session.look("hair", 7)
    started, real = [], photograph_view.paste

    def endless(generator, before, after, *rest, **settings):
        if after.appearance is session.history[0][-2].project.appearance:
            started.append(True)
            while True:
                torch.zeros(1) + 1
        return real(generator, before, after, *rest, **settings)

    monkeypatch.setattr(photograph_view, "paste", endless)
    stuck = session.revision.number
    session.look("face", 3)
    client.send("photograph", number=stuck)
    while not started:
        client.send("view", target="face", kind="image", yaw=0, pitch=0)
        client.wait("frame")
    client.send("look", group="face", seed=4, amount=1)
    assert client.wait("state")[0]["looks"][-1]["seed"] == 4
    client.send("photograph", number=first)
    assert client.wait("photograph")[0]["number"] == first


def test_a_look_of_an_opened_face_is_pasted(served, photograph):
    """A face that was edited before it was saved remembers what its photograph shows."""
    session = served[0].session
    session.look("hair", 4)
    faces = PastedFaces(session)
    edited = faces.pasted(session.revision).pasted
    name = session.save("ann").stem
    session.open(session.saved.file(name))
    again = faces.pasted(session.revision).pasted
    assert np.array_equal(again.pixels, edited.pixels)


def test_a_photograph_that_went_is_one_line(served, client, photograph):
    session = served[0].session
    number = session.revision.number
    photograph.unlink()
    header, _ = ask(client, number)
    assert "no longer there: put the very file into" in header["problem"]
    assert "\n" not in header["problem"] and header["missing"]
    session.turn((0.3, 0.0))
    header, _ = ask(client, session.revision.number)
    assert "another side" in header["problem"] and not header["missing"]


@pytest.mark.parametrize("taken", [False, True])
def test_a_photograph_that_went_is_given_again(served, client, photograph, taken):
    """The very file, of any name; where its name is taken by another file, under another one."""
    session = served[0].session
    data, number = photograph.read_bytes(), session.revision.number
    _, shown = ask(client, number, fine=True)
    photograph.unlink()
    if taken:
        Image.new("RGB", (8, 8)).save(photograph)
    assert ask(client, number)[0]["missing"]
    names = {path.name for path in session.saved.out.iterdir()}
    for wrong in (b"", data[:-1], data + b"x", b"no picture"):
        header, _ = client.ask("supply", wrong, name="found.png")
        assert header["type"] == "error" and "not the very file" in header["message"]
    assert {path.name for path in session.saved.out.iterdir()} == names
    client.send("supply", data, name="../found.png")
    client.wait("supplied")
    _, again = ask(client, number, fine=True)
    assert np.array_equal(again, shown)
    kept = session.saved.out / ("ann-2.png" if taken else "ann.png")
    assert kept.read_bytes() == data
    kept.write_bytes(data + b"x")  # changed since
    assert ask(client, number)[0]["missing"]
    kept.unlink()


PRESSED = "document.querySelector('#kinds [aria-pressed=true]').dataset.kind"
SETTLED = """import('./state.js').then(({ page: { viewer: { photograph } } }) =>
    photograph.on && !photograph.waiting && photograph.shown && !photograph.over
    && photograph.shown.number == photograph.number)"""
HOLD = "document.body.dispatchEvent(new KeyboardEvent('{}', {{ key: 'c', bubbles: true }}))"
SHOWN = "document.querySelector('#photograph-problem')"
FIND = "document.querySelector('#find-photograph')"


def drawn(page) -> torch.Tensor:
    """The canvas of the face, (h, w, 3)."""
    data = base64.b64decode(pixels(page, "#face").partition(",")[2])
    return torch.from_numpy(
        np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.float32)
    )


def seen(server, change: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """On a square canvas: where the paste changed the photograph, and how much the canvas did."""
    found = server.exporter.faces.pasted(server.session.revision)
    region = torch.from_numpy(found.pasted.region[found.place]).float()
    height, width = region.shape
    square = torch.zeros(max(height, width), max(height, width))
    top, left = (len(square) - height) // 2, (len(square) - width) // 2
    square[top : top + height, left : left + width] = region
    region = torch.nn.functional.interpolate(square[None, None], change.shape[:2])[0, 0]
    return region > 0, change.amax(-1)


def wide(region: torch.Tensor) -> torch.Tensor:
    """Beyond the blocks of JPEG and what enlarging blurs."""
    reach = len(region) // 6
    return torch.nn.functional.max_pool2d(region[None].float(), 2 * reach + 1, 1, reach)[0] > 0


def give(page, data: bytes) -> None:
    """Choose a file for the photograph that is missing."""
    page.run(f"""(input => {{
        const chosen = new DataTransfer();
        chosen.items.add(new File([new Uint8Array({list(data)})], "found.png"));
        input.files = chosen.files;
        input.dispatchEvent(new Event("change"));
    }})(document.querySelector("#supplied"))""")


def shows(picture: str) -> str:
    """The face's canvas has these pixels: undo and redo are answered after a moment."""
    return f"document.querySelector('#face').toDataURL() == {picture!r}"


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_page_shows_edits_in_the_photograph(served, photograph, tmp_path):
    server, address = served
    with editor_page(address, tmp_path) as page:
        page.wait(SETTLED)
        assert page.run(PRESSED) == "photograph"
        plain = pixels(page, "#face")
        before = drawn(page)
        page.click("#looks button:nth-child(5)")
        wait_for_revision(page, "hair like face 4")
        page.wait(SETTLED)
        region, change = seen(server, (drawn(page) - before).abs())
        assert change[region].mean() > 2 and change[~wide(region)].max() == 0
        edited = pixels(page, "#face")
        page.press("z", control=True)
        page.wait(shows(plain))
        page.press("y", control=True)
        page.wait(shows(edited))
        page.wait(SETTLED)
        page.run(HOLD.format("keydown"))
        page.wait(shows(plain))  # the revision before, while it is held
        page.run(HOLD.format("keyup"))
        page.click("#split")
        page.wait("!(" + shows(edited) + ")")
        page.click("#split")
        page.drag("#face", (0.5, 0.5), (0.6, 0.5))
        assert page.run(PRESSED) == "image"
        assert not page.run("document.querySelector('#photograph').hidden")
        data = photograph.read_bytes()
        photograph.unlink()
        page.run("document.querySelector('#photograph').click()")
        page.click("#looks button:nth-child(6)")
        page.wait(f"!{SHOWN}.hidden")
        assert page.run(PRESSED) == "image" and "no longer there" in page.run(
            f"{SHOWN}.textContent"
        )
        assert page.run("document.querySelector('#photograph').hidden")
        page.wait(f"!{FIND}.hidden")
        give(page, b"another")
        page.wait("document.querySelector('#status').textContent.includes('not the very file')")
        assert not page.run(f"{FIND}.hidden")
        resize(page, 390, 844)  # a phone
        click_text(page, "#tabs button", "Face")
        box = page.run(f"{FIND}.getBoundingClientRect().toJSON()")
        assert box["height"] > 20 and box["right"] <= 390
        give(page, data)
        page.wait(SETTLED)
        box = page.run("document.querySelector('#face').getBoundingClientRect().toJSON()")
        assert 0.9 * 390 <= box["width"] <= 390 and box["bottom"] < 844
        resize(page, 1280, 800)
        assert page.run(PRESSED) == "photograph" and page.run(f"{FIND}.hidden")
        photograph.unlink()
        page.click("#looks button:nth-child(4)")
        page.wait(f"!{FIND}.hidden")
        shared(page, "send({ type: 'choose', seed: 8 })")
        page.wait(f"{SHOWN}.hidden && {FIND}.hidden")
