"""Recipes of `configs/` and of the model card: each describes a run that `train` accepts."""

import dataclasses
import json
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from semfaceedit import train
from semfaceedit.model.checkpoint import load_generator, locate_weights

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs").glob("*.toml"))
CARD = ROOT / "semfaceedit/weights/README.md"


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


def runs_of_the_card(weights: str) -> list[list[str]]:
    """The arguments of each `semfaceedit train` with which the card trains these weights."""
    part = CARD.read_text().split(f"\n## {weights}.safetensors")[1].split("\n## ")[0]
    block = re.search(r"To train it again:\n\n```sh\n(.*?)```", part, re.DOTALL)
    assert block is not None
    lines = block[1].replace("\\\n", " ").splitlines()
    start = "semfaceedit train "
    return [shlex.split(line[len(start) :], comments=True) for line in lines if start in line]


def settings_of(arguments: list[str], capsys) -> dict:
    """What the run would have; runs before it and photographs do not exist here."""
    values = [str(ROOT / v) if v.startswith("configs/") else v for v in arguments]
    if "--data" in values:
        del values[values.index("--data") : values.index("--data") + 2]
    if "--init" in values:
        assert values[values.index("--init") + 1].startswith("runs/")
        values[values.index("--init") + 1] = "procedural"
    assert train.main([*values, "--dry-run"]) == 0
    return json.loads(capsys.readouterr().out)


def images(settings: dict, steps: int | None = None) -> int:
    """How many a run draws; steps: of stage 1, where it was stopped."""
    stage1 = settings["train"]["stage1_iterations"] if steps is None else steps
    (batch,) = {phase["batch"] for phase in settings["train"]["phases"]}
    return batch * (stage1 + settings["train"]["stage2_iterations"])


def test_the_card_repeats_the_runs_of_procedural(capsys):
    runs = [settings_of(arguments, capsys) for arguments in runs_of_the_card("procedural")]
    assert len(runs) == 7
    total = images(runs[0], steps=1348) + sum(images(settings) for settings in runs[1:])
    assert f"{total:,} images" in CARD.read_text()
    assert [settings["train"]["rare_share"] for settings in runs] == [
        0,
        0,
        0,
        0.25,
        0.25,
        0.25,
        0.08,
    ]
    assert [settings["discriminator"]["paired"] for settings in runs] == [False] * 5 + [True] * 2
    assert [settings["train"]["generator_lr"] for settings in runs[2:4]] == [2e-4, 3e-4]


def test_the_card_repeats_the_runs_of_portraits_128(capsys):
    runs = [settings_of(arguments, capsys) for arguments in runs_of_the_card("portraits-128")]
    assert len(runs) == 2
    for run in runs:
        assert f"{images(run):,} images" in CARD.read_text()
        assert run["model"]["width"] == 96 and run["train"]["phases"][0]["resolution"] == 128
    generator, _ = load_generator(Path("portraits-128"))
    kept = json.loads(json.dumps(dataclasses.asdict(generator.config)))
    assert kept == runs[-1]["model"]


def test_the_card_repeats_the_runs_of_portraits(capsys):
    first, second = (settings_of(arguments, capsys) for arguments in runs_of_the_card("portraits"))
    for count in (images(first, steps=2065), images(second)):
        assert f"{count:,} images" in CARD.read_text()
    assert first["train"]["phases"][0]["resolution"] == 32
