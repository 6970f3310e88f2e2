"""TensorFlow Lite models -> safetensors for `graphs`: `python -m semfaceedit.parsing.tflite`.

Reads the .tflite file itself (a FlatBuffer), so nothing has to be installed for it. Only what the
models at hand hold is understood: 2-D convolutions, pooling, element-wise operations, resizing,
rows of detections; float32 and float16, dense and block-free sparse constants.
"""

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .graphs import save_graph

OPERATORS = {
    0: "add", 1: "average_pool", 2: "join", 3: "conv", 4: "depthwise", 5: "blocks_to_pixels",
    6: "dequantize", 14: "sigmoid", 17: "max_pool", 18: "multiply", 19: "relu", 22: "rows",
    23: "enlarge", 34: "pad", 54: "prelu", 117: "hard_swish", 124: "densify",
}  # fmt: skip
"""Numbers of the operators in the TensorFlow Lite schema, and what they are called here."""

TRANSPOSED = "Convolution2DTransposeBias"
TYPES = {0: np.float32, 1: np.float16, 2: np.int32}
SAME, RELU = 0, 1  # kinds of padding and of activation


class Table:
    """A table of a FlatBuffer: fields by their number in the schema."""

    def __init__(self, data: bytes, place: int) -> None:
        self.data, self.place = data, place
        self.fields = place - _int(data, place)
        self.length = _short(data, self.fields)

    def _at(self, field: int) -> int:
        """Where a field's value is; 0 where it is left at its default."""
        entry = 4 + 2 * field
        offset = _short(self.data, self.fields + entry) if entry < self.length else 0
        return self.place + offset if offset else 0

    def number(self, field: int, kind: str = "<i", default: int = 0) -> int:
        at = self._at(field)
        return struct.unpack_from(kind, self.data, at)[0] if at else default

    def table(self, field: int) -> "Table":
        at = self._at(field)
        return Table(self.data, at + _int(self.data, at))

    def has(self, field: int) -> bool:
        return self._at(field) > 0

    def array(self, field: int, kind: Any = np.int32) -> np.ndarray:
        at = self._at(field)
        if not at:
            return np.zeros(0, kind)
        at += _int(self.data, at)
        return np.frombuffer(self.data, kind, _int(self.data, at), at + 4)

    def tables(self, field: int) -> list["Table"]:
        start = self._at(field) + _int(self.data, self._at(field))
        places = range(start + 4, start + 4 + 4 * _int(self.data, start), 4)
        return [Table(self.data, place + _int(self.data, place)) for place in places]

    def text(self, field: int) -> str:
        return self.array(field, np.uint8).tobytes().decode() if self.has(field) else ""


def _int(data: bytes, place: int) -> int:
    return struct.unpack_from("<i", data, place)[0]


def _short(data: bytes, place: int) -> int:
    return struct.unpack_from("<H", data, place)[0]


class Converter:
    """One model: walks its operators and collects operations and constants."""

    def __init__(self, data: bytes) -> None:
        model = Table(data, _int(data, 0))
        self.codes = [(max(c.number(0, "<b"), c.number(3)), c.text(1)) for c in model.tables(1)]
        self.buffers = model.tables(4)
        graph = model.tables(2)[0]
        self.tensors = graph.tables(0)
        self.shapes = [tuple(t.array(0).tolist()) for t in self.tensors]
        self.inputs, self.outputs = graph.array(1).tolist(), graph.array(2).tolist()
        self.known: dict[int, np.ndarray] = {}  # tensors whose values do not depend on the input
        self.constants: dict[str, torch.Tensor] = {}
        self.operations: list[dict[str, Any]] = []
        for index in range(len(self.tensors)):
            self._read_constant(index)
        for operator in graph.tables(3):
            self._convert(operator)

    def _read_constant(self, index: int) -> None:
        tensor = self.tensors[index]
        raw = self.buffers[tensor.number(2, "<I")].array(0, np.uint8)
        if len(raw):
            values = raw.view(TYPES[tensor.number(1, "<b")])
            sparse = tensor.has(6)
            self.known[index] = (
                _dense(tensor.table(6), values, self.shapes[index])
                if sparse
                else values.reshape(self.shapes[index])
            )

    def _convert(self, operator: Table) -> None:
        code, said = self.codes[operator.number(0, "<I")]
        given, out = operator.array(1).tolist(), int(operator.array(2)[0])
        name = "conv_transposed" if said == TRANSPOSED else OPERATORS[code]
        if name in ("dequantize", "densify"):
            self.known[out] = self.known[given[0]]
            return
        options = operator.table(4) if operator.has(4) else None
        details: Callable[..., dict[str, Any]] | None = getattr(self, f"_{name}", None)
        step = {"op": "conv" if name == "depthwise" else name, "out": out}
        step["in"] = [index for index in given if index not in self.known]
        step |= details(options, given, out) if details else {}
        if name == "conv_transposed":
            settings = operator.array(5, np.uint8).tobytes()
            step["stride"] = list(struct.unpack_from("<3i", settings)[1:])
        self.operations.append(step)

    def _constant(self, index: int, values: np.ndarray) -> str:
        self.constants[str(index)] = torch.from_numpy(values.copy())
        return str(index)

    def _conv(self, options: Table, given: list[int], out: int) -> dict[str, Any]:
        weights = self.known[given[1]].transpose(0, 3, 1, 2)
        return self._convolved(options, given, out, weights, 1, 3)

    def _depthwise(self, options: Table, given: list[int], out: int) -> dict[str, Any]:
        weights = self.known[given[1]].transpose(3, 0, 1, 2)
        return self._convolved(options, given, out, weights, len(weights), 4)

    def _convolved(
        self,
        options: Table,
        given: list[int],
        out: int,
        weights: np.ndarray,
        groups: int,
        activation: int,
    ) -> dict[str, Any]:
        stride = [options.number(2), options.number(1)]
        window = list(weights.shape[2:])
        return {
            "constants": [
                self._constant(given[1], weights),
                self._constant(given[2], self.known[given[2]]),
            ],
            "stride": stride,
            "groups": groups,
            "pad": self._padding(options, given[0], out, window, stride),
            "relu": self._clipped(options, activation),
        }

    def _conv_transposed(self, _: None, given: list[int], out: int) -> dict[str, Any]:
        weights = self.known[given[1]].transpose(3, 0, 1, 2)  # inputs, outputs, rows, columns
        bias = self.known[given[2]]
        return {"constants": [self._constant(given[1], weights), self._constant(given[2], bias)]}

    def _padding(
        self, options: Table, given: int, out: int, window: list[int], stride: list[int]
    ) -> list[int]:
        """What "same" padding adds: left, right, top, bottom."""
        if options.number(0, "<b") != SAME:
            return [0, 0, 0, 0]
        pad: list[int] = []
        for axis in (1, 0):  # columns first
            edge, made = self.shapes[given][1 + axis], self.shapes[out][1 + axis]
            total = max(0, (made - 1) * stride[axis] + window[axis] - edge)
            pad += [total // 2, total - total // 2]
        return pad

    def _pool(self, options: Table, given: list[int], out: int) -> dict[str, Any]:
        stride, window = (
            [options.number(2), options.number(1)],
            [options.number(4), options.number(3)],
        )
        if any(self._padding(options, given[0], out, window, stride)):
            raise ValueError("pooling with padding is not understood")
        return {"window": window, "stride": stride}

    _max_pool = _average_pool = _pool

    def _pad(self, _: Table | None, given: list[int], __: int) -> dict[str, Any]:
        batch, rows, columns, channels = self.known[given[1]].tolist()
        assert batch == [0, 0]
        return {"pad": [*columns, *rows, *channels]}

    def _prelu(self, _: Table | None, given: list[int], __: int) -> dict[str, Any]:
        return {"constants": [self._constant(given[1], self.known[given[1]].reshape(-1))]}

    def _add(self, options: Table | None, _: list[int], __: int) -> dict[str, Any]:
        return {"relu": self._clipped(options, 0)}

    _multiply = _add

    def _clipped(self, options: Table | None, field: int) -> bool:
        kind = 0 if options is None else options.number(field, "<b")
        if kind not in (0, RELU):
            raise ValueError(f"the activation {kind} is not understood")
        return kind == RELU

    def _enlarge(self, options: Table, _: list[int], out: int) -> dict[str, Any]:
        if options.number(2, "<b") or not options.number(3, "<b"):
            raise ValueError("only resizing by pixel centres is understood")
        return {"size": list(self.shapes[out][1:3])}

    def _blocks_to_pixels(self, options: Table, _: list[int], __: int) -> dict[str, Any]:
        return {"block": options.number(0)}

    def _rows(self, _: Table | None, __: list[int], out: int) -> dict[str, Any]:
        return {"length": self.shapes[out][-1]}


def _dense(sparsity: Table, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The constant that sparse storage means: dimensions in turn, each dense or compressed."""
    order = sparsity.array(0).tolist()
    levels = sparsity.tables(2)
    if len(order) != len(shape):
        raise ValueError("sparse blocks are not understood")
    places: list[tuple[int, ...]] = [()]  # positions reached so far, in the order of traversal
    for level in levels:
        if level.number(0, "<b") == 0:  # dense
            places = [(*p, i) for p in places for i in range(level.number(1))]
        else:
            kinds = {1: np.int32, 2: np.uint16, 3: np.uint8}
            starts = level.table(3).array(0, kinds[level.number(2, "<B")]).tolist()
            inner = level.table(5).array(0, kinds[level.number(4, "<B")]).tolist()
            places = [
                (*p, i) for n, p in enumerate(places) for i in inner[starts[n] : starts[n + 1]]
            ]
    made = np.zeros(shape, values.dtype)
    at = np.array(places)
    made[tuple(at[:, order.index(axis)] for axis in range(len(shape)))] = values[: len(at)]
    return made


def convert(model: Path, out: Path) -> None:
    """Write the network of a .tflite file as safetensors."""
    found = Converter(model.read_bytes())
    save_graph(
        out,
        found.constants,
        operations=found.operations,
        reads=found.inputs[0],
        outputs=found.outputs,
        size=found.shapes[found.inputs[0]][1:3],
        source=model.name,
    )


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
