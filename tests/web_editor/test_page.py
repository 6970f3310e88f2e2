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
    page.wait("document.querySelectorAll('#looks button').length == 8")
    shared(page, "page.painter.reset()")
    page.run("dispatchEvent(new Event('pagehide')); sessionStorage.clear()")
    reload(page)
    resize(page, 1280, 800)
    return page


def resize(page, width: int, height: int) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
              deviceScaleFactor=1, mobile=False)  # fmt: skip


def shared(page, script: str):
    """The value of an expression on `page`, what the page's modules share."""
    return page.run(f"import('./state.js').then(({{ page, find, send }}) => {script})")


def reload(page) -> None:
    page.run("window.old = true; window.onbeforeunload = null")
    page.call("Page.reload")
    page.wait("!window.old && document.querySelectorAll('#looks button').length == 8")


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


def test_quick_undos_all_count(opened, page):
    server, _ = opened
    for seed in (3, 4):
        page.click(f"#looks button:nth-child({seed})")
        page.wait(
            f"document.querySelector('#steps [aria-current]').textContent.endsWith({seed - 1})"
        )
        group = "face" if seed == 3 else "hair"
        click_text(page, "#groups button", group)
        page.wait("document.querySelectorAll('#looks button').length == 8")
    at = server.session.history[1]
    twice = "for (const _ of 'ab') document.body.dispatchEvent(new KeyboardEvent('keydown', {})); 0"
    page.run(twice.format("{ key: 'z', ctrlKey: true, bubbles: true }"))
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'face 7'")
    assert server.session.history[1] == at - 2
    page.run(twice.format("{ key: 'y', ctrlKey: true, bubbles: true }"))
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'face like face 3'")
    assert server.session.history[1] == at


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
    server.session.open(server.session.saved.file("hair like face 3"))
    reload(page)
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
    path = server.session.saved.out / "from the page.safetensors"
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


@pytest.mark.parametrize(
    "width, height", [(1280, 720), (1920, 1080), (800, 900), (640, 360), (390, 780)]
)
def test_nothing_overflows_at_the_sides(opened, page, width, height):
    resize(page, width, height)
    server, _ = opened
    server.session._add("x" * 200, server.session.face, seed=3)
    shared(page, "send({ type: 'go', step: page.state.at + 1 })")
    page.wait("document.querySelector('#steps [aria-current]').textContent.startsWith('xxx')")
    wide = page.run("""[...document.querySelectorAll('body *')].filter((e) => {
        const box = e.getBoundingClientRect(); const parent = e.closest('section, aside, header');
        const scrolls = e.parentElement.closest('#palette, .bar, header, #faces');
        return parent && parent !== e && box.width && !(innerWidth <= 700 && scrolls)
            && box.right > parent.getBoundingClientRect().right + 1;
    }).map((e) => e.id || e.textContent)""")
    assert wide == []
    assert page.run("document.documentElement.scrollWidth") <= width


def test_a_phone_shows_the_map_large_and_apply_above_the_fold(page):
    resize(page, 390, 780)
    box = page.run("document.querySelector('#map').getBoundingClientRect().toJSON()")
    assert box["width"] >= 0.9 * 390 and box["width"] == pytest.approx(box["height"], abs=1)
    assert page.run("document.querySelector('#apply').getBoundingClientRect().bottom") < 780
    assert page.run("document.documentElement.scrollHeight") <= 780
    for tab, seen in (("Face", "#face"), ("More", "#looks"), ("Map", "#map")):
        click_text(page, "#tabs button", tab)
        for part in ("#face", "#looks", "#map"):
            assert page.run(f"document.querySelector({part!r}).offsetHeight > 0") == (part == seen)


def test_what_was_painted_outlasts_a_reload(page):
    cover(page, 100)
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    asked = "(e => { dispatchEvent(e); return e.defaultPrevented })"
    asked += "(new Event('beforeunload', { cancelable: true }))"
    assert page.run(asked)  # the browser asks before the tab is closed
    reload(page)
    cover(page, 100)
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]
    assert not page.run("document.querySelector('#apply').disabled")
    page.press("z", control=True)
    assert color(page, "#map", 0.5, 0.1) != [0, 0, 204] and not page.run(asked)


def test_what_was_painted_without_the_editor_is_there_when_it_comes_back(opened, page):
    """Even where it has started again with another face, once the first is opened."""
    server, _ = opened
    cover(page, 100)
    shared(page, "page.socket.socket.close()")
    page.wait("!document.querySelector('#lost').hidden")
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    server.session.choose(3)
    page.wait("document.querySelector('#lost').hidden", 20)
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'face 3'")
    assert color(page, "#map", 0.5, 0.1) != [0, 0, 204]
    server.session.choose(7)
    shared(page, "send({ type: 'go', step: page.state.at + 1 })")
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'face 7'")
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]


def test_the_progress_of_a_fit_is_seen_in_the_face(page):
    cover(page, 0)
    page.run("new Promise(done => setTimeout(done, 600))")
    face, below = pixels(page, "#face"), pixels(page, "#map")
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    page.run("document.querySelector('#iterations').options[2].value = '2000'")
    page.run("document.querySelector('#iterations').selectedIndex = 2")
    page.click("#apply")
    page.wait("document.querySelector('#progress').value > 0")
    page.wait("document.querySelector('#fit').textContent.includes('so far')")
    end = time.monotonic() + 30
    while pixels(page, "#face") == face and time.monotonic() < end:
        time.sleep(0.05)
    assert pixels(page, "#face") != face
    page.run("document.querySelector('#map').dispatchEvent(new PointerEvent('pointerleave'))")
    assert pixels(page, "#map") == below
    shared(page, "Object.assign(page.state, { job: 'inversion' })")
    page.run("import('./panels.js').then(({ showBusy }) => showBusy())")
    assert float(page.run("getComputedStyle(document.querySelector('#map')).opacity")) < 0.3
    page.click("#stop")
    page.wait("document.querySelector('#steps [aria-current]').textContent.includes('stopped')")


def touch(page, kind: str, *points: tuple[float, float]) -> None:
    places = [page.place("#map", *point) for point in points]
    page.call("Input.dispatchTouchEvent", type=kind, touchPoints=[
        {"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)
    ])  # fmt: skip


def test_a_second_finger_zooms_and_paints_nothing(page):
    cover(page, 100)
    before = page.run("document.querySelector('#apply').disabled")
    touch(page, "touchStart", (0.4, 0.1))
    touch(page, "touchMove", (0.5, 0.1))
    assert not page.run("document.querySelector('#apply').disabled")
    touch(page, "touchStart", (0.5, 0.1), (0.6, 0.1))
    touch(page, "touchMove", (0.4, 0.1), (0.8, 0.1))
    touch(page, "touchEnd")
    assert page.run("document.querySelector('#apply').disabled") == before is True
    assert shared(page, "page.painter.view.zoom") == pytest.approx(4, rel=0.05)
    touch(page, "touchStart", (0.4, 0.5))
    touch(page, "touchMove", (0.5, 0.5))
    touch(page, "touchEnd")
    assert not page.run("document.querySelector('#apply').disabled")  # one finger paints again


def test_the_wheel_zooms_where_the_pointer_is_and_space_moves_the_map(page):
    cover(page, 100)
    x, y = page.place("#map", 0.25, 0.25)
    page.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-347)
    page.wait("import('./state.js').then(({ page }) => page.painter.view.zoom > 1.9)")
    view = shared(page, "({ ...page.painter.view })")
    assert view["zoom"] == pytest.approx(2, rel=0.01)
    assert view["x"] == pytest.approx(4, abs=0.1) == view["y"]  # (0.25, 0.25) is cell 8 still
    page.drag("#map", (0.5, 0.5))  # a dot
    labels = shared(page, "[...page.painter.labels]")
    assert labels[12 * 32 + 12] == 13
    page.call("Input.dispatchKeyEvent", type="rawKeyDown", key=" ")
    page.drag("#map", (0.5, 0.5), (0.75, 0.5))
    page.call("Input.dispatchKeyEvent", type="keyUp", key=" ")
    assert shared(page, "page.painter.view.x") == pytest.approx(0, abs=0.1)
    assert shared(page, "[...page.painter.labels]") == labels
    page.press("0")
    assert shared(page, "page.painter.view.zoom") == 1


def test_the_keyboard_paints(page):
    cover(page, 100)
    page.run("document.querySelector('#map').focus()")
    for _ in range(5):
        page.press("ArrowUp")
    before = shared(page, "page.painter.labels[6 * 32 + 16]")
    page.call("Input.dispatchKeyEvent", type="rawKeyDown", key=" ")
    for _ in range(4):
        page.press("ArrowLeft")
    page.call("Input.dispatchKeyEvent", type="keyUp", key=" ")
    painted = np.array(shared(page, "[...page.painter.labels]")).reshape(32, 32)
    assert (painted[6, 8:17] == 13).all() and before is not None
    page.press("ArrowDown", shift=True)
    assert (np.array(shared(page, "[...page.painter.labels]")).reshape(32, 32) == painted).all()
    page.press("Enter")
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'painted map'")


def test_the_tab_key_has_few_stops(page):
    stops = page.run("""[...document.querySelectorAll('a, button, input, select, canvas')].filter(
        (e) => e.tabIndex >= 0 && !e.disabled && e.offsetHeight && !e.closest('dialog')).length""")
    assert stops <= 35
    page.run("document.querySelector('#tools button').focus()")
    page.press("ArrowRight")
    assert page.run("document.activeElement.dataset.tool") == "erase"
    assert page.run("document.querySelector('a.skip').getAttribute('href')") == "#map"


def test_erase_lock_and_a_line_by_shift(page):
    cover(page, 100)
    plain = shared(page, "[...page.painter.labels]")
    first = plain[3 * 32 + 3]
    page.drag("#map", (0.1, 0.1))
    x, y = page.place("#map", 0.9, 0.1)
    for kind in ("mousePressed", "mouseReleased"):
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1,
                  modifiers=8)  # fmt: skip
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]  # all the way between the two
    page.press("e")
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    assert shared(page, "[...page.painter.labels]") == plain
    page.run(f"document.querySelector('[data-lock=\"{first}\"]').click()")
    page.press("b")
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    after = shared(page, "[...page.painter.labels]")
    assert [a for a, b in zip(after, plain, strict=True) if b == first] == [first] * plain.count(
        first
    )
    page.run("document.activeElement.blur()")
    shared(page, f"{{ page.painter.label = {first}; }}")
    page.press("l")
    page.drag("#map", (0.1, 0.1), (0.9, 0.1))
    assert shared(page, "page.painter.protected.size") == 0


def test_a_stroke_repaints_a_part_of_the_map_alone(page):
    page.run("""window.areas = []; (put => {
        CanvasRenderingContext2D.prototype.putImageData = function (...a) {
            window.areas.push(a.length > 3 ? a[5] * a[6] : 32 * 32); put.apply(this, a); };
    })(CanvasRenderingContext2D.prototype.putImageData)""")
    page.drag("#map", (0.5, 0.5), (0.52, 0.5), (0.54, 0.5))
    areas = page.run("window.areas")
    assert len(areas) == 3 and max(areas) <= 14 * 14


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
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'hair like face 4'")
    page.run("new Promise(done => setTimeout(done, 800))")
    assert page.run("window.sent.filter((kind) => kind != 'layers')") == ["look", "view"]
    page.run("document.querySelector('#map').dispatchEvent(new PointerEvent('pointerleave'))")
    assert pixels(page, "#map") != below


def test_a_look_is_offered_for_whole_regions_alone(page):
    buttons = "[...document.querySelectorAll('[data-what]')].map((b) => b.disabled)"
    choose = "(s => {{ s.value = {!r}; s.onchange() }})(document.querySelector('#region'))"
    page.run(choose.format("nose"))
    assert page.run(buttons) == [False, True, True]
    page.run(choose.format("face"))
    assert page.run(buttons) == [False, False, False]


def contrast(one: list[float], other: list[float]) -> float:
    """WCAG's, of two sRGB colours."""
    luminances = []
    for rgb in (one, other):
        share = np.array(rgb) / 255
        linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
        luminances.append(float(linear @ [0.2126, 0.7152, 0.0722]) + 0.05)
    return max(luminances) / min(luminances)


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_texts_can_be_read_in_both_schemes(page, scheme):
    page.call("Emulation.setEmulatedMedia",
              features=[{"name": "prefers-color-scheme", "value": scheme}])  # fmt: skip
    names = ("ground", "panel", "text", "quiet", "button", "hover", "accent", "accent-hover",
             "accent-text", "bad", "alarm")  # fmt: skip
    found = page.run(f"""{list(names)}.map((name) => {{
        const e = document.createElement('i'); e.style.color = `var(--${{name}})`;
        document.body.append(e); const color = getComputedStyle(e).color; e.remove();
        return color.match(/[0-9.]+/g).slice(0, 3).map(Number); }})""")
    page.call("Emulation.setEmulatedMedia", features=[])
    shade = dict(zip(names, found, strict=True))
    assert (sum(shade["ground"]) > 384) == (scheme == "light")
    for text, grounds in (
        ("text", ("ground", "panel", "button", "hover", "alarm")), ("quiet", ("ground", "panel")),
        ("accent-text", ("accent", "accent-hover")), ("bad", ("panel",)),
    ):  # fmt: skip
        for ground in grounds:
            assert contrast(shade[text], shade[ground]) >= 4.5, (text, ground)


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


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_a_photograph_is_pasted_or_dropped(page, way):
    transfer = "clipboardData" if way == "paste" else "dataTransfer"
    kind = "ClipboardEvent" if way == "paste" else "DragEvent"
    page.run(f"""(data => {{ data.items.add(new File([new Uint8Array(3)], 'ann.png',
        {{ type: 'image/png' }})); dispatchEvent(new {kind}('{way}',
        {{ {transfer}: data, cancelable: true }})) }})(new DataTransfer())""")
    assert page.run("document.querySelector('#photo-dialog').open")
    assert page.run("document.querySelector('#photo').files[0].name") == "ann.png"


def test_before_and_after_share_the_picture(page):
    page.click("#looks button:nth-child(3)")
    page.wait("document.querySelector('#steps [aria-current]').textContent == 'hair like face 2'")
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


def test_a_face_of_an_earlier_session_is_offered(opened, page):
    server, _ = opened
    server.session.save("autosave-19990101-000000-1")
    server.session.saved.recovered = "autosave-19990101-000000-1"
    try:
        reload(page)
        assert not page.run("document.querySelector('#recovered').hidden")
        page.click("#open-recovered")
        page.wait("document.querySelector('#steps [aria-current]').textContent.includes('1999')")
        reload(page)
        assert page.run("document.querySelector('#recovered').hidden")
    finally:
        server.session.saved.recovered = ""


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
