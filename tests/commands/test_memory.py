"""Freed memory serves the next step."""

import platform
import statistics
import subprocess
import sys

import pytest

STEPS = """
import resource, torch
from semfaceedit.memory import keep_freed_memory
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def steps():
    for _ in range(9):
        before = faults()
        for count in (9, 17, 40):
            torch.ones(count, 1 << 20)
        yield faults() - before
print(*steps())
assert keep_freed_memory()
print(*steps())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="mallopt is glibc's")
def test_steps_fault_their_memory_in_once() -> None:
    """Page faults of most steps; while the heap finds its size there are some more."""
    command = [sys.executable, "-c", STEPS]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    plain, kept = (statistics.median(map(int, line.split())) for line in result.stdout.splitlines())
    assert kept < 1000 < plain
