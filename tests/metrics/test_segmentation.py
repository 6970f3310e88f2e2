"""Mean intersection over union, against numbers worked out by hand."""

import math

import pytest
import torch

from semfaceedit.metrics.segmentation import (
    confusion,
    intersection_over_union,
    score_of,
    segmentation_score,
)
from semfaceedit.model.labels import GROUP_OF_CLASS


def test_iou_by_hand():
    target = torch.tensor([[0, 0, 1], [1, 1, 2]])
    labels = torch.tensor([[0, 1, 1], [1, 2, 2]])
    found = intersection_over_union(confusion(labels, target, 4))
    # id 0: 1 of 2; id 1: 2 of 4; id 2: 1 of 2; id 3 is in neither
    assert found[:3].tolist() == [0.5, 0.5, 0.5] and math.isnan(found[3])


def test_groups_and_classes_by_hand():
    target = torch.tensor([[13, 13, 1, 2], [0, 0, 1, 18]])  # hair, skin, nose, background, cloth
    labels = torch.tensor([[13, 14, 1, 1], [0, 0, 1, 0]])  # hat is hair; nose read as skin
    score = segmentation_score(labels, target, GROUP_OF_CLASS)
    assert score.per_group == (1, 1, 0, pytest.approx(2 / 3))
    assert score.groups == pytest.approx((1 + 1 + 0 + 2 / 3) / 4)
    # hair 1/2, skin 2/3, nose 0, background 2/3, cloth 0; the hat is not in the target
    assert score.classes == pytest.approx((1 / 2 + 2 / 3 + 0 + 2 / 3 + 0) / 5)
    assert score.per_class[14] == 0 and math.isnan(score.per_class[15])


def test_a_group_in_neither_map_does_not_count():
    face = torch.tensor([[1, 1, 0]])
    assert segmentation_score(face, face, GROUP_OF_CLASS).groups == 1
    # a group that is only in the rendering does
    assert segmentation_score(torch.tensor([[1, 13, 0]]), face, GROUP_OF_CLASS).groups == (
        pytest.approx((0 + 1 / 2 + 1) / 3)
    )


def test_maps_of_two_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(4,\)"):
        confusion(torch.zeros(2, 2), torch.zeros(4), 3)


def test_counts_of_several_pictures_add_up():
    torch.manual_seed(0)
    labels, target = torch.randint(0, 19, (2, 3, 8, 8))
    parts = sum(confusion(a, b) for a, b in zip(labels, target, strict=True))
    whole = segmentation_score(labels, target, GROUP_OF_CLASS)
    assert score_of(parts, GROUP_OF_CLASS) == whole
