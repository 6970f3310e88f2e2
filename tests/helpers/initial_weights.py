"""The weights with which a seed starts, and numbers that tell two starts apart."""

import hashlib

import torch
from torch import Tensor, nn

from semfaceedit.model import config
from semfaceedit.model.discriminator import build_discriminators
from semfaceedit.model.generator import Generator


def modules(preset: str, seed: int) -> dict[str, nn.Module]:
    """What a run of the preset starts with; the variants share the discriminators of `paper`."""
    run = config.preset(preset)
    torch.manual_seed(seed)
    generator = Generator(run.model)
    found: dict[str, nn.Module] = {
        "manifolds": generator.manifolds,
        "geometry": generator.geometry,
        "appearance": generator.appearance,
    }
    if not preset.startswith("paper-"):
        found["d_image"], found["d_semantic"] = build_discriminators(run)
    return found


def _values(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def bits(module: nn.Module) -> str:
    """16 hexadecimal digits of the parameters' bytes."""
    return hashlib.sha256(_values(module).numpy().tobytes()).hexdigest()[:16]


def projection(module: nn.Module) -> float:
    """The parameters in one direction, over their norm: rounding moves it by its relative size."""
    values = _values(module).double()
    direction = torch.arange(len(values), dtype=torch.float64).cos()
    return ((values * direction).sum() / values.norm()).item()
