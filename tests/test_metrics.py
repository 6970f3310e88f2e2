"""The monitor's distance against closed forms."""

import torch

from semfaceedit.metrics import PixelFrechet, frechet_distance, pixel_features


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
