"""The editor's page in a browser: brushes, zoom and keys on the map, and a fit as it runs."""

import time

import numpy as np
import pytest
from browser import CHROMIUM
from editor_page import click_text, color, cover, pixels, reload, shared, wait_for_revision

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
    pytest.mark.usefixtures("one_thread"),
]


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
    page.click("#apply")  # what was reset is not in the revision's name
    wait_for_revision(page, "painted map")


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
    wait_for_revision(page, "painted map")


def test_a_stroke_repaints_a_part_of_the_map_alone(page):
    page.run("""window.areas = []; (put => {
        CanvasRenderingContext2D.prototype.putImageData = function (...a) {
            window.areas.push(a.length > 3 ? a[5] * a[6] : 32 * 32); put.apply(this, a); };
    })(CanvasRenderingContext2D.prototype.putImageData)""")
    page.drag("#map", (0.5, 0.5), (0.52, 0.5), (0.54, 0.5))
    areas = page.run("window.areas")
    assert len(areas) == 3 and max(areas) <= 14 * 14


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
    wait_for_revision(page, "face 3")
    assert color(page, "#map", 0.5, 0.1) != [0, 0, 204]
    server.session.choose(7)
    shared(page, "send({ type: 'go', revision: page.state.at + 1 })")
    wait_for_revision(page, "face 7")
    assert color(page, "#map", 0.5, 0.1) == [0, 0, 204]


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
    wait_for_revision(page, "stopped", whole=False)


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
    wait_for_revision(page, "stopped", whole=False)
