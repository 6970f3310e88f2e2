"""Reading files that may never answer, as on a network drive, without waiting for them for ever."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from ..errors import UserError

SECONDS = 10.0  # for a file to answer
MOST_STALLED = 8  # reads that have not come back, until no other is begun
Result = TypeVar("Result")
_stalled = threading.BoundedSemaphore(MOST_STALLED)


async def read_within(work: Callable[[], Result], what: object) -> Result:
    """The result of `work`, which reads `what`, in a thread that may be left behind.

    UserError where it takes more than `SECONDS`.
    """
    silent = UserError(f"{what} does not answer: is its drive connected?")
    if not _stalled.acquire(blocking=False):
        raise silent
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Result] = loop.create_future()

    def tell(set_answer: Callable[[], None]) -> None:
        if not answer.done():
            set_answer()

    def run() -> None:
        try:
            result = work()
            act: Callable[[], None] = lambda: answer.set_result(result)  # noqa: E731
        except BaseException as problem:
            error = problem
            act = lambda: answer.set_exception(error)  # noqa: E731
        finally:
            _stalled.release()
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, act)

    threading.Thread(target=run, daemon=True).start()
    try:
        return await asyncio.wait_for(answer, SECONDS)
    except TimeoutError:
        raise silent from None
