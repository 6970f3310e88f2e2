"""ray_isosurface: plain PyTorch against the native code."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support import needs_native, use_isa
from test_ray_isosurface import Sizes, call, problem
from test_ray_isosurface import compare as check
from test_ray_isosurface_bf16 import hits_in_bf16

from semfaceedit.kernels import FieldWeights, _extension, use_backend

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

    def step(backend: str, precision: str = "fp32") -> Callable[[], object]:
        def run() -> None:
            with use_backend(precision=precision):
                depths = call(sizes, backend)(leaves)["depths"]
            if wanted:
                torch.autograd.grad(depths, [leaves[key] for key in wanted], seed)

        return run

    rays, _, samples, width, layers = sizes
    work = 2 * rays * samples * width * (3 + (layers - 1) * width + 1)
    variants, precisions = {"eager": step("reference"), "cpu": step("cpu")}, {}
    if "accurate" in _extension.native().film_siren_precisions():
        variants["cpu_accurate"] = step("cpu", "accurate")
        precisions["cpu_accurate"] = "accurate"
    compare(variants, work if mode == "forward" else None, precisions)


@needs_native
def test_hits_at_accurate(record: dict[str, Any], benchmark: Any) -> None:
    """How far hits of `paper` move from those of fp32, in coarse steps, and how many change their
    level or whether they are valid: 65,536 rays on AMX, 4,096 on its software model."""
    benchmark.group = "hits-paper-accurate"
    on_unit = "amx" in _extension.native().isas()
    sizes = (65536 if on_unit else 4096, *SHAPES["paper"][1:])
    with use_isa("amx" if on_unit else "amx_model"):
        moved, changed = benchmark.pedantic(lambda: hits_in_bf16(sizes, seed=0), rounds=1)
    count = sizes[0] * sizes[1]
    record.update(mean_step=moved, crossings=count, changed_hits=round(changed * count))
    print("", record)
    assert 0 < moved <= 1e-3 and changed <= 1e-3
