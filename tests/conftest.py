"""For every test: a fixed seed, and memory of the kernels that is not zero, and watched behind."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import use_threads
from torch import Tensor

import semfaceedit.kernels

# Heads with exact maps, hats and glasses; subprocesses of tests use them too.
os.environ["SEMFACEEDIT_WEIGHTS"] = "procedural"
# Trainings keep this number of threads, so that repeated ones are the same bits.
os.environ.setdefault("OMP_NUM_THREADS", str(torch.get_num_threads()))

KERNELS = str(Path(semfaceedit.kernels.__file__).parent)


BAND = 1024  # elements that lie behind each tensor
BAND_VALUE = 77
GUARDED = 1 << 20  # elements; larger tensors would be kept alive until the test ends


def poisoned(allocate: Callable[..., Tensor], bands: list[Tensor]) -> Callable[..., Tensor]:
    """`allocate`, but wherever a kernel module asked for memory it is NaN (or a large integer).

    Behind it lie a few numbers that nothing may change; they are added to `bands`.
    """

    def wrapper(*args: Any, **kwargs: Any) -> Tensor:
        tensor = allocate(*args, **kwargs)
        caller = sys._getframe(1).f_code.co_filename
        if caller.startswith(KERNELS) and tensor.device.type != "meta":
            if type(tensor) is Tensor and tensor.is_contiguous() and tensor.numel() <= GUARDED:
                size = tensor.numel()
                room = tensor.new_full((size + BAND,), BAND_VALUE)
                bands.append(room[size:])
                tensor = room[:size].view(tensor.shape)
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
            elif tensor.dtype != torch.bool:
                tensor.fill_(torch.iinfo(tensor.dtype).max)
        return tensor

    return wrapper


@pytest.fixture(autouse=True)
def _poison(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    bands: list[Tensor] = []
    monkeypatch.setattr(torch, "empty", poisoned(torch.empty, bands))
    monkeypatch.setattr(torch, "empty_like", poisoned(torch.empty_like, bands))
    monkeypatch.setattr(torch.Tensor, "new_empty", poisoned(torch.Tensor.new_empty, bands))
    yield
    for band in bands:
        kept = band == band.new_full((), BAND_VALUE)
        assert bool(kept.all()), "a kernel wrote behind a tensor"


@pytest.fixture
def one_thread() -> Iterator[None]:
    """For small problems: threads would cost more than they bring, above all on a busy machine."""
    with use_threads(1):
        yield


@pytest.fixture(scope="module")
def editor(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The `Editor` of a checkpoint with untrained weights, 16 x 16 pixels."""
    from faces import open_editor  # brings in all of the package

    return open_editor(tmp_path_factory.mktemp("editor"))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own for what the package keeps to save finding it again."""
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def real_faces() -> Path:
    folder = os.environ.get("SEMFACEEDIT_FACES")
    if not folder:
        pytest.skip("SEMFACEEDIT_FACES (folder of real faces) is not set")
    return Path(folder)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
