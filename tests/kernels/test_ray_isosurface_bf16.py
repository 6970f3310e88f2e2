"""ray_isosurface on the CPU in bf16: `accurate` and `fast`."""

import math

import pytest
import torch
from op_problems import FIELD_SETTINGS, field_levels, field_problem
from support import bf16_paths, needs_native, use_isa, use_threads
from test_ray_isosurface import SHAPES, Sizes
from torch import Tensor

from semfaceedit.kernels import FieldWeights, ray_isosurface

pytestmark = pytest.mark.usefixtures("one_thread")


def hits_in_bf16(sizes: Sizes, seed: int) -> tuple[float, float]:
    """Of `accurate` against fp32: the mean and the share of changed hits, in depth.

    The mean, in coarse steps, is of hits that are valid in both; changed are those of another
    validity or interval that moved by more than a thousandth of a step.
    """
    rays, hit_count, samples, width, layers = sizes
    problem = field_problem(rays, width, layers, torch.Generator().manual_seed(seed))
    weights = FieldWeights(*(problem[name] for name in FieldWeights._fields))
    found = [
        ray_isosurface(
            problem["origins"], problem["directions"], field_levels(hit_count), weights,
            samples=samples, **FIELD_SETTINGS, backend="cpu", precision=precision,
        )
        for precision in ("fp32", "accurate")
    ]  # fmt: skip
    step = (FIELD_SETTINGS["far"] - FIELD_SETTINGS["near"]) / (samples - 1)
    moved = (found[1].depths - found[0].depths).abs() / step
    both = found[0].valid & found[1].valid
    changed = (found[0].valid != found[1].valid) | (found[0].level != found[1].level)
    return float(moved[both & ~changed].mean()), float(changed.float().mean())


@needs_native
@pytest.mark.parametrize("isa", sorted({isa for isa, name in bf16_paths() if name == "accurate"}))
@pytest.mark.parametrize("name", SHAPES)
def test_split_bf16_does_not_move_hits(name: str, isa: str) -> None:
    with use_isa(isa):
        moved, changed = hits_in_bf16(SHAPES[name], seed=0)
    print(f"{name}: moved by {moved:.1e} of a step, {changed:.1%} changed")
    assert moved <= 1e-3 and changed <= 1e-2


@needs_native
@pytest.mark.parametrize("isa", sorted({isa for isa, _ in bf16_paths()}))
def test_lower_precisions_keep_every_rule_and_every_bit(isa: str) -> None:
    """NaN in a weight spreads as in fp32; the same bits for any number of threads; and the
    instructions without tiles run in fp32."""
    problem = field_problem(130, 33, 3, torch.Generator().manual_seed(3))
    names = FieldWeights._fields
    precision = "fast"

    def depths(values: dict[str, Tensor], precision: str) -> Tensor:
        return ray_isosurface(
            values["origins"], values["directions"], field_levels(9),
            FieldWeights(*(values[name] for name in names)), samples=32, **FIELD_SETTINGS,
            backend="cpu", precision=precision,
        ).depths  # fmt: skip

    broken = {key: tensor.clone() for key, tensor in problem.items()}
    broken["hidden_weight"].view(-1)[0] = math.nan
    with use_isa(isa):
        first = depths(problem, precision)
        with use_threads(3):
            assert torch.equal(depths(problem, precision), first)
        if isa == "avx512_bf16":
            assert torch.equal(depths(problem, "fp32"), first)
        expected = depths(broken, "fp32")
        assert torch.equal(depths(broken, precision).isfinite(), expected.isfinite())
