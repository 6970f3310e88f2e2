"""Settings: presets, their constants, and the round trip through JSON."""

import dataclasses
import json

import pytest

from semfaceedit.errors import UserError
from semfaceedit.model import config, config_values


@pytest.mark.parametrize("name", config.PRESETS)
def test_round_trip_through_json(name):
    original = config.preset(name)
    text = json.dumps(config_values.to_dict(original))
    assert config_values.from_dict(json.loads(text)) == original


def test_paper_keeps_the_papers_values():
    paper = config.paper()
    train, model = paper.train, paper.model
    assert (train.stage1_iterations, train.stage2_iterations) == (120_000, 30_000)
    assert (train.generator_lr, train.discriminator_lr) == (2e-5, 2e-4)
    assert (train.image_r1, train.semantic_r1, train.stage2_image_r1) == (5, 1, 1)
    assert (train.pose_weight, train.latent_weight) == (10, 1)
    assert train.betas == (0.0, 0.9) and train.clip_norm == 1.0
    assert train.ema_decays == (0.999, 0.9999) and train.r1_interval == 1
    assert train.phases[0].batch == 32
    assert (model.manifolds, model.ray_samples, model.outer_level, model.inner_level) == (
        24, 64, 23, 8,
    )  # fmt: skip
    assert (model.geometry_depth, model.width, model.density_scale) == (8, 256, 0.04)


def test_unknown_preset_and_damaged_settings_are_said():
    with pytest.raises(UserError, match="'nope' is unknown: use one of paper, medium, small, tiny"):
        config.preset("nope")
    values = config_values.to_dict(config.tiny())
    values["model"]["wings"] = 2
    with pytest.raises(UserError, match="wings"):
        config_values.from_dict(values)


@pytest.mark.parametrize(
    "changes,said",
    [
        ({"group_of_class": (0, 1)}, "19 entries"),
        ({"group_of_class": (0,) * 18 + (2,)}, "every group"),
        ({"sharing": "some"}, "sharing"),
        ({"semantic_activation": "relu"}, "semantic_activation"),
        ({"manifolds": 1}, "at least 2"),
    ],
)
def test_models_that_cannot_be_are_refused(changes, said):
    with pytest.raises(UserError, match=said):
        dataclasses.replace(config.ModelConfig(), **changes)
