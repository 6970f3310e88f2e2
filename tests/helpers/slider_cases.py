"""Sliders of a tiny generator, for tests: real units and ranges, and figures that pass."""

from unittest.mock import patch

import torch

from semfaceedit.editing import directions
from semfaceedit.editing.sliders import Directions, Slider
from semfaceedit.editing.steering import Gauge
from semfaceedit.model.generator import Generator


def slider(name: str, part: int, **figures: float) -> Slider:
    plain = {"r2": 0.9, "leakage": 0.01, "moves": 1.0, "follows": 1.0, "faces": 8}
    return Slider(name=name, part=part, leaks_into="hat", **(plain | figures))


def tiny_gauge(generator: Generator) -> Gauge:
    with patch.object(directions, "CODES", 200):
        return directions.find_gauge(generator, 64, torch.Generator().manual_seed(0))


def tiny_sliders(generator: Generator) -> Directions:
    """A slider of the geometry and one of the look of the group face."""
    sliders = [slider("face width", -1), slider("skin hue", 1)]
    return Directions.of(generator, sliders, tiny_gauge(generator))
