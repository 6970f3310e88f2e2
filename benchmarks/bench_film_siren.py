"""film_siren: eager whole and in chunks (and compiled) against the native code."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from support import needs_native
from test_film_siren import Sizes, call, problem
from test_film_siren import compare as check
from torch import Tensor

from semfaceedit.kernels import FilmSirenWeights
from semfaceedit.kernels.film_siren_reference import film_siren_reference

# points, inputs, width, layers, rows, groups, channels; then the trunk's channels
SHAPES: dict[str, tuple[Sizes, int]] = {
    "small-geometry": ((16 * 9000, 3, 64, 3, 16, 1, 84), 20),
    "small-appearance": ((16 * 9000, 64, 64, 2, 16, 1, 3), 0),
    "paper-geometry": ((16384, 3, 256, 8, 1, 1, 276), 20),
}
LATENTS = ["frequencies", "phases"]
CHUNK = 4096


def even_rows(sizes: Sizes) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    inputs, _, groups = problem(sizes)
    return inputs, torch.linspace(0, sizes[0], sizes[4] + 1).long(), groups


def multiply_adds(sizes: Sizes) -> int:
    count, inputs, width, layers, _, _, channels = sizes
    per_point = width * (inputs + (layers - 1) * width + 3 + width + (layers - 1) * channels)
    return count * per_point


def chunked(inputs: dict[str, Tensor], offsets: Tensor, groups: Tensor, trunk: int) -> Tensor:
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
def test_film_siren(name: str, mode: str, compare: Callable[..., None], benchmark: object) -> None:
    measure(name, mode, compare, benchmark, compiled=False)


@needs_native
@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_film_siren_with_compile(
    name: str, compare: Callable[..., None], benchmark: object
) -> None:
    measure(name, "forward", compare, benchmark, compiled=True)


def measure(
    name: str, mode: str, compare: Callable[..., None], benchmark: object, compiled: bool
) -> None:
    benchmark.group = f"film_siren-{name}-{mode}"  # type: ignore[attr-defined]
    sizes, trunk = SHAPES[name]
    check((200, *sizes[1:4], 2, *sizes[5:]), trunk)
    inputs, offsets, groups = even_rows(sizes)
    wanted = {"forward": [], "full": list(inputs), "latents": LATENTS}[mode]
    leaves = {key: value.requires_grad_(key in wanted) for key, value in inputs.items()}
    seed = torch.randn(sizes[0], sizes[6])

    def step(function: Callable[[], Tensor]) -> Callable[[], object]:
        def run() -> None:
            output = function()
            if wanted:
                torch.autograd.grad(output, [leaves[key] for key in wanted], seed)

        return run

    compiled_chunks = torch.compile(chunked) if compiled else None
    variants = {
        "eager": step(lambda: call(offsets, groups, "reference", trunk)(leaves)["output"]),
        "chunked": step(lambda: chunked(leaves, offsets, groups, trunk)),
        "cpu": step(lambda: call(offsets, groups, "cpu", trunk)(leaves)["output"]),
    }
    if compiled_chunks is not None:
        variants["compiled"] = step(lambda: compiled_chunks(leaves, offsets, groups, trunk))
    products = {"forward": 1, "full": 4, "latents": 3}[mode]  # forward, again, and backward
    compare(variants, 2 * products * multiply_adds(sizes))
