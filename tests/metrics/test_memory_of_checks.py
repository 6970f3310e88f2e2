"""What measures a model does so within bounds, however large pictures and networks are."""

import numpy as np
import pytest
import torch

from semfaceedit.data.dataset import FaceDataset
from semfaceedit.metrics.generator_checks import report
from semfaceedit.model import renderer
from semfaceedit.model.config import tiny
from semfaceedit.model.generator import Generator
from semfaceedit.training.monitor import Monitor

MOST = 3000


def monitored(generator):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)
    labels, poses = np.zeros((20, 8, 8), np.uint8), np.zeros((20, 2), np.float32)
    return Monitor(FaceDataset(images, labels, poses, [str(i) for i in range(20)], 8, {})).measure(
        generator, 8
    )


@pytest.mark.parametrize("measure", [monitored, lambda generator: report(generator, 8)])
def test_points_at_a_time_are_bounded(measure, monkeypatch):
    torch.manual_seed(0)
    generator = Generator(tiny().model)
    whole = measure(generator)
    points = []
    generator.geometry.register_forward_hook(lambda _, given, __: points.append(len(given[0])))
    monkeypatch.setattr(renderer, "MOST_POINTS", MOST)
    parts = measure(generator)
    assert len(points) > 1 and max(points) <= MOST
    for name, value in whole.items():
        if isinstance(value, float):
            assert parts[name] == pytest.approx(value, rel=1e-3), name


def test_the_paper_s_pictures_are_measured_in_parts():
    class Paper:
        class config:
            manifolds = 24

    assert 32 * 24 * renderer.affordable_rays(Paper, 32) <= 1_250_000
    Paper.config.manifolds = 9  # `small`: whole pictures at 64 pixels
    assert renderer.affordable_rays(Paper, 32) >= 64 * 64
