"""ray_isosurface: any layout of memory, each gradient alone, and arguments that do not fit."""

import pytest
import torch
from comparison import assert_identical, values_and_gradients
from op_problems import FIELD_SETTINGS
from support import needs_native
from test_ray_isosurface import SHAPES, call, look, problem, ramp
from torch import Tensor

from semfaceedit.kernels import FieldWeights, ray_isosurface

pytestmark = pytest.mark.usefixtures("one_thread")


@needs_native
def test_no_rays() -> None:
    sizes = (0, 4, 8, 6, 2)
    result = values_and_gradients(call(sizes, "cpu"), problem(sizes), torch.float32)
    assert result["points"].shape == (0, 4, 3) and result["plane_index"].shape == (0,)
    assert not any(result[f"d {name}"].any() for name in FieldWeights._fields)


@needs_native
def test_each_gradient_alone_is_the_same() -> None:
    sizes = SHAPES["odd"]
    every = values_and_gradients(call(sizes, "cpu"), problem(sizes), torch.float32)
    for name in problem(sizes):
        alone = values_and_gradients(call(sizes, "cpu"), problem(sizes), torch.float32, [name])
        assert_identical({name: alone[f"d {name}"]}, {name: every[f"d {name}"]})


@needs_native
def test_strided_inputs() -> None:
    sizes = SHAPES["odd"]
    inputs = problem(sizes)
    strided = {**inputs, "origins": inputs["origins"].mT.contiguous().mT,
               "hidden_weight": inputs["hidden_weight"].mT.contiguous().mT}  # fmt: skip
    plain, other = call(sizes, "cpu")(inputs), call(sizes, "cpu")(strided)
    assert_identical({"depths": plain["depths"]}, {"depths": other["depths"]})


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="samples >= 2"):
        look(ramp(1, 0), [0.5], backend="reference", samples=1)
    with pytest.raises(ValueError, match="near < far"):
        look(ramp(1, 0), [0.5], backend="reference", near=2.0)
    levels = torch.tensor([0.5], requires_grad=True)
    with pytest.raises(ValueError, match="levels are constants"):
        ray_isosurface(
            torch.zeros(1, 3), torch.ones(1, 3), levels, ramp(1, 0), samples=8, **FIELD_SETTINGS
        )


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"origins": torch.zeros(3)}, r"origins has shape \(3,\)"),
        ({"origins": torch.tensor(0.0)}, r"origins has shape \(\)"),
        ({"directions": torch.zeros(4, 3)}, r"directions has shape \(4, 3\), expected \(5, 3\)"),
        ({"directions": torch.zeros(5, 3).double()}, "directions is torch.float64"),
        ({"last_bias": torch.zeros(1, device="meta")}, "last_bias is on meta"),
        ({"hidden_weight": torch.zeros(1, 6, 7)}, "hidden_weight has shape"),
        ({"first_weight": torch.zeros(18)}, "first_weight has shape"),
    ],
)
def test_arguments_that_do_not_fit(changed: dict[str, Tensor], message: str) -> None:
    sizes = (5, 4, 8, 6, 2)
    with pytest.raises(ValueError, match=message):
        call(sizes, "auto")({**problem(sizes), **changed})


@needs_native
def test_overlapping_memory() -> None:
    sizes = (9, 4, 8, 6, 2)
    inputs = problem(sizes)
    overlapping = {**inputs, "origins": inputs["origins"][:1].expand(9, 3)}
    copies = {**inputs, "origins": overlapping["origins"].clone()}
    wanted = values_and_gradients(call(sizes, "cpu"), copies, torch.float32)
    result = values_and_gradients(call(sizes, "cpu"), overlapping, torch.float32)
    floats = {name: value for name, value in wanted.items() if value.is_floating_point()}
    assert_identical(floats, result)
