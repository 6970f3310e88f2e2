"""A wider generator that starts as a narrower one: new channels are heard by no old one at first.

New rows of a layer are drawn as in any new generator; what old rows read of new channels starts
at zero. With the same manifolds the wider generator thus draws the same pictures, and every new
weight gets a gradient from the first or second step (Net2Net, Chen et al. 2016, for FiLM layers).
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from ..errors import UserError
from .config import ModelConfig
from .film import FilmSirenStack, MappingNetwork
from .generator import Generator


def check_growth(old: ModelConfig, new: ModelConfig) -> None:
    """UserError unless weights of `old` can start a generator of `new`.

    `new` may be wider, and may have other manifolds, another density scale (so that more
    surfaces are no denser together), resolution and spread of poses.
    """
    free = ("width", "manifolds", "density_scale", "resolution")
    camera = replace(new.camera, yaw_std=old.camera.yaw_std, pitch_std=old.camera.pitch_std)
    wanted = replace(new, camera=camera, **{name: getattr(old, name) for name in free})
    if wanted != old:
        differ = [n for n in vars(old) if getattr(wanted, n) != getattr(old, n)]
        raise UserError(f"its model has another {' and another '.join(differ)} than this run's")
    if new.width < old.width:
        raise UserError(f"its model is wider ({old.width}) than this run's ({new.width})")


@torch.no_grad()
def grow(old: Generator, new: Generator) -> None:
    """Put the weights of `old` into `new`, a generator as it is drawn that `check_growth` allows.

    What `new` has beyond `old` keeps the values that were drawn, but for those that old channels
    would read.
    """
    new.manifolds.load_state_dict(old.manifolds.state_dict())
    mappings = zip(
        (old.geometry.mapping, *old.appearance.mappings),
        (new.geometry.mapping, *new.appearance.mappings),
        strict=True,
    )
    for source, target in mappings:
        assert isinstance(source, MappingNetwork) and isinstance(target, MappingNetwork)
        _grow_mapping(source, target)
    stacks = zip(
        (old.geometry.stack, *old.appearance.stacks),
        (new.geometry.stack, *new.appearance.stacks),
        strict=True,
    )
    for source_stack, target_stack in stacks:
        assert isinstance(source_stack, FilmSirenStack)
        assert isinstance(target_stack, FilmSirenStack)
        for name, values in source_stack.named_parameters():
            _put(target_stack.get_parameter(name), values, reads=name.endswith("weight"))


def _grow_mapping(old: MappingNetwork, new: MappingNetwork) -> None:
    new.hidden.load_state_dict(old.hidden.state_dict())
    for target, values in (
        (new.last.weight, old.last.weight),  # rows: frequencies, then phases, layer by layer
        (new.last.bias, old.last.bias),
    ):
        by_layer = target.view(2 * (new.layers + 1), new.film_width, -1)
        by_layer[:, : old.film_width] = values.view(2 * (old.layers + 1), old.film_width, -1)


def _put(target: nn.Parameter | Tensor, values: Tensor, *, reads: bool) -> None:
    """Values into the first channels of each axis; `reads`: the last axis holds inputs."""
    rows = tuple(slice(size) for size in values.shape)
    if reads:
        target[(*rows[:-1], slice(values.shape[-1], None))] = 0
    target[rows] = values
