"""How the editor speaks HTTP: the headers of every answer, limits on what is sent, and time."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address holds the key
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}
PATIENCE = 10.0  # seconds for a connection to send a whole request


class Guard:
    """Puts `HEADERS` on every HTTP answer, those that refuse a socket too, and refuses a request
    that has a body, unread."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        opened = False

        async def headed(message: Message) -> None:
            nonlocal opened
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                MutableHeaders(scope=message).update(HEADERS)
            opened = opened or message["type"] == "websocket.accept"
            if message["type"] == "websocket.close" and not opened:
                refusal = PlainTextResponse("this editor opens no socket to that page", 403)
                await refusal(scope, receive, headed)
            else:
                await send(message)

        if scope["type"] != "http":
            await self.app(scope, receive, headed)
        elif _has_body(Headers(scope=scope)):
            refusal = PlainTextResponse(
                "this editor takes no body here", 413, {"Connection": "close"}
            )
            await refusal(scope, receive, headed)
        else:
            await self.app(scope, receive, headed)


class PatientProtocol(H11Protocol):
    """HTTP/1.1, which closes a connection that sends no whole request for `PATIENCE` seconds."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._arm()

    def _arm(self) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(PATIENCE, self._end)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def _end(self) -> None:
        """Close, unless an answer is on its way or the connection became a socket."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if not answering and self.transport.get_protocol() is self:
            self.transport.abort()


def _has_body(headers: Headers) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
