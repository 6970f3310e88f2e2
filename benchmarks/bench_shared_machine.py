"""Training on a machine that another program keeps busy: with the threads of our commands, and with
PyTorch's as they are."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support import needs_native

from semfaceedit.waiting import SPINS

HERE = Path(__file__).resolve().parent
SECONDS, ROUNDS = 6.0, 3


@contextlib.contextmanager
def busy_program() -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as program:
        try:
            yield
        finally:
            program.kill()


def images_per_second(*, fairly: bool) -> float:
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "OMP_NUM_THREADS")
    }
    if fairly:
        environment["GOMP_SPINCOUNT"] = str(SPINS)
    else:  # a number that is set stays
        environment["OMP_NUM_THREADS"] = str(torch.get_num_threads())
    environment["PYTHONPATH"] = os.pathsep.join(
        map(str, (HERE.parent, HERE, HERE.parent / "tests/helpers"))
    )
    command = [sys.executable, str(HERE / "training_rate.py"), str(SECONDS)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return float(json.loads(result.stdout))


@needs_native
@pytest.mark.slow
def test_training_beside_a_busy_program(record: dict[str, Any], benchmark: Any) -> None:
    """At most 2.2 times slower beside one program, and at most 3 % slower alone."""
    benchmark.group = "training-beside-a-busy-program"
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for fairly in (False, True):
            how = "fair" if fairly else "fixed"
            rates.setdefault(f"alone_{how}", []).append(images_per_second(fairly=fairly))
            with busy_program():
                rates.setdefault(f"beside_{how}", []).append(images_per_second(fairly=fairly))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    record.update({f"{name}_images_per_s": round(rate, 2) for name, rate in medians.items()})
    record["spins"] = SPINS
    print("", record)
    benchmark.pedantic(lambda: None, rounds=1)  # the figures are those above
    assert medians["alone_fair"] >= 0.97 * medians["alone_fixed"]
    assert medians["alone_fair"] <= 2.2 * medians["beside_fair"]
