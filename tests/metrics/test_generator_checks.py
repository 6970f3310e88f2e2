"""The report's measures on pictures with known answers."""

import math

import torch
from generators import draw, tiny_generator

from semfaceedit.metrics import generator_checks as module
from semfaceedit.metrics.generator_checks import HAIR, NOSE, locality, relief, report, tint_shift
from semfaceedit.metrics.pictures import rgb_change
from semfaceedit.metrics.segmentation import class_areas
from semfaceedit.model.codes import swap_group
from semfaceedit.model.renderer import RenderOutput


def view(labels: torch.Tensor, depth: torch.Tensor, image: torch.Tensor) -> RenderOutput:
    maps = torch.nn.functional.one_hot(labels, 19).movedim(-1, 1).float()
    return RenderOutput(image, maps, depth[:, None], torch.full((len(labels), 5), 0.2))


def face(nose: float, ear: float, tint: float = 0.0) -> RenderOutput:
    labels = torch.zeros(1, 8, 8, dtype=torch.long)
    labels[0, :2], labels[0, 4], labels[0, 6] = 13, 2, 8
    depth = torch.ones(1, 8, 8)
    depth[0, 4], depth[0, 6] = nose, ear
    return view(labels, depth, torch.full((1, 3, 8, 8), tint))


def test_relief_measures_how_far_the_nose_leads():
    result = relief(face(nose=0.95, ear=1.02))
    assert result["faces"] == 1 and result["share_nearer"] == 1
    assert math.isclose(result["nose_before_ears"], 0.07, rel_tol=1e-4)
    assert relief(face(nose=1.05, ear=1.0))["share_nearer"] == 0


def test_faces_without_ears_say_nothing():
    flat = view(
        torch.zeros(1, 8, 8, dtype=torch.long), torch.ones(1, 8, 8), torch.zeros(1, 3, 8, 8)
    )
    assert relief(flat)["faces"] == 0 and math.isnan(relief(flat)["nose_before_ears"])


def test_tint_shift_is_in_units_of_the_full_range():
    views = [face(1, 1, 0.4), face(1, 1, 0.0), face(1, 1, 0.0)]
    shift = tint_shift(views)
    assert math.isclose(shift["hair"], 0.1, rel_tol=1e-5)  # 0.4 of a range of 2, one of two views
    assert math.isclose(shift["background"], 0.1, rel_tol=1e-5)


def test_areas_add_up():
    areas = class_areas(face(1, 1).labels)
    assert areas[0, HAIR] == 16 / 64 and areas[0, NOSE] == 8 / 64
    assert float(areas.sum()) == 1


def test_change_of_colour_is_that_of_one_channel_in_unit_range():
    before, after = torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5)
    assert (rgb_change(before, after) == 0.25).all()


def test_swapping_a_group_changes_no_other_code():
    generator = tiny_generator()
    a, b = generator.map(*draw(generator, 1, 1)[:2]), generator.map(*draw(generator, 1, 2)[:2])
    swapped = swap_group(a, b, 2)
    assert torch.equal(swapped.appearance.phases[:, 2], b.appearance.phases[:, 2])
    for group in (0, 1, 3):
        assert torch.equal(
            swapped.appearance.frequencies[:, group], a.appearance.frequencies[:, group]
        )
    assert swapped.geometry is a.geometry


def test_locality_sees_a_change_where_it_is():
    generator = tiny_generator(background_prior=0.0, semantic_gain=30.0)
    z, appearance, pose = draw(generator, 4)
    codes = generator.map(z, appearance)
    nothing = locality(generator, codes, codes, pose, 8)
    assert not any(part["outside"] > 0 for part in nothing.values())
    others = generator.map(z, appearance + 3)
    changed = locality(generator, codes, others, pose, 8)
    shown = [part for part in changed.values() if part["share"] > 0]
    assert shown and all(part["inside"] > 0 for part in shown)
    assert math.isclose(sum(part["share"] for part in changed.values()), 1, rel_tol=1e-6)


def test_the_whole_report_is_finite_where_it_can_be(monkeypatch):
    monkeypatch.setattr(module, "FACES", 4)
    result = report(tiny_generator().float(), 8)
    assert len(result["manifold_weights"]) == 5
    assert math.isclose(sum(result["manifold_weights"]), 1, rel_tol=1e-4)
    assert set(result["locality"]) == {"hair", "face", "garment", "background"}
