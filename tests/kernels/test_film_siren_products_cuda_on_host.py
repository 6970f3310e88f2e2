"""Products over points of `film_siren`'s backward pass in CUDA, compiled for the host."""

import functools
import shutil
import sys
from dataclasses import dataclass
from types import ModuleType

import pytest
import torch
from test_film_siren_cuda_on_host import FAULTS, SEEDS, capability
from torch import Tensor

from semfaceedit.kernels._extension import addresses, on_stream

__all__ = ["capability"]  # a fixture

pytestmark = [
    pytest.mark.usefixtures("one_thread", "cuda_on_host", "capability"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
    pytest.mark.skipif(sys.platform != "linux", reason="coroutines of glibc"),
]


@dataclass(frozen=True)
class Sizes:
    """left^T right over parts of tiles, of which some are of no group."""

    width: int
    left: int
    right: int
    parts: int = 9
    layers: int = 1
    groups: int = 1
    splits: int = 2
    trunk: int = -1


CASES = {
    "one block": Sizes(64, 64, 64),
    "two halves of right": Sizes(256, 64, 256, parts=3),
    "blocks of 128": Sizes(128, 128, 128, layers=2),
    "clusters of two": Sizes(256, 256, 256, parts=5),
    "clusters of three": Sizes(64, 384, 64, layers=3),
    "five blocks": Sizes(64, 640, 64, parts=3),
    "four blocks": Sizes(64, 512, 64, parts=3),
    "right wider than a block": Sizes(64, 256, 192, parts=5),
    "groups": Sizes(64, 128, 64, groups=3, splits=1),
    "more than 32 parts": Sizes(64, 64, 64, parts=70, groups=2, splits=1),
    "more splits than parts": Sizes(64, 128, 64, parts=3, splits=5),
    "trunk in the first of three blocks": Sizes(64, 384, 64, layers=3, trunk=1),
    "trunk in two of three blocks": Sizes(64, 384, 64, layers=2, trunk=130),
    "trunk of all channels": Sizes(64, 256, 64, layers=2, trunk=256),
    "no trunk": Sizes(64, 256, 64, layers=2, trunk=0),
}


def matrix_order(values: Tensor) -> Tensor:
    """(..., points, columns) in halves to (..., words), as csrc/film_siren_backward.h says."""
    *outer, points, columns = values.shape
    by_matrix = values.half().reshape(-1, points // 16, 2, 8, columns // 16, 2, 8)
    halves = by_matrix.permute(0, 1, 4, 5, 2, 3, 6).reshape(*outer, -1)
    return halves.contiguous().view(torch.int32)


@functools.cache
def problem(sizes: Sizes, points: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """left (parts, layers, points, columns), right; inverse scales (parts, layers); groups."""
    generator = torch.Generator().manual_seed(0)
    shape = sizes.parts, sizes.layers, points
    left = torch.randn(*shape, sizes.left, generator=generator).half()
    right = torch.randn(*shape, sizes.right, generator=generator).half()
    exponents = torch.randint(-8, 8, shape[:2], generator=generator)
    exponents[sizes.parts // 2] -= 90  # left out, and would be infinite otherwise
    groups = torch.randint(0, sizes.groups, (sizes.parts,), generator=generator)
    unused = slice(1, None, 3)
    groups[unused] = -1
    left[unused] = right[unused] = torch.nan
    return left, right, torch.exp2(exponents.float()), groups


def read(sizes: Sizes) -> Tensor:
    """Of (layers, left columns): what has to be there. The last two layers read trunk and view."""
    wanted = torch.ones(sizes.layers, sizes.left, dtype=torch.bool)
    if sizes.trunk >= 0:
        wanted[-2, sizes.trunk :] = False
        wanted[-1, : sizes.trunk] = False
    return wanted


def exact(sizes: Sizes, points: int) -> Tensor:
    """(layers, groups, left columns, right columns) in float64."""
    left, right, inverses, groups = problem(sizes, points)
    result = torch.zeros(sizes.layers, sizes.groups, sizes.left, sizes.right, dtype=torch.float64)
    for part in torch.nonzero(groups >= 0).flatten().tolist():
        product = left[part].double().mT @ right[part].double()
        result[:, groups[part]] += inverses[part].double()[:, None, None] * product
    return result


def run(module: ModuleType, sizes: Sizes) -> Tensor:
    """(splits, layers, groups, left columns, right columns), added to ones."""
    points = module.film_siren_rows(0) // module.film_siren_backward_parts(0)
    left, right, inverses, groups = problem(sizes, points)
    words = [matrix_order(left), matrix_order(right)]
    product = torch.ones(sizes.splits, sizes.layers, sizes.groups, sizes.left, sizes.right)
    strides = [size for tensor in (*words, inverses) for size in tensor.stride()[:2]]
    numbers = [
        sizes.parts, sizes.layers, sizes.groups, sizes.splits, sizes.groups == 1, points // 16,
        sizes.left // 16, sizes.right // 16, sizes.trunk, *strides,
    ]  # fmt: skip
    with on_stream(product) as place:
        module.film_siren_weight_gradients(
            sizes.width, numbers, addresses(*words, inverses, groups, product), place
        )
    return product


@pytest.mark.parametrize("sizes", CASES.values(), ids=CASES)
def test_products(sizes: Sizes, host_module: ModuleType) -> None:
    points = host_module.film_siren_rows(0) // host_module.film_siren_backward_parts(0)
    product = run(host_module, sizes)
    assert product.isfinite().all()
    actual, expected = (product.double() - 1).sum(0), exact(sizes, points)
    wanted = read(sizes)[:, None, :, None].expand_as(expected)
    torch.testing.assert_close(actual[wanted], expected[wanted], rtol=1e-5, atol=2e-3)


# Several rounds of a ring, blocks that share right, one that reads nothing, groups.
SCHEDULED = {
    "clusters of two": Sizes(64, 256, 64, parts=16, groups=2, splits=1),
    "clusters of three": Sizes(64, 384, 64, parts=16, layers=2, splits=1, trunk=1),
    "halves": Sizes(128, 64, 128, parts=16, splits=1),
}


@functools.cache
def undisturbed(module: ModuleType, case: str, capability: str) -> Tensor:
    return run(module, SCHEDULED[case])


@pytest.mark.parametrize("case", SCHEDULED)
def test_any_order_of_warps_copies_and_products(
    case: str, capability: str, host_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = undisturbed(host_module, case, capability)
    for seed in SEEDS:
        monkeypatch.setenv("CUDA_ON_HOST_SEED", str(seed))
        assert torch.equal(run(host_module, SCHEDULED[case]), wanted)
    monkeypatch.setenv("CUDA_ON_HOST_REVERSED", "1")
    assert torch.equal(run(host_module, SCHEDULED[case]), wanted)


OF_PRODUCTS = {
    "80": (
        "copies are not waited for",
        "a group too few is waited for",
        "half a piece is copied",
        "matrices are not transposed",
        "no barrier: points",
        "no barrier: inverses are put down",
    ),
    "90": (
        # Products of a part are waited for at once, whatever place they read.
        *(
            what
            for what in FAULTS["90"]
            if what != "a place is released before its products are done"
        ),
        "a matrix is not transposed",
        "a matrix has another stride",
    ),
}


@pytest.mark.parametrize(
    ("capability", "fault"),
    [(capability, fault) for capability, faults in OF_PRODUCTS.items() for fault in faults],
    indirect=["capability"],
)
def test_a_fault_in_the_order_of_things_shows(
    capability: str, fault: str, host_module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another result, or as an error of what stands in for the hardware."""
    for case in SCHEDULED:
        wanted = undisturbed(host_module, case, capability)
        for seed in SEEDS:
            with monkeypatch.context() as patch:
                patch.setenv("CUDA_ON_HOST_FAULT", fault)
                patch.setenv("CUDA_ON_HOST_SEED", str(seed))
                try:
                    actual = run(host_module, SCHEDULED[case])
                except RuntimeError as error:
                    print(fault, case, seed, error)
                    return
            if not torch.equal(actual, wanted):
                print(fault, case, seed, "another result")
                return
    pytest.fail(f"nobody noticed: {fault}")
