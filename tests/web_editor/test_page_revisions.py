"""The editor's page in a browser: revisions, looks, views of the face and saved faces."""

import time

import numpy as np
import pytest
from browser import CHROMIUM
from editor_page import (
    click_text,
    color,
    cover,
    pixels,
    reload,
    revision,
    shared,
    status,
    wait_for_revision,
)
from PIL import Image

from semfaceedit.editing.project import FaceProject

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
    pytest.mark.usefixtures("one_thread"),
]


def test_a_stroke_is_painted_applied_and_undone(opened, page):
    server, _ = opened
    cover(page, 100)
    before = color(page, "#map", 0.5, 0.1)
    page.drag("#map", (0.1, 0.1), (0.5, 0.1), (0.9, 0.1))
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]  # hair
    assert color(page, "#map", 0.5, 0.9) != [0, 0, 204]
    page.press("z", control=True)
    assert color(page, "#map", 0.5, 0.1) == before
    click_text(page, "header button", "Redo")
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]
    count = len(server.session.history[0])
    page.click("#apply")
    wait_for_revision(page, "painted map")
    page.wait("document.querySelector('#status').textContent.includes('of the labels')")
    assert len(server.session.history[0]) == count + 1
    labels = server.session.face.labels
    assert labels[3, 16] == 13 and page.run("document.querySelector('#apply').disabled")
    page.press("z", control=True)
    wait_for_revision(page, "face 7")
    assert server.session.history[1] == count - 1
    page.wait("!document.querySelector('#redo').disabled")


def test_strokes_and_revisions_are_undone_in_their_order(opened, page):
    server, _ = opened
    cover(page, 100)
    plain = color(page, "#map", 0.5, 0.1)
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    page.click("#looks button:nth-child(5)")
    wait_for_revision(page, "hair like face 4")
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]  # painted strokes outlast a look
    page.wait("document.querySelector('#looks [aria-pressed=true]').dataset.seed == 4")
    page.press("z", control=True)
    wait_for_revision(page, "face 7")
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]
    page.wait("document.querySelector('#looks [aria-pressed=true]') === null")
    assert page.run("document.querySelector('#amount').disabled")
    page.press("z", control=True)
    assert color(page, "#map", 0.5, 0.1) == plain
    page.press("y", control=True)
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]
    page.press("y", control=True)
    wait_for_revision(page, "hair like face 4")


def test_quick_undos_all_count(opened, page):
    server, _ = opened
    for seed in (3, 4):
        page.click(f"#looks button:nth-child({seed})")
        wait_for_revision(page, f"like face {seed - 1}", whole=False)
        group = "face" if seed == 3 else "hair"
        click_text(page, "#groups button", group)
        page.wait("document.querySelectorAll('#looks button').length == 8")
    at = server.session.history[1]
    twice = "for (const _ of 'ab') document.body.dispatchEvent(new KeyboardEvent('keydown', {})); 0"
    page.run(twice.format("{ key: 'z', ctrlKey: true, bubbles: true }"))
    wait_for_revision(page, "face 7")
    assert server.session.history[1] == at - 2
    page.run(twice.format("{ key: 'y', ctrlKey: true, bubbles: true }"))
    wait_for_revision(page, "face like face 3")
    assert server.session.history[1] == at


def test_strokes_of_a_revision_are_there_when_it_comes_back(opened, page):
    cover(page, 100)
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    page.click("#faces button:nth-child(2)")
    wait_for_revision(page, "face 1")
    page.press("z", control=True)
    wait_for_revision(page, "face 7")
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]
    assert not page.run("document.querySelector('#apply').disabled")


def test_before_shows_the_revision_before_while_it_is_held(opened, page):
    server, _ = opened
    page.click("#looks button:nth-child(3)")
    wait_for_revision(page, "hair like face 2")
    settled = "new Promise(done => setTimeout(done, 600))"
    page.run(settled)
    now = pixels(page, "#face")
    for let_go in ("new KeyboardEvent('keyup', {key: 'C'})", "new Event('blur')"):
        page.call("Input.dispatchKeyEvent", type="rawKeyDown", key="c")
        page.run(settled)
        assert pixels(page, "#face") != now
        page.run(f"dispatchEvent({let_go})")
        page.run(settled)
        assert pixels(page, "#face") == now
        page.call("Input.dispatchKeyEvent", type="keyUp", key="c")


def test_before_and_after_share_the_picture(page):
    page.click("#looks button:nth-child(3)")
    wait_for_revision(page, "hair like face 2")
    settled = "new Promise(done => setTimeout(done, 700))"
    page.run(settled)
    left, right = (0.25, 0.1), (0.75, 0.1)
    now = [color(page, "#face", *place) for place in (left, right)]
    page.press("c")
    before = "import('./state.js').then(({ page }) => page.viewer.before !== null)"
    page.click("#split")
    page.wait(before)
    page.run(settled)
    assert color(page, "#face", *right) == now[1]
    slider = (
        "(s => {{ s.value = {}; s.oninput({{ target: s }}) }})(document.querySelector('#divide'))"
    )
    halves = pixels(page, "#face")
    page.run(slider.format(100))
    whole = pixels(page, "#face")
    page.run(slider.format(0))
    none = pixels(page, "#face")
    assert len({halves, whole, none}) == 3
    page.click("#split")
    page.wait("document.querySelector('#divide').hidden")


def test_a_look_and_its_amount(opened, page):
    server, _ = opened
    click_text(page, "#groups button", "face")
    page.wait("document.querySelector('#looks button').dataset.seed == 0")
    page.click("#looks button:nth-child(5)")
    wait_for_revision(page, "face like face 4")
    whole = server.session.face.appearance.phases
    page.run("(s => { s.value = 0.5; s.oninput() })(document.querySelector('#amount'))")
    end = "face like face 4"
    for _ in range(100):
        if not (server.session.face.appearance.phases == whole).all():
            break
        page.run("new Promise(done => setTimeout(done, 50))")
    assert not (server.session.face.appearance.phases == whole).all() and revision(page) == end


def amount(page) -> str:
    return page.run("document.querySelector('#amount').value")


def test_the_amount_is_that_of_the_revision(opened, page):
    server, _ = opened
    server.session.look("hair", 4, 0.5)
    server.session.look("face", 4, 0.26)
    server.session.save("hair like face 3")
    server.session.open(server.session.saved.file("hair like face 3"))
    reload(page)
    wait_for_revision(page, "hair like face 3")  # a project: it is no look
    assert page.run("document.querySelector('#amount').disabled")
    assert page.run("document.querySelector('#looks [aria-pressed=true]') === null")
    page.press("z", control=True)
    wait_for_revision(page, "face like face 4")
    assert amount(page) == "0.26"
    page.press("z", control=True)
    wait_for_revision(page, "hair like face 4")
    assert amount(page) == "0.5"
    page.press("y", control=True)
    wait_for_revision(page, "face like face 4")
    assert amount(page) == "0.26"


def test_a_look_is_shown_by_one_picture(page):
    """The same serves the face and what lies under the map."""
    page.run("new Promise(done => setTimeout(done, 600))")
    shared(
        page,
        """{ window.sent = []; const real = page.socket.send.bind(page.socket);
        page.socket.send = (header, payload) => {
            sent.push(header.type); return real(header, payload); }; }""",
    )
    below = pixels(page, "#map")
    page.click("#looks button:nth-child(5)")
    wait_for_revision(page, "hair like face 4")
    page.run("new Promise(done => setTimeout(done, 800))")
    assert page.run("window.sent.filter((kind) => kind != 'layers')") == ["look", "view"]
    page.run("document.querySelector('#map').dispatchEvent(new PointerEvent('pointerleave'))")
    assert pixels(page, "#map") != below


def test_turning_shows_another_side(opened, page):
    server, _ = opened
    page.click("#front")
    page.drag("#face", (0.3, 0.5), (0.5, 0.5), (0.6, 0.5))
    page.wait("document.querySelector('#pose').textContent == 'yaw 28°, pitch 0°'")
    page.run("document.querySelector('#face').focus()")
    page.press("ArrowLeft")
    page.press("ArrowUp")
    page.wait("document.querySelector('#pose').textContent == 'yaw 23°, pitch 5°'")
    click_text(page, "#kinds button", "Labels")
    page.click("#turn")
    wait_for_revision(page, "another side", whole=False)
    assert server.session.face.pose[0] == pytest.approx(0.4, abs=0.01)


def test_the_picture_is_that_of_the_face(opened, page, tmp_path):
    server, _ = opened
    page.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.run("new Promise(done => setTimeout(done, 500))")  # until the still view is there
    page.click("#picture")
    path = tmp_path / "face.png"
    end = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < end, list(tmp_path.iterdir())
        time.sleep(0.05)
    shown = np.array(Image.open(path).convert("RGB"))
    assert np.array_equal(shown, server.session.view("image", (0.0, 0.0)))


def test_a_face_is_saved_and_opened(opened, page):
    server, _ = opened
    page.run("document.querySelector('#name').value = 'from the page'")
    page.click("#save")
    page.wait("document.querySelector('#status').textContent.startsWith('Saved as')")
    path = server.session.saved.out / "from the page.safetensors"
    assert FaceProject.load(path).labels.tobytes() == server.session.face.labels.tobytes()
    assert Image.open(path.with_suffix(".labels.png")).size == (32, 32)
    page.click("#open-faces")
    click_text(page, "#projects button", "from the page")
    wait_for_revision(page, "from the page")
    assert not page.run("document.querySelector('#faces-dialog').open")


def test_the_name_is_kept_and_saved_faces_are_shown(opened, page):
    page.run("(n => { n.value = 'Ann'; n.oninput() })(document.querySelector('#name'))")
    page.click("#save")
    page.wait("document.querySelector('#status').textContent.startsWith('Saved as')")
    reload(page)
    assert page.run("document.querySelector('#name').value") == "Ann"
    page.click("#open-faces")
    page.wait("document.querySelector('#projects canvas[data-project=Ann]').width == 48")
    shown = page.run("[...document.querySelector('#projects canvas[data-project=Ann]')"
                     ".getContext('2d').getImageData(24, 24, 1, 1).data]")  # fmt: skip
    middle = opened[0].session.saved.thumbnail("Ann")[8, 8].astype(int)
    assert np.abs(np.array(shown[:3]) - middle).max() < 40
    page.run("document.querySelector('#faces-dialog').close()")


def test_a_face_of_an_earlier_session_is_offered(opened, page):
    server, _ = opened
    server.session.save("autosave-19990101-000000-1")
    server.session.saved.recovered = "autosave-19990101-000000-1"
    try:
        reload(page)
        assert not page.run("document.querySelector('#recovered').hidden")
        page.click("#open-recovered")
        wait_for_revision(page, "1999", whole=False)
        reload(page)
        assert page.run("document.querySelector('#recovered').hidden")
    finally:
        server.session.saved.recovered = ""


def test_an_error_is_shown_and_the_page_goes_on(page):
    page.run("document.querySelector('#name').value = '../x'")
    page.click("#save")
    page.wait("document.querySelector('#status.bad') !== null")
    assert "not a name for a face" in status(page)
    page.click("#more-faces")
    page.wait("document.querySelector('#faces button').dataset.seed == 8")
    page.click("#faces button:nth-child(3)")
    wait_for_revision(page, "face 10")
