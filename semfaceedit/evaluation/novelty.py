"""Whether generated faces are new: how near they come to pictures of training.

Pictures of persons whom training never saw set the scale: a generator that repeats a person of its
training comes nearer to a picture of training than those do.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from ..data.dataset import FaceDataset
from ..parsing.network import LEAST, ParserSettings, saved_parser
from ..procedural.sources import open_training_data
from .pictures import PIECE, PictureSet, float_images, generated_pictures, real_pictures
from .semantics import parser_path
from .session import Evaluation, Unmeasured, digest

PIXEL_SIZE = 32  # pictures are averaged to 32 x 32, or stay as they are where smaller
CELLS = 4  # features are averaged to 4 x 4
CLOSEST = 16  # pairs that are kept to be looked at
QUANTILES = {"least": 0.0, "1 %": 0.01, "median": 0.5}

Features = Callable[[Tensor], Tensor]  # (B, 3, R, R) in [-1, 1] -> (B, D)


def novelty(evaluation: Evaluation) -> None:
    options = evaluation.options
    training = training_pictures(evaluation) if options.training_data else None
    inputs = {
        **evaluation.compared_inputs,
        "training": digest(training.info["sha256"]) if training else None,
        "parser_steps": options.parser_steps,
    }
    evaluation.results.attempt("novelty", inputs, lambda: measure_novelty(evaluation, training))


def training_pictures(evaluation: Evaluation) -> FaceDataset:
    options = evaluation.options
    return open_training_data(
        options.training_data,
        resolution=evaluation.resolution,
        procedural_count=options.procedural_count,
    )


def measure_novelty(evaluation: Evaluation, training: FaceDataset | None) -> dict[str, Any]:
    """Distances to the nearest picture of training, in pixels and in features of a parser."""
    if training is None:
        raise Unmeasured(
            "give the pictures of training by --training-data, and pictures of others by --data"
        )
    real, made = real_pictures(evaluation), generated_pictures(evaluation)
    spaces = {"pixels": pixels, "features": parser_features(evaluation, training)}
    figures: dict[str, Any] = {}
    for name, features in spaces.items():
        known = torch.cat(list(_training_features(training, evaluation.resolution, features)))
        scale = known.std(0).mean()
        known = known / scale
        ours, nearest = _nearest(_features(made, features) / scale, known)
        theirs, _ = _nearest(_features(real, features) / scale, known)
        order = ours.argsort()[:CLOSEST]
        figures[name] = {
            "generated": _quantiles(ours),
            "held_out": _quantiles(theirs),
            "nearer_than_any_held_out": (ours < theirs.min()).double().mean(),
            "closest": [
                [int(index), int(nearest[index] % len(training)), float(ours[index])]
                for index in order
            ],
        }
    return {
        "generated": made.count,
        "held_out": real.count,
        "training": len(training),
        "spaces": figures,
    }


def pixels(pictures: Tensor) -> Tensor:
    """Colours of pictures averaged to 32 x 32."""
    return adaptive_avg_pool2d(pictures, min(PIXEL_SIZE, pictures.shape[-1])).flatten(1)


def parser_features(evaluation: Evaluation, training: FaceDataset) -> Features:
    """Deepest activations of the parser that the pictures of training teach, averaged to 4 x 4."""
    options, resolution = evaluation.options, evaluation.resolution
    if len(training) < LEAST:
        raise Unmeasured(
            f"{len(training)} pictures are too few to train a parser: {LEAST} at least"
        )
    path = parser_path(evaluation, digest(training.info["sha256"]))
    settings = ParserSettings(resolution, options.parser_steps, options.seed)
    parser = saved_parser(path, training, settings, evaluation.device)

    def features(pictures: Tensor) -> Tensor:
        deep = parser.features(pictures.to(evaluation.device))
        return adaptive_avg_pool2d(deep, CELLS).flatten(1).cpu()

    return features


def _training_features(
    training: FaceDataset, resolution: int, features: Features
) -> Iterator[Tensor]:
    """Features of all pictures, then of their mirror images."""
    for flip in (False, True):
        for part in np.array_split(np.arange(len(training)), -(-len(training) // PIECE)):
            yield features(training.batch(part, np.full(len(part), flip), resolution).images)


def _features(pictures: PictureSet, features: Features) -> Tensor:
    return torch.cat([features(float_images(chunk.images)) for chunk in pictures.read()])


def _nearest(features: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square differences (M,) to the nearest of `known`, and its index (M,)."""
    distances, indices = torch.cdist(features.double(), known.double()).min(1)
    return distances / features.shape[1] ** 0.5, indices


def _quantiles(distances: Tensor) -> dict[str, Tensor]:
    return {name: distances.quantile(share) for name, share in QUANTILES.items()}
