"""face.html in a browser: what it draws is the reference's picture, and a person can use it."""

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from baked import baked, drawn
from browser import CHROMIUM, Page, open_page

from semfaceedit.baking.bake import BakedFace
from semfaceedit.baking.page import page as page_of
from semfaceedit.baking.sampling import draw
from semfaceedit.model.generator import Generator
from semfaceedit.pictures.grids import picture_rows

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
    pytest.mark.usefixtures("one_thread"),
]
READY = "!!globalThis.face"


@pytest.fixture(scope="module")
def face() -> BakedFace:
    return baked(Generator.from_checkpoint(None), 1, 96)


@pytest.fixture(scope="module")
def page(face: BakedFace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("page")
    (folder / "face.html").write_text(page_of(face, title="A face", image_format="png"))
    with open_page((folder / "face.html").as_uri(), folder, (500, 800)) as opened:
        opened.wait(READY)
        yield opened
        assert opened.problems == []


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.square(one.astype(float) - other).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.parametrize("pose", [(0.0, 0.0), (0.7, -0.2)])
def test_the_shader_draws_what_the_reference_draws(
    page: Page, face: BakedFace, pose: tuple[float, float]
) -> None:
    expected = picture_rows(draw(face, pose, 96))
    found = {view: drawn(page, *pose, 96, view) for view in ("face", "labels", "depth")}
    assert psnr(found["face"], expected["image"][0].numpy()) > 38
    same = (found["labels"] == expected["semantics"][0].numpy()).all(-1)
    assert same.mean() > 0.99
    assert psnr(found["depth"], expected["depth"][0].numpy()) > 35
    moving = drawn(page, *pose, 96, coarse=True)
    assert psnr(moving, expected["image"][0].numpy()) > 37
    labels = drawn(page, *pose, 96, "labels", coarse=True)
    assert (labels == expected["semantics"][0].numpy()).all(-1).mean() > 0.995


def test_a_group_takes_another_look(page: Page, face: BakedFace) -> None:
    mixed = face.colors.copy()
    mixed[0, 0] = face.colors[1, 0]
    expected = draw(dataclasses.replace(face, colors=mixed), (0.0, 0.0), 96)
    before = drawn(page, 0, 0, 96)
    page.run("document.querySelectorAll('#looks .look')[0].querySelectorAll('button')[1].click()")
    page.wait("document.querySelectorAll('#looks [aria-checked=true]')[0].title == 'As seed 50'")
    page.run("new Promise((done) => setTimeout(done, 300))")
    after = drawn(page, 0, 0, 96)
    assert psnr(after, picture_rows(expected)["image"][0].numpy()) > 38
    hair = torch.tensor(face.group_of_class)[expected.labels[0]].numpy() == 0
    moved = np.abs(after.astype(int) - before).mean(-1)
    assert moved[hair].mean() > 10 * moved[~hair].mean()
    page.run("document.querySelectorAll('#looks .look')[0].querySelectorAll('button')[0].click()")


def test_the_head_turns_by_keys_and_pointer(page: Page) -> None:
    page.run("face.turn(0, 0)")
    page.press("ArrowRight")
    page.press("ArrowUp")
    assert page.run("[face.state.yaw, face.state.pitch]") == [0.05, 0.05]
    page.drag("#picture", (0.5, 0.5), (0.6, 0.5), (0.95, 0.5))
    assert page.run("face.state.yaw") == 0.7  # as far as it goes
    page.wait("!face.state.moving")
    said = page.run("document.querySelector('#picture').getAttribute('aria-label')")
    assert said == "A head, turned 40 degrees to the right"
    page.press("Home")
    assert page.run("[face.state.yaw, face.state.pitch]") == [0, 0]


def test_views_change_by_keys_and_show_a_legend(page: Page) -> None:
    page.press("2")
    assert page.run("face.state.view") == "labels"
    assert page.run("!document.querySelector('#classes').hidden")
    assert "hair" in page.run("document.querySelector('#classes').textContent")
    page.press("1")
    assert page.run("document.querySelector('#views [aria-checked=true]').textContent") == "Face"


def test_a_browser_without_webgl_is_told(face: BakedFace, tmp_path) -> None:
    text = page_of(face, title="A face").replace('getContext("webgl2"', 'getContext("webgl9"')
    (tmp_path / "face.html").write_text(text)
    with open_page((tmp_path / "face.html").as_uri(), tmp_path, (500, 800)) as opened:
        opened.wait(
            "document.readyState == 'complete' && !document.querySelector('#message').hidden"
        )
        assert "WebGL 2" in opened.run("document.querySelector('#message').textContent")
