"""What plain PyTorch must take at the least for `film_siren`'s stacks on a GPU: counted from the
operations that it runs, for `roofline.py`, which prints this table too.

Every tensor with an entry for each point is read or written once by each operation that has it,
through the GPU's memory: at these sizes no cache holds one. Eager operations follow each other.
Compiled, all between two products is one kernel that reads what products made and writes what
products take: fewer bytes than that no compiler can leave.
"""

import functools
from dataclasses import dataclass, replace
from typing import Any

import roofline_gradients as gradients
import torch
from baselines import HALF, eager_row
from roofline import GPUS, Gpu, Stack, stacks, weights_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from semfaceedit.model import config

POINTS = 251  # of the traced run: no other size of a stack
PRODUCTS = ("addmm", "mm")


@dataclass(frozen=True)
class Operation:
    """Of one point."""

    flops: float
    bytes: float


class Trace(TorchDispatchMode):
    """The operations that are run, and what products read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self.between = 0.0  # bytes of a point that compiled kernels between products move
        self._seen: dict[int, Tensor] = {}  # by address: kept, so that none is given out again
        self._made: set[int] = set()  # by products

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        taken, made = (_tensors_of_points(values) for values in (args, (result,)))
        addresses = {_address(tensor) for tensor in taken}
        if any(_address(tensor) in addresses for tensor in made):
            return result  # a view
        name = function.overloadpacket.__name__
        flops = 0.0
        if name in PRODUCTS:
            left, right = args[-2:]
            flops = 2.0 * left.shape[0] * left.shape[1] * right.shape[1] / POINTS
            self._note(taken, made)
        moved = sum(map(_bytes, taken)) + sum(map(_bytes, made))
        self._seen.update((_address(tensor), tensor) for tensor in made)
        self.operations.append(Operation(flops, moved))
        return result

    def _note(self, taken: list[Tensor], made: list[Tensor]) -> None:
        for tensor in taken:
            address = _address(tensor)
            if address not in self._made:  # a kernel has written it
                self._made.add(address)
                self._seen[address] = tensor
                self.between += _bytes(tensor)
        for tensor in made:  # and one will read it
            self._made.add(_address(tensor))
            self.between += _bytes(tensor)


def _tensors_of_points(values: Any) -> list[Tensor]:
    flat = torch.utils._pytree.tree_leaves(values)
    return [value for value in flat if isinstance(value, Tensor) and POINTS in value.shape]


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _bytes(tensor: Tensor) -> float:
    return tensor.numel() * tensor.element_size() / POINTS


@functools.cache
def traced(stack: Stack, *, gradients: bool) -> Trace:
    """Of one FiLM row under autocast; forward, or forward and backward."""
    weights = weights_of(replace(stack, groups=1))
    film = torch.zeros(stack.layers + 1, stack.width)
    points, directions = torch.zeros(POINTS, stack.inputs), torch.zeros(POINTS, 3)
    leaves = [points, directions, film, film.clone(), *weights]
    for leaf in leaves:
        leaf.requires_grad_(gradients)
    points, directions, frequencies, phases, *weights = leaves
    grad = torch.zeros(POINTS, stack.channels)
    with Trace() as trace:
        with torch.autocast("cpu", HALF["cpu"]):
            output = eager_row(
                points, directions, frequencies, phases, *(weight[0] for weight in weights[4:]),
                tuple(weights[:4]), stack.trunk,
            )  # fmt: skip
        if gradients:
            output.backward(grad.to(output.dtype))
    return trace


def milliseconds(stack: Stack, points: int, gpu: Gpu, *, gradients: bool) -> tuple[float, float]:
    """Eager and compiled, under autocast."""
    trace = traced(replace(stack, identity=False), gradients=gradients)
    rate, memory = gpu.tflops * 1e12, gpu.memory * 1e12
    products = [operation for operation in trace.operations if operation.flops]

    def seconds(operations: list[Operation]) -> float:
        return sum(max(o.flops / rate, o.bytes / memory) for o in operations)

    compiled = seconds(products) + trace.between / memory
    return 1e3 * points * seconds(trace.operations), 1e3 * points * compiled


HEADER = [
    "GPU", "render, eager AMP, ms", "compile AMP, ms", "times as long as here",
    "step of training, eager AMP, ms", "compile AMP, ms", "times as long as here",
]  # fmt: skip


def lines(resolution: int = 256) -> list[list[str]]:
    points = resolution**2 * config.preset("paper").model.manifolds
    table = []
    for name, render, _, _, step in gradients.steps(resolution):
        row = [name]
        for own, backward in ((render, False), (step, True)):
            times = [
                milliseconds(stack, points, GPUS[name], gradients=backward)
                for stack in stacks().values()
            ]
            eager, compiled = (sum(each) for each in zip(*times, strict=True))
            ratios = ", ".join(f"{time / float(own):.1f}" for time in (eager, compiled))
            row += [f"{eager:.0f}", f"{compiled:.0f}", ratios]
        table.append(row)
    return table
