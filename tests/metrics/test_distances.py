"""Distances between sets of pictures, against closed forms and numbers worked out by hand."""

import math

import numpy as np
import pytest
import torch

from semfaceedit.metrics import distances as module
from semfaceedit.metrics.distances import (
    descriptors,
    directions,
    enlarge,
    gaussian_distance,
    kernel_distance,
    laplacian_pyramid,
    levels,
    polynomial_mmd,
    sliced_wasserstein,
    spread,
)


def test_levels_halve_down_to_sixteen():
    assert levels(256) == [256, 128, 64, 32, 16]
    assert levels(16) == [16] and levels(8) == [8] and levels(48) == [48, 24]


def test_bands_add_up_to_the_picture():
    torch.manual_seed(0)
    pictures = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    *bands, rest = laplacian_pyramid(pictures)
    assert [band.shape[-1] for band in bands] == [64, 32] and rest.shape[-1] == 16
    for band in reversed(bands):
        rest = band + enlarge(rest)
    torch.testing.assert_close(rest, pictures)


def test_constants_live_in_the_last_level_alone():
    *bands, rest = laplacian_pyramid(torch.full((1, 1, 32, 32), 0.7, dtype=torch.float64))
    assert all(band.abs().max() < 1e-12 for band in bands)
    torch.testing.assert_close(rest, torch.full_like(rest, 0.7))


def test_patches_are_cut_from_the_picture_at_places_of_its_index():
    picture = torch.arange(256.0).view(1, 1, 16, 16)
    (found,) = descriptors(picture, 5, 3, seed=1)
    places = np.random.default_rng([1, 0, 5]).integers(0, 10, (2, 3))
    for row, (y, x) in zip(found, places.T, strict=True):
        assert torch.equal(row, picture[0, 0, y : y + 7, x : x + 7].flatten())
    together = descriptors(picture.expand(2, -1, -1, -1), 4, 3, seed=1)[0]
    assert torch.equal(together[3:], found)  # in whatever company a picture is cut


def test_sliced_wasserstein_by_hand():
    a, b = torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.tensor([[3.0, 1.0], [0.0, 0.0]])
    axes = torch.eye(2)
    # x: {0, 1} to {0, 3} is 1; y: {0, 2} to {0, 1} is 1/2
    assert sliced_wasserstein(a, b, axes) == pytest.approx(0.75)
    assert sliced_wasserstein(a, a, axes) == 0


def test_a_shifted_set_is_as_far_as_its_shift():
    torch.manual_seed(0)
    a, shift = torch.randn(300, 20), torch.randn(20)
    unit = directions(20, seed=3)
    torch.testing.assert_close(unit.norm(dim=0), torch.ones(module.DIRECTIONS))
    wanted = float((shift @ unit).abs().mean())
    assert sliced_wasserstein(a, (a + shift)[torch.randperm(300)], unit) == pytest.approx(
        wanted, rel=1e-5
    )
    # over all directions the mean of |u . s| is |s| Gamma(D/2) / (sqrt(pi) Gamma((D+1)/2))
    mean = math.gamma(10) / (math.sqrt(math.pi) * math.gamma(10.5)) * float(shift.norm())
    deviation = float((shift @ unit).abs().std()) / math.sqrt(module.DIRECTIONS)
    assert abs(wanted - mean) < 4 * deviation


def test_brighter_pictures_differ_in_the_last_level_by_the_shift():
    torch.manual_seed(0)
    pictures = torch.rand(6, 3, 32, 32)
    sets = [descriptors(p, 0, 8, seed=0) for p in (pictures, pictures + 0.25)]
    (band, band_shifted), (rest, rest_shifted) = zip(*sets, strict=True)
    unit = directions(band.shape[1], seed=0)
    assert sliced_wasserstein(band, band_shifted, unit) < 1e-6
    wanted = 0.25 * float(unit.sum(0).abs().mean())
    assert sliced_wasserstein(rest, rest_shifted, unit) == pytest.approx(wanted, rel=1e-4)


def test_spread_is_the_root_of_the_mean_variance():
    values = torch.tensor([[0.0, 5.0], [2.0, 5.0]])  # variances 1 and 0
    assert spread(values) == pytest.approx(math.sqrt(0.5))
    assert spread(torch.ones(3, 2)) == 1


def test_frechet_distance_of_samples_of_two_gaussians():
    torch.manual_seed(0)
    base = torch.randn(4000, 6, dtype=torch.float64)
    base = (base - base.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(base.T))).T
    scale_a, scale_b = torch.tensor([1.0, 2, 3, 1, 1, 1]), torch.tensor([2.0, 2, 1, 1, 1, 0.5])
    shift = torch.tensor([1.0, 0, 0, 2, 0, 0])
    wanted = float(shift.square().sum() + (scale_a - scale_b).square().sum())
    assert gaussian_distance(base * scale_a, base * scale_b + shift) == pytest.approx(wanted)
    assert gaussian_distance(base, base) == pytest.approx(0, abs=1e-9)
    assert gaussian_distance(base, base + shift) == pytest.approx(5)


def test_the_frechet_distance_sees_rotation():
    """Covariances A = diag(4, 1) and B, A turned by 45 degrees: in two dimensions the trace of
    (A B)^(1/2) is (tr A B + 2 (det A B)^(1/2))^(1/2), here (12.5 + 2 * 4)^(1/2)."""
    torch.manual_seed(0)
    base = torch.randn(500, 2, dtype=torch.float64)
    base = (base - base.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(base.T))).T
    a = base * torch.tensor([2.0, 1.0])
    turn = torch.tensor([[1.0, 1.0], [-1.0, 1.0]], dtype=torch.float64) / math.sqrt(2)
    assert gaussian_distance(a, a @ turn) == pytest.approx(5 + 5 - 2 * math.sqrt(20.5))


def test_kernel_distance_by_hand():
    a, b = torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [3.0]])
    # kernel (x y + 1)^3: within a 27, within b 64, across (8 + 64 + 27 + 343) / 4
    assert polynomial_mmd(a, b) == pytest.approx(27 + 64 - 2 * 110.5)


def test_the_kernel_estimator_is_unbiased():
    """Over many draws of one distribution its mean is 0; with the diagonal it would not be."""
    torch.manual_seed(0)
    values = [polynomial_mmd(*torch.randn(2, 20, 3, dtype=torch.float64)) for _ in range(400)]
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 4 * error
    diagonal = 8.0  # E (|x|^2 / 3 + 1)^3 is at least (1 + 1)^3, over 20 features
    assert diagonal / 20 > 4 * error  # so that a biased estimator would be seen


def test_kernel_distance_over_subsets(monkeypatch):
    monkeypatch.setattr(module, "KID_SUBSET", 50)
    torch.manual_seed(0)
    a = torch.randn(200, 4)
    near = kernel_distance(a, torch.randn(200, 4), seed=0)
    far = kernel_distance(a, torch.randn(200, 4) + 1, seed=0)
    assert abs(near.mean) < near.deviation < far.mean
    assert (near.subsets, near.size) == (100, 50)
    assert kernel_distance(a, a + 1, seed=0) == kernel_distance(a, a + 1, seed=0)
    for count in (30, 50):  # fewer than a subset, and as many: the same set each time
        few = kernel_distance(a[:count], a[50 : 50 + count], seed=0)
        assert few.mean == polynomial_mmd(a[:count], a[50 : 50 + count])
        assert (few.deviation, few.subsets, few.size) == (None, 1, None)
