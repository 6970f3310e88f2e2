"""What a step of training works with."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..model.windows import Windows
from .augment import Augmentation

Log = dict[str, Any]  # what a step reports: floats and small tensors


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    """Latents, poses and photographs of one forward."""

    resolution: int
    windows: Windows | None  # of pictures at that resolution; None: whole pictures
    z: Tensor  # (B, Z)
    appearance: Tensor  # (B, n, Z)
    pose: Tensor  # (B, 2)
    shift: Tensor  # (B, 2) of the rays, in pixels
    real_image: Tensor  # (B, 3, r, r) in [-1, 1]
    real_map: Tensor  # (B, N, r, r) in [-1, 1]
    real_pose: Tensor  # (B, 2), NaN where unknown
    real_augmentation: Augmentation
    fake_augmentation: Augmentation


@dataclass(frozen=True)
class Fake:
    """What the generator made of a micro-batch."""

    image: Tensor  # (B, 3, r, r) in [-1, 1]
    map: Tensor  # (B, N, r, r) in [-1, 1]
    weights: Tensor  # (B, K)


@dataclass(frozen=True, kw_only=True)
class StepState:
    """What holds throughout one step."""

    stage: int
    fade: float  # of the discriminators' new resolution, 0 to 1
    share: float  # of one micro-batch in the step
    whole: bool  # pictures, whose pose and geometry code the discriminators regress
    log: Log

    def add(self, **values: Tensor) -> None:
        """Add a micro-batch's share of each value to the log."""
        for name, value in values.items():
            self.log[name] = self.log.get(name, 0.0) + self.share * value.detach()
