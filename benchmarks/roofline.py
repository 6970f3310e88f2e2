"""What `film_siren` should take on a GPU, counted from the code: predictions, not measurements.

    python benchmarks/roofline.py [--write]

For each kernel and GPU: bytes through L2, multiplications of the matrix units, sines and the
instructions around them for a tile of points, the least time of each resource, and the time if they
follow each other as the kernel makes them; then the same of gradients, and what plain PyTorch must
take. Needs no GPU.
"""

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from semfaceedit.kernels import FilmSirenWeights, _triton, film_siren_cuda_streams  # noqa: E402
from semfaceedit.kernels import film_siren_triton_tiling as triton_tiling  # noqa: E402
from semfaceedit.model import config  # noqa: E402
from semfaceedit.model.labels import NUM_CLASSES  # noqa: E402

PAGE = ROOT / "docs" / "performance.md"
HALF, FLOAT = 2, 4  # bytes
# Instructions an element of an epilogue; CUDA's as tests/kernels/test_cuda_compile.py counts them.
PER_SINE = {"triton": 8.5, "sm80": 7.1, "sm90": 7.0}
LANES = 128  # instructions a multiprocessor starts in a clock, times threads of a warp
SINES = 16  # that a multiprocessor computes in a clock


@dataclass(frozen=True)
class Gpu:
    """Rates of data sheets; of L2 what others report of measurements: an assumption."""

    architecture: int
    processors: int
    ghz: float
    tflops: float  # fp16 with fp32 sums, dense
    by_warp: float  # the share of that which mma.sync reaches, an assumption beyond sm_89
    body: str  # of film_siren's CUDA kernels, that runs there
    l2: float  # TB/s
    memory: float  # TB/s
    # The share of processors on which clusters find room. They lie within a group of processors, of
    # which an H100 has some of 16 and some of 18: an assumption, of clusters of four.
    clustered: float = 1.0


GPUS = {
    "RTX 4090": Gpu(89, 128, 2.52, 165, 1.0, "sm80", 5.0, 1.01),
    "A100": Gpu(80, 108, 1.41, 312, 1.0, "sm80", 4.5, 2.04),
    "H100": Gpu(90, 132, 1.83, 989, 0.62, "sm90", 5.5, 3.35, 128 / 132),
    "H200": Gpu(90, 132, 1.83, 989, 0.62, "sm90", 5.5, 4.80, 128 / 132),
    "B200": Gpu(100, 148, 1.85, 2250, 0.25, "sm80", 9.0, 8.00),
}


@dataclass(frozen=True)
class Stack:
    inputs: int
    width: int
    layers: int
    groups: int
    channels: int
    trunk: int
    identity: bool = False  # the first layer, which has no product then


@dataclass(frozen=True)
class Work:
    """Of one point."""

    useful: float  # FLOP that the definition asks for
    matrix: float  # FLOP that the matrix units do
    l2: float  # bytes between L2 and the multiprocessors
    sines: float

    @property
    def intensity(self) -> float:
        return self.useful / self.l2


def stacks(preset: str = "paper") -> dict[str, Stack]:
    model = config.preset(preset).model
    channels = 1 + NUM_CLASSES + model.width
    width, groups = model.width, model.groups
    return {
        "geometry": Stack(3, width, model.geometry_depth, 1, channels, 1),
        "appearance": Stack(width, width, model.appearance_depth, groups, 3, 0, identity=True),
    }


def useful_flops(stack: Stack) -> int:
    inputs = 0 if stack.identity else stack.inputs
    rows = inputs + 3 + stack.layers * stack.width + (stack.layers - 1) * stack.channels
    return 2 * stack.width * rows


def cuda_constants() -> dict[str, int]:
    text = (ROOT / "csrc/film_siren_cuda.h").read_text()
    return {name: int(value) for name, value in re.findall(r"FILM_(\w+) = (\d+);", text)}


def stream_constants() -> film_siren_cuda_streams.Constants:
    constants = cuda_constants()
    return film_siren_cuda_streams.Constants(
        constants["NARROW"], constants["INPUTS"], constants["COORDINATES"]
    )


def cuda_work(stack: Stack, body: str) -> Work:
    """The stream of weights, FiLM, points, outputs, and fragments kept for the wide heads.

    csrc/film_siren_sm80.cu loads slabs whole, for the points of a block; film_siren_sm90.cu for
    those of a cluster, without the narrow rows where none is read: from the slab of the narrow
    channels on.
    """
    constants = cuda_constants()
    narrow, depth = constants["NARROW"], constants["INPUTS"]
    stream = film_siren_cuda_streams.weight_stream(
        weights_of(stack), stack.trunk, stack.width, stream_constants()
    )
    slabs, width = stream.shape[1], stack.width
    wide = -(-(stack.channels - narrow) // width) if stack.channels > narrow else 0
    plain = wide * (stack.layers - 1) * width // depth  # slabs of the wide heads
    rows = constants["ROWS"]
    weights = slabs * (width + narrow) * depth * HALF
    if body == "sm90":
        rows *= constants["CLUSTER"]
        weights -= (plain + 1) * narrow * depth * HALF
    film = (stack.layers + 1) * width * 2 * FLOAT
    own = (stack.inputs + 3 + stack.channels) * FLOAT
    kept = 0
    if wide:  # layers 2 to L - 1, and the view layer for all blocks but the first
        written = stack.layers - 2 + (wide > 1)
        read = wide * (stack.layers - 2) + wide - 1
        kept = (written + read) * width * HALF
    multiplied = slabs * (width + narrow) - plain * narrow  # columns; no narrow ones for the wide
    sines = (stack.layers + 1) * width
    return Work(
        useful_flops(stack), 2 * multiplied * depth, (weights + film) / rows + own + kept, sines
    )


def weights_of(stack: Stack) -> FilmSirenWeights:
    width, groups, heads, channels = stack.width, stack.groups, stack.layers - 1, stack.channels
    inputs = 0 if stack.identity else stack.inputs
    shapes = (
        (width, inputs), (width,), (heads, width, width), (heads, width),
        (groups, width, 3 + width), (groups, width), (groups, heads, channels, width),
        (groups, heads, channels),
    )  # fmt: skip
    return FilmSirenWeights(*(torch.zeros(shape) for shape in shapes))


def triton_work(stack: Stack, architecture: int) -> Work:
    """film_siren_triton_kernels.py: every block of columns reads the activations again, but
    VIEW_BLOCKS of the heads together. Tiles are those of the newest Triton,
    whatever is installed."""
    inputs = 0 if stack.identity else stack.inputs  # of the first product
    tiling = triton_tiling.forward_tiling(
        "fp16", architecture, inputs, stack.width, triton=_triton.NEWEST
    )
    heads_at = triton_tiling.head_constants(stack.channels, tiling)
    width, rows, heads = stack.width, tiling.rows, stack.layers - 1
    tile, matrix = rows * width * HALF, width * width * HALF
    blocks = width // min(tiling.columns, width)
    thin = inputs <= triton_tiling.THIN
    total = stack.layers * (blocks * tile + matrix + tile) + tile  # read, weights, written
    if not thin:
        total += 2 * blocks * rows * inputs * HALF + width * inputs * HALF
    padded = triton_tiling.padded_channels(stack.channels)
    columns = heads_at["HEAD_COLUMNS"]
    view = heads_at["VIEW_COLUMNS"] * heads_at["VIEW_BLOCKS"]
    mixed = -(-stack.trunk // columns) * columns
    narrow = mixed + (padded - mixed) % view
    reads = narrow // columns * heads + (padded - narrow) // view * heads
    total += reads * tile + heads * padded * width * HALF
    total += rows * (stack.inputs + 3 + stack.channels) * FLOAT
    rows_of_weights = stack.layers * width + heads * padded + (0 if thin else inputs)
    sines = (stack.layers + 1) * width
    return Work(useful_flops(stack), 2 * width * rows_of_weights, total / rows, sines)


@dataclass(frozen=True)
class Prediction:
    """Milliseconds."""

    matrix: float
    epilogue: float
    l2: float
    overlapped: str  # what runs beside the products: nothing, loads, or the sines too

    @property
    def total(self) -> float:
        beside = [self.l2 if "L2" in self.overlapped else 0.0]
        after = self.matrix
        if "sines" in self.overlapped:
            beside.append(self.epilogue)
        else:
            after += self.epilogue
        if "L2" not in self.overlapped:
            after += self.l2
        return max(after, *beside)

    @property
    def binding(self) -> str:
        parts = {"products": self.matrix, "sines": self.epilogue, "L2": self.l2}
        return max(parts, key=lambda name: parts[name])


def predict(work: Work, points: int, gpu: Gpu, kernel: str) -> Prediction:
    """`kernel` is "triton", or the CUDA body."""
    share = {"triton": 1.0, "sm80": gpu.by_warp, "sm90": gpu.clustered}[kernel]
    rate = gpu.tflops * 1e12 * share
    clocks = max(work.sines / SINES, work.sines * PER_SINE[kernel] / LANES)
    if kernel == "sm90":
        clocks /= gpu.clustered
    seconds = points * clocks / (gpu.processors * gpu.ghz * 1e9)
    return Prediction(
        1e3 * points * work.matrix / rate,
        1e3 * seconds,
        1e3 * points * work.l2 / (gpu.l2 * 1e12),
        {"triton": "", "sm80": "L2", "sm90": "L2, sines"}[kernel],
    )


def works(stack: Stack, gpu: Gpu) -> dict[str, Work]:
    """By kernel."""
    return {"triton": triton_work(stack, gpu.architecture), gpu.body: cuda_work(stack, gpu.body)}


def lines(resolution: int = 256) -> list[list[str]]:
    """Rows of a table: the forward pass of both stacks over all points of a picture."""
    points = resolution**2 * config.preset("paper").model.manifolds
    table = []
    for name, gpu in GPUS.items():
        totals = {"triton": 0.0, gpu.body: 0.0}
        for stack_name, stack in stacks().items():
            for kernel, work in works(stack, gpu).items():
                time = predict(work, points, gpu, kernel)
                totals[kernel] += time.total
                table.append([
                    name, stack_name, label(kernel), f"{work.l2 * points / 1e9:.0f}",
                    f"{work.intensity:.0f}", f"{time.matrix:.1f}", f"{time.epilogue:.1f}",
                    f"{time.l2:.1f}", f"{time.total:.1f}", time.binding,
                ])  # fmt: skip
        for kernel, total in totals.items():
            table.append([name, "both", label(kernel), "", "", "", "", "", f"{total:.1f}", ""])
    return table


def label(kernel: str) -> str:
    return kernel if kernel == "triton" else f"cuda {kernel}"


HEADER = [
    "GPU", "stack", "backend", "GB through L2", "FLOP/B", "products, ms", "sines, ms", "L2, ms",
    "predicted, ms", "binding",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write", action="store_true", help=f"renew the tables of {PAGE.relative_to(ROOT)}"
    )
    if parser.parse_args().write:
        PAGE.write_text(with_tables(PAGE.read_text()))
        return
    for table in tables():
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        for row in table:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
        print()


def tables() -> list[list[list[str]]]:
    """Of the forward pass, of gradients, of whole steps, of plain PyTorch; the first row of each is
    its header."""
    import roofline_baselines as baselines
    import roofline_gradients as gradients

    return [
        [HEADER, *lines()],
        [gradients.HEADER, *gradients.lines()],
        [gradients.STEPS_HEADER, *gradients.steps()],
        [baselines.HEADER, *baselines.lines()],
    ]


def with_tables(text: str) -> str:
    """The page with the tables of now between its marks."""
    begin, end = "<!-- predictions -->\n", "<!-- end of predictions -->"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    parts = []
    for header, *rows in tables():
        cells = (header, ["---"] * len(header), *rows)
        parts.append("".join("| " + " | ".join(row) + " |\n" for row in cells))
    return before + begin + "\n" + "\n".join(parts) + "\n" + end + after


if __name__ == "__main__":
    main()
