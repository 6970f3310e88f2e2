"""Tile sizes and other compile-time constants of `film_siren`'s Triton kernels."""

import os
from dataclasses import dataclass
from typing import Any

from ._triton import Version, ceil_div, interpreted, power_of_two, version

PRECISIONS = ("fp32", "tf32", "fp16")
DOT_PRECISION = {"fp32": "ieee", "tf32": "tf32", "fp16": "ieee"}
THIN = 3  # up to so many inputs the first layer is in fp32, straight from the points


@dataclass(frozen=True)
class Tiling:
    """Sizes of one kernel's tiles; `rows` points share a FiLM row."""

    rows: int
    columns: int
    slab: int
    warps: int
    stages: int
    view_columns: int = 0  # of a block of heads where only views are read; 0: as of the others
    view_blocks: int = 1  # the most of these that read the activations together
    registers: int | None = None  # a thread may use; None: the assembler balances them with spills


INTERPRETED = Tiling(
    rows=16, columns=16, slab=16, warps=4, stages=1, view_columns=32, view_blocks=2
)


def forward_tiling(
    precision: str, architecture: int, inputs: int, width: int, triton: Version | None = None
) -> Tiling:
    """`architecture` as 80, 89, 90, ...; 0: the interpreter. `inputs` of the first product, 0 if
    there is none. Chosen to spill no registers, which depends on the version of Triton; None: the
    installed one."""
    if architecture == 0:
        return INTERPRETED
    if precision == "fp32":
        return Tiling(rows=64, columns=32, slab=16, warps=8, stages=2, registers=255)
    if precision == "tf32":
        return Tiling(rows=64, columns=64, slab=16, warps=4, stages=2, registers=255)
    slab, stages, view, blocks = 32, 2, 32, 4  # others than 89 take these tiles untuned
    if architecture == 90:  # chains of eight wgmma, fed by what its shared memory holds
        slab = 128 if inputs <= THIN else 64
    elif architecture == 80:
        stages = 4  # spills registers on 89
    if (triton or version()) < (3, 9):
        blocks = 4 if width > 128 else 1
    elif architecture in (80, 90):
        view = 64  # spills registers on 89
    return Tiling(128, 128, slab, warps=8, stages=stages, view_columns=view, view_blocks=blocks)


def backward_tiling(precision: str, architecture: int) -> Tiling:
    if architecture == 0:
        return INTERPRETED
    if precision != "fp16":
        return Tiling(rows=64, columns=32, slab=16, warps=4, stages=3)
    return Tiling(rows=64, columns=64, slab=32, warps=4, stages=3)


def network_constants(
    width: int, layers: int, inputs: int, precision: str, *, identity: bool = False
) -> dict[str, Any]:
    """What all kernels of one call have in common. Zeros fill other widths up: sin(0 x + 0) = 0."""
    precise = os.environ.get("SEMFACEEDIT_PRECISE_SIN") == "1"
    return {
        "LAYERS": layers,
        "WIDTH": power_of_two(width, 16),
        "THIN": inputs <= THIN and not identity,
        "IDENTITY": identity,
        "PRECISION": DOT_PRECISION[precision],
        "FAST": precision != "fp32" and not precise and not interpreted(),
    }


def head_constants(channels: int, tiling: Tiling) -> dict[str, int]:
    """Blocks of columns: where only the view layer is read several share what they read."""
    columns = power_of_two(min(channels, 32, tiling.columns), 16)
    view = tiling.view_columns or columns
    blocks = min((padded_channels(channels) - columns) // view, tiling.view_blocks)
    if blocks == 0:
        view, blocks = columns, 1
    return {"HEAD_COLUMNS": columns, "VIEW_COLUMNS": view, "VIEW_BLOCKS": blocks}


def head_slab(channels: int, tiling: Tiling) -> int:
    """Depth of the products over channels in the backward pass; divides the padded channels."""
    return min(tiling.slab, _power_of_two_factor(padded_channels(channels)))


def padded_channels(channels: int) -> int:
    multiple = power_of_two(min(channels, 32), 16)
    return ceil_div(channels, multiple) * multiple


def product_constants(
    tiling: Tiling, left_width: int, right_width: int, groups: int, precision: str
) -> dict[str, Any]:
    """Tile sizes of the kernel for weight gradients."""
    return {
        "EVERY_GROUP": groups == 1,
        "ROWS": tiling.rows,
        "LEFT": min(64, tiling.columns, _power_of_two_factor(left_width)),
        "RIGHT": min(64, tiling.columns, _power_of_two_factor(right_width)),
        "SLAB": min(tiling.slab, tiling.rows),
        "PRECISION": DOT_PRECISION[precision],
    }


def tile_constants(tiling: Tiling, width: int) -> dict[str, int]:
    return {
        "ROWS": tiling.rows,
        "COLUMNS": min(tiling.columns, width),
        "SLAB": min(tiling.slab, width),
    }


def _power_of_two_factor(size: int) -> int:
    return size & -size
