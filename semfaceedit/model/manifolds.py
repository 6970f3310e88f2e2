"""Radiance manifolds: the predictor s(x), its levels, and where rays meet them."""

import math

import torch
from torch import Tensor, nn

from ..kernels import FieldWeights, Intersections, ray_isosurface
from .config import ModelConfig
from .rays import Rays

PREDICTOR_SCALE = 2 / 0.24  # world -> the coordinates in which centre and radii are given
LEVEL_PER_RADIUS = 10.0  # s(x) = 10 |x - centre|: level l is a sphere of radius l / 10
FIT_DIRECTIONS, FIT_RIDGE = 4096, 1e-3  # of the fit to a sphere; the ridge is relative


class ManifoldPredictor(nn.Module):
    """A ReLU MLP s(x), about 10 times the distance from a centre behind the face (GRAM)."""

    levels: Tensor

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        width, hidden = config.predictor_width, config.predictor_layers - 1
        self.first_weight = nn.Parameter(torch.empty(width, 3))
        self.first_bias = nn.Parameter(torch.zeros(width))
        self.hidden_weight = nn.Parameter(torch.empty(hidden, width, width))
        self.hidden_bias = nn.Parameter(torch.zeros(hidden, width))
        self.last_weight = nn.Parameter(torch.empty(1, width))
        self.last_bias = nn.Parameter(torch.zeros(1))
        levels = torch.linspace(config.outer_level, config.inner_level, config.manifolds - 1)
        self.register_buffer("levels", levels, persistent=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Hidden weights N(0, sqrt(2 / fan_out)), output constant, biases zero: a rough sphere.

        `round_predictor` corrects the constant by least squares. With zero biases the field is
        positively homogeneous, so a fit over directions holds everywhere. All is drawn and solved
        in float64 and rounded once, and the ridge keeps the condition number near 10^5: a seed
        gives the same weights whatever the number of threads and the CPU.
        """
        width = self.config.predictor_width
        spread = math.sqrt(2 / width)
        first = spread * torch.randn_like(self.first_weight, dtype=torch.float64)
        hidden = spread * torch.randn_like(self.hidden_weight, dtype=torch.float64)
        last = first.new_full((width,), LEVEL_PER_RADIUS * math.sqrt(math.pi / width))
        if self.config.round_predictor:
            last = _fitted_to_a_sphere(first, hidden)
        self.first_weight.copy_(first)
        self.hidden_weight.copy_(hidden)
        self.last_weight.copy_(last[None])
        for bias in (self.first_bias, self.hidden_bias, self.last_bias):
            bias.zero_()

    def forward(self, rays: Rays) -> Intersections:
        """Hits of all rays, flattened over images: R' = B R."""
        camera = self.config.camera
        return ray_isosurface(
            rays.origins.reshape(-1, 3),
            rays.directions.reshape(-1, 3),
            self.levels,
            FieldWeights(
                self.first_weight, self.first_bias, self.hidden_weight, self.hidden_bias,
                self.last_weight, self.last_bias,
            ),
            centre=self.config.predictor_centre,
            scale=PREDICTOR_SCALE,
            near=camera.near,
            far=camera.far,
            samples=self.config.ray_samples,
            plane_z=self.config.plane_z,
        )  # fmt: skip


def _fitted_to_a_sphere(first: Tensor, hidden: Tensor) -> Tensor:
    """(width,): the output weight under which these layers are nearest to 10 |x|, in float64."""
    directions = torch.randn(FIT_DIRECTIONS, 3, dtype=first.dtype, device=first.device)
    h = nn.functional.normalize(directions, dim=1)
    for weight in (first, *hidden):
        h = (h @ weight.T).relu()
    normal = h.T @ h
    normal.diagonal().add_(FIT_RIDGE * normal.diagonal().mean())
    return torch.linalg.solve(normal, LEVEL_PER_RADIUS * h.sum(0))
