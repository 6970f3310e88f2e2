"""What a person does on the editor's page and sees there, for tests in a browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from browser import Page, open_page
from editor_server import KEY


@contextmanager
def editor_page(address: str, folder: Path) -> Iterator[Page]:
    """The page of the editor at this address in a new browser, once it shows a face."""
    with open_page(f"http://{address}/?key={quote(KEY)}", folder) as page:
        ready(page)
        yield page
        assert not page.problems


def resize(page: Page, width: int, height: int) -> None:
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
              deviceScaleFactor=1, mobile=False)  # fmt: skip


def shared(page: Page, script: str) -> Any:
    """The value of an expression on `page`, what the page's modules share."""
    return page.run(f"import('./state.js').then(({{ page, find, send }}) => {script})")


def ready(page: Page) -> None:
    page.wait("!window.old && document.querySelectorAll('#looks button').length == 8")


def reload(page: Page) -> None:
    page.run("window.old = true; window.onbeforeunload = null")
    page.call("Page.reload")
    ready(page)


def click_text(page: Page, selector: str, text: str) -> None:
    page.run(
        f"[...document.querySelectorAll({selector!r})].find(b => b.textContent == {text!r}).click()"
    )


def status(page: Page) -> str:
    return str(page.run("document.querySelector('#status').textContent"))


REVISION = "document.querySelector('#revisions [aria-current]')?.textContent"


def revision(page: Page) -> str:
    """The name of the revision at hand."""
    return str(page.run(REVISION))


def wait_for_revision(page: Page, name: str, *, whole: bool = True) -> None:
    """Until it is at hand; `whole=False`: one with this in its name."""
    page.wait(f"{REVISION} == {name!r}" if whole else f"{REVISION}?.includes({name!r})")


def color(page: Page, canvas: str, x: float, y: float) -> list[int]:
    """The colour of a canvas at shares of its width and height."""
    value: list[int] = page.run(
        f"(c => [...c.getContext('2d').getImageData({x} * c.width, {y} * c.height, 1, 1).data]"
        f".slice(0, 3))(document.querySelector({canvas!r}))"
    )
    return value


def pixels(page: Page, canvas: str) -> str:
    """All of a canvas."""
    return str(page.run(f"document.querySelector({canvas!r}).toDataURL()"))


def cover(page: Page, share: int) -> None:
    """How much of the face the labels hide, in percent."""
    page.run(f"(s => {{ s.value = {share}; s.oninput({{target: s}}) }})"
             "(document.querySelector('#cover'))")  # fmt: skip
