"""The generator: manifold predictor, both modules and their mapping networks."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .appearance import AppearanceModule
from .codes import Codes, Film, truncate
from .config import ModelConfig
from .geometry import GeometryModule
from .manifolds import ManifoldPredictor
from .masking import GroupTable
from .renderer import RenderOutput, render
from .windows import Windows

if TYPE_CHECKING:
    from ..editing.tuning import Tuning


class Generator(nn.Module):
    """Latent codes and poses -> pictures, semantic maps and depth."""

    source: Path | None = None  # the weights file that it was loaded from
    tuning: Tuning | None = None  # of a copy that was tuned to a face

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.manifolds = ManifoldPredictor(config)
        self.geometry = GeometryModule(config)
        self.appearance = AppearanceModule(config)
        self.group_table = GroupTable(config.group_of_class)

    @classmethod
    def from_checkpoint(
        cls, path: Path | str | None = None, *, device: torch.device | str = "cpu"
    ) -> Generator:
        """The generator of a weights file (None: the weights that come with the package), in
        evaluation mode, without gradients."""
        from .checkpoint import load_generator

        return load_generator(Path(path) if path else None, device=device)[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def map(self, z: Tensor, appearance: Tensor) -> Codes:  # (B, Z), (B, n, Z)
        """Latent codes, both N(0, 1), -> FiLM vectors."""
        return Codes(self.geometry.mapping(z), self.appearance.mapping(appearance))

    def forward(
        self,
        z: Tensor,  # (B, Z) geometry code
        appearance: Tensor,  # (B, n, Z) one code a group
        pose: Tensor,  # (B, 2) yaw, pitch in radians
        *,
        resolution: int | None = None,
        chunk_rays: int | None = None,
        shift: Tensor | None = None,  # (B, 2) of the rays, in pixels
        windows: Windows | None = None,
    ) -> RenderOutput:
        return render(
            self,
            self.map(z, appearance),
            pose,
            resolution or self.config.resolution,
            chunk_rays=chunk_rays,
            shift=shift,
            windows=windows,
        )

    @torch.no_grad()
    def mean_codes(self, count: int = 10_000, seed: int = 0) -> Codes:
        """Mean FiLM vectors over `count` latents, batch 1: where truncation and inversion start."""
        config = self.config
        random = torch.Generator().manual_seed(seed)
        parameter = next(self.parameters())
        z = torch.randn(count, config.latent_dim, generator=random).to(parameter)
        codes = self.map(z, z[:, None].expand(-1, config.groups, -1))
        return Codes(
            *(
                Film(f.frequencies.mean(0, keepdim=True), f.phases.mean(0, keepdim=True))
                for f in (codes.geometry, codes.appearance)
            )
        )


def sample_latents(
    config: ModelConfig, count: int, *, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Geometry codes (count, Z) and appearance codes (count, n, Z), all N(0, 1), on the CPU."""
    z = torch.randn(count, 1 + config.groups, config.latent_dim, generator=generator)
    return z[:, 0], z[:, 1:]


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def seed_latents(config: ModelConfig, seed: int) -> tuple[Tensor, Tensor]:
    """The latents (1, Z) and (1, n, Z) of a seed, the same on every device."""
    return sample_latents(config, 1, generator=torch.Generator().manual_seed(seed))


def seed_codes(
    generator: Generator, seed: int, *, truncation: float = 1.0, mean: Codes | None = None
) -> Codes:
    """The codes of a seed, pulled towards `mean` when truncation < 1."""
    z, appearance = seed_latents(generator.config, seed)
    device = generator.device
    codes = generator.map(z.to(device), appearance.to(device))
    if truncation >= 1:
        return codes
    return truncate(codes, mean or generator.mean_codes(), truncation)
