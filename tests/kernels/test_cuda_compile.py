"""csrc/*.cu compiled by nvcc for every architecture that is shipped: registers and spills."""

import re
import shutil
import subprocess
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
    "film_siren_sm80": {"chain_kernel": 255},
}  # fmt: skip
SPILLS = {"backward_kernel": 384, "chain_kernel": 640}  # bytes; outside the innermost loops
ARCHITECTURES = [
    pytest.param(80, marks=pytest.mark.slow), pytest.param(89, marks=pytest.mark.slow), 90,
]  # fmt: skip

Use = tuple[str, int, int, int]  # kernel, registers, bytes of spills, bytes of stack


def compile_file(stem: str, architecture: int, folder: Path) -> list[Use]:
    """What ptxas says about each kernel of csrc/<stem>.cu, an entry an instance of a template."""
    command = ["nvcc", "-std=c++17", "-O3", f"-arch=sm_{architecture}", "-cubin", "-Xptxas", "-v"]
    command += [str(ROOT / f"csrc/{stem}.cu"), "-o", str(folder / "out.cubin")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    pattern = (
        r"Compiling entry function '(\w+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
        r"(\d+) bytes spill loads.*?Used (\d+) registers"
    )
    found = re.findall(pattern, result.stderr, re.DOTALL)
    return [
        (kernel_name(stem, mangled), int(used), int(out) + int(back), int(stack))
        for mangled, stack, out, back, used in found
    ]


def kernel_name(stem: str, mangled: str) -> str:
    """A mangled name has its length before it."""
    return next(name for name in KERNELS[stem] if f"{len(name)}{name}" in mangled)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("stem", KERNELS)
def test_registers_and_spills(stem: str, architecture: int, tmp_path: Path) -> None:
    uses = compile_file(stem, architecture, tmp_path)
    print(*uses, sep="\n")
    assert {name for name, *_ in uses} == set(KERNELS[stem])
    for name, registers, spilled, stack in uses:
        assert registers <= KERNELS[stem][name], (name, registers)
        assert spilled <= SPILLS.get(name, 0), (name, spilled)
        assert stack <= SPILLS.get(name, 0), (name, stack)


# Instructions an element of an epilogue, matrix instructions aside: FiLM, whole turns off, sine,
# packing, and what an epilogue needs once.
PER_SINE = {64: 10.0, 128: 9.0, 256: 9.0}


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


def instructions_per_sine(code: list[str]) -> float:
    """Of the straight run of instructions that has the fewest for each of its sines."""
    runs: list[list[str]] = [[]]
    for instruction in code:
        name = instruction.split(".")[0]
        if name not in ("HMMA", "LDSM"):
            runs[-1].append(instruction)
        if name in ("BRA", "EXIT", "BAR"):
            runs.append([])
    sines = [run.count("MUFU.SIN") for run in runs]
    return min(len(run) / n for run, n in zip(runs, sines, strict=True) if n)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_machine_code_of_film_siren(architecture: int, tmp_path: Path) -> None:
    """Products by the matrix unit, each of them in the code once; short epilogues."""
    compile_file("film_siren_sm80", architecture, tmp_path)
    functions = functions_of(tmp_path / "out.cubin")
    assert len(functions) == 6
    for name, code in functions.items():
        match = re.search(r"chain_kernelILi(\d+)ELb(\d)", name)
        assert match is not None, name
        width, thin = int(match[1]), match[2] == "1"
        slab, narrow = 4 * (width // 8), 4 * 3  # four sixteens of inputs, tiles of eight outputs
        products = width // 64 * (2 * slab + narrow) + width // 16 * 3 + (0 if thin else slab)
        assert sum(part.startswith("HMMA") for part in code) == products, name
        assert not any(part.startswith("FRND") for part in code), name
        assert instructions_per_sine(code) <= PER_SINE[width], name
