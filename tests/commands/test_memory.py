"""Freed memory serves the next step."""

import platform
import statistics
import subprocess
import sys

import pytest

STEPS = """
import resource, sys, torch
from semfaceedit.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(9):
    before = faults()
    for count in (9, 17, 40):
        torch.ones(count, 1 << 20)
    print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_steps_fault_their_memory_in_once() -> None:
    """Page faults of most steps; while the heap finds its size there are some more."""
    faults = {}
    for mode in ("keep", "plain"):
        command = [sys.executable, "-c", STEPS, mode]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        faults[mode] = statistics.median(map(int, result.stdout.split()))
    assert faults["keep"] < 1000 < faults["plain"]
