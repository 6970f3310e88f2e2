"""All GPU checks in one go: the Triton ops against float64, then timings of ops and renders.

    python benchmarks/gpu_suite.py [--out DIR] [--seed N]

Needs PyTorch with CUDA and Triton, no network. One JSON file with the machine, the errors and the
times goes to benchmarks/results/; it is rewritten after every step. The exit code is 1 if a check
fails, and then nothing is timed.
"""

import argparse
import json
import math
import platform
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import gpu_rays  # noqa: E402

from semfaceedit import config  # noqa: E402
from semfaceedit.generator import Generator, sample_latents  # noqa: E402
from semfaceedit.kernels import (  # noqa: E402
    FieldWeights,
    FilmSirenWeights,
    available_backends,
    color_composite,
    film_siren,
    ray_isosurface,
    semantic_composite,
    use_backend,
)
from semfaceedit.renderer import find_intersections, render  # noqa: E402

Inputs = dict[str, Tensor]
Op = Callable[[Inputs], dict[str, Tensor]]
Variants = tuple[tuple[str, str], ...]  # backend, precision

RAYS, HITS, SAMPLES, CLASSES, WIDTH, LAYERS = 256 * 256, 24, 64, 19, 256, 8
FLOOR = 4  # in units of eps: what two correctly rounded sums may differ by
REPEATS = 10


class Suite:
    """The records of one run, on disk after every one of them."""

    def __init__(self, out: Path, seed: int):
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        self.path = out / f"gpu-{stamp}.json"
        self.records: list[dict[str, Any]] = []
        self.machine = {**machine(), "seed": seed}
        self.failures = 0

    def add(self, **record: Any) -> None:
        print(json.dumps(record), flush=True)
        self.records.append(record)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        content = {"machine": self.machine, "records": self.records}
        self.path.write_text(json.dumps(content, indent=1) + "\n")


def machine() -> dict[str, Any]:
    import triton

    command = ["git", "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    except OSError:
        commit = ""
    return {
        "device": torch.cuda.get_device_name(),
        "capability": list(torch.cuda.get_device_capability()),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "commit": commit,
    }


def film_problem(points: int, inputs: int, rows: int, groups: int, channels: int) -> Inputs:
    """Random inputs at the paper's width and depth; FiLM arguments span several periods."""
    randn, width, layers = torch.randn, WIDTH, LAYERS
    return {
        "points": randn(points, inputs),
        "directions": torch.nn.functional.normalize(randn(points, 3), dim=1),
        "frequencies": 15 + 2 * randn(rows, layers + 1, width),
        "phases": randn(rows, layers + 1, width),
        "first_weight": 0.3 * randn(width, inputs) / inputs**0.5,
        "first_bias": 0.1 * randn(width),
        "hidden_weight": 0.1 * randn(layers - 1, width, width) / width**0.5,
        "hidden_bias": 0.05 * randn(layers - 1, width),
        "view_weight": 0.1 * randn(groups, width, 3 + width) / width**0.5,
        "view_bias": 0.05 * randn(groups, width),
        "head_weight": randn(groups, layers - 1, channels, width) / width**0.5,
        "head_bias": randn(groups, layers - 1, channels),
    }


def film_op(rows: int, groups: int, trunk: int) -> Op:
    def op(inputs: Inputs) -> dict[str, Tensor]:
        tensors = list(inputs.values())
        offsets = torch.linspace(0, len(tensors[0]), rows + 1).long()
        row_groups = torch.arange(rows) % groups
        weights = FilmSirenWeights(*tensors[4:])
        output = film_siren(*tensors[:4], offsets, row_groups, weights, trunk_channels=trunk)
        return {"output": output}

    return op


def field_problem(rays: int) -> Inputs:
    """A random field that falls by 30 along the rays, so that every interval is steep enough."""
    randn, width, forward = torch.randn, 128, torch.tensor([0.0, 0.0, -1.0])
    tensors = {
        "origins": 0.02 * randn(rays, 3) - forward,
        "directions": torch.nn.functional.normalize(forward + 0.1 * randn(rays, 3), dim=1),
        "first_weight": randn(width, 3) * (2 / 3) ** 0.5,
        "first_bias": 0.1 * randn(width),
        "hidden_weight": randn(2, width, width) * (1 / width) ** 0.5,
        "hidden_bias": 0.1 * randn(2, width),
        "last_weight": randn(1, width) / width**0.5,
        "last_bias": torch.tensor([-2.0]),
    }
    tensors["first_weight"][0] = torch.tensor([0.0, 0.0, 3.0])
    tensors["first_bias"][0] = 0.0
    tensors["hidden_weight"][:, 0] = 0.0
    tensors["hidden_weight"][:, 0, 0] = 1.0
    tensors["hidden_bias"][:, 0] = 0.0
    tensors["last_weight"][0, 0] = 3.0
    return tensors


def field_op(inputs: Inputs) -> dict[str, Tensor]:
    weights = FieldWeights(*(inputs[name] for name in FieldWeights._fields))
    levels = torch.linspace(22, 2, HITS - 1, dtype=inputs["origins"].dtype)
    hits = ray_isosurface(
        inputs["origins"], inputs["directions"], levels, weights, centre=(0.0, 0.0, -1.5),
        scale=8.0, near=0.88, far=1.12, samples=SAMPLES, plane_z=-0.12,
    )  # fmt: skip
    return {"points": hits.points, "depths": hits.depths}


def composite_problem(rays: int, channels: int) -> Inputs:
    alpha = torch.rand(rays, HITS)
    alpha[:, ::3] = 0
    return {
        "alpha": alpha,
        "values": torch.randn(rays, HITS, channels),
        "depths": 1 + torch.rand(rays, HITS),
    }


def semantic_op(inputs: Inputs) -> dict[str, Tensor]:
    return {"map": semantic_composite(inputs["alpha"], inputs["values"])[1]}


def color_op(inputs: Inputs) -> dict[str, Tensor]:
    outputs = color_composite(inputs["alpha"], inputs["values"], inputs["depths"])
    return dict(zip(("color", "depth", "weights"), outputs, strict=True))


def values_and_gradients(op: Op, inputs: Inputs, dtype: torch.dtype) -> dict[str, Tensor]:
    leaves = {name: tensor.to(dtype).requires_grad_() for name, tensor in inputs.items()}
    outputs = op(leaves)
    random_numbers = torch.Generator(device="cuda").manual_seed(1)
    seeds = [
        torch.randn(tensor.shape, generator=random_numbers).to(dtype) for tensor in outputs.values()
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


def check(
    suite: Suite, name: str, op: Op, inputs: Inputs, precision: str, backend: str = "triton"
) -> None:
    """Each output and gradient: error at most twice plain PyTorch's at that precision."""
    with use_backend("reference", "fp32"):
        exact = values_and_gradients(op, inputs, torch.float64)
    with use_backend("reference", precision), tf32(precision == "tf32"):
        plain = values_and_gradients(op, inputs, torch.float32)
    with use_backend(backend, precision):
        actual = values_and_gradients(op, inputs, torch.float32)
        again = values_and_gradients(op, inputs, torch.float32)
    for key, wanted in exact.items():
        error, own = relative_error(actual[key], wanted), relative_error(plain[key], wanted)
        limit = 2 * own + FLOOR * torch.finfo(torch.float32).eps
        same = torch.equal(actual[key], again[key])
        passed = error <= limit and same  # False for NaN
        suite.failures += not passed
        suite.add(
            kind="check", op=name, backend=backend, precision=precision, tensor=key, error=error,
            plain=own, same_bits=same, passed=passed,
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


def check_at_full_size(suite: Suite) -> None:
    """All points of a picture at once, compared at some of them: the last tiles, large offsets."""
    inputs = film_problem(RAYS * HITS, 3, 1, 1, 276)
    some = torch.cat([torch.randint(0, RAYS * HITS, (4000,)), torch.arange(-100, 0) + RAYS * HITS])
    chosen = {**inputs, **{name: inputs[name][some] for name in ("points", "directions")}}
    op = film_op(1, 1, 1)
    with torch.no_grad():
        with use_backend("reference", "fp32"):
            exact = op({name: tensor.double() for name, tensor in chosen.items()})["output"]
        with use_backend("reference", "fp16"):
            own = relative_error(op(chosen)["output"], exact)
        with use_backend("triton", "fp16"):
            error = relative_error(op(inputs)["output"][some], exact)
    passed = error <= 2 * own
    suite.failures += not passed
    suite.add(kind="check", op="geometry at 256", precision="fp16", tensor="output", error=error,
              plain=own, passed=passed)  # fmt: skip


def run_checks(suite: Suite) -> None:
    # This also fills memory from torch.empty with NaN: what a kernel leaves unwritten shows.
    torch.use_deterministic_algorithms(True, warn_only=True)
    for precision in ("fp32", "tf32", "fp16"):
        check(suite, "geometry", film_op(2, 1, 1), film_problem(10_037, 3, 2, 1, 276), precision)
        inputs = film_problem(10_037, 256, 8, 4, 3)
        check(suite, "appearance", film_op(8, 4, 0), inputs, precision)
    semantic = composite_problem(10_007, CLASSES)
    del semantic["depths"]
    reason = gpu_rays.unavailable()
    if reason is not None:
        suite.add(kind="missing", backend="cuda", reason=reason)
    for backend in ("triton", "cuda") if reason is None else ("triton",):
        check(suite, "ray_isosurface", field_op, field_problem(4003), "fp32", backend)
        check(suite, "semantic_composite", semantic_op, semantic, "fp32", backend)
        colors = composite_problem(10_007, 3)
        check(suite, "color_composite", color_op, colors, "fp32", backend)
    check_at_full_size(suite)
    torch.use_deterministic_algorithms(False)


def measure(suite: Suite, name: str, variant: str, function: Callable[[], object]) -> None:
    """Median time by device events and peak memory beyond what was held before."""
    try:
        for _ in range(3):
            function()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held, times = torch.cuda.memory_allocated(), []
        for _ in range(REPEATS):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            function()
            end.record()
            torch.cuda.synchronize()
            times.append(start.elapsed_time(end))
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        suite.add(kind="time", what=name, variant=variant, out_of_memory=True)
        return
    peak = torch.cuda.max_memory_allocated() - held
    ordered = sorted(times)
    suite.add(
        kind="time", what=name, variant=variant, ms=round(statistics.median(times), 4),
        ms_p20=round(ordered[REPEATS // 5], 4), ms_p80=round(ordered[-1 - REPEATS // 5], 4),
        peak_bytes=peak,
    )  # fmt: skip


VARIANTS = (("triton", "fp16"), ("triton", "tf32"), ("reference", "fp32"), ("reference", "fp16"))


def time_op(
    suite: Suite, name: str, op: Op, inputs: Inputs, backward: Inputs, more: Variants = ()
) -> None:
    """Forward without gradients on `inputs`; forward and backward on `backward`."""
    for backend, precision in (*VARIANTS, *more):
        with use_backend(backend, precision):
            variant = f"{backend} {precision}"
            with torch.no_grad():
                measure(suite, f"{name} forward", variant, lambda: op(inputs))
            leaves = {key: tensor.detach().requires_grad_() for key, tensor in backward.items()}

            def step(leaves: Inputs = leaves) -> None:
                total = torch.stack([value.sum() for value in op(leaves).values()]).sum()
                torch.autograd.grad(total, list(leaves.values()), allow_unused=True)

            measure(suite, f"{name} forward and backward", variant, step)


def time_ops(suite: Suite) -> None:
    size, part = RAYS * HITS, RAYS * HITS // 16
    for name, inputs, rows, groups, channels, trunk in (
        ("geometry", 3, 1, 1, 276, 1),
        ("appearance", 256, 4, 4, 3, 0),
    ):
        full = film_problem(size, inputs, rows, groups, channels)
        less = {**full, **{key: full[key][:part] for key in ("points", "directions")}}
        time_op(suite, name, film_op(rows, groups, trunk), full, less)
        del full, less
    rays = field_problem(RAYS)
    time_op(suite, "ray_isosurface", field_op, rays, rays, gpu_rays.variants())
    semantic = composite_problem(RAYS, CLASSES)
    del semantic["depths"]
    time_op(suite, "semantic_composite", semantic_op, semantic, semantic, gpu_rays.variants())
    colors = composite_problem(RAYS, 3)
    time_op(suite, "color_composite", color_op, colors, colors, gpu_rays.variants())


def time_renders(suite: Suite, seed: int) -> None:
    """The 256 x 256 render of the `paper` preset with random weights, whole and in chunks."""
    model = config.paper().model
    generator = Generator(model).cuda().eval()
    seeded = torch.Generator().manual_seed(seed)
    latents = [tensor.cuda() for tensor in sample_latents(model, 1, generator=seeded)]
    pose = torch.zeros(1, 2, device="cuda")
    pictures = {}
    for backend, precision in (("reference", "fp32"), *VARIANTS[:2], ("reference", "fp16")):
        with use_backend(backend, precision), torch.no_grad():
            codes = generator.map(*latents)
            hits = find_intersections(generator, pose, 256)
            for name, options in (
                ("render", {}),
                ("render in chunks", {"chunk_rays": 8192}),
                ("render with cached intersections", {"intersections": hits}),
            ):

                def picture(codes: Any = codes, options: Any = options) -> Any:
                    return render(generator, codes, pose, 256, **options)

                measure(suite, f"{name} 256", f"{backend} {precision}", picture)
            pictures[f"{backend} {precision}"] = render(
                generator, codes, pose, 256, chunk_rays=8192
            )
        time_generator_step(suite, generator, latents, pose, backend, precision)
    compare_pictures(suite, pictures)


def time_generator_step(
    suite: Suite,
    generator: Generator,
    latents: list[Tensor],
    pose: Tensor,
    backend: str,
    precision: str,
) -> None:
    def step() -> None:
        generator.zero_grad(set_to_none=True)
        output = generator(*latents, pose, resolution=256)
        (output.image.square().mean() + output.semantics.square().mean()).backward()

    with use_backend(backend, precision):
        measure(suite, "generator forward and backward 256", f"{backend} {precision}", step)
    generator.zero_grad(set_to_none=True)


def compare_pictures(suite: Suite, pictures: dict[str, Any]) -> None:
    exact = pictures["reference fp32"]
    for name, output in pictures.items():
        error = (output.image - exact.image).square().mean().item()
        suite.add(
            kind="picture", variant=name,
            psnr=round(10 * math.log10(4 / error), 2) if error else None,
            changed_labels=(output.labels != exact.labels).double().mean().item(),
        )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**31))
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("gpu_suite: PyTorch finds no CUDA device on this machine", file=sys.stderr)
        return 2
    gpu_rays.build()
    for op, reason in available_backends()["triton"].items():
        if reason is not None:
            print(f"gpu_suite: the Triton backend of {op} cannot run: {reason}", file=sys.stderr)
            return 2
    torch.manual_seed(options.seed)
    suite = Suite(options.out, options.seed)
    with torch.device("cuda"):
        run_checks(suite)
        if suite.failures:
            print(f"gpu_suite: {suite.failures} checks failed; see {suite.path}", file=sys.stderr)
            return 1
        time_ops(suite)
    time_renders(suite, options.seed)
    print(f"gpu_suite: {suite.path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
