"""What a fit is told and says: settings, goal, stages and records, and the terms of its loss."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, mse_loss

from ..errors import UserError
from ..metrics.perceptual import PerceptualFeatures
from ..metrics.segmentation import SegmentationScore
from ..model.codes import Codes
from ..model.renderer import RenderOutput

DEPTH_UNIT = 0.01  # world units, where the squared error of depth turns linear


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """How offsets are found: weights of the terms, Adam, noise, pose steps and stopping.

    Example: FitSettings(learning_rate=5e-3, perceptual_weight=0)
    """

    semantic_weight: float = 10.0  # lambda_s of Eq. 9
    image_weight: float = 1.0  # lambda_im
    perceptual_weight: float = 1.0  # lambda_vgg; 0 leaves the term out
    depth_weight: float = 0.0  # of the goal's depth, where it has one
    learning_rate: float = 1e-2
    decay: float = 0.75  # the rate is multiplied by this ...
    decay_every: int = 100  # ... after so many iterations of a stage
    final_rate: float = 1.0  # besides, it falls to this share over a stage
    weight_decay: float = 0.0
    noise: float = 0.03  # standard deviation on offsets, falling to 0 over a stage
    pose_every: int = 20  # iterations between pose steps; 0: the pose stays
    pose_step: float = 0.06  # radians, at first
    evaluate_every: int = 10  # iterations between evaluations without noise
    patience: int = 10  # evaluations without progress that end a stage; 0: never
    interleave: bool = False  # a step sees every other row and column, the four offsets in turn
    fast: bool = True  # steps of offsets and pose at `fast`, unless a precision is chosen
    seed: int = 0  # of the noise

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 1 if name in ("decay_every", "evaluate_every", "resolution") else 0
            if value is not None and not least <= value < math.inf:
                raise UserError(f"{name} is {value}: give a number from {least} up")


@dataclass(frozen=True)
class Goal:
    """What a face should look like from its pose, at r x r pixels."""

    semantics: Tensor  # (1, N, r, r) class shares in [0, 1]
    image: Tensor  # (1, 3, r, r) in [-1, 1]
    keep: Tensor | None = None  # (1, 1, r, r) bool: where the image counts; None: everywhere
    depth: Tensor | None = None  # (1, 1, r, r) world units; NaN where it does not count

    @property
    def resolution(self) -> int:
        return self.image.shape[-1]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run of iterations that move the same things under the same terms."""

    name: str
    iterations: int
    geometry: bool = True  # move the geometry offsets
    appearance: bool = False  # move the appearance offsets ...
    still: frozenset[int] = frozenset()  # ... but for those of these groups
    image: bool = False  # use the image and VGG terms
    pose: bool = False  # step the pose
    weights: bool = False  # move a copy of the generator's weights (pivotal tuning)
    learning_rate: float | None = None  # None: that of the settings
    starts: tuple[Codes, ...] = ()  # other offsets (batch 1) that it may begin at

    def __post_init__(self) -> None:
        if self.starts and self.weights:
            raise ValueError("a stage that moves weights begins where the fit is: give no starts")


@dataclass(frozen=True)
class FitRecord:
    """An evaluation without noise."""

    stage: str
    iteration: int  # over all stages; 0 is the start, and trials of other starts count alike
    loss: float  # weighted, with the terms of its stage
    terms: dict[str, float]  # unweighted
    score: SegmentationScore
    psnr: float  # dB, over the pixels that the goal keeps
    pose: tuple[float, float]
    seconds: float = 0.0  # since the fit was set up


Watch = Callable[[FitRecord, RenderOutput, Goal], None]


class StopFit(KeyboardInterrupt):
    """Raised by a watch: the fit ends as with Ctrl-C, with the best face so far."""


class Result(Protocol):
    """What a fit of any kind ends in."""

    @property
    def interrupted(self) -> bool: ...


Ended = TypeVar("Ended", bound=Result)


def finished(result: Ended) -> Ended:
    """`result`; KeyboardInterrupt where Ctrl-C ended it, for those whom half a fit is no use."""
    if result.interrupted:
        raise KeyboardInterrupt
    return result


def perceptual_weight(perceptual: PerceptualFeatures | None) -> float:
    """The weight of the VGG term: 0 without a network."""
    return 0.0 if perceptual is None else FitSettings.perceptual_weight


def loss_terms(
    output: RenderOutput,
    goal: Goal,
    perceptual: PerceptualFeatures | None,
    *,
    image: bool,
    depth: bool = False,
) -> dict[str, Tensor]:
    """The terms of Eq. 9 and 10, unweighted.

    The semantic term is over the whole map, between maps in [-1, 1]. Image and VGG terms see the
    goal's own pixels where it does not keep the image, so nothing there has a gradient. The depth
    term, not in the paper, is the Huber loss of differences in `DEPTH_UNIT`.
    """
    terms = {"semantic": mse_loss(2 * output.semantics, 2 * goal.semantics)}
    if depth and goal.depth is not None:
        gap = depth_gap(output.depth, goal.depth)
        terms["depth"] = huber_loss(gap, torch.zeros_like(gap))
    if not image:
        return terms
    shown = output.image
    if goal.keep is not None:
        shown = torch.where(goal.keep, shown, goal.image)
    terms["image"] = _kept_error(shown, goal)
    if perceptual is not None:
        terms["perceptual"] = perceptual(shown, goal.image)
    return terms


def depth_gap(depth: Tensor, goal: Tensor) -> Tensor:
    """Differences of depth in `DEPTH_UNIT`; 0 where the goal is NaN."""
    return torch.where(goal.isfinite(), depth - goal.nan_to_num(), 0.0) / DEPTH_UNIT


def weighted(terms: dict[str, Tensor], settings: FitSettings) -> Tensor:
    """The sum of the terms, each with its weight."""
    return torch.stack([getattr(settings, f"{name}_weight") * t for name, t in terms.items()]).sum()


def _kept_error(shown: Tensor, goal: Goal) -> Tensor:
    """Mean squared error over the kept pixels; 0 where nothing is kept."""
    if goal.keep is None:
        return mse_loss(shown, goal.image)
    return (shown - goal.image).square().sum() / (3 * goal.keep.sum()).clamp(min=1)
