"""semantic_composite: plain PyTorch against the native code."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparison import values_and_gradients
from support import needs_native
from test_semantic_composite import color, problem, semantic

SHAPES = {"small": (16 * 32 * 32, 9), "paper": (64 * 64, 24)}  # rays, hits


@needs_native
@pytest.mark.parametrize("mode", ["forward", "full"])
@pytest.mark.parametrize("op, channels", [(semantic, 19), (color, 3)])
@pytest.mark.parametrize("name", SHAPES)
def test_semantic_composite(
    name: str,
    op: Callable[[str], Callable],
    channels: int,
    mode: str,
    compare: Callable[..., None],
    benchmark: Any,
) -> None:
    benchmark.group = f"{op.__name__}-{name}-{mode}"
    inputs = problem((*SHAPES[name], channels))
    if op is semantic:
        del inputs["depths"]
    wanted = list(inputs) if mode == "full" else []

    def step(backend: str) -> Callable[[], dict[str, torch.Tensor]]:
        return lambda: values_and_gradients(op(backend), inputs, torch.float32, wanted)

    eager, native = step("reference")(), step("cpu")()
    for key in eager:
        if key != "labels":
            torch.testing.assert_close(native[key], eager[key])
    compare({"eager": step("reference"), "cpu": step("cpu")})
