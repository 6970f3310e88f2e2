"""All GPU checks in one go: the kernels against float64, then timings of ops, renders and steps.

    python benchmarks/gpu_suite.py [--out DIR] [--seed N] [--checkpoint FILE] [--resume FILE]

Needs PyTorch with CUDA and Triton, no network; builds the native module where nvcc is present. One
JSON file with the machine, the errors and the times goes to benchmarks/results/ and is rewritten
after every record; --resume goes on with such a file: what it has is not run again. The exit code
is 1 if a check fails; then nothing is timed.
`python benchmarks/table.py FILE` makes a table and a plot of it.
"""

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks"), str(ROOT / "tests/helpers")]

import gpu_rays  # noqa: E402
from baselines import NAMES  # noqa: E402
from gpu_checks import (  # noqa: E402
    Plan,
    Scene,
    check_labels,
    layer_errors,
    run_checks,
    scene,
    stacks,
)
from measuring import RESULTS, Case, Suite, fail, floor_ms, stamped  # noqa: E402
from op_problems import (  # noqa: E402
    Inputs,
    composite_problem,
    field_problem,
    film_problem,
)
from workloads import (  # noqa: E402
    Op,
    color_op,
    field_op,
    film_op,
    generator_step,
    semantic_op,
    training_step,
    within,
)

from semfaceedit.evaluation import roofline as floors  # noqa: E402
from semfaceedit.kernels import available_backends  # noqa: E402
from semfaceedit.model import config  # noqa: E402
from semfaceedit.model.codes import Film  # noqa: E402
from semfaceedit.model.labels import NUM_CLASSES  # noqa: E402
from semfaceedit.model.renderer import find_intersections, recolor, render  # noqa: E402

CULL = 1e-3

Step = Callable[[], object]


def inside(variant: str, function: Step, *, grad: bool = False) -> Step:
    """`function` under `variant`, so that several variants can be called in turns."""

    def run() -> object:
        with within(variant), torch.set_grad_enabled(grad):
            return function()

    return run


def time_ops(suite: Suite, plan: Plan) -> None:
    """Forward over all points of a picture; forward and backward over a sixteenth of them."""
    model = config.preset(plan.preset).model
    rays = plan.resolution**2
    size, part = rays * model.manifolds, max(rays * model.manifolds // 16, 1)
    for name, (inputs, rows, groups, channels, trunk, width, layers) in stacks(plan).items():
        full = film_problem(size, inputs, width, layers, rows, groups, channels)
        less = {**full, **{key: full[key][:part] for key in ("points", "directions")}}
        forward, backward = (
            floors.film_siren_flops(count, inputs, width, layers, channels)
            for count in (size, part)
        )
        ops = {
            variant: film_op(rows, groups, trunk, variant if variant in NAMES else None)
            for variant in (*plan.variants, *plan.baselines)
        }
        time_op(suite, plan, name, ops, full, less, flops=(forward, 3 * backward))
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
    more = ("cuda fp32",) if gpu_rays.unavailable() is None else ()
    for name, (op, inputs) in others.items():
        ops = dict.fromkeys((*plan.variants[:1], *more, "reference fp32"), op)
        time_op(suite, plan, name, ops, inputs, inputs)


def time_op(
    suite: Suite,
    plan: Plan,
    name: str,
    ops: dict[str, Op],
    inputs: Inputs,
    less: Inputs,
    flops: tuple[int, int] | tuple[None, None] = (None, None),
) -> None:
    leaves = {key: tensor.detach().requires_grad_() for key, tensor in less.items()}

    def step(op: Op) -> None:
        total = torch.stack([value.sum() for value in op(leaves).values()]).sum()
        torch.autograd.grad(total, list(leaves.values()), allow_unused=True)

    cases = [
        Case(name, variant, inside(variant, partial(op, inputs)), flops[0], {"mode": "forward"})
        for variant, op in ops.items()
    ]
    suite.time(cases, plan.repeats)
    cases = [
        Case(name, variant, inside(variant, partial(step, op), grad=True), flops[1],
             {"mode": "full"})
        for variant, op in ops.items()
    ]  # fmt: skip
    suite.time(cases, plan.repeats)


def time_renders(suite: Suite, plan: Plan, world: Scene) -> None:
    """Renders whole, in chunks, and with cached intersections; then the generator's step."""
    generator, size = world.generator, plan.resolution
    peaks = peaks_of(suite)
    with torch.no_grad():
        intersections = find_intersections(generator, world.pose, size)
    work = floors.stage_work(generator.config, size**2, int(intersections.valid.sum()))
    modules = {stage: work[stage] for stage in ("geometry", "appearance")}
    renders, steps = [], []
    for variant in (*plan.variants, *plan.baselines):
        precision = "fp16" if variant in NAMES[1:] else variant.split()[1]
        for what, options, stages in (
            ("render", {}, work),
            ("render in chunks", {"chunk_rays": plan.chunk_rays}, work),
            ("render with cached intersections", {"intersections": intersections}, modules),
        ):
            picture = inside(variant, partial(picture_of, world, size, **options))
            facts = {"resolution": size, "floor_ms": floor_ms(peaks, stages, precision)}
            flops = sum(w.flops for w in stages.values())
            renders.append(Case(what, variant, picture, flops, facts))
        step = inside(
            variant, generator_step(generator, world.latents, world.pose, size), grad=True
        )
        flops = 3 * sum(w.flops for w in work.values())
        steps.append(Case("generator step", variant, step, flops, {"resolution": size}))
    suite.time(renders, plan.repeats)
    suite.time(steps, plan.repeats)
    generator.zero_grad(set_to_none=True)
    ratios(suite, plan)


def picture_of(world: Scene, size: int, **options: Any) -> object:
    codes = world.generator.map(*world.latents)
    return render(world.generator, codes, world.pose, size, **options)


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
    for size in plan.other_resolutions:
        picture = partial(picture_of, world, size, chunk_rays=plan.chunk_rays)
        cases = [
            Case("render in chunks", variant, inside(variant, picture), None, {"resolution": size})
            for variant in (plan.variants[0], "eager AMP")
        ]
        suite.time(cases, repeats=3)


@torch.no_grad()
def time_shortcuts(suite: Suite, plan: Plan, world: Scene) -> None:
    """Culling, with its error and what it leaves out; another appearance of one group."""
    generator, size, variant = world.generator, plan.resolution, plan.variants[0]
    with within(variant):
        codes = generator.map(*world.latents)
        intersections = find_intersections(generator, world.pose, size)
        options: dict[str, Any] = {"intersections": intersections, "keep_shading": True}
        full = render(generator, codes, world.pose, size, **options)
        less = render(generator, codes, world.pose, size, cull=CULL, **options)
        kept, points = (
            sum(len(part.point_index) for part in output.shading.parts)  # type: ignore[union-attr]
            for output in (less, full)
        )
        error = (less.image - full.image).abs().max().item()
        bound = 2.002 * (generator.config.manifolds - 1) * CULL
        suite.require(error <= bound, op="cull", variant=variant, tensor="image", error=error,
                      plain=bound, cull=CULL, kept_share=kept / max(points, 1))  # fmt: skip
        picture = partial(
            render, generator, codes, world.pose, size, intersections=intersections, cull=CULL
        )
        frequencies = codes.appearance.frequencies.clone()
        frequencies[:, 0] += 0.1
        other = Film(frequencies, codes.appearance.phases)
        facts = {"resolution": size}
        cases = [
            Case("render with cached intersections, culled", variant, picture, None, facts),
            Case("recolor one group", variant, partial(recolor, generator, full, other), None,
                 facts),
        ]  # fmt: skip
        suite.time(cases, plan.repeats)


def time_training(suite: Suite, plan: Plan) -> None:
    cases = []
    for variant in (plan.variants[0], "eager AMP"):
        step = training_step(plan.preset, plan.resolution, suite.device)
        facts = {"resolution": plan.resolution, "batch": 1}
        cases.append(Case("training step", variant, inside(variant, step, grad=True), None, facts))
    suite.time(cases, plan.repeats)


def peaks_of(suite: Suite) -> floors.Peaks | None:
    if suite.device.type == "cuda":
        return floors.device_peaks(suite.machine["device"])
    return floors.measured_peaks()


def run(suite: Suite, plan: Plan, seed: int, weights: Path | None = None) -> int:
    """Everything, in the order of what matters most; the number of failed checks."""
    torch.manual_seed(seed)
    world = scene(suite, plan, seed, weights)
    with torch.device(suite.device):
        if not suite.has(kind="checked"):
            run_checks(suite, plan)
            check_labels(suite, plan, world)
            if suite.failures:
                return suite.failures
            suite.add(kind="checked")
        time_renders(suite, plan, world)
        time_shortcuts(suite, plan, world)
        time_other_sizes(suite, plan, world)
        time_training(suite, plan)
        time_ops(suite, plan)
        layer_errors(suite, plan, world)
    return suite.failures


def plan_for_this_machine() -> Plan:
    """With the CUDA kernels of `film_siren` where they are built: they stand first."""
    plan = Plan()
    if gpu_rays.unavailable() is not None:
        return plan
    return replace(
        plan,
        variants=("cuda fp16", *plan.variants),
        checked=(*plan.checked, "cuda fp16"),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    parser.add_argument(
        "--checkpoint", type=Path, help="trained weights, for precision and culling"
    )
    parser.add_argument("--resume", type=Path, help="a file of an earlier run that was cut off")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        return fail("gpu_suite: PyTorch finds no CUDA device on this machine")
    gpu_rays.build()
    for op, reason in available_backends()["triton"].items():
        if reason is not None:
            return fail(f"gpu_suite: the Triton backend of {op} cannot run: {reason}")
    path = options.resume or stamped("gpu", options.out)
    weights = options.checkpoint.name if options.checkpoint else None
    suite = Suite(path, torch.device("cuda"), seed=options.seed, checkpoint=weights)
    if options.resume:
        suite.resume()
    if run(suite, plan_for_this_machine(), options.seed, options.checkpoint):
        print(f"gpu_suite: {suite.failures} checks failed; see {path}", file=sys.stderr)
        return 1
    print(f"gpu_suite: {path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
