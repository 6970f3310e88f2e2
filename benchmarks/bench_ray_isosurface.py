"""ray_isosurface: plain PyTorch against the native code."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import needs_native
from test_ray_isosurface import Sizes, call, problem
from test_ray_isosurface import compare as check

from semfaceedit.kernels import FieldWeights

SHAPES: dict[str, Sizes] = {  # rays, hits, samples, width, layers
    "small": (16 * 32 * 32, 9, 32, 64, 3),
    "paper": (64 * 64, 24, 64, 128, 3),
}


@needs_native
@pytest.mark.parametrize("mode", ["forward", "full"])
@pytest.mark.parametrize("name", SHAPES)
def test_ray_isosurface(name: str, mode: str, compare: Callable[..., None], benchmark: Any) -> None:
    benchmark.group = f"ray_isosurface-{name}-{mode}"
    sizes = SHAPES[name]
    check((200, *sizes[1:]))
    inputs = problem(sizes)
    wanted = list(FieldWeights._fields) if mode == "full" else []
    leaves = {key: value.requires_grad_(key in wanted) for key, value in inputs.items()}
    seed = torch.randn(sizes[0], sizes[1])

    def step(backend: str) -> Callable[[], object]:
        def run() -> None:
            depths = call(sizes, backend)(leaves)["depths"]
            if wanted:
                torch.autograd.grad(depths, [leaves[key] for key in wanted], seed)

        return run

    rays, _, samples, width, layers = sizes
    work = 2 * rays * samples * width * (3 + (layers - 1) * width + 1)
    compare({"eager": step("reference"), "cpu": step("cpu")}, work if mode == "forward" else None)
