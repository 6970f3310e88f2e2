"""A wider generator that starts as a narrower one, and windows of its pictures."""

import dataclasses

import pytest
import torch

from semfaceedit.errors import UserError
from semfaceedit.model import config
from semfaceedit.model.generator import Generator, sample_latents
from semfaceedit.model.growth import check_growth, grow
from semfaceedit.model.windows import Windows

POSE = torch.tensor([[0.2, -0.1], [-0.3, 0.1]], dtype=torch.float64)
SHARING = ("proposed", "none", "all")


def pair(sharing: config.Sharing = "proposed", **changes) -> tuple[Generator, Generator]:
    torch.manual_seed(3)
    old = dataclasses.replace(config.tiny().model, sharing=sharing, background_prior=0.0)
    new = dataclasses.replace(old, **{"width": 32, **changes})
    check_growth(old, new)
    generators = Generator(old).double(), Generator(new).double()
    grow(*generators)
    return generators


def drawn(generator: Generator, windows: Windows | None = None, size: int = 16):
    codes = sample_latents(generator.config, 2, generator=torch.Generator().manual_seed(5))
    return generator(*(z.double() for z in codes), POSE, resolution=size, windows=windows)


@pytest.mark.parametrize("sharing", SHARING)
def test_a_wider_generator_draws_the_same_at_first(sharing):
    narrow, wide = (drawn(generator) for generator in pair(sharing))
    torch.testing.assert_close(wide.image, narrow.image, rtol=0, atol=1e-12)
    torch.testing.assert_close(wide.semantics, narrow.semantics, rtol=0, atol=1e-12)


def test_new_channels_learn():
    """What old channels read of new ones starts at zero and has a gradient, so that one step
    away every new weight has one."""
    _, wide = pair()
    for step in range(2):
        wide.zero_grad()
        drawn(wide).image.square().mean().backward()
        if step == 0:
            weight = wide.geometry.stack.hidden_weight
            assert not weight[0, :16, 16:].any() and weight.grad[0, :16, 16:].abs().min() > 0
            with torch.no_grad():
                for parameter in wide.parameters():
                    parameter -= 1e-3 * torch.sign(parameter.grad)
    for name, first in (("first_weight", 16), ("hidden_weight", 16), ("head_weight", 1 + 19 + 16)):
        gradient = wide.geometry.stack.get_parameter(name).grad
        assert (gradient[..., first:, :].abs().amax(-1) > 0).all(), name


def test_more_surfaces_that_are_thinner_are_about_as_dense():
    old, new = pair(manifolds=9, density_scale=0.5 * config.tiny().model.density_scale)
    narrow, wide = drawn(old), drawn(new)
    assert (wide.weights[:, -1] - narrow.weights[:, -1]).abs().max() < 0.05


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"width": 8}, "wider .16. than this run's .8."),
        ({"geometry_depth": 4}, "another geometry_depth"),
        ({"latent_dim": 4, "mapping_width": 8}, "another latent_dim and another mapping_width"),
    ],
)
def test_what_cannot_grow_is_said(changes, message):
    old = config.tiny().model
    with pytest.raises(UserError, match=message):
        check_growth(old, dataclasses.replace(old, **changes))


def test_a_window_is_a_part_of_the_picture():
    generator, _ = pair()
    windows = Windows(torch.tensor([[2, 7], [8, 0]]), side=8, resolution=16)
    whole, part = drawn(generator), drawn(generator, windows)
    for name in ("image", "semantics", "depth"):
        expected = windows.cut_pictures(getattr(whole, name))
        torch.testing.assert_close(getattr(part, name), expected, rtol=0, atol=1e-12)
    assert torch.equal(windows.cut_pictures(whole.image)[0], whole.image[0, :, 7:15, 2:10])


def test_windows_are_drawn_everywhere():
    windows = Windows.draw(4000, 3, 6, torch.Generator().manual_seed(0))
    places, counts = windows.corner.unique(dim=0, return_counts=True)
    assert len(places) == 16 and places.min() == 0 and places.max() == 3
    assert 180 < counts.min() and counts.max() < 330  # 250 each, standard deviation 15
