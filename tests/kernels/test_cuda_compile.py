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
}  # fmt: skip
SPILLS = {"backward_kernel": 384}  # bytes; outside the innermost loops
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
