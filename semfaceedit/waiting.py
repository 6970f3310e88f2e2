"""How long idle threads wait awake. Imports nothing, so that it comes before PyTorch."""

import os

# GNU's OpenMP, which PyTorch brings: tries before a waiting thread sleeps. Its own 300,000 are some
# ten milliseconds, in which the thread that it waits for may not get the core.
SPINS = 30_000


def wait_briefly() -> None:
    """Let this process's OpenMP threads sleep soon when they wait, unless the environment says
    how. Without effect once PyTorch is loaded; for programs, not for a library to do."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
