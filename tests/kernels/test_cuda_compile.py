"""csrc/*.cu compiled by nvcc for every architecture that is shipped: registers and spills."""

import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")

# Kernels of each file, and how many registers a thread may have: what the launch bounds leave.
KERNELS = {
    "semantic_composite_cuda": {
        "mask_kernel": 64, "composite_kernel": 64, "grade_mask_kernel": 64,
        "grade_composite_kernel": 64,
    },
    "ray_isosurface_cuda": {
        "sample_kernel": 128, "hits_kernel": 64, "grade_rays_kernel": 64, "backward_kernel": 128,
        "add_rays_kernel": 64, "add_parts_kernel": 64,
    },
    "film_siren_sm80": {"chain_kernel": 255}, "film_siren_sm90": {"chain_kernel": 168},
    "film_siren_backward_sm80": {"backward_chain_kernel": 255},
    "film_siren_backward_sm90": {"backward_chain_kernel": 168},
    "film_siren_weight_gradients": {"weight_gradient_kernel": 255, "row_sums_kernel": 64},
    "film_siren_weight_gradients_sm90": {"weight_gradient_kernel": 168},
}  # fmt: skip
# Bytes of spills in the code and of a thread's stack, outside the innermost loops.
SPILLS = {"ray_isosurface_cuda": 384}
STACK = {"ray_isosurface_cuda": 384}
SPILLING = ("backward_kernel",)  # no others
SHIPPED = ("80", "89", "90a")
BODIES = {  # where they run
    "film_siren_sm80": ("80", "89"),
    "film_siren_sm90": ("90a",),
    "film_siren_backward_sm80": ("80", "89"),
    "film_siren_backward_sm90": ("90a",),
    "film_siren_weight_gradients": SHIPPED,
    "film_siren_weight_gradients_sm90": ("90a",),
}
CASES = [
    pytest.param(
        stem, architecture,
        marks=[] if architecture == BODIES.get(stem, SHIPPED)[-1] else pytest.mark.slow,
    )
    for stem in KERNELS for architecture in BODIES.get(stem, SHIPPED)
]  # fmt: skip
FORWARD_CASES = [case for case in CASES if case.values[0] in ("film_siren_sm80", "film_siren_sm90")]
BACKWARD_CASES = [case for case in CASES if str(case.values[0]).startswith("film_siren_backward")]
PRODUCT_CASES = [case for case in CASES if case.values[0] == "film_siren_weight_gradients"]

Use = tuple[str, int, int, int]  # kernel, registers, bytes of spills, bytes of stack


@functools.cache
def compiled(stem: str, architecture: str) -> tuple[str, dict[str, list[str]]]:
    """What ptxas says about csrc/<stem>.cu, and the instructions of its functions."""
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "out.cubin"
        command = ["nvcc", "-std=c++17", "-O3", f"-arch=sm_{architecture}", "-cubin"]
        command += ["-Xptxas", "-v", str(ROOT / f"csrc/{stem}.cu"), "-o", str(cubin)]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
        return result.stderr, functions_of(cubin) if stem in BODIES else {}


def uses_of(stem: str, said: str) -> list[Use]:
    """Of each kernel, an entry an instance of a template."""
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers"
    )
    return [
        (kernel_name(stem, mangled), int(used), int(out) + int(back), int(stack))
        for mangled, stack, out, back, used in re.findall(pattern, said, re.DOTALL)
    ]


def kernel_name(stem: str, mangled: str) -> str:
    """A mangled name has its length before it."""
    return next(name for name in KERNELS[stem] if f"{len(name)}{name}" in mangled)


@pytest.mark.parametrize(("stem", "architecture"), CASES)
def test_registers_and_spills(stem: str, architecture: str) -> None:
    said, _ = compiled(stem, architecture)
    uses = uses_of(stem, said)
    print(*uses, sep="\n")
    assert {name for name, *_ in uses} == set(KERNELS[stem])
    assert "serialized" not in said  # products that wait for each other
    for name, registers, spilled, stack in uses:
        assert registers <= KERNELS[stem][name], (name, registers)
        may = name in SPILLING
        assert spilled <= (SPILLS.get(stem, 0) if may else 0), (name, spilled)
        assert stack <= (STACK.get(stem, 0) if may else 0), (name, stack)


@pytest.mark.parametrize("stem", [stem for stem, runs in BODIES.items() if runs == ("90a",)])
def test_bodies_of_90a_are_empty_elsewhere(stem: str) -> None:
    """The module's files are compiled for all architectures, cluster attributes or not."""
    said, functions = compiled(stem, "80")
    assert {name for name, *_ in uses_of(stem, said)} == set(KERNELS[stem])
    for function, code in functions.items():
        assert not any(part.startswith(("HMMA", "HGMMA")) for part in code), function


# Instructions an element of an epilogue, matrix instructions aside: FiLM, whole turns off, sine,
# packing, and what an epilogue needs once.
PER_SINE = {64: 8.5, 128: 7.75, 256: 7.5}


def cuobjdump() -> str:
    """CUDA's, or the one that Triton brings."""
    found = shutil.which("cuobjdump")
    if found is None:
        triton = pytest.importorskip("triton")
        found = str(Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump")
    return found


def functions_of(cubin: Path) -> dict[str, list[str]]:
    """The instructions of each function, without operands."""
    command = [cuobjdump(), "-sass", str(cubin)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    pattern = r"\n\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z0-9_.]+)"
    return {part.split()[0]: re.findall(pattern, part) for part in text.split("Function :")[1:]}


PRODUCTS = ("HMMA", "HGMMA", "LDSM", "WARPGROUP")


def instructions_per_sine(code: list[str]) -> float:
    """Of the straight run of instructions that has the fewest for each of its sines."""
    runs: list[list[str]] = [[]]
    for instruction in code:
        name = instruction.split(".")[0]
        if name not in PRODUCTS:
            runs[-1].append(instruction)
        if name in ("BRA", "EXIT", "BAR", "WARPGROUP"):
            runs.append([])
    sines = [run.count("MUFU.SIN") for run in runs]
    return min(len(run) / n for run, n in zip(runs, sines, strict=True) if n)


def products_of(stem: str, width: int) -> int:
    """Matrix instructions of a kernel: each product is in the code once, 16 inputs at a time."""
    inputs = width // 16
    outputs, narrow = (1, 1) if stem == "film_siren_sm90" else (width // 8, 3)
    points_and_wide = 2 * inputs * outputs
    coordinates = 2 * outputs  # of points and of directions
    return points_and_wide + coordinates + inputs * (outputs + narrow) + inputs * narrow


@pytest.mark.parametrize(("stem", "architecture"), FORWARD_CASES)
def test_machine_code_of_film_siren(stem: str, architecture: str) -> None:
    """Products by the matrix unit, each of them in the code once; short epilogues."""
    _, functions = compiled(stem, architecture)
    assert len(functions) == 3
    name = "HGMMA" if stem == "film_siren_sm90" else "HMMA"
    for function, code in functions.items():
        match = re.search(r"chain_kernelILi(\d+)", function)
        assert match is not None, function
        width = int(match[1])
        of_units = [part for part in code if part.split(".")[0] in ("HMMA", "HGMMA")]
        assert len(of_units) == products_of(stem, width), function
        assert all(part.startswith(name + ".") for part in of_units)
        assert not any(part.startswith("FRND") for part in code), function
        assert code.count("MUFU.SIN") == width // 2, function  # one epilogue for all layers
        print(function, instructions_per_sine(code))
        assert instructions_per_sine(code) <= PER_SINE[width], function


# Instructions an element of the way back through a layer, from the first cosine to the last: FiLM,
# whole turns off, cosine, products with it, sums over points, the largest; on 9.0 also what lies
# between blocks of 64 columns: starting products of W h, code for the first layer and coordinates,
# and reading points where the first layer has no product. Most layers skip that.
PER_COSINE = {
    "film_siren_backward_sm80": {64: 9.0, 128: 12.0, 256: 14.0},
    "film_siren_backward_sm90": {64: 9.5, 128: 22.0, 256: 29.5},
}


def backward_products_of(stem: str, width: int) -> int:
    """Matrix instructions of the way there and back, each product in the code once but for W h on
    the way back, which is there for each 64 columns."""
    inputs, depth = width // 16, 4  # steps of 16 inputs: of a layer, of a slab
    layers, coordinates = 4 * inputs, 2  # points, a layer; a layer, points
    if stem == "film_siren_backward_sm90":
        return layers + coordinates + depth + width // 64 * (inputs + 1)
    return (layers + coordinates + depth) * (width // 8)


@pytest.mark.parametrize(("stem", "architecture"), BACKWARD_CASES)
def test_machine_code_of_the_gradients_of_film_siren(stem: str, architecture: str) -> None:
    """Products by the matrix unit, each in the code once, a layer's twice: there and back."""
    _, functions = compiled(stem, architecture)
    assert len(functions) == 3
    name = "HGMMA" if stem == "film_siren_backward_sm90" else "HMMA.16816.F32"
    for function, code in functions.items():
        match = re.search(r"backward_chain_kernelILi(\d+)", function)
        assert match is not None, function
        width = int(match[1])
        products = [part for part in code if part.startswith(("HMMA", "HGMMA"))]
        assert len(products) == backward_products_of(stem, width), function
        assert all(part.startswith(name) for part in products)
        assert code.count("MUFU.SIN") == code.count("MUFU.COS") == width // 2, function
        per_cosine = instructions_per_cosine(code)
        print(function, per_cosine)
        assert per_cosine <= PER_COSINE[stem][width], function


@pytest.mark.parametrize(("stem", "architecture"), PRODUCT_CASES)
def test_machine_code_of_products_over_points(stem: str, architecture: str) -> None:
    _, functions = compiled(stem, architecture)
    assert len(functions) == 6 + 1
    for function, code in functions.items():
        products = [part for part in code if part.startswith(("HMMA", "HGMMA"))]
        if match := re.search(r"weight_gradient_kernelILi(\d+)ELi(\d+)", function):
            left, right = int(match[1]), int(match[2])
            columns = right // (8 // (left // 64))
            assert len(products) == 2 * 4 * columns // 8, function  # 32 points
        assert all(part.startswith("HMMA.16816.F32") for part in products)


def test_machine_code_of_products_over_points_by_wgmma() -> None:
    """Four products for the 64 points of a part; a copy for the block, one for the cluster."""
    _, functions = compiled("film_siren_weight_gradients_sm90", "90a")
    sizes = {(128, cluster) for cluster in (1, 2, 3)} | {(64, 1)}
    seen = set()
    for function, code in functions.items():
        match = re.search(r"weight_gradient_kernelILi(\d+)ELi(\d+)ELi(\d+)", function)
        assert match is not None, function
        left, right, cluster = map(int, match.groups())
        seen.add((left, right, cluster))
        products = [part for part in code if part.startswith(("HMMA", "HGMMA"))]
        assert products == ["HGMMA.64"] * 4, function
        sums = right * left // 128 // 2  # of a thread: scaled before products, added in the end
        assert sums <= code.count("FMUL") <= sums + 8, function
        assert sums <= code.count("FFMA") <= sums + 8, function
        copies = [part for part in code if part.startswith("UBLKCP")]
        assert sorted(copies) == ["UBLKCP.S.G", "UBLKCP.S.G.MULTICAST"], function
    assert seen == {(left, right, c) for left, c in sizes for right in (64, 128, 256)}


def instructions_per_cosine(code: list[str]) -> float:
    first, last = code.index("MUFU.COS"), len(code) - code[::-1].index("MUFU.COS")
    own = [part for part in code[first:last] if part.split(".")[0] not in PRODUCTS]
    return len(own) / code.count("MUFU.COS")
