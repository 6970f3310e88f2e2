"""Networks as lists of operations: how models made elsewhere are kept and run.

A file is safetensors: the constants, and in the header the operations in order. Values are
numbered; an operation reads some and writes one. Pictures are (B, C, H, W), rows of detections
(B, N, K).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UserError
from ..files import write_atomically
from ..tensor_files import reason_of

FORMAT, FORMAT_VERSION = "semfaceedit-graph", 1


class Graph(nn.Module):
    """Runs the operations of a file that `save_graph` wrote, in float32."""

    def __init__(self, constants: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = header["operations"]
        self.input: int = header["input"]
        self.outputs: list[int] = header["outputs"]
        self.size: tuple[int, int] = tuple(header["size"])  # height and width that it reads
        for name, tensor in constants.items():
            self.register_buffer(f"constant{name}", tensor.float())

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """(B, 3, H, W) of `size`, scaled as the network wants them -> its outputs."""
        values = {self.input: pictures}
        for step in self.steps:
            values[step["out"]] = self._run(step, [values[index] for index in step["in"]])
        return [values[index] for index in self.outputs]

    def _run(self, step: dict[str, Any], given: list[Tensor]) -> Tensor:
        constants = [getattr(self, f"constant{name}") for name in step.get("constants", ())]
        made = _OPERATIONS[step["op"]](step, given, constants)
        return made.relu() if step.get("relu") else made


def _conv(step: dict[str, Any], given: list[Tensor], constants: list[Tensor]) -> Tensor:
    padded = functional.pad(given[0], step["pad"]) if any(step["pad"]) else given[0]
    weights, bias = constants
    stride, groups = step["stride"], step["groups"]
    return functional.conv2d(padded, weights, bias, stride=stride, groups=groups)


def _pool(step: dict[str, Any], given: list[Tensor], _: list[Tensor]) -> Tensor:
    pool = functional.max_pool2d if step["op"] == "max_pool" else functional.avg_pool2d
    return pool(given[0], step["window"], step["stride"])


def _rows(step: dict[str, Any], given: list[Tensor], _: list[Tensor]) -> Tensor:
    return given[0].movedim(1, -1).reshape(len(given[0]), -1, step["length"])


_OPERATIONS: dict[str, Any] = {
    "conv": _conv,
    "conv_transposed": lambda s, x, c: functional.conv_transpose2d(
        x[0], c[0], c[1], stride=s["stride"]
    ),
    "pad": lambda s, x, c: functional.pad(x[0], s["pad"]),
    "add": lambda s, x, c: x[0] + x[1],
    "multiply": lambda s, x, c: x[0] * x[1],
    "relu": lambda s, x, c: x[0].relu(),
    "prelu": lambda s, x, c: functional.prelu(x[0], c[0]),
    "hard_swish": lambda s, x, c: functional.hardswish(x[0]),
    "sigmoid": lambda s, x, c: x[0].sigmoid(),
    "max_pool": _pool,
    "average_pool": _pool,
    "enlarge": lambda s, x, c: functional.interpolate(
        x[0], size=s["size"], mode="bilinear", align_corners=False
    ),
    "blocks_to_pixels": lambda s, x, c: _blocks_to_pixels(x[0], s["block"]),
    "rows": _rows,
    "join": lambda s, x, c: torch.cat(x, 1),
}
"""What a step does: (step, values, constants) -> value."""


def _blocks_to_pixels(values: Tensor, block: int) -> Tensor:
    """(B, block^2 C, H, W), the channels of one place together -> (B, C, block H, block W)."""
    count, channels, height, width = values.shape
    apart = values.view(count, block, block, channels // block**2, height, width)
    return apart.permute(0, 3, 4, 1, 5, 2).reshape(count, -1, block * height, block * width)


def save_graph(
    path: Path,
    constants: Mapping[str, Tensor],
    *,
    operations: Sequence[Mapping[str, Any]],
    reads: int,
    outputs: Sequence[int],
    size: Sequence[int],
    source: str,
) -> None:
    """Write a network; constants are kept as they are given (float16 halves the file)."""
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "source": source,
        "input": reads,
        "outputs": list(outputs),
        "size": list(size),
        "operations": list(operations),
    }
    metadata = {"semfaceedit": json.dumps(header, separators=(",", ":"))}
    write_atomically(path, lambda temporary: save_file(dict(constants), temporary, metadata))


def load_graph(path: Path) -> Graph:
    """A network in evaluation mode, on the CPU; UserError where the file is not one."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("semfaceedit", "{}"))
        if header.get("format") != FORMAT or header["version"] > FORMAT_VERSION:
            raise UserError(f"{path} holds no network that this version can run: reinstall it")
        return Graph(load_file(path), header).eval().requires_grad_(False)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read ({reason_of(error)}): reinstall semfaceedit"
        ) from None
