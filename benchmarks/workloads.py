"""What the benchmarks run: the ops on the tests' random inputs, renders and training steps.

Tensors are made on the default device, so that one code serves a GPU and a CPU.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from baselines import NAMES, baseline, baseline_film_siren
from op_problems import FIELD_SETTINGS, Inputs, field_levels
from torch import Tensor

from semfaceedit.data.dataset import Batch
from semfaceedit.kernels import (
    FieldWeights,
    FilmSirenWeights,
    color_composite,
    film_siren,
    ray_isosurface,
    semantic_composite,
    use_backend,
)
from semfaceedit.model import config
from semfaceedit.model.generator import Generator
from semfaceedit.model.labels import NUM_CLASSES
from semfaceedit.training.distributed import World
from semfaceedit.training.trainer import Trainer

Op = Callable[[Inputs], dict[str, Tensor]]


def film_op(rows: int, groups: int, trunk: int, baseline: str | None = None) -> Op:
    """`film_siren`, or one of the baselines, on rows of equal length."""
    function = film_siren
    if baseline is not None:
        function = functools.partial(baseline_film_siren, name=baseline)  # type: ignore[assignment]

    def op(inputs: Inputs) -> dict[str, Tensor]:
        tensors = list(inputs.values())
        offsets = torch.linspace(0, len(tensors[0]), rows + 1).long()
        row_groups = torch.arange(rows) % groups
        weights = FilmSirenWeights(*tensors[4:])
        output = function(*tensors[:4], offsets, row_groups, weights, trunk_channels=trunk)
        return {"output": output}

    return op


def field_op(hit_count: int, samples: int) -> Op:
    def op(inputs: Inputs) -> dict[str, Tensor]:
        return intersect(inputs, hit_count, samples)

    return op


def intersect(inputs: Inputs, hit_count: int, samples: int) -> dict[str, Tensor]:
    weights = FieldWeights(*(inputs[name] for name in FieldWeights._fields))
    origins, levels = inputs["origins"], field_levels(hit_count, inputs["origins"].dtype)
    found = ray_isosurface(
        origins, inputs["directions"], levels, weights, samples=samples, **FIELD_SETTINGS
    )
    return {"points": found.points, "depths": found.depths}


def semantic_op(inputs: Inputs) -> dict[str, Tensor]:
    return {"map": semantic_composite(inputs["alpha"], inputs["values"])[1]}


def color_op(inputs: Inputs) -> dict[str, Tensor]:
    outputs = color_composite(inputs["alpha"], inputs["values"], inputs["depths"])
    return dict(zip(("color", "depth", "weights"), outputs, strict=True))


def within(variant: str) -> contextlib.AbstractContextManager[None]:
    """`eager AMP` and the like, or a backend and a precision: `triton fp16`."""
    if variant in NAMES:
        return baseline(variant)
    backend, precision = variant.split()
    return use_backend(backend, precision)


class RandomFaces:
    """Noise with labels in place of photographs: what a step costs does not depend on them."""

    def __init__(self, device: torch.device):
        self.device = device

    def __len__(self) -> int:
        return 64

    def repeats(self, rare_share: float) -> np.ndarray:
        return np.ones(len(self))

    def batch(self, indices: Any, flips: Any, resolution: int) -> Batch:
        count, device = len(indices), self.device
        labels = torch.randint(NUM_CLASSES, (count, resolution, resolution), device=device)
        maps = torch.nn.functional.one_hot(labels, NUM_CLASSES).permute(0, 3, 1, 2).float()
        images = 2 * torch.rand(count, 3, resolution, resolution, device=device) - 1
        return Batch(images, maps, 0.2 * torch.randn(count, 2, device=device))


def generator_step(
    generator: Generator, latents: tuple[Tensor, Tensor], pose: Tensor, resolution: int
) -> Callable[[], None]:
    """Forward and backward of the generator, gradients of every parameter."""

    def step() -> None:
        generator.zero_grad(set_to_none=True)
        output = generator(*latents, pose, resolution=resolution)
        (output.image.square().mean() + output.semantics.square().mean()).backward()

    return step


def training_step(preset: str, resolution: int, device: torch.device) -> Callable[[], object]:
    """One whole step of stage 1 at batch 1: both discriminators with R1, generator, Adam, EMA."""
    run = config.preset(preset)
    phase = config.Phase(until=1.0, resolution=resolution, batch=1)
    train = dataclasses.replace(run.train, phases=(phase,), micro_batch=1)
    run = dataclasses.replace(run, train=train)
    with torch.device("cpu"):
        trainer = Trainer(run, seed=0, device=device, world=World())
    faces = RandomFaces(device)

    def step() -> object:
        with torch.device("cpu"):
            return trainer.step(faces)  # type: ignore[arg-type]

    return step
