"""Threads of our programs wait briefly; an importer's threads are its own affair."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from semfaceedit.waiting import SPINS

ROOT = Path(__file__).resolve().parents[2]
SAY = "import os; print(os.environ.get('GOMP_SPINCOUNT'))"


def said(*arguments: str, **changes: str) -> str:
    names = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    environment = {key: value for key, value in os.environ.items() if key not in names} | changes
    result = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return result.stdout.split()[-1]


def test_importing_sets_nothing() -> None:
    assert said("-c", f"import semfaceedit; {SAY}") == "None"


@pytest.mark.parametrize("settings", [{}, {"GOMP_SPINCOUNT": "7"}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_programs_wait_briefly_unless_told_otherwise(settings: dict[str, str]) -> None:
    program = f"from semfaceedit.waiting import wait_briefly; wait_briefly(); {SAY}"
    wanted = {"": str(SPINS), "GOMP_SPINCOUNT": "7", "OMP_WAIT_POLICY": "None"}
    assert said("-c", program, **settings) == wanted["".join(settings)]


@pytest.mark.parametrize("module", ["semfaceedit", "semfaceedit.info"])
def test_a_command_is_such_a_program(module: str, tmp_path) -> None:
    """What the process has set when PyTorch is loaded, which a stand-in for it prints."""
    (tmp_path / "torch.py").write_text(f"{SAY}\nraise SystemExit")
    arguments = ["-m", module, *(["info"] if module == "semfaceedit" else [])]
    assert said(*arguments, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}") == str(SPINS)
