"""Cheap measures that need no foreign weights: pixel Frechet distance, and checks of a model."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

FEATURE_SIZE = 16  # pictures are averaged to 16 x 16
COMPONENTS = 64


def pixel_features(pictures: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 256 C) float64
    """Pictures averaged by area to 16 x 16."""
    return adaptive_avg_pool2d(pictures.double(), FEATURE_SIZE).flatten(1)


def frechet_distance(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """||m_a - m_b||^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of two Gaussians, (D,) and (D, D)."""
    root_a = _matrix_sqrt(cov_a)
    cross = _matrix_sqrt(root_a @ cov_b @ root_a)
    return (mean_a - mean_b).square().sum() + (cov_a + cov_b - 2 * cross).trace()


def _matrix_sqrt(matrix: Tensor) -> Tensor:  # symmetric, positive semi-definite
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.T


@dataclass(frozen=True)
class PixelFrechet:
    """The pixel Frechet distance to a real set: a monitor of training, not an FID.

    Features are projected on the real set's first 64 principal components; the Frechet distance of
    the two Gaussians there is divided by the real set's total variance.
    """

    components: Tensor  # (D, 64)
    mean: Tensor  # (64,)
    covariance: Tensor  # (64, 64)
    total_variance: Tensor

    @classmethod
    def from_features(cls, features: Tensor) -> "PixelFrechet":  # (M, D)
        """`features`: `pixel_features` of all real pictures and their flips."""
        mean = features.mean(0)
        centred = features - mean
        _, singular, vectors = torch.linalg.svd(centred, full_matrices=False)
        components = vectors[:COMPONENTS].T
        variances = singular.square() / (len(features) - 1)
        return cls(
            components,
            mean @ components,
            torch.diag(variances[:COMPONENTS]),
            variances.sum(),
        )

    def distance(self, features: Tensor) -> float:  # (M, D)
        projected = features @ self.components
        distance = frechet_distance(
            projected.mean(0), torch.cov(projected.T), self.mean, self.covariance
        )
        return float(distance / self.total_variance)
