"""Discriminators: shapes, shared resolutions, fading, coordinates."""

import dataclasses

import pytest
import torch

from semfaceedit.errors import UserError
from semfaceedit.model import config
from semfaceedit.model.config import Phase
from semfaceedit.model.discriminator import (
    CoordConv,
    Discriminator,
    build_discriminators,
    image_input,
)
from semfaceedit.model.generator import count_parameters
from semfaceedit.model.windows import Windows


def test_paper_sizes_halve_256_down_to_2():
    d_image, d_semantic = build_discriminators(config.paper())
    assert len(d_image.blocks) == 7
    assert count_parameters(d_image) == 12_391_827
    assert count_parameters(d_semantic) == 12_798_993
    assert d_image.resolutions == [256]
    score, pose = d_image(torch.zeros(1, 3, 256, 256))
    assert score.shape == (1,) and pose.shape == (1, 2)


@pytest.mark.parametrize("resolution", [8, 16])
def test_one_network_serves_every_phase(resolution):
    d_image, d_semantic = build_discriminators(config.tiny())
    score, latent = d_semantic(torch.randn(3, 19, resolution, resolution))
    assert score.shape == (3,) and latent.shape == (3, config.tiny().model.latent_dim)
    assert d_image(torch.randn(3, 3, resolution, resolution))[1].shape == (3, 2)


def test_fading_starts_at_the_lower_resolution():
    torch.manual_seed(0)
    d_image, _ = build_discriminators(config.tiny())
    x = torch.randn(2, 3, 16, 16)
    small = torch.nn.functional.avg_pool2d(x, 2)
    torch.testing.assert_close(d_image(x, fade=0.0)[0], d_image(small)[0])
    assert not torch.allclose(d_image(x, fade=0.5)[0], d_image(x)[0])


def test_coordinates_are_seen():
    torch.manual_seed(0)
    layer = CoordConv(1, 4)
    out = layer(torch.zeros(1, 1, 8, 8))
    assert (out[..., 3, 2] - out[..., 3, 5]).abs().max() > 1e-3


@pytest.mark.parametrize("resolution", [12, 64])
def test_resolutions_that_do_not_fit_are_refused(resolution):
    tiny = config.tiny()
    train = dataclasses.replace(
        tiny.train, phases=(Phase(until=1.0, resolution=resolution, batch=4),)
    )
    with pytest.raises(UserError, match=f"training resolution {resolution} must be a power of two"):
        build_discriminators(dataclasses.replace(tiny, train=train))


def test_a_paired_one_reads_the_map_too():
    tiny = config.tiny()
    paired = dataclasses.replace(tiny.discriminator, paired=True)
    d_image, _ = build_discriminators(dataclasses.replace(tiny, discriminator=paired))
    image, semantics = torch.randn(2, 3, 16, 16), torch.randn(2, 19, 16, 16)
    score, pose = d_image(image_input(d_image, image, semantics))
    assert score.shape == (2,) and pose.shape == (2, 2)
    assert not torch.allclose(score, d_image(image_input(d_image, image, -semantics))[0])
    alone, _ = build_discriminators(tiny)
    assert image_input(alone, image, semantics) is image


@pytest.mark.parametrize("resolution", [8, 16])
def test_maps_read_anew_change_no_score_at_first(resolution):
    """Weights of a D_c without maps, taken by one with them, and back."""
    torch.manual_seed(0)
    channels = (8, 8, 16, 16)
    alone, paired, back = (Discriminator(n, 2, channels, (8, 16)) for n in (3, 22, 3))
    paired.take(alone)
    back.take(paired)
    image, semantics = torch.randn(2, 3, resolution, resolution), torch.ones(2, 19, 1, 1)
    picture = image_input(paired, image, semantics.expand(-1, -1, resolution, resolution))
    for ours, theirs in ((paired(picture), alone(image)), (back(image), alone(image))):
        torch.testing.assert_close(ours, theirs)


def test_bfloat16_scores_stay_near_float32():
    torch.manual_seed(0)
    network = Discriminator(3, 2, (8, 8, 16, 16), (16,))
    x = torch.randn(4, 3, 16, 16)
    exact = network(x)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(x)[0]
    assert (rounded - exact).abs().max() < 0.1 * exact.abs().max() + 0.05


def test_windows_have_the_coordinates_of_the_picture_they_are_of():
    """A window of the whole side is the whole picture; a layer sees its part of the whole grid."""
    torch.manual_seed(0)
    d_image, _ = build_discriminators(config.tiny())
    x = torch.randn(2, 3, 16, 16)
    assert build_discriminators(config.medium())[0].resolutions == [16, 32, 64]  # of windows
    whole = Windows(torch.zeros(2, 2, dtype=torch.int64), side=16, resolution=16)
    torch.testing.assert_close(d_image(x, windows=whole)[0], d_image(x)[0])

    layer = CoordConv(1, 4)
    pictures = torch.randn(2, 1, 12, 12)
    windows = Windows(torch.tensor([[1, 6], [4, 0]]), side=6, resolution=12)
    seen = layer(windows.cut_pictures(pictures), windows)
    expected = windows.cut_pictures(layer(pictures))
    torch.testing.assert_close(seen[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
