"""The terms of Eq. 3-8 as pure functions of discriminator outputs, and what may replace them."""

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, softplus


def discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:  # (B,), (B,)
    """Non-saturating loss, the discriminator's side (Eq. 3)."""
    return softplus(fake).mean() + softplus(-real).mean()


def generator_loss(fake: Tensor) -> Tensor:  # (B,)
    """Non-saturating loss, the generator's side (Eq. 3)."""
    return softplus(-fake).mean()


def relativistic_loss(winner: Tensor, loser: Tensor) -> Tensor:  # (B,), (B,)
    """How far scores of `winner` are from beating those of `loser`, pair by pair.

    The discriminator's side has photographs as winners, the generator's side its own pictures:
    the relativistic pairing loss (Jolicoeur-Martineau 2018; R3GAN, Huang et al. 2024, Eq. 2).
    """
    return softplus(loser - winner).mean()


def gradient_penalty(score: Tensor, pictures: Tensor) -> Tensor:  # (B,), (B, C, H, W)
    """E ||grad D||^2, without the factor 1/2, as Eq. 3 writes it; differentiable.

    R1 on photographs, R2 on generated pictures (Mescheder et al. 2018).
    """
    (gradient,) = torch.autograd.grad(score.sum(), pictures, create_graph=True)
    return gradient.square().sum((1, 2, 3)).mean()


def pose_loss(predicted: Tensor, pose: Tensor) -> Tensor:  # (B, 2) radians
    """Eq. 4, with the identity around the regressor."""
    return mse_loss(predicted, pose)


def known_pose_loss(predicted: Tensor, pose: Tensor) -> Tensor:  # (B, 2), NaN rows unknown
    """Eq. 4 on photographs: the mean over the batch, photographs without a pose counting 0."""
    known = pose.isfinite().all(1, keepdim=True)
    return torch.where(known, predicted - pose.nan_to_num(), 0.0).square().mean()


def latent_loss(predicted: Tensor, latent: Tensor) -> Tensor:  # (B, Z)
    """Eq. 5, with the identity around the regressor."""
    return mse_loss(predicted, latent)
