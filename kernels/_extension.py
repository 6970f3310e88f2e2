"""The native modules `semfaceedit._C` and `_C_cuda`: loaded at the first question about them."""

import functools
import importlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch  # before _C: both then use the OpenMP runtime that torch brings
from torch import Tensor

_process = os.getpid()


@functools.cache
def load() -> tuple[ModuleType | None, str | None]:
    """The module and None, or None and why it is missing. SEMFACEEDIT_CPU_ISA picks its code."""
    module, error = _imported("_C")
    if module is None:
        return None, (
            f"the native module is not built ({error}); run `pip install -e .` in a checkout, with "
            "a C++ compiler"
        )
    isa = os.environ.get("SEMFACEEDIT_CPU_ISA")
    if isa:
        try:
            module.set_isa(isa)
        except ValueError:
            return None, f"SEMFACEEDIT_CPU_ISA={isa}: this CPU offers {', '.join(module.isas())}"
    return module, None


@functools.cache
def load_cuda(device: int | None = None) -> tuple[ModuleType | None, str | None]:
    """The CUDA module and None, or None and why a device (default: the current) cannot use it."""
    module, error = _imported("_C_cuda")
    if module is None:
        return None, (
            f"the CUDA module is not built ({error}); with nvcc, run `SEMFACEEDIT_BUILD=cuda pip "
            "install -e .` in a checkout"
        )
    if not torch.cuda.is_available():
        return None, "PyTorch finds no CUDA device"
    with torch.cuda.device(device):
        reason = module.unavailable()
    if reason:
        return None, f"the CUDA module does not run on this GPU and driver: {reason}"
    return module, None


def _imported(name: str) -> tuple[ModuleType | None, str]:
    """The module, or None and why not: in the words of its build if it left any."""
    try:
        return importlib.import_module(f"semfaceedit.{name}"), ""
    except ImportError as error:
        for folder in importlib.import_module("semfaceedit").__path__:
            note = Path(folder) / f"{name}.missing"
            if note.exists():
                return None, note.read_text().strip()
        return None, f"import said: {error}"


def unavailable(device: int | None = None) -> str | None:
    """Why the native module cannot be used; None if it can. There is but one CPU."""
    return load()[1]


def native() -> ModuleType:
    return _loaded(load())


def cuda_unavailable(device: int | None = None) -> str | None:
    """Why the CUDA module cannot be used on a device (default: the current); None if it can."""
    return load_cuda(device)[1]


def native_cuda() -> ModuleType:
    return _loaded(load_cuda())


def _loaded(result: tuple[ModuleType | None, str | None]) -> ModuleType:
    module, reason = result
    if module is None:
        raise RuntimeError(reason)
    return module


@contextmanager
def on_threads(tensor: Tensor, floats: int = 0) -> Iterator[int]:
    """The last argument of the ops of the native module."""
    yield threads()


@contextmanager
def on_stream(tensor: Tensor, floats: int = 0) -> Iterator[tuple[int, int, int]]:
    """The last argument of the ops of the CUDA module: device, stream, workspace of `floats`."""
    workspace = tensor.new_empty(floats)
    yield (*_device_and_stream(tensor), workspace.data_ptr())


def _device_and_stream(tensor: Tensor) -> tuple[int, int]:
    return tensor.get_device(), torch.cuda.current_stream(tensor.device).cuda_stream


def threads() -> int:
    """Follows `torch.set_num_threads`. A forked process has lost its parent's pool: one there."""
    return torch.get_num_threads() if os.getpid() == _process else 1


def cpu_peaks() -> dict[str, tuple[float, float]]:
    """{precision: products and sines} of the CPU's instructions in use, timed now.

    Floating-point operations of products and sines a second, from loops that touch no memory, on
    PyTorch's threads. Empty without native code.
    """
    module, _ = load()
    if module is None:
        return {}
    return {name: module.peaks(name, threads()) for name in module.film_siren_precisions()}


def registered(name: str, run: Callable[..., Any], fake: Callable[..., Any]) -> Callable[..., Any]:
    """`run` as the op `semfaceedit::NAME`, for tensors of every device; `fake` makes its outputs
    where tensors have no values.

    `torch.library.custom_op` does the same, but imports torch's compiler at the first call: four
    seconds of a core, in every command that renders.
    """
    qualified = f"semfaceedit::{name}"
    schema = torch.library.infer_schema(run, mutates_args=())
    torch.library.define(qualified, schema, tags=(torch.Tag.pt2_compliant_tag,))
    torch.library.impl(qualified, "default", run)
    torch.library.register_fake(qualified, fake)
    torch.library.register_autograd(qualified, _refused)
    return getattr(torch.ops.semfaceedit, name).default


def _refused(ctx: Any, *grads: Any) -> Any:
    """Gradients come from the ops' `autograd.Function`s: an op that autograd meets itself is one
    that a second derivative leads through."""
    raise RuntimeError("the ops of semfaceedit are differentiable once: autograd stops here")


def addresses(*tensors: Tensor | None) -> list[int]:
    """What the module takes for tensors; 0 for None. The tensors must be contiguous."""
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def empty_where(needed: Sequence[bool], tensors: Sequence[Tensor]) -> list[Tensor]:
    """Room for a gradient of each tensor; a custom op returns size 0 for one not needed."""
    return [
        torch.empty(tensor.shape if need else (0,), dtype=tensor.dtype, device=tensor.device)
        for need, tensor in zip(needed, tensors, strict=True)
    ]


def none_where_not(needed: Sequence[bool], grads: Sequence[Tensor]) -> list[Tensor | None]:
    return [grad if need else None for need, grad in zip(needed, grads, strict=True)]
