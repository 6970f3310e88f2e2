"""Untrained generators of the `tiny` preset, in float64."""

import dataclasses

import torch

from semfaceedit.model import config
from semfaceedit.model.camera import sample_poses
from semfaceedit.model.generator import Generator, sample_latents


def tiny_generator(seed: int = 0, **changes) -> Generator:
    torch.manual_seed(seed)
    return Generator(dataclasses.replace(config.tiny().model, **changes)).double()


def draw(generator: Generator, count: int, seed: int = 1):
    random = torch.Generator().manual_seed(seed)
    z, appearance = sample_latents(generator.config, count, generator=random)
    poses = sample_poses(count, generator.config.camera, generator=random)
    return z.double(), appearance.double(), poses.double()
