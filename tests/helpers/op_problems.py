"""Random inputs of every op, for tests and benchmarks; made on the default device."""

import torch
from torch import Tensor

Inputs = dict[str, Tensor]

# The settings of `ray_isosurface` that `field_problem` is made for, without samples.
FIELD_SETTINGS = {
    "centre": (0.0, 0.0, -1.5), "scale": 8.0, "near": 0.88, "far": 1.12, "plane_z": -0.12,
}  # fmt: skip


def film_problem(
    points: int,
    inputs: int,
    width: int,
    layers: int,
    rows: int,
    groups: int,
    channels: int,
    generator: torch.Generator | None = None,
) -> Inputs:
    """The differentiable inputs of `film_siren`; FiLM arguments span several periods.

    inputs 0: the first weight is the identity, left out.
    """

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "points": randn(points, inputs) if inputs else 0.3 * randn(points, width),
        "directions": torch.nn.functional.normalize(randn(points, 3), dim=1),
        "frequencies": 15 + 2 * randn(rows, layers + 1, width),
        "phases": randn(rows, layers + 1, width),
        "first_weight": 0.3 * randn(width, inputs) / max(inputs, 1) ** 0.5,
        "first_bias": 0.1 * randn(width),
        "hidden_weight": 0.1 * randn(layers - 1, width, width) / width**0.5,
        "hidden_bias": 0.05 * randn(layers - 1, width),
        "view_weight": 0.1 * randn(groups, width, 3 + width) / width**0.5,
        "view_bias": 0.05 * randn(groups, width),
        "head_weight": randn(groups, layers - 1, channels, width) / width**0.5,
        "head_bias": randn(groups, layers - 1, channels),
    }


def field_problem(
    rays: int, width: int, layers: int = 3, generator: torch.Generator | None = None
) -> Inputs:
    """Rays and a field that falls by 30 along them, so that every interval is steep enough."""

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    forward = torch.tensor([0.0, 0.0, -1.0])
    first = randn(width, 3) * (2 / 3) ** 0.5
    last = randn(1, width) / width**0.5
    problem = {
        "origins": 0.02 * randn(rays, 3) - forward,
        "directions": torch.nn.functional.normalize(forward + 0.1 * randn(rays, 3), dim=1),
        "first_weight": first,
        "first_bias": 0.1 * randn(width),
        "hidden_weight": randn(layers - 1, width, width) * (1 / width) ** 0.5,
        "hidden_bias": 0.1 * randn(layers - 1, width),
        "last_weight": last,
        "last_bias": torch.tensor([-2.0]),
    }
    # One path of units carries relu(z) with weight 1 through the layers, undisturbed.
    problem["first_weight"][0] = torch.tensor([0.0, 0.0, 3.0])
    problem["first_bias"][0] = 0.0
    problem["hidden_weight"][:, 0] = 0.0
    problem["hidden_weight"][:, 0, 0] = 1.0
    problem["hidden_bias"][:, 0] = 0.0
    problem["last_weight"][0, 0] = 3.0
    return problem


def field_levels(hit_count: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """(hit_count - 1,): levels that fields of `field_problem` cross; the last hit is the plane."""
    return torch.linspace(22, 2, hit_count - 1, dtype=dtype)


def composite_problem(
    rays: int, hit_count: int, channels: int, generator: torch.Generator | None = None
) -> Inputs:
    """Inputs of `color_composite`; `semantic_composite` takes the first two."""
    alpha = torch.rand(rays, hit_count, generator=generator)
    alpha[:, 1::3] = 0
    alpha[2::5] = 0  # rays that meet nothing
    alpha[3::7, -1] = 1
    return {
        "alpha": alpha,
        "values": torch.randn(rays, hit_count, channels, generator=generator),
        "depths": 1 + torch.rand(rays, hit_count, generator=generator),
    }
