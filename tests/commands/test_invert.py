"""Inversion: it fits, in steps that are what they say, and bad input is one line."""

import dataclasses

import numpy as np
import pytest
import torch
from face_maps import draw_labels, paint
from faces import SIZE, face, write_checkpoint
from PIL import Image
from support import needs_native, use_isa

from semfaceedit import invert as command
from semfaceedit.editing import inversion
from semfaceedit.editing.fit import Fit, zero_offsets
from semfaceedit.editing.fit_display import LiveFit
from semfaceedit.editing.fit_terms import FitSettings, Goal, Stage, loss_terms
from semfaceedit.editing.project import FaceProject
from semfaceedit.editing.target import pictures
from semfaceedit.errors import UserError
from semfaceedit.invert import InvertSettings, invert, seed_target
from semfaceedit.kernels import film_siren, resolve, use_backend
from semfaceedit.metrics.perceptual import PerceptualFeatures
from semfaceedit.metrics.pictures import psnr
from semfaceedit.model import film
from semfaceedit.model.checkpoint import discriminators_beside, save_discriminators
from semfaceedit.model.discriminator import build_discriminators
from semfaceedit.model.labels import NUM_CLASSES, PALETTE
from semfaceedit.model.mean_face import mean_codes
from semfaceedit.model.renderer import RenderOutput, render

QUICK = InvertSettings(
    geometry_iterations=40, appearance_iterations=60, perceptual_weight=0, resolution=8
)


@pytest.fixture(scope="module")
def inverted(editor):
    target = seed_target(editor.generator, 5, 8)
    result = invert(
        editor.generator, target.image, target.labels, pose=tuple(target.pose), settings=QUICK
    )
    return target, result


def goal_of(editor, seed: int = 5, resolution: int = 8) -> tuple[Goal, torch.Tensor]:
    target = seed_target(editor.generator, seed, resolution)
    image, shares = pictures(target, resolution)
    return Goal(shares, image), torch.tensor(target.pose)[None]


def test_a_generated_face_is_found(inverted):
    _, result = inverted
    first, last = result.history[0], result.history[-1]
    assert first.iteration == 0 and last.iteration == result.project.iterations
    assert result.project.metrics["start_miou_groups"] == first.score.groups
    assert result.project.metrics["miou_groups"] > first.score.groups + 0.3
    assert result.project.metrics["psnr"] > first.psnr + 6
    assert not result.interrupted


def test_iteration_0_is_the_mean_face(editor, inverted):
    target, result = inverted
    pose = torch.tensor(target.pose)[None]
    output = render(editor.generator, mean_codes(editor.generator), pose, 8)
    image, shares = pictures(target, 8)
    goal = Goal(shares, image)
    assert result.history[0].psnr == pytest.approx(float(psnr(output.image, goal.image)), abs=1e-3)
    error = (2 * output.semantics - 2 * shares).square().mean()  # maps in [-1, 1]
    assert result.history[0].terms["semantic"] == pytest.approx(float(error), rel=1e-4)
    assert result.history[0].loss == pytest.approx(10 * float(error), rel=1e-4)


def test_the_result_is_what_its_project_renders(editor, inverted):
    _, result = inverted
    project = result.project
    output = render(editor.generator, project.codes(editor.generator), project.pose[None], 8)
    torch.testing.assert_close(output.image, result.output.image)
    metric = project.metrics["psnr"]
    assert metric == pytest.approx(max(s.psnr for s in result.history), abs=3)


@needs_native
def test_steps_are_fast_unless_a_precision_is_chosen(editor, monkeypatch):
    """Evaluations are as exact as all else; so are the steps of weights."""
    asked = []

    def watched(points, weights, *arguments, **named):
        chosen = resolve("film_siren", None, None, points).precision
        asked.append((torch.is_grad_enabled(), chosen))
        return film_siren(points, weights, *arguments, **named)

    monkeypatch.setattr(film, "film_siren", watched)
    goal, pose = goal_of(editor)
    quiet = FitSettings(perceptual_weight=0, noise=0, pose_every=2, evaluate_every=2)
    stage = Stage(name="all", iterations=2, appearance=True, image=True, pose=True)

    def precisions(settings=quiet, stage=stage):
        asked.clear()
        Fit(editor.generator, goal, zero_offsets(editor.generator), pose, settings).run(stage)
        steps = {name for moves, name in asked if moves}
        return steps, {name for moves, name in asked if not moves}

    with use_isa("amx_model"), use_backend("cpu"):
        assert precisions() == ({"fast"}, {"fast", "accurate"})  # trials of poses are fast
        assert precisions(dataclasses.replace(quiet, fast=False)) == ({"accurate"}, {"accurate"})
        tuned = dataclasses.replace(stage, geometry=False, appearance=False, weights=True)
        assert precisions(stage=dataclasses.replace(tuned, pose=False))[0] == {"accurate"}
        with use_backend(precision="fp32"):
            assert precisions() == ({"fp32"}, {"fp32"})
    with use_isa("portable"), use_backend("cpu"):
        assert precisions() == ({"fp32"}, {"fp32"})


def test_the_first_stage_leaves_appearance_alone(editor):
    goal, pose = goal_of(editor)
    fit = Fit(
        editor.generator, goal, zero_offsets(editor.generator), pose,
        FitSettings(perceptual_weight=0, pose_every=0),
    )  # fmt: skip
    fit.run(Stage(name="geometry", iterations=5))
    assert fit.offsets.geometry.phases.abs().max() > 0
    assert fit.offsets.appearance.phases.abs().max() == 0
    assert torch.equal(fit.pose, pose)
    geometry = fit.offsets.geometry.phases.clone()
    fit.run(Stage(name="look", iterations=5, geometry=False, appearance=True, image=True))
    assert fit.offsets.appearance.phases.abs().max() > 0
    assert torch.equal(fit.offsets.geometry.phases, geometry)


def test_colours_are_made_only_where_they_count(editor, monkeypatch):
    goal, pose = goal_of(editor)
    settings = FitSettings(perceptual_weight=0, pose_every=2, evaluate_every=2)
    fit = Fit(editor.generator, goal, zero_offsets(editor.generator), pose, settings)
    colored = []
    appearance = editor.generator.appearance.forward
    monkeypatch.setattr(
        editor.generator.appearance,
        "forward",
        lambda *these, **flags: colored.append(1) or appearance(*these, **flags),
    )
    fit.run(Stage(name="geometry", iterations=4, pose=True))
    assert len(colored) == len(fit.history) == 3
    fit.run(Stage(name="look", iterations=2, appearance=True, image=True))
    # two steps; the face with which a stage begins was rendered before
    assert len(colored) == len(fit.history) - 1 + 2 == 6


def test_the_generator_gets_no_gradient(editor, inverted):
    assert all(p.grad is None and not p.requires_grad for p in editor.generator.parameters())


def test_inversion_repeats_itself(editor, inverted):
    target, result = inverted
    short = dataclasses.replace(QUICK, geometry_iterations=10, appearance_iterations=5)
    runs = [
        invert(editor.generator, target.image, target.labels, pose=(0.1, 0.0), settings=s).project
        for s in (short, short, dataclasses.replace(short, seed=1))
    ]
    assert torch.equal(runs[0].geometry.phases, runs[1].geometry.phases)
    assert not torch.equal(runs[0].geometry.phases, runs[2].geometry.phases)  # other noise


def test_a_wrong_pose_is_brought_back(editor):
    """With the true codes, the pose steps alone find the pose."""
    project = face(editor, 5)
    goal = Goal(*(t for t in reversed(_views(editor, project))))
    wrong = project.pose[None] + torch.tensor([[0.15, -0.1]])
    fit = Fit(
        editor.generator, goal, project.offsets, wrong,
        FitSettings(perceptual_weight=0, learning_rate=0.0, noise=0.0, pose_every=1),
    )  # fmt: skip
    fit.run(Stage(name="pose", iterations=25, image=True, pose=True))
    assert (wrong - project.pose).abs().max() > 0.14
    assert (fit.pose - project.pose).abs().max() < 0.02
    assert fit.history[-1].loss < 0.05 * fit.history[0].loss


def _views(editor, project) -> tuple[torch.Tensor, torch.Tensor]:
    output = render(editor.generator, project.codes(editor.generator), project.pose[None], SIZE)
    return output.image, output.semantics


def test_a_plateau_ends_a_stage(editor):
    goal, pose = goal_of(editor)
    stuck = FitSettings(
        perceptual_weight=0, learning_rate=0.0, noise=0.0, evaluate_every=2, patience=3
    )
    fit = Fit(editor.generator, goal, zero_offsets(editor.generator), pose, stuck)
    fit.run(Stage(name="geometry", iterations=50))
    assert fit.iteration == 6
    fit = Fit(
        editor.generator, goal, zero_offsets(editor.generator), pose,
        dataclasses.replace(stuck, patience=0),
    )  # fmt: skip
    fit.run(Stage(name="geometry", iterations=12))
    assert fit.iteration == 12


def test_the_best_face_is_kept_when_a_stage_gets_worse(editor):
    project = face(editor, 5)
    image, semantics = _views(editor, project)
    fit = Fit(
        editor.generator, Goal(semantics, image), project.offsets, project.pose[None],
        FitSettings(perceptual_weight=0, learning_rate=1.0, pose_every=0),
    )  # fmt: skip
    fit.run(Stage(name="wild", iterations=10, appearance=True, image=True))
    assert fit.history[-1].loss > fit.history[0].loss
    assert torch.equal(fit.offsets.geometry.phases, project.geometry.phases[None])


def test_ctrl_c_keeps_the_best_so_far(editor):
    target = seed_target(editor.generator, 5, 8)

    def stop(record, output, goal):
        if record.iteration == 20:
            raise KeyboardInterrupt

    result = invert(
        editor.generator, target.image, target.labels, pose=tuple(target.pose), settings=QUICK,
        watch=stop,
    )  # fmt: skip
    assert result.interrupted and result.project.iterations == 20
    assert result.project.geometry.phases.abs().max() > 0
    assert result.project.metrics["miou_groups"] >= result.history[0].score.groups


def test_ctrl_c_before_there_is_a_face_is_passed_on(editor, monkeypatch):
    target = seed_target(editor.generator, 5, 8)

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Fit, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        invert(editor.generator, target.image, target.labels, pose=(0, 0), settings=QUICK)


def test_a_rate_of_0_moves_nothing(editor):
    goal, pose = goal_of(editor)
    settings = FitSettings(perceptual_weight=0)
    fit = Fit(editor.generator, goal, zero_offsets(editor.generator), pose, settings)
    fit.run(Stage(name="still", iterations=2, learning_rate=0.0))
    assert fit.offsets.geometry.phases.abs().max() == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"learning_rate": -1.0}, {"learning_rate": float("nan")}, {"evaluate_every": 0},
        {"decay_every": 0}, {"geometry_iterations": -3}, {"resolution": 0},
        {"image_weight": float("inf")},
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_said(settings):
    (name,) = settings
    with pytest.raises(UserError, match=f"{name} is .*: give a number from [01] up"):
        InvertSettings(**settings)


def test_a_map_without_pixels_is_said(editor):
    empty = np.zeros((0, 0), np.uint8)
    with pytest.raises(UserError, match="square map"):
        invert(editor.generator, np.zeros((0, 0, 3), np.uint8), empty, settings=QUICK)


def test_terms_by_hand():
    shape = (1, 3, 8, 8)
    semantics = torch.zeros(1, NUM_CLASSES, 8, 8)
    semantics[:, 0] = 1
    goal = Goal(semantics, torch.zeros(shape))
    other = torch.zeros_like(semantics)
    other[:, 1] = 1
    output = RenderOutput(torch.full(shape, 0.5), other, torch.ones(1, 1, 8, 8), torch.ones(1, 5))
    assert set(loss_terms(output, goal, None, image=False)) == {"semantic"}
    terms = loss_terms(output, goal, PerceptualFeatures(), image=True)
    assert terms["semantic"] == pytest.approx(4 * 2 / NUM_CLASSES)  # two maps differ by 2
    assert terms["image"] == pytest.approx(0.25)
    assert terms["perceptual"] > 0
    assert float(psnr(output.image, goal.image)) == pytest.approx(10 * np.log10(4 / 0.25), rel=1e-5)


def test_the_vgg_term_is_used_and_never_dropped_silently(editor):
    target = seed_target(editor.generator, 5, 8)
    with pytest.raises(UserError, match="perceptual_weight=0"):
        invert(editor.generator, target.image, target.labels, pose=(0, 0))
    settings = InvertSettings(geometry_iterations=2, appearance_iterations=2, resolution=8)
    torch.manual_seed(0)
    result = invert(
        editor.generator, target.image, target.labels, pose=(0.0, 0.0), settings=settings,
        perceptual=PerceptualFeatures(),
    )  # fmt: skip
    terms = result.history[-1].terms
    assert terms["perceptual"] > 0
    assert result.history[-1].loss == pytest.approx(
        10 * terms["semantic"] + terms["image"] + terms["perceptual"], rel=1e-5
    )


@pytest.mark.parametrize(
    "image,labels,said",
    [
        (np.zeros((16, 16, 3), np.uint8), np.zeros((16, 12), np.uint8), "square map"),
        (np.zeros((16, 16, 3), np.uint8), np.full((16, 16), 19, np.uint8), "from 0 to 18"),
        (np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16)), "integer class ids"),
        (np.zeros((8, 8, 3), np.uint8), np.zeros((16, 16), np.uint8), "label map's size"),
        (np.zeros((16, 16, 3)), np.zeros((16, 16), np.uint8), "uint8"),
        (np.zeros((12, 12, 3), np.uint8), np.zeros((12, 12), np.uint8), "cannot be averaged"),
    ],
)
def test_bad_arrays_are_said(editor, image, labels, said):
    with pytest.raises(UserError, match=said):
        invert(editor.generator, image, labels, pose=(0, 0), settings=QUICK)


def test_a_map_without_a_face_is_said(editor):
    with pytest.raises(UserError, match="shows no face"):
        invert(
            editor.generator, np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8),
            settings=QUICK,
        )  # fmt: skip


@pytest.fixture
def photograph(tmp_path):
    """A drawn face (image and mask) that looks to the image's right."""
    labels = draw_labels(128, yaw=0.3)
    Image.fromarray(paint(labels)).save(tmp_path / "photo.png")
    mask = Image.fromarray(labels)
    mask.putpalette(PALETTE.tobytes())
    mask.save(tmp_path / "mask.png")
    return tmp_path


SHORT = ["--no-vgg", "--resolution", "16",
         "--geometry-iterations", "10", "--appearance-iterations", "10"]  # fmt: skip


def run(folder, *arguments: str) -> int:
    weights, out = write_checkpoint(folder), folder / "out" / "face.safetensors"
    return command.main(["--checkpoint", str(weights), "--out", str(out), *arguments])


def test_the_command_inverts_a_photograph(photograph, capsys):
    pair = ["--image", str(photograph / "photo.png"), "--labels", str(photograph / "mask.png")]
    assert run(photograph, *pair, *SHORT) == 0
    said = capsys.readouterr().err
    assert "geometry 0  loss" in said and "mIoU" in said and "after 20 iterations" in said
    project = FaceProject.load(photograph / "out" / "face.safetensors")
    assert project.labels.shape == (32, 32) and project.preview.shape == (16, 16, 3)
    assert project.crop.width == 128 and project.pose[0] > 0.1
    written = np.asarray(Image.open(photograph / "out" / "face.labels.png"))
    assert np.array_equal(written, project.labels)
    assert Image.open(photograph / "out" / "face.preview.png").size == (4 * 192, 192)


def test_the_command_inverts_a_seed(tmp_path):
    assert run(tmp_path, "--seed", "3", *SHORT) == 0
    assert FaceProject.load(tmp_path / "out" / "face.safetensors").iterations == 20


def test_ctrl_c_in_the_command_saves_and_says_so(tmp_path, monkeypatch, capsys):
    def stop(self, record, output, goal):
        if record.iteration == 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(LiveFit, "__call__", stop)
    assert run(tmp_path, "--seed", "3", *SHORT) == 130
    said = capsys.readouterr().err
    assert "face.safetensors (as far as it came before it was interrupted)\n" in said
    assert said.endswith("semfaceedit invert: interrupted\n")
    assert FaceProject.load(tmp_path / "out" / "face.safetensors").iterations == 10


def test_an_interrupted_fit_takes_no_finished_face_s_place(tmp_path, monkeypatch, capsys):
    assert run(tmp_path, "--seed", "3", *SHORT) == 0
    names = ("face.safetensors", "face.labels.png")
    before = [(tmp_path / "out" / name).read_bytes() for name in names]

    def stop(self, record, output, goal):
        raise KeyboardInterrupt

    monkeypatch.setattr(LiveFit, "__call__", stop)
    assert run(tmp_path, "--seed", "4", *SHORT) == 130
    assert "face-interrupted.safetensors (as far as it came" in capsys.readouterr().err
    assert [(tmp_path / "out" / name).read_bytes() for name in names] == before
    assert FaceProject.load(tmp_path / "out" / "face-interrupted.safetensors")


@pytest.mark.parametrize(
    "arguments,said",
    [
        (["--seed", "1", "--vgg-weights", "NONE", "--no-vgg"], "--no-vgg"),
        (["--no-vgg"], "give --image, with --labels if there is a label map, or --seed"),
        (["--no-vgg", "--seed", "1", "--image", "PHOTO", "--labels", "MASK"], "or --seed"),
        (["--no-vgg", "--seed", "1", "--image", "NONE"], "or --seed"),
        (["--no-vgg", "--labels", "MASK"], "or --seed"),
        (["--no-vgg", "--image", "PHOTO", "--labels", "MASK", "--parser", "NONE"], "leave out"),
        (["--no-vgg", "--seed", "1", "--yaw", "nan", "--pitch", "0"], "--yaw nan: must be finite"),
        (["--no-vgg", "--seed", "1", "--tune-rate", "-1"], "--tune-rate -1: must be more"),
        (["--no-vgg", "--seed", "1", "--resolution", "2"], "--resolution 2"),
        (["--no-vgg", "--seed", "1", "--yaw", "0.1"], "--yaw and --pitch together"),
        (["--no-vgg", "--image", "PHOTO", "--labels", "EMPTY"], "shows no face"),
        (["--no-vgg", "--image", "PHOTO", "--labels", "IDS"], "holds the label 30"),
        (["--no-vgg", "--image", "PHOTO", "--labels", "WIDE"], "must show the same area"),
        (["--no-vgg", "--image", "NONE", "--labels", "MASK"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line(photograph, capsys, arguments, said):
    files = {"PHOTO": "photo.png", "MASK": "mask.png", "NONE": "none.png"}
    for name, ids in (
        ("EMPTY", np.zeros((128, 128), np.uint8)),
        ("IDS", np.full((128, 128), 30, np.uint8)),
        ("WIDE", draw_labels(128)[:64]),
    ):
        Image.fromarray(ids).save(photograph / f"{name}.png")
        files[name] = f"{name}.png"
    given = [str(photograph / files[a]) if a in files else a for a in arguments]
    assert run(photograph, *given) == 1
    text = capsys.readouterr().err
    assert said in text and text.count("\n") == 1, text
    assert not (photograph / "out" / "face.safetensors").exists()


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("head_is_right", [True, False])
def test_the_better_estimate_of_the_pose_is_taken(
    editor, tmp_path, monkeypatch, head_is_right, paired
):
    right, wrong = (0.3, -0.1), (-0.4, 0.2)
    head, landmarks = (right, wrong) if head_is_right else (wrong, right)
    discriminator = dataclasses.replace(editor.config.discriminator, paired=paired)
    settings = dataclasses.replace(editor.config, discriminator=discriminator)
    networks = build_discriminators(settings)
    networks[0].last.weight.data.zero_()
    networks[0].last.bias.data[1:] = torch.tensor(head)
    path = tmp_path / "w.safetensors"
    save_discriminators(discriminators_beside(path), networks, settings, images=0)
    monkeypatch.setattr(editor.generator, "source", path)
    monkeypatch.setattr(
        inversion, "pose_from_labels", lambda *_: np.array(landmarks, dtype=np.float32)
    )
    generator = editor.generator
    mean = render(generator, mean_codes(generator), torch.tensor([right]), SIZE)
    found = inversion.start_pose(
        generator, np.zeros((SIZE, SIZE), np.uint8), Goal(mean.semantics, mean.image)
    )
    torch.testing.assert_close(found, torch.tensor([right]), rtol=0, atol=1e-3)  # kept in fp16
