"""What is told to all pages, kept for each of them until it takes it."""

from __future__ import annotations

import asyncio
import contextlib

from starlette.websockets import WebSocket, WebSocketDisconnect

PATIENCE = 5.0  # seconds until a page that takes no message counts as gone


class Outbox:
    """Messages to one page in their order, of each kind the newest alone.

    Nobody waits for a page that takes none: once `PATIENCE` is over its socket is closed, and it
    learns how things stand when it connects anew.
    """

    def __init__(self, socket: WebSocket):
        self.socket = socket
        self._waiting: dict[str, bytes] = {}
        self._any = asyncio.Event()

    def put(self, kind: str, message: bytes) -> None:
        self._waiting.pop(kind, None)
        self._waiting[kind] = message
        self._any.set()

    async def run(self) -> None:
        """Send what comes in, until the page is gone."""
        try:
            while True:
                await self._any.wait()
                while self._waiting:
                    kind = next(iter(self._waiting))
                    await asyncio.wait_for(send(self.socket, self._waiting.pop(kind)), PATIENCE)
                self._any.clear()
        except WebSocketDisconnect:
            pass
        except TimeoutError:
            with contextlib.suppress(RuntimeError, TimeoutError):
                await asyncio.wait_for(self.socket.close(1013), 1)


async def send(socket: WebSocket, message: bytes) -> None:
    """WebSocketDisconnect where the page is gone."""
    try:
        await socket.send_bytes(message)
    except RuntimeError as error:  # what Starlette raises once the socket is closed
        raise WebSocketDisconnect(1006) from error


async def receive(socket: WebSocket) -> bytes:
    """The next message; WebSocketDisconnect where the page is gone, or this end has closed."""
    try:
        return await socket.receive_bytes()
    except RuntimeError as error:
        raise WebSocketDisconnect(1006) from error
