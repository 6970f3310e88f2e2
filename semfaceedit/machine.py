"""What this machine is and what can run on it."""

import os
import platform
from importlib import metadata
from typing import Any

import torch

from . import __version__
from .kernels import available_backends, available_precisions, resolve
from .model import config
from .model.generator import Generator, count_parameters

PACKAGES = ("torch", "triton", "numpy", "pillow", "safetensors", "tyro", "rich")


def cpu_name() -> str:
    """The processor's marketing name, where the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine() -> dict[str, Any]:
    """Where figures come from: processor, threads, GPU, versions."""
    cuda = torch.cuda.is_available()
    return {
        "cpu": cpu_name(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if cuda else None,
        "python": platform.python_version(),
        "semfaceedit": __version__,
        **{name: _version(name) for name in PACKAGES},
    }


def collect(preset: str) -> dict[str, Any]:
    """Everything `info --json` prints."""
    from .kernels import film_siren_cuda  # here, not before: it looks for Triton

    counts = {name: _parameters(name) for name in config.PRESETS}
    config.preset(preset)
    reasons = available_backends()
    sample = torch.zeros(1)
    choices = {op: resolve(op, None, None, sample) for op in reasons["reference"]}
    return {
        "version": __version__,
        "machine": machine(),
        "preset": preset,
        "generator_parameters": counts[preset],
        "parameters": counts,
        "backends": {
            name: {
                "available": all(reason is None for reason in ops.values()),
                "reason": _reasons(ops),
                "ops": {op: reason is None for op, reason in ops.items()},
            }
            for name, ops in reasons.items()
        },
        "cuda_bodies": {
            body: {"by": by, "reason": film_siren_cuda.bodies()[body]}
            for body, by in film_siren_cuda.BODIES.items()
        },
        "cpu_choice": {op: f"{c.backend}, {c.precision}" for op, c in choices.items()},
        "cpu_precisions": available_precisions("cpu"),
    }


def _reasons(ops: dict[str, str | None]) -> str | None:
    """Why a backend lacks ops, each reason once; None if it lacks none."""
    lacking: dict[str, list[str]] = {}
    for op, why in ops.items():
        if why is not None:
            lacking.setdefault(why, []).append(op)
    return "; ".join(f"{', '.join(names)}: {why}" for why, names in lacking.items()) or None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _parameters(preset: str) -> int:
    with torch.random.fork_rng(devices=[]):
        return count_parameters(Generator(config.preset(preset).model))
