"""Problems for `film_siren` and how its backends are held against the reference."""

import functools
from collections.abc import Callable

import torch
from comparison import assert_matches, values_and_gradients
from op_problems import film_problem
from torch import Tensor

from semfaceedit.kernels import FilmSirenWeights, film_siren

Problem = tuple[dict[str, Tensor], Tensor, Tensor]  # differentiable inputs, offsets, groups
Sizes = tuple[int, int, int, int, int, int, int]

SEEDS = 16  # problems of a single point
SHAPES = {  # points, inputs, width, layers, rows, groups, channels
    "tiny": (1000, 3, 16, 3, 5, 1, 52),
    "small geometry": (1000, 3, 64, 3, 4, 1, 84),
    "small appearance": (1000, 64, 64, 2, 8, 4, 3),
    "one point": (1, 3, 64, 3, 1, 1, 84),
    "odd": (63, 5, 17, 4, 9, 3, 7),
    "narrow": (500, 3, 5, 2, 2, 1, 30),
    "no first product": (300, 0, 64, 2, 8, 4, 3),
    "odd, no first product": (163, 0, 37, 3, 9, 3, 7),
}
LARGE_SHAPES = {
    "paper": (200, 3, 256, 8, 2, 1, 276),
    "paper appearance": (200, 256, 256, 8, 4, 4, 3),
    "paper appearance, no first product": (200, 0, 256, 8, 4, 4, 3),
    "many rows": (20_000, 3, 64, 3, 64, 4, 84),
    "odd and deep": (977, 33, 129, 5, 7, 2, 41),
}


def problem(sizes: Sizes, *, seed: int = 0) -> Problem:
    """Random inputs and rows of uneven lengths."""
    count, *_, rows, groups, _ = sizes
    generator = torch.Generator().manual_seed(seed)
    cuts = torch.randint(0, count + 1, (rows - 1,), generator=generator).sort().values
    if rows > 2:
        cuts[1] = cuts[0]  # an empty row
    tensors = film_problem(*sizes, generator=generator)
    offsets = torch.cat([torch.tensor([0]), cuts, torch.tensor([count])])
    return tensors, offsets, torch.randint(0, groups, (rows,), generator=generator)


def call(
    offsets: Tensor,
    groups: Tensor,
    backend: str,
    trunk: int | None = None,
    precision: str = "fp32",
) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        weights = FilmSirenWeights(*(inputs[name] for name in FilmSirenWeights._fields))
        channels = weights.head_weight.shape[2]
        output = film_siren(
            inputs["points"],
            inputs["directions"],
            inputs["frequencies"],
            inputs["phases"],
            offsets,
            groups,
            weights,
            trunk_channels=channels // 4 if trunk is None else trunk,
            backend=backend,
            precision=precision,
        )
        return {"output": output}

    return function


@functools.cache
def expected(
    sizes: Sizes, dtype: torch.dtype, trunk: int | None, seed: int = 0
) -> dict[str, Tensor]:
    inputs, *rows = problem(sizes, seed=seed)
    return values_and_gradients(call(*rows, "reference", trunk), inputs, dtype)


def compare(sizes: Sizes, trunk: int | None = None) -> None:
    """The problem of a single point is drawn several times: the three errors of its gradient are
    too small a sample of rounding to compare two implementations by."""
    results = []
    for seed in range(1 if sizes[0] > 1 else SEEDS):
        inputs, *rows = problem(sizes, seed=seed)
        actual = values_and_gradients(call(*rows, "cpu", trunk), inputs, torch.float32)
        own = (expected(sizes, dtype, trunk, seed) for dtype in (torch.float64, torch.float32))
        results.append((actual, *own))
    names = results[0][0]
    assert_matches(*({n: torch.stack([r[n] for r in runs]) for n in names}
                     for runs in zip(*results, strict=True)))  # fmt: skip


def with_and_without_first_product(
    sizes: Sizes, precision: str, backend: str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Output and gradients where the first layer multiplies with the identity, and where not."""
    inputs, *rows = problem(sizes)
    names = [name for name in inputs if name != "first_weight"]
    function = call(*rows, backend, None, precision)
    multiplied = {**inputs, "first_weight": torch.eye(sizes[2])}
    one, other = (
        values_and_gradients(function, tensors, torch.float32, names)
        for tensors in (multiplied, inputs)
    )
    return one, other


def sine(arguments: Tensor, precision: str = "fp32") -> Tensor:
    """sin of (N,) numbers by the native code: as the phases of a layer with no other input."""
    size = len(arguments)
    phases = torch.stack([torch.zeros(size), arguments, torch.zeros(size)])[None]
    weights = FilmSirenWeights(
        first_weight=torch.zeros(size, 3),
        first_bias=torch.zeros(size),
        hidden_weight=torch.zeros(1, size, size),
        hidden_bias=torch.zeros(1, size),
        view_weight=torch.zeros(1, size, 3 + size),
        view_bias=torch.zeros(1, size),
        head_weight=torch.eye(size)[None, None],
        head_bias=torch.zeros(1, 1, size),
    )
    ends, group = torch.tensor([0, 1]), torch.tensor([0])
    output = film_siren(
        torch.zeros(1, 3), torch.zeros(1, 3), torch.ones_like(phases), phases, ends, group, weights,
        trunk_channels=size, backend="cpu", precision=precision,
    )  # fmt: skip
    return output[0]
