"""Every Triton kernel against the reference without a GPU: `triton_cases.py`, in its own process.

Triton decides when it is imported whether kernels run in its interpreter.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)


def run_cases(selection: str, file: str = "triton_cases.py") -> None:
    cases = Path(__file__).parents[1] / "helpers" / file
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(cases),
        "-m",
        selection,
        "-p",
        "no:cacheprovider",
    ]
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, cwd=cases.parents[1]
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert " passed" in result.stdout, result.stdout


@pytest.mark.gradients
@needs_triton
def test_kernels_in_the_interpreter() -> None:
    run_cases("not slow")


@needs_triton
def test_kernels_in_compiled_graphs() -> None:
    run_cases("not slow", "triton_compiled_cases.py")


@needs_triton
@pytest.mark.slow
def test_kernels_in_the_interpreter_at_larger_sizes() -> None:
    run_cases("slow")
