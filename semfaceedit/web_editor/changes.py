"""Changes of the face in the editor: one at a time, told to every page, kept on the disk."""

from __future__ import annotations

import asyncio
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

from starlette.websockets import WebSocket

from ..editing.fit_terms import FitRecord, Goal, StopFit, Watch
from ..errors import UserError
from ..kernels import use_backend
from ..memory import give_back_memory
from ..model.renderer import RenderOutput
from . import answers
from .outbox import Outbox
from .session import EditingSession

KEEP_AFTER = 1.5  # seconds without a change, until the face is kept on the disk
KEEP_LOOK = 0.2  # seconds between looks at whether that has come
Result = TypeVar("Result")


class Changes:
    """Changes of one session's face: quick ones (`change`), long ones that report their progress
    and can be stopped (`begin`), and strokes, which are sharpened until something else happens
    (`stroke`).

    All run in threads, one after another; each ends by telling `pages` how things stand and, after
    a while, by writing the face into the session's own file.
    """

    def __init__(self, session: EditingSession, backend: str | None):
        self.session, self.backend = session, backend
        self.pages: dict[WebSocket, Outbox] = {}
        self.job: asyncio.Task[None] | None = None
        self.job_name = self.job_kind = ""
        self.changing = asyncio.Lock()
        self.telling = asyncio.Lock()  # states go out in the order in which they were made
        self.keeper: asyncio.Task[None] | None = None
        self.keep_at, self.unkept = 0.0, False  # when it writes next, by `time.monotonic`
        self.stopping = threading.Event()
        self.sharpening: asyncio.Task[None] | None = None  # the face after a stroke
        self.painting = threading.Event()  # or another change: no more sharpening

    def end(self) -> None:
        """Stop what runs."""
        self.stopping.set()
        self.painting.set()

    async def stroke(self, work: Callable[[], Any]) -> None:
        """A change that is on the disk at once and sharpened afterwards."""
        await self.change(work)
        self._keep_soon(0)
        self.painting.clear()
        if self.sharpening is None and self.job is None:
            self.sharpening = asyncio.create_task(self._sharpen())

    async def change(self, work: Callable[[], Any]) -> Any:
        """A change of the face; then every page is told."""
        self._check_idle()
        await self._settle()
        async with self.changing:
            result = await self.thread(work)
        await self.tell_state()
        self._keep_soon()
        return result

    def begin(self, kind: str, name: str, iterations: int, work: Callable[[Watch], None]) -> None:
        """Start a change that reports its progress and can be stopped."""
        self._check_idle()
        self.stopping.clear()
        self.job_kind, self.job_name = kind, name
        self.job = asyncio.create_task(self._run(name, iterations, work))

    async def thread(self, work: Callable[..., Result], *args: Any, **kwargs: Any) -> Result:
        """Run beside the socket, with the backend that the ops of this editor use."""

        def run() -> Result:
            with use_backend(self.backend):
                return work(*args, **kwargs)

        return await asyncio.to_thread(run)

    async def tell_state(self, *outboxes: Outbox) -> None:
        """How things stand, to these pages or to all."""
        async with self.telling:
            state = await asyncio.to_thread(
                answers.state, self.session, self.job_name, self.job_kind
            )
            for outbox in outboxes or self.pages.values():
                outbox.put("state", state)

    async def _sharpen(self) -> None:
        def watch(record: FitRecord, output: RenderOutput, goal: Goal) -> None:
            if self.painting.is_set():
                raise StopFit

        try:
            async with self.changing:
                await self.thread(self.session.sharpen, watch)
        except UserError as error:
            self._tell("error", answers.error(str(error)))
        except Exception:
            traceback.print_exc()
            self._tell("error", answers.error(answers.DEFECT))
        finally:
            self.sharpening = None
        await self.tell_state()
        self._keep_soon()

    async def _settle(self) -> None:
        """End the sharpening of the last stroke: the face stays as it is by then."""
        self.painting.set()
        if (task := self.sharpening) is not None:
            await asyncio.shield(task)

    async def _run(self, name: str, iterations: int, work: Callable[[Watch], None]) -> None:
        loop = asyncio.get_running_loop()

        def watch(record: FitRecord, output: RenderOutput, goal: Goal) -> None:
            message = answers.progress(name, iterations, record, output)
            loop.call_soon_threadsafe(self._tell, "progress", message)
            if self.stopping.is_set():
                raise StopFit

        problem = None
        try:
            await self._settle()
            await self.tell_state()
            async with self.changing:
                await self.thread(work, watch)
                problem = await self.thread(self._autosave)
        except UserError as error:
            problem = str(error)
        except OSError as error:
            problem = f"this was not done: {error}"
        except Exception:
            traceback.print_exc()
            problem = answers.DEFECT
        finally:
            self.job, self.job_name, self.job_kind = None, "", ""
        if problem:
            self._tell("error", answers.error(problem))
        await self.tell_state()
        await asyncio.to_thread(give_back_memory)

    def _keep_soon(self, after: float | None = None) -> None:
        """Write the face into the session's own file after some seconds without another change.

        What is due already is not put off: the fit after a stroke may end before it is written.
        """
        now = time.monotonic()
        if not (self.unkept and self.keep_at <= now):
            self.keep_at = now + (KEEP_AFTER if after is None else after)
        self.unkept = True
        if self.keeper is None or self.keeper.done():
            self.keeper = asyncio.create_task(self._keep())

    async def _keep(self) -> None:
        while self.unkept:
            while (rest := self.keep_at - time.monotonic()) > 0:
                await asyncio.sleep(min(rest, KEEP_LOOK))
            self.unkept = False
            if problem := await self.thread(self._autosave):
                self._tell("error", answers.error(problem))

    def _autosave(self) -> str | None:
        """What went wrong, if anything did."""
        try:
            self.session.autosave()
        except (OSError, UserError) as error:
            return f"the face is shown, but could not be saved to disk: {error}"
        return None

    def _check_idle(self) -> None:
        if self.job is not None:
            raise UserError(f"not now, {self.job_name}: wait, or press Stop")

    def _tell(self, kind: str, message: bytes) -> None:
        """The same message to every page; a newer one of its kind takes its place."""
        for outbox in self.pages.values():
            outbox.put(kind, message)
