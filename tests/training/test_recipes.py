"""Recipes of `configs/`: every key is an option or a setting, every value is of its type."""

import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest

from semfaceedit.model import config
from semfaceedit.model.checkpoint import locate_weights
from semfaceedit.train import TrainOptions, _phases

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_sets_what_there_is(path):
    recipe = tomllib.loads(path.read_text())
    base = config.preset(recipe["preset"])
    for part in ("model", "train", "discriminator"):
        changes = recipe.pop(part, {})
        before = getattr(base, part)
        for key, value in changes.items():
            old = getattr(before, key)
            if isinstance(value, dict):
                changes[key] = replace(old, **value)
            else:
                assert type(value) is type(old), key
        base = replace(base, **{part: replace(before, **changes)})
    assert recipe.keys() <= {field.name for field in fields(TrainOptions)}
    phases, _ = _phases(tuple(recipe["phases"]), batch=base.train.phases[-1].batch)
    assert phases[-1].resolution == base.model.resolution
    assert locate_weights(Path(recipe["init"])).is_file()
