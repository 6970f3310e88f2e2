"""What several tests share: the native code paths of this machine."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from semfaceedit.kernels import _extension

FP32_ISAS = ("avx512", "avx2", "portable")


def isas() -> list[str]:
    """The instruction sets here that have fp32 code of their own; empty without native code."""
    module, _ = _extension.load()
    return [] if module is None else [isa for isa in module.isas() if isa in FP32_ISAS]


def bf16_paths() -> list[tuple[str, str]]:
    """(instruction set, precision) of `film_siren` that this machine can be made to use."""
    module, _ = _extension.load()
    paths = []
    for isa in module.isas() if module else []:
        with use_isa(isa):
            paths += [(isa, name) for name in module.film_siren_precisions() if name != "fp32"]
    return paths


needs_native = pytest.mark.skipif(not isas(), reason=f"native code: {_extension.unavailable()}")


@contextmanager
def use_isa(name: str) -> Iterator[None]:
    module = _extension.native()
    before = module.isa()
    module.set_isa(name)
    try:
        yield
    finally:
        module.set_isa(before)


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def change_a_number(path: Path) -> None:
    """Turn the lowest bit of a safetensors file's last number, which stays finite."""
    data = path.read_bytes()
    last = len(data) - {"F32": 4, "F16": 2}.get(_last_type(data), 1)
    path.write_bytes(data[:last] + bytes([data[last] ^ 1]) + data[last + 1 :])


def _last_type(data: bytes) -> str:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    header.pop("__metadata__", None)
    return str(max(header.values(), key=lambda entry: entry["data_offsets"][1])["dtype"])
