"""Which implementation runs: the only place in the project that asks about backends.

An implementation of op `film_siren` for backend `cpu` is the module `film_siren_cpu.py` beside this
file. It defines

* `PRECISIONS`: the precisions it offers, the first that can be had being its automatic choice;
* `unavailable(device=None) -> str | None`: why it cannot run on the device of that number (default:
  the current one); None: it can;
* where precisions depend on the machine, `precision_unavailable(precision) -> str | None`, and
  `gains_nothing(precision) -> bool`: it can be had but is no faster than the automatic choice;
* of `film_siren`, `skips_identity() -> bool` where the first layer may be without a product;
* the functions that the op's `autograd.Function` calls (named in the op's own file).

Nothing is compiled, and neither Triton nor CUDA is touched, before a backend is first considered.
"""

import functools
import importlib
import importlib.util
import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

OPS = ("film_siren", "ray_isosurface", "semantic_composite")
BACKENDS = ("reference", "triton", "cuda", "cpu")
PRECISIONS = ("fp32", "tf32", "fp16", "accurate", "fast")

DEVICE_TYPES = {"triton": ("cuda",), "cuda": ("cuda",), "cpu": ("cpu",)}
AUTO_ORDER = {"cuda": ("triton", "cuda", "reference"), "cpu": ("cpu", "reference")}
REFERENCE_PRECISIONS = {"cuda": ("fp32", "tf32", "fp16"), "cpu": ("fp32", "fp16")}

_log = logging.getLogger("semfaceedit.kernels")


class _Chosen(threading.local):
    """What `use_backend` chose in this thread; torch.compile recompiles when it changes."""

    def __init__(self) -> None:
        self.backend: str | None = None
        self.precision: str | None = None
        self.preferred: str | None = None


_chosen = _Chosen()


class BackendError(RuntimeError):
    """A backend or precision that was asked for by name cannot be had; the message says why."""


class BackendNameError(BackendError, ValueError):
    """No backend or precision has that name."""


@dataclass(frozen=True)
class Choice:
    """A backend and a precision that it offers."""

    backend: str
    precision: str


@contextmanager
def use_backend(
    backend: str | None = None, precision: str | None = None, *, preferred: str | None = None
) -> Iterator[None]:
    """Within the block, every op without an explicit argument uses this backend and precision.

    preferred: the precision of ops that offer it, in place of their automatic choice: it yields to
    one that an argument, a `precision` of this or a surrounding block, or the environment names.
    None keeps the surrounding choice. Raises ValueError for an unknown name.
    """
    _check_names(backend, precision)
    _check_names(None, preferred)
    outer = _chosen.backend, _chosen.precision, _chosen.preferred
    names = backend, precision, preferred
    now = [name or before for name, before in zip(names, outer, strict=True)]
    _chosen.backend, _chosen.precision, _chosen.preferred = now
    try:
        yield
    finally:
        _chosen.backend, _chosen.precision, _chosen.preferred = outer


def resolve(op: str, backend: str | None, precision: str | None, *tensors: Tensor) -> Choice:
    """Choose for one call: explicit argument, then `use_backend`, then environment, then a
    `preferred` precision, then auto.

    What was asked for by name never falls back: if it cannot run, RuntimeError says what was
    asked, why it cannot be, and what to do. Only `auto` may fall back, and logs each reason once.
    Under torch.compile the environment counts as it was when the call was traced.
    """
    backend, precision = backend or _chosen.backend, precision or _chosen.precision
    device = tensors[0].device
    dtype, preferred = tensors[0].dtype, _chosen.preferred
    return _choose(op, backend, precision, device.type, device.index, dtype, preferred)


def _choose(
    op: str,
    backend: str | None,
    precision: str | None,
    device: str,
    index: int | None,
    dtype: torch.dtype,
    preferred: str | None = None,
) -> Choice:
    backend = backend or os.environ.get("SEMFACEEDIT_BACKEND") or "auto"
    precision = precision or os.environ.get("SEMFACEEDIT_PRECISION") or None
    _check_names(None if backend == "auto" else backend, precision)
    candidates = AUTO_ORDER.get(device, ("reference",)) if backend == "auto" else (backend,)
    reasons = []
    for candidate in candidates:
        reason = _reason_against(op, candidate, precision, device, index, dtype)
        if reason is None and backend == "auto" and precision is None:
            reason = _reason_against_auto(op, candidate, device)
        if reason is None:
            if precision is None and _is_of_use(op, candidate, preferred, device):
                precision = preferred
            return Choice(candidate, precision or _auto_precision(op, candidate, device))
        reasons.append(f"backend {candidate!r} cannot be used: {reason}")
        if backend == "auto":
            _log_once(op, candidate, reason)
    raise BackendError(f"{op}: {'; '.join(reasons)}")


# What torch.compiler.assume_constant_result does, which would import Triton here.
_choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


def implementation(op: str, backend: str) -> ModuleType:
    """The module that implements `op` for `backend`, imported at first use."""
    name = f"{__package__}.{op}_{backend}"
    if name in sys.modules:  # torch.compile traces this, but not an import
        return sys.modules[name]
    return importlib.import_module(name)


@functools.cache
def unavailable(op: str, backend: str, device: int | None = None) -> str | None:
    """Why `backend` cannot run `op` on a device (default: the current one); None if it can. Asked
    once a process."""
    if backend == "reference":
        return None
    if importlib.util.find_spec(f"{__package__}.{op}_{backend}") is None:
        return f"there is no {backend} version of {op} yet; use another backend"
    try:
        return implementation(op, backend).unavailable(device)
    except ImportError as error:
        return f"its module does not import: {error}"


def available_backends() -> dict[str, dict[str, str | None]]:
    """{backend: {op: None if it can run here, else the reason}}."""
    return {backend: {op: unavailable(op, backend) for op in OPS} for backend in BACKENDS}


def precisions(op: str, backend: str) -> dict[str, str | None]:
    """{precision: None if it can be had here, else why not} of an available implementation."""
    module = implementation(op, backend)
    reason = getattr(module, "precision_unavailable", lambda precision: None)
    return {precision: reason(precision) for precision in module.PRECISIONS}


def available_precisions(backend: str) -> dict[str, dict[str, str | None]]:
    """{op: `precisions`} of the ops for which `backend` can run here."""
    return {op: precisions(op, backend) for op in OPS if unavailable(op, backend) is None}


def _reason_against(
    op: str,
    backend: str,
    precision: str | None,
    device: str,
    index: int | None,
    dtype: torch.dtype,
) -> str | None:
    devices = DEVICE_TYPES.get(backend)
    if devices is not None and device not in devices:
        return f"it needs {devices[0]} tensors, got {device}; move the tensors or the model"
    reason = unavailable(op, backend, index)
    if reason is not None:
        return reason
    if backend != "reference" and dtype != torch.float32:
        return f"it takes float32 tensors, got {dtype}; use the reference backend for {dtype}"
    offered = _precisions(op, backend, device)
    if precision is None or precision in offered:
        return None
    why = None if backend == "reference" else precisions(op, backend).get(precision)
    if why is not None:
        return f"precision {precision!r}: {why}; use {' or '.join(offered)}"
    return f"precision {precision!r} is not among its precisions {', '.join(offered)}"


def _reason_against_auto(op: str, backend: str, device: str) -> str | None:
    """Precision is not lowered below fp32 unless something asks for that."""
    if device != "cuda" or "fp32" in _precisions(op, backend, device):
        return None
    if torch.is_autocast_enabled("cuda"):
        return None
    return "it has no precision fp32; ask for what it has, or use autocast"


def _precisions(op: str, backend: str, device: str) -> tuple[str, ...]:
    if backend == "reference":
        return REFERENCE_PRECISIONS.get(device, ("fp32",))
    reasons = precisions(op, backend)
    return tuple(precision for precision, reason in reasons.items() if reason is None)


def _is_of_use(op: str, backend: str, preferred: str | None, device: str) -> bool:
    """Whether a preferred precision is offered and worth taking."""
    if preferred is None or preferred not in _precisions(op, backend, device):
        return False
    gains_nothing = getattr(implementation(op, backend), "gains_nothing", lambda precision: False)
    return not gains_nothing(preferred)


def _auto_precision(op: str, backend: str, device: str) -> str:
    """On CUDA autocast decides (fp16 whatever its type: operands are sines, gradients are scaled),
    then PyTorch's switch for TF32; elsewhere an implementation's first precision, else fp32."""
    offered = _precisions(op, backend, device)
    if device == "cuda":
        if torch.is_autocast_enabled("cuda") and "fp16" in offered:
            return "fp16"
        # Not allow_tf32: PyTorch refuses to read that once either of its switches was set anew.
        if torch.backends.cuda.matmul.fp32_precision == "tf32" and "tf32" in offered:
            return "tf32"
        return "fp32" if "fp32" in offered else offered[0]
    return "fp32" if backend == "reference" else offered[0]


def _check_names(backend: str | None, precision: str | None) -> None:
    if backend is not None and backend not in (*BACKENDS, "auto"):
        raise BackendNameError(
            f"unknown backend {backend!r}: use one of {', '.join(BACKENDS)} or auto"
        )
    if precision is not None and precision not in PRECISIONS:
        raise BackendNameError(
            f"unknown precision {precision!r}: use one of {', '.join(PRECISIONS)}"
        )


@functools.cache
def _log_once(op: str, backend: str, reason: str) -> None:
    _log.info("%s: not using backend %r: %s", op, backend, reason)
