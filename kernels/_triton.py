"""What the Triton backends share on the host: whether they can run, and how they launch.

The kernels themselves are in `<op>_triton_kernels.py`: those modules import Triton, and only a
launch imports them.
"""

import functools
import importlib
import importlib.util
import os
from typing import Any

import torch
from torch import Tensor

# Compute capabilities whose kernels `tests/kernels/test_triton_compile.py` compiles, with the bytes
# of shared memory that a program may use: A100; RTX 30; RTX 40; H100 and H200; B200; RTX 50.
SHARED_LIMIT = {
    80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024, 100: 227 * 1024, 120: 99 * 1024,
}  # fmt: skip
ARCHITECTURES = tuple(SHARED_LIMIT)
REGISTERS, MOST = 65536, 255  # of a multiprocessor, of a thread

Version = tuple[int, int]
NEWEST: Version = (3, 9)  # of Triton, that tiles were chosen for; later ones get the same


@functools.cache
def version() -> Version:
    """Of the installed Triton, which decides what registers a kernel takes; `NEWEST` if none."""
    try:
        major, minor, *_ = importlib.import_module("triton").__version__.split(".")
    except ImportError:
        return NEWEST
    return int(major), int(minor)


@functools.cache
def unavailable(device: int | None = None) -> str | None:
    """Why Triton cannot run on a device (default: the current one); None if it can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed; run `pip install triton`"
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device on this machine"
    major, minor = torch.cuda.get_device_capability(device)
    if 10 * major + minor in ARCHITECTURES:
        return None
    known = ", ".join(f"{number // 10}.{number % 10}" for number in ARCHITECTURES)
    return (
        f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, the kernels "
        f"are made for {known}; use the reference backend"
    )


def interpreted() -> bool:
    """Whether Triton was told to run kernels in its interpreter, on tensors of the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def capability(tensor: Tensor) -> int:
    """Compute capability as 80, 89, 90, ...; 0 in the interpreter."""
    if interpreted():
        return 0
    major, minor = torch.cuda.get_device_capability(tensor.device)
    return 10 * major + minor


def multiprocessors(tensor: Tensor) -> int:
    if interpreted():
        return 2
    return torch.cuda.get_device_properties(tensor.device).multi_processor_count


def launch(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: dict[str, Any],  # by the kernel's names
    constants: dict[str, Any],
    *,
    warps: int = 4,
    stages: int = 1,
    registers: int | None = None,
) -> None:
    """Run a kernel on the current stream of its tensors' device; nothing if there is no program."""
    if 0 in grid:
        return
    on = next(value for value in arguments.values() if isinstance(value, Tensor))
    with torch.cuda.device_of(on):
        kernel[grid](
            **arguments, **constants, num_warps=warps, num_stages=stages, maxnreg=registers,
            enable_fp_fusion=True,
        )  # fmt: skip


def resident(warps: int, registers: int) -> int:
    """How many programs the registers of a multiprocessor hold: a thread gets them by eights."""
    return REGISTERS // (32 * warps * ceil_div(registers, 8) * 8)


def power_of_two(size: int, least: int = 1) -> int:
    """The smallest power of two that is at least `size` and `least`."""
    return 1 << (max(size, least, 1) - 1).bit_length()


def ceil_div(size: int, part: int) -> int:
    return -(-size // part)


def padded(tensor: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`tensor` at the start of zeros of `shape`; itself where it has that shape."""
    if tensor.shape == shape:
        return tensor
    out = tensor.new_zeros(shape)
    out[tuple(slice(size) for size in tensor.shape)] = tensor
    return out
