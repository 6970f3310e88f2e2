"""Whole renders and steps on the CPU: the native kernels against the reference path.

Both modules in bf16 autocast (`baselines.py`) are `autocast`; the native kernels at a lower
precision `cpu_fast` and the like. The rest of the pipeline is the same for all.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from baselines import baseline
from comparison import limit, relative_error
from support import needs_native
from torch import Tensor
from training import drawn_faces

from semfaceedit.editing.fit import zero_offsets
from semfaceedit.editing.fit_terms import FitSettings, Goal, loss_terms, weighted
from semfaceedit.kernels import _extension, use_backend
from semfaceedit.model import config
from semfaceedit.model.generator import Generator, sample_latents
from semfaceedit.model.mean_face import mean_codes
from semfaceedit.model.renderer import RenderOutput, find_intersections, render
from semfaceedit.training.distributed import World
from semfaceedit.training.trainer import Trainer

pytestmark = needs_native

Step = Callable[[], object]
LIMIT = 10**9  # bytes: what a render may take above the idle process


def generator_of(preset: str, **changes: Any) -> Generator:
    """Random weights, but with manifolds as round as after training: rays cross most of them."""
    torch.manual_seed(0)
    changes = {"round_predictor": True, **changes}
    model = dataclasses.replace(config.preset(preset).model, **changes)
    return Generator(model).eval()


def latents(generator: Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """z, appearance codes and poses of `count` pictures."""
    random = torch.Generator().manual_seed(0)
    z, appearance = sample_latents(generator.config, count, generator=random)
    return z, appearance, 0.2 * torch.randn(count, 2, generator=random)


def lower_precisions() -> list[str]:
    return [name for name in _extension.native().film_siren_precisions() if name != "fp32"]


def variants_of(step: Step, precisions: Sequence[str]) -> tuple[dict[str, Step], dict[str, str]]:
    """The step on the reference path and on the native one, and their precisions."""
    variants = {
        "reference": within("reference", "fp32", step),
        "cpu": within("cpu", "fp32", step),
    }
    names = {}
    if precisions:

        def autocast() -> object:
            with baseline("eager AMP"):
                return step()

        variants["autocast"] = autocast
        names["autocast"] = "bf16"
    for precision in precisions:
        name = f"cpu_{precision}"
        variants[name] = within("cpu", precision, step)
        names[name] = precision
    return variants, names


def within(backend: str, precision: str, step: Step) -> Step:
    def run() -> object:
        with use_backend(backend, precision):
            return step()

    return run


@torch.no_grad()
def check_pictures(generator: Generator, resolution: int, record: dict[str, Any]) -> None:
    """Each variant's picture against float64: fp32 by twice plain PyTorch's error, `accurate` by
    ten times its bound for a module (two modules and the compositing), `fast` by autocast's."""
    z, appearance, pose = latents(generator, 1)

    def picture() -> Tensor:
        return generator(z, appearance, pose, resolution=resolution).image

    variants, precisions = variants_of(picture, lower_precisions())
    pictures = {name: function() for name, function in variants.items()}
    generator.double()
    exact = generator(z.double(), appearance.double(), pose.double(), resolution=resolution).image
    generator.float()
    errors = {name: relative_error(image, exact) for name, image in pictures.items()}
    record.update({f"{name}_error": error for name, error in errors.items()})
    most = {"accurate": 1e-3, "fast": errors.get("autocast", 0.0), "bf16": 1.0}
    fp32 = limit(errors["reference"], torch.float32)
    for name, error in errors.items():
        assert error <= most.get(precisions.get(name, ""), fp32), f"{name}: {error:.2e}"


@pytest.mark.parametrize(
    "preset, resolution", [pytest.param("paper", 64, marks=pytest.mark.slow), ("small", 64)]
)
def test_render(preset: str, resolution: int, compare: Callable[..., None], benchmark: Any) -> None:
    benchmark.group = f"render-{preset}-{resolution}"
    generator = generator_of(preset)
    check_pictures(generator, 16, benchmark.extra_info)
    z, appearance, pose = latents(generator, 1)

    @torch.no_grad()
    def step() -> RenderOutput:
        return generator(z, appearance, pose, resolution=resolution)

    variants, precisions = variants_of(step, lower_precisions())
    compare(variants, precisions=precisions, rounds=3 if preset == "paper" else 7)


def test_generator_forward_and_backward(compare: Callable[..., None], benchmark: Any) -> None:
    """`small` in its second phase: a batch of 8 at 32 pixels, gradients of all parameters."""
    benchmark.group = "generator-small-32"
    generator = generator_of("small")
    check_pictures(generator, 16, benchmark.extra_info)
    z, appearance, pose = latents(generator, 8)
    parameters = list(generator.parameters())

    def step() -> object:
        output = generator(z, appearance, pose, resolution=32)
        loss = output.image.square().mean() + output.semantics.square().mean()
        return torch.autograd.grad(loss, parameters, allow_unused=True)

    check_gradients(step, benchmark.extra_info)
    variants, precisions = variants_of(step, lower_precisions())
    compare(variants, precisions=precisions)


@pytest.mark.parametrize("stage", ["geometry", "appearance"])
def test_inversion_step(stage: str, compare: Callable[..., None], benchmark: Any) -> None:
    """`small` at 64 pixels: offsets alone, no VGG term, intersections found before.

    The first stage moves the geometry offsets under the semantic term, the second all offsets under
    all terms.
    """
    benchmark.group = f"inversion-{stage}-small-64"
    generator = generator_of("small").requires_grad_(False)
    z, appearance, pose = latents(generator, 1)
    settings, shade = FitSettings(perceptual_weight=0), stage == "appearance"
    mean, offsets = mean_codes(generator), zero_offsets(generator)
    films = [offsets.geometry, offsets.appearance] if shade else [offsets.geometry]
    leaves = [t.requires_grad_() for film in films for t in (film.frequencies, film.phases)]
    with torch.no_grad():
        target = generator(z, appearance, pose, resolution=64)
        goal = Goal(target.semantics, target.image)
        intersections = find_intersections(generator, pose, 64)

    def step() -> object:
        codes = mean + offsets
        output = render(generator, codes, pose, 64, intersections=intersections, shade=shade)
        loss = weighted(loss_terms(output, goal, None, image=shade), settings)
        return torch.autograd.grad(loss, leaves)

    check_gradients(step, benchmark.extra_info)
    variants, precisions = variants_of(step, lower_precisions())
    compare(variants, precisions=precisions)


def check_gradients(step: Step, record: dict[str, Any]) -> None:
    """The native gradients against the reference's in fp32, all of them together: fp32 by 1e-3,
    `accurate` by 1e-2 (labels change where they are nearly equal), `fast` by autocast's error."""
    variants, precisions = variants_of(step, lower_precisions())

    def gradients(name: str) -> Tensor:
        result: Any = variants[name]()
        return torch.cat([grad.flatten() for grad in result if grad is not None])

    wanted = gradients("reference").double()
    errors = {name: relative_error(gradients(name), wanted) for name in variants}
    record.update({f"{name}_gradient_error": error for name, error in errors.items()})
    most = {"accurate": 1e-2, "fast": errors.get("autocast", 0.0), "bf16": 1.0}
    for name, error in errors.items():
        assert error <= most.get(precisions.get(name, ""), 1e-3), f"{name}: {error:.2e}"


@pytest.mark.slow
def test_training_step(compare: Callable[..., None], benchmark: Any, tmp_path: Path) -> None:
    """`small` in its second phase, a whole R1 interval (4 steps) at a time: both discriminators,
    generator, Adam and averages."""
    benchmark.group = "training-small-32"
    settings = config.preset("small")
    data = drawn_faces(tmp_path, count=32, resolution=64)
    trainers: dict[str, Trainer] = {}

    def steps(name: str) -> Step:
        def run() -> dict[str, float]:
            trainer = trainers[name]
            logs = [trainer.step(data) for _ in range(settings.train.r1_interval)]
            return {key: float(torch.as_tensor(value).mean()) for key, value in logs[0].items()}

        return run

    variants, precisions = {}, {}
    for name in ("reference", "cpu", *(f"cpu_{precision}" for precision in lower_precisions())):
        backend, _, precision = name.partition("_")
        trainers[name] = Trainer(settings, seed=0, device=torch.device("cpu"), world=World())
        trainers[name].completed = round(0.5 * settings.train.stage1_iterations)
        variants[name] = within(backend, precision or "fp32", steps(name))
        if precision:
            precisions[name] = precision
    first: Any = {name: variant() for name, variant in variants.items()}  # from the same weights
    for name in variants:
        tolerance = 0.1 if name == "cpu_fast" else 0.02
        for key, wanted in first["reference"].items():
            assert first[name][key] == pytest.approx(wanted, rel=tolerance, abs=0.01), (name, key)
    compare(variants, precisions=precisions, rounds=3)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("resolution", [256, 1024])
def test_memory_of_a_render(
    resolution: int,
    record: dict[str, Any],
    benchmark: Any,
    peak_memory: Callable[[Step], int | None],
) -> None:
    """`paper` in chunks of 8,192 rays: below 1 GB above the idle process. 1,024 takes minutes."""
    precision = lower_precisions()[-1] if lower_precisions() else "fp32"
    generator = generator_of("paper")
    codes = generator.map(*latents(generator, 1)[:2])
    pose = torch.zeros(1, 2)

    def step() -> RenderOutput:
        return render(generator, codes, pose, resolution, chunk_rays=8192)

    with use_backend("cpu", precision):
        render(generator, codes, pose, 16)
        peak = peak_memory(lambda: benchmark.pedantic(step, rounds=1))
    record.update(precision=precision, peak_bytes=peak)
    print("", record)
    if peak is None:
        pytest.skip("this system does not tell a process's peak memory")
    assert peak < LIMIT
