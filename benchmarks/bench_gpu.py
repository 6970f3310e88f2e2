"""The GPU suite's timings under pytest: ops, renders and steps by backend, mode and size.

Every variant is held against float64 in the same process before anything is timed; each record has
device events, peak memory, TFLOP/s and the share of the floor. The CPU has its own benchmarks.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

import gpu_checks  # noqa: E402
import gpu_suite  # noqa: E402
from measuring import Suite, stamped  # noqa: E402

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="PyTorch finds no CUDA device on this machine"
)

Step = Callable[[Suite, gpu_checks.Plan, gpu_checks.Scene], None]


@pytest.fixture(scope="module")
def checked() -> Iterator[tuple[Suite, gpu_checks.Plan, gpu_checks.Scene]]:
    """A suite whose checks have passed, and what is timed in it."""
    plan = gpu_checks.Plan()
    suite = Suite(stamped("bench-gpu"), torch.device("cuda"), seed=0)
    torch.manual_seed(0)
    world = gpu_checks.scene(suite, plan, 0)
    with torch.device(suite.device):
        gpu_checks.run_checks(suite, plan)
        gpu_checks.check_labels(suite, plan, world)
        assert suite.failures == 0
        yield suite, plan, world


STEPS: dict[str, Step] = {
    "renders and generator step": gpu_suite.time_renders,
    "culling and recolouring": gpu_suite.time_shortcuts,
    "sizes": gpu_suite.time_other_sizes,
    "training step": lambda suite, plan, world: gpu_suite.time_training(suite, plan),
    "ops": lambda suite, plan, world: gpu_suite.time_ops(suite, plan),
}


@pytest.mark.parametrize("name", STEPS)
def test_gpu(name: str, checked: Any, benchmark: Any) -> None:
    suite, plan, world = checked
    before = len(suite.records)
    benchmark.group = f"gpu-{name}"
    benchmark.pedantic(lambda: STEPS[name](suite, plan, world), rounds=1)
    benchmark.extra_info.update(suite.machine)
    for record in suite.records[before:]:
        if "ms" in record:
            keys = ("what", "mode", "resolution", "variant")
            key = " ".join(str(record[part]) for part in keys if part in record)
            benchmark.extra_info[key] = record
