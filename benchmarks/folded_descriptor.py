"""What it saves to fold the Appearance Module's first weight into the heads of the descriptor.

    python benchmarks/folded_descriptor.py [--presets paper small] [--precisions fp32 accurate fast]
        [--resolution N] [--repeats N]

CPU seconds of both stacks of a render with every point met, one thread: folded, and with
descriptors made and then multiplied, in turns; what is saved is the median over pairs. Without
gradients, the two stages of the render; with all gradients, the whole of forward and backward
pass, whose rays are given. In the same run a small picture and gradients are held against the
reference in float64 by the rule of the tests.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from baselines import descriptors_apart  # noqa: E402
from comparison import assert_matches, relative_error  # noqa: E402

from semfaceedit.kernels import Intersections, use_backend  # noqa: E402
from semfaceedit.machine import cpu_name  # noqa: E402
from semfaceedit.model import config  # noqa: E402
from semfaceedit.model.codes import Codes  # noqa: E402
from semfaceedit.model.generator import Generator, sample_latents  # noqa: E402
from semfaceedit.model.renderer import find_intersections, render, stage_clock  # noqa: E402

Timed = Callable[[Generator, Codes, Intersections, int], float]

CHECKED_SIDE = 8  # rays along an edge of the picture that is held against float64


def all_hits(generator: Generator, side: int) -> Intersections:
    met = find_intersections(generator, torch.zeros(1, 2), side)
    return met._replace(valid=torch.ones_like(met.valid))


def seconds_of_stacks(generator: Generator, codes: Codes, hits: Intersections, side: int) -> float:
    """CPU seconds of the stages `geometry` and `appearance`."""
    spent = 0.0

    @contextmanager
    def clock(stage: str) -> Iterator[None]:
        nonlocal spent
        start = time.process_time()
        yield
        if stage in ("geometry", "appearance"):
            spent += time.process_time() - start

    with torch.no_grad(), stage_clock(clock):
        render(generator, codes, torch.zeros(1, 2), side, intersections=hits)
    return spent


def seconds_of_step(generator: Generator, codes: Codes, hits: Intersections, side: int) -> float:
    """CPU seconds of the forward and backward pass of a render, all gradients."""
    generator.zero_grad()
    start = time.process_time()
    render(generator, codes, torch.zeros(1, 2), side, intersections=hits).image.sum().backward()
    return time.process_time() - start


def check(generator: Generator, latents: tuple[Tensor, Tensor], precision: str) -> str:
    """Picture and gradients of W_1 and of the heads, both ways; the errors of the picture."""
    hits = all_hits(generator, CHECKED_SIDE)

    def found(way: AbstractContextManager, *, double: bool) -> dict[str, Tensor]:
        model = generator.double() if double else generator.float()
        dtype = torch.float64 if double else torch.float32
        met = Intersections(*(t.to(dtype) if t.is_floating_point() else t for t in hits))
        backend = ("reference", "fp32") if double else ("cpu", precision)
        wanted = {
            "d first_weight": model.appearance.stacks[0].first_weight,
            "d head_weight": model.geometry.stack.head_weight,
        }
        with way, use_backend(*backend):
            codes = model.map(*(z.to(dtype) for z in latents))
            pose = torch.zeros(1, 2, dtype=dtype)
            image = render(model, codes, pose, CHECKED_SIDE, intersections=met).image
            grads = torch.autograd.grad(image.square().sum(), list(wanted.values()))
        return {"image": image.detach(), **dict(zip(wanted, grads, strict=True))}

    exact = found(descriptors_apart(), double=True)
    folded = found(nullcontext(), double=False)
    apart = found(descriptors_apart(), double=False)
    assert_matches(folded, exact, apart)
    errors = (relative_error(way["image"], exact["image"]) for way in (folded, apart))
    return "{:.1e} | {:.1e}".format(*errors)


def pairs_of_seconds(
    generator: Generator, latents: tuple[Tensor, Tensor], timed: Timed, precision: str, options: Any
) -> list[tuple[float, float]]:
    """Folded and apart, in turns: each is as often the first."""
    hits = all_hits(generator, options.resolution)

    def seconds(way: AbstractContextManager) -> float:
        with way, use_backend("cpu", precision):
            return timed(generator, generator.map(*latents), hits, options.resolution)

    pairs = []
    for turn in range(options.repeats + 1):
        first = seconds(descriptors_apart()) if turn % 2 else None
        folded = seconds(nullcontext())
        pairs.append((folded, seconds(descriptors_apart()) if first is None else first))
    return pairs[1:]  # the first warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=["paper", "small"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "accurate", "fast"])
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{cpu_name()}; median CPU s of {options.repeats}, one thread")
    print("| preset, precision | pass | folded | apart | saved | error folded | error apart |")
    print("|---|---|---|---|---|---|---|")
    for preset in options.presets:
        torch.manual_seed(0)
        generator = Generator(config.preset(preset).model)
        latents = sample_latents(generator.config, 1)
        for precision in options.precisions:
            errors = check(generator, latents, precision)
            for name, timed in (("forward", seconds_of_stacks), ("gradients", seconds_of_step)):
                pairs = pairs_of_seconds(generator, latents, timed, precision, options)
                folded, apart = (statistics.median(way) for way in zip(*pairs, strict=True))
                saved = 100 * statistics.median(1 - a / b for a, b in pairs)
                print(
                    f"| `{preset}`, {precision} | {name} | {folded:.3f} | {apart:.3f} | "
                    f"{saved:.1f} % | {errors} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
