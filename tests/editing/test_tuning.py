"""Pivotal tuning: it helps, it is kept beside the project, and every later step goes on with it."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from faces import face, open_editor, write_checkpoint

from semfaceedit import invert as command
from semfaceedit.edit import edit
from semfaceedit.editing.project import FaceProject
from semfaceedit.editing.refit import EditSettings, render_project
from semfaceedit.editing.tuning import blend, read_weights, weights_of, with_weights
from semfaceedit.errors import UserError
from semfaceedit.invert import InvertSettings, invert, seed_target
from semfaceedit.model.mean_face import fingerprint, mean_codes
from semfaceedit.transfer import transfer

TUNED = InvertSettings(
    geometry_iterations=5, appearance_iterations=10, tune_iterations=40, perceptual_weight=0,
    resolution=8, tune_learning_rate=1e-3,
)  # fmt: skip
SHORT = EditSettings(iterations=3, perceptual_weight=0)


@pytest.fixture(scope="module")
def tuned(editor):
    target = seed_target(editor.generator, 5, 8)
    return invert(
        editor.generator, target.image, target.labels, pose=tuple(target.pose), settings=TUNED
    )


@pytest.fixture(scope="module")
def project(tuned) -> FaceProject:
    return tuned.project


def test_tuning_lowers_the_loss_and_moves_weights_only(editor, tuned, project):
    steps = [record for record in tuned.history if record.stage == "tuning"]
    assert steps[0].iteration == 15 and steps[-1].iteration == 55
    assert min(s.loss for s in steps) < 0.7 * steps[0].loss
    assert {record.pose for record in steps} == {steps[0].pose}
    own = read_weights(editor.generator).tensors
    moved = [n for n, t in project.tuned.tensors.items() if not torch.equal(t, own[n])]
    assert set(project.tuned.tensors) == set(own)
    assert any("geometry" in n for n in moved) and any("appearance" in n for n in moved)
    assert project.metrics["psnr"] > steps[0].psnr


def test_the_checkpoint_itself_is_left_alone(editor, project, tmp_path):
    fresh = open_editor(tmp_path).generator.state_dict()
    for name, tensor in editor.generator.state_dict().items():
        assert torch.equal(tensor, fresh[name]), name
    own = project.generator(editor.generator)
    assert own is not editor.generator and own is project.generator(editor.generator)
    assert not any(parameter.requires_grad for parameter in own.parameters())
    assert fingerprint(own) == fingerprint(editor.generator)
    assert mean_codes(own) is mean_codes(editor.generator)
    assert with_weights(own, None) is editor.generator


def test_it_is_off_by_default(editor):
    target = seed_target(editor.generator, 5, 8)
    settings = dataclasses.replace(TUNED, tune_iterations=InvertSettings.tune_iterations)
    plain = invert(editor.generator, target.image, target.labels, pose=(0, 0), settings=settings)
    assert plain.project.tuned is None and plain.history[-1].iteration == 15


def test_ctrl_c_keeps_the_best_weights(editor):
    target = seed_target(editor.generator, 5, 8)

    def stop(record, output, goal):
        if record.iteration == 35:
            raise KeyboardInterrupt

    result = invert(
        editor.generator, target.image, target.labels, pose=tuple(target.pose), settings=TUNED,
        watch=stop,
    )  # fmt: skip
    assert result.interrupted and result.project.tuned is not None
    best = min(s.loss for s in result.history if s.stage == "tuning")
    assert best < next(s.loss for s in result.history if s.stage == "tuning")


def test_a_saved_face_renders_as_before(editor, tuned, project, tmp_path):
    path = tmp_path / "a" / "face.safetensors"
    path.parent.mkdir()
    project.save(path)
    (beside,) = path.parent.glob("tuned-*.safetensors")
    assert beside.name == f"tuned-{project.tuned.fingerprint}.safetensors"
    assert beside.stat().st_size == pytest.approx(project.tuned.bytes, rel=0.1)
    fresh = open_editor(tmp_path).generator
    read = FaceProject.load(path, fresh)
    output = render_project(fresh, read, 8)
    assert torch.equal(output.image, tuned.output.image)
    untuned = render_project(fresh, dataclasses.replace(read, tuned=None), 8)
    assert not torch.equal(output.image, untuned.image)


def test_edits_and_transfers_go_on_with_the_tuned_weights(editor, project, tmp_path):
    labels = project.labels.copy()
    labels[:5] = 14
    edited = edit(editor.generator, project, labels, settings=SHORT)
    assert edited.project.tuned is project.tuned
    assert edited.history[0].terms["image"] < 1e-10  # it starts from the tuned face
    edited.project.save(tmp_path / "edited.safetensors")
    assert FaceProject.load(tmp_path / "edited.safetensors", editor.generator).tuned
    other = face(editor, 2)
    for what in ("appearance", "geometry"):
        result = transfer(
            editor.generator, project, other, what=what, region=["hair"], settings=SHORT
        )
        shown = render_project(editor.generator, result.project, 8)
        torch.testing.assert_close(shown.image, result.after.image)
        assert result.project.tuned is project.tuned
    given = transfer(
        editor.generator, other, project, what="appearance", region=["hair"], settings=SHORT
    )
    assert given.project.tuned is None


def test_blending_goes_from_one_face_to_the_other(editor, project):
    generator = editor.generator
    assert blend(generator, None, None, 0.5) is None
    own = read_weights(generator).tensors
    half = blend(generator, None, project.tuned, 0.5)
    for name, tensor in half.tensors.items():
        torch.testing.assert_close(tensor, (own[name] + project.tuned.tensors[name]) / 2)
    assert weights_of(with_weights(generator, half)) is half


@pytest.mark.parametrize(
    "damage,said",
    [
        ("missing", "is not beside it: copy that file there too"),
        ("text", "not a readable file of tuned weights"),
        ("other", "was changed since"),
    ],
)
def test_lost_or_damaged_weights_are_one_line(project, tmp_path, damage, said):
    project.save(tmp_path / "face.safetensors")
    (beside,) = tmp_path.glob("tuned-*")
    if damage == "missing":
        beside.unlink()
    elif damage == "text":
        beside.write_text("hello")
    else:
        changed = {name: tensor + 1 for name, tensor in project.tuned.tensors.items()}
        dataclasses.replace(project.tuned, tensors=changed).save(tmp_path / "x.safetensors")
        (other,) = (p for p in tmp_path.glob("tuned-*") if p != beside)
        shutil.copy(other, beside)
    with pytest.raises(UserError, match=said) as error:
        FaceProject.load(tmp_path / "face.safetensors")
    assert "\n" not in str(error.value)


def test_the_command_tunes_and_says_the_size(tmp_path, capsys):
    out = tmp_path / "out" / "face.safetensors"
    code = command.main(
        ["--checkpoint", str(write_checkpoint(tmp_path)), "--out", str(out), "--seed", "3",
         "--no-vgg", "--resolution", "8", "--geometry-iterations", "2",
         "--appearance-iterations", "2", "--tune", "3"]
    )  # fmt: skip
    said = capsys.readouterr().err
    assert code == 0 and "tuned to this face, 0.0 MB" in said and "tuning 7" in said
    project = FaceProject.load(out)
    assert project.iterations == 7 and project.tuned is not None
    for name in ("preview.png", "labels.png", "safetensors"):
        assert f"wrote {out.with_suffix('.' + name)}" in said
    assert np.isfinite(project.metrics["psnr"])
