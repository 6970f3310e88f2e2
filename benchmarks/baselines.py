"""What the kernels are measured against: plain PyTorch on points that are already grouped by row.

`eager fp32`, `eager AMP` (the paper's mode: 16-bit autocast, which rounds what every product
returns) and `compile AMP` (the same through torch.compile). Rows are slices of the sorted points;
nothing is selected by a boolean mask.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from itertools import pairwise
from unittest import mock

import torch
from torch import Tensor

from semfaceedit.kernels import FilmSirenWeights, use_backend
from semfaceedit.model import film
from semfaceedit.model.appearance import AppearanceModule

HALF = {"cuda": torch.float16, "cpu": torch.bfloat16}  # what autocast uses
NAMES = ("eager fp32", "eager AMP", "compile AMP")


def eager_row(
    points: Tensor,  # (P, I) of one FiLM row
    directions: Tensor,  # (P, 3)
    frequencies: Tensor,  # (L + 1, W)
    phases: Tensor,  # (L + 1, W)
    view_weight: Tensor,  # (W, 3 + W)
    view_bias: Tensor,  # (W,)
    head_weight: Tensor,  # (L - 1, C, W)
    head_bias: Tensor,  # (L - 1, C)
    trunk: tuple[Tensor, Tensor, Tensor, Tensor],  # first and hidden weights and biases
    trunk_channels: int,
) -> Tensor:  # (P, C)
    """One row as the paper's code runs it: a product, FiLM and sine a layer, heads summed."""
    linear = torch.nn.functional.linear
    first_weight, first_bias, hidden_weight, hidden_bias = trunk
    h = torch.sin(frequencies[0] * linear(points, first_weight, first_bias) + phases[0])
    heads = len(head_weight)
    output: Tensor | float = 0.0
    for layer in range(heads):
        product = linear(h, hidden_weight[layer], hidden_bias[layer])
        h = torch.sin(frequencies[layer + 1] * product + phases[layer + 1])
        if layer < heads - 1:
            output = output + linear(h, head_weight[layer], head_bias[layer])
    viewed = linear(torch.cat([directions, h], 1), view_weight, view_bias)
    viewed = torch.sin(frequencies[-1] * viewed + phases[-1])
    split = trunk_channels
    last = [
        linear(h, head_weight[-1, :split], head_bias[-1, :split]),
        linear(viewed, head_weight[-1, split:], head_bias[-1, split:]),
    ]
    return output + torch.cat(last, 1)


@functools.cache
def compiled_row() -> Callable[..., Tensor]:
    return torch.compile(eager_row, dynamic=True)


def baseline_film_siren(
    points: Tensor,
    directions: Tensor,
    frequencies: Tensor,
    phases: Tensor,
    row_offsets: Tensor,
    row_groups: Tensor,
    weights: FilmSirenWeights,
    *,
    trunk_channels: int = 0,
    name: str,
) -> Tensor:
    """`film_siren` by one of NAMES."""
    device = points.device.type
    row = compiled_row() if name.startswith("compile") else eager_row
    groups, outputs = row_groups.tolist(), [points.new_zeros(0, weights.head_weight.shape[2])]
    with torch.autocast(device, HALF[device], enabled=name.endswith("AMP")):
        for index, (start, stop) in enumerate(pairwise(row_offsets.tolist())):
            if start == stop:
                continue
            group = groups[index]
            output = row(
                points[start:stop], directions[start:stop], frequencies[index], phases[index],
                weights.view_weight[group], weights.view_bias[group], weights.head_weight[group],
                weights.head_bias[group], tuple(weights[:4]), trunk_channels,
            )  # fmt: skip
            outputs.append(output.to(points.dtype))
    return torch.cat(outputs)


@contextlib.contextmanager
def descriptors_apart() -> Iterator[None]:
    """Within the block descriptors are made, then multiplied with W_1: nothing is folded."""
    with mock.patch.object(AppearanceModule, "first_weight", None):
        yield


@contextlib.contextmanager
def baseline(name: str) -> Iterator[None]:
    """Within the block the model's stacks run as baseline `name`, everything else in plain fp32."""
    function = functools.partial(baseline_film_siren, name=name)
    with (
        descriptors_apart(),
        mock.patch.object(film, "film_siren", function),
        use_backend("reference", "fp32"),
    ):
        yield
