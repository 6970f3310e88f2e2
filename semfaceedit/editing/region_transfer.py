"""A region's shape or look from one face to another (Eq. 11)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError, meant
from ..metrics.perceptual import PerceptualFeatures
from ..model.codes import swap_group
from ..model.config import ModelConfig
from ..model.generator import Generator
from ..model.labels import CLASS_NAMES
from ..model.renderer import RenderOutput, recolor
from ..pictures.grids import picture_rows
from .encoder import Encoder
from .fit_terms import Goal, Watch
from .project import FaceProject
from .refit import (
    EditedFace,
    EditSettings,
    default_edit_settings,
    dilate,
    footprint,
    refit,
    render_before,
    render_project,
    with_metrics,
)
from .target import OVERSAMPLING, resize_labels

What = Literal["appearance", "geometry", "both"]


def parse_region(names: Sequence[str], config: ModelConfig) -> tuple[int, ...]:
    """Group names, class names or class ids -> class ids, ascending.

    A name that is both means the group: hair includes the hat.
    """
    found: set[int] = set()
    for name in names:
        if name in config.group_names:
            group = config.group_names.index(name)
            found |= {c for c, g in enumerate(config.group_of_class) if g == group}
        elif name in CLASS_NAMES:
            found.add(CLASS_NAMES.index(name))
        elif name.isdecimal() and int(name) < len(CLASS_NAMES):
            found.add(int(name))
        else:
            near = meant(name, (*config.group_names, *CLASS_NAMES))
            raise UserError(
                f"region {name!r} is unknown{near}: use a group ({', '.join(config.group_names)}), "
                f"a class ({', '.join(CLASS_NAMES)}) or a class id from 0 to {len(CLASS_NAMES) - 1}"
            )
    if not found:
        raise UserError("the region is empty: name a group, a class or a class id")
    return tuple(sorted(found))


def transfer(
    generator: Generator,
    target: FaceProject,
    source: FaceProject,
    *,
    what: What,
    region: Sequence[str],
    settings: EditSettings | None = None,
    perceptual: PerceptualFeatures | None = None,
    watch: Watch | None = None,
    encoder: Encoder | None = None,
) -> EditedFace:
    """Give `target` (face A) the region of `source` (face B).

    appearance: the offsets of the region's groups change places; nothing is optimised. geometry:
    the semantic map inside the region becomes that of B rendered at A's pose; image and VGG terms
    hold outside only. both: the appearance is swapped first, and they hold inside too, towards B's
    picture at A's pose, wherever that shows the region. Weights tuned to A stay with it; those of B
    show B where it is rendered, and do not come along.
    """
    if what not in get_args(What):
        raise UserError(f"--what {what!r}: use one of {', '.join(get_args(What))}")
    target.check(generator, "the target")
    source.check(generator, "the source")
    settings = settings or default_edit_settings(encoder)
    classes = parse_region(region, generator.config)
    before = render_before(generator, target, settings, keep_shading=what == "appearance")
    start = target.with_origin()
    if what != "geometry":
        start = swap_appearance(start, source, _whole_groups(classes, generator.config))
    if what == "appearance":
        return _swapped(generator, start, before, classes)
    seen = replace(source, pose=target.pose)
    guide = render_project(generator, seen, before.image.shape[-1])
    mask = _region(before.labels, guide.labels, classes, settings.dilation)
    goal = Goal(
        torch.where(mask, guide.semantics, before.semantics),
        torch.where(mask, guide.image, before.image),
        ~mask | _shows(guide.labels, classes)[:, None] if what == "both" else ~mask,
    )
    start = replace(start, labels=_labels_with(generator, target, source, mask))
    return refit(
        generator,
        start,
        goal,
        mask,
        before,
        settings,
        perceptual=perceptual,
        watch=watch,
        encoder=encoder,
        still=frozenset(target.group_of_class[c] for c in classes if what == "geometry"),
    )


def _labels_with(
    generator: Generator, target: FaceProject, source: FaceProject, region: Tensor
) -> np.ndarray:
    """(R, R) label map of `target` with what `source` shows inside the region (1, 1, r, r).

    Cells outside keep their labels, at the map's own resolution.
    """
    size = len(target.labels)
    seen = replace(source, pose=target.pose)
    output = render_project(
        generator, seen, min(size, OVERSAMPLING * region.shape[-1]), shade=False
    )
    shown = resize_labels(output.labels[0].to(torch.uint8).cpu().numpy(), size)
    return np.where(resize_labels(region[0, 0].cpu().numpy(), size), shown, target.labels)


def _swapped(
    generator: Generator, start: FaceProject, before: RenderOutput, classes: tuple[int, ...]
) -> EditedFace:
    """The result of an appearance swap, which is done already in `start`."""
    with torch.no_grad():
        after = recolor(start.generator(generator), before, start.codes(generator).appearance)
    edited = EditedFace(
        project=replace(
            start, preview=picture_rows(after)["image"][0].numpy(), iterations=0, metrics={}
        ),
        region=_shows(before.labels, classes)[:, None],
        before=before,
        after=after,
        history=[],
    )
    return with_metrics(edited, edited.change)


def swap_appearance(target: FaceProject, source: FaceProject, groups: Sequence[int]) -> FaceProject:
    """`target` with the appearance offsets of these groups taken from `source`."""
    codes = target.offsets
    for group in groups:
        codes = swap_group(codes, source.offsets, group)
    return replace(target, appearance=codes.appearance[0])


def _whole_groups(classes: tuple[int, ...], config: ModelConfig) -> list[int]:
    """The groups whose classes these are; UserError where one is named in part."""
    groups = sorted({config.group_of_class[index] for index in classes})
    whole = {c for c, g in enumerate(config.group_of_class) if g in groups}
    if whole != set(classes):
        names = ", ".join(CLASS_NAMES[index] for index in classes)
        raise UserError(
            f"region {names}: appearance belongs to whole groups "
            f"({', '.join(config.group_names)}): name one, or use --what geometry"
        )
    return groups


def _region(labels: Tensor, guide: Tensor, classes: tuple[int, ...], dilation: float) -> Tensor:
    """(1, r, r) maps of A and B -> (1, 1, r, r) bool: the region in either, widened."""
    either = _shows(labels, classes) | _shows(guide, classes)
    if not either.any():
        names = ", ".join(CLASS_NAMES[index] for index in classes)
        raise UserError(f"neither face shows {names} at the target's pose: choose another region")
    widened = dilate(either[0].cpu().numpy(), dilation)
    return footprint(widened, labels)


def _shows(labels: Tensor, classes: tuple[int, ...]) -> Tensor:
    return torch.isin(labels, torch.tensor(classes, device=labels.device))
