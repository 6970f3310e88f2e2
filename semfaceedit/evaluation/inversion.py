"""Inversion of photographs (Fig. 9): agreement against iteration, through the users' own `invert`.

Every pair is kept as soon as it is done, with its face project, which the other questions use too.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..cli import progress
from ..editing.encoder import Encoder
from ..editing.fit_terms import FitRecord, Goal, finished, perceptual_weight
from ..editing.inversion import InversionResult, InvertSettings, default_invert_settings, invert
from ..editing.project import FaceProject
from ..editing.target import OVERSAMPLING, Target, pictures
from ..errors import UserError
from ..metrics.pictures import ssim
from ..model.labels import CLASS_NAMES
from ..model.mean_face import mean_codes
from ..model.renderer import RenderOutput, render
from ..procedural.render import render_faces
from ..tensor_files import hash_tensors
from .session import HELD_OUT, Evaluation, Unmeasured

CURVES = ("groups", "classes", "psnr", "ssim")
SCORES = ("groups", "classes", "psnr")
AFTER = (0, 5, 20, 50)  # iterations from an encoder's start that are reported


@dataclass(frozen=True)
class Pair:
    """A photograph with its label map, as `invert` takes it."""

    name: str
    image: np.ndarray  # (R, R, 3) uint8
    labels: np.ndarray  # (R, R) uint8
    pose: np.ndarray  # (2,) NaN where unknown
    seed: int | None  # of a procedural head


def pairs(evaluation: Evaluation) -> Iterator[Pair]:
    """Procedural heads that no training saw; with --data, pictures evenly spread over it."""
    for index in range(pair_count(evaluation)):
        yield pair(evaluation, index)


def pair_count(evaluation: Evaluation) -> int:
    wanted = evaluation.options.pairs
    return wanted if evaluation.procedural else min(wanted, len(evaluation.data))


def pair(evaluation: Evaluation, index: int) -> Pair:
    if evaluation.procedural:
        seed = HELD_OUT + index
        face = render_faces([seed], OVERSAMPLING * evaluation.resolution)
        image = ((face.images[0] + 1) * 127.5).round().byte().movedim(0, -1).numpy()
        return Pair(f"head {seed}", image, face.labels[0].numpy(), face.poses[0].numpy(), seed)
    data = evaluation.data
    place = index * len(data) // pair_count(evaluation)
    return Pair(
        data.names[place],
        np.asarray(data.images[place]),
        np.asarray(data.labels[place]),
        np.asarray(data.poses[place]),
        None,
    )


def settings(evaluation: Evaluation) -> InvertSettings:
    """Those of the `invert` command, without an early end, so that all curves are as long."""
    options = evaluation.options
    network, _ = evaluation.perceptual
    return InvertSettings(
        resolution=evaluation.resolution,
        geometry_iterations=options.geometry_iterations,
        appearance_iterations=options.appearance_iterations,
        perceptual_weight=perceptual_weight(network),
        patience=0,
        seed=options.seed,
    )


def pair_inputs(evaluation: Evaluation, index: int) -> dict[str, Any]:
    """What the inversion of a pair depends on."""
    return {
        **evaluation.basis,
        "data": [
            evaluation.source,
            None if evaluation.procedural else pair_count(evaluation),
            index,
        ],
        "settings": settings(evaluation),
        "vgg": evaluation.perceptual[1],
    }


def project_path(evaluation: Evaluation, index: int) -> Path:
    return evaluation.options.out / "faces" / f"pair-{index:03d}.safetensors"


def invert_pairs(evaluation: Evaluation) -> None:
    """Invert the pairs that are not there yet, each process its own."""
    world = evaluation.world
    own = range(pair_count(evaluation))[world.rank :: world.size]
    for index in progress(own, total=len(own), title="inverting"):
        inputs, name = pair_inputs(evaluation, index), f"pair-{index:03d}"
        kept = evaluation.results.find(name, inputs)
        if kept is None or not (
            "skipped" in kept["values"] or project_path(evaluation, index).is_file()
        ):
            start = time.monotonic()
            values = invert_pair(evaluation, index)
            evaluation.results.keep(name, inputs, values, time.monotonic() - start)
    world.barrier()


def invert_pair(evaluation: Evaluation, index: int) -> dict[str, Any]:
    """The curves of one inversion; its face project is written beside them."""
    chosen = pair(evaluation, index)
    similarity: list[float] = []

    def watch(_step: FitRecord, output: RenderOutput, goal: Goal) -> None:
        similarity.append(float(ssim(output.image, goal.image)))

    start = time.monotonic()

    def fit(pose: tuple[float, float] | None) -> InversionResult:
        return finished(
            invert(
                evaluation.generator,
                chosen.image,
                chosen.labels,
                pose=pose,
                settings=settings(evaluation),
                perceptual=evaluation.perceptual[0],
                watch=watch,
            )
        )

    origin = "estimated"
    try:
        result = fit(None)
    except UserError as error:  # no landmarks in the map
        if not np.isfinite(chosen.pose).all():
            return {"name": chosen.name, "skipped": str(error)}
        origin, result = "data", fit((float(chosen.pose[0]), float(chosen.pose[1])))
    seconds = time.monotonic() - start
    path = project_path(evaluation, index)
    result.project.save(path)
    history = result.history
    return {
        "name": chosen.name,
        "seed": chosen.seed,
        "start_pose": origin,
        "iterations": [record.iteration for record in history],
        "stages": [record.stage for record in history],
        "groups": [record.score.groups for record in history],
        "classes": [record.score.classes for record in history],
        "per_group": [record.score.per_group for record in history],
        "per_class": history[-1].score.per_class,
        "first_per_class": history[0].score.per_class,
        "psnr": [record.psnr for record in history],
        "ssim": similarity,
        "pose": result.project.pose,
        "first_pose": history[0].pose,
        "true_pose": chosen.pose,
        "timings": {"seconds_per_iteration": seconds / max(history[-1].iteration, 1)},
    }


def kept_pairs(evaluation: Evaluation) -> list[dict[str, Any]]:
    """What `invert_pairs` left: values with `timings` of each pair that could be inverted."""
    kept = []
    for index in range(pair_count(evaluation)):
        found = evaluation.results.find(f"pair-{index:03d}", pair_inputs(evaluation, index))
        if found is not None and "skipped" not in found["values"]:
            kept.append({**found["values"], "index": index, "timings": found["timings"]})
    if not kept:
        raise Unmeasured("no pair could be inverted: its label maps show no faces")
    return kept


def load_project(evaluation: Evaluation, index: int) -> FaceProject:
    return FaceProject.load(project_path(evaluation, index), evaluation.generator)


def inversion(evaluation: Evaluation) -> None:
    inputs = {"pairs": [pair_inputs(evaluation, i) for i in range(pair_count(evaluation))]}
    evaluation.results.attempt("inversion", inputs, lambda: curves(evaluation))
    encoder = evaluation.encoder
    if encoder is not None:
        read = inputs | {"encoder": hash_tensors(encoder.state_dict())}
        evaluation.results.attempt(
            "inversion.encoder", read, lambda: encoder_curves(evaluation, encoder)
        )


def encoder_curves(evaluation: Evaluation, encoder: Encoder) -> dict[str, Any]:
    """The same pairs from what an encoder reads: alone and after a few iterations at full size, and
    at the end of what the `invert` command does, with its seconds; of procedural heads also the
    depth error of all three, of the plain inversion and of the mean face."""
    network, _ = evaluation.perceptual
    shared = {
        "resolution": evaluation.resolution,
        "perceptual_weight": perceptual_weight(network),
    }
    rows: dict[int, list[list[float]]] = {count: [] for count in AFTER}
    last, seconds, depths = [], [], []
    for kept in kept_pairs(evaluation):
        chosen = pair(evaluation, kept["index"])

        def fit(settings: InvertSettings, chosen: Pair = chosen) -> InversionResult:
            return finished(
                invert(
                    evaluation.generator,
                    chosen.image,
                    chosen.labels,
                    settings=settings,
                    perceptual=network,
                    encoder=encoder,
                )
            )

        steps = default_invert_settings(
            encoder,
            interleave=False,
            appearance_iterations=max(AFTER),
            evaluate_every=5,
            patience=0,
            **shared,
        )
        history = {record.iteration: record for record in fit(steps).history}
        for count, found in rows.items():
            found.append(_scores(history[count]))
        began = time.monotonic()
        result = fit(default_invert_settings(encoder, **shared))
        seconds.append(time.monotonic() - began)
        last.append([*_scores(result.history[-1]), result.project.iterations])
        if chosen.seed is not None:
            depths.append(_depth_errors(evaluation, encoder, chosen, result, kept["index"]))
    table: dict[str, Any] = {
        "pairs": len(last),
        "after": {
            str(count): dict(zip(SCORES, _mean(_array(found)), strict=True))
            for count, found in rows.items()
        },
        "end": dict(zip((*SCORES, "iterations"), _mean(_array(last)), strict=True)),
        "timings": {"seconds_per_face": float(np.median(seconds))},
    }
    if depths:
        names = list(depths[0])
        means = _mean(_array([[row[name] for name in names] for row in depths]))
        table["depth_error"] = dict(zip(names, means, strict=True))
    return table


def _scores(record: FitRecord) -> list[float]:
    return [record.score.groups, record.score.classes, record.psnr]


@torch.no_grad()
def _depth_errors(
    evaluation: Evaluation,
    encoder: Encoder,
    head: Pair,
    result: InversionResult,
    index: int,
) -> dict[str, float]:
    """Mean depth error (world units) where both show the head, of each way to its face."""
    generator, size = evaluation.generator, evaluation.resolution
    assert head.seed is not None
    true_pose = torch.from_numpy(np.asarray(head.pose, np.float32))[None]
    truth = render_faces([head.seed], size, generator.config.camera, true_pose)
    image, shares = pictures(Target(head.image, head.labels, None), size)
    read = encoder.read(image.to(evaluation.device), shares.to(evaluation.device))
    plain, mean = load_project(evaluation, index), mean_codes(generator)
    errors = {}
    for name, codes, pose in (
        ("encoder", mean + read.offsets, read.pose),
        ("from_encoder", result.project.codes(generator), result.project.pose[None]),
        ("plain", plain.codes(generator), plain.pose[None]),
        ("mean_face", mean, true_pose),
    ):
        made = render(generator, codes, pose.to(evaluation.device), size, shade=False)
        both = (made.labels.cpu() > 0) & (truth.labels > 0)
        errors[name] = float((made.depth[:, 0].cpu() - truth.depth)[both].abs().mean())
    return errors


def curves(evaluation: Evaluation) -> dict[str, Any]:
    """Means and deviations over pairs at each iteration, and each group's and class's IoU."""
    kept = kept_pairs(evaluation)
    chosen = last_of_each(kept[0]["iterations"])
    names = evaluation.config.model.group_names
    table: dict[str, Any] = {
        "pairs": len(kept),
        "skipped": pair_count(evaluation) - len(kept),
        "vgg_term": evaluation.perceptual[1],
        "iterations": [kept[0]["iterations"][i] for i in chosen],
        "first_appearance_iteration": evaluation.options.geometry_iterations,
    }
    for name in CURVES:
        values = _array([[one[name][i] for i in chosen] for one in kept])
        table[name] = {"mean": _mean(values), "deviation": _deviation(values)}
    by_group = _array([[one["per_group"][i] for i in chosen] for one in kept])
    table["per_group"] = {n: _mean(by_group[:, :, g]) for g, n in enumerate(names)}
    for name in ("first_per_class", "per_class"):
        values = _mean(_array([one[name] for one in kept]))
        table[name] = dict(zip(CLASS_NAMES, values, strict=True))
    for name in ("first_pose", "pose"):
        found = _array([one[name] for one in kept])
        error = np.abs(found - _array([one["true_pose"] for one in kept]))
        table[f"{name}_error"] = dict(zip(("yaw", "pitch"), _mean(error), strict=True))
    speeds = [one["timings"]["seconds_per_iteration"] for one in kept]
    table["timings"] = {"seconds_per_iteration": float(np.median(speeds))}
    return table


def last_of_each(iterations: Sequence[int]) -> list[int]:
    """Places of the last entry of each iteration: where a stage begins it is evaluated again."""
    return sorted({iteration: place for place, iteration in enumerate(iterations)}.values())


def _array(rows: Any) -> np.ndarray:
    """Floats with NaN for null, of whatever depth."""
    return np.array(json.loads(json.dumps(rows).replace("null", "NaN")), dtype=np.float64)


def _mean(values: np.ndarray) -> np.ndarray:
    """Mean over pairs of what is a number; NaN where none is."""
    known = np.isfinite(values)
    count = known.sum(0)
    total = np.where(known, values, 0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _deviation(values: np.ndarray) -> np.ndarray:
    """Standard deviation over pairs."""
    return np.sqrt(_mean(np.square(values - _mean(values))))
