"""Radiance manifolds: the predictor s(x), its levels, and where rays meet them."""

import math

import torch
from torch import Tensor, nn

from ..kernels import FieldWeights, Intersections, ray_isosurface
from .config import ModelConfig
from .rays import Rays

PREDICTOR_SCALE = 2 / 0.24  # world -> the coordinates in which centre and radii are given
LEVEL_PER_RADIUS = 10.0  # s(x) = 10 |x - centre|: level l is a sphere of radius l / 10


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
        """Hidden weights N(0, sqrt(2 / fan_in)), output constant, biases zero: a rough sphere.

        `round_predictor` replaces the constant by the least-squares fit to an exact sphere. With
        zero biases the field is positively homogeneous, so a fit over directions holds everywhere.
        """
        self.first_weight.normal_(0, math.sqrt(2 / 3))
        width = self.config.predictor_width
        self.hidden_weight.normal_(0, math.sqrt(2 / width))
        self.last_weight.fill_(LEVEL_PER_RADIUS * math.sqrt(math.pi / width))
        if self.config.round_predictor:
            directions = nn.functional.normalize(torch.randn(4096, 3), dim=1)
            h = (directions @ self.first_weight.T).relu()
            for weight in self.hidden_weight:
                h = (h @ weight.T).relu()
            ridge = 1e-4 * h.square().sum(0).mean() * torch.eye(width)
            target = h.T @ torch.full((len(h),), LEVEL_PER_RADIUS)
            self.last_weight.copy_(torch.linalg.solve(h.T @ h + ridge, target)[None])

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
