"""The face at hand as layers that a page draws by itself, so that turning it asks for nothing.

A face is baked while nothing else is done: in a thread of low priority, one face at a time, for
each page the one that it asked for last.
"""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

from starlette.websockets import WebSocket

from ..baking.bake import bake
from ..baking.container import pack_layers
from ..editing.project import FaceProject
from ..kernels import use_backend
from .background import Background
from .messages import pack_message
from .outbox import Outbox
from .session import EditingSession

MOST_TEXELS = 512  # along an edge of a layer
QUICK = 1  # level of zlib: the page is on this machine


@dataclass(frozen=True)
class Wanted:
    """A face by its revision, and the texels along an edge of its layers."""

    number: int
    version: int
    texels: int


class Interrupted(Exception):
    """The face is no longer the one at hand, or something else needs the processor."""


class Baker:
    """Bakes faces of a session for its pages."""

    def __init__(self, session: EditingSession, backend: str | None):
        self.session, self.backend = session, backend
        self._background = Background("layers")
        self._stop = threading.Event()
        self._last: tuple[Wanted, bytes] | None = None

    def ask(self, page: WebSocket, outbox: Outbox, wanted: Wanted) -> None:
        """Send a page its layers once they are baked; what it asked for before is dropped."""
        self._stop.clear()
        self._background.ask(page, outbox, self._answer(wanted))

    def interrupt(self) -> None:
        """Leave what is being baked: the page gets an answer without layers, and may ask again."""
        self._stop.set()

    def _answer(self, wanted: Wanted) -> Iterator[bytes]:
        header = {"type": "layers", **asdict(wanted), "again": False}
        layers = b""
        try:
            layers = self._layers(wanted)
        except Interrupted:
            header["again"] = True
        except Exception:  # the head is then turned by the server, as without WebGL 2
            traceback.print_exc()
        yield pack_message(header, layers)

    def _layers(self, wanted: Wanted) -> bytes:
        """What `baking/page/layers.js` reads."""
        if self._last is None or self._last[0] != wanted:
            self._last = wanted, self._baked(wanted)
        return self._last[1]

    def _baked(self, wanted: Wanted) -> bytes:
        def watch(chunks: Sequence[int]) -> Iterable[int]:
            for chunk in chunks:
                self._face(wanted)
                yield chunk

        project, generator = self._face(wanted), self.session.generator
        with use_backend(self.backend):
            face = bake(
                project.generator(generator),
                project.codes(generator),
                size=wanted.texels,
                watch=watch,
                shared=generator,
            )
            self._face(wanted)
            return pack_layers(face, level=QUICK)

    def _face(self, wanted: Wanted) -> FaceProject:
        """The face, while it is the one at hand and nothing has interrupted; else Interrupted."""
        revision = self.session.revision
        current = (revision.number, revision.version) == (wanted.number, wanted.version)
        if self._stop.is_set() or not current:
            raise Interrupted
        return revision.project
