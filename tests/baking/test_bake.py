"""Baked layers: surfaces that rays meet, and pictures that are the renderer's."""

import dataclasses

import numpy as np
import pytest
import torch
from baked import baked

from semfaceedit.baking import surfaces as surfaces_module
from semfaceedit.baking.bake import BakedFace
from semfaceedit.baking.sampling import MISSED, draw, frontal_labels, meet
from semfaceedit.baking.surfaces import find_surfaces, surfaces_of
from semfaceedit.kernels import FieldWeights
from semfaceedit.kernels.ray_isosurface_reference import field
from semfaceedit.metrics.pictures import psnr
from semfaceedit.model.generator import Generator, seed_codes
from semfaceedit.model.manifolds import PREDICTOR_SCALE
from semfaceedit.model.rays import camera_rays
from semfaceedit.model.renderer import render

pytestmark = pytest.mark.usefixtures("one_thread")
SEED, SIZE = 3, 192


@pytest.fixture(scope="module")
def generator() -> Generator:
    return Generator.from_checkpoint(None)


@pytest.fixture(scope="module")
def face(generator: Generator) -> BakedFace:
    return baked(generator, SEED, SIZE)


def test_heights_lie_on_the_iso_surfaces(generator: Generator) -> None:
    surfaces, predictor = surfaces_of(generator), generator.manifolds
    weights = FieldWeights(
        predictor.first_weight, predictor.first_bias, predictor.hidden_weight,
        predictor.hidden_bias, predictor.last_weight, predictor.last_bias,
    )  # fmt: skip
    spacing = float(predictor.levels[0] - predictor.levels[1])
    for layer in range(surfaces.layers - 1):
        points = surfaces.points(layer, 50, 50)[surfaces.seen_texels(layer, 50, 50)]
        centre = points.new_tensor(generator.config.predictor_centre)
        values = field(points * PREDICTOR_SCALE - centre, weights, "fp32")
        assert float((values - predictor.levels[layer]).abs().max()) < 0.05 * spacing


def test_rays_meet_the_layers_where_the_renderer_does(
    generator: Generator, face: BakedFace
) -> None:
    rays = camera_rays(torch.tensor([[0.4, -0.1]]), 32, generator.config.camera)
    found, met = meet(face, rays), generator.manifolds(rays)
    order = met.level.argsort(1)
    depths, valid = met.depths.gather(1, order), met.valid.gather(1, order)
    valid = valid & (depths <= depths[:, -1:])
    both = valid & (found < MISSED)
    assert float((valid != (found < MISSED)).float().mean()) < 0.005
    assert float((found - depths)[both].abs().quantile(0.99)) < 6e-4  # a pixel of 256 has 8e-4


@pytest.mark.parametrize(("pose", "least"), [((0.0, 0.0), 37), ((0.4, 0.1), 37), ((-0.7, 0.0), 35)])
def test_pictures_are_those_of_the_renderer(
    generator: Generator, face: BakedFace, pose: tuple[float, float], least: float
) -> None:
    true = render(generator, seed_codes(generator, SEED), torch.tensor([pose]), 128, lock_view=True)
    found = draw(face, pose, 128)
    assert float(psnr(found.image, true.image)) > least
    assert float((found.labels == true.labels).float().mean()) > 0.99
    assert float((found.depth - true.depth).abs().mean()) < 2e-3


def test_the_group_is_decided_on_the_ray(generator: Generator, face: BakedFace) -> None:
    """Another look of the hair changes hair alone, and what another seed's code gives it."""
    other = seed_codes(generator, 50)
    codes = seed_codes(generator, SEED)
    mixed = dataclasses.replace(codes, appearance=other.appearance)
    true = render(generator, mixed, torch.tensor([[0.3, 0.0]]), 96, lock_view=True)
    assert float(psnr(draw(face, (0.3, 0.0), 96, look=1).image, true.image)) > 36


def test_labels_of_texels_are_those_of_frontal_rays(face: BakedFace) -> None:
    """A texel that is seen in front has the label of its pixel."""
    labels = frontal_labels(face)
    assert labels.shape == face.alpha.shape and labels[face.alpha == 0].max() == 0
    front = draw(face, (0.0, 0.0), 64)
    rays = camera_rays(torch.tensor([[0.0, 0.0]]), 64, face.camera)
    points = rays.origins[0] + front.depth[0, 0].reshape(-1, 1) * rays.directions[0]
    distances = meet(face, rays)
    agree = []
    for layer in range(face.layers - 1):
        near = (distances[:, layer] - front.depth[0, 0].flatten()).abs() < 5e-4
        unit = face.surfaces.box_of(layer).to_unit(points[near][:, :2])
        column, row = (unit * SIZE).long().clamp(0, SIZE - 1).unbind(1)
        shown = torch.from_numpy(face.alpha[layer])[row, column] > 250
        own = torch.from_numpy(labels[layer])[row, column][shown].long()
        agree.append((own == front.labels.flatten()[near][shown]).float())
    assert len(torch.cat(agree)) > 200 and float(torch.cat(agree).mean()) > 0.95


def test_no_texel_that_was_not_computed_is_filtered_in(face: BakedFace) -> None:
    """Poison in what was not computed never reaches a picture."""
    clean = draw(face, (0.5, 0.2), 64)
    grown = torch.nn.functional.max_pool2d(torch.from_numpy(face.alpha).float(), 3, 1, 1) > 0
    colors, scores = face.colors.copy(), face.scores.copy()
    colors[:, :, ~grown.numpy()] = 255
    scores[~grown.numpy()] = 255
    poisoned = draw(dataclasses.replace(face, colors=colors, scores=scores), (0.5, 0.2), 64)
    assert torch.equal(clean.image, poisoned.image)
    assert torch.equal(clean.labels, poisoned.labels)


def test_surfaces_are_found_once(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMFACEEDIT_CACHE", str(tmp_path))
    found = surfaces_of(Generator.from_checkpoint(None))
    monkeypatch.setattr(surfaces_module, "find_surfaces", lambda generator: pytest.fail("again"))
    again = surfaces_of(Generator.from_checkpoint(None))
    assert torch.equal(found.heights, again.heights) and torch.equal(found.seen, again.seen)
    assert (found.box, found.plane_box) == (again.box, again.plane_box)


def test_untrained_spheres_are_met_too() -> None:
    """A predictor that is still round: silhouettes of spheres, and rays that pass them by."""
    from semfaceedit.model import config

    torch.manual_seed(0)
    generator = Generator(config.tiny().model).eval().requires_grad_(False)
    surfaces = find_surfaces(generator)
    assert bool(torch.isfinite(surfaces.heights).all())
    face = baked(generator, 1, 96, looks=0)
    true = render(
        generator, seed_codes(generator, 1), torch.tensor([[0.4, 0.0]]), 48, lock_view=True
    )
    found = draw(face, (0.4, 0.0), 48)
    assert float(psnr(found.image, true.image)) > 25
    assert np.isfinite(found.image.numpy()).all()
