"""The native module `semfaceedit._C`: loaded once, at the first question about it."""

import functools
import importlib
import os
from types import ModuleType

import torch  # before _C: both then use the OpenMP runtime that torch brings
from torch import Tensor

_process = os.getpid()


@functools.cache
def load() -> tuple[ModuleType | None, str | None]:
    """The module and None, or None and why it is missing. SEMFACEEDIT_CPU_ISA picks its code."""
    try:
        module = importlib.import_module("semfaceedit._C")
    except ImportError as error:
        return None, (
            f"the native module is not built (import said: {error}); run `pip install -e .` in a "
            "checkout, with a C++ compiler"
        )
    isa = os.environ.get("SEMFACEEDIT_CPU_ISA")
    if isa:
        try:
            module.set_isa(isa)
        except ValueError:
            return None, f"SEMFACEEDIT_CPU_ISA={isa}: this CPU offers {', '.join(module.isas())}"
    return module, None


def unavailable() -> str | None:
    """Why the native module cannot be used; None if it can."""
    return load()[1]


def native() -> ModuleType:
    module, reason = load()
    if module is None:
        raise RuntimeError(reason)
    return module


def threads() -> int:
    """Follows `torch.set_num_threads`. A forked process has lost its parent's pool: one there."""
    return torch.get_num_threads() if os.getpid() == _process else 1


def addresses(*tensors: Tensor | None) -> list[int]:
    """What the module takes for tensors; 0 for None. The tensors must be contiguous."""
    return [0 if tensor is None else tensor.data_ptr() for tensor in tensors]


def empty_where(needed: list[bool], tensors: list[Tensor]) -> list[Tensor]:
    """Room for a gradient of each tensor; a custom op returns size 0 for one not needed."""
    return [
        torch.empty(tensor.shape if need else (0,), dtype=tensor.dtype, device=tensor.device)
        for need, tensor in zip(needed, tensors, strict=True)
    ]


def none_where_not(needed: list[bool], grads: list[Tensor]) -> list[Tensor | None]:
    return [grad if need else None for need, grad in zip(needed, grads, strict=True)]
