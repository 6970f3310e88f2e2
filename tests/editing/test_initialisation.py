"""Other starts of an edit: nearer to the goal, the same each time, left where they do not help."""

import dataclasses

import pytest
import torch

from semfaceedit.api import Editor, load
from semfaceedit.edit import edit
from semfaceedit.editing.fit import TRIAL, Fit
from semfaceedit.editing.fit_terms import FitSettings, Goal, Stage
from semfaceedit.editing.initialisation import other_starts
from semfaceedit.editing.mask_edits import hat
from semfaceedit.editing.refit import EditSettings, render_project
from semfaceedit.editing.target import footprint_shares
from semfaceedit.model.codes import Codes
from semfaceedit.model.labels import CLASS_NAMES
from semfaceedit.model.mean_face import mean_codes
from semfaceedit.model.renderer import render

SIZE, SAMPLES = 32, 24
HAT = CLASS_NAMES.index("hat")
QUIET = FitSettings(perceptual_weight=0, noise=0, pose_every=0)


def face(editor: Editor, seed: int):
    return editor.generate(seed, pose=(0.2, -0.1), resolution=SIZE).project


@pytest.fixture(scope="module")
def editor():
    """The shipped weights: untrained ones have no directions."""
    return load()


@pytest.fixture(scope="module")
def project(editor):
    return face(editor, 5)


@pytest.fixture(scope="module")
def other(editor):
    """The map of another face: what the face is to become, everywhere."""
    return face(editor, 9).labels


def error(generator, project, offsets: Codes, goal: torch.Tensor) -> float:
    codes = mean_codes(generator) + offsets
    with torch.no_grad():
        output = render(generator, codes, project.pose[None], goal.shape[-1])
    return float((output.semantics - goal).square().sum())


def starts(editor, project, labels, samples=SAMPLES, region=None) -> list[Codes]:
    region = torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool) if region is None else region
    return other_starts(
        editor.generator, project.offsets, project.pose[None],
        footprint_shares(labels, SIZE), region,
        samples=samples,
    )  # fmt: skip


def test_a_start_is_nearer_to_the_goal(editor, project, other):
    goal = footprint_shares(other, SIZE)
    found = starts(editor, project, other)
    assert len(found) == 1  # nothing lies outside: both weights of it choose the same step
    before = error(editor.generator, project, project.offsets, goal)
    assert error(editor.generator, project, found[0], goal) < 0.95 * before


def test_only_geometry_moves_and_the_same_way_each_time(editor, project, other):
    (found,), (again,) = (starts(editor, project, other) for _ in range(2))
    assert torch.equal(found.geometry.phases, again.geometry.phases)
    assert not torch.equal(found.geometry.phases, project.offsets.geometry.phases)
    assert torch.equal(found.appearance.phases, project.offsets.appearance.phases)


@pytest.mark.parametrize("samples", [1, 3, 9])
def test_any_number_of_samples(editor, project, other, samples):
    for found in starts(editor, project, other, samples):
        assert found.geometry.phases.shape == project.offsets.geometry.phases.shape


def test_a_face_that_is_as_asked_stays(editor, project):
    """Its own soft map is the goal, which no step can come nearer to."""
    with torch.no_grad():
        own = render_project(editor.generator, project, SIZE).semantics
    region = torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool)
    pose = project.pose[None]
    assert not other_starts(editor.generator, project.offsets, pose, own, region, samples=SAMPLES)


def goal_of(editor, project) -> Goal:
    with torch.no_grad():
        output = render_project(editor.generator, project, SIZE)
    return Goal(output.semantics, output.image)


def test_the_trial_with_the_lowest_loss_goes_on(editor, project):
    """One start is the solution, the other is far off."""
    solution, far = face(editor, 9).offsets, face(editor, 7).offsets
    goal = goal_of(editor, dataclasses.replace(project, geometry=solution.geometry[0]))
    fit = Fit(editor.generator, goal, project.offsets, project.pose[None], QUIET)
    solved = Codes(solution.geometry, project.offsets.appearance)
    fit.run(Stage(name="edit", iterations=TRIAL + 4, image=True, starts=(far, solved)))
    assert fit.iteration == TRIAL + 4
    names = list(dict.fromkeys(record.stage for record in fit.history))
    assert names == [*(f"edit, start {i} of 3" for i in (1, 2, 3)), "edit"]
    assert fit.history[0].iteration == 0
    assert torch.equal(fit.offsets.geometry.phases, solution.geometry.phases)
    assert not fit.interrupted


def test_an_interrupted_trial_keeps_the_best_so_far(editor, project):
    solution = face(editor, 9).offsets
    goal = goal_of(editor, dataclasses.replace(project, geometry=solution.geometry[0]))

    def watch(record, output, goal):
        if record.stage == "edit, start 2 of 2":
            raise KeyboardInterrupt

    fit = Fit(editor.generator, goal, solution, project.pose[None], QUIET, watch=watch)
    best = fit.offsets.geometry.phases.clone()
    fit.run(Stage(name="edit", iterations=4, image=True, starts=(project.offsets,)))
    assert fit.interrupted
    first = [record for record in fit.history if record.stage == "edit, start 1 of 2"]
    # appearance differs from the goal's, so that the trial may have moved, but not to the start 2
    assert min(record.loss for record in first) <= first[0].loss
    distance = (fit.offsets.geometry.phases - best).abs().max()
    assert distance < (project.offsets.geometry.phases - best).abs().max() / 2


def test_weights_are_not_moved_from_other_starts(project):
    with pytest.raises(ValueError, match="give no starts"):
        Stage(name="tune", iterations=4, weights=True, starts=(project.offsets,))


def test_a_hat_appears_on_a_face_that_shows_none(editor):
    """From the face itself it keeps its hair."""
    project = editor.generate(7).project
    labels = hat(project.labels)
    wanted = footprint_shares(labels, SIZE).argmax(1) == HAT
    settings = EditSettings(iterations=30, perceptual_weight=0, resolution=SIZE)
    followed = []
    for samples in (0, settings.start_samples):
        chosen = dataclasses.replace(settings, start_samples=samples)
        after = edit(editor.generator, project, labels, settings=chosen).after
        followed.append(float((after.labels == HAT)[wanted].float().mean()))
    assert followed[0] < 0.2 and followed[1] > 0.8
