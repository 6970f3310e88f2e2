"""Where a compiled Triton kernel could read a tile of scratch before it has been written.

Triton's GPU code (TTGIR) in the order of its text, loops included. Two rules: no asynchronous copy
of what was stored with no barrier in between, and no copy or load that the pipeliner moved into an
earlier turn of a loop whose stores reach the same tensor: there no barrier stands between them.
"""

import re
from dataclasses import dataclass, field

import triton
import triton.language as tl

from semfaceedit.kernels._triton_dense import times_transposed

Roots = set[str]  # the arguments of the kernel that an address was computed from


@dataclass
class _Loop:
    line: int
    stores: Roots = field(default_factory=set)
    ahead: dict[str, Roots] = field(default_factory=dict)  # values by name: copies, their tokens
    handed_on: set[str] = field(default_factory=set)  # what the loop yields to its next turn


def scratch_hazards(ttgir: str) -> list[str]:
    """A line for each hazard. An index that was loaded from memory does not make a root."""
    roots: dict[str, Roots] = {name: {name} for name in re.findall(r"(%\w+): !tt\.ptr", ttgir)}
    regions: list[_Loop | None] = []
    stored: Roots = set()
    hazards = []
    for number, line in enumerate(ttgir.splitlines(), 1):
        code = line.split(" loc(")[0].strip()
        if code.startswith("}") and regions:
            loop = regions.pop()
            if loop is not None:
                hazards += _hazards_of(loop)
        target, _, value = code.partition(" = ")
        if not target.startswith("%"):
            target, value = "", code
        operands = re.findall(r"%[\w-]+", value)
        read = set().union(*(roots.get(name, set()) for name in operands))
        for name, start in re.findall(r"(%[\w-]+) = (%[\w-]+)[,)]", code):
            roots[name] = roots.get(start, set())
        result = re.findall(r"%[\w-]+", target)[0] if target else ""
        if result:
            roots[result] = set() if "tt.load" in code else read
        loops = [region for region in regions if region is not None]
        address = roots.get(operands[0], set()) if operands else set()
        if "barrier" in code:
            stored.clear()
        elif "tt.store" in code:
            stored |= address
            for loop in loops:
                loop.stores |= address
        elif "async_copy_global_to_local" in code or "tt.load" in code:
            if "async_copy" in code and stored & address:
                hazards.append(f"line {number}: copy of {_names(stored & address)} just stored")
            if loops:
                loops[-1].ahead[result] = address
        elif "async_commit_group" in code and loops:
            copied = (loops[-1].ahead.get(name, set()) for name in operands)
            loops[-1].ahead[result] = set().union(*copied)
        elif "scf.yield" in code and regions and regions[-1] is not None:
            regions[-1].handed_on |= set(operands)
        if code.endswith("{"):
            regions.append(_Loop(number) if "scf.for" in code else None)
    return hazards


def _hazards_of(loop: _Loop) -> list[str]:
    carried = set().union(*(loop.ahead.get(name, set()) for name in loop.handed_on))
    both = carried & loop.stores
    return [f"loop at line {loop.line}: {_names(both)} copied a turn ahead"] if both else []


def _names(roots: Roots) -> str:
    return ", ".join(sorted(roots))


@triton.jit
def layers_without_a_barrier(
    scratch, weights, layers, WIDTH: tl.constexpr, ROWS: tl.constexpr, SLAB: tl.constexpr
):
    """As the layers of `film_siren`, less the barrier: `scratch_hazards` must find it."""
    row, column = tl.arange(0, ROWS)[:, None] * WIDTH, tl.arange(0, WIDTH)[None, :]
    for layer in range(layers):
        product = times_transposed(
            scratch + layer * ROWS * WIDTH, weights + layer * WIDTH * WIDTH, 0, WIDTH,
            tl.zeros((ROWS, WIDTH), tl.float32), ROWS, WIDTH, SLAB, "ieee",
        )  # fmt: skip
        tl.store(scratch + (layer + 1) * ROWS * WIDTH + row + column, product.to(tl.float16))
