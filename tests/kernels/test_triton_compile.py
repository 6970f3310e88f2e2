"""Every shipped Triton configuration, compiled ahead of time: resources and instructions.

Needs no GPU: Triton compiles for a named architecture, and its `cuobjdump` reads the result.
"""

import functools
import importlib
import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from semfaceedit.kernels import (
    _triton,
    film_siren_triton,
    film_siren_triton_tiling,
    ray_isosurface_triton,
    semantic_composite_triton,
)

pytest.importorskip("triton")

from triton_hazards import scratch_hazards  # noqa: E402

ARCHITECTURES = (80, 89, 90)  # those with tiles of their own; the others take those of 89
FEW_INSTRUCTIONS = 9  # an element, from a product to the sine of the layer above as an operand


@dataclass(frozen=True)
class Resources:
    shared: int  # bytes
    registers: int
    stack: int  # bytes
    local_loads: int
    local_stores: int
    tensor_instructions: int  # HMMA
    warpgroup_instructions: int  # HGMMA; UTCHMMA on sm_100
    rounding_instructions: int
    per_sine: float  # instructions, stores and all, of the leanest run of code with sines
    hazards: tuple[str, ...]


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

    prefix = "" if module == "triton_hazards" else "semfaceedit.kernels."
    kernel = getattr(importlib.import_module(prefix + module), name)
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
    hazards = scratch_hazards(compiled.asm["ttgir"])
    return inspect_cubin(compiled.asm["cubin"], compiled.metadata.shared, hazards)


def inspect_cubin(cubin: bytes, shared: int, hazards: list[str]) -> Resources:
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
        count("HGMMA") + count("UTCHMMA"),
        count("FRND"),
        instructions_per_sine(sass.stdout),
        tuple(hazards),
    )


def instructions_per_sine(sass: str) -> float:
    """Of the straight run of instructions that has the fewest for each of its sines."""
    runs: list[list[str]] = [[]]
    for line in sass.splitlines():
        code = re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z0-9_.]+)", line)
        if code is None:
            continue
        runs[-1].append(code[1])
        if code[1].split(".")[0] in ("BRA", "EXIT", "BAR"):
            runs.append([])
    sines = [sum(code == "MUFU.SIN" for code in run) for run in runs]
    return min((len(run) / n for run, n in zip(runs, sines, strict=True) if n), default=0.0)


def assert_fits(resources: Resources, architecture: int) -> None:
    print(architecture, resources)
    assert resources.shared <= _triton.SHARED_LIMIT[architecture], resources
    assert resources.registers <= 255, resources
    assert not resources.hazards, resources


def assert_no_spills(resources: Resources) -> None:
    assert resources.local_loads == resources.local_stores == 0, resources


def assert_tensor_cores(resources: Resources, architecture: int) -> None:
    warpgroup = architecture in (90, 100)
    used = resources.warpgroup_instructions if warpgroup else resources.tensor_instructions
    assert used > 0, resources


def types_of(pointers: str, integers: str, **others: str) -> dict[str, str]:
    """fp32 pointers and 32-bit integers, separated by spaces; `others` by name."""
    return {
        **dict.fromkeys(pointers.split(), "*fp32"),
        **dict.fromkeys(integers.split(), "i32"),
        **others,
    }


@functools.cache
def composite(name: str, architecture: int, hit_count: int, channels: int) -> Resources:
    pointers = (
        "alpha semantics semantic_map colors depths color depth weights grad_mixed grad_depth "
        "grad_weights values grad_alpha grad_values grad_depths"
    )
    types = types_of(pointers, "rays hit_count channels", labels="*i64")
    constants: dict[str, Any] = semantic_composite_triton.forward_constants(channels)
    if name == "backward_kernel":
        constants = semantic_composite_triton.backward_constants(hit_count, channels)
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
    "last_weight last_bias points depths grad_depth partial grad_rays scratch inverses"
)


@functools.cache
def field(
    name: str, architecture: int, sizes: tuple[int, int, int], precision: str = "fp32"
) -> Resources:
    hit_count, samples, width = sizes
    types = types_of(
        FIELD_TENSORS,
        "rays surfaces samples hit_count partial_size",
        **dict.fromkeys(("centre_x", "centre_y", "centre_z", "scale", "far", "plane_z"), "fp32"),
        **dict.fromkeys(("level", "plane_index", "entries", "count"), "*i64"),
        **dict.fromkeys(("first_parts", "hidden_parts"), "*fp16"),
        valid="*i1",
        interval="*i32",
    )
    host = ray_isosurface_triton
    warps, stages = host.WARPS, host.STAGES
    if name == "forward_kernel":
        tiling = host.forward_tiling(samples, width, 2, precision, architecture)
        constants = host.forward_constants(hit_count, samples, width, 2, precision, tiling)
        warps, stages = tiling.warps, tiling.stages
    else:
        constants = host.backward_constants(width, 2, precision)
        constants |= {"NEED_WEIGHTS": True, "NEED_RAYS": False}
    return compile_kernel(
        "ray_isosurface_triton_kernels", name, types, constants, architecture, warps=warps,
        stages=stages,
    )  # fmt: skip


FIELDS = {"paper": (24, 64, 128), "small": (9, 24, 64)}


EVERY_FIELD = [
    pytest.param(name, precision, architecture, marks=[] if quick else [pytest.mark.slow])
    for name in FIELDS
    for precision in ("fp32", "tf32")  # fp16 is fp32 there
    for architecture in _triton.ARCHITECTURES
    for quick in [precision == "fp32" and architecture in ARCHITECTURES]
]


@pytest.mark.parametrize(("name", "precision", "architecture"), EVERY_FIELD)
def test_field_forward(name: str, precision: str, architecture: int) -> None:
    resources = field("forward_kernel", architecture, FIELDS[name], precision)
    assert_fits(resources, architecture)
    assert_no_spills(resources)
    _, samples, width = FIELDS[name]
    tiling = ray_isosurface_triton.forward_tiling(samples, width, 2, precision, architecture)
    assert resources.registers <= tiling.registers, tiling
    assert resources.registers * 32 * tiling.warps * tiling.programs <= 65536, tiling
    assert (resources.shared + 1024) * tiling.programs <= _triton.SHARED_LIMIT[architecture] + 1024
    if tiling.kept:  # all weights lie in shared memory
        assert resources.shared >= tiling.parts * 2 * 2 * width**2
    if tiling.parts == 0:  # through scratch, as in the backward pass
        assert architecture == 100
        return
    products = {1: 1, 2: 3}[tiling.parts]  # in fp16, of 16 numbers each
    steps = 1 + 2 * products * width // 16
    if architecture in (90, 100):
        assert resources.warpgroup_instructions == steps, resources
    else:
        rows = tiling.rays * 2 ** (samples - 1).bit_length()
        of_warp = rows * width // (16 * 8 * tiling.warps)
        assert resources.tensor_instructions == steps * of_warp, resources


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", FIELDS)
def test_field_backward(name: str, architecture: int) -> None:
    resources = field("backward_kernel", architecture, FIELDS[name])
    assert_fits(resources, architecture)
    host = ray_isosurface_triton
    assert resources.registers * 32 * host.WARPS * host.SCRATCH_PROGRAMS <= 65536


FILM_TENSORS = (
    "points directions scales shifts view_direction head_bias output affine inverses film_bounds "
    "matrix_bounds head_bounds grad_output sums grad_points grad_directions product row_sums"
)
FILM_OPERANDS = "first_weight weights head_weight copied scratch deltas output_deltas left right"
FILM_INTEGERS = (
    "first_tile tile_bound inputs padded_inputs channels padded_channels trunk_channels heads "
    "slots size left_slot left_layer right_slot right_layer inverse_slot inverse_layer left_width "
    "right_width groups"
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
    host = film_siren_triton_tiling
    tiling = host.backward_tiling(precision, architecture)
    constants = host.network_constants(
        width, layers, inputs or width, precision, identity=inputs == 0
    )
    if name == "forward_kernel":
        tiling = host.forward_tiling(precision, architecture, inputs, width)
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
    module = "kernels" if name == "forward_kernel" else "backward_kernels"
    types = film_types(precision, inputs or width)
    return compile_kernel(
        f"film_siren_triton_{module}", name, types, constants, architecture,
        warps=tiling.warps, stages=tiling.stages, registers=tiling.registers,
    )  # fmt: skip


# Width, layers, inputs (0: no first product), channels
STACKS = {
    "paper geometry": (256, 8, 3, 276),  # seven summed heads of density, classes and descriptor
    "paper geometry without descriptors": (256, 8, 3, 20),
    "paper appearance": (256, 8, 256, 3),
    "paper appearance, no first product": (256, 8, 0, 3),
    "geometry of width 128": (128, 8, 3, 148),
    "small geometry": (64, 3, 3, 84),
    "small appearance": (64, 2, 64, 3),
    "small appearance, no first product": (64, 2, 0, 3),
}
QUICK = ("paper geometry", "paper appearance, no first product")
EVERY_STACK = [
    pytest.param(name, precision, architecture, marks=[] if quick else [pytest.mark.slow])
    for name in STACKS
    for precision in film_siren_triton.PRECISIONS
    for architecture in ARCHITECTURES
    for quick in [precision == "fp16" and name in QUICK]
]


@pytest.mark.parametrize(("name", "precision", "architecture"), EVERY_STACK)
def test_stack_forward(name: str, precision: str, architecture: int) -> None:
    resources = film("forward_kernel", architecture, precision, *STACKS[name])
    assert_fits(resources, architecture)
    assert_no_spills(resources)
    if precision != "fp32":
        assert_tensor_cores(resources, architecture)
        assert resources.rounding_instructions == 0
    if precision == "fp16":
        assert 0 < resources.per_sine <= FEW_INSTRUCTIONS, resources


OTHERS = [
    pytest.param(name, number, marks=[] if name == "small geometry" else [pytest.mark.slow])
    for name in STACKS
    for number in sorted(set(_triton.ARCHITECTURES) - set(ARCHITECTURES))
]


@pytest.mark.parametrize(("name", "architecture"), OTHERS)
def test_stack_on_architectures_without_tiles_of_their_own(name: str, architecture: int) -> None:
    resources = film("forward_kernel", architecture, "fp16", *STACKS[name])
    assert_fits(resources, architecture)
    assert_tensor_cores(resources, architecture)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_loop_without_a_barrier_is_found(architecture: int) -> None:
    resources = compile_kernel(
        "triton_hazards", "layers_without_a_barrier",
        {"scratch": "*fp16", "weights": "*fp16", "layers": "i32"},
        {"WIDTH": 64, "ROWS": 64, "SLAB": 64}, architecture, stages=3,
    )  # fmt: skip
    assert resources.hazards


CHANGING = {  # sizes that differ between calls of one program: of the last chunk, of other poses
    "film_siren_triton_kernels": {"forward_kernel": {"first_tile", "tile_bound"}},
    "film_siren_triton_backward_kernels": {
        "backward_kernel": {"first_tile", "tile_bound"},
        "weight_gradient_kernel": {"slots"},
        "row_sums_kernel": {"first_tile", "slots"},
    },
    "ray_isosurface_triton_kernels": {"forward_kernel": {"rays"}},
    "semantic_composite_triton_kernels": {
        "semantic_forward_kernel": {"rays"},
        "color_forward_kernel": {"rays"},
        "backward_kernel": {"rays"},
    },
}


@pytest.mark.parametrize("module", CHANGING)
def test_sizes_that_change_do_not_compile_anew(module: str) -> None:
    for name, sizes in CHANGING[module].items():
        kernel = getattr(importlib.import_module(f"semfaceedit.kernels.{module}"), name)
        unspecialised = {p.name for p in kernel.params if p.do_not_specialize}
        assert sizes == unspecialised, name


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
    constants = {"BLOCK": host.SUMS_BLOCK, "DEPTH": host.SUMS_DEPTH}
    types = film_types("fp32", 3)
    resources = compile_kernel(
        "film_siren_triton_backward_kernels", "row_sums_kernel", types, constants, ARCHITECTURES[0]
    )
    assert_no_spills(resources)
