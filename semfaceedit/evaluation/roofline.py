"""The work of each stage of a render, counted, and the least time in which a device can do it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..kernels import cpu_peaks
from ..model.config import ModelConfig
from ..model.labels import NUM_CLASSES

FLOAT, INDEX = 4, 8  # bytes of a value and of an index in what the stages hand on
COLORS = 3


@dataclass(frozen=True)
class Work:
    """`flops`: multiplications and additions of matrix products (in the two composites: all).

    `bytes`: of the stage's inputs, outputs and weights, each moved once; nothing in between.
    `sines`: of its FiLM layers.
    """

    flops: int
    bytes: int
    sines: int = 0


def film_siren_flops(points: int, inputs: int, width: int, layers: int, channels: int) -> int:
    """Layers, view layer on [d, h_L], and L - 1 summed heads."""
    rows = inputs + (layers - 1) * width + 3 + width + (layers - 1) * channels
    return 2 * points * width * rows


def fold_flops(width: int, layers: int) -> int:
    """The Appearance Module's first weight times L - 1 heads of the descriptor and their biases."""
    return 2 * (layers - 1) * width * width * (width + 1)


def field_flops(samples: int, width: int, layers: int) -> int:
    """The manifold predictor, an MLP 3 -> width -> ... -> 1."""
    return 2 * samples * width * (3 + (layers - 1) * width + 1)


def stage_work(
    config: ModelConfig,
    rays: int,
    points: int | None = None,  # hits that are evaluated; None: all, as if no ray missed a level
) -> dict[str, Work]:
    """The work of every stage of a forward render."""
    hit_count = rays * config.manifolds
    points = hit_count if points is None else points
    width, channels = config.width, 1 + NUM_CLASSES + config.width
    field = _field_weights(config)
    geometry = _stack_weights(3, width, config.geometry_depth, channels, 1)
    stacks = config.groups if config.sharing == "none" else 1
    groups = config.groups if config.sharing == "proposed" else 1
    folded = config.sharing != "none"  # else descriptors are multiplied point by point
    appearance = stacks * _stack_weights(width, width, config.appearance_depth, COLORS, groups)
    hit_bytes = (3 + 1 + 1) * FLOAT + INDEX + 1  # point, depth, interval, level, valid
    return {
        "rays": Work(0, rays * 6 * FLOAT),
        "manifolds": Work(
            field_flops(rays * config.ray_samples, config.predictor_width, config.predictor_layers),
            rays * (6 * FLOAT + INDEX) + hit_count * hit_bytes + field * FLOAT,
        ),
        "geometry": Work(
            film_siren_flops(points, 3, width, config.geometry_depth, channels)
            + (fold_flops(width, config.geometry_depth) if folded else 0),
            points * (6 + width) * FLOAT + hit_count * (1 + NUM_CLASSES) * FLOAT + geometry * FLOAT,
            points * width * (config.geometry_depth + 1),
        ),
        "masking": Work(
            3 * hit_count * NUM_CLASSES,
            hit_count * ((1 + NUM_CLASSES) * FLOAT + INDEX) + rays * NUM_CLASSES * FLOAT,
        ),
        "appearance": Work(
            film_siren_flops(
                points, 0 if folded else width, width, config.appearance_depth, COLORS
            ),
            points * ((width + 3 + COLORS) * FLOAT + 2 * INDEX) + appearance * FLOAT,
            points * width * (config.appearance_depth + 1),
        ),
        "compositing": Work(
            hit_count * (6 + 2 * COLORS),
            hit_count * (3 + COLORS) * FLOAT + rays * (1 + COLORS) * FLOAT,
        ),
    }


def _field_weights(config: ModelConfig) -> int:
    width, hidden = config.predictor_width, config.predictor_layers - 1
    return 4 * width + hidden * (width + 1) * width + width + 1


def _stack_weights(inputs: int, width: int, layers: int, channels: int, groups: int) -> int:
    trunk = (inputs + 1) * width + (layers - 1) * (width + 1) * width
    return trunk + groups * ((4 + width) * width + (layers - 1) * (width + 1) * channels)


@dataclass(frozen=True)
class Peaks:
    """Rates of a device: FLOP/s of products by precision, bytes/s of its memory, sines/s."""

    rates: dict[str, float]
    bandwidth: float
    source: str
    sines: dict[str, float] = field(default_factory=dict)  # by precision; empty: not known

    def rate(self, stage: str, precision: str) -> float:
        if stage not in ("geometry", "appearance"):
            # The predictor is never rounded below fp32, which three TF32 products reach as well.
            return max(self.rates["fp32"], self.rates.get("tf32", 0.0) / 3)
        return self.rates.get(precision, self.rates["fp32"])

    def floor_ms(self, stage: str, work: Work, precision: str) -> float:
        """No program is faster: the products or the sines at full rate, or the bytes."""
        products = work.flops / self.rate(stage, precision)
        sines = work.sines / self.sines[precision] if precision in self.sines else 0.0
        return 1e3 * max(products, sines, work.bytes / self.bandwidth)


# TFLOP/s of dense products (fp16 with fp32 sums, TF32) and of fp32 outside the tensor cores, GB/s.
# From NVIDIA's data sheets of H200, H100 and A100, and the Ada and Ampere GA102 white papers.
DEVICES = {
    "H200": (989, 495, 67, 4800),
    "H100 PCIe": (756, 378, 51, 2000),
    "H100": (989, 495, 67, 3350),
    "A100": (312, 156, 19.5, 2039),
    "RTX 4090": (165, 82.6, 82.6, 1008),
    "RTX 3090": (71, 35.6, 35.6, 936),
}


def device_peaks(name: str) -> Peaks | None:
    """Of a GPU by its name; None if it is not in the table: then no floor can be given."""
    for part, (fp16, tf32, fp32, bandwidth) in DEVICES.items():
        if all(word in name for word in part.split()):
            rates = {"fp16": fp16 * 1e12, "tf32": tf32 * 1e12, "fp32": fp32 * 1e12}
            return Peaks(rates, bandwidth * 1e9, f"data sheet, {part}")
    return None


def measured_peaks() -> Peaks:
    """Of this CPU with PyTorch's threads, timed now: loops of its units' instructions that touch
    no memory, and PyTorch's triad. Without native code, PyTorch's products stand for the loops."""
    x, y = torch.randn(1 << 24), torch.randn(1 << 24)
    out = torch.empty_like(x)
    triad = 3 * x.nbytes / _best_time(lambda: torch.add(x, y, alpha=0.5, out=out))
    source = "measured in this run: triad of 192 MiB, "
    peaks = cpu_peaks()
    if not peaks:
        return Peaks(_product_rates(1024), triad, source + "products of 1024 x 1024")
    rates = {precision: products for precision, (products, _) in peaks.items()}
    sines = {precision: rate for precision, (_, rate) in peaks.items()}
    return Peaks(rates, triad, source + "loops of instructions on registers", sines)


def _product_rates(size: int) -> dict[str, float]:
    a, b = torch.randn(size, size), torch.randn(size, size)
    half_a, half_b = a.bfloat16(), b.bfloat16()
    flops = 2 * size**3
    fp32 = flops / _best_time(lambda: a @ b)
    bf16 = flops / _best_time(lambda: half_a @ half_b)
    return {"fp32": fp32, "accurate": max(fp32, bf16 / 3), "fast": max(fp32, bf16)}


def _best_time(function: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest call after one that warms up."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def total_work(work: dict[str, Work]) -> Work:
    keys = ("flops", "bytes", "sines")
    return Work(*(sum(getattr(w, key) for w in work.values()) for key in keys))
