"""The encoder: what it reads, its files, its training, and what starts from it."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from faces import SIZE, face, write_checkpoint
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support import change_a_number

from semfaceedit.api import load
from semfaceedit.editing import encoder as reading
from semfaceedit.editing import encoder_training
from semfaceedit.editing.beside import LEAST_IN_BYTES
from semfaceedit.editing.descent import Adam
from semfaceedit.editing.encoder import (
    SIZE as READ,
)
from semfaceedit.editing.encoder import (
    EncoderSettings,
    encoder_beside,
    film_of,
    find_encoder,
    flat_film,
    follow_map,
    load_encoder,
    map_change,
    new_encoder,
    save_encoder,
)
from semfaceedit.editing.encoder_metric import coefficient_metric
from semfaceedit.editing.encoder_report import heads_not_seen
from semfaceedit.editing.encoder_samples import head_depth
from semfaceedit.editing.encoder_training import TrainingSettings, train_encoder
from semfaceedit.editing.fit import OFFSETS, Fit, zero_offsets
from semfaceedit.editing.fit_terms import Goal, Stage, depth_gap
from semfaceedit.editing.initialisation import best_along
from semfaceedit.editing.inversion import (
    InvertSettings,
    default_invert_settings,
    head_relief,
    invert,
    near_settings,
    read_face,
    seed_target,
)
from semfaceedit.editing.map_edit import edit
from semfaceedit.editing.mask_edits import paint
from semfaceedit.editing.refit import near_edit_settings, render_project
from semfaceedit.editing.target import footprint_shares, pictures
from semfaceedit.errors import UserError
from semfaceedit.metrics.segmentation import segmentation_score
from semfaceedit.model.generator import Generator, sample_latents
from semfaceedit.model.labels import CLASS_NAMES
from semfaceedit.model.mean_face import mean_codes
from semfaceedit.model.renderer import render
from semfaceedit.tensor_files import write_tensors

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True, scope="module")
def _few_samples():
    """Enough for the principal components of a tiny generator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "PCA_SAMPLES", 256)
        yield


@pytest.fixture(scope="module")
def generator(editor) -> Generator:
    return editor.generator


@pytest.fixture
def encoder(generator):
    """Untrained, but for a free part that is not 0."""
    made = new_encoder(generator, seed=3)
    random = torch.Generator().manual_seed(2)
    torch.nn.init.normal_(made.free_out.weight, std=0.02, generator=random)
    torch.nn.init.normal_(made.geometry.weight, std=0.1, generator=random)
    return made.eval().requires_grad_(False)


def inputs(count: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(5)
    image = torch.rand(count, 3, READ, READ, generator=random) * 2 - 1
    return image, torch.rand(count, 19, READ, READ, generator=random).softmax(1)


def test_offsets_have_the_shapes_of_codes(generator, encoder):
    read, mean = encoder.read(*inputs()), mean_codes(generator)
    assert read.pose.shape == (2, 2)
    for part in ("geometry", "appearance"):
        own, like = getattr(read.offsets, part), getattr(mean, part)
        assert own.phases.shape[1:] == like.phases.shape[1:]
        assert own.frequencies.shape[1:] == like.frequencies.shape[1:]
    render(generator, mean + read.offsets, read.pose, 8)


def test_what_is_missing_does_not_count(encoder):
    image, shares = inputs()
    alone = encoder.read(None, shares)
    left_out = encoder(
        image, shares, keep_image=torch.zeros(2), keep_semantics=torch.ones(2)
    )  # fmt: skip
    torch.testing.assert_close(alone.offsets.geometry.phases, left_out.offsets.geometry.phases)
    both = encoder.read(image, shares)
    assert not torch.allclose(alone.offsets.geometry.phases, both.offsets.geometry.phases)
    assert not torch.allclose(
        encoder.read(image, None).offsets.geometry.phases, both.offsets.geometry.phases
    )
    with pytest.raises(ValueError, match="a picture, a label map or both"):
        encoder.read(None, None)


def test_larger_pictures_are_averaged(encoder):
    image, shares = inputs()
    large = [t.repeat_interleave(2, 2).repeat_interleave(2, 3) for t in (image, shares)]
    small, averaged = encoder.read(image, shares), encoder.read(*large)
    torch.testing.assert_close(small.pose, averaged.pose)


def test_components_span_the_codes(generator):
    """Codes that the generator draws are found again from their coefficients."""
    encoder = new_encoder(generator)
    z, looks = sample_latents(generator.config, 5, generator=torch.Generator().manual_seed(9))
    offsets = generator.map(z, looks) - mean_codes(generator)
    flat, basis = flat_film(offsets.geometry), encoder.geometry_basis
    found = (flat @ basis.T / basis.square().sum(1).clamp(min=1e-12)) @ basis
    assert (found - flat).norm() < 0.1 * flat.norm()
    back = film_of(flat, generator.config.width)
    assert torch.equal(back.frequencies, offsets.geometry.frequencies)
    assert torch.equal(back.phases, offsets.geometry.phases)


# Files.


def test_a_file_gives_the_same_encoder(tmp_path, generator, encoder):
    path = tmp_path / "e.safetensors"
    save_encoder(path, encoder, generator, {})
    assert path.stat().st_size < 8e6
    read = load_encoder(path, generator)
    torch.testing.assert_close(
        read.read(*inputs()).offsets.geometry.phases,
        encoder.read(*inputs()).offsets.geometry.phases,
        atol=1e-2, rtol=0,
    )  # fmt: skip


def test_it_is_found_beside_the_weights(tmp_path, encoder):
    generator = Generator.from_checkpoint(write_checkpoint(tmp_path))
    assert find_encoder(generator) is None
    save_encoder(encoder_beside(generator.source), encoder, generator, {})
    assert find_encoder(generator) is not None
    assert load(generator.source).encoder is not None
    assert load(generator.source, encoder=False).encoder is None


def changed(path, to, *, header=None, tensors=None):
    """A copy with a changed header or tensors."""
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        told = json.loads(file.metadata()["semfaceedit"])
    told |= header or {}
    kept = load_file(path) | (tensors or {})
    save_file(kept, to, {"semfaceedit": json.dumps(told)})
    return to


@pytest.mark.parametrize(
    ("header", "said"),
    [({"checkpoint": "0" * 16}, "encoder of other weights"),
     ({"group_of_class": [0] * 19}, "another grouping"),
     ({"format": "semfaceedit-parser"}, "holds no encoder"),
     ({"version": 99}, "newer semfaceedit"),
     ({"settings": {"width": 10**9}}, "not a readable encoder"),
     ({"settings": {"wide": 1}}, "not a readable encoder"),
     ({"sha256": "0"}, "changed since it was written")],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_one_line(tmp_path, generator, encoder, header, said):
    path = tmp_path / "e.safetensors"
    save_encoder(path, encoder, generator, {})
    with pytest.raises(UserError, match=said) as error:
        load_encoder(changed(path, tmp_path / "other.safetensors", header=header), generator)
    assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_damaged_files_are_one_line(tmp_path, generator, encoder):
    path = tmp_path / "e.safetensors"
    save_encoder(path, encoder, generator, {})
    broken = {"pose.bias": torch.full((2,), float("nan")).half()}
    nan = changed(path, tmp_path / "nan.safetensors", tensors=broken)
    with pytest.raises(UserError, match="NaN or infinity"):
        load_encoder(nan, generator)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(path.read_bytes()[:-100])
    for bad in (cut, tmp_path):
        with pytest.raises(UserError, match="not a readable encoder"):
            load_encoder(bad, generator)
    with pytest.raises(UserError, match="no encoder at"):
        load_encoder(tmp_path / "none.safetensors", generator)


def test_large_weights_are_kept_in_bytes(tmp_path, generator, encoder):
    """Each row to half of its step, which its largest number sets; all else in fp16."""
    path = tmp_path / "e.safetensors"
    encoder = copy.deepcopy(encoder)
    with torch.no_grad():
        encoder.body.weight[1] = 0.0
        encoder.body.weight[2] *= 1e-4
    save_encoder(path, encoder, generator, {})
    read = load_encoder(path, generator).state_dict()
    large = 0
    for name, tensor in encoder.state_dict().items():
        error = (read[name] - tensor).abs()
        if name.endswith(".weight") and tensor.numel() >= LEAST_IN_BYTES:
            step = tensor.abs().flatten(1).amax(1) / 127
            assert (error.flatten(1).amax(1) <= 0.5001 * step).all(), name
            large += 1
        else:
            assert torch.equal(read[name], tensor.half().float()), name
    assert large >= 2
    assert path.stat().st_size < 1.3 * sum(t.numel() for t in encoder.state_dict().values())


@pytest.mark.parametrize("change", ["no scales", "scales of a plain one"])
def test_bytes_and_scales_that_do_not_fit_are_one_line(tmp_path, generator, encoder, change):
    path, other = tmp_path / "e.safetensors", tmp_path / "other.safetensors"
    save_encoder(path, encoder, generator, {})
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["semfaceedit"])
    tensors = load_file(path)
    if change == "no scales":
        del tensors["body.weight.scale"]
    else:
        tensors["pose.bias.scale"] = torch.ones(2)
    write_tensors(other, tensors, {k: v for k, v in header.items() if k != "sha256"})
    with pytest.raises(UserError, match="scales do not fit"):
        load_encoder(other, generator)


# Training.

SIZES = EncoderSettings(width=8, features=32, components=12)
SHORT = TrainingSettings(
    steps=4, first=8, buffer=16, batch=4, generator_batch=4, heads=1, sizes=SIZES
)


def test_training_goes_on_where_it_stopped(tmp_path, generator, capsys):
    keep = tmp_path / "t.safetensors"
    training = encoder_training._Training(generator, dataclasses.replace(SHORT, steps=3), None)
    training.run(None)
    training.save(keep)
    again = encoder_training._Training(generator, SHORT, None)
    again.restore(keep)
    assert again.round == 3
    for name, tensor in training.encoder.state_dict().items():
        assert torch.equal(again.encoder.state_dict()[name], tensor), name
    other = encoder_training._Training(generator, dataclasses.replace(SHORT, seed=1), None)
    other.restore(keep)
    assert other.round == 0
    change_a_number(keep)
    damaged = encoder_training._Training(generator, SHORT, None)
    damaged.restore(keep)
    assert damaged.round == 0
    assert "going on" in capsys.readouterr().err


def test_training_lowers_the_errors_of_known_codes(generator):
    settings = dataclasses.replace(SHORT, heads=0, batch=16)
    training = encoder_training._Training(generator, settings, None)
    training.metric = coefficient_metric(generator, training.encoder, 0)
    training._fill(16)
    first = last = 0.0
    for _ in range(80):
        training._supervised()
        last = training.said["geometry"]  # a running mean
        first = first or last
    assert last < 0.8 * first


def test_the_metric_counts_what_is_seen(generator):
    encoder = encoder_training._Training(generator, SHORT, None).encoder
    geometry, looks = coefficient_metric(generator, encoder, 0)
    for matrix in (geometry, *looks):
        torch.testing.assert_close(matrix, matrix.T)
        assert torch.linalg.eigvalsh(matrix).min() > 0


def test_a_training_that_diverges_says_so(generator):
    training = encoder_training._Training(generator, SHORT, None)
    with pytest.raises(UserError, match="diverged"):
        training._tell("maps", torch.tensor(float("nan")))


def test_heads_have_depth_where_it_is_smooth():
    labels = torch.ones(1, 4, 4, dtype=torch.uint8)
    labels[0, :2, :2] = 0
    depth = torch.full((1, 4, 4), 1.0)
    depth[0, 2, 2] = 1.5
    found = head_depth(depth, labels, 2)
    assert found.isnan().flatten().tolist() == [True, False, False, True]


def test_samples_and_heads_know_their_depth(generator):
    training = encoder_training._Training(
        generator, dataclasses.replace(SHORT, heads=3, buffer=8), None
    )
    training._fill(4)
    training._fill(6)  # two heads each time, while there is room; the oldest samples go
    assert training.heads.count == 3 and training.samples.count == 8
    for store in (training.samples, training.heads):
        for row in range(store.count):
            known = store.depth[row][store.depth[row].isfinite()]
            assert len(known) and ((known > 0.5) & (known < 2)).all()
    assert training.heads.depth[:3].isnan().any()  # the background


def test_a_training_begins_with_many_heads(generator, monkeypatch):
    """And where it goes on: the first steps would learn a few by heart."""
    settings = dataclasses.replace(SHORT, heads=20, first=6)
    training = encoder_training._Training(generator, settings, None)
    known = []
    monkeypatch.setattr(training, "_supervised", lambda: known.append(training.heads.count))
    monkeypatch.setattr(training, "_through_generator", lambda: None)
    training.run(None)
    assert known[0] == 6 + encoder_training.HEADS_A_ROUND


def test_training_gives_an_encoder_without_gradients(generator):
    made = train_encoder(generator, dataclasses.replace(SHORT, steps=2))
    assert not any(p.requires_grad for p in made.parameters()) and not made.training


# What starts from it.


def test_inversion_starts_at_what_it_reads(generator, encoder):
    target = seed_target(generator, 5, 8)
    found = invert(
        generator, target.image, target.labels, encoder=encoder,
        settings=near_settings(perceptual_weight=0, resolution=8, appearance_iterations=10),
    )  # fmt: skip
    image, shares = pictures(target, 8)
    read = encoder.read(
        *(t.repeat_interleave(4, 2).repeat_interleave(4, 3) for t in (image, shares))
    )
    assert found.history[0].pose == pytest.approx(read.pose[0].tolist(), abs=1e-6)
    assert found.history[-1].loss < found.history[0].loss
    assert found.project.iterations == 10


def test_the_depth_of_an_encoder_that_learned_of_it_is_held(generator, encoder):
    """Where it shows the group that is asked for; each step sees its part of it."""
    target = seed_target(generator, 5, 8)
    image, shares = pictures(target, 8)
    goal, pose = Goal(shares, image), torch.tensor([[0.1, 0.0]])
    offsets = zero_offsets(generator)
    held = head_relief(generator, offsets, pose, goal)
    shown = render(generator, mean_codes(generator), pose, 8)
    alike = generator.group_table(shown.labels) == generator.group_table(shares.argmax(1))
    assert torch.equal(held.isfinite()[:, 0], alike & (shares.argmax(1) > 0))
    assert 0 < held.isfinite().sum() < held.numel()
    goal = dataclasses.replace(goal, depth=held)

    def drift(weight):
        settings = near_settings(perceptual_weight=0, patience=0, depth_weight=weight)
        fit = Fit(generator, goal, offsets, pose, settings)
        fit.run(Stage(name="all", iterations=12, appearance=True, image=True))
        assert ("depth" in fit.history[0].terms) == (weight > 0)
        return float(depth_gap(fit.render().depth, held).abs().mean())

    assert drift(10.0) < 0.95 * drift(0.0)
    encoder = copy.deepcopy(encoder)
    for learned in (False, True):
        encoder.learned_depth = learned
        assert (default_invert_settings(encoder).depth_weight > 0) == learned
        assert default_invert_settings(encoder, depth_weight=2.0).depth_weight == 2
        quick = default_invert_settings(
            encoder, perceptual_weight=0, resolution=8, appearance_iterations=2
        )
        found = invert(generator, target.image, target.labels, encoder=encoder, settings=quick)
        assert ("depth" in found.history[-1].terms) == learned


def test_a_file_tells_whether_depth_was_learned(tmp_path, generator, encoder):
    path = tmp_path / "e.safetensors"
    assert not load_encoder(_saved(path, encoder, generator), generator).learned_depth
    made = train_encoder(generator, dataclasses.replace(SHORT, steps=1))
    assert load_encoder(_saved(path, made, generator), generator).learned_depth
    other = train_encoder(generator, dataclasses.replace(SHORT, steps=1, heads=0))
    assert not load_encoder(_saved(path, other, generator), generator).learned_depth


def _saved(path, encoder, generator):
    save_encoder(path, encoder, generator, {})
    return path


def test_interleaved_steps_see_all_pixels_in_turn(generator, monkeypatch):
    """Four views of every other pixel: together the goal, and their rays those of its pixels."""
    target = seed_target(generator, 5, 8)
    image, shares = pictures(target, 8)
    pose = torch.tensor([[0.1, 0.0]])
    settings = near_settings(perceptual_weight=0)
    fit = Fit(generator, Goal(shares, image), zero_offsets(generator), pose, settings)
    with torch.no_grad():
        whole = fit.render().semantics
        for number, (row, column) in enumerate(OFFSETS):
            view = fit._view(number)
            assert torch.equal(view.goal.image, image[..., row::2, column::2])
            seen = fit._render(fit.offsets, view).semantics
            torch.testing.assert_close(seen, whole[..., row::2, column::2], atol=1e-5, rtol=1e-4)
    assert len({view.goal.image.sum().item() for view in fit._views.values()}) == 4
    fit.run(Stage(name="all", iterations=8, appearance=True, image=True, pose=True))
    assert fit.history[-1].loss < fit.history[0].loss


def test_the_rate_falls_over_a_stage(generator, monkeypatch):
    rates = []
    step = Adam.step
    monkeypatch.setattr(
        Adam, "step", lambda self, grads, rate: rates.append(rate) or step(self, grads, rate)
    )
    target = seed_target(generator, 5, 8)
    settings = near_settings(
        perceptual_weight=0, resolution=8, appearance_iterations=4, learning_rate=0.1,
        final_rate=0.0625,
    )  # fmt: skip
    invert(generator, target.image, target.labels, pose=(0.0, 0.0), settings=settings)
    assert rates == pytest.approx([0.1, 0.05, 0.025, 0.0125])


def test_without_an_encoder_all_is_as_before(generator):
    target = seed_target(generator, 5, 8)
    settings = InvertSettings(
        geometry_iterations=3, appearance_iterations=3, perceptual_weight=0, resolution=8
    )
    found = invert(generator, target.image, target.labels, pose=(0.1, 0.0), settings=settings)
    assert [record.stage for record in found.history] == ["geometry"] * 2 + ["appearance"] * 2


def test_a_pose_that_suits_the_map_better_is_taken(generator, encoder):
    encoder.pose.bias.fill_(0.9)
    target = seed_target(generator, 5, 32)
    image, shares = pictures(target, 32)
    read = encoder.read(image, shares)
    codes = mean_codes(generator) + read.offsets
    true = torch.tensor([[0.1, 0.0]])
    shown = render(generator, codes, true, 32)
    moved = Goal(shown.semantics, image)
    assert torch.equal(
        read_face(generator, encoder, moved, None)[1], encoder.read(image, shown.semantics).pose
    )
    # its own answer is a profile; the true pose shows the map
    assert torch.equal(read_face(generator, encoder, moved, true)[1], true)


def test_following_a_map(generator, editor, encoder):
    project = face(editor, 3)
    labels = project.labels.copy()
    labels[: SIZE // 3] = CLASS_NAMES.index("hat")
    followed = follow_map(encoder, project, labels)
    assert np.array_equal(followed.labels, labels)
    assert torch.equal(followed.appearance.phases, project.appearance.phases)
    assert torch.equal(followed.pose, project.pose)
    before, after = (footprint_shares(map_, READ) for map_ in (project.labels, labels))
    way = map_change(encoder, before, after)
    assert way.phases.abs().max() > 0
    gone = followed.geometry.phases - project.geometry.phases
    torch.testing.assert_close(gone, way.phases[0], atol=1e-6, rtol=1e-4)
    half = follow_map(encoder, project, labels, gain=0.5)
    torch.testing.assert_close(
        half.geometry.phases - project.geometry.phases, way.phases[0] / 2, atol=1e-6, rtol=1e-4
    )
    same = follow_map(encoder, project, project.labels)
    assert torch.equal(same.geometry.phases, project.geometry.phases)


def test_the_best_step_along_an_answer(generator, editor):
    """The way to another face's geometry leads to it; one that helps nothing is not taken."""
    here, there = face(editor, 3), face(editor, 8)
    way = there.offsets.geometry - here.offsets.geometry
    pose = here.pose[None]
    with torch.no_grad():
        goal = render(generator, there.codes(generator), pose, 16).semantics
        own = render(generator, here.codes(generator), pose, 16).semantics
    found = best_along(generator, here.offsets, way, pose, goal)
    torch.testing.assert_close(found.geometry.phases, there.offsets.geometry.phases)
    stayed = best_along(generator, here.offsets, way, pose, own)
    assert torch.equal(stayed.geometry.phases, here.offsets.geometry.phases)


def test_an_edit_needs_no_samples_to_start_from(generator, editor, encoder, monkeypatch):
    project = face(editor, 3)
    labels = project.labels.copy()
    labels[: SIZE // 3] = CLASS_NAMES.index("hat")

    def fail(*_, **__):
        raise AssertionError("samples were drawn")

    monkeypatch.setattr("semfaceedit.editing.refit.other_starts", fail)
    settings = near_edit_settings(iterations=5, perceptual_weight=0, resolution=SIZE)
    edited = edit(generator, project, labels, settings=settings, encoder=encoder)
    semantic = [record.terms["semantic"] for record in edited.history]
    assert semantic[-1] < semantic[0]
    with pytest.raises(AssertionError, match="samples were drawn"):
        edit(generator, project, labels, settings=settings)


def test_looks_of_what_is_painted_stay(generator, editor, encoder):
    """Those of other groups move, to keep the picture outside as it was."""
    project = face(editor, 3)
    labels = project.labels.copy()
    labels[: SIZE // 3] = CLASS_NAMES.index("hat")
    settings = near_edit_settings(iterations=3, perceptual_weight=0, resolution=SIZE, patience=0)
    best = dataclasses.replace(settings, image_weight=0.0, semantic_weight=100.0)
    made = edit(generator, project, labels, settings=best, encoder=encoder).project
    plain = dataclasses.replace(best, appearance=False)
    kept = edit(generator, project, labels, settings=plain, encoder=encoder).project
    assert torch.equal(kept.appearance.phases, project.appearance.phases)
    hair = project.group_of_class[CLASS_NAMES.index("hat")]
    assert torch.equal(made.appearance.phases[hair], project.appearance.phases[hair])


def test_still_groups_do_not_move(generator):
    target = seed_target(generator, 5, 8)
    image, shares = pictures(target, 8)
    settings = near_settings(perceptual_weight=0, patience=0)
    pose = torch.tensor([[0.1, 0.0]])
    fit = Fit(generator, Goal(shares, image), zero_offsets(generator), pose, settings)
    still = frozenset({1})
    fit.run(Stage(name="all", iterations=8, appearance=True, still=still, image=True))
    phases = fit.offsets.appearance.phases[0]
    assert not phases[1].any()
    assert phases[[0, 2, 3]].any()


# The encoder that comes with the package.


@pytest.fixture(scope="module")
def shipped():
    return load()


def test_the_shipped_encoder_reads_heads(shipped):
    """Procedural heads that no training saw: nearer than the mean face at their true pose."""
    size, read_scores, mean_scores = 32, [], []
    mean = mean_codes(shipped.generator)
    for face_ in heads_not_seen(shipped.generator, size, 4):
        read = shipped.encoder.read(face_.goal.image, face_.goal.semantics)
        assert (read.pose - face_.pose).abs().max() < 0.25
        wanted = face_.goal.semantics.argmax(1)
        for codes, pose, scores in (
            (mean + read.offsets, read.pose, read_scores),
            (mean, face_.pose, mean_scores),
        ):
            labels = render(shipped.generator, codes, pose, size).labels
            groups = shipped.generator.config.group_of_class
            scores.append(segmentation_score(labels, wanted, groups).groups)
    assert np.mean(read_scores) > np.mean(mean_scores) + 0.08
    assert np.mean(read_scores) > 0.75


def test_a_painted_hat_is_followed_without_a_fit(shipped):
    followed = []
    for seed in (100, 101, 102):
        project = shipped.generate(seed, resolution=64).project
        labels = paint(project.labels, ("hat",))
        asked = footprint_shares(labels, 32).argmax(1) == CLASS_NAMES.index("hat")
        after = render_project(shipped.generator, follow_map(shipped.encoder, project, labels), 32)
        before = render_project(shipped.generator, project, 32)
        shown = [(o.labels == CLASS_NAMES.index("hat"))[asked].float() for o in (before, after)]
        assert float(shown[0].mean()) < 0.3
        followed.append(float(shown[1].mean()))
    assert np.mean(followed) > 0.6
