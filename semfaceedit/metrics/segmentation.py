"""How well a label map agrees with a target: mean intersection over union, in one place."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..model.labels import NUM_CLASSES


@dataclass(frozen=True)
class SegmentationScore:
    """Intersection over union in [0, 1]; NaN where a group or class is in neither map."""

    groups: float  # mean over the semantic groups that occur in either map
    classes: float  # mean over the classes that occur in the target
    per_group: tuple[float, ...]
    per_class: tuple[float, ...]


def confusion(labels: Tensor, target: Tensor, count: int = NUM_CLASSES) -> Tensor:
    """How often target id i was given label j: two maps of one shape -> (count, count) int64.

    Those of several pictures add up.
    """
    if labels.shape != target.shape:
        raise ValueError(f"maps of shapes {tuple(labels.shape)} and {tuple(target.shape)}")
    pairs = target.long().flatten() * count + labels.long().flatten()
    return torch.bincount(pairs, minlength=count * count).view(count, count)


def intersection_over_union(joint: Tensor) -> Tensor:
    """IoU of each id from a confusion matrix (count, count) -> (count,) float64.

    NaN for an id that is in neither map.
    """
    joint = joint.double()
    both = joint.diagonal()
    return both / (joint.sum(0) + joint.sum(1) - both)


def class_areas(labels: Tensor) -> Tensor:  # (B, R, R) -> (B, 19) float64
    """The share of the pixels of each picture that each class has."""
    count = len(labels)
    first = NUM_CLASSES * torch.arange(count, device=labels.device)[:, None]
    places = labels.flatten(1).long() + first
    counts = torch.bincount(places.flatten(), minlength=count * NUM_CLASSES)
    return counts.view(count, NUM_CLASSES).double() / labels[0].numel()


def score_of(joint: Tensor, group_of_class: Sequence[int]) -> SegmentationScore:
    """The score that a confusion matrix of classes (19, 19) stands for."""
    table = torch.tensor(group_of_class)
    count = int(table.max()) + 1
    grouped = joint.new_zeros(count, len(table)).index_add_(0, table, joint)
    grouped = joint.new_zeros(count, count).index_add_(1, table, grouped)
    per_group, per_class = intersection_over_union(grouped), intersection_over_union(joint)
    return SegmentationScore(
        groups=float(per_group.nanmean()),
        classes=float(per_class[joint.sum(1) > 0].mean()),
        per_group=tuple(per_group.tolist()),
        per_class=tuple(per_class.tolist()),
    )


def segmentation_score(
    labels: Tensor, target: Tensor, group_of_class: Sequence[int]
) -> SegmentationScore:
    """Compare two maps of class ids (any shape, the same for both)."""
    return score_of(confusion(labels.cpu(), target.cpu()), group_of_class)
