"""Freed memory serves the next step."""

import platform
import subprocess
import sys

import pytest

STEPS = """
import resource, sys, torch
from semfaceedit.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    return sum(float(torch.ones(count, 1 << 20)[0, 0]) for count in (9, 17, 40))
for _ in range(4):  # until the heap has its size
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_steps_fault_their_memory_in_once() -> None:
    faults = {}
    for mode in ("keep", "plain"):
        command = [sys.executable, "-c", STEPS, mode]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        faults[mode] = int(result.stdout)
    assert faults["keep"] < 1000 < faults["plain"]
