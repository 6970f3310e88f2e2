"""film_siren: eager (whole, in chunks, compiled, bf16 autocast) against the native code.

Every variant of a run is first held against float64 in that run, by the rule of its precision.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from baselines import baseline_film_siren
from comparison import limit, relative_error
from film_siren_cases import Sizes, call, problem
from film_siren_cases import compare as check
from support import needs_native
from test_film_siren_bf16 import ACCURATE, check_bf16
from torch import Tensor

from semfaceedit.kernels import FilmSirenWeights, _extension
from semfaceedit.kernels.film_siren_reference import film_siren_reference

Inputs = dict[str, Tensor]
Variant = Callable[[Inputs], Tensor]

# points, inputs, width, layers, rows, groups, channels; then the trunk's channels
SHAPES: dict[str, tuple[Sizes, int]] = {
    "small-geometry": ((16 * 9000, 3, 64, 3, 16, 1, 84), 1),
    "small-appearance": ((16 * 9000, 64, 64, 2, 16, 1, 3), 0),
    "paper-geometry": ((16384, 3, 256, 8, 1, 1, 276), 1),
    "paper-appearance": ((16384, 256, 256, 8, 4, 4, 3), 0),
}
LATENTS = ["frequencies", "phases"]
CHUNK = 4096
CHECKED = 512  # points whose outputs are held against float64


def even_rows(sizes: Sizes) -> tuple[Inputs, Tensor, Tensor]:
    inputs, _, groups = problem(sizes)
    return inputs, torch.linspace(0, sizes[0], sizes[4] + 1).long(), groups


def multiply_adds(sizes: Sizes, mode: str) -> int:
    """Forward; with gradients the layers once more, then backward, and for weights again."""
    count, inputs, width, layers, _, _, channels = sizes
    chain = width * (inputs + (layers - 1) * width + 3 + width)
    heads = width * (layers - 1) * channels  # which nothing needs a second time
    again, backward = {"forward": (0, 0), "full": (1, 2), "latents": (1, 1)}[mode]
    return count * ((1 + again + backward) * chain + (1 + backward) * heads)


def chunked(inputs: Inputs, offsets: Tensor, groups: Tensor, trunk: int) -> Tensor:
    weights = FilmSirenWeights(*(inputs[name] for name in FilmSirenWeights._fields))
    outputs = []
    for row, (start, stop) in enumerate(pairwise(offsets.tolist())):
        film = [inputs[name][row : row + 1] for name in LATENTS]
        for begin in range(start, stop, CHUNK):
            part = slice(begin, min(begin + CHUNK, stop))
            ends = torch.tensor([0, part.stop - begin])
            outputs.append(
                film_siren_reference(
                    inputs["points"][part], inputs["directions"][part], *film, ends,
                    groups[row : row + 1], weights, trunk_channels=trunk,
                )
            )  # fmt: skip
    return torch.cat(outputs)


@needs_native
@pytest.mark.parametrize("mode", ["forward", "full", "latents"])
@pytest.mark.parametrize("name", SHAPES)
def test_film_siren(name: str, mode: str, compare: Callable[..., None], benchmark: Any) -> None:
    measure(name, mode, compare, benchmark, compiled=False)


@needs_native
@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_film_siren_with_compile(name: str, compare: Callable[..., None], benchmark: Any) -> None:
    measure(name, "forward", compare, benchmark, compiled=True)


def measure(
    name: str, mode: str, compare: Callable[..., None], benchmark: Any, compiled: bool
) -> None:
    benchmark.group = f"film_siren-{name}-{mode}"
    sizes, trunk = SHAPES[name]
    inputs, offsets, groups = even_rows(sizes)
    variants, precisions = variants_of(offsets, groups, trunk, compiled)
    errors = check_outputs(variants, precisions, inputs, offsets, groups, trunk)
    benchmark.extra_info.update({f"{key}_error": error for key, error in errors.items()})
    if mode != "forward":
        check_gradients((200, *sizes[1:4], 2, *sizes[5:]), trunk, precisions)
    wanted = {"forward": [], "full": list(inputs), "latents": LATENTS}[mode]
    leaves = {key: value.requires_grad_(key in wanted) for key, value in inputs.items()}
    seed = torch.randn(sizes[0], sizes[6])

    def step(function: Variant) -> Callable[[], object]:
        def run() -> None:
            output = function(leaves)
            if wanted:
                torch.autograd.grad(output, [leaves[key] for key in wanted], seed)

        return run

    compare(
        {key: step(function) for key, function in variants.items()},
        2 * multiply_adds(sizes, mode),
        precisions,
    )


def variants_of(
    offsets: Tensor, groups: Tensor, trunk: int, compiled: bool
) -> tuple[dict[str, Variant], dict[str, str]]:
    """The variants, and the precisions of those that are not fp32."""

    def native(precision: str) -> Variant:
        function = call(offsets, groups, "cpu", trunk, precision)
        return lambda inputs: function(inputs)["output"]

    def autocast(inputs: Inputs) -> Tensor:
        tensors = list(inputs.values())
        return baseline_film_siren(
            *tensors[:4], offsets, groups, FilmSirenWeights(*tensors[4:]), trunk_channels=trunk,
            name="eager AMP",
        )  # fmt: skip

    eager = call(offsets, groups, "reference", trunk)
    variants: dict[str, Variant] = {
        "eager": lambda inputs: eager(inputs)["output"],
        "chunked": lambda inputs: chunked(inputs, offsets, groups, trunk),
        "autocast": autocast,
        "cpu": native("fp32"),
    }
    precisions = {"autocast": "bf16"}
    for precision in _extension.native().film_siren_precisions():
        if precision != "fp32":
            variants[f"cpu_{precision}"] = native(precision)
            precisions[f"cpu_{precision}"] = precision
    if compiled:
        function = torch.compile(chunked)
        variants["compiled"] = lambda inputs: function(inputs, offsets, groups, trunk)
    return variants, precisions


@torch.no_grad()
def check_outputs(
    variants: dict[str, Variant],
    precisions: dict[str, str],
    inputs: Inputs,
    offsets: Tensor,
    groups: Tensor,
    trunk: int,
) -> dict[str, float]:
    """Each variant's error, on the first row's first points; AssertionError if it is too large."""
    count = min(CHECKED, int(offsets[1]))
    first = {key: value.double() for key, value in inputs.items()}
    first |= {key: first[key][:count] for key in ("points", "directions")}
    first |= {key: first[key][:1] for key in LATENTS}
    exact = call(torch.tensor([0, count]), groups[:1], "reference", trunk)(first)["output"]
    errors = {
        name: relative_error(function(inputs)[:count], exact) for name, function in variants.items()
    }
    fp32 = limit(errors["eager"], torch.float32)
    most = {"accurate": ACCURATE, "fast": errors["autocast"], "bf16": 1.0}
    for name, error in errors.items():
        precision = precisions.get(name)
        assert error <= (fp32 if precision is None else most[precision]), f"{name}: {error:.2e}"
    return errors


def check_gradients(sizes: Sizes, trunk: int, precisions: dict[str, str]) -> None:
    """Each gradient of a smaller problem against float64, by the rule of its precision."""
    check(sizes, trunk)
    for precision in set(precisions.values()) - {"bf16"}:
        check_bf16(sizes, precision, trunk)
