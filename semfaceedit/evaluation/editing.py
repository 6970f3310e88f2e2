"""Edits of generated faces: is a painted map followed, and does the rest stay?"""

import time
from typing import Any

import numpy as np
import torch

from ..api import generate
from ..cli import progress
from ..editing.encoder import flat_film
from ..editing.fit_terms import finished, perceptual_weight
from ..editing.map_edit import edit
from ..editing.mask_edits import EDITS, painted
from ..editing.refit import EditSettings, default_edit_settings
from ..model.generator import Generator, sample_latents
from ..tensor_files import hash_tensors
from .session import Evaluation, Unmeasured

FIGURES = ("labels_inside", "change_inside", "change_outside", "ssim_outside", "identity")
PAIRS = 64  # of generated faces, whose mean distance is the unit of `identity`


def editing(evaluation: Evaluation) -> None:
    settings = edit_settings(evaluation)
    inputs = {**evaluation.basis, "settings": vars(settings)}
    if evaluation.encoder is not None:
        inputs["encoder"] = hash_tensors(evaluation.encoder.state_dict())
    count = evaluation.options.edited_faces
    evaluation.results.attempt(
        "editing", inputs | {"faces": count}, lambda: measure_editing(evaluation, settings, inputs)
    )


def edit_settings(evaluation: Evaluation) -> EditSettings:
    """As the `edit` command has them, with the evaluation's VGG term."""
    return default_edit_settings(
        evaluation.encoder,
        perceptual_weight=perceptual_weight(evaluation.perceptual[0]),
        resolution=evaluation.resolution,
    )


def measure_editing(
    evaluation: Evaluation, settings: EditSettings, inputs: dict[str, Any]
) -> dict[str, Any]:
    """Means over faces for each edit of `mask_edits.EDITS`, over those that can take it."""
    unit = distance_of_faces(evaluation.generator)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in EDITS}
    count = evaluation.options.edited_faces
    for seed in progress(range(count), total=count, title="edits"):
        own = inputs | {"face": seed}
        kept = evaluation.results.find(f"editing-{seed:03d}", own)
        if kept is None:
            began = time.monotonic()
            found = edits_of(evaluation, settings, seed, unit)
            kept = evaluation.results.keep(
                f"editing-{seed:03d}", own, found, time.monotonic() - began
            )
        for name, figures in kept["values"].items():
            rows[name].append(figures | {"seconds": kept["timings"]["edits"][name]})
    done = {name: found for name, found in rows.items() if found}
    if not done:
        raise Unmeasured("no face can take an edit: their label maps show no faces")
    return {
        "faces": count,
        "vgg_term": evaluation.perceptual[1],
        "from_encoder": evaluation.encoder is not None,
        "edits": {
            name: {"faces": len(found)}
            | {key: _mean([figures[key] for figures in found]) for key in FIGURES}
            for name, found in done.items()
        },
        "timings": {
            "seconds_per_edit": {
                name: float(np.median([figures["seconds"] for figures in found]))
                for name, found in done.items()
            }
        },
    }


def edits_of(
    evaluation: Evaluation, settings: EditSettings, seed: int, unit: float
) -> dict[str, Any]:
    """Figures of each edit that the generated face of a seed can take; KeyboardInterrupt where
    Ctrl-C ends a fit: half an edit is no measure."""
    generator, found, timings = evaluation.generator, {}, {}
    face = generate(generator, seed, resolution=evaluation.resolution).project
    for name in EDITS:
        labels = painted(face.labels, name)
        if labels is None:
            continue
        began = time.monotonic()
        made = finished(
            edit(
                generator,
                face,
                labels,
                settings=settings,
                perceptual=evaluation.perceptual[0],
                encoder=evaluation.encoder,
            )
        )
        timings[name] = time.monotonic() - began
        moved = flat_film(made.project.geometry - face.geometry).norm()
        metrics = made.project.metrics | {"identity": 1 - float(moved) / unit}
        found[name] = {key: metrics[key] for key in FIGURES}
    return found | {"timings": {"edits": timings}}


@torch.no_grad()
def distance_of_faces(generator: Generator) -> float:
    """The mean distance of the geometry codes of two generated faces."""
    z, looks = sample_latents(
        generator.config, 2 * PAIRS, generator=torch.Generator().manual_seed(0)
    )
    flat = flat_film(generator.map(z.to(generator.device), looks.to(generator.device)).geometry)
    return float((flat[:PAIRS] - flat[PAIRS:]).norm(dim=1).mean())


def _mean(values: list[float | None]) -> float:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else float("nan")
