"""How well a label map agrees with a target: mean intersection over union, in one place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .labels import NUM_CLASSES


@dataclass(frozen=True)
class SegmentationScore:
    """Intersection over union in [0, 1]; NaN where a group or class is in neither map."""

    groups: float  # mean over the semantic groups that occur in either map
    classes: float  # mean over the classes that occur in the target
    per_group: tuple[float, ...]
    per_class: tuple[float, ...]


def intersection_over_union(labels: Tensor, target: Tensor, count: int) -> Tensor:
    """IoU of each id: two maps of one shape, ids in 0..count-1 -> (count,) float64.

    NaN for an id that is in neither map.
    """
    if labels.shape != target.shape:
        raise ValueError(f"maps of shapes {tuple(labels.shape)} and {tuple(target.shape)}")
    pairs = target.long().flatten() * count + labels.long().flatten()
    joint = torch.bincount(pairs, minlength=count * count).view(count, count).double()
    both = joint.diagonal()
    return both / (joint.sum(0) + joint.sum(1) - both)


def segmentation_score(
    labels: Tensor, target: Tensor, group_of_class: Sequence[int]
) -> SegmentationScore:
    """Compare two maps of class ids (any shape, the same for both)."""
    labels, target = labels.cpu().long(), target.cpu().long()
    table = torch.tensor(group_of_class)
    per_group = intersection_over_union(table[labels], table[target], int(table.max()) + 1)
    per_class = intersection_over_union(labels, target, NUM_CLASSES)
    return SegmentationScore(
        groups=float(per_group.nanmean()),
        classes=float(per_class[target.unique()].mean()),
        per_group=tuple(per_group.tolist()),
        per_class=tuple(per_class.tolist()),
    )
