"""What a picture costs: parameters, operations, time and peak memory, for each backend."""

import json
import subprocess
import sys
from typing import Any

from ..cli import progress
from ..kernels import available_backends
from ..model.generator import count_parameters
from .session import Evaluation, Unmeasured

LONGEST = 900.0  # seconds for one resolution and backend


def cost(evaluation: Evaluation) -> None:
    options = evaluation.options
    inputs = {
        **evaluation.basis,
        "resolutions": options.cost_resolutions,
        "repeats": options.cost_repeats,
    }
    evaluation.results.attempt("cost", inputs, lambda: measure_cost(evaluation))


def measure_cost(evaluation: Evaluation) -> dict[str, Any]:
    """One `profile` for each resolution and backend, each in a process of its own, so that its
    peak memory is its own."""
    generator, options = evaluation.generator, evaluation.options
    backends = usable_backends(evaluation.device.type, options.backend)
    cases = [(size, backend) for size in options.cost_resolutions for backend in backends]
    figures, operations, failed = [], {}, {}
    for size, backend in progress(cases, total=len(cases), title="cost"):
        try:
            found = profile(evaluation, size, backend)
        except Unmeasured as error:
            failed[f"{size} {backend}"] = str(error)
            continue
        if found.get("flops"):
            operations[str(size)] = found["flops"]
        figures.append(
            {
                "resolution": size,
                "backend": backend,
                "milliseconds": found["total_ms"],
                "peak_bytes": found["peak_bytes"],
            }
        )
    if not figures:
        raise Unmeasured(f"no backend ran: {failed}")
    parts = ("manifolds", "geometry", "appearance")
    return {
        "parameters": {
            "total": count_parameters(generator),
            **{name: count_parameters(getattr(generator, name)) for name in parts},
        },
        "flops": operations,
        "failed": failed,
        "timings": {"pictures": figures},
    }


def usable_backends(device: str, wanted: str | None) -> list[str]:
    """Backends that can run on this kind of device; the wanted one alone where it is named."""
    other = {"cpu": ("triton", "cuda"), "cuda": ("cpu",)}.get(device, ())
    return [
        name
        for name, ops in available_backends().items()
        if name not in other and not any(ops.values()) and wanted in (None, name)
    ]


def profile(evaluation: Evaluation, resolution: int, backend: str) -> dict[str, Any]:
    """What `profile --json` prints."""
    options = evaluation.options
    command = [
        sys.executable, "-m", "semfaceedit.profile", "--json",
        "--checkpoint", str(evaluation.weights), "--resolution", str(resolution),
        "--backend", backend, "--repeats", str(options.cost_repeats),
        "--device", str(evaluation.device),
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        raise Unmeasured(f"took longer than {LONGEST:.0f} s") from None
    if done.returncode:
        raise Unmeasured((done.stderr.strip().splitlines() or ["profile failed"])[-1])
    return json.loads(done.stdout)
