"""Semantic maps: their distance to real ones, the areas of classes, and whether pictures agree."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..files import cache_root
from ..metrics.segmentation import SegmentationScore, class_areas, confusion, score_of
from ..model.labels import CLASS_NAMES, NUM_CLASSES
from ..parsing.network import LEAST, VERSION, ParserSettings, held_out_score, saved_parser
from .pictures import Chunk, PictureSet, Statistics, float_images, generated_pictures, real_pictures
from .quality import MAPS, compare_with_data
from .session import Evaluation, Unmeasured, digest


def semantics(evaluation: Evaluation) -> None:
    compare_with_data(evaluation, "semantics", MAPS)
    real, made = real_pictures(evaluation), generated_pictures(evaluation)
    inputs = {**evaluation.compared_inputs, "real": real.count}
    evaluation.results.attempt("semantics.areas", inputs, lambda: areas(real, made))
    inputs["parser_steps"] = evaluation.options.parser_steps
    evaluation.results.attempt("semantics.agreement", inputs, lambda: agreement(evaluation, made))


def areas(real: PictureSet, made: PictureSet) -> dict[str, Any]:
    """For each class its mean share of the pixels and the share of pictures that show it."""
    theirs, ours = _areas(real), _areas(made)
    classes = {}
    for index, name in enumerate(CLASS_NAMES):
        classes[name] = {
            "real_area": theirs["area"][index],
            "generated_area": ours["area"][index],
            "real_presence": theirs["presence"][index],
            "generated_presence": ours["presence"][index],
        }
    difference = (theirs["area"] - ours["area"]).abs().sum() / 2
    return {"total_variation": difference, "classes": classes}


def _areas(pictures: PictureSet) -> Statistics:
    def collect(chunks: Iterator[Chunk]) -> Statistics:
        shares = torch.cat([class_areas(chunk.labels) for chunk in chunks])
        return {"area": shares.mean(0), "presence": (shares > 0).double().mean(0)}

    return pictures.statistics("areas", {}, collect)


def agreement(evaluation: Evaluation, made: PictureSet) -> dict[str, Any]:
    """A parse of the rendered pictures against their maps, pooled over pictures."""
    options, groups = evaluation.options, evaluation.config.model.group_of_class
    data, resolution = evaluation.data, evaluation.resolution
    if len(data) < LEAST:
        raise Unmeasured(f"{len(data)} pictures are too few to train a parser: at least {LEAST}")
    settings = ParserSettings(resolution, options.parser_steps, options.seed)
    path = parser_path(evaluation, evaluation.data_key)
    parser = saved_parser(path, data, settings, evaluation.device)
    joint = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64)
    for chunk in made.read():
        for images, labels in zip(chunk.images.split(16), chunk.labels.split(16), strict=True):
            joint += confusion(parser.labels(float_images(images)), labels)
    held_out, count = held_out_score(parser, data, resolution, groups)
    names = evaluation.config.model.group_names
    return {
        "generated": score_table(score_of(joint, groups), names),
        "generated_pictures": made.count,
        "held_out": score_table(held_out, names),
        "held_out_pictures": count,
    }


def parser_path(evaluation: Evaluation, data_key: str) -> Path:
    """Where the parser taught by those data is kept."""
    options = evaluation.options
    inputs = [VERSION, data_key, evaluation.resolution, options.parser_steps, options.seed]
    return cache_root() / "parsers" / f"parser-{digest(inputs)}.safetensors"


def score_table(score: SegmentationScore, group_names: tuple[str, ...]) -> dict[str, Any]:
    """A score with the names of its groups and classes."""
    return {
        "groups": score.groups,
        "classes": score.classes,
        "per_group": dict(zip(group_names, score.per_group, strict=True)),
        "per_class": dict(zip(CLASS_NAMES, score.per_class, strict=True)),
    }
