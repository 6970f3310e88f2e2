"""The `cuda` backend in the GPU suite: built where it can be, then compared."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from semfaceedit.kernels import _backend, _extension, available_backends

ROOT = Path(__file__).resolve().parent.parent
OPS = ("film_siren", "ray_isosurface", "semantic_composite")


def build() -> None:
    """Build csrc/*.cu in this checkout if its module is missing and nvcc is there."""
    if _extension.load_cuda()[0] is not None or shutil.which("nvcc") is None:
        return
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "SEMFACEEDIT_BUILD": "cuda"}, check=False)
    _extension.load_cuda.cache_clear()
    _backend.unavailable.cache_clear()


def unavailable() -> str | None:
    """Why the backend cannot be measured here; None if it can."""
    reasons = available_backends()["cuda"]
    return next((reasons[op] for op in OPS if reasons[op] is not None), None)
