"""An encoder carried over to weights that were trained from its own."""

import dataclasses

import pytest
import torch

from semfaceedit.editing import encoder as reading
from semfaceedit.editing import encoder_growth
from semfaceedit.editing.encoder import new_encoder
from semfaceedit.editing.encoder_growth import carried_over
from semfaceedit.errors import UserError
from semfaceedit.model import config
from semfaceedit.model.generator import Generator
from semfaceedit.model.growth import grow
from semfaceedit.model.mean_face import mean_codes
from semfaceedit.model.renderer import render


@pytest.fixture(autouse=True)
def _few_samples(monkeypatch):
    for module in (reading, encoder_growth):
        monkeypatch.setattr(module, "PCA_SAMPLES", 512)


def generator(seed: int, **changes) -> Generator:
    torch.manual_seed(seed)
    return Generator(dataclasses.replace(config.tiny().model, **changes)).requires_grad_(False)


def encoder_of(own: Generator):
    """An encoder that reads faces far from the mean one, its free part too."""
    encoder = new_encoder(own, seed=2).requires_grad_(False)
    torch.manual_seed(7)
    for layer in (encoder.geometry, encoder.appearance, encoder.free_in, encoder.free_out):
        torch.nn.init.normal_(layer.weight, std=0.1 / layer.in_features**0.5)
    return encoder


def test_it_reads_the_same_faces_for_a_wider_generator():
    old, new = generator(3), generator(4, width=32)
    grow(old, new)
    encoder = encoder_of(old)
    carried = carried_over(encoder, old, new)
    torch.manual_seed(1)
    image, maps = 2 * torch.rand(3, 3, 32, 32) - 1, torch.rand(3, 19, 32, 32).softmax(1)
    reads = [encoder.read(image, maps), carried.read(image, maps)]
    torch.testing.assert_close(reads[0].pose, reads[1].pose)
    pictures, pose = [], reads[0].pose
    for own, read in zip((old, new), reads, strict=True):
        pictures.append(render(own, mean_codes(own) + read.offsets, pose, 16).image)
    still = render(old, mean_codes(old), pose[:1], 16).image
    moved = (pictures[0][:1] - still).square().mean()
    apart = (pictures[0] - pictures[1]).square().mean()
    assert moved > 1e-4
    assert apart < 1e-3 * moved


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"geometry_depth": 4}, "another geometry_depth"),
        ({"width": 8}, "wider"),
    ],
)
def test_weights_that_cannot_be_kin_are_refused(changes, said):
    old, new = generator(3), generator(4, **changes)
    with pytest.raises(UserError, match=said):
        carried_over(encoder_of(old), old, new)
