"""Work for pages beside all else: nothing waits for it, and what is outdated is dropped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from starlette.websockets import WebSocket

from .outbox import Outbox

NICE = 10  # of the thread, beside those that follow a brush


class Background:
    """One thread of low priority, for each page what it asked for last.

    name: of the thread, and of the messages.
    """

    def __init__(self, name: str):
        self.name = name
        self._wanted: dict[WebSocket, tuple[Outbox, Iterator[bytes]]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, name, initializer=_yield_to_others)

    def ask(self, page: WebSocket, outbox: Outbox, messages: Iterator[bytes]) -> None:
        """Send a page these messages, each when it is made; what it asked for before is dropped."""
        self._wanted[page] = outbox, messages
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())

    def outdated(self, page: WebSocket) -> bool:
        """Whether the page has asked for something else since."""
        return page in self._wanted

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while self._wanted:
            page = next(iter(self._wanted))
            outbox, messages = self._wanted.pop(page)
            while not self.outdated(page):
                message = await loop.run_in_executor(self._thread, next, messages, None)
                if message is None:
                    break
                outbox.put(self.name, message)


def _yield_to_others() -> None:
    """Lower this thread's priority, where the system knows one of threads."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
