"""film_siren on the CPU in bf16: `accurate` and `fast`, by AVX-512, AMX and a model of AMX."""

import functools
import math
import platform
import shutil
import subprocess
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from comparison import assert_identical, relative_error, values_and_gradients
from film_siren_cases import (
    LARGE_SHAPES,
    SHAPES,
    Sizes,
    call,
    expected,
    problem,
    sine,
    with_and_without_first_product,
)
from support import bf16_paths, isas, needs_native, use_isa, use_threads
from torch import Tensor

from semfaceedit.kernels import BackendError, FilmSirenWeights, _extension, film_siren, use_backend
from semfaceedit.kernels.film_siren_reference import _film_siren_row
from semfaceedit.model import config
from semfaceedit.model.generator import Generator, sample_latents

pytestmark = [needs_native, pytest.mark.usefixtures("one_thread")]

ACCURATE = 1e-4  # relative RMS error against float64 (SPEC section 2)


def autocast(
    offsets: Tensor, groups: Tensor, trunk: int | None = None
) -> Callable[[dict[str, Tensor]], Tensor]:
    """The reference as bf16 autocast runs it, which `film_siren` itself switches off."""

    def function(inputs: dict[str, Tensor]) -> Tensor:
        weights = FilmSirenWeights(*(inputs[name] for name in FilmSirenWeights._fields))
        channels = weights.head_weight.shape[2]
        outputs = [inputs["points"].new_zeros(0, channels)]
        with torch.autocast("cpu", torch.bfloat16):
            for row, (start, stop) in enumerate(pairwise(offsets.tolist())):
                outputs.append(
                    _film_siren_row(
                        inputs["points"][start:stop], inputs["directions"][start:stop],
                        inputs["frequencies"][row], inputs["phases"][row], int(groups[row]),
                        weights, channels // 4 if trunk is None else trunk, "fp32",
                    ).float()
                )  # fmt: skip
        return torch.cat(outputs)

    return function


@functools.cache
def plain(sizes: Sizes, trunk: int | None) -> dict[str, Tensor]:
    """What bf16 autocast makes of a problem, by its name: output and gradients."""
    inputs, *rows = problem(sizes)
    function = autocast(*rows, trunk)
    return values_and_gradients(lambda leaves: {"output": function(leaves)}, inputs, torch.float32)


def check_errors(
    precision: str,
    actual: Mapping[str, Tensor],
    exact: Mapping[str, Tensor],
    autocast: Mapping[str, Tensor],
) -> None:
    """`accurate` is within 1e-4 in every tensor, `fast` not worse than bf16 autocast."""
    failures = []
    for name, wanted in exact.items():
        assert actual[name].shape == wanted.shape
        error, own = (relative_error(x[name], wanted) for x in (actual, autocast))
        line = f"{name}: error {error:.2e}, bf16 autocast {own:.2e}"
        print(precision, line)
        if not error <= (ACCURATE if precision == "accurate" else own):  # NaN fails
            failures.append(line)
    assert not failures, "; ".join(failures)


def check_bf16(sizes: Sizes, precision: str, trunk: int | None = None) -> None:
    """The outputs of trunk and view layer apart, and every gradient."""
    inputs, *rows = problem(sizes)
    actual = values_and_gradients(call(*rows, "cpu", trunk, precision), inputs, torch.float32)
    split = sizes[6] // 4 if trunk is None else trunk

    def parts(values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        output = values["output"]
        return {**values, "trunk": output[:, :split], "viewed": output[:, split:]}

    exact, own = expected(sizes, torch.float64, trunk), plain(sizes, trunk)
    check_errors(precision, parts(actual), parts(exact), parts(own))


bf16 = pytest.mark.parametrize(
    "isa, precision", [pytest.param(*path, id="-".join(path)) for path in bf16_paths()]
)


@pytest.mark.gradients
@bf16
@pytest.mark.parametrize("name", SHAPES)
def test_bf16_matches_reference(name: str, isa: str, precision: str) -> None:
    with use_isa(isa):
        check_bf16(SHAPES[name], precision)


@pytest.mark.slow
@bf16
@pytest.mark.parametrize("name", LARGE_SHAPES)
def test_bf16_matches_reference_at_large_sizes(name: str, isa: str, precision: str) -> None:
    with use_isa(isa):
        check_bf16(LARGE_SHAPES[name], precision)


@pytest.mark.slow
@bf16
@pytest.mark.parametrize("module", ["geometry", "appearance"])
def test_bf16_at_the_papers_initialisation(module: str, isa: str, precision: str) -> None:
    """Both modules of `paper` as they start, FiLM from latents, descriptors of magnitude one."""
    generator = Generator(config.preset("paper").model)
    z, appearance = sample_latents(generator.config, 1)
    codes = generator.map(z, appearance)
    part = getattr(generator, module)
    stack = part.stack if module == "geometry" else part.stacks[0]
    film = codes.geometry if module == "geometry" else codes.appearance
    rows = math.prod(film.frequencies.shape[:-2])
    count = 100 * rows
    inputs = {
        "points": torch.randn(count, stack.first_weight.shape[1]),
        "directions": torch.nn.functional.normalize(torch.randn(count, 3), dim=1),
        "frequencies": (15 * film.frequencies + 30).flatten(0, -3),
        "phases": film.phases.flatten(0, -3),
        **stack.weights()._asdict(),
    }
    inputs = {name: tensor.detach() for name, tensor in inputs.items()}
    layout = torch.arange(rows + 1) * 100, torch.arange(rows) % stack.head_weight.shape[0]
    native = call(*layout, "cpu", stack.trunk_channels, precision)
    reference = call(*layout, "reference", stack.trunk_channels)
    rounded = autocast(*layout, stack.trunk_channels)
    with use_isa(isa):
        actual = values_and_gradients(native, inputs, torch.float32)
    exact = values_and_gradients(reference, inputs, torch.float64)
    plain = values_and_gradients(lambda x: {"output": rounded(x)}, inputs, torch.float32)
    check_errors(precision, actual, exact, plain)


@bf16
@pytest.mark.parametrize("trunk", [0, 7])
def test_bf16_with_only_viewed_or_only_trunk_channels(trunk: int, isa: str, precision: str) -> None:
    with use_isa(isa):
        check_bf16(SHAPES["odd"], precision, trunk)


@bf16
def test_bf16_trunk_channels_do_not_depend_on_the_direction(isa: str, precision: str) -> None:
    inputs, *rows = problem((70, 3, 16, 3, 2, 1, 10))
    turned = {**inputs, "directions": torch.full_like(inputs["directions"], math.nan)}
    with use_isa(isa):
        before = call(*rows, "cpu", 4, precision)(inputs)["output"]
        after = call(*rows, "cpu", 4, precision)(turned)["output"]
    assert torch.equal(before[:, :4], after[:, :4])
    assert after[:, 4:].isnan().all()


@bf16
def test_bf16_each_gradient_alone_is_the_same(isa: str, precision: str) -> None:
    inputs, *rows = problem(SHAPES["odd"])
    with use_isa(isa):
        function = call(*rows, "cpu", None, precision)
        every = values_and_gradients(function, inputs, torch.float32)
        for name in inputs:
            alone = values_and_gradients(function, inputs, torch.float32, [name])
            assert_identical({name: alone[f"d {name}"]}, {name: every[f"d {name}"]})


@bf16
def test_bf16_same_bits_for_every_run_and_thread_count(isa: str, precision: str) -> None:
    points = 500 if isa == "amx_model" else 1500
    inputs, *rows = problem((points, 40, 48, 3, 6, 2, 20))
    broken = {name: torch.full_like(tensor, math.nan) for name, tensor in inputs.items()}
    results = []
    with use_isa(isa):
        function = call(*rows, "cpu", None, precision)
        for threads in (1, 1, 2, 4):
            with use_threads(threads):
                results.append(values_and_gradients(function, inputs, torch.float32))
                poison = values_and_gradients(function, broken, torch.float32)
                assert poison["output"].isnan().all()  # what scratch memory then holds
    for result in results[1:]:
        assert_identical(results[0], result)


@bf16
@pytest.mark.parametrize("width", [1, 3])
def test_bf16_no_first_product_is_one_with_the_identity(
    width: int, isa: str, precision: str
) -> None:
    """Of up to three inputs, whose product is in fp32."""
    with use_isa(isa):
        assert_identical(*with_and_without_first_product((163, 0, width, 3, 9, 3, 7), precision))


@bf16
@pytest.mark.parametrize("rows", [1, 3])
def test_bf16_no_points(rows: int, isa: str, precision: str) -> None:
    inputs, *ends = problem((0, 3, 16, 2, rows, 1, 5))
    with use_isa(isa):
        result = values_and_gradients(call(*ends, "cpu", None, precision), inputs, torch.float32)
    assert result["output"].shape == (0, 5)
    for name, value in result.items():
        assert not value.any(), name


@bf16
@pytest.mark.parametrize("reach", [4.0, 1e3, 1e6, 1e30])
def test_bf16_sine(isa: str, precision: str, reach: float) -> None:
    """The argument is rounded in turns, the polynomial is off by a little, then bf16 rounds."""
    arguments = torch.linspace(-reach, reach, 501)
    with use_isa(isa):
        got = sine(arguments, precision).double()
    polynomial, rounding = (8e-6, 2**-9) if precision == "fast" else (2.1e-7, 2**-18)
    bound = polynomial + rounding + 2 * torch.finfo(torch.float32).eps * arguments.abs()
    assert ((got - arguments.double().sin()).abs() <= bound).all()
    assert got.abs().max() <= 1 + rounding + polynomial


@bf16
def test_bf16_not_finite_values_spread_as_in_the_reference(isa: str, precision: str) -> None:
    inputs, *rows = problem((97, 3, 16, 3, 2, 1, 6))
    for value in (math.nan, math.inf, -math.inf):
        for name in inputs:
            broken = {key: tensor.clone() for key, tensor in inputs.items()}
            broken[name].view(-1)[0] = value
            expected = call(*rows, "reference")(broken)["output"]
            with use_isa(isa):
                output = call(*rows, "cpu", None, precision)(broken)["output"]
            finite = expected.isfinite()
            assert torch.equal(output.isfinite(), finite), f"{value} in {name}"
            torch.testing.assert_close(output[finite], expected[finite], rtol=0.05, atol=0.05)


@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("precision", ["accurate", "fast"])
def test_precisions_that_the_instructions_lack(isa: str, precision: str) -> None:
    inputs, *rows = problem(SHAPES["one point"])
    with use_isa(isa):
        for backend in ("cpu", "auto"):
            with pytest.raises(BackendError, match=f"{precision}': it needs .*AMX.*{isa}"):
                call(*rows, backend, None, precision)(inputs)


def test_accurate_is_the_automatic_choice_where_there_are_tiles() -> None:
    inputs, *rows = problem(SHAPES["one point"])
    weights = FilmSirenWeights(*(inputs[name] for name in FilmSirenWeights._fields))
    tensors = [inputs[name] for name in ("points", "directions", "frequencies", "phases")]
    with use_isa("amx_model"), use_backend("cpu"):
        automatic = film_siren(*tensors, *rows, weights, trunk_channels=21)
        wanted = call(*rows, "cpu", None, "accurate")(inputs)["output"]
    assert torch.equal(automatic, wanted)


def tiles(a: Tensor, b: Tensor, c: Tensor, isa: str = "amx_model") -> Tensor:
    """c (16, 16) + the tile product of bf16 a (16, 32) and b (16, 32)."""
    result = c.clone()
    _extension.native().tile_dot(isa, *_extension.addresses(a, b, result))
    return result


def pairs(b: Tensor) -> Tensor:
    """(32, 16) as a right operand: (16, 16, 2), rows of pairs."""
    return b.view(16, 2, 16).transpose(1, 2).reshape(16, 32).contiguous()


def test_tile_model_multiplies_matrices() -> None:
    a, b = torch.randn(16, 32).bfloat16(), torch.randn(32, 16).bfloat16()
    c = torch.randn(16, 16)
    exact = c.double() + a.double() @ b.double()
    scale = c.double().abs() + a.double().abs() @ b.double().abs()
    error = (tiles(a, pairs(b), c).double() - exact).abs()
    assert (error <= 18 * torch.finfo(torch.float32).eps / 2 * scale).all()


def test_tile_model_rounds_as_documented() -> None:
    """Even and odd inputs are summed apart, in order, before they meet; subnormals are zero."""
    a, b, c = torch.zeros(16, 32).bfloat16(), torch.ones(32, 16).bfloat16(), torch.zeros(16, 16)
    a[0, 0], a[0, 1], a[0, 2], a[0, 4] = 2.0**24, 1, 1, -(2.0**24)  # (2^24 + 1) - 2^24 = 0; then 1
    a[1, 0], a[1, 2], a[1, 4] = 2.0**24, -(2.0**24), 1  # in order: 1
    a[2, 0], a[2, 1] = 1.0, 2.0**-24  # the pair rounds to 1, nearest even, before c is added
    c[2] = 2.0**-24
    a[3, 0] = 2.0**-127  # subnormal
    c[4] = 2.0**-127
    a[5, 0], c[5] = 3 * 2.0**-126, -(2.0**-125)  # 2^-126 is the least that is kept
    a[6, 0], c[6] = 2.5 * 2.0**-126, -(2.0**-125)  # 2^-127 is not
    result = tiles(a, pairs(b), c)
    assert result[:7, 0].tolist() == [1, 1, 1 + 0, 0, 0, 2.0**-126, 0]


@pytest.mark.skipif(not any("amx" in path for path in bf16_paths()), reason="no AMX here")
def test_tile_model_is_the_hardware() -> None:
    for scale in (1.0, 2.0**-70, 2.0**60):
        a = (scale * torch.randn(16, 32)).bfloat16()
        b, c = (scale * torch.randn(16, 32)).bfloat16(), scale * torch.randn(16, 16)
        assert torch.equal(tiles(a, b, c), tiles(a, b, c, "amx"))


@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="tiles are an x86-64 matter")
def test_the_build_contains_tile_instructions() -> None:
    module = _extension.native()
    command = ["objdump", "-d", "--no-show-raw-insn", str(Path(module.__file__))]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for instruction in ("ldtilecfg", "tileloadd", "tdpbf16ps", "tilestored", "tilerelease"):
        assert instruction in listing
    assert "vdpbf16ps" in listing
