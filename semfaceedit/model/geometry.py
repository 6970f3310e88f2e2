"""Geometry Module Psi_g: occupancy, class scores and appearance descriptor of each hit (Eq. 1)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..kernels import Intersections
from .codes import Film
from .config import ModelConfig
from .distinct_rows import distinct_rows
from .film import FilmSirenStack, MappingNetwork
from .labels import NUM_CLASSES

WIDENING = 1e-3  # the widened sigmoid: sigmoid(x) (1 + 2 eps) - eps, so that 0 and 1 are reached


def widened_sigmoid(x: Tensor) -> Tensor:
    return torch.sigmoid(x) * (1 + 2 * WIDENING) - WIDENING


@dataclass(frozen=True)
class Geometry:
    """What Psi_g says of R' = B R rays with K hits each.

    Only valid hits are evaluated; `hit_index` (P,) holds their positions in the flattened
    (R' K) list.
    """

    alpha: Tensor  # (R', K) 0 where a level is missed, 1 on the plane
    semantics: Tensor  # (R', K, N) class scores
    descriptor: Tensor  # (P, W), or (P, 0) where not asked for
    hit_index: Tensor  # (P,) int64, ascending
    multiplied: bool  # with `through`: then `descriptor` is the product


class GeometryModule(nn.Module):
    """FiLM-SIREN stack 3 -> W with 1 + N + W summed heads; density never sees the direction."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.mapping = MappingNetwork(
            config.latent_dim,
            config.mapping_width,
            config.mapping_layers,
            config.geometry_depth,
            config.width,
        )
        gains = [
            config.density_gain,
            *[config.semantic_gain] * NUM_CLASSES,
            *[config.descriptor_gain] * config.width,
        ]
        self.stack = FilmSirenStack(
            3, config.width, config.geometry_depth, groups=1, gains=gains, trunk_channels=1
        )
        if not config.background_prior or config.semantic_gain == 1:
            # No class is ahead of the others but by the prior.
            with torch.no_grad():
                self.stack.head_bias[..., 1 : 1 + NUM_CLASSES] = 0

    def forward(
        self,
        intersections: Intersections,  # of R' = B R rays, image by image
        directions: Tensor,  # (R', 3)
        film: Film,  # (B, L + 1, W)
        *,
        describe: bool = True,
        through: Tensor | None = None,  # (W, W)
    ) -> Geometry:
        """through: what the descriptor will be multiplied with, folded into its heads where that
        saves a product: not where it alone is trained, whose gradient would pass the whole stack.
        """
        config = self.config
        valid = intersections.valid
        batch, shape = film.frequencies.shape[0], valid.shape
        multiplied = describe and through is not None and not self._is_trained_alone(through)
        hit_index = valid.flatten().nonzero()[:, 0]
        counts = valid.view(batch, -1).sum(1)
        out = self.stack(
            distinct_rows(intersections.points.reshape(-1, 3), hit_index) * config.coordinate_scale,
            directions[hit_index // shape[1]],
            film,
            nn.functional.pad(counts.cumsum(0), (1, 0)),
            torch.zeros_like(counts),
            channels=None if describe else 1 + NUM_CLASSES,
            through=through if multiplied else None,
        )
        on_plane = (intersections.level == len(intersections.level[0]) - 1).flatten()[hit_index]
        rest = out.shape[1] - 1 - NUM_CLASSES
        sigma, logits, descriptor = out.split([1, NUM_CLASSES, rest], 1)  # one gradient, not three
        alpha = torch.where(on_plane, 1.0, self._opacity(sigma[:, 0]))
        scores = self._scores(logits, on_plane)
        # Apart, not as columns of one tensor: the gradient of a column is a copy of all of them.
        dense_alpha = alpha.new_zeros(valid.numel()).index_copy_(0, hit_index, alpha)
        dense_scores = scores.new_zeros(valid.numel(), NUM_CLASSES).index_copy_(
            0, hit_index, scores
        )
        return Geometry(
            dense_alpha.view(shape),
            dense_scores.view(*shape, NUM_CLASSES),
            descriptor,
            hit_index,
            multiplied,
        )

    def _is_trained_alone(self, through: Tensor) -> bool:
        own = self.stack.head_weight
        return torch.is_grad_enabled() and through.requires_grad and not own.requires_grad

    def opacity(self, points: Tensor, film: Film) -> Tensor:  # (P, 3) world, (1, L + 1, W)
        """alpha (P,) of points on iso-surfaces of one face; density never sees the direction."""
        sigma = self.stack(
            points * self.config.coordinate_scale,
            torch.zeros_like(points),
            film,
            torch.tensor([0, len(points)], device=points.device),
            torch.zeros(1, dtype=torch.int64, device=points.device),
            channels=1,
        )
        return self._opacity(sigma[:, 0])

    def _opacity(self, sigma: Tensor) -> Tensor:
        density = nn.functional.softplus(sigma + self.config.density_shift)
        return 1 - torch.exp(-self.config.density_scale * density)

    def _scores(self, logits: Tensor, on_plane: Tensor) -> Tensor:  # (P, N), (P,) -> (P, N)
        prior = self.config.background_prior
        if prior:
            is_background = (torch.arange(NUM_CLASSES, device=logits.device) == 0).to(logits)
            shift = torch.where(on_plane, prior, -prior)[:, None]
            logits = torch.addcmul(logits, shift, is_background)
        if self.config.semantic_activation == "softmax":
            return logits.softmax(1)
        return widened_sigmoid(logits)
