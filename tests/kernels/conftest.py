"""The CUDA module, compiled for the host."""

import hashlib
import importlib.machinery
import importlib.util
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from semfaceedit.kernels import _backend, _extension

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def host_module(request: pytest.FixtureRequest) -> ModuleType:
    """semfaceedit._C_cuda for the host; pytest's cache keeps what was compiled from these files."""
    pybind11 = pytest.importorskip("pybind11")
    includes = [ROOT / "tests/cuda_on_host", ROOT / "csrc", pybind11.get_include()]
    includes.append(sysconfig.get_path("include"))
    sources = [ROOT / "csrc/bindings_cuda.cpp", *sorted((ROOT / "csrc").glob("*.cu"))]
    command = ["g++", "-O1", "-std=c++17", "-fPIC", "-shared", "-fvisibility=hidden", "-Wall"]
    command += ["-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas", "-Werror"]
    command += [f"-isystem{path}" for path in includes[2:]]
    command += [*(f"-I{path}" for path in includes[:2]), "-x", "c++", *map(str, sources)]
    digest = hashlib.sha256(" ".join(command).encode())
    for path in (*sources, *sorted((ROOT / "csrc").glob("*.h")), *sorted(includes[0].iterdir())):
        digest.update(path.read_bytes())
    folder = request.config.cache.mkdir("cuda_on_host")
    target = folder / f"{digest.hexdigest()[:16]}.so"
    if not target.exists():
        for old in folder.glob("*.so"):
            old.unlink()
        fresh = target.with_suffix(f".{hash(request)}")
        subprocess.run([*command, "-o", str(fresh)], check=True)
        fresh.replace(target)
    loader = importlib.machinery.ExtensionFileLoader("_C_cuda", str(target))
    spec = importlib.util.spec_from_file_location("_C_cuda", target, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def cuda_on_host(host_module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Backend `cuda` takes CPU tensors and runs the host's module."""
    monkeypatch.setattr(_extension, "load_cuda", lambda device=None: (host_module, None))
    monkeypatch.setattr(_extension, "_device_and_stream", lambda tensor: (0, 0))
    monkeypatch.setitem(_backend.DEVICE_TYPES, "cuda", ("cpu",))
    _backend.unavailable.cache_clear()
    yield
    _backend.unavailable.cache_clear()
