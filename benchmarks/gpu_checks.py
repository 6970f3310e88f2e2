"""The GPU suite's checks: every kernel against float64, baselines, labels, errors of layers."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gpu_rays
import torch
from baselines import HALF, NAMES
from comparison import limit, relative_error, values_and_gradients
from measuring import Suite
from op_problems import Inputs, composite_problem, field_problem, film_problem
from torch import Tensor
from workloads import Op, color_op, field_op, film_op, semantic_op, within

from semfaceedit.kernels import film_siren_cuda, use_backend
from semfaceedit.model import checkpoint, config
from semfaceedit.model.generator import Generator, sample_latents
from semfaceedit.model.labels import NUM_CLASSES
from semfaceedit.model.renderer import find_intersections

AUTOCAST_EPS = 16  # what autocast may lose on `film_problem`: on a CPU it is 1 to 2 eps of bf16

FOLDED = "appearance, folded"


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


def stacks(plan: Plan) -> dict[str, tuple[int, int, int, int, int, int, int]]:
    """Inputs, rows, groups, channels, trunk channels, width, layers of each module's stack."""
    model = config.preset(plan.preset).model
    width, groups = model.width, model.groups
    return {
        "geometry": (3, 1, 1, 1 + NUM_CLASSES + width, 1, width, model.geometry_depth),
        "appearance": (width, groups, groups, 3, 0, width, model.appearance_depth),
    }


def check(suite: Suite, name: str, op: Op, inputs: Inputs, variant: str) -> None:
    """Each output and gradient: error at most twice plain PyTorch's at that precision."""
    precision = variant.split()[1]
    wanted = [key for key, tensor in inputs.items() if tensor.numel()]
    with use_backend("reference", "fp32"):
        exact = values_and_gradients(op, inputs, torch.float64, wanted)
    with use_backend("reference", precision), tf32(precision == "tf32"):
        plain = values_and_gradients(op, inputs, torch.float32, wanted)
    with within(variant):
        actual = values_and_gradients(op, inputs, torch.float32, wanted)
        again = values_and_gradients(op, inputs, torch.float32, wanted)
    for key, expected in exact.items():
        error, own = relative_error(actual[key], expected), relative_error(plain[key], expected)
        same = torch.equal(actual[key], again[key])
        suite.require(
            error <= limit(own, torch.float32) and same,  # False for NaN
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
        problem = film_problem(plan.points, inputs, width, layers, 2 * rows, groups, channels)
        result[name] = film_op(2 * rows, groups, trunk), problem
    # Colours as renders ask for them: their first layer is in the heads of the descriptor.
    _, rows, groups, channels, trunk, width, layers = stacks(plan)["appearance"]
    folded = film_problem(plan.points, 0, width, layers, 2 * rows, groups, channels)
    result[FOLDED] = film_op(2 * rows, groups, trunk), folded
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
    suite.add(kind="bodies", op="film_siren", **film_siren_cuda.bodies())
    for name, (op, inputs) in cases.items():
        matrices = name in (*stacks(plan), FOLDED)
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
            half = AUTOCAST_EPS * torch.finfo(HALF[output.device.type]).eps
            allowed = limit(plain, torch.float32) if baseline_name.endswith("fp32") else half
            suite.require(error <= allowed, op=name, variant=baseline_name, tensor="output",
                          error=error, plain=plain)  # fmt: skip


@torch.no_grad()
def check_at_full_size(suite: Suite, plan: Plan) -> None:
    """All points of a picture at once, compared at some of them: the last tiles, large offsets."""
    size = plan.resolution**2 * config.preset(plan.preset).model.manifolds
    inputs, rows, groups, channels, trunk, width, layers = stacks(plan)["geometry"]
    problem = film_problem(size, inputs, width, layers, rows, groups, channels)
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
    intersections = find_intersections(world.generator, world.pose, plan.label_resolution)
    scale = world.generator.config.coordinate_scale
    points = intersections.points[intersections.valid].double() * scale
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
