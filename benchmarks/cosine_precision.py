"""What the gradients of a FiLM-SIREN lose if its backward pass takes cosines from stored sines.

    python benchmarks/cosine_precision.py [--points N] [--seed N]

The trunk of the Geometry Module at the size of `paper`, initialised as it is, with activations in
fp16 as the fused kernels keep them. Relative RMS errors of gradients against float64: with cosines
of the angle, with +-sqrt(1 - h^2) of h in fp16 (its lowest bit says the sign), and with cosines of
the angle in 2^16 parts of a turn.
"""

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from comparison import relative_error  # noqa: E402

from semfaceedit.model import config  # noqa: E402
from semfaceedit.model.generator import Generator  # noqa: E402

WAYS = ("of the angle", "of the sine in fp16", "of the angle in 16 bits")


def stored_cosine(angle: Tensor, way: str) -> Tensor:
    if way == WAYS[2]:
        part = 2 * math.pi / 2**16
        return torch.cos(part * torch.round(angle / part))
    if way == WAYS[1]:
        bits = angle.sin().half().view(torch.int16)
        negative = angle.cos() < 0
        stored = torch.where(negative, bits | 1, bits & ~1).view(torch.float16).to(angle.dtype)
        cosine = torch.sqrt((1 - stored * stored).clamp(min=0))
        return torch.where(negative, -cosine, cosine)
    return angle.cos()


class StoredSine(torch.autograd.Function):
    """sin, rounded to fp16; the backward pass has what `way` kept of the angle."""

    @staticmethod
    def forward(ctx: Any, angle: Tensor, way: str) -> Tensor:
        ctx.save_for_backward(stored_cosine(angle, way))
        return angle.sin().half().to(angle.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0] * ctx.saved_tensors[0], None


def gradients(inputs: dict[str, Tensor], way: str | None) -> dict[str, Tensor]:
    """Of a random functional of the last layer; `way` None: all of it in float64."""
    dtype = torch.float64 if way is None else torch.float32
    leaves = {name: tensor.to(dtype).requires_grad_() for name, tensor in inputs.items()}
    h, seed = leaves["points"], inputs["seed"].to(dtype)
    for layer in range(len(inputs["frequencies"])):
        if layer == 0:
            weight, bias = leaves["first_weight"], leaves["first_bias"]
        else:
            weight = leaves["hidden_weight"][layer - 1]
            bias = leaves["hidden_bias"][layer - 1]
            if way is not None:
                weight = weight + (weight.half().to(dtype) - weight).detach()
        product = h @ weight.T + bias
        angle = leaves["frequencies"][layer] * product + leaves["phases"][layer]
        h = angle.sin() if way is None else StoredSine.apply(angle, way)
    wanted = {name: leaf for name, leaf in leaves.items() if name != "seed"}
    grads = torch.autograd.grad((h * seed).sum(), list(wanted.values()))
    return dict(zip(wanted, grads, strict=True))


def problem(points: int, seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    model = Generator(config.preset("paper").model)
    film = model.geometry.mapping(torch.randn(1, model.config.latent_dim))
    stack = model.geometry.stack
    layers = model.config.geometry_depth
    return {
        "points": (2 * torch.rand(points, 3) - 1),
        "frequencies": (15 * film.frequencies[0, :layers] + 30).detach(),
        "phases": film.phases[0, :layers].detach(),
        "first_weight": stack.first_weight.detach(),
        "first_bias": stack.first_bias.detach(),
        "hidden_weight": stack.hidden_weight.detach(),
        "hidden_bias": stack.hidden_bias.detach(),
        "seed": torch.randn(points, model.config.width),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    inputs = problem(options.points, options.seed)
    exact = gradients(inputs, None)
    errors = {way: gradients(inputs, way) for way in WAYS}
    print("| gradient | " + " | ".join(WAYS) + " |")
    print("|---" * (1 + len(WAYS)) + "|")
    for name, wanted in exact.items():
        cells = [f"{relative_error(errors[way][name], wanted):.2e}" for way in WAYS]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
