"""The examples of the Python interface run, and its pieces do what the commands do."""

import doctest
import re
from pathlib import Path

import pytest
import torch
from faces import face, write_checkpoint

from semfaceedit import api
from semfaceedit.editing.refit import EditSettings
from semfaceedit.errors import UserError
from semfaceedit.invert import InvertSettings
from semfaceedit.model.generator import seed_latents


@pytest.mark.parametrize("name,examples", [("api", 11), ("generate", 2), ("Editor", 12)])
def test_the_examples_run(tmp_path, name, examples):
    names = vars(api) | {"checkpoint": write_checkpoint(tmp_path), "folder": tmp_path}
    where = api if name == "api" else getattr(api, name)
    tests = doctest.DocTestFinder(recurse=False).find(where, name, globs=names)
    assert sum(len(test.examples) for test in tests) >= examples
    results = [doctest.DocTestRunner().run(test) for test in tests]
    assert not any(result.failed for result in results)


def test_the_example_of_the_readme_runs(tmp_path, monkeypatch):
    readme = (Path(api.__file__).parents[1] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    weights = write_checkpoint(tmp_path)
    assert "generator-ema0.998.safetensors" in code and "perceptual_weight=0" in code
    code = code.replace("generator-ema0.998.safetensors", weights.name)
    code = code.replace("perceptual_weight=0", "perceptual_weight=0, iterations=2")
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert (tmp_path / "edited.safetensors").exists()


def test_a_face_of_given_codes_is_that_of_its_seed(editor):
    z, looks = seed_latents(editor.config.model, 3)
    plain = editor.generate(3).output.image
    for given in ((z, looks), (z[0], looks[0])):
        assert torch.equal(editor.generate(z=given[0], appearance=given[1]).output.image, plain)
    other = editor.generate(z=z, appearance={"hair": 7}).project
    assert torch.equal(other.geometry.phases, editor.generate(3).project.geometry.phases)
    assert torch.equal(other.appearance.phases[0], editor.generate(7).project.appearance.phases[0])


@pytest.mark.parametrize(
    "arguments,said",
    [
        ({}, "either a seed or z"),
        ({"seed": 1, "z": torch.zeros(8)}, "either a seed or z"),
        ({"z": torch.zeros(9)}, r"z of shape \(9,\): give \(8,\)"),
        ({"seed": 1, "resolution": -3}, "resolution -3: use at least 1"),
        ({"seed": 2**70}, "seed 1180591620717411303424: use 0 to"),
        ({"seed": 1, "appearance": {"hair": 2**70}}, "seed 1180591620717411303424"),
        (
            {"seed": 1, "appearance": torch.zeros(3, 8)},
            r"appearance of shape \(3, 8\): give \(4, 8\)",
        ),
    ],
)
def test_wrong_codes_are_said(editor, arguments, said):
    with pytest.raises(UserError, match=said):
        editor.generate(**arguments)


def test_appearance_of_named_groups_comes_from_other_seeds(editor):
    plain, mixed = editor.generate(3).project, editor.generate(3, appearance={"hair": 7}).project
    other = editor.generate(7).project
    assert torch.equal(mixed.appearance.phases[0], other.appearance.phases[0])
    assert torch.equal(mixed.appearance.phases[1:], plain.appearance.phases[1:])
    assert torch.equal(mixed.geometry.phases, plain.geometry.phases)
    with pytest.raises(UserError, match="'beard': the groups are hair, face"):
        editor.generate(3, appearance={"beard": 1})


def test_without_vgg_weights_the_settings_must_say_so(editor):
    project = face(editor, 5)
    with pytest.raises(UserError, match="perceptual_weight=0"):
        editor.invert(project.image, project.labels, pose=(0, 0), settings=InvertSettings())
    labels = project.labels.copy()
    labels[:5] = 13
    with pytest.raises(UserError, match="perceptual_weight=0"):
        editor.edit(project, labels, settings=EditSettings())


def test_paths_and_arrays_are_not_mixed(editor, tmp_path):
    project = face(editor, 5)
    with pytest.raises(UserError, match="both as paths"):
        editor.invert(tmp_path / "a.png", project.labels)
