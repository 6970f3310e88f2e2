"""For every test: a fixed seed, and memory from `torch.empty` in the kernels that is not zero."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import use_threads
from torch import Tensor

import semfaceedit.kernels

KERNELS = str(Path(semfaceedit.kernels.__file__).parent)


def poisoned(allocate: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`allocate`, but NaN (or a large integer) wherever a kernel module asked for memory."""

    def wrapper(*args: Any, **kwargs: Any) -> Tensor:
        tensor = allocate(*args, **kwargs)
        caller = sys._getframe(1).f_code.co_filename
        if caller.startswith(KERNELS) and tensor.device.type != "meta":
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
            elif tensor.dtype != torch.bool:
                tensor.fill_(torch.iinfo(tensor.dtype).max)
        return tensor

    return wrapper


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "empty", poisoned(torch.empty))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For small problems: threads would cost more than they bring, above all on a busy machine."""
    with use_threads(1):
        yield


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
