"""What is drawn, solved and summed before training and in evaluations does not depend on threads.

Between instruction sets it agrees to the rounding of what PyTorch draws in float32, which the
directions of the principal components amplify.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from found_numbers import found_numbers
from support import use_threads

SUMMED_IN_FLOAT64 = {"pixel Frechet, few", "pixel Frechet, many", "Frechet", "kernel", "components"}


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    with use_threads(1):
        return found_numbers()


def gap(one: np.ndarray, two: np.ndarray) -> float:
    assert one.shape == two.shape and np.isfinite(one).all() and np.isfinite(two).all()
    return float(np.abs(one - two).max() / np.abs(one).max())


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(alone, threads) -> None:
    with use_threads(threads):
        found = found_numbers()
    assert found.keys() == alone.keys()
    for name, values in found.items():
        rounding = 1e-7 if values.dtype == np.float32 else 1e-10
        bound = rounding if name in SUMMED_IN_FLOAT64 else 0.0
        assert gap(alone[name], values) <= bound, name


def test_instruction_sets_change_rounding_alone(alone, tmp_path) -> None:
    helpers = Path(__file__).parents[1] / "helpers"
    code = f"import sys; sys.path.insert(0, {str(helpers)!r}); import found_numbers, numpy;"
    code += f"numpy.savez({str(tmp_path / 'found.npz')!r}, **found_numbers.found_numbers())"
    other = {"ATEN_CPU_CAPABILITY": "default", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | other)
    found = np.load(tmp_path / "found.npz")
    for name, values in alone.items():
        bound = 3e-5 if name == "components" else 1e-6
        assert gap(values, found[name]) <= bound, name
