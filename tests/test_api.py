"""The examples of the Python interface run, and its pieces do what the commands do."""

import doctest

import pytest
import torch
from faces import face, open_editor, write_checkpoint

from semfaceedit import api
from semfaceedit.errors import UserError
from semfaceedit.invert import InvertSettings
from semfaceedit.refit import EditSettings


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    return open_editor(tmp_path_factory.mktemp("api"))


def test_the_examples_run(tmp_path):
    names = vars(api) | {"checkpoint": write_checkpoint(tmp_path), "folder": tmp_path}
    tests = doctest.DocTestFinder(recurse=False).find(api.Editor, "Editor", globs=names)
    assert sum(len(test.examples) for test in tests) >= 12
    results = [doctest.DocTestRunner().run(test) for test in tests]
    assert not any(result.failed for result in results)


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
