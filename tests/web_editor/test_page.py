"""The editor's page in a browser: a person paints, applies, undoes, turns, changes looks, saves."""

import time
from urllib.parse import quote

import numpy as np
import pytest
from browser import CHROMIUM, open_page
from editor_server import KEY, running
from PIL import Image

from semfaceedit.editing.project import FaceProject

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    with running(tmp_path_factory.mktemp("editor"), seed=7) as (server, address):
        folder = tmp_path_factory.mktemp("profile")
        with open_page(f"http://{address}/?key={quote(KEY)}", folder) as page:
            yield server, page
            assert not page.problems


@pytest.fixture
def page(opened):
    """The page on the face of seed 7, with nothing painted."""
    server, page = opened
    server.session.choose(7)
    page.run("window.old = true")
    page.call("Page.reload")
    page.wait("!window.old && document.querySelectorAll('#looks button').length == 8")
    return page


def click_text(page, selector: str, text: str) -> None:
    page.run(
        f"[...document.querySelectorAll({selector!r})].find(b => b.textContent == {text!r}).click()"
    )


def status(page) -> str:
    return page.run("document.querySelector('#status').textContent")


def step(page) -> str:
    return page.run("document.querySelector('#steps [aria-current]').textContent")


def color(page, canvas: str, x: float, y: float) -> list[int]:
    """The colour of a canvas at shares of its width and height."""
    return page.run(
        f"(c => [...c.getContext('2d').getImageData({x} * c.width, {y} * c.height, 1, 1).data]"
        f".slice(0, 3))(document.querySelector({canvas!r}))"
    )


def pixels(page, canvas: str) -> str:
    """All of a canvas."""
    return page.run(f"document.querySelector({canvas!r}).toDataURL()")


def cover(page, share: int) -> None:
    page.run(f"(s => {{ s.value = {share}; s.oninput({{target: s}}) }})"
             "(document.querySelector('#cover'))")  # fmt: skip


def test_strokes_and_areas_cell_by_cell(page):
    """The page's own functions against plain loops."""
    painted = page.run("""import('./painter.js').then(({ stroke, area }) => {
        const cells = []; stroke(16, [3.2, 4.1], [11.7, 8.3], 2.1, (place) => cells.push(place));
        const labels = new Uint8Array(64).fill(1);
        for (const place of [9, 10, 17, 18, 26, 35]) labels[place] = 2;
        const filled = []; area(labels, 8, 1, 1, (place) => filled.push(place));
        return [cells, filled.sort((a, b) => a - b)]; })""")
    a, b = np.array([3.2, 4.1]), np.array([11.7, 8.3])
    wanted = []
    for place in range(256):
        centre = np.array([place % 16, place // 16]) + 0.5
        share = np.clip((centre - a) @ (b - a) / ((b - a) @ (b - a)), 0, 1)
        if np.linalg.norm(centre - a - share * (b - a)) <= 2.1:
            wanted.append(place)
    assert painted == [wanted, [9, 10, 17, 18, 26]]


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
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'painted map'")
    page.wait("document.querySelector('#status').textContent.includes('of the labels')")
    assert len(server.session.history[0]) == count + 1
    labels = server.session.face.labels
    assert labels[3, 16] == 13 and page.run("document.querySelector('#apply').disabled")
    page.press("z", control=True)
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'face 7'")
    assert server.session.history[1] == count - 1
    page.wait("!document.querySelector('#redo').disabled")


def test_strokes_and_steps_are_undone_in_their_order(opened, page):
    server, _ = opened
    cover(page, 100)
    plain = color(page, "#map", 0.5, 0.1)
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    page.click("#looks button:nth-child(5)")
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'hair like face 4'")
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]  # painted strokes outlast a look
    page.wait("document.querySelector('#looks [aria-pressed=true]').dataset.seed == 4")
    page.press("z", control=True)
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'face 7'")
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]
    page.wait("document.querySelector('#looks [aria-pressed=true]') === null")
    assert page.run("document.querySelector('#amount').disabled")
    page.press("z", control=True)
    assert color(page, "#map", 0.5, 0.1) == plain
    page.press("y", control=True)
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]
    page.press("y", control=True)
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'hair like face 4'")


def test_strokes_of_a_step_are_there_when_it_comes_back(opened, page):
    cover(page, 100)
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    page.click("#faces button:nth-child(2)")
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'face 1'")
    page.press("z", control=True)
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'face 7'")
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]
    assert not page.run("document.querySelector('#apply').disabled")


def test_while_the_face_follows_nothing_is_painted(opened, page):
    server, _ = opened
    cover(page, 100)
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    page.run("document.querySelector('#iterations').options[2].value = '2000'")
    page.run("document.querySelector('#iterations').selectedIndex = 2")
    page.click("#apply")
    page.wait("document.querySelector('#progress').value > 0")
    before = color(page, "#map", 0.5, 0.6)
    page.drag("#map", (0.1, 0.6), (0.9, 0.6))
    assert color(page, "#map", 0.5, 0.6) == before
    assert page.run("document.querySelector('#amount').disabled")
    page.click("#stop")
    page.wait("document.querySelector('#steps [aria-current]').textContent.includes('stopped')")


def test_before_shows_the_step_before_while_it_is_held(opened, page):
    server, _ = opened
    page.click("#looks button:nth-child(3)")
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'hair like face 2'")
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


def test_fill_pick_and_reset(page):
    cover(page, 100)
    click_text(page, "#palette button", "hat")
    page.press("f")
    page.drag("#map", (0.02, 0.5))
    assert color(page, "#map", 0.02, 0.5) == [255, 51, 153]
    click_text(page, "#palette button", "skin")
    page.press("i")
    page.drag("#map", (0.02, 0.5))
    chosen = "document.querySelector('#palette [aria-pressed=true]').textContent"
    assert page.run(chosen) == "hat"
    page.click("#reset")
    assert color(page, "#map", 0.02, 0.5) != [255, 51, 153]
    click_text(page, "#palette button", "hair")
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    page.click("#apply")  # what was reset is not in the step's name
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'painted map'")


def test_a_look_and_its_amount(opened, page):
    server, _ = opened
    click_text(page, "#groups button", "face")
    page.wait("document.querySelector('#looks button').dataset.seed == 0")
    page.click("#looks button:nth-child(5)")
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'face like face 4'")
    whole = server.session.face.appearance.phases
    page.run("(s => { s.value = 0.5; s.oninput() })(document.querySelector('#amount'))")
    end = "face like face 4"
    for _ in range(100):
        if not (server.session.face.appearance.phases == whole).all():
            break
        page.run("new Promise(done => setTimeout(done, 50))")
    assert not (server.session.face.appearance.phases == whole).all() and step(page) == end


def amount(page) -> str:
    return page.run("document.querySelector('#amount').value")


def test_the_amount_is_that_of_the_step(opened, page):
    server, _ = opened
    server.session.look("hair", 4, 0.5)
    server.session.look("face", 4, 0.26)
    server.session.save("hair like face 3")
    server.session.open(server.session.file("hair like face 3"))
    page.call("Page.reload")
    current = "document.querySelector('#steps [aria-current]')?.textContent"
    page.wait(f"{current} == 'hair like face 3'")  # a project: it is no look
    assert page.run("document.querySelector('#amount').disabled")
    assert page.run("document.querySelector('#looks [aria-pressed=true]') === null")
    page.press("z", control=True)
    page.wait(f"{current} == 'face like face 4'")
    assert amount(page) == "0.26"
    page.press("z", control=True)
    page.wait(f"{current} == 'hair like face 4'")
    assert amount(page) == "0.5"
    page.press("y", control=True)
    page.wait(f"{current} == 'face like face 4'")
    assert amount(page) == "0.26"


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
    page.wait(
        "document.querySelector('#steps [aria-current]').textContent.includes('another side')"
    )
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
    path = server.session.out / "from the page.safetensors"
    assert FaceProject.load(path).labels.tobytes() == server.session.face.labels.tobytes()
    assert Image.open(path.with_suffix(".labels.png")).size == (32, 32)
    page.click("#open-faces")
    click_text(page, "#projects button", "from the page")
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'from the page'")
    assert not page.run("document.querySelector('#faces-dialog').open")


def test_an_error_is_shown_and_the_page_goes_on(page):
    page.run("document.querySelector('#name').value = '../x'")
    page.click("#save")
    page.wait("document.querySelector('#status.bad') !== null")
    assert "not a name for a face" in status(page)
    page.click("#more-faces")
    page.wait("document.querySelector('#faces button').dataset.seed == 8")
    page.click("#faces button:nth-child(3)")
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'face 10'")


@pytest.mark.parametrize("width, height", [(1280, 720), (1920, 1080), (700, 900)])
def test_nothing_overflows_at_the_sides(opened, page, width, height):
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
              deviceScaleFactor=1, mobile=False)  # fmt: skip
    wide = page.run("""[...document.querySelectorAll('body *')].filter((e) => {
        const box = e.getBoundingClientRect(); const parent = e.closest('section, aside, header');
        return parent && parent !== e && box.width
            && box.right > parent.getBoundingClientRect().right + 1;
    }).map((e) => e.id || e.textContent)""")
    assert wide == []
    assert page.run("document.documentElement.scrollWidth") <= width


def test_an_address_without_the_key_is_told_so(opened):
    """In the browser that the others use, which goes back to its page."""
    _, page = opened
    address = page.run("location.href")
    page.call("Page.navigate", url=address.partition("?")[0])
    page.wait("document.querySelector('#refused') && !document.querySelector('#refused').hidden")
    assert page.run("document.querySelector('#lost').hidden")
    assert page.run("document.querySelector('#refused').offsetHeight") > 0
    page.call("Page.navigate", url=address)
    page.wait("document.querySelectorAll('#looks button').length == 8")
    assert page.run("document.querySelector('#refused').hidden")
