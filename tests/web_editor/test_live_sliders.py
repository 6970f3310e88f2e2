"""Sliders of the weights in the editor: live, one revision for what follows on one another."""

import numpy as np
import pytest
import torch
from browser import CHROMIUM
from editor_page import editor_page, reload, wait_for_revision
from faces import open_editor
from slider_cases import tiny_sliders

from semfaceedit.errors import UserError
from semfaceedit.web_editor.session import EditingSession

pytestmark = pytest.mark.usefixtures("one_thread")


def with_sliders(editor):
    """The same editor with two sliders, of the shape and of the skin."""
    editor.directions = tiny_sliders(editor.generator)
    return editor


@pytest.fixture(scope="module")
def editor(editor):
    return with_sliders(editor)


@pytest.fixture(scope="module")
def served(served):
    with_sliders(served[0].session.editor)
    return served


def test_sliders_that_follow_one_another_are_one_revision(editor, tmp_path):
    session = EditingSession(editor, tmp_path)
    session.choose(5)
    face = session.face
    session.adjust({"face width": 1.0})
    session.adjust({"face width": 1.5, "skin hue": -0.5})
    revisions, at = session.history
    assert at == 1 and len(revisions) == 2
    assert session.revision.name == "face width +1.5, skin hue -0.5"
    wanted = editor.adjust(face, {"face width": 1.5, "skin hue": -0.5}).project
    assert torch.equal(session.face.geometry.phases, wanted.geometry.phases)
    assert torch.equal(session.face.appearance.phases, wanted.appearance.phases)
    session.look("garment", 3)
    adjusted = session.face
    session.adjust({"face width": 1.0})  # from the face as it is by then
    assert session.history[1] == 3 and not torch.equal(
        session.face.geometry.phases, adjusted.geometry.phases
    )
    session.adjust({"face width": 0.0})
    assert session.history[1] == 2 and session.face is adjusted
    session.adjust({})
    assert session.history[1] == 2
    for wrong, said in (({"mouth": 1.0}, "unknown"), ({"face width": 50.0}, "use -5")):
        with pytest.raises(UserError, match=said):
            session.adjust(wrong)
    assert session.history[1] == 2


def test_a_frame_shows_a_slider_at_once(editor, tmp_path):
    session = EditingSession(editor, tmp_path)
    session.choose(5)
    session.adjust({"skin hue": 1.0})
    base = session.history[0][0].project
    plain = session.views.view(base, "image", (0.1, 0.0), moving=False)
    assert np.array_equal(session.view("image", (0.1, 0.0), changes={}), plain)
    seen = session.view("image", (0.1, 0.0), changes={"skin hue": -1.0})
    assert not np.array_equal(seen, plain) and len(session.history[0]) == 2


def test_messages_of_sliders(client):
    assert [s["name"] for s in client.about["sliders"]] == ["face width", "skin hue"]
    assert [s["part"] for s in client.about["sliders"]] == ["shape", "face"]
    for wrong in ([1], {"face width": "x"}, {"face width": 9}, {"x" * 300: 1}, {"none": 1}):
        client.send("adjust", changes=wrong)
        assert client.wait("error")[0]["message"]
    client.send("adjust", changes={"face width": 1})
    state, _ = client.wait("state")
    assert state["sliders"][state["at"]] == {"face width": 1}


def test_weights_without_directions_have_no_sliders(editor, tmp_path):
    editor = open_editor(tmp_path)
    session = EditingSession(editor, tmp_path)
    session.choose(1)
    for act in (
        lambda: session.adjust({"face width": 1.0}),
        lambda: session.view("image", (0.0, 0.0), changes={"face width": 1.0}),
    ):
        with pytest.raises(UserError, match="no sliders"):
            act()


SLIDE = """(input => {{ input.value = {}; input.dispatchEvent(new Event('{}')) }})(
    document.querySelector('#slider-list input'))"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_sliders_of_the_page_are_live(served, tmp_path):
    server, address = served
    server.session.choose(5)
    with editor_page(address, tmp_path) as page:
        count = len(server.session.history[0])
        shown = page.run("document.querySelector('#face').toDataURL()")
        page.run(SLIDE.format(2, "input"))
        page.wait(f"document.querySelector('#face').toDataURL() != {shown!r}")
        assert len(server.session.history[0]) == count  # nothing is a revision yet
        page.run(SLIDE.format(2, "change"))
        wait_for_revision(page, "face width +2.0")
        page.wait("""import('./state.js').then(({ page: { viewer } }) =>
            !viewer.waiting && !viewer.wanted && !viewer.asked.moving)""")  # a still view
        page.run(SLIDE.format(1, "change"))
        wait_for_revision(page, "face width +1.0")
        assert len(server.session.history[0]) == count + 1
        page.press("z", control=True)
        wait_for_revision(page, "face 5")
        page.wait("document.querySelector('#slider-list input').value == 0")
        page.press("y", control=True)
        page.wait("document.querySelector('#slider-list input').value == 1")
        page.click("#slider-reset")
        wait_for_revision(page, "face 5")
        server.session.editor.directions = None
        reload(page)
        assert page.run("document.querySelector('#sliders').hidden")
