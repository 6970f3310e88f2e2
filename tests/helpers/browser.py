"""A headless Chromium for tests of a page, driven through its DevTools socket."""

import base64
import itertools
import json
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions",
    "--disable-background-networking", "--remote-debugging-port=0", "--remote-allow-origins=*",
)  # fmt: skip


class Page:
    """One page: scripts run in it, clicks and keys go to it as a person's would."""

    def __init__(self, socket: ClientConnection):
        self.socket, self.numbers, self.problems = socket, itertools.count(1), list[str]()

    def call(self, method: str, **parameters: Any) -> Any:
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            self._note(message)
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]

    def run(self, script: str) -> Any:
        """The value of an expression in the page; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def _asked(self, script: str) -> Any:
        """As `run`; None where the page went away meanwhile, so that the next one is asked."""
        try:
            return self.run(script)
        except AssertionError as error:
            if "navigated" not in str(error):
                raise
            return None

    def wait(self, script: str, seconds: float = 60) -> Any:
        """Until the expression is true."""
        end = time.monotonic() + seconds
        while not (value := self._asked(script)):
            if time.monotonic() > end:
                said = self.run("document.querySelector('#status')?.textContent")
                raise AssertionError(f"{script} did not come true: {self.problems}, {said!r}")
            time.sleep(0.05)
        return value

    def place(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """A point of an element, by shares of its width and height."""
        box = self.run(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        return box["left"] + x * box["width"], box["top"] + y * box["height"]

    def drag(self, selector: str, *points: tuple[float, float]) -> None:
        """Press at the first point of an element, move over the others, let go at the last."""
        places = [self.place(selector, *point) for point in points]
        self._mouse("mousePressed", places[0])
        for place in places[1:]:
            self._mouse("mouseMoved", place)
        self._mouse("mouseReleased", places[-1])

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'nearest'}})")
        self.drag(selector, (0.5, 0.5))

    def press(self, key: str, control: bool = False, shift: bool = False) -> None:
        held = 2 * control + 8 * shift
        for kind in ("rawKeyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=held)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _mouse(self, kind: str, place: tuple[float, float]) -> None:
        self.call(
            "Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left",
            buttons=int(kind != "mouseReleased"), clickCount=1,
        )  # fmt: skip

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.problems.append(str(parameters["exceptionDetails"]))
        if message.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(parameters["entry"]["text"])


@contextmanager
def open_page(address: str, folder: Path, size: tuple[int, int] = (1280, 800)) -> Iterator[Page]:
    """A page of a new browser with a profile in `folder`."""
    window = f"--window-size={size[0]},{size[1]}"
    command = [CHROMIUM or "chromium", *FLAGS, window, f"--user-data-dir={folder}", "about:blank"]
    log = folder / "log"
    with open(log, "w") as out, subprocess.Popen(command, stderr=out) as browser:
        try:
            with connect(_page_socket(log), max_size=None) as socket:
                page = Page(socket)
                for domain in ("Page", "Runtime", "Log"):
                    page.call(f"{domain}.enable")
                page.call(
                    "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1],
                    deviceScaleFactor=1, mobile=False,
                )  # fmt: skip
                page.call("Page.navigate", url=address)
                yield page
        finally:
            browser.kill()


def _page_socket(log: Path) -> str:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = re.search(r"DevTools listening on ws://([^/]+)/", log.read_text())
        if found:
            with urllib.request.urlopen(f"http://{found[1]}/json/list") as answer:
                pages = [p for p in json.load(answer) if p["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    raise TimeoutError(f"Chromium did not start: {log.read_text()}")
