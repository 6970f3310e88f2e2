"""Work that a picture does not need: culled points, colours kept or not wanted."""

import dataclasses

import pytest
import torch
from support import needs_native

from semfaceedit.kernels import use_backend
from semfaceedit.model import config, renderer
from semfaceedit.model.codes import Codes, Film, swap_group
from semfaceedit.model.generator import Generator, sample_latents
from semfaceedit.model.renderer import recolor, render

SIZE = 12
POSES = torch.tensor([[0.2, 0.0], [-0.3, 0.1]])


def model(**changes) -> tuple[Generator, Codes, Codes]:
    """A generator whose points fall into every group, and two pairs of codes."""
    for seed in range(100):
        torch.manual_seed(seed)
        generator = Generator(dataclasses.replace(config.tiny().model, **changes)).eval()
        random = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            codes, others = (
                generator.map(*sample_latents(generator.config, 2, generator=random))
                for _ in range(2)
            )
            shading = render(generator, codes, POSES, SIZE, keep_shading=True).shading
        if len(shading.parts[0].group_of_point.unique()) == generator.config.groups:
            return generator, codes, others
    raise AssertionError("no such seed")


def pixels_with(output, group: int) -> torch.Tensor:
    """(B, R) bool: the rays on which a point of that group was coloured."""
    found = []
    for part in output.shading.parts:
        images, count, _ = part.pixels.shape
        rays = torch.zeros(images * count, dtype=torch.bool)
        rays[part.point_index[part.group_of_point == group] // part.alpha.shape[1]] = True
        found.append(rays.view(images, count))
    return torch.cat(found, 1)


@pytest.fixture(params=["reference", pytest.param("cpu", marks=needs_native)])
def backend(request):
    with use_backend(request.param):
        yield request.param


@pytest.mark.parametrize("sharing", ["proposed", "none", "all"])
@pytest.mark.parametrize("chunk", [None, 50])
@torch.no_grad()
def test_recolor_is_a_fresh_render_and_leaves_other_pixels_alone(backend, sharing, chunk):
    generator, codes, others = model(sharing=sharing)
    before = render(generator, codes, POSES, SIZE, chunk_rays=chunk, keep_shading=True)
    moved = 0
    for group in range(generator.config.groups):
        swapped = swap_group(codes, others, group)
        after = recolor(generator, before, swapped.appearance)
        fresh = render(generator, swapped, POSES, SIZE, chunk_rays=chunk)
        torch.testing.assert_close(after.image, fresh.image, rtol=0, atol=2e-6)
        changed = (after.image != before.image).any(1).flatten(1)
        touched = pixels_with(before, group)
        assert not changed[~touched].any()
        moved += int(changed[touched].sum())
        assert torch.equal(after.semantics, before.semantics)
        back = recolor(generator, after, codes.appearance)
        torch.testing.assert_close(back.image, before.image, rtol=0, atol=2e-6)
    assert moved > SIZE * SIZE


@torch.no_grad()
def test_only_points_of_changed_groups_are_evaluated(monkeypatch):
    generator, codes, others = model()
    before = render(generator, codes, POSES, SIZE, keep_shading=True)
    groups = before.shading.parts[0].group_of_point
    evaluated: list[torch.Tensor] = []
    appearance = generator.appearance.forward
    monkeypatch.setattr(
        generator.appearance,
        "forward",
        lambda *these, **flags: evaluated.append(these[3]) or appearance(*these, **flags),
    )
    swapped = swap_group(codes, others, 1).appearance
    only_second = Film(*(getattr(codes.appearance, n).clone() for n in ("frequencies", "phases")))
    only_second.phases[1] = swapped.phases[1]
    recolor(generator, before, only_second)
    images = before.shading.parts[0].image_of_point
    assert len(evaluated) == 1 and (evaluated[0] == 1).all()
    assert len(evaluated[0]) == ((groups == 1) & (images == 1)).sum() > 0


@torch.no_grad()
def test_nothing_changed_nothing_moves():
    generator, codes, _ = model()
    before = render(generator, codes, POSES, SIZE, keep_shading=True)
    assert torch.equal(recolor(generator, before, codes.appearance).image, before.image)


def test_recolor_needs_kept_shading():
    generator, codes, _ = model()
    with pytest.raises(ValueError, match="keep_shading=True"):
        recolor(generator, render(generator, codes, POSES, SIZE), codes.appearance)


def test_kept_shading_holds_no_graph():
    generator, codes, _ = model()
    codes.appearance.phases.requires_grad_()
    output = render(generator, codes, POSES, SIZE, keep_shading=True)
    assert output.image.requires_grad
    part = output.shading.parts[0]
    tensors = [value for value in vars(part).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == len(dataclasses.fields(part)) - 1  # all but `multiplied`
    assert not any(tensor.requires_grad for tensor in tensors)


@pytest.mark.parametrize("cull", [1e-3, 0.02, 0.1])
@torch.no_grad()
def test_culling_stays_within_its_bound(cull):
    generator, codes, _ = model()
    exact = render(generator, codes, POSES, SIZE, keep_shading=True)
    culled = render(generator, codes, POSES, SIZE, cull=cull, keep_shading=True)
    bound = 2.002 * (generator.config.manifolds - 1) * cull
    assert (culled.image - exact.image).abs().max() <= bound + 1e-6
    for name in ("semantics", "depth", "weights"):
        assert torch.equal(getattr(culled, name), getattr(exact, name))
    kept = [len(output.shading.parts[0].point_index) for output in (culled, exact)]
    weights = renderer._weights(exact.shading.parts[0].alpha).flatten()
    assert kept[0] == (weights >= cull).sum()  # a missed level has no weight


@torch.no_grad()
def test_weights_are_those_of_compositing():
    generator, codes, _ = model()
    output = render(generator, codes, POSES, SIZE, keep_shading=True)
    part = output.shading.parts[0]
    by_hand = renderer.color_composite(part.alpha, part.colors, part.depths)[2]
    torch.testing.assert_close(renderer._weights(part.alpha), by_hand, rtol=1e-6, atol=1e-7)


def test_culling_is_refused_where_gradients_are_wanted():
    generator, codes, _ = model()
    with pytest.raises(ValueError, match="torch.no_grad"):
        render(generator, codes, POSES, SIZE, cull=1e-3)


@pytest.mark.parametrize("chunk", [None, 50])
def test_an_unshaded_picture_has_the_same_geometry(backend, chunk, monkeypatch):
    """Class maps, depth, weights and gradients through them; no descriptors, no colours."""
    generator, codes, _ = model()
    results = []
    for shade in (True, False):
        if not shade:
            monkeypatch.setattr(generator.appearance, "forward", None)
        films = [t.clone().requires_grad_() for t in vars(codes.geometry).values()]
        moved = Codes(Film(*films), codes.appearance)
        output = render(generator, moved, POSES, SIZE, chunk_rays=chunk, shade=shade)
        loss = output.semantics.square().sum() + output.depth.sum()
        gradients = torch.autograd.grad(loss, [*films, generator.geometry.stack.head_weight])
        results.append([output.semantics, output.depth, output.weights, *gradients])
    assert (output.image == -1).all()
    for shaded, unshaded in zip(*results, strict=True):
        torch.testing.assert_close(unshaded, shaded, rtol=2e-5, atol=1e-6)
    assert results[0][-1].abs().max() > 0


def test_shading_that_was_not_made_cannot_be_kept():
    generator, codes, _ = model()
    with pytest.raises(ValueError, match="shade=True"):
        render(generator, codes, POSES, SIZE, shade=False, keep_shading=True)
