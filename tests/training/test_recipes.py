"""Recipes of `configs/`: they read, and ask for what can be trained."""

from pathlib import Path

import pytest

from semfaceedit.model import config
from semfaceedit.training.settings import new_settings

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_changes_its_preset(path):
    recipe = new_settings(None, path)
    assert recipe != config.preset(recipe.preset)
    assert recipe.train.phases[-1].resolution == recipe.model.resolution


def test_the_portraits_start_from_the_procedural_weights():
    """`--init` asks that all of the model but resolution and spread of poses agrees."""
    (path,) = (path for path in RECIPES if path.stem == "portraits")
    recipe, small = new_settings(None, path), config.preset("small")
    assert recipe.model.camera != small.model.camera
    assert recipe.model.width == small.model.width
    assert recipe.discriminator.channels == small.discriminator.channels
