"""Editing: the map that is asked for comes closer, and the rest of the picture is left alone."""

import dataclasses

import numpy as np
import pytest
import torch
from face_maps import draw_labels
from faces import SIZE, face, write_checkpoint
from PIL import Image

from semfaceedit import edit as command
from semfaceedit import options
from semfaceedit.data.align import Window
from semfaceedit.edit import compare_unmasked, edit
from semfaceedit.editing import map_edit
from semfaceedit.editing.fit import Fit
from semfaceedit.editing.fit_terms import Goal, loss_terms
from semfaceedit.editing.mask_edits import hat, open_mouth
from semfaceedit.editing.project import FaceProject
from semfaceedit.editing.refit import EditSettings, dilate, footprint
from semfaceedit.editing.target import SourceCrop, footprint_shares, read_edited_labels
from semfaceedit.errors import UserError
from semfaceedit.metrics.perceptual import PerceptualFeatures
from semfaceedit.metrics.pictures import ssim
from semfaceedit.model.labels import FLIP_IDS
from semfaceedit.model.renderer import RenderOutput

HAIR = 14  # the class by which the untrained weights show the group hair
SETTINGS = EditSettings(iterations=40, perceptual_weight=0, learning_rate=1e-2)


@pytest.fixture(scope="module")
def project(editor) -> FaceProject:
    return face(editor, 5)


def with_hair(project: FaceProject) -> np.ndarray:
    labels = project.labels.copy()
    labels[:6, :6] = HAIR
    return labels


@pytest.fixture(scope="module")
def edited(editor, project):
    return edit(editor.generator, project, with_hair(project), settings=SETTINGS)


def test_the_face_follows_its_map(editor, project, edited):
    wanted = torch.from_numpy(with_hair(project)) == HAIR
    before, after = (
        (output.labels[0] == HAIR)[wanted].float().mean()
        for output in (edited.before, edited.after)
    )
    assert before < 0.5 and after > before + 0.3
    assert edited.history[-1].terms["semantic"] < 0.8 * edited.history[0].terms["semantic"]
    assert np.array_equal(edited.project.labels, with_hair(project))
    assert edited.project.iterations == 40
    assert edited.project.metrics["change_inside"] == pytest.approx(edited.change["change_inside"])


def test_it_starts_from_the_project_and_moves_geometry_only(project, edited):
    assert edited.history[0].terms["image"] < 1e-10
    assert not torch.equal(edited.project.geometry.phases, project.geometry.phases)
    assert torch.equal(edited.project.appearance.phases, project.appearance.phases)
    assert torch.equal(edited.project.pose, project.pose)


def test_appearance_moves_when_asked(editor, project):
    settings = dataclasses.replace(SETTINGS, iterations=3, appearance=True)
    result = edit(editor.generator, project, with_hair(project), settings=settings)
    assert not torch.equal(result.project.appearance.phases, project.appearance.phases)


def test_the_mask_frees_the_region_and_keeps_the_rest(editor, project, edited):
    """Against the same edit with image terms everywhere: more change inside."""
    settings = dataclasses.replace(SETTINGS, masked=False)
    everywhere = edit(editor.generator, project, with_hair(project), settings=settings)
    assert torch.equal(everywhere.region, edited.region)
    assert edited.change["change_inside"] > everywhere.change["change_inside"]
    assert edited.change["change_outside"] < edited.change["change_inside"]
    without = dataclasses.replace(SETTINGS, image_weight=0.0)
    free = edit(editor.generator, project, with_hair(project), settings=without)
    assert edited.change["change_outside"] < free.change["change_outside"]


def test_the_report_beside_the_same_edit_without_the_mask(editor, project, edited):
    compared = compare_unmasked(editor.generator, project, edited, SETTINGS)
    settings = dataclasses.replace(SETTINGS, masked=False)
    direct = edit(editor.generator, project, with_hair(project), settings=settings)
    metrics = compared.project.metrics
    for name in ("change_inside", "change_outside", "ssim_outside", "labels_inside"):
        assert metrics[f"unmasked_{name}"] == direct.project.metrics[name]
        assert metrics[name] == edited.project.metrics[name]
    assert metrics["unmasked_change_outside"] != metrics["change_outside"]
    region, wanted = edited.region[0, 0], torch.from_numpy(with_hair(project))
    agree = (edited.after.labels[0] == wanted)[region].float().mean()
    assert metrics["labels_inside"] == pytest.approx(float(agree))
    images = edited.after.image, edited.before.image
    assert metrics["ssim_outside"] == pytest.approx(float(ssim(*images, ~edited.region)))
    assert 0 < metrics["ssim_outside"] < 1


@pytest.mark.parametrize("perceptual", [None, PerceptualFeatures()], ids=["image", "image+VGG"])
def test_image_terms_have_no_gradient_inside_the_region(perceptual):
    torch.manual_seed(0)
    image = (torch.rand(1, 3, 16, 16) * 2 - 1).requires_grad_()
    region = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    region[..., 3:9, 4:11] = True
    semantics = torch.rand(1, 19, 16, 16)
    goal = Goal(semantics, torch.rand(1, 3, 16, 16) * 2 - 1, ~region)
    output = RenderOutput(image, semantics, image[:, :1], torch.zeros(1, 5))
    terms = loss_terms(output, goal, perceptual, image=True)
    (gradient,) = torch.autograd.grad(sum(t for t in terms.values() if t.requires_grad), image)
    inside = region.expand_as(gradient)
    assert (gradient[inside] == 0).all() and (gradient[~inside] != 0).all()
    # a mean over the kept pixels only
    error = (image - goal.image).square()[~inside].mean()
    torch.testing.assert_close(terms["image"], error)


def test_the_semantic_term_is_over_the_whole_map():
    semantics = torch.rand(1, 19, 8, 8).requires_grad_()
    keep = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    keep[..., :4] = False
    goal = Goal(torch.rand(1, 19, 8, 8), torch.zeros(1, 3, 8, 8), keep)
    output = RenderOutput(goal.image, semantics, goal.image[:, :1], torch.zeros(1, 5))
    terms = loss_terms(output, goal, None, image=False)
    (gradient,) = torch.autograd.grad(terms["semantic"], semantics)
    assert (gradient != 0).all()


def test_regions_by_hand():
    mask = np.zeros((8, 8), bool)
    mask[3, 4] = True
    assert dilate(mask, 0).sum() == 1
    widened = dilate(mask, 0.1)  # 0.8 pixels, rounded up
    assert widened[2:5, 3:6].all() and widened.sum() == 9
    assert footprint(mask, torch.zeros(4, 4))[0, 0].nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize("size", [8, 12, 16, 20, 32])
def test_footprint_shares_at_any_pair_of_sizes(size):
    labels = np.zeros((16, 16), np.uint8)
    labels[:, 8:] = HAIR
    shares = footprint_shares(labels, size)
    assert shares.shape == (1, 19, size, size)
    torch.testing.assert_close(shares.sum(1), torch.ones(1, size, size))
    half = torch.zeros(size, size)
    half[:, size // 2 :] = 1
    assert torch.equal(shares[0, HAIR], half) and torch.equal(shares[0, 0], 1 - half)
    labels[::2] = 1
    assert (footprint_shares(labels, 8)[0, 1] == 0.5).all()


@pytest.mark.parametrize("size", [12, 32])
def test_a_map_of_another_size_than_the_fit(editor, project, size):
    goals = []
    settings = dataclasses.replace(SETTINGS, iterations=0, resolution=size)
    edit(
        editor.generator, project, with_hair(project), settings=settings,
        watch=lambda record, output, goal: goals.append(goal.semantics),
    )  # fmt: skip
    torch.testing.assert_close(goals[0].sum(1), torch.ones(1, size, size))
    corner = size * 6 // 16 - 1
    assert (goals[0][0, HAIR, :corner, :corner] == 1).all()


def test_the_region_is_what_changed_or_what_is_given(editor, project, edited):
    widened = torch.from_numpy(dilate(with_hair(project) != project.labels, SETTINGS.dilation))
    assert torch.equal(edited.region[0, 0], widened)
    given = np.zeros((SIZE, SIZE), bool)
    given[:9] = True
    settings = dataclasses.replace(SETTINGS, iterations=1)
    result = edit(editor.generator, project, with_hair(project), region=given, settings=settings)
    assert torch.equal(result.region[0, 0], torch.from_numpy(given))


@pytest.mark.parametrize(
    "change,said",
    [
        (lambda labels: labels, "does not differ"),
        (lambda labels: labels[:8], "square map"),
        (lambda labels: labels[:8, :8], "the project's map is 16x16"),
        (lambda labels: np.where(labels == labels[0, 0], 19, labels), "from 0 to 18"),
    ],
)
def test_bad_maps_are_said(editor, project, change, said):
    with pytest.raises(UserError, match=said):
        edit(editor.generator, project, change(project.labels), settings=SETTINGS)


def test_edited_copies_of_the_original_mask_are_cut_alike(tmp_path):
    """The original was 40 x 32 pixels, the face stood in a window of side 16."""
    original = np.zeros((32, 40), np.uint8)
    parts = np.array([0, 13, 1, 17], np.uint8)  # no left and right among them
    original[8:24, 10:26] = parts[np.arange(256).reshape(16, 16) % 4]
    Image.fromarray(original).save(tmp_path / "mask.png")
    crop = SourceCrop(Window(10.0, 8.0, 16.0), 40, 32)
    read = read_edited_labels(tmp_path / "mask.png", 16, crop)
    assert np.array_equal(read, original[8:24, 10:26])
    Image.fromarray(read).save(tmp_path / "own.png")
    assert np.array_equal(read_edited_labels(tmp_path / "own.png", 16, crop), read)
    Image.fromarray(original[:20]).save(tmp_path / "small.png")
    with pytest.raises(UserError, match="40x20 pixels.*16x16 .*the project's map.* or 40x32"):
        read_edited_labels(tmp_path / "small.png", 16, crop)


def test_exchanged_sides_are_set_straight_as_in_the_original(tmp_path):
    labels = np.zeros((20, 20), np.uint8)
    labels[5:8, 2:6], labels[5:8, 12:16] = 4, 5  # left eye on the image's left: exchanged
    Image.fromarray(labels).save(tmp_path / "mask.png")
    crop = SourceCrop(Window(0.0, 0.0, 20.0), 20, 20)
    read = read_edited_labels(tmp_path / "mask.png", 10, crop)
    whole = np.asarray(Image.fromarray(FLIP_IDS.astype(np.uint8)[labels]).resize((10, 10), 0))
    assert np.array_equal(read, whole)


@pytest.fixture
def files(tmp_path, editor, project):
    project.save(tmp_path / "face.safetensors")
    Image.fromarray(with_hair(project)).save(tmp_path / "edited.png")
    Image.fromarray(project.labels).save(tmp_path / "same.png")
    Image.fromarray(project.labels[:10]).save(tmp_path / "size.png")
    Image.fromarray(np.full((SIZE, SIZE), 77, np.uint8)).save(tmp_path / "ids.png")
    write_checkpoint(tmp_path)
    return tmp_path


def run(files, *, labels="edited.png", weights=None, out="out/new.safetensors", extra=()) -> int:
    weights = weights or write_checkpoint(files)
    given = ["--labels", str(files / labels)] if labels else []
    return command.main(
        ["--checkpoint", str(weights), "--project", str(files / "face.safetensors"), *given,
         "--out", str(files / out), "--no-vgg", "--iterations", "10", *extra]
    )  # fmt: skip


def test_the_command_edits(files, capsys):
    assert run(files, extra=["--compare-unmasked"]) == 0
    said = capsys.readouterr().err
    assert "mean change of RGB" in said and "inside the region" in said
    assert "of the labels inside match the edit; without the mask of Eq. 10: mean change" in said
    for name in ("preview.png", "views.png", "labels.png", "safetensors"):
        assert f"wrote {files / 'out' / 'new.'}{name}" in said
    project = FaceProject.load(files / "out" / "new.safetensors")
    assert project.iterations == 10 and (project.labels[:6, :6] == HAIR).all()
    # before and after: image and map, three yaws
    assert Image.open(files / "out" / "new.views.png").size == (3 * SIZE, 4 * SIZE)
    assert (files / "out" / "new.preview.png").exists()


@pytest.mark.parametrize("when", ["at once", "on the way"])
def test_an_interrupted_comparison_keeps_the_edit(files, capsys, monkeypatch, when):
    def stopped(*arguments, settings, **rest):
        if settings.masked:
            return edit(*arguments, settings=settings, **rest)
        if when == "at once":
            raise KeyboardInterrupt
        return dataclasses.replace(edit(*arguments, settings=settings), interrupted=True)

    monkeypatch.setattr(command, "edit", stopped)
    monkeypatch.setattr(map_edit, "edit", stopped)
    assert run(files, extra=["--compare-unmasked"]) == 130
    said = capsys.readouterr().err
    assert "without the mask" not in said and "new.safetensors (as far as it came" in said
    metrics = FaceProject.load(files / "out" / "new.safetensors").metrics
    assert "change_outside" in metrics and "unmasked_change_outside" not in metrics


def test_a_region_that_is_all_of_the_picture(files, capsys):
    assert run(files, extra=["--dilation", "0.99"]) == 0
    said = capsys.readouterr().err
    assert "inside the region, outside not measured: the region is the whole picture" in said
    assert "nan" not in said


def test_the_project_is_there_before_its_views(files, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(options, "view_sheet", fail)
    assert run(files) == 130
    assert FaceProject.load(files / "out" / "new.safetensors").iterations == 10


def test_edits_painted_by_code(tmp_path, editor, project, capsys):
    """On a drawn face, whose map shows all that the edits look for."""
    drawn = dataclasses.replace(project, labels=draw_labels(len(project.labels)))
    drawn.save(tmp_path / "face.safetensors")
    assert run(tmp_path, labels=None, extra=["--paint", "hat", "open mouth"]) == 0
    painted = FaceProject.load(tmp_path / "out" / "new.safetensors").labels
    assert np.array_equal(painted, open_mouth(hat(drawn.labels)))
    capsys.readouterr()
    for names, said in ((["smile"], "there is no edit 'smile': use one of longer hair, "),
                        (["longer hair"], "'longer hair' cannot be painted")):  # fmt: skip
        assert run(tmp_path, labels=None, extra=["--paint", *names]) == 1
        text = capsys.readouterr().err
        assert said in text and text.count("\n") == 1, text


@pytest.mark.parametrize(
    "arguments,said",
    [
        ({"labels": None}, "give --labels with an edited label map, --paint or --set"),
        ({"labels": "same.png"}, "does not differ"),
        ({"labels": "size.png"}, "size.png: 16x10 pixels"),
        ({"labels": "ids.png"}, "holds the label 77"),
        ({"labels": "none.png"}, "cannot be read"),
        ({"extra": ["--dilation", "-1"]}, "--dilation -1"),
        ({"extra": ["--iterations", "-3"]}, "--iterations -3: must be at least 0"),
        ({"extra": ["--learning-rate", "-1"]}, "--learning-rate -1: must be more than 0"),
        ({"extra": ["--download-vgg"]}, "--no-vgg"),
        ({"out": "."}, "name a file that ends in .safetensors"),
        ({"out": "a.1"}, "name a file that ends in .safetensors"),
        ({"out": "face.safetensors/a.safetensors"}, "face.safetensors is or lies in a file"),
        ({"out": "face.safetensors/b/a.safetensors"}, "face.safetensors/b is or lies in a file"),
    ],
)
def test_bad_input_is_one_line(files, capsys, monkeypatch, arguments, said):
    monkeypatch.setattr(Fit, "run", lambda *_: pytest.fail("a fit was begun"))
    assert run(files, **arguments) == 1
    text = capsys.readouterr().err
    assert said in text and text.count("\n") == 1, text


def test_a_project_of_another_checkpoint_is_refused(files, capsys):
    assert run(files, weights=write_checkpoint(files, seed=1)) == 1
    text = capsys.readouterr().err
    assert "made with another checkpoint" in text and text.count("\n") == 1
