"""Gradient descent on the offsets of a face: the loop under inversion, editing and transfer.

Only offsets carry gradients, and in pivotal tuning the weights of both modules' stacks instead.
While the pose stands still the rays' intersections with the manifolds are found once. Interleaved
steps cost a quarter and still see the goal's full resolution, a quarter of it at a time.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from ..errors import UserError
from ..kernels import Intersections, use_backend
from ..metrics.perceptual import PerceptualFeatures
from ..metrics.pictures import psnr
from ..metrics.segmentation import segmentation_score
from ..model.codes import Codes, Film
from ..model.generator import Generator
from ..model.mean_face import fingerprint, mean_codes
from ..model.renderer import RenderOutput, find_intersections, render
from ..pictures.grids import picture_rows
from .descent import Adam
from .fit_terms import (
    FitRecord,
    FitSettings,
    Goal,
    Stage,
    Watch,
    loss_terms,
    weighted,
)
from .project import FaceProject
from .target import SourceCrop
from .tuning import (
    TunedWeights,
    read_weights,
    trainable_copy,
    tuned_parameters,
    weights_of,
    with_weights,
)

MIN_GAIN = 2e-3  # what a score must gain to count as progress
TRIAL = 10  # iterations from each start of a stage; the lowest loss goes on
POSE_LIMIT = math.radians(75)
NAMES = ("frequencies", "phases")
OFFSETS = ((0, 0), (1, 1), (0, 1), (1, 0))  # row and column where an interleaved step begins


@dataclass(frozen=True)
class _View:
    """What a step sees: the goal, or every other pixel of it, and the rays of these pixels."""

    goal: Goal
    intersections: Intersections
    shift: Tensor | None = None  # (1, 2) pixels of the view


class Fit:
    """A face on its way to a goal; `offsets` and `pose` are the best so far after each stage."""

    def __init__(
        self,
        generator: Generator,
        goal: Goal,
        offsets: Codes,  # batch 1
        pose: Tensor,  # (1, 2)
        settings: FitSettings,
        *,
        perceptual: PerceptualFeatures | None = None,
        watch: Watch | None = None,
    ):
        if perceptual is None and settings.perceptual_weight:
            raise UserError(
                "the VGG term has a weight but no network: give perceptual=, or set "
                "perceptual_weight=0 to leave the term out"
            )
        self.generator, self.goal, self.settings = generator, goal, settings
        self.perceptual = perceptual if settings.perceptual_weight else None
        self.watch = watch
        self.mean = mean_codes(generator)
        self.target_labels = goal.semantics.argmax(1)  # (1, r, r)
        self._groups = generator.config.group_of_class
        self.offsets = mapped(offsets, lambda tensor: tensor.detach().to(pose, copy=True))
        self.history: list[FitRecord] = []
        self.interrupted = False
        self.iteration = 0
        self._began = time.monotonic()
        self._random = torch.Generator().manual_seed(settings.seed)
        self._pose_step = settings.pose_step
        self._lowest = math.inf  # the loss of the last stage's best
        self._shown: RenderOutput | None = None  # the face as it is, once it is rendered
        self._whole: _View | None = None  # of this pose
        self._views: dict[tuple[int, int], _View] = {}
        self._move(pose)

    def run(self, *stages: Stage) -> None:
        """All stages; Ctrl-C ends them with the best so far and sets `interrupted`.

        Before the first evaluation there is nothing to keep, and Ctrl-C is passed on.
        """
        try:
            for stage in stages:
                self._run(self._choose_start(stage))
        except KeyboardInterrupt:
            if not self.history:
                raise
            self.interrupted = True

    @torch.no_grad()
    def render(self) -> RenderOutput:
        """The face as it is now."""
        if self._shown is None:
            self._shown = self._render(self.offsets, self._view())
        return self._shown

    def project(
        self, labels: np.ndarray, image: np.ndarray, crop: SourceCrop | None = None
    ) -> FaceProject:
        """The face as it is now; labels and image are what it was fitted to."""
        output = self.render()
        score = segmentation_score(output.labels, self.target_labels, self._groups)
        return FaceProject(
            checkpoint=fingerprint(self.generator),
            group_of_class=self._groups,
            geometry=self.offsets.geometry[0].detach(),
            appearance=self.offsets.appearance[0].detach(),
            pose=self.pose[0],
            labels=labels,
            image=image,
            preview=picture_rows(output)["image"][0].numpy(),
            iterations=self.iteration,
            tuned=weights_of(self.generator),
            metrics={
                "miou_groups": score.groups,
                "miou_classes": score.classes,
                "psnr": float(psnr(output.image, self.goal.image, self.goal.keep)),
                "start_miou_groups": self.history[0].score.groups,
                "start_psnr": self.history[0].psnr,
            },
            crop=crop,
        )

    def _choose_start(self, stage: Stage) -> Stage:
        """Run trials of the stage from here and from its starts, and go to the lowest loss.

        Gives what is left of the stage: one trial's iterations are done.
        """
        if not stage.starts or not stage.iterations:
            return stage
        count, began = min(TRIAL, stage.iterations), self.iteration
        pose, best = self.pose, (math.inf, self.offsets, self.pose)
        for number, start in enumerate((self.offsets, *stage.starts), 1):
            name = f"{stage.name}, start {number} of {1 + len(stage.starts)}"
            self.offsets, self.iteration = _copied(start), began
            self._move(pose)
            try:
                self._run(replace(stage, name=name, iterations=count, starts=()))
            finally:
                if self._lowest < best[0]:
                    best = self._lowest, self.offsets, self.pose
                self.offsets = best[1]
                self._move(best[2])
        return replace(stage, iterations=stage.iterations - count, starts=())

    def _run(self, stage: Stage) -> None:
        settings, pivot = self.settings, self.generator
        best = _Best(settings.patience, stage.weights)
        if stage.weights:
            self.generator = trainable_copy(pivot)
        try:
            self._evaluate(stage, best)
            leaves = self._leaves(stage)
            rate = settings.learning_rate if stage.learning_rate is None else stage.learning_rate
            optimizer = Adam(leaves, weight_decay=settings.weight_decay)
            for index in range(1, stage.iterations + 1):
                done = (index - 1) / stage.iterations
                fallen = settings.decay ** ((index - 1) // settings.decay_every)
                fallen *= settings.final_rate**done
                self._descend(stage, optimizer, rate * fallen, 1 - done)
                self.iteration += 1
                if stage.pose and settings.pose_every and index % settings.pose_every == 0:
                    self._step_pose(stage)
                if index % settings.evaluate_every == 0 or index == stage.iterations:
                    self._evaluate(stage, best)
                    if best.stale:
                        break
        finally:
            self._lowest = best.loss
            if best.offsets is not None and best.pose is not None:
                self.offsets = best.offsets
                if not torch.equal(best.pose, self.pose):
                    self._move(best.pose)
                self._shown = best.output
            if stage.weights:
                self.generator = with_weights(pivot, best.weights) if best.weights else pivot

    def _descend(self, stage: Stage, optimizer: Adam, rate: float, share: float) -> None:
        """One gradient step; `share` of the noise is left."""
        scale = self.settings.noise * share

        def shake(offset: Tensor) -> Tensor:
            return offset + scale * self._normal(offset) if offset.requires_grad else offset

        view = self._view(self.iteration)
        with self._layers(stage):
            output = self._render(mapped(self.offsets, shake), view, shade=stage.image)
        loss, _ = self._loss(output, stage, view)
        gradients = torch.autograd.grad(loss, optimizer.leaves, materialize_grads=True)
        if stage.still:
            looks = (self.offsets.appearance.frequencies, self.offsets.appearance.phases)
            for leaf, gradient in zip(optimizer.leaves, gradients, strict=True):
                if any(leaf is own for own in looks):
                    gradient[:, list(stage.still)] = 0
        optimizer.step(gradients, rate)
        self._shown = None

    def _leaves(self, stage: Stage) -> list[Tensor]:
        chosen = {"geometry": stage.geometry, "appearance": stage.appearance}
        leaves: list[Tensor] = list(tuned_parameters(self.generator)) if stage.weights else []
        for part, wanted in chosen.items():
            for name in NAMES:
                tensor = getattr(getattr(self.offsets, part), name).requires_grad_(wanted)
                leaves += [tensor] * wanted
        return leaves

    def _view(self, number: int | None = None) -> _View:
        """All pixels, or those that the step of that number sees."""
        if number is None or not self.settings.interleave or self.goal.resolution % 2:
            if self._whole is None:
                intersections = find_intersections(self.generator, self.pose, self.goal.resolution)
                self._whole = _View(self.goal, intersections)
            return self._whole
        row, column = OFFSETS[number % len(OFFSETS)]
        if (row, column) not in self._views:
            every = (..., slice(row, None, 2), slice(column, None, 2))
            whole = self.goal
            keep = None if whole.keep is None else whole.keep[every]
            depth = None if whole.depth is None else whole.depth[every]
            goal = Goal(whole.semantics[every], whole.image[every], keep, depth)
            shift = self.pose.new_tensor([[column - 0.5, row - 0.5]]) / 2
            intersections = find_intersections(
                self.generator, self.pose, goal.resolution, shift=shift
            )
            self._views[row, column] = _View(goal, intersections, shift)
        return self._views[row, column]

    def _render(self, offsets: Codes, view: _View, *, shade: bool = True) -> RenderOutput:
        return render(
            self.generator,
            self.mean + offsets,
            self.pose,
            view.goal.resolution,
            intersections=view.intersections,
            shift=view.shift,
            shade=shade,
        )

    def _loss(
        self, output: RenderOutput, stage: Stage, view: _View
    ) -> tuple[Tensor, dict[str, Tensor]]:
        terms = loss_terms(
            output,
            view.goal,
            self.perceptual,
            image=stage.image,
            depth=self.settings.depth_weight > 0,
        )
        return weighted(terms, self.settings), terms

    @torch.no_grad()
    def _evaluate(self, stage: Stage, best: _Best) -> None:
        """Score the face as it is; a watch that ends the fit here does not lose it."""
        output = self.render()
        loss, terms = self._loss(output, stage, self._view())
        record = FitRecord(
            stage.name,
            self.iteration,
            float(loss),
            {name: float(value) for name, value in terms.items()},
            segmentation_score(output.labels, self.target_labels, self._groups),
            float(psnr(output.image, self.goal.image, self.goal.keep)),
            (float(self.pose[0, 0]), float(self.pose[0, 1])),
            time.monotonic() - self._began,
        )
        self.history.append(record)
        best.offer(record, self)
        if self.watch is not None:
            self.watch(record, output, self.goal)

    @torch.no_grad()
    def _step_pose(self, stage: Stage) -> None:
        """Try a step along each angle and a parabola's minimum through them; keep the best.

        The step is halved where none of them lowers the loss.
        """
        start, step = self.pose, self._pose_step
        losses = [self._loss_at(start, stage)]
        probes = [start]
        shift = torch.zeros_like(start)
        for axis in range(2):
            unit = torch.zeros_like(start)
            unit[0, axis] = step
            minus, plus = (self._loss_at(start + sign * unit, stage) for sign in (-1, 1))
            probes += [start - unit, start + unit]
            losses += [minus, plus]
            shift[0, axis] = step * _parabola_minimum(minus, losses[0], plus)
        probes.append(start + shift)
        losses.append(self._loss_at(probes[-1], stage))
        best = min(range(len(losses)), key=losses.__getitem__)
        if best == 0:
            self._pose_step = step / 2
        self._move(probes[best])

    def _loss_at(self, pose: Tensor, stage: Stage) -> float:
        self._move(pose)
        view = self._view(0)
        with self._layers(stage):
            output = self._render(self.offsets, view, shade=stage.image)
        return float(self._loss(output, stage, view)[0])

    def _layers(self, stage: Stage) -> AbstractContextManager[None]:
        """The precision of a step; evaluations, and steps of weights, have that of all else."""
        fast = self.settings.fast and not stage.weights
        return use_backend(preferred="fast" if fast else None)

    def _move(self, pose: Tensor) -> None:
        self.pose = pose.detach().clamp(-POSE_LIMIT, POSE_LIMIT)
        self._shown, self._whole, self._views = None, None, {}

    def _normal(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self._random).to(like)


@dataclass
class _Best:
    """The lowest loss of a stage, and whether its scores still rise."""

    patience: int
    tunes: bool  # weights are to be kept
    loss: float = math.inf
    offsets: Codes | None = None
    pose: Tensor | None = None
    output: RenderOutput | None = None
    weights: TunedWeights | None = None
    waited: int = 0
    scores: list[float] = field(default_factory=lambda: [-math.inf] * 3)

    def offer(self, record: FitRecord, fit: Fit) -> None:
        if record.loss < self.loss:
            self.loss, self.offsets, self.pose = record.loss, _copied(fit.offsets), fit.pose.clone()
            self.output = fit.render()
            if self.tunes:
                self.weights = read_weights(fit.generator)
        now = [record.score.groups, record.score.classes]
        if "image" in record.terms:
            now.append(record.psnr / 100)  # 0.2 dB is progress
        progress = [value > old + MIN_GAIN for value, old in zip(now, self.scores, strict=False)]
        self.scores[: len(now)] = map(max, now, self.scores)
        self.waited = 0 if any(progress) else self.waited + 1

    @property
    def stale(self) -> bool:
        return 0 < self.patience <= self.waited


def zero_offsets(generator: Generator) -> Codes:
    """The mean face: offsets of a batch of one, all 0."""
    return mapped(mean_codes(generator), torch.zeros_like)


def _parabola_minimum(minus: float, middle: float, plus: float) -> float:
    """Where in [-1, 1] a parabola through values at -1, 0 and 1 is lowest."""
    curvature = minus - 2 * middle + plus
    if curvature <= 0:
        return -1.0 if minus < plus else 1.0
    return min(1.0, max(-1.0, 0.5 * (minus - plus) / curvature))


def mapped(codes: Codes, function: Callable[[Tensor], Tensor]) -> Codes:
    """Codes with a function of each of their four tensors."""
    return Codes(
        *(
            Film(function(film.frequencies), function(film.phases))
            for film in (codes.geometry, codes.appearance)
        )
    )


def _copied(codes: Codes) -> Codes:
    return mapped(codes, lambda tensor: tensor.detach().clone())
