"""Every shipped Triton configuration, compiled ahead of time: resources and instructions.

Needs no GPU: Triton compiles for a named architecture, and its `cuobjdump` reads the result.
"""

import functools
import importlib
import importlib.util
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from semfaceedit.kernels import film_siren_triton, ray_isosurface_triton, semantic_composite_triton

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed"
)

SHARED_LIMIT = {80: 163 * 1024, 89: 99 * 1024, 90: 227 * 1024}  # bytes a program may use
ARCHITECTURES = tuple(SHARED_LIMIT)


@dataclass(frozen=True)
class Resources:
    shared: int  # bytes
    registers: int
    stack: int  # bytes
    local_loads: int
    local_stores: int
    tensor_instructions: int  # HMMA
    warpgroup_instructions: int  # HGMMA
    unguarded_copies: int  # asynchronous copies of what was stored with no barrier in between


def compile_kernel(
    module: str,
    name: str,
    types: dict[str, str],
    constants: dict[str, Any],
    architecture: int,
    *,
    warps: int = 4,
    stages: int = 1,
    registers: int | None = None,
) -> Resources:
    """`types` of the arguments that are not constants; pointers are aligned to 16 bytes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(importlib.import_module(f"semfaceedit.kernels.{module}"), name)
    signature = {
        argument: "constexpr" if argument in constants else types[argument]
        for argument in kernel.arg_names
    }
    aligned = {
        (index,): [["tt.divisibility", 16]]
        for index, argument in enumerate(kernel.arg_names)
        if signature[argument].startswith("*")
    }
    source = ASTSource(kernel, signature, constants, attrs=aligned)
    compiled = triton.compile(
        source,
        target=GPUTarget("cuda", architecture, 32),
        options={
            "num_warps": warps,
            "num_stages": stages,
            "maxnreg": registers,
            "enable_fp_fusion": True,
        },
    )
    unguarded = unguarded_copies(compiled.asm["ttgir"])
    return inspect_cubin(compiled.asm["cubin"], compiled.metadata.shared, unguarded)


def unguarded_copies(ttgir: str) -> int:
    """Copies that could read a scratch tile before all threads have written it.

    The program's order is that of its text. What an address was computed from tells its tensor; an
    index that was loaded from memory does not count.
    """
    tensors = {name: {name} for name in re.findall(r"(%\w+): !tt\.ptr", ttgir)}
    stored: set[str] = set()
    count = 0
    for line in ttgir.splitlines():
        code = line.split(" loc(")[0]
        target, _, value = code.partition(" = ")
        if not target.strip().startswith("%"):
            target, value = "", code
        names = [tensors.get(name, set()) for name in re.findall(r"%[\w-]+", value)]
        for name, start in re.findall(r"(%[\w-]+) = (%[\w-]+)[,)]", code):
            tensors[name] = tensors.get(start, set())
        if target:
            result = re.findall(r"%[\w-]+", target)[0]
            tensors[result] = set() if "tt.load" in code else set().union(*names)
        if "barrier" in code:
            stored.clear()
        elif "tt.store" in code:
            stored |= names[0]
        elif "async_copy_global_to_local" in code:
            count += bool(stored & names[0])
    return count


def inspect_cubin(cubin: bytes, shared: int, unguarded: int) -> Resources:
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, sass = (
            subprocess.run([tool, flag, file.name], capture_output=True, text=True, check=True)
            for flag in ("-res-usage", "-sass")
        )
    registers, stack = re.findall(r"REG:(\d+) STACK:(\d+)", usage.stdout)[0]

    def count(opcode: str) -> int:
        return len(re.findall(rf"\s{opcode}\b", sass.stdout))

    return Resources(
        shared,
        int(registers),
        int(stack),
        count("LDL"),
        count("STL"),
        count("HMMA"),
        count("HGMMA"),
        unguarded,
    )


def assert_fits(resources: Resources, architecture: int) -> None:
    print(architecture, resources)
    assert resources.shared <= SHARED_LIMIT[architecture], resources
    assert resources.registers <= 255, resources
    assert resources.unguarded_copies == 0, resources


def assert_no_spills(resources: Resources) -> None:
    assert resources.local_loads == resources.local_stores == 0, resources


def assert_tensor_cores(resources: Resources, architecture: int) -> None:
    used = resources.warpgroup_instructions if architecture == 90 else resources.tensor_instructions
    assert used > 0, resources


def types_of(pointers: str, integers: str, **others: str) -> dict[str, str]:
    """fp32 pointers and 32-bit integers, separated by spaces; `others` by name."""
    return {
        **dict.fromkeys(pointers.split(), "*fp32"),
        **dict.fromkeys(integers.split(), "i32"),
        **others,
    }


@functools.cache
def composite(name: str, architecture: int, hits: int, channels: int) -> Resources:
    pointers = (
        "alpha semantics semantic_map colors depths color depth weights grad_mixed grad_depth "
        "grad_weights values grad_alpha grad_values grad_depths"
    )
    types = types_of(pointers, "rays hits channels", labels="*i64")
    constants: dict[str, Any] = semantic_composite_triton.forward_constants(channels)
    if name == "backward_kernel":
        constants = semantic_composite_triton.backward_constants(hits, channels)
        constants |= {"NEED_ALPHA": True, "NEED_VALUES": True}
        constants |= dict.fromkeys(("DEPTH", "NEED_DEPTHS"), channels == 3)
    module = "semantic_composite_triton_kernels"
    return compile_kernel(module, name, types, constants, architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("semantic_forward_kernel", 19),
        ("color_forward_kernel", 3),
        ("backward_kernel", 3),
        ("backward_kernel", 19),
    ],
)
def test_composite(name: str, channels: int, architecture: int) -> None:
    resources = composite(name, architecture, 24, channels)
    assert_fits(resources, architecture)
    assert_no_spills(resources)


FIELD_TENSORS = (
    "origins directions levels distances first_weight first_bias hidden_weight hidden_bias "
    "last_weight last_bias points depths grad_depth partial grad_rays scratch"
)


@functools.cache
def field(name: str, architecture: int, hits: int, samples: int, width: int) -> Resources:
    types = types_of(
        FIELD_TENSORS,
        "rays surfaces samples hits partial_size",
        **dict.fromkeys(("centre_x", "centre_y", "centre_z", "scale", "far", "plane_z"), "fp32"),
        **dict.fromkeys(("level", "plane_index", "entries", "count"), "*i64"),
        valid="*i1",
        interval="*i32",
    )
    if name == "forward_kernel":
        constants = ray_isosurface_triton.forward_constants(hits, samples, width, 2, "fp32")
    else:
        constants = ray_isosurface_triton.backward_constants(width, 2, "fp32")
        constants |= {"NEED_WEIGHTS": True, "NEED_RAYS": False}
    module = "ray_isosurface_triton_kernels"
    warps = ray_isosurface_triton.WARPS
    return compile_kernel(
        module,
        name,
        types,
        constants,
        architecture,
        warps=warps,
        stages=ray_isosurface_triton.STAGES,
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("sizes", [(24, 64, 128), (9, 24, 64)], ids=["paper", "small"])
def test_field_forward(sizes: tuple[int, int, int], architecture: int) -> None:
    resources = field("forward_kernel", architecture, *sizes)
    assert_fits(resources, architecture)
    assert_tensor_cores(resources, architecture)
    assert_no_spills(resources)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("sizes", [(24, 64, 128), (9, 24, 64)], ids=["paper", "small"])
def test_field_backward(sizes: tuple[int, int, int], architecture: int) -> None:
    assert_fits(field("backward_kernel", architecture, *sizes), architecture)


FILM_TENSORS = (
    "points directions frequencies phases first_bias biases view_direction head_bias output affine "
    "grad_output scale sums grad_points grad_directions product row_sums"
)
FILM_OPERANDS = "first_weight weights head_weight copied scratch deltas output_deltas left right"
FILM_INTEGERS = (
    "first_tile tile_bound inputs padded_inputs channels padded_channels trunk_channels heads "
    "slots size left_slot left_layer right_slot right_layer left_width right_width groups"
)


def film_types(precision: str, inputs: int) -> dict[str, str]:
    operand = "*fp16" if precision == "fp16" else "*fp32"
    types = types_of(
        FILM_TENSORS,
        FILM_INTEGERS,
        **dict.fromkeys(FILM_OPERANDS.split(), operand),
        **dict.fromkeys("row_groups tiles tile_count tile_groups first_tiles".split(), "*i64"),
    )
    return {**types, "first_weight": "*fp32" if inputs <= 3 else operand}


@functools.cache
def film(
    name: str,
    architecture: int,
    precision: str,
    width: int,
    layers: int,
    inputs: int,
    channels: int,
) -> Resources:
    host = film_siren_triton
    tiling = host.backward_tiling(precision, architecture)
    constants = host.network_constants(width, layers, inputs, precision)
    if name == "forward_kernel":
        tiling = host.forward_tiling(precision, architecture, inputs)
        constants |= {"KEEP": False, **host.head_constants(channels, tiling)}
    elif name == "recompute":
        name = "forward_kernel"
        constants |= {"KEEP": True, **host.head_constants(channels, tiling)}
    elif name == "backward_kernel":
        constants |= {"NEED_POINTS": True, "NEED_DIRECTIONS": True}
        constants |= {"HEAD_SLAB": host.head_slab(channels, tiling)}
    if name == "weight_gradient_kernel":
        constants = host.product_constants(tiling, width, width, 1, precision)
    else:
        constants |= host.tile_constants(tiling, width)
    return compile_kernel(
        "film_siren_triton_kernels", name, film_types(precision, inputs), constants, architecture,
        warps=tiling.warps, stages=tiling.stages, registers=tiling.registers,
    )  # fmt: skip


# Width, layers, inputs, channels
STACKS = {
    "paper geometry": (256, 8, 3, 276),  # seven summed heads of density, classes and descriptor
    "paper geometry without descriptors": (256, 8, 3, 20),
    "paper appearance": (256, 8, 256, 3),
    "geometry of width 128": (128, 8, 3, 148),
    "small geometry": (64, 3, 3, 84),
    "small appearance": (64, 2, 64, 3),
}
EVERY_STACK = [
    pytest.param(name, precision, architecture, marks=[] if quick else [pytest.mark.slow])
    for name in STACKS
    for precision in film_siren_triton.PRECISIONS
    for architecture in ARCHITECTURES
    for quick in [name == "paper geometry" and precision == "fp16"]
]


@pytest.mark.parametrize(("name", "precision", "architecture"), EVERY_STACK)
def test_stack_forward(name: str, precision: str, architecture: int) -> None:
    resources = film("forward_kernel", architecture, precision, *STACKS[name])
    assert_fits(resources, architecture)
    assert_no_spills(resources)
    if precision != "fp32":
        assert_tensor_cores(resources, architecture)


@pytest.mark.slow
@pytest.mark.parametrize("kernel", ["recompute", "backward_kernel", "weight_gradient_kernel"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("precision", film_siren_triton.PRECISIONS)
@pytest.mark.parametrize("name", STACKS)
def test_stack_backward(name: str, precision: str, architecture: int, kernel: str) -> None:
    resources = film(kernel, architecture, precision, *STACKS[name])
    assert_fits(resources, architecture)
    if kernel == "weight_gradient_kernel" and precision == "tf32":
        architecture = 80  # sm_90's own instructions take no transposed operands in tf32
    if precision != "fp32":
        assert_tensor_cores(resources, architecture)


def test_row_sums() -> None:
    host = film_siren_triton
    constants = {"BLOCK": host.SUMS_BLOCK}
    types = film_types("fp32", 3)
    resources = compile_kernel(
        "film_siren_triton_kernels", "row_sums_kernel", types, constants, ARCHITECTURES[0]
    )
    assert_no_spills(resources)
