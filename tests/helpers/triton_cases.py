"""The Triton kernels on CPU tensors in Triton's interpreter; run by `test_triton_interpreter.py`.

The interpreter must be chosen before Triton is first imported, hence the process of its own.
"""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from comparison import assert_identical, assert_matches, values_and_gradients
from film_siren_cases import Problem, problem
from op_problems import FIELD_SETTINGS, composite_problem, field_levels, field_problem
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from semfaceedit.kernels import (
    FieldWeights,
    FilmSirenWeights,
    Intersections,
    film_siren,
    film_siren_triton,
    ray_isosurface,
    ray_isosurface_triton,
)
from semfaceedit.kernels.film_siren import FilmSirenFunction
from semfaceedit.kernels.film_siren_reference import FilmSirenGradients, call_of
from semfaceedit.kernels.ray_isosurface import RayIsosurfaceFunction
from semfaceedit.kernels.ray_isosurface_reference import FieldSettings
from semfaceedit.kernels.semantic_composite import (
    ColorCompositeFunction,
    SemanticCompositeFunction,
    color_composite,
    semantic_composite,
)

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("run through test_triton_interpreter.py", allow_module_level=True)

import triton.language as tl  # noqa: E402
from triton.runtime import interpreter  # noqa: E402

Function = Callable[[dict[str, Tensor]], dict[str, Tensor]]

_patch_lang_tensor = interpreter._patch_lang_tensor


def _patch_with_index(tensor: Any, scope: Any) -> None:
    """Triton 3.6 asks for int(array of size 1), which NumPy 2.4 refuses: no loop to a variable."""
    _patch_lang_tensor(tensor, scope)
    scope.set_attr(tensor, "__index__", lambda self: self.handle.data.item())


class _Languages:
    """What kernels and the functions of Triton's library see."""

    __globals__ = {"tl": tl, "core": tl.core}


def _call(self: Any, *arguments: Any, **named: Any) -> Any:
    return self.rewrite()(*arguments, **named)


# Triton patches its language for a kernel, and again in each call within: once is enough, and a
# fifth of the time.
_patch_lang = interpreter._patch_lang
interpreter._patch_lang = lambda kernel: _patch_lang(_Languages)
interpreter.InterpretedFunction.__call__ = _call
interpreter._patch_lang_tensor = _patch_with_index


@pytest.fixture(autouse=True)
def _integers_are_not_checked(request: pytest.FixtureRequest) -> Iterator[None]:
    """A third of the time goes into checks of integers for overflow: in the slow cases alone."""
    builder = interpreter.interpreter_builder
    before = builder.options
    checked = request.node.get_closest_marker("slow") is not None
    builder.options = dataclasses.replace(before, sanitize_overflow=checked)
    yield
    builder.options = before


COMPOSITES = [(37, 1, 1), (5, 24, 19), (9, 5, 3), (3, 5, 84), (0, 4, 5)]


def semantic(backend: str) -> Function:
    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        alpha, values = inputs["alpha"], inputs["values"]
        if backend == "triton":
            labels, mixed = SemanticCompositeFunction.apply(alpha, values, backend)
        else:
            labels, mixed = semantic_composite(alpha, values, backend=backend)
        return {"labels": labels, "map": mixed}

    return function


def color(backend: str) -> Function:
    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        arguments = inputs["alpha"], inputs["values"], inputs["depths"]
        if backend == "triton":
            outputs = ColorCompositeFunction.apply(*arguments, backend)
        else:
            outputs = color_composite(*arguments, backend=backend)
        return dict(zip(("color", "depth", "weights"), outputs, strict=True))

    return function


@pytest.mark.gradients
@pytest.mark.parametrize("sizes", COMPOSITES, ids=str)
@pytest.mark.parametrize("op", [semantic, color])
def test_composite(op: Callable[[str], Function], sizes: tuple[int, int, int]) -> None:
    inputs = composite_problem(*sizes)
    if op is semantic:
        del inputs["depths"]
    run = functools.partial(values_and_gradients, inputs=inputs)
    exact = run(op("reference"), dtype=torch.float64)
    plain = run(op("reference"), dtype=torch.float32)
    actual = run(op("triton"), dtype=torch.float32)
    if op is semantic:
        assert torch.equal(actual["labels"], plain["labels"])
        del exact["labels"]
    assert_matches(actual, exact, plain)


@pytest.mark.parametrize("op", [semantic, color])
def test_composite_each_gradient_alone_and_strides(op: Callable[[str], Function]) -> None:
    inputs = composite_problem(6, 5, 7)
    if op is semantic:
        del inputs["depths"]
    every = values_and_gradients(op("triton"), inputs, torch.float32)
    every.pop("labels", None)
    for name in inputs:
        alone = values_and_gradients(op("triton"), inputs, torch.float32, [name])
        assert_identical({name: alone[f"d {name}"]}, {name: every[f"d {name}"]})
    strided = {name: tensor.mT.contiguous().mT for name, tensor in inputs.items()}
    assert_identical(every, values_and_gradients(op("triton"), strided, torch.float32))


def test_ties_go_to_the_lower_class_and_alpha_0_to_what_is_behind() -> None:
    values = torch.zeros(1, 2, 40)
    values[0, :, [7, 20, 39]] = 1.0
    labels, _ = SemanticCompositeFunction.apply(torch.full((1, 2), 0.5), values, "triton")
    assert labels.tolist() == [[7, 7]]
    alpha = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    labels, _ = SemanticCompositeFunction.apply(alpha, torch.eye(5)[None], "triton")
    assert labels.tolist() == [[1, 1, 3, 3, 0]]
    negative = -torch.ones(1, 2, 19)
    labels, _ = SemanticCompositeFunction.apply(torch.full((1, 2), 0.5), negative, "triton")
    assert labels.tolist() == [[0, 0]]


def test_composite_registered_ops() -> None:
    alpha, values, depths = composite_problem(5, 3, 4).values()
    color("triton")({"alpha": alpha, "values": values, "depths": depths})
    ops = torch.ops.semfaceedit
    grad = torch.randn(5, 4)
    per_ray = depths[:, 0].clone()
    tensors = [grad, per_ray, depths, alpha, values, depths, per_ray]
    for op, arguments in (
        (ops.semantic_forward_triton, (alpha, values)),
        (ops.semantic_backward_triton, (grad, alpha, values, [True, False])),
        (ops.color_forward_triton, (alpha, values, depths)),
        (ops.color_backward_triton, (tensors, [True, True, False])),
    ):
        torch.library.opcheck(op.default, arguments)


# Rays, surfaces and the plane, samples, width, layers
FIELDS = {
    "two blocks": (9, 5, 16, 32, 3),
    "odd": (13, 24, 33, 17, 2),
    "one layer": (37, 4, 5, 16, 1),
    "only the plane": (3, 1, 5, 8, 2),
    "more surfaces than samples": (19, 20, 16, 16, 2),
}
SLOW_FIELDS = {"paper": (9, 24, 64, 128, 3)}


def field_inputs(sizes: tuple[int, ...]) -> dict[str, Tensor]:
    rays, _, _, width, layers = sizes
    return field_problem(rays, width, layers)


def intersect(
    sizes: tuple[int, ...], backend: str, plane_z: float = -0.12, precision: str = "fp32"
) -> Function:
    _, hit_count, samples, _, _ = sizes
    settings = FieldSettings(**{**FIELD_SETTINGS, "samples": samples, "plane_z": plane_z})

    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        levels = field_levels(hit_count, inputs["origins"].dtype)
        rays = inputs["origins"], inputs["directions"], levels
        weights = FieldWeights(*(inputs[name] for name in FieldWeights._fields))
        if backend == "triton":
            result = RayIsosurfaceFunction.apply(settings, backend, precision, *rays, *weights)
        else:
            result = ray_isosurface(*rays, weights, **settings._asdict(), backend=backend)
        return dict(zip(Intersections._fields, result, strict=True))

    return function


def compare_field(
    sizes: tuple[int, ...], inputs: dict[str, Tensor], plane_z: float = -0.12
) -> dict[str, Tensor]:
    exact = values_and_gradients(intersect(sizes, "reference", plane_z), inputs, torch.float64)
    plain = values_and_gradients(intersect(sizes, "reference", plane_z), inputs, torch.float32)
    actual = values_and_gradients(intersect(sizes, "triton", plane_z), inputs, torch.float32)
    for name in ("valid", "level", "plane_index"):
        assert torch.equal(actual[name], exact.pop(name)), name
    assert_matches(actual, exact, plain)
    return actual


@pytest.mark.gradients
@pytest.mark.parametrize("name", FIELDS)
def test_field(name: str) -> None:
    result = compare_field(FIELDS[name], field_inputs(FIELDS[name]))
    assert FIELDS[name][1] == 1 or 0.05 < result["valid"][:, :-1].double().mean() < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW_FIELDS)
def test_field_at_larger_sizes(name: str) -> None:
    compare_field(SLOW_FIELDS[name], field_inputs(SLOW_FIELDS[name]))


@pytest.mark.parametrize("architecture", [80, 89, 90])
@pytest.mark.parametrize("sizes", [(5, 6, 40, 17, 3), (3, 4, 300, 17, 2)], ids=["rays", "samples"])
def test_field_in_the_tiles_of_a_gpu(
    sizes: tuple[int, ...], architecture: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights kept or not, ragged tiles; rays of too many samples for registers on 80 and 89."""
    monkeypatch.setattr(ray_isosurface_triton, "capability", lambda tensor: architecture)
    compare_field(sizes, field_inputs(sizes))


def test_field_of_weights_beyond_the_range_of_fp16() -> None:
    """Powers of two bring all operands into it: large and small layers, large coordinates."""
    sizes = (13, 7, 20, 17, 3)
    inputs = field_inputs(sizes)
    large = torch.tensor([2.0**20, 2.0**-30])[:, None, None]
    for first, hidden, last in ((2.0**14, large, 2.0**-4), (2.0**-24, 1 / large, 2.0**14)):
        scaled = {
            "first_weight": first * inputs["first_weight"],
            "first_bias": first * inputs["first_bias"],
            "hidden_weight": hidden * inputs["hidden_weight"],
            "hidden_bias": first * hidden.cumprod(0)[:, 0] * inputs["hidden_bias"],
            "last_weight": last * inputs["last_weight"],
        }
        compare_field(sizes, {**inputs, **scaled})


def test_field_of_points_of_very_different_size() -> None:
    """Each point has a power of two of its own: a large neighbour costs a small one nothing."""
    sizes = (9, 5, 16, 16, 3)
    inputs = field_inputs(sizes)
    alone = intersect(sizes, "triton")(inputs)
    far = inputs["origins"].clone()
    far[1::2] *= 2.0**40
    beside = intersect(sizes, "triton")({**inputs, "origins": far})
    for name in ("depths", "points", "level"):
        assert torch.equal(beside[name][::2], alone[name][::2]), name


def test_field_in_one_product_loses_what_tf32_loses() -> None:
    sizes = (13, 7, 20, 17, 3)
    inputs = field_inputs(sizes)
    exact = intersect(sizes, "reference")({name: x.double() for name, x in inputs.items()})
    error = {}
    for precision in ("fp32", "tf32"):
        hits = intersect(sizes, "triton", precision=precision)(inputs)
        same = hits["valid"] & exact["valid"] & (hits["level"] == exact["level"])
        error[precision] = (hits["depths"] - exact["depths"])[same].abs().max()
    assert 20 * error["fp32"] < error["tf32"] < 2.0**-10


def test_field_missed_by_all_rays_and_plane_among_the_surfaces() -> None:
    sizes = FIELDS["one layer"]
    inputs = field_inputs(sizes)
    result = compare_field(sizes, {**inputs, "last_bias": torch.tensor([-500.0])})
    assert result["valid"].sum() == sizes[0]
    result = compare_field(sizes, inputs, plane_z=0.02)
    assert (result["plane_index"] < sizes[1] - 1).any()
    away = {**inputs, "directions": inputs["directions"] * torch.tensor([1.0, 1.0, -1.0])}
    compare_field(sizes, away)


def test_field_each_gradient_alone_and_no_rays() -> None:
    sizes = (5, 5, 16, 32, 2)
    inputs = field_inputs(sizes)
    every = values_and_gradients(intersect(sizes, "triton"), inputs, torch.float32)
    for name in ("origins", "directions", "hidden_weight", "last_bias"):
        alone = values_and_gradients(intersect(sizes, "triton"), inputs, torch.float32, [name])
        assert_identical({name: alone[f"d {name}"]}, {name: every[f"d {name}"]})
    nothing = {**inputs, "origins": torch.zeros(0, 3), "directions": torch.zeros(0, 3)}
    result = values_and_gradients(intersect(sizes, "triton"), nothing, torch.float32)
    assert result["points"].shape == (0, 5, 3)
    assert not any(result[f"d {name}"].any() for name in FieldWeights._fields)


def test_field_ties_go_by_level_and_flat_fields_are_not_interpolated() -> None:
    """s = 10 relu(z) or 0.4 relu(z) along a ray that looks down the z axis from 1."""
    for slope, levels, depths in ((10.0, [5.0, 5.0], [0.5] * 3), (0.4, [0.3], [0.3, 0.5])):
        weights = (
            torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1), torch.zeros(0, 1, 1),
            torch.zeros(0, 1), torch.tensor([[slope]], requires_grad=True), torch.zeros(1),
        )  # fmt: skip
        settings = FieldSettings((0, 0, 0), 1.0, 0.0, 1.0, 11, 0.5)
        result = RayIsosurfaceFunction.apply(
            settings, "triton", "fp32", torch.tensor([[0.0, 0.0, 1.0]]),
            torch.tensor([[0.0, 0.0, -1.0]]), torch.tensor(levels), *weights,
        )  # fmt: skip
        hits = Intersections(*result)
        assert hits.depths[0].tolist() == pytest.approx(depths, abs=1e-6)
        assert hits.level.tolist() == [list(range(len(depths)))]
        hits.depths.sum().backward()
        gradient = weights[4].grad
        assert gradient is not None and bool(gradient.any()) == (slope == 10.0)


def test_field_registered_ops() -> None:
    sizes = (3, 4, 5, 16, 1)
    tensors = list(field_inputs(sizes).values())
    inputs = [*tensors[:2], torch.linspace(20, 2, 3), torch.linspace(0.88, 1.12, 8), *tensors[2:]]
    numbers = [0.0, 0.0, -1.5, 8.0, 1.12, -0.12]
    intersect(sizes, "triton")(field_inputs(sizes))
    ops = torch.ops.semfaceedit
    arguments: tuple[Any, ...] = (inputs, numbers, "fp32")
    torch.library.opcheck(ops.ray_isosurface_forward_triton.default, arguments)
    _, depths, valid, level, _, interval = ops.ray_isosurface_forward_triton(*arguments)
    grads = [torch.randn(3, 4, 3), torch.randn(3, 4)]
    arguments = ([*grads, depths, level, valid, interval], *arguments, [True, False] * 4)
    torch.library.opcheck(ops.ray_isosurface_backward_triton.default, arguments)


# Points, inputs (0: no first product), width, layers, FiLM rows, groups, channels, trunk channels
STACKS = {
    "one point": (1, 3, 16, 2, 1, 1, 3, 0),
    "geometry": (37, 3, 32, 3, 4, 1, 24, 1),
    "wide blocks of channels": (19, 3, 16, 2, 2, 1, 69, 17),
    "appearance": (37, 32, 32, 2, 5, 3, 3, 0),
    "odd": (23, 5, 17, 4, 5, 2, 21, 18),
    "two inputs, all channels from the trunk": (19, 2, 16, 3, 2, 1, 5, 5),
    "no first product": (37, 0, 32, 2, 5, 3, 3, 0),
    "odd, no first product": (23, 0, 17, 4, 5, 2, 21, 18),
    "three wide, no first product": (19, 0, 3, 2, 2, 1, 5, 2),
}
SLOW_STACKS = {
    "small": (300, 3, 64, 3, 3, 1, 84, 1),
    "wide": (33, 3, 256, 3, 2, 1, 276, 1),
    "several chunks": (700, 16, 16, 3, 5, 3, 3, 0),
    "several chunks, no first product": (700, 0, 16, 3, 5, 3, 3, 0),
}


def stack_problem(sizes: tuple[int, ...]) -> Problem:
    count, inputs, width, layers, rows, groups, channels, _ = sizes
    return problem((count, inputs, width, layers, rows, groups, channels))


def stack(parts: Problem, trunk: int, backend: str, precision: str = "fp32") -> Function:
    _, offsets, groups = parts

    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        tensors = list(inputs.values())
        leading, weights = (*tensors[:4], offsets, groups), FilmSirenWeights(*tensors[4:])
        if backend == "triton":
            return {
                "output": FilmSirenFunction.apply(trunk, backend, precision, *leading, *weights)
            }
        output = film_siren(
            *leading, weights, trunk_channels=trunk, backend=backend, precision=precision
        )
        return {"output": output}

    return function


def compare_stack(sizes: tuple[int, ...], precision: str) -> None:
    parts = stack_problem(sizes)
    run = functools.partial(values_and_gradients, inputs=parts[0])
    exact = run(stack(parts, sizes[-1], "reference"), dtype=torch.float64)
    rounded = "fp16" if precision == "fp16" else "fp32"  # the interpreter does not round to tf32
    plain = run(stack(parts, sizes[-1], "reference", rounded), dtype=torch.float32)
    actual = run(stack(parts, sizes[-1], "triton", precision), dtype=torch.float32)
    assert_matches(actual, exact, plain)


@pytest.mark.gradients
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", STACKS)
def test_stack(name: str, precision: str) -> None:
    compare_stack(STACKS[name], precision)


# Tiles of 64 and 128 rows: full, begun and empty; and all of them used, so that what is written
# behind the last one shows
GPU_STACKS = {
    "geometry": (200, 3, 64, 2, 3, 1, 52, 1),
    "colours": (60, 20, 64, 2, 2, 2, 3, 0),
    "colours, no first product": (60, 0, 64, 2, 2, 2, 3, 0),
    "17 channels": (50, 3, 32, 2, 2, 1, 17, 1),
    "heads in one pass": (40, 3, 16, 2, 1, 1, 300, 1),
}


@pytest.mark.parametrize(
    ("precision", "architecture"),  # only fp16 has tiles of each architecture's own
    [("fp32", 90), ("tf32", 90), ("fp16", 80), ("fp16", 89), ("fp16", 90)],
)
@pytest.mark.parametrize("name", GPU_STACKS)
def test_stack_in_the_tiles_of_a_gpu(
    name: str, precision: str, architecture: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sizes of tiles that a GPU gets: here what they read and write, not how fast."""
    monkeypatch.setattr(film_siren_triton, "capability", lambda points: architecture)
    compare_stack(GPU_STACKS[name], precision)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", SLOW_STACKS)
def test_stack_at_larger_sizes(name: str, precision: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(film_siren_triton, "CHUNK_TILES", 16)
    compare_stack(SLOW_STACKS[name], precision)


@pytest.mark.parametrize("first_inputs", [5, 0])
def test_stack_each_gradient_alone(first_inputs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = (9, first_inputs, 16, 2, 2, 2, 5, 2)
    parts = stack_problem(sizes)
    inputs = parts[0]
    function = stack(parts, sizes[-1], "triton")
    every = values_and_gradients(function, inputs, torch.float32)
    for name in inputs:
        alone = values_and_gradients(function, inputs, torch.float32, [name])
        assert_identical({name: alone[f"d {name}"]}, {name: every[f"d {name}"]})
    monkeypatch.setattr(film_siren_triton, "CHUNK_TILES", 2)
    assert_matches(
        values_and_gradients(function, inputs, torch.float32),
        {name: value.double() for name, value in every.items()},
        every,
    )


def test_stack_trunk_never_sees_the_direction() -> None:
    sizes = STACKS["geometry"]
    parts = stack_problem(sizes)
    inputs = parts[0]
    function = stack(parts, 7, "triton")
    turned = {**inputs, "directions": torch.full_like(inputs["directions"], float("nan"))}
    first, second = function(inputs)["output"], function(turned)["output"]
    assert torch.equal(first[:, :7], second[:, :7])
    assert second[:, 7:].isnan().all()


def test_stack_without_a_first_product_reads_each_point_alone() -> None:
    """At a width that zeros fill up: what lies behind a point is the next one."""
    sizes = STACKS["odd, no first product"]
    parts = stack_problem(sizes)
    inputs = {**parts[0], "points": parts[0]["points"].clone()}
    inputs["points"][7] = float("nan")
    output = stack(parts, sizes[-1], "triton")(inputs)["output"]
    assert output.isnan().any(1).nonzero().flatten().tolist() == [7]


def test_stack_of_no_points() -> None:
    inputs, _, groups = stack_problem(STACKS["appearance"])
    inputs = {**inputs, "points": torch.zeros(0, 32), "directions": torch.zeros(0, 3)}
    parts = inputs, torch.zeros(6, dtype=torch.int64), groups
    function = stack(parts, 0, "triton", "fp16")
    result = values_and_gradients(function, inputs, torch.float32)
    assert result["output"].shape == (0, 3)
    assert not any(result[f"d {name}"].any() for name in inputs)


def test_stack_small_and_large_gradients_in_fp16() -> None:
    """The scale of the gradients does not matter: the backward pass brings them into range."""
    parts = stack_problem((9, 3, 16, 2, 2, 1, 4, 1))
    inputs = parts[0]
    grads = []
    for factor in (2.0**-30, 1.0, 2.0**20):
        leaves = [tensor.requires_grad_() for tensor in inputs.values()]
        output = stack(parts, 1, "triton", "fp16")(inputs)["output"]
        result = torch.autograd.grad(output.sum() * factor, leaves)
        grads.append({name: g / factor for name, g in zip(inputs, result, strict=True)})
    assert_identical(grads[0], grads[1])
    assert_identical(grads[1], grads[2])


def test_stack_that_amplifies_gradients_in_fp16() -> None:
    """No gradient overflows where the reference's does not, at any scale of the loss."""
    parts = stack_problem((9, 3, 16, 8, 1, 1, 5, 1))
    inputs = {**parts[0], "hidden_weight": 7 * parts[0]["hidden_weight"]}
    run = functools.partial(values_and_gradients, inputs=inputs, dtype=torch.float32)
    reference = run(stack(parts, 1, "reference"))
    grads = [run(scaled_stack(parts, 1, "triton", scale)) for scale in (1.0, 2.0**16)]
    for name in (f"d {name}" for name in inputs):
        assert reference[name].isfinite().all()
        assert grads[0][name].isfinite().all(), name
        assert torch.equal(grads[1][name] / 2.0**16, grads[0][name]), name


def scaled_stack(parts: Problem, trunk: int, backend: str, scale: float) -> Function:
    function = stack(parts, trunk, backend, "fp16")
    return lambda inputs: {"output": scale * function(inputs)["output"]}


def test_stack_with_deltas_beyond_the_range_of_fp16() -> None:
    """Heads of a large gain make them, at a forward pass as exact as ever."""
    parts = stack_problem((20, 20, 16, 3, 2, 2, 17, 2))
    inputs = {**parts[0], "head_weight": 2048 * parts[0]["head_weight"]}
    inputs["frequencies"] = 4 * inputs["frequencies"]
    run = functools.partial(values_and_gradients, inputs=inputs)
    exact = run(stack(parts, 2, "reference"), dtype=torch.float64)
    scale = 2.0**-10  # what plain PyTorch needs, and loses nothing by
    plain = run(scaled_stack(parts, 2, "reference", scale), dtype=torch.float32)
    plain = {name: value / scale for name, value in plain.items()}
    actual = run(stack(parts, 2, "triton", "fp16"), dtype=torch.float32)
    assert max(actual[f"d {name}"].abs().max() for name in inputs) > 1e5
    assert_matches(actual, exact, plain)


class Waits(TorchDispatchMode):
    """Notes the PyTorch operations that make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        name = function.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "bincount", "masked_select", "_unique2"):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


def test_launches_do_not_wait_for_the_device() -> None:
    tensors, offsets, groups = stack_problem(STACKS["one point"])
    values = list(tensors.values())
    inputs = [*values[:4], offsets, groups, *values[4:]]
    with Waits() as waits:
        call = call_of(inputs, 0, "fp32")
        film_siren_triton.launch_forward(call)
        needed = FilmSirenGradients(*[True] * 12)
        film_siren_triton.launch_backward(torch.randn(1, 3), call, needed)
    assert waits.seen == []
    with Waits() as waits:
        torch.bincount(groups)
    assert waits.seen


def test_stack_registered_ops() -> None:
    parts = tensors, offsets, groups = stack_problem(STACKS["one point"])
    values = list(tensors.values())
    inputs = [*values[:4], offsets, groups, *values[4:]]
    stack(parts, 0, "triton")(tensors)
    ops = torch.ops.semfaceedit
    torch.library.opcheck(ops.film_siren_forward_triton.default, (inputs, 0, "fp32"))
    arguments = (torch.randn(1, 3), inputs, 0, "fp32", [True, False, True] * 4)
    torch.library.opcheck(ops.film_siren_backward_triton.default, arguments)
