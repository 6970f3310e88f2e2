"""Recipes of `configs/`: each describes a run that `train` accepts."""

import json
import tomllib
from pathlib import Path

import pytest

from semfaceedit import train
from semfaceedit.model.checkpoint import locate_weights

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_a_run(path, capsys):
    assert train.main(["--config", str(path), "--dry-run"]) == 0
    settings = json.loads(capsys.readouterr().out)
    recipe = tomllib.loads(path.read_text())
    assert settings["preset"] == recipe["preset"]
    for name, value in recipe["train"].items():
        assert settings["train"][name] == value, name
    phases = [
        f"{phase['resolution']}" + (f"/{phase['window']}" if phase["window"] else "")
        for phase in settings["train"]["phases"]
    ]
    assert phases == [text.split(":")[0] for text in recipe["phases"]]
    assert locate_weights(Path(recipe["init"])).is_file()
