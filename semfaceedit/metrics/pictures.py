"""Cheap measures that need no foreign weights: PSNR, SSIM and the pixel Frechet distance."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, conv2d

FEATURE_SIZE = 16  # pictures are averaged to 16 x 16
COMPONENTS = 64
WINDOW, SIGMA = 11, 1.5  # of SSIM's Gaussian, in pixels (Wang et al. 2004)
STABILISERS = (0.01**2, 0.03**2)  # SSIM's C1 and C2 for values in [0, 1]


def psnr(
    pictures: Tensor,  # (B, C, H, W) in [-1, 1]; what lies beyond is clamped
    target: Tensor,  # (B, C, H, W) in [-1, 1]
    keep: Tensor | None = None,  # (B, 1, H, W) bool: the pixels that count; None: all
) -> Tensor:  # (B,) dB
    """Peak signal-to-noise ratio; 100 dB where nothing differs or nothing is kept."""
    error = (pictures.clamp(-1, 1) - target).square().mean(1, keepdim=True)
    return 10 * torch.log10(4 / _mean_over(error, keep).clamp(min=4e-10))


def ssim(pictures: Tensor, target: Tensor, keep: Tensor | None = None) -> Tensor:  # (B,) 1: alike
    """The mean of `ssim_map` over kept pixels; 1 where nothing is kept."""
    return _mean_over(ssim_map(pictures, target, keep), keep, empty=1.0)


def ssim_map(
    pictures: Tensor,  # (B, C, H, W) in [-1, 1]; what lies beyond is clamped
    target: Tensor,  # (B, C, H, W) in [-1, 1]
    keep: Tensor | None = None,  # (B, 1, H, W) bool: the pixels that count; None: all
) -> Tensor:  # (B, 1, H, W)
    """Structural similarity at each pixel (Wang et al. 2004), averaged over channels.

    The window is an 11 x 11 Gaussian of sigma 1.5. Its weights are renormalised over the pixels
    that are kept and inside the picture, so that what lies outside has no influence.
    """
    shape, one = (len(pictures), 1, *pictures.shape[2:]), pictures.new_ones(())
    weights = one.expand(shape) if keep is None else keep.to(pictures).expand(shape)
    x, y = (torch.clamp((p + 1) / 2, 0, 1) for p in (pictures, target))
    total = _gaussian(weights).clamp(min=torch.finfo(x.dtype).tiny)

    def local(values: Tensor) -> Tensor:
        return _gaussian(values * weights) / total

    mean_x, mean_y = local(x), local(y)
    variance = local(x.square()) - mean_x.square() + local(y.square()) - mean_y.square()
    covariance = local(x * y) - mean_x * mean_y
    c1, c2 = STABILISERS
    luminance = (2 * mean_x * mean_y + c1) / (mean_x.square() + mean_y.square() + c1)
    return (luminance * (2 * covariance + c2) / (variance + c2)).mean(1, keepdim=True)


def rgb_change(
    before: Tensor,  # (B, 3, H, W) in [-1, 1]
    after: Tensor,
) -> Tensor:  # (B, H, W)
    """|Change of RGB| at each pixel, as colours in [0, 1], averaged over channels."""
    return (after - before).abs().mean(1) / 2


def _gaussian(values: Tensor) -> Tensor:  # (B, C, H, W) -> the same, zeros beyond the border
    place = torch.arange(WINDOW).to(values) - WINDOW // 2
    line = torch.exp(-0.5 * (place / SIGMA).square())
    line = line / line.sum()
    flat = values.flatten(0, 1)[:, None]
    across = conv2d(flat, line.view(1, 1, 1, -1), padding=(0, WINDOW // 2))
    return conv2d(across, line.view(1, 1, -1, 1), padding=(WINDOW // 2, 0)).view_as(values)


def _mean_over(values: Tensor, keep: Tensor | None, empty: float = 0.0) -> Tensor:
    """(B, 1, H, W) -> (B,): the mean over kept pixels, `empty` where there are none."""
    if keep is None:
        return values.mean((1, 2, 3))
    count = keep.expand_as(values).sum((1, 2, 3))
    mean = torch.where(keep, values, 0).sum((1, 2, 3)) / count.clamp(min=1)
    return torch.where(count > 0, mean, empty)


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
        mean, freedom = features.mean(0), len(features) - 1
        centred = features - mean
        # From the smaller of the two products: far cheaper than the SVD of `centred`.
        wide = len(features) < features.shape[1]
        values, vectors = torch.linalg.eigh(centred @ centred.T if wide else centred.T @ centred)
        leading = vectors.flip(1)[:, :COMPONENTS]
        components = torch.linalg.qr(centred.T @ leading)[0] if wide else leading
        variances = values.flip(0)[:COMPONENTS].clamp(min=0) / freedom
        return cls(
            components,
            mean @ components,
            torch.diag(variances),
            centred.square().sum() / freedom,
        )

    def distance(self, features: Tensor) -> float:  # (M, D)
        projected = features @ self.components
        distance = frechet_distance(
            projected.mean(0), torch.cov(projected.T), self.mean, self.covariance
        )
        return float(distance / self.total_variance)
