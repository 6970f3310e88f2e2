"""PSNR, SSIM and the monitor's distance against closed forms and values worked out by hand."""

import numpy as np
import pytest
import torch

from semfaceedit.data.dataset import FaceDataset
from semfaceedit.metrics.pictures import (
    PixelFrechet,
    frechet_distance,
    pixel_features,
    psnr,
    ssim,
    ssim_map,
)
from semfaceedit.training import monitor
from semfaceedit.training.monitor import Monitor


def grey(*values: float, size: int = 16) -> torch.Tensor:
    """(B, 3, size, size) of constant intensities in [0, 1], as pictures in [-1, 1]."""
    return (2 * torch.tensor(values).double() - 1)[:, None, None, None].expand(-1, 3, size, size)


def test_psnr_by_hand():
    found = psnr(grey(0.5, 0.1, 0.3), grey(0.6, 0.1, 0.8))
    wanted = torch.tensor([20.0, 100.0, -20 * np.log10(0.5)])  # -10 log10(difference^2)
    torch.testing.assert_close(found, wanted.double())
    keep = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    keep[..., :4] = True
    mixed = torch.where(keep, grey(0.51), grey(0.9))
    assert float(psnr(mixed, grey(0.5), keep)) == pytest.approx(40.0)
    assert float(psnr(mixed, grey(0.5), ~keep & False)) == 100.0


def test_ssim_of_constants_is_its_luminance_term():
    found = ssim(grey(0.2, 0.7, 0.0), grey(0.6, 0.7, 1.0))
    wanted = [(2 * 0.2 * 0.6 + 1e-4) / (0.04 + 0.36 + 1e-4), 1.0, 1e-4 / (1 + 1e-4)]
    torch.testing.assert_close(found, torch.tensor(wanted).double())


def test_ssim_of_identical_and_of_inverted_noise():
    torch.manual_seed(0)
    noise = torch.rand(2, 3, 24, 24).double() * 2 - 1
    torch.testing.assert_close(ssim(noise, noise), torch.ones(2).double())
    assert (ssim(noise, -noise) < -0.5).all()  # the same variance, opposite covariance
    assert torch.equal(ssim(noise, noise.flip(0)), ssim(noise.flip(0), noise))


def test_ssim_at_one_pixel_by_the_sums_of_its_definition():
    random = np.random.default_rng(0)
    x, y = random.random((2, 15, 15))
    offset = np.arange(11) - 5
    window = np.exp(-(offset[:, None] ** 2 + offset**2) / (2 * 1.5**2))
    found = ssim_map(*(torch.from_numpy(p)[None, None] * 2 - 1 for p in (x, y)))[0, 0]
    for row, column in ((7, 7), (8, 6), (0, 1)):  # the last one's window is cut by the border
        rows, columns = (slice(max(c - 5, 0), c + 6) for c in (row, column))
        w = window[max(5 - row, 0) :, max(5 - column, 0) :][: x[rows].shape[0]]
        w, u, v = w / w.sum(), x[rows, columns], y[rows, columns]
        mu, mv = (w * u).sum(), (w * v).sum()
        spread = (w * ((u - mu) ** 2 + (v - mv) ** 2)).sum()
        joint = (w * (u - mu) * (v - mv)).sum()
        wanted = (2 * mu * mv + 1e-4) * (2 * joint + 9e-4)
        wanted /= (mu**2 + mv**2 + 1e-4) * (spread + 9e-4)
        assert float(found[row, column]) == pytest.approx(wanted, rel=1e-9)


def test_what_is_not_kept_has_no_influence_on_ssim():
    torch.manual_seed(0)
    a, b = torch.rand(2, 1, 3, 20, 20) * 2 - 1
    keep = torch.ones(1, 1, 20, 20, dtype=torch.bool)
    keep[..., 5:12, 8:15] = False
    spoilt = torch.where(keep, b, -b)
    assert torch.equal(ssim(a, b, keep), ssim(a, spoilt, keep))
    assert float(ssim(a, torch.where(keep, a, -a), keep)) == pytest.approx(1, abs=1e-5)
    assert float(ssim(a, spoilt, ~keep & False)) == 1.0


def test_frechet_distance_of_diagonal_gaussians():
    a, b = torch.tensor([1.0, 4.0]).double(), torch.tensor([9.0, 4.0]).double()
    mean = torch.tensor([1.0, 2.0]).double()
    distance = frechet_distance(torch.zeros(2).double(), a.diag(), mean, b.diag())
    # |m|^2 + sum (sqrt a - sqrt b)^2
    torch.testing.assert_close(distance, torch.tensor(5.0 + 4.0).double())


def test_frechet_distance_is_symmetric_for_full_covariances():
    torch.manual_seed(0)
    x, y = torch.randn(50, 4).double(), torch.randn(60, 4).double() @ torch.randn(4, 4).double()
    one = frechet_distance(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    two = frechet_distance(y.mean(0), y.T.cov(), x.mean(0), x.T.cov())
    torch.testing.assert_close(one, two)
    assert one > 0


def test_features_are_area_averages():
    picture = torch.zeros(1, 1, 32, 32)
    picture[0, 0, :2, :2] = torch.tensor([[1.0, 2.0], [3.0, 6.0]])
    features = pixel_features(picture)
    assert features.shape == (1, 256) and features[0, 0] == 3.0 and features[0, 1:].eq(0).all()


def test_a_set_against_itself_and_shifted_along_a_component():
    torch.manual_seed(1)
    real = torch.randn(500, 300).double() * torch.linspace(3, 0.1, 300).double()
    frechet = PixelFrechet.from_features(real)
    assert abs(frechet.distance(real)) < 1e-10
    shift = 0.5 * frechet.components[:, 3]
    wanted = 0.25 / real.var(0).sum()
    torch.testing.assert_close(
        torch.tensor(frechet.distance(real + shift)), torch.tensor(float(wanted))
    )


@pytest.mark.parametrize("count", [80, 500])
def test_components_are_those_of_the_svd(count):
    torch.manual_seed(2)
    real, made = (torch.randn(n, 300).double() * torch.linspace(3, 0.1, 300) for n in (count, 99))
    frechet = PixelFrechet.from_features(real)
    centred = real - real.mean(0)
    _, singular, vectors = torch.linalg.svd(centred, full_matrices=False)
    variances = singular.square() / (count - 1)
    wanted = PixelFrechet(
        vectors[:64].T, vectors[:64] @ real.mean(0), variances[:64].diag(), variances.sum()
    )
    torch.testing.assert_close(frechet.components.abs(), wanted.components.abs())
    assert frechet.distance(made) == pytest.approx(wanted.distance(made), rel=1e-9)


def test_the_monitor_reads_a_bounded_part_of_a_large_set():
    class Counted(FaceDataset):
        def batch(self, indices, flips, resolution):
            read.extend(indices)
            return super().batch(indices, flips, resolution)

    read: list[int] = []
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (50, 16, 16, 3), np.uint8)
    labels = np.zeros((50, 16, 16), np.uint8)
    poses = np.zeros((50, 2), np.float32)
    data = Counted(images, labels, poses, [str(i) for i in range(50)], 16, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(monitor, "MOST_FACES", 20)
        Monitor(data)
    assert read[:20] == read[20:] and len(set(read)) == 20
    assert read[0] == 0 and set(np.diff(read[:20])) == {2, 3}


def test_the_monitor_counts_faces_as_an_epoch_shows_them():
    """One face of 8 has glasses and another grey: repeated four times it is 4 of 11 samples."""
    labels = np.ones((8, 16, 16), np.uint8)
    labels[5, 8] = 3  # eye_g
    images = np.zeros((8, 16, 16, 3), np.uint8)
    images[5] = 255
    poses = np.zeros((8, 2), np.float32)
    data = FaceDataset(images, labels, poses, [str(i) for i in range(8)], 16, {})
    black, white = torch.full((1, 3, 16, 16), -1.0), torch.full((1, 3, 16, 16), 1.0)
    for rare_share, count, total in ((0.0, 1, 8), (0.5, 4, 11)):
        counted = Monitor(data, rare_share).images
        shown = torch.cat(
            [white.expand(count, -1, -1, -1), black.expand(total - count, -1, -1, -1)]
        )
        features = pixel_features(shown)
        same = PixelFrechet.from_features(torch.cat([features, features]))
        torch.testing.assert_close(counted.total_variance, same.total_variance)
        assert counted.distance(features) == pytest.approx(same.distance(features), abs=1e-9)
