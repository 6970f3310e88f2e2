"""How good an encoder is: alone and after a few steps of a fit, on faces that it was not shown."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..cli import progress
from ..data.dataset import FaceDataset, area_one_hot
from ..model.generator import Generator, seed_codes
from ..model.mean_face import mean_codes
from ..model.renderer import RenderOutput, render
from ..procedural.render import render_faces
from .encoder import Encoder
from .encoder_samples import HEAD_SEEDS, head_depth, held_out
from .fit import Fit
from .fit_terms import FitRecord, Goal, Stage
from .inversion import default_invert_settings, head_relief, seed_target
from .target import pictures

AFTER = (0, 5, 20, 50)  # steps
FACES = 16  # of each kind, at most
FRESH_SEED = 3_000_000  # first seed of samples and heads that no training sees


@dataclass(frozen=True)
class KnownFace:
    """A pair that is known, with its pose (1, 2) and depth (1, 1, r, r); NaN where unknown."""

    goal: Goal
    pose: Tensor
    depth: Tensor


def report(
    generator: Generator,
    encoder: Encoder,
    *,
    data: FaceDataset | None = None,
    heads: bool = False,
    faces: int = FACES,
) -> dict[str, Any]:
    """Means over samples, pairs kept out of `data`, and procedural heads.

    For each kind and each number of steps: mIoU over groups, PSNR (dB), errors of yaw and pitch
    (radians) and, where it is known, of depth over the head (world units); for heads the mean
    face's depth error too. All at the encoder's resolution.
    """
    size = min(encoder.settings.size, generator.config.resolution)
    kinds: dict[str, Iterator[KnownFace]] = {"samples": _samples(generator, size, faces)}
    if data is not None and len(held_out(len(data))):
        kinds["pairs"] = _pairs(generator, data, size, faces)
    if heads:
        kinds["heads"] = heads_not_seen(generator, size, faces)
    found: dict[str, Any] = {"resolution": size}
    for kind, given in kinds.items():
        rows = [
            measured(generator, encoder, face)
            for face in progress(given, total=faces, title=f"measuring the encoder on {kind}")
        ]
        names = [name for name in rows[0] if any(math.isfinite(row[name]) for row in rows)]
        found[kind] = {"faces": len(rows)} | {
            name: statistics.fmean(row[name] for row in rows if math.isfinite(row[name]))
            for name in names
        }
    return found


def measured(generator: Generator, encoder: Encoder, face: KnownFace) -> dict[str, float]:
    """Figures of one face, named FIGURE_after_STEPS."""
    figures: dict[str, float] = {}

    def depth_error(output: RenderOutput) -> float:
        here = face.depth.isfinite() & (output.labels > 0)[:, None]
        return float((output.depth - face.depth)[here].abs().mean())

    def watch(record: FitRecord, output: RenderOutput, _goal: Goal) -> None:
        if record.iteration in AFTER:
            yaw, pitch = (float(value) for value in face.pose[0])
            figures.update(
                {
                    f"miou_after_{record.iteration}": record.score.groups,
                    f"psnr_after_{record.iteration}": record.psnr,
                    f"yaw_error_after_{record.iteration}": abs(record.pose[0] - yaw),
                    f"pitch_error_after_{record.iteration}": abs(record.pose[1] - pitch),
                    f"depth_error_after_{record.iteration}": depth_error(output),
                }
            )

    read = encoder.read(face.goal.image, face.goal.semantics)
    settings = default_invert_settings(
        encoder,
        perceptual_weight=0.0,
        patience=0,
        interleave=False,
        evaluate_every=math.gcd(*AFTER),
    )
    goal = face.goal
    if settings.depth_weight:
        goal = replace(goal, depth=head_relief(generator, read.offsets, read.pose, goal))
    fit = Fit(generator, goal, read.offsets, read.pose, settings, watch=watch)
    fit.run(Stage(name="all", iterations=max(AFTER), appearance=True, image=True, pose=True))
    if fit.interrupted:
        raise KeyboardInterrupt
    if face.depth.isfinite().any():
        with torch.no_grad():
            mean = render(generator, mean_codes(generator), face.pose, face.goal.resolution)
        figures["mean_face_depth_error"] = depth_error(mean)
    return figures


@torch.no_grad()
def _samples(generator: Generator, size: int, count: int) -> Iterator[KnownFace]:
    for seed in range(FRESH_SEED, FRESH_SEED + count):
        target = seed_target(generator, seed, size)
        image, shares = pictures(target, size)
        assert target.pose is not None
        pose = torch.from_numpy(target.pose)[None].to(next(generator.parameters()))
        depth = render(generator, seed_codes(generator, seed), pose, size, shade=False).depth
        yield KnownFace(Goal(shares.to(pose), image.to(pose)), pose, depth)


def _pairs(generator: Generator, data: FaceDataset, size: int, count: int) -> Iterator[KnownFace]:
    like = next(generator.parameters())
    for index in held_out(len(data))[:count]:
        batch = data.batch([int(index)], [False], size)
        unknown = torch.full((1, 1, size, size), math.nan).to(like)
        goal = Goal(batch.semantics.to(like), batch.images.to(like))
        yield KnownFace(goal, batch.poses.to(like), unknown)


def heads_not_seen(generator: Generator, size: int, count: int) -> Iterator[KnownFace]:
    """Procedural heads of seeds that no training draws."""
    like = next(generator.parameters())
    for seed in range(HEAD_SEEDS + FRESH_SEED, HEAD_SEEDS + FRESH_SEED + count):
        made = render_faces([seed], 2 * size, generator.config.camera)
        image = torch.nn.functional.adaptive_avg_pool2d(made.images, size)
        goal = Goal(area_one_hot(made.labels.numpy(), size).to(like), image.to(like))
        depth = head_depth(made.depth, made.labels, size).to(like)
        yield KnownFace(goal, made.poses.to(like), depth)


def lines(found: dict[str, Any]) -> list[str]:
    """The figures as lines to print."""
    said = []
    for kind in ("samples", "pairs", "heads"):
        if kind not in found:
            continue
        row = found[kind]
        steps = "; ".join(
            f"{'alone' if not n else f'{n} steps'} {row[f'miou_after_{n}']:.3f}, "
            f"{row[f'psnr_after_{n}']:.1f} dB"
            for n in AFTER
        )
        text = f"{row['faces']} {kind} not trained on: mIoU over groups and PSNR {steps}"
        if "mean_face_depth_error" in row:
            text += (
                f"; depth error {row['depth_error_after_0']:.4f}, after {AFTER[-1]} steps "
                f"{row[f'depth_error_after_{AFTER[-1]}']:.4f} (mean face "
                f"{row['mean_face_depth_error']:.4f})"
            )
        said.append(text)
    return said
