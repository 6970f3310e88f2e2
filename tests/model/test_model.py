"""The generator as a whole: counts, variants, gradients, directions, chunks, groups."""

import pytest
import torch
from generators import draw, tiny_generator

from semfaceedit.kernels import semantic_composite, use_backend
from semfaceedit.model import config
from semfaceedit.model.codes import Film
from semfaceedit.model.generator import Generator, count_parameters
from semfaceedit.model.labels import GROUP_OF_CLASS
from semfaceedit.model.rays import camera_rays
from semfaceedit.model.renderer import find_intersections, render

PARAMETERS = {
    "paper": 8_780_641,
    "paper-unshared": 10_359_649,  # 10.360 M
    "paper-shared": 8_564_770,  # 8.565 M
    "paper-depth4": 5_326_561,  # 5.327 M
    "paper-depth6": 7_053_601,  # 7.054 M
}


@pytest.mark.parametrize("name,count", PARAMETERS.items())
def test_parameter_counts(name, count):
    with torch.device("meta"):
        assert count_parameters(Generator(config.preset(name).model)) == count


def test_output_shapes_and_ranges():
    generator = tiny_generator()
    output = generator(*draw(generator, 2), resolution=8)
    assert output.image.shape == (2, 3, 8, 8)
    assert output.semantics.shape == (2, 19, 8, 8)
    assert output.depth.shape == (2, 1, 8, 8)
    assert output.weights.shape == (2, generator.config.manifolds)
    # The plane ends every ray, so weights and softmax scores sum to one.
    torch.testing.assert_close(output.weights.sum(1), torch.ones(2).double())
    torch.testing.assert_close(output.semantics.sum(1), torch.ones(2, 8, 8).double())
    assert output.image.abs().max() <= 1.002
    assert (output.depth > generator.config.camera.near).all()


def generator_with_all_groups() -> Generator:
    """The first seed at which points of every group occur before training."""
    for seed in range(100):
        generator = tiny_generator(seed, background_prior=0.0, semantic_gain=30.0)
        codes = generator.map(*draw(generator, 8)[:2])
        rays = camera_rays(torch.zeros(8, 2).double(), 8, generator.config.camera)
        hits = generator.manifolds(rays)
        geometry = generator.geometry(hits, rays.directions.reshape(-1, 3), codes.geometry)
        labels, _ = semantic_composite(geometry.alpha, geometry.semantics)
        groups = generator.group_table(labels.flatten()[geometry.hit_index])
        if len(groups.unique()) == generator.config.groups:
            return generator
    raise AssertionError("no seed has points of every group")


def test_every_parameter_has_a_gradient_from_image_and_map():
    generator = generator_with_all_groups()
    z, appearance, _ = draw(generator, 8)
    output = generator(z, appearance, torch.zeros(8, 2).double(), resolution=8)
    (output.image.square().mean() + output.semantics[:, 5:].square().mean()).backward()
    missing = [
        name for name, p in generator.named_parameters() if p.grad is None or not p.grad.any()
    ]
    assert missing == []


def test_gradient_of_latents_and_pose_by_finite_differences():
    # Labels are piecewise constant, so a small step leaves them alone and the whole is smooth.
    generator = tiny_generator()
    z, appearance, pose = (t.requires_grad_(True) for t in draw(generator, 1))

    def loss(z, appearance, pose):
        output = generator(z, appearance, pose, resolution=4)
        return output.image.square().sum() + output.semantics[:, 3].sum() + output.depth.sum()

    grads = torch.autograd.grad(loss(z, appearance, pose), (z, appearance, pose))
    torch.manual_seed(3)
    for index, name in enumerate(("z", "appearance", "pose")):
        values = [z.detach(), appearance.detach(), pose.detach()]
        direction = torch.randn_like(values[index])
        ends = []
        for sign in (1, -1):
            moved = list(values)
            moved[index] = values[index] + sign * 1e-6 * direction
            ends.append(loss(*moved).detach())
        numeric = (ends[0] - ends[1]) / 2e-6
        torch.testing.assert_close(
            (grads[index] * direction).sum(), numeric, rtol=1e-5, atol=1e-6, msg=name
        )


def test_density_ignores_the_view_direction_and_color_does_not():
    generator = tiny_generator()
    codes = generator.map(*draw(generator, 1)[:2])
    rays = camera_rays(torch.zeros(1, 2).double(), 6, generator.config.camera)
    hits = generator.manifolds(rays)
    directions = rays.directions.reshape(-1, 3)
    turned = torch.nn.functional.normalize(directions + torch.tensor([0.3, 0.1, 0.0]), dim=1)
    one = generator.geometry(hits, directions, codes.geometry)
    two = generator.geometry(hits, turned, codes.geometry)
    assert torch.equal(one.alpha, two.alpha)
    assert (one.semantics - two.semantics).abs().max() > 1e-6
    arguments = (torch.zeros_like(one.hit_index), torch.zeros_like(one.hit_index), codes.appearance)
    color = generator.appearance(one.descriptor, directions[one.hit_index // 5], *arguments)
    other = generator.appearance(one.descriptor, turned[one.hit_index // 5], *arguments)
    assert (color - other).abs().max() > 1e-6


def test_view_independent_model_and_locked_view_ignore_direction():
    poses = torch.tensor([[0.4, 0.1]]).double()
    generator = tiny_generator(view_dependent=False)
    codes = generator.map(*draw(generator, 1)[:2])
    free = render(generator, codes, poses, 8)
    locked = render(generator, codes, poses, 8, lock_view=True)
    assert torch.equal(free.image, locked.image)
    dependent = tiny_generator()
    codes = dependent.map(*draw(dependent, 1)[:2])
    assert not torch.equal(
        render(dependent, codes, poses, 8).image,
        render(dependent, codes, poses, 8, lock_view=True).image,
    )


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_chunks_do_not_change_the_picture(chunk):
    generator = tiny_generator()
    codes = generator.map(*draw(generator, 2)[:2])
    poses = torch.tensor([[0.2, 0.0], [-0.3, 0.1]]).double()
    whole = render(generator, codes, poses, 8)
    parts = render(generator, codes, poses, 8, chunk_rays=chunk)
    for name in ("image", "semantics", "depth", "weights"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=0, atol=1e-12)


def test_images_of_a_batch_do_not_mix():
    generator = tiny_generator()
    z, appearance, pose = draw(generator, 3)
    together = generator(z, appearance, pose, resolution=8)
    for index in range(3):
        one = slice(index, index + 1)
        alone = generator(z[one], appearance[one], pose[one], resolution=8)
        torch.testing.assert_close(alone.image[0], together.image[index], rtol=0, atol=1e-12)


def test_cached_intersections_give_the_same_picture():
    generator = tiny_generator()
    codes = generator.map(*draw(generator, 2)[:2])
    pose = torch.tensor([[0.2, 0.0], [-0.3, 0.1]]).double()
    hits = find_intersections(generator, pose, 8)
    fresh = render(generator, codes, pose, 8)
    cached = render(generator, codes, pose, 8, intersections=hits)
    assert torch.equal(fresh.image, cached.image)
    assert not cached.depth.requires_grad or fresh.depth.requires_grad


@pytest.mark.parametrize("sharing", ["proposed", "none", "all"])
def test_a_groups_code_changes_only_hits_of_that_group(sharing):
    generator = tiny_generator(sharing=sharing)
    groups = generator.config.groups
    z, appearance, _ = draw(generator, 2)
    film = generator.appearance.mapping(appearance)
    count = 400
    torch.manual_seed(5)
    descriptor = torch.randn(count, generator.config.width).double()
    directions = torch.nn.functional.normalize(torch.randn(count, 3).double(), dim=1)
    images = torch.randint(0, 2, (count,))
    group = torch.randint(0, groups, (count,))
    before = generator.appearance(descriptor, directions, images, group, film)
    changed = film.frequencies.clone()
    changed[:, 2] += 0.5
    after = generator.appearance(descriptor, directions, images, group, Film(changed, film.phases))
    assert torch.equal(before[group != 2], after[group != 2])
    assert (before[group == 2] - after[group == 2]).abs().min(1).values.max() > 1e-6


def test_points_of_one_group_and_image_may_be_missing():
    generator = tiny_generator()
    film = generator.appearance.mapping(draw(generator, 2)[1])
    descriptor = torch.randn(3, generator.config.width).double()
    directions = torch.tensor([[0.0, 0.0, -1.0]]).double().expand(3, 3)
    one = torch.ones(3, dtype=torch.long)
    colors = generator.appearance(descriptor, directions, one, 2 * one, film)
    assert colors.shape == (3, 3) and colors.isfinite().all()
    empty = generator.appearance(descriptor[:0], directions[:0], one[:0], one[:0], film)
    assert empty.shape == (0, 3)


def test_missed_levels_are_transparent_and_the_plane_is_opaque():
    generator = tiny_generator()
    rays = camera_rays(torch.tensor([[0.9, 0.0]]).double(), 8, generator.config.camera)
    hits = generator.manifolds(rays)
    assert not hits.valid.all(), "the pose should miss some levels"
    codes = generator.map(*draw(generator, 1)[:2])
    geometry = generator.geometry(hits, rays.directions.reshape(-1, 3), codes.geometry)
    assert (geometry.alpha[~hits.valid] == 0).all()
    assert (geometry.alpha[hits.level == generator.config.manifolds - 1] == 1).all()
    assert len(geometry.hit_index) == hits.valid.sum()


def test_round_predictor_is_a_sphere():
    generator = tiny_generator(predictor_width=64, predictor_layers=3, round_predictor=True)
    rays = camera_rays(torch.zeros(1, 2).double(), 16, generator.config.camera)
    hits = generator.manifolds(rays)
    on_surface = hits.valid & (hits.level < generator.config.manifolds - 1)
    centre = torch.tensor(generator.config.predictor_centre).double()
    radius = (hits.points[on_surface] * 2 / 0.24 - centre).norm(dim=1) * 10
    wanted = generator.manifolds.levels[hits.level[on_surface]].double()
    error = (radius - wanted) / wanted
    assert error.square().mean().sqrt() < 0.05 and error.abs().max() < 0.15


def test_mean_codes_are_the_mean():
    generator = tiny_generator()
    mean = generator.mean_codes(count=64, seed=3)
    random = torch.Generator().manual_seed(3)
    z = torch.randn(64, generator.config.latent_dim, generator=random).double()
    film = generator.geometry.mapping(z)
    torch.testing.assert_close(mean.geometry.phases[0], film.phases.mean(0))
    half = mean.geometry.lerp(film[:1], 0.5)
    torch.testing.assert_close(
        half.frequencies[0], (mean.geometry.frequencies[0] + film.frequencies[0]) / 2
    )


def test_default_grouping_matches_the_specification():
    groups = {
        0: {13, 14},
        1: {*range(1, 13), 15, 17},
        2: {16, 18},
        3: {0},
    }
    for group, classes in groups.items():
        assert {c for c, g in enumerate(GROUP_OF_CLASS) if g == group} == classes


def test_another_grouping_is_a_config_value():
    halves = tuple(int(c in (13, 14)) for c in range(19))
    generator = tiny_generator(group_of_class=halves)
    assert generator.config.groups == 2
    output = generator(*draw(generator, 1), resolution=4)
    assert output.image.isfinite().all()


def test_a_float32_render_stays_close_to_float64():
    generator = tiny_generator()
    z, appearance, pose = draw(generator, 1)
    wide = generator(z, appearance, pose, resolution=8)
    narrow_generator = tiny_generator().float()
    with use_backend("reference"):
        narrow = narrow_generator(z.float(), appearance.float(), pose.float(), resolution=8)
    changed = (wide.labels != narrow.labels).float().mean()
    assert changed <= 0.05
    assert (wide.image - narrow.image).abs().median() < 1e-3


@pytest.mark.parametrize("backend", ["reference", None])
def test_autocast_leaves_rays_and_latents_in_full_precision(backend):
    """Mixed precision may change what the ops compute, nothing before and between them."""
    torch.manual_seed(0)
    generator = Generator(config.tiny().model)
    latents = [tensor.float() for tensor in draw(generator, 2)]
    shift = torch.rand(2, 2)
    with use_backend(backend):
        plain = generator(*latents, resolution=8, shift=shift)
        with torch.autocast("cpu", torch.bfloat16):
            output = generator(*latents, resolution=8, shift=shift)
    assert output.image.dtype == output.semantics.dtype == torch.float32
    assert torch.equal(output.depth, plain.depth) or backend is None
    torch.testing.assert_close(output.image, plain.image, rtol=0, atol=1e-6)
    (output.image.sum() + output.semantics.square().sum()).backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is None or parameter.grad.dtype == torch.float32, name
