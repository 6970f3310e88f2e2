"""Fewer threads while other programs want the cores.

A parallel loop ends with its last thread. Where that one waits for its core, which another program
has, all wait, many times in a step: a training on all cores beside one busy program is slower than
one on a single core.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import torch

T = TypeVar("T")

LOOK_S = 0.25  # between looks
TOLERATED = 0.15  # what all threads together may wait for cores, seconds per second
LONG_S = 2.0  # a look back over so much decides alone
# Until all threads are tried again: at first, and at most; each time in vain threefold.
PATIENCE_S = 2.0, 60.0


class FairThreads:
    """PyTorch's threads in a long loop: all of them, or fewer for as long as they wait for cores.

    In a `with` block, `step` is to be called between the loop's steps; the number is the former
    one behind it. Sums over threads round otherwise with another number of them, so a run is only
    the same to the last bit where the number is fixed: by OMP_NUM_THREADS. Then, and on systems
    that do not tell how long a thread waits (Linux does), nothing is changed.
    """

    def __init__(
        self,
        waited: Callable[[], float | None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        fixed = "OMP_NUM_THREADS" in os.environ
        self._waited = waited or RunQueue().waited
        self._clock, self._asleep = clock, fixed

    def __enter__(self) -> "FairThreads":
        self.most = self._count = torch.get_num_threads()
        self._patience, self._trying = PATIENCE_S[0], False
        self._waits = 0  # looks in a row that found threads waiting
        self._looked = self._clock()
        self._try_at = self._looked
        self._asleep = self._asleep or self.most == 1 or self._waited() is None
        return self

    def __exit__(self, *_error: object) -> None:
        self._set(self.most)

    def over(self, steps: Iterable[T]) -> Iterator[T]:
        """The steps of a loop, each begun with as many threads as are fair."""
        with self:
            for step in steps:
                self.step()
                yield step

    def step(self) -> None:
        """Look, at most every `LOOK_S`, and take fewer threads or all of them."""
        now = self._clock()
        elapsed = now - self._looked
        if self._asleep or elapsed < LOOK_S:
            return
        self._looked = now
        share = (self._waited() or 0.0) / elapsed
        self._waits = self._waits + 1 if share > TOLERATED else 0
        if self._count > 1 and self._waits:
            if self._waits == 1 and elapsed < LONG_S and not self._trying:
                return  # it may be a moment's work
            self._waits = 0
            if self._trying:
                self._patience = min(3 * self._patience, PATIENCE_S[1])
            self._set(max(1, self._count - max(1, round(share))))
            self._try_at, self._trying = now + self._patience, False
        elif self._trying:
            self._patience, self._trying = PATIENCE_S[0], False
        elif self._count < self.most and now >= self._try_at:
            self._set(self.most)
            self._trying = True

    def _set(self, count: int) -> None:
        if count != self._count:
            torch.set_num_threads(count)
            self._count = count


class RunQueue:
    """How long this process's threads have waited for a core."""

    def __init__(self, tasks: Path = Path("/proc/self/task")):
        self._tasks = tasks
        self._before: dict[str, int] = {}

    def waited(self) -> float | None:
        """Seconds since the last call, of all threads together; None where it is not known."""
        now: dict[str, int] = {}
        try:
            for task in os.listdir(self._tasks):
                try:
                    text = (self._tasks / task / "schedstat").read_text()
                except FileNotFoundError:
                    continue  # a thread that has ended
                now[task] = int(text.split()[1])
        except (OSError, ValueError, IndexError):
            return None
        if not now:
            return None
        grown = sum(time - self._before.get(task, 0) for task, time in now.items())
        self._before = now
        return grown / 1e9
