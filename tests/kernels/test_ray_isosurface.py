"""ray_isosurface: the crossing rule on fields that are known by hand, backends on random ones."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from comparison import assert_identical, assert_matches, values_and_gradients
from op_problems import FIELD_SETTINGS, field_levels, field_problem
from support import isas, needs_native, use_isa, use_threads
from torch import Tensor

from semfaceedit.kernels import FieldWeights, Intersections, ray_isosurface
from semfaceedit.kernels.ray_isosurface_reference import field

pytestmark = pytest.mark.usefixtures("one_thread")

BOTH = pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_native)])
WORLD = {"centre": (0.0, 0.0, 0.0), "scale": 1.0, "near": 0.0, "far": 1.0, "samples": 11}

# Rays, surfaces and the plane, samples, width, layers
Sizes = tuple[int, int, int, int, int]
SHAPES: dict[str, Sizes] = {
    "small": (63, 9, 32, 64, 3),
    "odd": (63, 24, 33, 17, 3),
    "one layer": (63, 4, 16, 24, 1),
    "more surfaces than a tile has points": (40, 80, 128, 16, 2),
    "only the plane": (63, 1, 5, 8, 2),
}
LARGE_SHAPES: dict[str, Sizes] = {"paper": (400, 24, 64, 128, 3), "wide": (63, 24, 64, 256, 4)}
SEEDS = 12
ORDERS = 3  # other orders of the units in which plain PyTorch's rounding is looked at


def height_field(coefficients: list[tuple[float, float]], offset: float) -> FieldWeights:
    """s(x, y, z) = offset + sum of a relu(z - b) and a relu(b - z), one pair each."""
    slopes = [sign for _ in coefficients for sign in (1.0, -1.0)]
    weight = torch.tensor([[0.0, 0.0, slope] for slope in slopes])
    bias = torch.tensor([-sign * b for _, b in coefficients for sign in (1.0, -1.0)])
    last = torch.tensor([[a for a, _ in coefficients for _ in range(2)]])
    empty = torch.zeros(0, len(slopes), len(slopes))
    return FieldWeights(weight, bias, empty, empty[:, 0], last, torch.tensor([float(offset)]))


def ramp(slope: float, offset: float) -> FieldWeights:
    """s = offset + slope * relu(z)."""
    weights = height_field([(slope, 0.0)], offset)
    return weights._replace(last_weight=torch.tensor([[slope, 0.0]], dtype=torch.float32))


def look(
    weights: FieldWeights,
    levels: list[float],
    *,
    backend: str,
    origin: tuple[float, float, float] = (0.0, 0.0, 1.0),
    direction: tuple[float, float, float] = (0.0, 0.0, -1.0),
    plane_z: float = -0.5,
    **settings: Any,
) -> Intersections:
    return ray_isosurface(
        torch.tensor([origin]),
        torch.tensor([direction]),
        torch.tensor(levels),
        weights,
        **{**WORLD, **settings},
        plane_z=plane_z,
        backend=backend,
    )


def depths_of(hits: Intersections) -> Any:
    return pytest.approx(hits.depths[0].tolist(), abs=1e-6)


@BOTH
def test_levels_are_met_in_order_of_distance(backend: str) -> None:
    hits = look(ramp(10, 0), [8.0, 5.0], backend=backend)
    assert [0.2, 0.5, 1.5] == depths_of(hits)
    assert hits.level.tolist() == [[0, 1, 2]] and hits.valid.all()
    assert hits.plane_index.tolist() == [2]
    points = torch.tensor([[[0, 0, 0.8], [0, 0, 0.5], [0, 0, -0.5]]])
    torch.testing.assert_close(hits.points, points)


@BOTH
def test_plane_before_a_surface(backend: str) -> None:
    hits = look(ramp(10, 0), [8.0, 5.0], plane_z=0.6, backend=backend)
    assert [0.2, 0.4, 0.5] == depths_of(hits)
    assert hits.level.tolist() == [[0, 2, 1]]
    assert hits.plane_index.tolist() == [1]


@BOTH
def test_order_changes_with_the_angle(backend: str) -> None:
    """A surface x = const is met later, the steeper the view; then the plane comes before it."""
    weights = ramp(10, 0)._replace(first_weight=torch.tensor([[-1.0, 0, 0], [1.0, 0, 0]]))
    weights = weights._replace(first_bias=torch.tensor([1.0, 0.0]))  # s = 10 relu(1 - x)
    for x, order in ((0.8, [0, 1]), (0.6, [1, 0])):
        z = -math.sqrt(1 - x * x)
        hits = look(weights, [5.0], backend=backend, direction=(x, 0, z), plane_z=0.45)
        assert hits.level.tolist() == [order]
        assert sorted([0.5 / x, 0.55 / -z]) == depths_of(hits)


@BOTH
def test_only_the_first_falling_crossing_counts(backend: str) -> None:
    valley = height_field([(10.0, 0.5)], 0.0)  # 5, 0, 5 along the ray
    hits = look(valley, [3.0], backend=backend)
    assert [0.2, 1.5] == depths_of(hits)
    peak = height_field([(-10.0, 0.5)], 5.0)  # 0, 5, 0: the rise at 0.3 is not a hit
    hits = look(peak, [3.0], backend=backend)
    assert [0.7, 1.5] == depths_of(hits)
    hits = look(peak, [3.0], backend=backend, origin=(0, 0, 0.5))  # falls at 0.2, and no more
    assert [0.2, 1.0] == depths_of(hits)


@BOTH
def test_missed_levels_stand_at_the_far_end(backend: str) -> None:
    hits = look(ramp(10, 0), [20.0, 5.0], plane_z=0.2, backend=backend)
    assert [0.5, 0.8, 1.0] == depths_of(hits)
    assert hits.level.tolist() == [[1, 2, 0]]
    assert hits.valid.tolist() == [[True, True, False]]


@BOTH
def test_ties_go_by_level_and_the_plane_is_last(backend: str) -> None:
    hits = look(ramp(10, 0), [5.0, 5.0], plane_z=0.5, backend=backend)
    assert hits.level.tolist() == [[0, 1, 2]]
    assert [0.5, 0.5, 0.5] == depths_of(hits)


@BOTH
def test_flat_field_is_not_interpolated(backend: str) -> None:
    """0.04 an interval is below the guard: the hit is the interval's end and has no gradient."""
    weights = ramp(0.4, 0)
    leaves = FieldWeights(*(tensor.clone().requires_grad_() for tensor in weights))
    hits = look(leaves, [0.3], backend=backend)
    assert [0.3, 1.5] == depths_of(hits)
    hits.depths.sum().backward()
    assert leaves.last_weight.grad is not None and not leaves.last_weight.grad.any()
    steeper = look(ramp(0.6, 0), [0.45], backend=backend)  # 0.06 an interval
    assert [0.25, 1.5] == depths_of(steeper)


@BOTH
def test_gradient_by_hand(backend: str) -> None:
    """The level l of slope a is met at 1 - l / a; moving back by o moves the hit by as much."""
    weights = FieldWeights(*(tensor.requires_grad_() for tensor in ramp(10, 0)))
    origins = torch.tensor([[0.0, 0.0, 1.0]], requires_grad=True)
    directions = torch.tensor([[0.0, 0.0, -1.0]], requires_grad=True)
    settings: dict[str, Any] = {**WORLD, "plane_z": -0.5, "backend": backend}
    hits = ray_isosurface(origins, directions, torch.tensor([5.3]), weights, **settings)
    hits.depths[0, 0].backward()
    assert weights.last_weight.grad is not None and weights.last_bias.grad is not None
    assert origins.grad is not None and directions.grad is not None
    assert weights.last_weight.grad[0, 0].item() == pytest.approx(5.3 / 10**2, rel=1e-4)
    assert weights.last_bias.grad.item() == pytest.approx(1 / 10, rel=1e-4)
    assert origins.grad[0, 2].item() == pytest.approx(1.0, rel=1e-4)
    assert directions.grad[0, 2].item() == pytest.approx(0.47, rel=1e-4)


@BOTH
def test_plane_that_is_not_in_front(backend: str) -> None:
    for direction, origin in (
        ((0.0, 0.0, 1.0), (0.0, 0.0, 1.0)),  # looks away
        ((1.0, 0.0, 0.0), (0.0, 0.0, 1.0)),  # along it
        ((0.0, 0.0, -1.0), (0.0, 0.0, -0.9)),  # already behind it
    ):
        hits = look(ramp(10, 0), [50.0], backend=backend, direction=direction, origin=origin)
        assert [1.0, 1.0] == depths_of(hits)
        assert hits.level.tolist() == [[0, 1]] and hits.valid.tolist() == [[False, True]]


def problem(sizes: Sizes, seed: int = 0) -> dict[str, Tensor]:
    """Random rays and a random field that falls by 30 along them.

    Every interval is steep enough to interpolate, and no sample lies so close to a level that
    rounding decides which interval is crossed.
    """
    rays, hit_count, samples, width, layers = sizes
    generator = torch.Generator().manual_seed(seed)
    tensors = field_problem(2 * rays, width, layers, generator)
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    near, far, centre, scale = (FIELD_SETTINGS[key] for key in ("near", "far", "centre", "scale"))
    distances = torch.linspace(near, far, samples).double()
    x = exact["origins"][:, None] + distances[:, None] * exact["directions"][:, None]
    weights = FieldWeights(*(exact[name] for name in FieldWeights._fields))
    values = field(x * scale - torch.tensor(centre), weights, "fp32")
    gaps = (values[..., None] - field_levels(hit_count)).abs().flatten(1)
    clear = (gaps > 1e-4).all(1).nonzero()[:rays, 0]
    assert len(clear) == rays
    return {**tensors, **{name: tensors[name][clear] for name in ("origins", "directions")}}


def call(sizes: Sizes, backend: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    _, hit_count, samples, _, _ = sizes

    def function(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        result = ray_isosurface(
            inputs["origins"],
            inputs["directions"],
            field_levels(hit_count, inputs["origins"].dtype),
            FieldWeights(*(inputs[name] for name in FieldWeights._fields)),
            **FIELD_SETTINGS,
            samples=samples,
            backend=backend,
        )
        return result._asdict()

    return function


def with_units_in_order(tensors: dict[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """The same field, or its gradients, with the units of every layer in another order."""
    return {
        **tensors,
        "first_weight": tensors["first_weight"][order],
        "first_bias": tensors["first_bias"][order],
        "hidden_weight": tensors["hidden_weight"][:, order][:, :, order],
        "hidden_bias": tensors["hidden_bias"][:, order],
        "last_weight": tensors["last_weight"][:, order],
    }


def run_in_order(
    sizes: Sizes, backend: str, dtype: torch.dtype, seed: int, order: Tensor
) -> dict[str, Tensor]:
    inputs = problem(sizes, seed)
    shuffled = with_units_in_order(inputs, order)
    result = values_and_gradients(call(sizes, backend), shuffled, dtype)
    gradients = {name: result[f"d {name}"] for name in inputs}
    back = with_units_in_order(gradients, order.argsort())
    return {**result, **{f"d {name}": gradient for name, gradient in back.items()}}


def over_seeds(
    sizes: Sizes, backend: str, dtype: torch.dtype, draw: int | None = None
) -> dict[str, Tensor]:
    """Results of several problems, stacked; `draw`: the units in the order of this number.

    A gradient here is a sum over few samples of the field, so the errors of its elements go
    together: one problem is too small a sample of rounding to compare two implementations by.
    """
    order = torch.arange(sizes[3])
    if draw is not None:
        order = torch.randperm(sizes[3], generator=torch.Generator().manual_seed(draw))
    runs = [run_in_order(sizes, backend, dtype, seed, order) for seed in range(SEEDS)]
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


@functools.cache
def expected(sizes: Sizes, dtype: torch.dtype, draw: int | None = None) -> dict[str, Tensor]:
    return over_seeds(sizes, "reference", dtype, draw)


def compare(sizes: Sizes, backend: str = "cpu") -> None:
    matches(over_seeds(sizes, backend, torch.float32), sizes)


def matches(actual: dict[str, Tensor], sizes: Sizes) -> None:
    """Levels may change places only where two hits are closer than rounding.

    One order of the sums can be lucky: with 64 units, plain PyTorch's error of the gradient of
    `last_weight` is 5.3e-6 in one order and 8e-6 to 1.1e-5 in three others.
    """
    exact = expected(sizes, torch.float64)
    for name in ("valid", "level", "plane_index"):
        differ = actual[name] != exact[name]
        assert not differ[without_ties(exact["depths"])].any(), name
        assert differ.double().mean().item() <= 0.01, name
    assert sizes[1] == 1 or 0.05 < exact["valid"][..., :-1].double().mean() < 1
    names = [name for name in exact if exact[name].is_floating_point()]
    draws = [expected(sizes, torch.float32, draw) for draw in (None, *range(ORDERS))]
    assert_matches(actual, {name: exact[name] for name in names}, *draws)


def without_ties(depths: Tensor) -> Tensor:
    """(..., K) -> (...): no two neighbours in the list are closer than float32 tells apart."""
    gaps = depths.diff(dim=-1)
    return ((gaps > 1e-5) | (gaps == 0)).all(-1)


@pytest.mark.gradients
@needs_native
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", SHAPES)
def test_cpu_matches_reference(name: str, isa: str) -> None:
    with use_isa(isa):
        compare(SHAPES[name])


@pytest.mark.parametrize(
    "name, defect",
    [
        ("depths", lambda depths: depths * (1 + 1e-6)),
        ("points", lambda points: points.bfloat16().float()),
        ("d last_weight", lambda grad: grad * (1 + 1e-4)),
        ("d last_bias", lambda grad: grad * (1 - 1e-4)),
        ("d first_bias", lambda grad: grad.bfloat16().float()),
        ("d hidden_weight", lambda grad: grad.roll(1, -1)),
        ("d origins", lambda grad: grad * (torch.arange(grad.shape[1]) > 0)[:, None]),
    ],
)
def test_a_defect_is_caught(name: str, defect: Callable[[Tensor], Tensor]) -> None:
    """The tolerance is loose enough for another order of sums, and for nothing else."""
    sizes = SHAPES["small"]
    right = expected(sizes, torch.float32, ORDERS)  # an order that the rule has not seen
    matches(right, sizes)
    with pytest.raises(AssertionError, match=name):
        matches({**right, name: defect(right[name])}, sizes)


@needs_native
@pytest.mark.slow
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", LARGE_SHAPES)
def test_cpu_matches_reference_at_large_sizes(name: str, isa: str) -> None:
    with use_isa(isa):
        compare(LARGE_SHAPES[name])


@pytest.mark.gradients
def test_reference_gradcheck() -> None:
    sizes = (3, 4, 8, 4, 2)
    inputs = problem(sizes)
    names = list(inputs)

    def function(*tensors: Tensor) -> tuple[Tensor, Tensor]:
        result = call(sizes, "reference")(dict(zip(names, tensors, strict=True)))
        return result["points"], result["depths"]

    leaves = [tensor.double().requires_grad_() for tensor in inputs.values()]
    assert torch.autograd.gradcheck(function, leaves)


@needs_native
@pytest.mark.parametrize("isa", isas())
def test_a_ray_alone_has_the_same_bits_as_among_others(isa: str) -> None:
    sizes, ray = SHAPES["odd"], 41
    inputs = problem(sizes)
    alone = {name: inputs[name][ray : ray + 1] for name in ("origins", "directions")}
    with use_isa(isa):
        many = call(sizes, "cpu")(inputs)
        one = call((1, *sizes[1:]), "cpu")({**inputs, **alone})
    for name, value in one.items():
        assert torch.equal(value, many[name][ray : ray + 1]), name


@needs_native
@pytest.mark.parametrize("isa", isas())
def test_same_bits_for_every_run_and_thread_count(isa: str) -> None:
    sizes = (1000, 9, 24, 32, 3)
    results = []
    for threads in (1, 1, 2, 4):
        with use_isa(isa), use_threads(threads):
            result = values_and_gradients(call(sizes, "cpu"), problem(sizes), torch.float32)
            results.append({name: result[name] for name in result if name != "valid"})
    for result in results[1:]:
        assert_identical(results[0], result)


@needs_native
def test_all_rays_miss() -> None:
    sizes = (63, 9, 16, 16, 2)
    inputs = {**problem(sizes), "last_bias": torch.tensor([-500.0])}
    exact = values_and_gradients(call(sizes, "reference"), inputs, torch.float64)
    plain = values_and_gradients(call(sizes, "reference"), inputs, torch.float32)
    actual = values_and_gradients(call(sizes, "cpu"), inputs, torch.float32)
    assert actual["valid"].sum() == 63
    floats = {name: value for name, value in exact.items() if value.is_floating_point()}
    assert_matches(actual, floats, plain)


@needs_native
def test_not_finite_values_as_in_the_reference() -> None:
    assert_not_finite_as_in_the_reference("cpu")


def assert_not_finite_as_in_the_reference(backend: str) -> None:
    sizes = (33, 9, 16, 16, 2)
    for value in (math.nan, math.inf, -math.inf):
        for name in ("origins", "directions", "first_weight", "last_weight", "last_bias"):
            inputs = {key: tensor.clone() for key, tensor in problem(sizes).items()}
            inputs[name].view(-1)[0] = value
            wanted = call(sizes, "reference")(inputs)
            result = call(sizes, backend)(inputs)
            assert torch.equal(result["valid"], wanted["valid"]), (name, value)
            torch.testing.assert_close(
                result["depths"], wanted["depths"], equal_nan=True, rtol=1e-4, atol=1e-5
            )


@needs_native
def test_registered_ops() -> None:
    check_registered_ops("cpu")


def check_registered_ops(backend: str) -> None:
    sizes = (33, 4, 8, 6, 2)
    tensors = list(problem(sizes).values())
    inputs = [*tensors[:2], torch.linspace(20, 2, 3), torch.linspace(0.88, 1.12, 8), *tensors[2:]]
    numbers = [0.0, 0.0, -1.5, 8.0, 1.12, -0.12]
    call(sizes, backend)(problem(sizes))  # imports the module that registers them
    ops = torch.ops.semfaceedit
    forward = getattr(ops, f"ray_isosurface_forward_{backend}")
    backward = getattr(ops, f"ray_isosurface_backward_{backend}")
    torch.library.opcheck(forward.default, (inputs, numbers, "fp32"))
    _, depths, valid, level, _, interval = forward(inputs, numbers, "fp32")
    hits = [torch.randn(33, 4, 3), torch.randn(33, 4), depths, level, valid, interval]
    needed = [True, False] * 4
    arguments = (hits, inputs, numbers, "fp32", needed)
    torch.library.opcheck(backward.default, arguments)
