"""film_siren: the reference against numbers worked out by hand, backends against the reference."""

import functools
import math
import platform
import shutil
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from support import (
    assert_identical,
    assert_matches,
    bf16_paths,
    isas,
    needs_native,
    relative_error,
    use_isa,
    use_threads,
    values_and_gradients,
)
from torch import Tensor

from semfaceedit import config
from semfaceedit.generator import Generator, sample_latents
from semfaceedit.kernels import BackendError, FilmSirenWeights, _extension, film_siren, use_backend
from semfaceedit.kernels.film_siren_reference import _film_siren_row

Problem = tuple[dict[str, Tensor], Tensor, Tensor]  # differentiable inputs, offsets, groups
Sizes = tuple[int, int, int, int, int, int, int]

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPES = {  # points, inputs, width, layers, rows, groups, channels
    "tiny": (1000, 3, 16, 3, 5, 1, 52),
    "small geometry": (1000, 3, 64, 3, 4, 1, 84),
    "small appearance": (1000, 64, 64, 2, 8, 4, 3),
    "one point": (1, 3, 64, 3, 1, 1, 84),
    "odd": (63, 5, 17, 4, 9, 3, 7),
    "narrow": (500, 3, 5, 2, 2, 1, 30),
}
LARGE_SHAPES = {
    "paper": (200, 3, 256, 8, 2, 1, 276),
    "paper appearance": (200, 256, 256, 8, 4, 4, 3),
    "many rows": (20_000, 3, 64, 3, 64, 4, 84),
    "odd and deep": (977, 33, 129, 5, 7, 2, 41),
}


def problem(sizes: Sizes, *, seed: int = 0) -> Problem:
    """Random inputs whose FiLM arguments span several periods, and rows of uneven lengths."""
    count, inputs, width, layers, rows, groups, channels = sizes
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    cuts = torch.randint(0, count + 1, (rows - 1,), generator=generator).sort().values
    if rows > 2:
        cuts[1] = cuts[0]  # an empty row
    tensors = {
        "points": randn(count, inputs),
        "directions": torch.nn.functional.normalize(randn(count, 3), dim=1),
        "frequencies": 15 + 2 * randn(rows, layers + 1, width),
        "phases": randn(rows, layers + 1, width),
        "first_weight": 0.3 * randn(width, inputs) / inputs**0.5,
        "first_bias": 0.1 * randn(width),
        "hidden_weight": 0.1 * randn(layers - 1, width, width) / width**0.5,
        "hidden_bias": 0.05 * randn(layers - 1, width),
        "view_weight": 0.1 * randn(groups, width, 3 + width) / width**0.5,
        "view_bias": 0.05 * randn(groups, width),
        "head_weight": randn(groups, layers - 1, channels, width) / width**0.5,
        "head_bias": randn(groups, layers - 1, channels),
    }
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


ACCURATE = 1e-4  # relative RMS error against float64 (SPEC section 2)


def check_bf16(sizes: Sizes, precision: str, trunk: int | None = None) -> None:
    """Trunk and viewed channels each: `accurate` within 1e-4, `fast` not worse than autocast."""
    inputs, *rows = problem(sizes)
    output = call(*rows, "cpu", trunk, precision)(inputs)["output"]
    plain = autocast(*rows, trunk)(inputs)
    exact = expected(sizes, torch.float64, trunk)["output"]
    assert output.shape == exact.shape
    split = sizes[6] // 4 if trunk is None else trunk
    for part in (slice(0, split), slice(split, None)):
        if exact[:, part].numel():
            error, own = (relative_error(x[:, part], exact[:, part]) for x in (output, plain))
            print(f"{precision}: error {error:.2e}, bf16 autocast {own:.2e}")
            assert error <= (ACCURATE if precision == "accurate" else own)


@functools.cache
def expected(sizes: Sizes, dtype: torch.dtype, trunk: int | None) -> dict[str, Tensor]:
    inputs, *rows = problem(sizes)
    return values_and_gradients(call(*rows, "reference", trunk), inputs, dtype)


def compare(sizes: Sizes, trunk: int | None = None) -> None:
    inputs, *rows = problem(sizes)
    actual = values_and_gradients(call(*rows, "cpu", trunk), inputs, torch.float32)
    exact, plain = (expected(sizes, dtype, trunk) for dtype in (torch.float64, torch.float32))
    assert_matches(actual, exact, plain)


def test_reference_against_numbers_by_hand() -> None:
    weights = FilmSirenWeights(
        first_weight=torch.tensor([[1.0, 0.0, 2.0]]),
        first_bias=torch.tensor([0.5]),
        hidden_weight=torch.tensor([[[3.0]]]),
        hidden_bias=torch.tensor([[-1.0]]),
        view_weight=torch.tensor([[[0.1, 0.2, 0.3, 2.0]]]),
        view_bias=torch.tensor([[0.25]]),
        head_weight=torch.tensor([[[[4.0], [5.0]]]]),
        head_bias=torch.tensor([[[1.0, -1.0]]]),
    )
    output = film_siren(
        torch.tensor([[0.2, 9.0, 0.1]]),
        torch.tensor([[0.0, 0.6, 0.8]]),
        torch.tensor([[[2.0], [1.5], [0.5]]]),
        torch.tensor([[[0.1], [0.2], [0.3]]]),
        torch.tensor([0, 1]),
        torch.tensor([0]),
        weights,
        trunk_channels=1,
        backend="reference",
    )
    first = math.sin(2 * (0.2 + 0.2 + 0.5) + 0.1)
    second = math.sin(1.5 * (3 * first - 1) + 0.2)
    viewed = math.sin(0.5 * (0.12 + 0.24 + 2 * second + 0.25) + 0.3)
    assert output[0].tolist() == pytest.approx([4 * second + 1, 5 * viewed - 1], rel=1e-5)


def test_rows_choose_their_film_and_their_group() -> None:
    inputs, _, _ = problem((4, 3, 8, 3, 2, 2, 5))
    offsets, groups = torch.tensor([0, 1, 4]), torch.tensor([1, 0])
    both = call(offsets, groups, "reference")(inputs)["output"]
    for row, points in ((0, slice(0, 1)), (1, slice(1, 4))):
        alone = dict(inputs)
        for name in ("points", "directions"):
            alone[name] = inputs[name][points]
        for name in ("frequencies", "phases"):
            alone[name] = inputs[name][row : row + 1]
        ends = torch.tensor([0, points.stop - points.start])
        output = call(ends, groups[row : row + 1], "reference")(alone)["output"]
        torch.testing.assert_close(both[points], output)


def test_reference_gradcheck() -> None:
    inputs, offsets, groups = problem((6, 3, 4, 3, 4, 2, 5))
    names = list(inputs)
    inputs["frequencies"] /= 10

    def function(*tensors: Tensor) -> Tensor:
        return call(offsets, groups, "reference")(dict(zip(names, tensors, strict=True)))["output"]

    leaves = [tensor.double().requires_grad_() for tensor in inputs.values()]
    assert torch.autograd.gradcheck(function, leaves)


@pytest.mark.parametrize("backend", ["reference", pytest.param("cpu", marks=needs_native)])
def test_trunk_channels_do_not_depend_on_the_direction(backend: str) -> None:
    inputs, offsets, groups = problem((70, 3, 16, 3, 2, 1, 10))
    turned = {**inputs, "directions": inputs["directions"].roll(1, 1)}
    before = call(offsets, groups, backend, trunk=4)(inputs)["output"]
    after = call(offsets, groups, backend, trunk=4)(turned)["output"]
    assert torch.equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any(0).all()


@needs_native
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", SHAPES)
def test_cpu_matches_reference(name: str, isa: str) -> None:
    with use_isa(isa):
        compare(SHAPES[name])


@needs_native
@pytest.mark.slow
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("name", LARGE_SHAPES)
def test_cpu_matches_reference_at_large_sizes(name: str, isa: str) -> None:
    with use_isa(isa):
        compare(LARGE_SHAPES[name])


@needs_native
@pytest.mark.parametrize("trunk", [0, 7])
def test_cpu_with_only_viewed_or_only_trunk_channels(trunk: int) -> None:
    compare(SHAPES["odd"], trunk=trunk)


@needs_native
@pytest.mark.parametrize("rows", [1, 3])
def test_no_points(rows: int) -> None:
    inputs, offsets, groups = problem((0, 3, 16, 2, rows, 1, 5))
    result = values_and_gradients(call(offsets, groups, "cpu"), inputs, torch.float32)
    assert result["output"].shape == (0, 5)
    for name, value in result.items():
        assert not value.any(), name


@needs_native
def test_each_gradient_alone_is_the_same() -> None:
    inputs, *rows = problem(SHAPES["odd"])
    every = values_and_gradients(call(*rows, "cpu"), inputs, torch.float32)
    for name in inputs:
        alone = values_and_gradients(call(*rows, "cpu"), inputs, torch.float32, [name])
        assert_identical({name: alone[f"d {name}"]}, {name: every[f"d {name}"]})


@needs_native
@pytest.mark.parametrize("isa", isas())
def test_same_bits_for_every_run_and_thread_count(isa: str) -> None:
    inputs, *rows = problem((5000, 3, 32, 3, 6, 2, 20))
    results = []
    for threads in (1, 1, 2, 4):
        with use_isa(isa), use_threads(threads):
            results.append(values_and_gradients(call(*rows, "cpu"), inputs, torch.float32))
    for result in results[1:]:
        assert_identical(results[0], result)


@needs_native
def test_strided_inputs() -> None:
    inputs, *rows = problem(SHAPES["odd"])
    strided = {name: tensor.mT.contiguous().mT if tensor.dim() > 1 else
               tensor.repeat_interleave(2)[::2] for name, tensor in inputs.items()}  # fmt: skip
    plain = call(*rows, "cpu")(inputs)
    assert_identical(plain, call(*rows, "cpu")(strided))


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


@needs_native
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("reach", [4.0, 1e3, 1e6, 1e30])
def test_sine(isa: str, reach: float) -> None:
    arguments = torch.linspace(-reach, reach, 501)
    arguments[:9] = torch.arange(-4, 5) * (math.pi / 2)
    with use_isa(isa):
        error = (sine(arguments).double() - arguments.double().sin()).abs().max().item()
    assert error <= 1.2e-7


@needs_native
def test_not_finite_values_spread_as_in_the_reference() -> None:
    inputs, *rows = problem((97, 3, 16, 3, 2, 1, 6))
    for value in (math.nan, math.inf, -math.inf):
        for name in inputs:
            broken = {key: tensor.clone() for key, tensor in inputs.items()}
            broken[name].view(-1)[0] = value
            expected = call(*rows, "reference")(broken)["output"]
            output = call(*rows, "cpu")(broken)["output"]
            torch.testing.assert_close(output, expected, equal_nan=True, rtol=1e-3, atol=1e-3)


bf16 = pytest.mark.parametrize(
    "isa, precision", [pytest.param(*path, id="-".join(path)) for path in bf16_paths()]
)


@needs_native
@bf16
@pytest.mark.parametrize("name", SHAPES)
def test_bf16_forward_matches_reference(name: str, isa: str, precision: str) -> None:
    with use_isa(isa):
        check_bf16(SHAPES[name], precision)


@needs_native
@pytest.mark.slow
@bf16
@pytest.mark.parametrize("name", LARGE_SHAPES)
def test_bf16_forward_matches_reference_at_large_sizes(name: str, isa: str, precision: str) -> None:
    with use_isa(isa):
        check_bf16(LARGE_SHAPES[name], precision)


@needs_native
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
    exact = call(*layout, "reference", stack.trunk_channels)(
        {name: tensor.double() for name, tensor in inputs.items()}
    )["output"]
    with use_isa(isa):
        output = call(*layout, "cpu", stack.trunk_channels, precision)(inputs)["output"]
    plain = autocast(*layout, stack.trunk_channels)(inputs)
    error, own = relative_error(output, exact), relative_error(plain, exact)
    print(f"{precision}: error {error:.2e}, bf16 autocast {own:.2e}")
    assert error <= (ACCURATE if precision == "accurate" else own)


@needs_native
@bf16
@pytest.mark.parametrize("trunk", [0, 7])
def test_bf16_with_only_viewed_or_only_trunk_channels(trunk: int, isa: str, precision: str) -> None:
    with use_isa(isa):
        check_bf16(SHAPES["odd"], precision, trunk)


@needs_native
@bf16
def test_bf16_trunk_channels_do_not_depend_on_the_direction(isa: str, precision: str) -> None:
    inputs, *rows = problem((70, 3, 16, 3, 2, 1, 10))
    turned = {**inputs, "directions": torch.full_like(inputs["directions"], math.nan)}
    with use_isa(isa):
        before = call(*rows, "cpu", 4, precision)(inputs)["output"]
        after = call(*rows, "cpu", 4, precision)(turned)["output"]
    assert torch.equal(before[:, :4], after[:, :4])
    assert after[:, 4:].isnan().all()


@needs_native
@bf16
def test_bf16_gradients_are_those_of_fp32(isa: str, precision: str) -> None:
    """So they keep the bounds of fp32: each is at most twice as far off as plain PyTorch's."""
    inputs, *rows = problem(SHAPES["odd"])
    with use_isa(isa):
        coarse = values_and_gradients(call(*rows, "cpu", None, precision), inputs, torch.float32)
        fp32 = values_and_gradients(call(*rows, "cpu"), inputs, torch.float32)
    assert not torch.equal(coarse.pop("output"), fp32.pop("output"))
    assert_identical(coarse, fp32)


@needs_native
@bf16
def test_bf16_same_bits_for_every_run_and_thread_count(isa: str, precision: str) -> None:
    inputs, *rows = problem((1500, 40, 48, 3, 6, 2, 20))
    broken = {name: torch.full_like(tensor, math.nan) for name, tensor in inputs.items()}
    results = []
    with use_isa(isa):
        function = call(*rows, "cpu", None, precision)
        for threads in (1, 1, 2, 4):
            with use_threads(threads):
                results.append(function(inputs))
                assert function(broken)["output"].isnan().all()  # what scratch memory then holds
    for result in results[1:]:
        assert_identical(results[0], result)


@needs_native
@bf16
@pytest.mark.parametrize("rows", [1, 3])
def test_bf16_no_points(rows: int, isa: str, precision: str) -> None:
    inputs, *ends = problem((0, 3, 16, 2, rows, 1, 5))
    with use_isa(isa):
        assert call(*ends, "cpu", None, precision)(inputs)["output"].shape == (0, 5)


@needs_native
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


@needs_native
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


@needs_native
@pytest.mark.parametrize("isa", isas())
@pytest.mark.parametrize("precision", ["accurate", "fast"])
def test_precisions_that_the_instructions_lack(isa: str, precision: str) -> None:
    inputs, *rows = problem(SHAPES["one point"])
    with use_isa(isa):
        for backend in ("cpu", "auto"):
            with pytest.raises(BackendError, match=f"{precision}': it needs .*AMX.*{isa}"):
                call(*rows, backend, None, precision)(inputs)


@needs_native
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


@needs_native
def test_tile_model_multiplies_matrices() -> None:
    a, b = torch.randn(16, 32).bfloat16(), torch.randn(32, 16).bfloat16()
    c = torch.randn(16, 16)
    exact = c.double() + a.double() @ b.double()
    scale = c.double().abs() + a.double().abs() @ b.double().abs()
    error = (tiles(a, pairs(b), c).double() - exact).abs()
    assert (error <= 18 * torch.finfo(torch.float32).eps / 2 * scale).all()


@needs_native
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


@needs_native
@pytest.mark.skipif(not any("amx" in path for path in bf16_paths()), reason="no AMX here")
def test_tile_model_is_the_hardware() -> None:
    for scale in (1.0, 2.0**-70, 2.0**60):
        a = (scale * torch.randn(16, 32)).bfloat16()
        b, c = (scale * torch.randn(16, 32)).bfloat16(), scale * torch.randn(16, 16)
        assert torch.equal(tiles(a, b, c), tiles(a, b, c, "amx"))


@needs_native
@pytest.mark.skipif(shutil.which("objdump") is None, reason="objdump is not installed")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="tiles are an x86-64 matter")
def test_the_build_contains_tile_instructions() -> None:
    module = _extension.native()
    command = ["objdump", "-d", "--no-show-raw-insn", str(Path(module.__file__))]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for instruction in ("ldtilecfg", "tileloadd", "tdpbf16ps", "tilestored", "tilerelease"):
        assert instruction in listing
    assert "vdpbf16ps" in listing


@needs_native
@pytest.mark.parametrize(
    "offsets, groups",
    [
        ([1, 3, 5], [0, 0]),
        ([0, 6, 5], [0, 0]),
        ([0, 3, 6], [0, 0]),
        ([0, 3, 5], [0, 2]),
        ([0, 3, 5], [-1, 0]),
    ],
)
def test_rows_that_do_not_fit(offsets: list[int], groups: list[int]) -> None:
    inputs, _, _ = problem((5, 3, 8, 2, 2, 2, 4))
    with pytest.raises(ValueError, match="row_"):
        call(torch.tensor(offsets), torch.tensor(groups), "cpu")(inputs)


def test_shapes_that_do_not_fit() -> None:
    inputs, *rows = problem((5, 3, 8, 2, 2, 2, 4))
    for name in set(inputs) - {"points", "frequencies", "head_weight"}:
        wrong = {**inputs, name: inputs[name][..., :-1]}
        with pytest.raises(ValueError, match=f"film_siren: {name} has shape"):
            call(*rows, "reference")(wrong)
    wrong = {**inputs, "phases": inputs["phases"].double()}
    with pytest.raises(ValueError, match="phases is torch.float64"):
        call(*rows, "reference")(wrong)


@needs_native
def test_second_derivative_is_refused() -> None:
    inputs, *rows = problem((5, 3, 8, 2, 2, 2, 4))
    points = inputs["points"].requires_grad_()
    output = call(*rows, "cpu")(inputs)["output"]
    (grad,) = torch.autograd.grad(output.sum(), points, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd|does not require grad"):
        torch.autograd.grad(grad.sum(), points)


@needs_native
def test_registered_ops() -> None:
    inputs, offsets, groups = problem((70, 3, 8, 3, 2, 2, 4))
    values = list(inputs.values())
    tensors = [*values[:4], offsets, groups, *values[4:]]
    ops = torch.ops.semfaceedit
    call(offsets, groups, "cpu")(inputs)  # imports the module that registers them
    torch.library.opcheck(ops.film_siren_forward_cpu.default, (tensors, 2, "fp32"))
    needed = [True, False] * 6
    grad = torch.randn(70, 4)
    torch.library.opcheck(ops.film_siren_backward_cpu.default, (grad, tensors, 2, "fp32", needed))
