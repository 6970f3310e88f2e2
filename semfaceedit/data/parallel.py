"""Mapping a function over tasks in several processes."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

import torch

from ..errors import UserError

Task = TypeVar("Task")
Result = TypeVar("Result")


@contextmanager
def mapped(
    function: Callable[[Task], Result], tasks: Sequence[Task], workers: int | None = None
) -> Iterator[Iterator[Result]]:
    """Results in the order of `tasks`, from `workers` processes (None: one a core).

    `function` must be importable by name. Leaving the block ends the processes, each after the
    tasks that it has begun. UserError where one of them is killed.
    """
    workers = min(workers or os.cpu_count() or 1, len(tasks))
    if workers <= 1:
        yield map(function, tasks)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker)
    try:
        yield pool.map(function, tasks)
    except BrokenProcessPool:
        raise UserError(
            f"one of {workers} worker processes was killed, probably for lack of memory: free some "
            "and start again (synthesize: with fewer --workers)"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    torch.set_num_threads(1)
