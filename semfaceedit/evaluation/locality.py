"""Disentanglement: what else changes when one code changes."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..metrics.generator_checks import locality as group_changes
from ..metrics.pictures import rgb_change
from ..model.codes import Codes
from ..model.renderer import RenderOutput, render
from .pictures import sampled_faces
from .session import Evaluation

OTHERS = 500_000  # index of the first face whose codes are put in place of a face's own

Sums = dict[str, list[float]]  # total and count of each figure


def locality(evaluation: Evaluation) -> None:
    inputs = {**evaluation.basis, "faces": evaluation.options.faces, "rgb": "mean"}
    evaluation.results.attempt("locality", inputs, lambda: measure_locality(evaluation))


@torch.no_grad()
def measure_locality(evaluation: Evaluation) -> dict[str, Any]:
    """Changes of colour, labels and depth under changes of one code, over --faces faces."""
    groups: dict[str, Sums] = {name: {} for name in evaluation.config.model.group_names}
    appearance: Sums = {}
    geometry: Sums = {}
    for codes, others, poses in _batches(evaluation):
        changes = group_changes(
            evaluation.generator, codes, others, poses, evaluation.resolution,
            chunk_rays=evaluation.options.chunk_rays,
        )  # fmt: skip
        for name, change in changes.items():
            _add_shares(groups[name], change, len(poses))

        def seen(codes: Codes, poses: Tensor = poses) -> RenderOutput:
            return render(
                evaluation.generator, codes, poses, evaluation.resolution,
                chunk_rays=evaluation.options.chunk_rays,
            )  # fmt: skip

        before = seen(codes)
        table = evaluation.generator.group_table
        for sums, swapped in (
            (appearance, replace(codes, appearance=others.appearance)),
            (geometry, replace(codes, geometry=others.geometry)),
        ):
            for name, (total, count) in changes_of(before, seen(swapped), table).items():
                _add(sums, name, total, count)
    per_group = {name: _means(sums) for name, sums in groups.items()}
    for figures in per_group.values():
        for name in ("outside", "far"):
            figures[f"leak_{name}"] = _ratio(figures[name], figures["inside"])
    return {
        "faces": evaluation.options.faces,
        "per_group": per_group,
        "appearance_changed": _means(appearance),
        "geometry_changed": _means(geometry),
    }


def changes_of(
    before: RenderOutput, after: RenderOutput, table: Callable[[Tensor], Tensor]
) -> dict[str, tuple[float, float]]:
    """Total and count of each figure between two renderings of a batch.

    labels: share of pixels whose class changes; depth: mean |change| in world units; colors: mean
    |change of RGB| (in [0, 1], averaged over channels) where the group stays; group_colors: the
    same for the mean colour of each group in each picture that shows it before and after.
    """
    pixels = before.labels.numel()
    groups, new_groups = table(before.labels), table(after.labels)
    change = rgb_change(before.image, after.image)
    stays = groups == new_groups
    drift, shown = 0.0, 0.0
    for group in range(int(groups.max()) + 1):
        means = [
            group_color(view.image, ids == group)
            for view, ids in ((before, groups), (after, new_groups))
        ]
        gap = (means[1] - means[0]).abs().mean(1) / 2
        known = gap.isfinite()
        drift, shown = drift + float(gap[known].sum()), shown + float(known.sum())
    return {
        "labels": (float((before.labels != after.labels).sum()), pixels),
        "depth": (float((after.depth - before.depth).abs().sum()), pixels),
        "colors": (float(change[stays].sum()), float(stays.sum())),
        "group_colors": (drift, shown),
    }


def group_color(image: Tensor, mask: Tensor) -> Tensor:  # (B, 3, H, W), (B, H, W) -> (B, 3)
    """Mean colour under the mask; NaN where it is empty."""
    weight = mask[:, None].to(image)
    return (image * weight).sum((2, 3)) / weight.sum((2, 3))


def _batches(evaluation: Evaluation) -> Iterator[tuple[Codes, Codes, Tensor]]:
    """Codes, the codes of other faces, and poses."""
    options = evaluation.options
    for start in range(0, options.faces, options.batch):
        stop = min(start + options.batch, options.faces)
        codes, poses = sampled_faces(evaluation.generator, range(start, stop), options.seed)
        others, _ = sampled_faces(
            evaluation.generator, range(OTHERS + start, OTHERS + stop), options.seed
        )
        yield codes, others, poses


def _add(sums: Sums, name: str, total: float, count: float) -> None:
    entry = sums.setdefault(name, [0.0, 0.0])
    if count:
        entry[0] += total
        entry[1] += count


def _add_shares(sums: Sums, change: dict[str, float], faces: int) -> None:
    """Means of a batch go in with the pixels that they were taken over."""
    inside, far = change["share"], change["far_share"]
    for name, share in (("inside", inside), ("outside", 1 - inside), ("far", far)):
        if share > 1e-9:
            _add(sums, name, change[name] * share * faces, share * faces)
        else:
            _add(sums, name, 0.0, 0.0)
    _add(sums, "share", inside * faces, faces)


def _means(sums: Sums) -> dict[str, float]:
    return {name: _ratio(total, count) for name, (total, count) in sums.items()}


def _ratio(a: float, b: float) -> float:
    return a / b if b else float("nan")
