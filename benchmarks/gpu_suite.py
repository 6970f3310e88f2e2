"""All GPU checks in one go: the kernels against float64, then timings of ops, renders and steps.

    python benchmarks/gpu_suite.py [--out DIR] [--seed N] [--checkpoint FILE]

Needs PyTorch with CUDA and Triton, no network; builds the native module where nvcc is present. One
JSON file with the machine, the errors and the times goes to benchmarks/results/ and is rewritten
after every record. The exit code is 1 if a check fails; then nothing is timed.
`python benchmarks/table.py FILE` makes a table and a plot of it.
"""

import argparse
import copy
import math
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

import gpu_rays  # noqa: E402
from baselines import NAMES  # noqa: E402
from measuring import RESULTS, Suite, fail, floor_ms, stamped  # noqa: E402
from workloads import (  # noqa: E402
    Inputs,
    Op,
    color_op,
    composite_problem,
    field_op,
    field_problem,
    film_op,
    film_problem,
    generator_step,
    semantic_op,
    training_step,
    within,
)

from semfaceedit import checkpoint, config, floors  # noqa: E402
from semfaceedit.film import Film  # noqa: E402
from semfaceedit.generator import Generator, sample_latents  # noqa: E402
from semfaceedit.kernels import (  # noqa: E402
    available_backends,
    use_backend,
)
from semfaceedit.labels import NUM_CLASSES  # noqa: E402
from semfaceedit.renderer import find_intersections, recolor, render  # noqa: E402

FLOOR = 4  # in units of eps: what two correctly rounded sums may differ by
CULL = 1e-3


@dataclass(frozen=True)
class Plan:
    """What is run, and at which sizes."""

    preset: str = "paper"
    resolution: int = 256
    label_resolution: int = 64  # of the render in float64
    other_resolutions: tuple[int, ...] = (64, 128, 512, 1024)
    points: int = 10_037  # of the checks
    rays: int = 10_007
    chunk_rays: int = 8192
    repeats: int = 10
    variants: tuple[str, ...] = ("triton fp16", "triton tf32")
    checked: tuple[str, ...] = ("triton fp32", "triton tf32", "triton fp16")
    baselines: tuple[str, ...] = NAMES


def stacks(plan: Plan) -> dict[str, tuple[int, int, int, int, int, int, int]]:
    """Inputs, rows, groups, channels, trunk channels, width, layers of each module's stack."""
    model = config.preset(plan.preset).model
    width, groups = model.width, model.groups
    return {
        "geometry": (3, 1, 1, 1 + NUM_CLASSES + width, 1, width, model.geometry_depth),
        "appearance": (width, groups, groups, 3, 0, width, model.appearance_depth),
    }


def values_and_gradients(op: Op, inputs: Inputs, dtype: torch.dtype) -> dict[str, Tensor]:
    leaves = {name: tensor.to(dtype).requires_grad_() for name, tensor in inputs.items()}
    outputs = op(leaves)
    device = next(iter(inputs.values())).device
    random_numbers = torch.Generator(device=device).manual_seed(1)
    seeds = [
        torch.randn(tensor.shape, generator=random_numbers, device=device).to(dtype)
        for tensor in outputs.values()
    ]
    grads = torch.autograd.grad(
        list(outputs.values()), list(leaves.values()), seeds, allow_unused=True
    )
    result = {name: tensor.detach() for name, tensor in outputs.items()}
    result |= {
        f"d {name}": grad for name, grad in zip(leaves, grads, strict=True) if grad is not None
    }
    return result


def relative_error(actual: Tensor, exact: Tensor) -> float:
    scale = exact.norm().item()
    return (actual.double() - exact).norm().item() / (scale or 1.0)


def check(suite: Suite, name: str, op: Op, inputs: Inputs, variant: str) -> None:
    """Each output and gradient: error at most twice plain PyTorch's at that precision."""
    precision = variant.split()[1]
    with use_backend("reference", "fp32"):
        exact = values_and_gradients(op, inputs, torch.float64)
    with use_backend("reference", precision), tf32(precision == "tf32"):
        plain = values_and_gradients(op, inputs, torch.float32)
    with within(variant):
        actual = values_and_gradients(op, inputs, torch.float32)
        again = values_and_gradients(op, inputs, torch.float32)
    for key, wanted in exact.items():
        error, own = relative_error(actual[key], wanted), relative_error(plain[key], wanted)
        limit = 2 * own + FLOOR * torch.finfo(torch.float32).eps
        same = torch.equal(actual[key], again[key])
        suite.require(
            error <= limit and same,  # False for NaN
            op=name, variant=variant, tensor=key, error=error, plain=own, same_bits=same,
        )  # fmt: skip


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Within the block PyTorch's own fp32 products may use TF32."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def problems(plan: Plan) -> dict[str, tuple[Op, Inputs]]:
    """Every op at odd sizes, with more FiLM rows than a picture has."""
    model = config.preset(plan.preset).model
    result: dict[str, tuple[Op, Inputs]] = {}
    for name, (inputs, rows, groups, channels, trunk, width, layers) in stacks(plan).items():
        problem = film_problem(plan.points, inputs, 2 * rows, groups, channels, width, layers)
        result[name] = film_op(2 * rows, groups, trunk), problem
    field = field_problem(plan.rays, model.predictor_width)
    result["ray_isosurface"] = field_op(model.manifolds, model.ray_samples), field
    semantic = composite_problem(plan.rays, model.manifolds, NUM_CLASSES)
    del semantic["depths"]
    result["semantic_composite"] = semantic_op, semantic
    result["color_composite"] = color_op, composite_problem(plan.rays, model.manifolds, 3)
    return result


def run_checks(suite: Suite, plan: Plan) -> None:
    # This also fills memory from torch.empty with NaN: what a kernel leaves unwritten shows.
    torch.use_deterministic_algorithms(True, warn_only=True)
    cases = problems(plan)
    cuda = gpu_rays.unavailable() is None
    if not cuda:
        suite.add(kind="missing", backend="cuda", reason=gpu_rays.unavailable())
    for name, (op, inputs) in cases.items():
        matrices = name in ("geometry", "appearance")
        for variant in plan.checked if matrices else plan.checked[:1]:
            check(suite, name, op, inputs, variant)
        if not matrices and cuda:
            check(suite, name, op, inputs, "cuda fp32")
    check_baselines(suite, plan, cases)
    check_at_full_size(suite, plan)
    torch.use_deterministic_algorithms(False)


@torch.no_grad()
def check_baselines(suite: Suite, plan: Plan, cases: dict[str, tuple[Op, Inputs]]) -> None:
    """The baselines compute the same: fp32 to rounding, autocast within what 16 bits lose."""
    for name, (_, rows, groups, _, trunk, _, _) in stacks(plan).items():
        inputs = cases[name][1]
        with use_backend("reference", "fp32"):
            exact = cases[name][0]({k: v.double() for k, v in inputs.items()})["output"]
            plain = relative_error(cases[name][0](inputs)["output"], exact)
        for baseline_name in plan.baselines:
            output = film_op(2 * rows, groups, trunk, baseline_name)(inputs)["output"]
            error = relative_error(output, exact)
            limit = 2 * plain + 1e-6 if baseline_name.endswith("fp32") else 1.0
            suite.require(error <= limit, op=name, variant=baseline_name, tensor="output",
                          error=error, plain=plain)  # fmt: skip


@torch.no_grad()
def check_at_full_size(suite: Suite, plan: Plan) -> None:
    """All points of a picture at once, compared at some of them: the last tiles, large offsets."""
    size = plan.resolution**2 * config.preset(plan.preset).model.manifolds
    inputs, rows, groups, channels, trunk, width, layers = stacks(plan)["geometry"]
    problem = film_problem(size, inputs, rows, groups, channels, width, layers)
    some = torch.cat([torch.randint(0, size, (4000,)), torch.arange(-100, 0) + size])
    chosen = {**problem, **{name: problem[name][some] for name in ("points", "directions")}}
    op, variant = film_op(rows, groups, trunk), plan.variants[0]
    with use_backend("reference", "fp32"):
        exact = op({name: tensor.double() for name, tensor in chosen.items()})["output"]
    with use_backend("reference", variant.split()[1]):
        own = relative_error(op(chosen)["output"], exact)
    with within(variant):
        error = relative_error(op(problem)["output"][some], exact)
    suite.require(error <= 2 * own, op=f"geometry at {plan.resolution}", variant=variant,
                  tensor="output", error=error, plain=own)  # fmt: skip


def time_ops(suite: Suite, plan: Plan) -> None:
    """Forward over all points of a picture; forward and backward over a sixteenth of them."""
    model = config.preset(plan.preset).model
    rays = plan.resolution**2
    size, part = rays * model.manifolds, max(rays * model.manifolds // 16, 1)
    for name, (inputs, rows, groups, channels, trunk, width, layers) in stacks(plan).items():
        full = film_problem(size, inputs, rows, groups, channels, width, layers)
        less = {**full, **{key: full[key][:part] for key in ("points", "directions")}}
        flops = [
            floors.film_siren_flops(count, inputs, width, layers, channels)
            for count in (size, part)
        ]
        for variant in (*plan.variants, *plan.baselines):
            op = film_op(rows, groups, trunk, variant if variant in NAMES else None)
            time_op(suite, plan, name, variant, op, full, less, flops)
        del full, less
    others = {
        "ray_isosurface": (
            field_op(model.manifolds, model.ray_samples),
            field_problem(rays, model.predictor_width),
        ),
        "semantic_composite": (semantic_op, composite_problem(rays, model.manifolds, NUM_CLASSES)),
        "color_composite": (color_op, composite_problem(rays, model.manifolds, 3)),
    }
    del others["semantic_composite"][1]["depths"]
    for name, (op, inputs) in others.items():
        more = ("cuda fp32",) if gpu_rays.unavailable() is None else ()
        for variant in (*plan.variants[:1], *more, "reference fp32"):
            time_op(suite, plan, name, variant, op, inputs, inputs)


def time_op(
    suite: Suite,
    plan: Plan,
    name: str,
    variant: str,
    op: Op,
    inputs: Inputs,
    less: Inputs,
    flops: list[int] | None = None,
) -> None:
    forward, full = flops or [None, None]
    leaves = {key: tensor.detach().requires_grad_() for key, tensor in less.items()}

    def step() -> None:
        total = torch.stack([value.sum() for value in op(leaves).values()]).sum()
        torch.autograd.grad(total, list(leaves.values()), allow_unused=True)

    with within(variant):
        with torch.no_grad():
            suite.time(name, variant, lambda: op(inputs), repeats=plan.repeats, flops=forward,
                       mode="forward")  # fmt: skip
        suite.time(name, variant, step, repeats=plan.repeats, mode="full",
                   flops=None if full is None else 3 * full)  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """A generator, one pair of latents and a pose, on the device."""

    generator: Generator
    latents: tuple[Tensor, Tensor]
    pose: Tensor


def scene(suite: Suite, plan: Plan, seed: int, weights: Path | None = None) -> Scene:
    with torch.device("cpu"):
        if weights is None:
            torch.manual_seed(seed)
            generator = Generator(config.preset(plan.preset).model).to(suite.device).eval()
        else:
            generator, _ = checkpoint.load_generator(weights, device=suite.device)
        seeded = torch.Generator().manual_seed(seed)
        z, appearance = sample_latents(generator.config, 1, generator=seeded)
    latents = z.to(suite.device), appearance.to(suite.device)
    return Scene(generator, latents, torch.zeros(1, 2, device=suite.device))


def time_renders(suite: Suite, plan: Plan, world: Scene) -> None:
    """Renders whole, in chunks, and with cached intersections; then the generator's step."""
    generator, size = world.generator, plan.resolution
    peaks = peaks_of(suite)
    hits = find_intersections(generator, world.pose, size)
    work = floors.stage_work(generator.config, size**2, int(hits.valid.sum()))
    modules = {stage: work[stage] for stage in ("geometry", "appearance")}
    for variant in (*plan.variants, *plan.baselines):
        precision = "fp16" if variant in NAMES[1:] else variant.split()[1]
        with within(variant), torch.no_grad():
            codes = generator.map(*world.latents)
            for what, options, stages in (
                ("render", {}, work),
                ("render in chunks", {"chunk_rays": plan.chunk_rays}, work),
                ("render with cached intersections", {"intersections": hits}, modules),
            ):
                picture = partial(render, generator, codes, world.pose, size, **options)
                suite.time(
                    what, variant, picture, repeats=plan.repeats, resolution=size,
                    flops=sum(w.flops for w in stages.values()),
                    floor_ms=floor_ms(peaks, stages, precision),
                )  # fmt: skip
        step = generator_step(generator, world.latents, world.pose, size)
        with within(variant):
            suite.time("generator step", variant, step, repeats=plan.repeats, resolution=size,
                       flops=3 * sum(w.flops for w in work.values()))  # fmt: skip
        generator.zero_grad(set_to_none=True)
    ratios(suite, plan)


def ratios(suite: Suite, plan: Plan) -> None:
    """How many times as fast as the paper's mode, and as the fastest baseline of any kind."""
    times: dict[str, dict[str, float]] = {}
    for record in suite.records:
        if record["kind"] == "time" and "ms" in record and record.get("mode") != "full":
            times.setdefault(record["what"], {})[record["variant"]] = record["ms"]
    whole, chunks = times.get("render", {}), times.get("render in chunks", {})
    rivals = [ms for part in (whole, chunks) for name, ms in part.items() if name in NAMES]
    for what in ("render", "render in chunks", "render with cached intersections"):
        for variant in plan.variants:
            ms = times.get(what, {}).get(variant)
            if ms and rivals:
                paper = min(part["eager AMP"] for part in (whole, chunks) if "eager AMP" in part)
                suite.add(kind="ratio", what=what, variant=variant, to_eager_amp=paper / ms,
                          to_fastest_baseline=min(rivals) / ms)  # fmt: skip


def time_other_sizes(suite: Suite, plan: Plan, world: Scene) -> None:
    """Chunked renders from small to large: time should follow the rays, memory should not."""
    generator = world.generator
    for size in plan.other_resolutions:
        for variant in (plan.variants[0], "eager AMP"):
            with within(variant), torch.no_grad():
                codes = generator.map(*world.latents)
                picture = partial(
                    render, generator, codes, world.pose, size, chunk_rays=plan.chunk_rays
                )
                suite.time("render in chunks", variant, picture, repeats=3, resolution=size)


@torch.no_grad()
def time_shortcuts(suite: Suite, plan: Plan, world: Scene) -> None:
    """Culling, with its error and what it leaves out; another appearance of one group."""
    generator, size, variant = world.generator, plan.resolution, plan.variants[0]
    with within(variant):
        codes = generator.map(*world.latents)
        hits = find_intersections(generator, world.pose, size)
        options: dict[str, Any] = {"intersections": hits, "keep_shading": True}
        full = render(generator, codes, world.pose, size, **options)
        less = render(generator, codes, world.pose, size, cull=CULL, **options)
        kept, points = (
            sum(len(part.hits) for part in output.shading.parts)  # type: ignore[union-attr]
            for output in (less, full)
        )
        error = (less.image - full.image).abs().max().item()
        bound = 2.002 * (generator.config.manifolds - 1) * CULL
        suite.require(error <= bound, op="cull", variant=variant, tensor="image", error=error,
                      plain=bound, cull=CULL, kept_share=kept / max(points, 1))  # fmt: skip
        picture = partial(render, generator, codes, world.pose, size, intersections=hits, cull=CULL)
        suite.time("render with cached intersections, culled", variant, picture,
                   repeats=plan.repeats, resolution=size)  # fmt: skip
        frequencies = codes.appearance.frequencies.clone()
        frequencies[:, 0] += 0.1
        other = Film(frequencies, codes.appearance.phases)
        suite.time("recolor one group", variant, lambda: recolor(generator, full, other),
                   repeats=plan.repeats, resolution=size)  # fmt: skip


@torch.no_grad()
def check_labels(suite: Suite, plan: Plan, world: Scene) -> None:
    """Labels may differ from float64 only where the best two scores are closer than the margin.

    The margin is twice the largest error that plain PyTorch makes in a score at that precision.
    """
    size, generator = plan.label_resolution, world.generator
    exact_generator = copy.deepcopy(generator).double()
    latents = [tensor.double() for tensor in world.latents]
    with use_backend("reference", "fp32"):
        exact = exact_generator(*latents, world.pose.double(), resolution=size)
    best = exact.semantics.topk(2, dim=1).values
    gap = best[:, 0] - best[:, 1]
    for variant in (*plan.variants, "eager AMP"):
        precision = "fp16" if variant in NAMES else variant.split()[1]
        with use_backend("reference", precision), tf32(precision == "tf32"):
            plain = generator(*world.latents, world.pose, resolution=size)
        margin = 2 * (plain.semantics - exact.semantics).abs().max().item()
        with within(variant):
            output = generator(*world.latents, world.pose, resolution=size)
        flipped = output.labels != exact.labels
        facts = {
            "variant": variant, "margin": margin, "flipped": flipped.double().mean().item(),
            "flipped_beyond_margin": int((flipped & (gap > margin)).sum()),
            "psnr": psnr(output.image.double(), exact.image),
            "map_error": (output.semantics - exact.semantics).abs().max().item(),
        }  # fmt: skip
        if variant in NAMES:
            suite.add(kind="labels", **facts)
        else:
            suite.require(facts["flipped_beyond_margin"] == 0, op="labels", **facts)


def psnr(image: Tensor, exact: Tensor) -> float | None:
    """Of pictures in [-1, 1]; None where they are equal."""
    error = (image - exact).square().mean().item()
    return 10 * math.log10(4 / error) if error else None


@torch.no_grad()
def layer_errors(suite: Suite, plan: Plan, world: Scene) -> None:
    """What fp16 operands cost in each layer of the Geometry Module, from exact activations on.

    Relative RMS error of the sines against float64: of the layer alone, and of all up to it.
    """
    stack = world.generator.geometry.stack
    film = world.generator.map(*world.latents).geometry
    frequencies = (15 * film.frequencies + 30)[0].double()
    phases = film.phases[0].double()
    hits = find_intersections(world.generator, world.pose, plan.label_resolution)
    scale = world.generator.config.coordinate_scale
    points = hits.points[hits.valid].double() * scale
    exact = torch.sin(
        frequencies[0] * (points @ stack.first_weight.double().T + stack.first_bias.double())
        + phases[0]
    )
    running = exact.float()
    for layer, (weight, bias) in enumerate(
        zip(stack.hidden_weight, stack.hidden_bias, strict=True), start=1
    ):
        rounded = weight.half().double()

        def sines(h: Tensor, matrix: Tensor, layer: int = layer, bias: Tensor = bias) -> Tensor:
            product = h.double() @ matrix.T + bias.double()
            return torch.sin(frequencies[layer] * product + phases[layer])

        alone = sines(exact.half(), rounded)
        running = sines(running.half(), rounded)
        exact = sines(exact, weight.double())
        suite.add(
            kind="layer", layer=layer + 1, error=relative_error(alone, exact),
            error_so_far=relative_error(running, exact),
        )  # fmt: skip


def time_training(suite: Suite, plan: Plan) -> None:
    for variant in (plan.variants[0], "eager AMP"):
        step = training_step(plan.preset, plan.resolution, suite.device)
        with within(variant):
            suite.time("training step", variant, step, repeats=plan.repeats, batch=1,
                       resolution=plan.resolution)  # fmt: skip
        del step


def peaks_of(suite: Suite) -> floors.Peaks | None:
    if suite.device.type == "cuda":
        return floors.device_peaks(suite.machine["device"])
    return floors.measured_peaks(size=256)


def run(suite: Suite, plan: Plan, seed: int, weights: Path | None = None) -> int:
    """Everything, in the order of what matters most; the number of failed checks."""
    torch.manual_seed(seed)
    world = scene(suite, plan, seed, weights)
    with torch.device(suite.device):
        run_checks(suite, plan)
        check_labels(suite, plan, world)
        if suite.failures:
            return suite.failures
        time_renders(suite, plan, world)
        time_shortcuts(suite, plan, world)
        time_other_sizes(suite, plan, world)
        time_training(suite, plan)
        time_ops(suite, plan)
        layer_errors(suite, plan, world)
    return suite.failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument(
        "--checkpoint", type=Path, help="trained weights, for precision and culling"
    )
    options = parser.parse_args()
    if not torch.cuda.is_available():
        return fail("gpu_suite: PyTorch finds no CUDA device on this machine")
    gpu_rays.build()
    for op, reason in available_backends()["triton"].items():
        if reason is not None:
            return fail(f"gpu_suite: the Triton backend of {op} cannot run: {reason}")
    path = stamped("gpu", options.out)
    weights = str(options.checkpoint) if options.checkpoint else None
    suite = Suite(path, torch.device("cuda"), seed=options.seed, checkpoint=weights)
    if run(suite, Plan(), options.seed, options.checkpoint):
        print(f"gpu_suite: {suite.failures} checks failed; see {path}", file=sys.stderr)
        return 1
    print(f"gpu_suite: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
