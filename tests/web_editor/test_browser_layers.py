"""Turning the head: the browser draws the baked face, and the editor is asked for nothing."""

import base64
import json
import struct
import threading

import numpy as np
import pytest
from browser import CHROMIUM
from editor_page import editor_page, ready, wait_for_revision

from semfaceedit.web_editor import layers as layers_module

pytestmark = pytest.mark.usefixtures("one_thread")
TEXELS = 16
NO_WEBGL = """{ const own = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  return kind === "webgl2" ? null : own.call(this, kind, ...rest); }; }"""
READY = (
    """import('./state.js').then(({ page }) => page.viewer.head.ready({ yaw: 0.3, pitch: 0 }))"""
)
# Turns the head for a moment; what was asked of the editor meanwhile, and what is shown at the end.
TURN = """import('./state.js').then(({ page }) => new Promise((done) => {
  const { viewer } = page, { ask } = viewer, canvas = document.querySelector('#face'), asked = [];
  viewer.ask = (view) => { asked.push(view); return ask(view); };
  for (let yaw = 0.05; yaw < 0.42; yaw += 0.05) viewer.look({ yaw, pitch: 0 });
  setTimeout(() => { viewer.ask = ask; done([asked.length, canvas.toDataURL()]); }, 1200);
}))"""


def now(server) -> dict[str, int]:
    revision = server.session.revision
    return {"number": revision.number, "version": revision.version, "texels": TEXELS}


def test_layers_are_those_of_the_face_at_hand(served, client):
    server, _ = served
    client.send("layers", **now(server))
    header, payload = client.wait("layers", again=False)
    (length,) = struct.unpack("<I", payload[:4])
    baked = json.loads(payload[4 : 4 + length])
    assert baked["width"] == TEXELS and baked["groups"] == list(server.session.model.group_names)
    assert {name: header[name] for name in now(server)} == now(server)
    client.send("layers", **now(server))
    assert client.wait("layers")[1] == payload


def test_a_face_that_has_changed_is_not_baked(served, client):
    server, _ = served
    wanted = now(server)
    server.session.choose(6)
    client.send("layers", **wanted)
    header, payload = client.wait("layers")
    assert header["again"] and header["number"] == wanted["number"] and not payload


def test_a_brush_stops_a_bake(served, client, monkeypatch):
    server, _ = served
    began, painted = threading.Event(), threading.Event()

    def bake(*args, watch, **settings):
        began.set()
        assert painted.wait(30)
        list(watch(range(3)))
        raise AssertionError("it went on")

    monkeypatch.setattr(layers_module, "bake", bake)
    client.send("layers", **(now(server) | {"texels": TEXELS + 1}))
    assert began.wait(30)
    size = len(server.session.face.labels)
    client.send("follow", bytes(size**2), target="face", kind="image", yaw=0, pitch=0)
    assert client.wait("error")[0]["message"]  # these weights have no encoder
    painted.set()
    assert client.wait("layers")[0]["again"]


def test_a_defect_of_a_bake_is_told_to_the_terminal_alone(served, client, monkeypatch, capfd):
    server, _ = served
    monkeypatch.setattr(layers_module, "bake", lambda *args, **settings: 1 / 0)
    client.send("layers", **(now(server) | {"texels": TEXELS + 2}))
    header, payload = client.wait("layers")
    assert not header["again"] and not payload
    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_the_browser_turns_the_head_where_it_can(served, tmp_path):
    server, address = served
    server.session.choose(5)
    with editor_page(address, tmp_path) as page:
        page.wait(READY)
        asked, shown = page.run(TURN)
        assert asked == 0
        page.run("""import('./state.js').then(({ page }) => {
            const { renderer } = page.viewer.head;
            renderer.draw({ yaw: 0.4, pitch: 0, size: 32 });
            globalThis.drawn = btoa(String.fromCharCode(...renderer.pixels())); })""")
        data = np.frombuffer(base64.b64decode(page.run("drawn")), np.uint8)
        drawn = data.reshape(32, 32, 4)[..., :3]
        # These weights are untrained, and show each direction another colour; layers lock it.
        near, far = (
            np.abs(drawn.astype(int) - server.session.view("image", (yaw, 0.0))).mean()
            for yaw in (0.4, -0.4)
        )
        assert 2 * near < far

        # Another face: the editor shows it, until it is turned here.
        page.run("""import('./state.js').then(({ send }) =>
            send({ type: 'look', group: 'hair', seed: 4, amount: 1 }))""")
        wait_for_revision(page, "hair like face 4")
        assert not page.run("import('./state.js').then(({ page }) => page.viewer.own)")
        page.wait(READY)
        again, other = page.run(TURN)
        assert again == 0 and other != shown

        page.call("Page.addScriptToEvaluateOnNewDocument", source=NO_WEBGL)
        page.run("window.old = true")
        page.call("Page.reload")
        ready(page)
        page.wait("import('./state.js').then(({ page }) => page.viewer.head.renderer === null)")
        asked, shown = page.run(TURN)
        assert asked > 0
