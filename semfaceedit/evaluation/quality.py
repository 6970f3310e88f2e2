"""How far generated pictures are from real ones: Table 1, and distances that need no weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..metrics.distances import (
    descriptors,
    directions,
    gaussian_distance,
    kernel_distance,
    levels,
    patches_per_picture,
    sliced_wasserstein,
    spread,
)
from ..metrics.pictures import PixelFrechet, pixel_features
from ..model.labels import colorize, one_hot
from .inception import EXTRACTOR, RESIZE, Inception, load_inception, weights_key
from .pictures import (
    Chunk,
    PictureSet,
    Statistics,
    float_images,
    generated_pictures,
    halves,
    real_pictures,
)
from .session import Evaluation, Unmeasured

LEAST_FID = 2049  # pictures: fewer leave the covariance of 2,048 features singular
LEAST_KID = 100
LEAST_PIXEL = 65  # one more than the components of the pixel Frechet distance
MOST_PIXEL = 2000  # pictures whose pixel features are held at a time
INCEPTION_BATCH = 32


@dataclass(frozen=True)
class View:
    """What of a chunk is compared."""

    name: str
    values: Callable[[Chunk], Tensor]  # (B, C, R, R) float
    colors: Callable[[Chunk], Tensor]  # (B, 3, R, R) uint8, what Inception sees


IMAGES = View("images", lambda chunk: float_images(chunk.images), lambda chunk: chunk.images)
MAPS = View(
    "maps",
    lambda chunk: one_hot(chunk.labels),
    lambda chunk: colorize(chunk.labels).movedim(-1, 1).contiguous(),
)


def quality(evaluation: Evaluation) -> None:
    compare_with_data(evaluation, "quality", IMAGES)


def compare_with_data(evaluation: Evaluation, question: str, view: View) -> None:
    """All distances between generated and real pictures, seen through `view`."""
    real, made = real_pictures(evaluation), generated_pictures(evaluation)
    inputs = {**evaluation.compared_inputs, "real": real.count}

    def attempt(name: str, compute: Callable[[], dict[str, Any]], **more: Any) -> None:
        evaluation.results.attempt(f"{question}.{name}", {**inputs, **more}, compute)

    attempt("sliced_wasserstein", lambda: wasserstein(real, made, view, evaluation.options.seed))
    attempt("pixel_frechet", lambda: pixel_frechet(real, made, view))
    weights = weights_key(evaluation.options)

    def inception(distance: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        network = load_inception(evaluation.options, evaluation.device)
        features = [inception_features(pictures, view, network) for pictures in (real, made)]
        protocol = {"real": real.count, "generated": made.count, "weights_sha256": network.sha256,
                    "extractor": EXTRACTOR, "resize": RESIZE}  # fmt: skip
        return {**distance(*features), **protocol}

    attempt("fid", lambda: inception(_fid), weights=weights)
    attempt("kid", lambda: inception(partial(_kid, evaluation.options.seed)), weights=weights)


def wasserstein(real: PictureSet, made: PictureSet, view: View, seed: int) -> dict[str, Any]:
    """Sliced Wasserstein distance of 7 x 7 patches at each pyramid level, x 1000.

    In units of the level's standard deviation over real patches. As many pictures of either side;
    `real_halves` is the distance between the real set's even and odd pictures.
    """
    count = min(real.count, made.count)
    if count < 2:
        raise Unmeasured(f"{count} pictures: at least 2 are needed on each side")
    each = patches_per_picture(count)
    sets = [_patches(pictures, view, count, each, seed) for pictures in (real, made)]
    resolution = next(real.read()).images.shape[-1]
    found: dict[str, Any] = {"pictures": count, "patches_each": each, "levels": {}}
    for level, size in enumerate(levels(resolution)):
        theirs, ours = (statistics[f"level{level}"] for statistics in sets)
        unit = directions(theirs.shape[1], seed)
        scale = 1000 / spread(theirs)
        found["levels"][str(size)] = {
            "distance": scale * sliced_wasserstein(theirs, ours, unit),
            "real_halves": scale * sliced_wasserstein(*halves(theirs, each), unit),
        }
    for name in ("distance", "real_halves"):
        values = [level[name] for level in found["levels"].values()]
        found[name] = sum(values) / len(values)
    return found


def _patches(pictures: PictureSet, view: View, count: int, each: int, seed: int) -> Statistics:
    def collect(chunks: Iterator[Chunk]) -> Statistics:
        parts: list[list[Tensor]] = []
        for chunk in chunks:
            if chunk.first < count:
                values = view.values(chunk)[: count - chunk.first]
                parts.append(descriptors(values, chunk.first, each, seed))
        joined = (torch.cat(level) for level in zip(*parts, strict=True))
        return {f"level{index}": level for index, level in enumerate(joined)}

    inputs = {"view": view.name, "count": count, "each": each, "seed": seed}
    return pictures.statistics("patches", inputs, collect)


def pixel_frechet(real: PictureSet, made: PictureSet, view: View) -> dict[str, Any]:
    """The training monitor's distance, on at most 2,000 pictures of each side."""
    counts = [min(pictures.count, MOST_PIXEL) for pictures in (real, made)]
    if min(counts) < LEAST_PIXEL:
        raise Unmeasured(f"{min(counts)} pictures: at least {LEAST_PIXEL} are needed on each side")
    theirs, ours = (_pixels(pictures, view) for pictures in (real, made))
    pairs = len(theirs) // 2 * 2
    even = PixelFrechet.from_features(theirs[0:pairs:2])
    return {
        "distance": PixelFrechet.from_features(theirs).distance(ours),
        "real_halves": even.distance(theirs[1:pairs:2]) if pairs >= 2 * LEAST_PIXEL else None,
        "real": counts[0],
        "generated": counts[1],
    }


def _pixels(pictures: PictureSet, view: View) -> Tensor:
    def collect(chunks: Iterator[Chunk]) -> Statistics:
        kept = [pixel_features(view.values(chunk)) for chunk in chunks if chunk.first < MOST_PIXEL]
        return {"features": torch.cat(kept).float()}

    found = pictures.statistics("pixels", {"view": view.name}, collect)
    return found["features"][:MOST_PIXEL].double()


def inception_features(pictures: PictureSet, view: View, network: Inception) -> Tensor:
    """(M, 2048) float32, kept for the next time."""

    def collect(chunks: Iterator[Chunk]) -> Statistics:
        parts = [
            network.features(part)
            for chunk in chunks
            for part in view.colors(chunk).split(INCEPTION_BATCH)
        ]
        return {"features": torch.cat(parts)}

    inputs = {"view": view.name, "weights": network.sha256}
    return pictures.statistics("inception", inputs, collect)["features"]


def _fid(real: Tensor, made: Tensor) -> dict[str, Any]:
    if min(len(real), len(made)) < LEAST_FID:
        raise Unmeasured(
            f"FID of {len(made):,} generated and {len(real):,} real pictures would be mostly bias: "
            f"at least {LEAST_FID:,} are needed on each side (the paper has 10,000)"
        )
    return {"distance": gaussian_distance(real, made)}


def _kid(seed: int, real: Tensor, made: Tensor) -> dict[str, Any]:
    if min(len(real), len(made)) < LEAST_KID:
        raise Unmeasured(
            f"KID of {len(made)} generated and {len(real)} real pictures: at least {LEAST_KID} are "
            "needed on each side"
        )
    found = kernel_distance(real, made, seed)
    return {
        "distance": 1000 * found.mean,  # KID x 10^3, as in Table 1
        "deviation": None if found.deviation is None else 1000 * found.deviation,
        "subsets": found.subsets,
        "subset": found.size,
    }
