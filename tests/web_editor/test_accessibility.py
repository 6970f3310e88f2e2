"""The page for everyone: what axe-core finds, and small windows."""

import shutil
import subprocess
from pathlib import Path

import pytest
from browser import CHROMIUM
from editor_page import reload, resize, wait_for_revision
from photographs import open_photograph

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
    pytest.mark.usefixtures("one_thread"),
]
RUN = """axe.run().then((found) => found.violations.map((violation) =>
    `${violation.id}: ${violation.nodes.map((node) => node.target).join(" ")}`))"""
SIZES = [(1280, 800), (390, 780), (640, 360)]


def axe() -> str:
    """The source of npm's axe-core, or ""."""
    if shutil.which("node") is None:
        return ""
    command = ["node", "-p", "require.resolve('axe-core')"]
    found = subprocess.run(command, capture_output=True, text=True)
    return "" if found.returncode else Path(found.stdout.strip()).read_text(encoding="utf-8")


def test_axe_finds_nothing(opened, page):
    source = axe()
    if not source:
        pytest.skip("no node, or npm's axe-core is missing")
    page.click("#looks button:nth-child(4)")  # so that all buttons may be pressed
    wait_for_revision(page, "hair like face 3")
    open_photograph(opened[0].session)
    reload(page)
    page.wait("!document.querySelector('#photograph').hidden")
    page.run(f"{source}; true")
    found = {}
    for scheme in ("dark", "light"):
        page.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": scheme}])  # fmt: skip
        for width, height in SIZES:
            resize(page, width, height)
            found[scheme, width] = page.run(RUN)
    resize(page, *SIZES[0])
    for dialog in ("export-dialog", "photo-dialog", "faces-dialog"):
        page.run(f"document.querySelector('#{dialog}').showModal()")
        found[dialog] = page.run(RUN)
        page.run(f"document.querySelector('#{dialog}').close()")
    page.call("Emulation.setEmulatedMedia", features=[])
    assert {place: problems for place, problems in found.items() if problems} == {}


@pytest.mark.parametrize("width, height", [(640, 360), (390, 780), (568, 320), (1280, 600)])
def test_a_small_window_shows_map_and_main_button_without_scrolling(page, width, height):
    resize(page, width, height)
    page.run("[...document.querySelectorAll('#tabs button')][0].click()")
    for selector, least in (("#map", 0.45 * min(width, height)), ("#apply", 20)):
        box = page.run(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        assert box["top"] >= 0 and box["bottom"] <= height and box["height"] >= least, selector
        on_top = page.run(
            f"document.elementFromPoint({(box['left'] + box['right']) / 2},"
            f" {(box['top'] + box['bottom']) / 2}).closest({selector!r}) !== null"
        )
        assert on_top, selector
    if width <= 700:
        page.run("[...document.querySelectorAll('#tabs button')][1].click()")
        box = page.run("document.querySelector('#face').getBoundingClientRect().toJSON()")
        assert box["top"] >= 0 and box["bottom"] <= height and box["height"] > 100
