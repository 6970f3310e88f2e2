"""Eq. 3-5 against numbers worked out by hand."""

import math

import pytest
import torch

from semfaceedit.training.losses import (
    discriminator_loss,
    generator_loss,
    gradient_penalty,
    known_pose_loss,
    latent_loss,
    pose_loss,
    relativistic_loss,
)


def test_adversarial_terms():
    real, fake = torch.tensor([0.0, 2.0]), torch.tensor([0.0, -1.0])
    wanted = (math.log(2) + math.log1p(math.exp(-1))) / 2
    wanted += (math.log(2) + math.log1p(math.exp(-2))) / 2
    assert float(discriminator_loss(real, fake)) == pytest.approx(wanted)
    assert float(generator_loss(fake)) == pytest.approx((math.log(2) + math.log1p(math.e)) / 2)


def test_the_relativistic_term_compares_pair_by_pair():
    real, fake = torch.tensor([0.0, 3.0]), torch.tensor([1.0, 1.0])
    wanted = (math.log1p(math.e) + math.log1p(math.exp(-2))) / 2
    assert float(relativistic_loss(real, fake)) == pytest.approx(wanted)
    wanted = (math.log1p(math.exp(-1)) + math.log1p(math.exp(2))) / 2
    assert float(relativistic_loss(fake, real)) == pytest.approx(wanted)
    both = relativistic_loss(real + 7, fake + 7)  # no score has a meaning by itself
    assert float(both) == pytest.approx(float(relativistic_loss(real, fake)))


def test_r1_is_the_squared_gradient_without_a_half():
    x = torch.full((2, 1, 2, 2), 3.0, requires_grad=True)
    score = (x**2).sum((1, 2, 3)) / 2  # gradient x: four entries of 3 a picture
    penalty = gradient_penalty(score, x)
    assert penalty.item() == pytest.approx(4 * 9)
    (second,) = torch.autograd.grad(penalty, x)
    torch.testing.assert_close(second, x.detach())  # mean over two pictures of 2 x


def test_regressions():
    predicted = torch.tensor([[0.1, 0.0], [0.0, 0.4]])
    target = torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    assert float(pose_loss(predicted, target)) == pytest.approx((0.01 + 0.16) / 4)
    assert float(latent_loss(predicted, target)) == pytest.approx((0.01 + 0.16) / 4)


def test_unknown_poses_count_nothing_and_carry_no_gradient():
    predicted = torch.tensor([[0.1, 0.0], [5.0, 5.0]], requires_grad=True)
    target = torch.tensor([[0.0, 0.0], [math.nan, math.nan]])
    loss = known_pose_loss(predicted, target)
    assert float(loss) == pytest.approx(0.01 / 4)
    loss.backward()
    assert predicted.grad.isfinite().all() and not predicted.grad[1].any()
