"""The editor's page in a browser: sizes of windows, colours, keys, and what is offered when."""

import numpy as np
import pytest
from browser import CHROMIUM
from editor_page import click_text, resize, shared, wait_for_revision

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.mark.parametrize(
    "width, height", [(1280, 720), (1920, 1080), (800, 900), (640, 360), (390, 780)]
)
def test_nothing_overflows_at_the_sides(opened, page, width, height):
    resize(page, width, height)
    server, _ = opened
    server.session._add("x" * 200, server.session.face, seed=3)
    shared(page, "send({ type: 'go', revision: page.state.at + 1 })")
    wait_for_revision(page, "xxx", whole=False)
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


def test_the_tab_key_has_few_stops(page):
    stops = page.run("""[...document.querySelectorAll('a, button, input, select, canvas')].filter(
        (e) => e.tabIndex >= 0 && !e.disabled && e.offsetHeight && !e.closest('dialog')).length""")
    assert stops <= 35
    page.run("document.querySelector('#tools button').focus()")
    page.press("ArrowRight")
    assert page.run("document.activeElement.dataset.tool") == "erase"
    assert page.run("document.querySelector('a.skip').getAttribute('href')") == "#map"


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


def test_a_look_is_offered_for_whole_regions_alone(page):
    buttons = "[...document.querySelectorAll('[data-what]')].map((b) => b.disabled)"
    choose = "(s => {{ s.value = {!r}; s.onchange() }})(document.querySelector('#region'))"
    page.run(choose.format("nose"))
    assert page.run(buttons) == [False, True, True]
    page.run(choose.format("face"))
    assert page.run(buttons) == [False, False, False]


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_a_photograph_is_pasted_or_dropped(page, way):
    transfer = "clipboardData" if way == "paste" else "dataTransfer"
    kind = "ClipboardEvent" if way == "paste" else "DragEvent"
    page.run(f"""(data => {{ data.items.add(new File([new Uint8Array(3)], 'ann.png',
        {{ type: 'image/png' }})); dispatchEvent(new {kind}('{way}',
        {{ {transfer}: data, cancelable: true }})) }})(new DataTransfer())""")
    assert page.run("document.querySelector('#photo-dialog').open")
    assert page.run("document.querySelector('#photo').files[0].name") == "ann.png"


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
