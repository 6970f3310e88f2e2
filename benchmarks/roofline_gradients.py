"""What `film_siren`'s gradients in CUDA, steps of training and culled renders should take: counted
as `roofline.py` counts, which prints these tables too.
"""

from dataclasses import dataclass

from roofline import (
    FLOAT,
    GPUS,
    HALF,
    LANES,
    PER_SINE,
    SINES,
    Gpu,
    Stack,
    Work,
    cuda_constants,
    cuda_work,
    predict,
    stacks,
    stream_constants,
    weights_of,
)

from semfaceedit.kernels import film_siren_cuda_backward as cuda_backward
from semfaceedit.kernels import film_siren_cuda_streams
from semfaceedit.model import config

# Instructions an element on the way back: what tests/kernels/test_cuda_compile.py counts, another
# scale before the heads, scale and packing.
PER_COSINE = {"sm80": 13.8 + 1 + 1.5, "sm90": 29.1 + 1 + 1.5}
STEP = 16  # inputs that the matrix unit takes at a time
BLOCK = 64  # columns of W h that csrc/film_siren_backward_sm90.cu multiplies at a time
# Points that are coloured in a render with --cull 1e-4: of eight faces of `portraits` at 64x64.
SEEN = 0.31


@dataclass(frozen=True)
class Pass:
    """Of one point: the way there and back, and products over points."""

    body: str  # of the former
    chain: Work
    kept: float  # bytes written and read again, through memory
    products: Work
    read: float  # bytes from and to memory for these


def gradients_pass(stack: Stack, body: str, *, weights: bool) -> Pass:
    """Gradients of FiLM and points, or of all. csrc/film_siren_backward_sm80.cu keeps W h in fp32;
    film_siren_backward_sm90.cu keeps activations and multiplies W h again."""
    constants = cuda_constants()
    again = body == "sm90"
    width, layers, depth, rows = stack.width, stack.layers, constants["INPUTS"], constants["ROWS"]
    thin = stack.inputs <= constants["COORDINATES"] and not stack.identity
    stream = film_siren_cuda_streams.backward_stream(
        weights_of(stack), stack.trunk, width, stream_constants(), points=True, again=again
    )
    slabs = stream.shape[1]
    of_heads = [stack.channels] * (layers - 2) + [stack.trunk]  # channels that layers 2 to L read
    multiplied = [-(-channels // STEP) * STEP for channels in of_heads]
    first = stack.trunk // depth * depth
    multiplied.append(-(-(stack.channels - first) // STEP) * STEP)
    held = sum(-(-channels // depth) * depth for channels in (*of_heads, stack.channels - first))
    coordinates = 1 + thin  # slabs
    unused = coordinates * (depth - STEP) + held - sum(multiplied)
    if again:  # slabs of heads are multiplied whole, of coordinates one for each block of columns
        unused = coordinates * (depth - STEP + width // BLOCK * depth - STEP)
    inputs = slabs * depth - unused
    film = 2 * (layers + 1) * width * 2 * FLOAT / rows
    streamed = slabs * width * depth * HALF / rows / (constants["CLUSTER"] if again else 1)
    sines = layers + 1
    affine = 2 * sines * width * FLOAT
    if again:  # activations of all layers are written, of all but the last read; coordinates twice
        affine = (2 * sines - 1) * width * HALF + (stack.inputs + 3) * FLOAT
    outputs = 64 if stack.channels <= 64 else -(-stack.channels // 128) * 128
    own = 2 * (stack.inputs + 3) * FLOAT + 2 * stack.channels * FLOAT + (outputs + held) * HALF
    kept = (1 if again else 2) * sines * width * HALF if weights else 0
    chain = Work(0, 2 * width * inputs, streamed + film + affine + own + kept, sines * width)
    if not weights:
        return Pass(body, chain, affine + own, Work(0, 0, 0, 0), 0)
    across = -(-stack.inputs // width)
    # Left columns, right columns, how many, heads aside.
    pairs = [(width, width, layers)] + (
        [] if thin or stack.identity else [(width, across * width, 1)]
    )
    matrix = moved = 0.0
    for left, right, count in pairs:
        matrix += 2 * left * right * count
        moved += count * (left * right // width + right * (left // shared_columns(left, body)))
    columns = {}  # left columns of heads: of layers 2 to L - 1, of layer L and the view layer
    for span in (shared_columns(outputs, "sm80"), shared_columns(outputs, body)):
        trunk = -(-stack.trunk // span) * span - stack.trunk // span * span
        columns[span] = (layers - 1) * outputs + trunk
    block, span = min(columns), max(columns)
    matrix += 2 * width * columns[span]  # a block that has nothing to do waits for its cluster
    moved += columns[block] + width * columns[span] // span
    # The heads read activations after the layers do: a chunk is more than L2 holds.
    read = (sum((left + right) * count for left, right, count in pairs) + outputs) * HALF
    read += layers * width * HALF
    pairs += [(width, width, layers - 1), (width, width, 1), (outputs, width, layers)]
    read += sum(partial_sums(body, *each) for each in pairs[1:])
    return Pass(body, chain, affine + own + kept, Work(0, matrix, moved * HALF, 0), read)


def partial_sums(body: str, left: int, right: int, layers: int) -> float:
    """Bytes of a point: a launch's blocks read and write their sums once a chunk."""
    blocks = -(-left // 128) * layers
    splits = min(cuda_backward.PRODUCT_BLOCKS[body] // blocks, cuda_backward.PRODUCT_SPLITS)
    return 2 * splits * layers * left * right * FLOAT / cuda_backward.CHUNK_POINTS


def shared_columns(left: int, body: str) -> int:
    """Left columns for which right is loaded once: of a block or, on 9.0, of a cluster."""
    if left % 128 != 0:
        return 64
    cluster = next(blocks for blocks in (2, 3, 1) if left // 128 % blocks == 0)
    return 128 * (cluster if body == "sm90" else 1)


def milliseconds(each: Pass, points: int, gpu: Gpu) -> dict[str, float]:
    """Products of the chain, its sines and cosines, memory for what it keeps; products over points;
    the whole."""
    share = gpu.by_warp if each.body == "sm80" else gpu.clustered
    rate = gpu.tflops * 1e12 * share
    processors = gpu.processors * gpu.ghz * 1e9 * gpu.clustered
    instructions = PER_SINE[each.body] + PER_COSINE[each.body]
    clocks = each.chain.sines * max(2 / SINES, instructions / LANES)
    parts = {
        "products": each.chain.matrix / rate,
        "sines": clocks / processors,
        "kept": each.kept / (gpu.memory * 1e12),
        "over points": max(
            each.products.matrix / rate, each.products.l2 / (gpu.l2 * 1e12),
            each.read / (gpu.memory * 1e12),
        ),
    }  # fmt: skip
    if each.body == "sm80":
        # Memory is written and asked for beside products; what comes from L2 is waited for.
        chain = parts["products"] + parts["sines"] + each.kept / (gpu.l2 * 1e12)
    else:  # one group multiplies while the other has sines, or waits
        chain = max(parts["products"], parts["sines"])
    chain = max(chain, parts["kept"], each.chain.l2 / (gpu.l2 * 1e12))
    parts["total"] = chain + parts["over points"]
    return {name: 1e3 * points * seconds for name, seconds in parts.items()}


def forward_milliseconds(stack: Stack, points: int, gpu: Gpu) -> float:
    return predict(cuda_work(stack, gpu.body), points, gpu, gpu.body).total


HEADER = [
    "GPU", "stack", "gradients of", "GB through L2", "GB of memory", "products, ms", "sines, ms",
    "kept, ms", "over points, ms", "predicted, ms",
]  # fmt: skip
STEPS_HEADER = [
    "GPU", "render, ms", "culled render, ms", "step of an inversion, ms", "step of training, ms",
]  # fmt: skip


def lines(resolution: int = 256) -> list[list[str]]:
    points = resolution**2 * config.preset("paper").model.manifolds
    table = []
    for name, gpu in GPUS.items():
        for stack_name, stack in stacks().items():
            for weights in (False, True):
                each = gradients_pass(stack, gpu.body, weights=weights)
                time = milliseconds(each, points, gpu)
                l2 = each.chain.l2 + each.products.l2
                memory = each.kept + each.read
                table.append([
                    name, stack_name, "all" if weights else "FiLM, points",
                    f"{l2 * points / 1e9:.0f}", f"{memory * points / 1e9:.0f}",
                    *(f"{value:.1f}" for value in time.values()),
                ])  # fmt: skip
    return table


def steps(resolution: int = 256) -> list[list[str]]:
    """Both stacks over all points of a picture: forward, and forward and backward."""
    points = resolution**2 * config.preset("paper").model.manifolds
    table = []
    for name, gpu in GPUS.items():
        forward = {key: forward_milliseconds(stack, points, gpu) for key, stack in stacks().items()}
        back = [
            sum(milliseconds(gradients_pass(stack, gpu.body, weights=weights), points, gpu)["total"]
                for stack in stacks().values())
            for weights in (False, True)
        ]  # fmt: skip
        render = sum(forward.values())
        culled = forward["geometry"] + SEEN * forward["appearance"]
        times = (render, culled, render + back[0], render + back[1])
        table.append([name, *(f"{time:.1f}" for time in times)])
    return table
