"""Training samples of the photograph's network: pictures, maps and meshes change together."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from semfaceedit.data.decoding import save_label_map
from semfaceedit.data.layouts import find_source
from semfaceedit.model.labels import FLIP_IDS
from semfaceedit.parsing import photo_training as training
from semfaceedit.parsing.mesh_parts import ID, MeshParts
from semfaceedit.parsing.photo_augment import (
    CHANGES,
    UNKNOWN,
    Sample,
    with_background,
    with_fringe,
    with_glasses,
    with_hand,
)
from semfaceedit.parsing.photo_crops import portrait_crops
from semfaceedit.parsing.photo_network import MODELS, PhotoNetwork, load_photo_network
from semfaceedit.procedural.render import render_faces


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    return training.procedural_crops(3, tmp_path_factory.mktemp("crops"))


@pytest.fixture(scope="module")
def portraits(tmp_path_factory):
    """Two heads as portraits, with their maps as masks."""
    folder = tmp_path_factory.mktemp("portraits")
    made = render_faces([900_000, 900_003], 128)
    for name, image, labels in zip("ab", made.images, made.labels, strict=True):
        for part in ("images", "masks"):
            (folder / part).mkdir(exist_ok=True)
        picture = ((image.movedim(0, -1) + 1) * 127.5).round().byte().numpy()
        Image.fromarray(picture).save(folder / "images" / f"{name}.png")
        save_label_map(folder / "masks" / f"{name}.png", labels.numpy())
    return folder


@pytest.fixture
def sample(faces) -> Sample:
    return faces.sample(0)


@pytest.mark.parametrize("change", [change for _, change in CHANGES])
def test_a_change_leaves_features_and_shapes(sample, change):
    random = np.random.default_rng(3)
    made = change(sample, random)
    assert made.image.shape == sample.image.shape and 0 <= made.image.min()
    assert made.image.max() <= 255 and made.labels.dtype == np.uint8
    eyes = np.isin(sample.labels, [ID["l_eye"], ID["r_eye"]])
    assert np.array_equal(made.labels[eyes], sample.labels[eyes])
    changed = np.abs(made.image - sample.image).max(-1) > 1
    relabelled = made.labels != sample.labels
    assert (relabelled & ~changed).sum() <= 0.1 * max(1, relabelled.sum())


def test_bare_necklines_and_long_hair_are_labelled_so(faces):
    found = set()
    for seed in range(8):
        random = np.random.default_rng(seed)
        for index in range(3):
            before = faces.sample(index)
            for _, change in CHANGES:
                after = change(before, random).labels
                places = after != before.labels
                found |= set(
                    zip(before.labels[places].tolist(), after[places].tolist(), strict=True)
                )
    assert (ID["cloth"], ID["neck"]) in found
    painted = ("neck", "hair", "neck_l", "ear_r", "hat", "cloth", "background")
    assert {pair[1] for pair in found} == {ID[name] for name in painted}


def test_hands_are_background_and_fringes_hide_brows(faces):
    gone, covered = set(), set()
    for seed in range(12):
        before, random = faces.sample(seed % 3), np.random.default_rng(seed)
        for change, found in ((with_hand, gone), (with_fringe, covered)):
            after = change(before, random)
            places = after.labels != before.labels
            found |= set(before.labels[places].tolist())
            assert set(after.labels[places].tolist()) <= {0, ID["hair"]}
            if change is with_hand and places.any():
                assert after.person[places].min() > 0.5
    assert {ID["skin"], ID["hair"]} & gone
    assert covered <= {ID["skin"], ID["l_brow"], ID["r_brow"]} and ID["l_brow"] in covered


def test_glasses_are_drawn_about_the_eyes(faces):
    for seed in range(6):
        before = faces.sample(seed % 3)
        after = with_glasses(before, np.random.default_rng(seed))
        worn = (after.labels == ID["eye_g"]) & (before.labels != ID["eye_g"])
        assert 0.002 < worn.mean() < 0.15
        rows, columns = np.nonzero(worn)
        right, left = MeshParts(before.points).eyes
        assert abs(columns.mean() - (right + left)[0] / 2) < 8
        assert abs(rows.mean() - (right + left)[1] / 2) < 12


def test_only_the_background_is_replaced(sample):
    other = np.zeros((50, 50, 3), np.uint8)
    made = with_background(sample, other, np.random.default_rng(0))
    inner = sample.labels != 0
    inner[1:-1, 1:-1] &= inner[2:, 1:-1] & inner[:-2, 1:-1] & inner[1:-1, 2:] & inner[1:-1, :-2]
    assert np.abs(made.image - sample.image)[inner].mean() < 3
    assert np.abs(made.image - sample.image)[sample.labels == 0].mean() > 20


def test_a_flip_exchanges_sides(faces, monkeypatch):
    """Twice the same crop, once mirrored: inputs, guides and labels mirror each other."""
    sample = faces.sample(1)
    monkeypatch.setattr(training, "_recoloured", lambda images, _: images)
    straight = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    mirrored = torch.tensor([[-1.0, 0, 0], [0, 1, 0]])

    class Fixed:
        def random(self, size=None):
            return np.array([0.9, 0.1]) if size is not None else 0.99

    def warp(flags, _):
        assert flags.tolist() == [False, True]
        rows = torch.stack([straight, mirrored])
        return torch.nn.functional.affine_grid(rows, [2, 1, 128, 128], align_corners=False)

    monkeypatch.setattr(training, "_warp", warp)
    given, wanted = training.batch_of([sample, sample], Fixed())
    flipped = given[1].flip(-1)
    flipped[training.ACROSS] *= -1
    assert torch.allclose(flipped, given[0], atol=0.05)
    assert torch.equal(torch.from_numpy(FLIP_IDS)[wanted[1].flip(-1)], wanted[0])
    assert wanted.max() < 19


def test_what_lies_outside_a_crop_does_not_count(faces):
    given, wanted = training.batch_of([faces.sample(0)] * 8, np.random.default_rng(1))
    assert given.shape == (8, 12, 128, 128) and wanted.shape == (8, 128, 128)
    assert given.abs().max() <= 1 + 1e-6
    assert set(wanted.unique().tolist()) - set(range(19)) == {UNKNOWN}


def test_a_network_is_read_as_it_was_written(tmp_path):
    torch.manual_seed(0)
    network = PhotoNetwork().eval()
    path = tmp_path / "network.safetensors"
    training.save_photo_network(path, network)
    given = torch.randn(1, 12, 128, 128)
    found = load_photo_network(path)(given)
    assert torch.allclose(found, network(given), atol=0.02)
    assert path.stat().st_size < 4 * 2**20


def test_masks_that_were_read_are_taken_as_they_are(portraits, tmp_path):
    faces = find_source(portraits).faces
    crops = portrait_crops(faces, tmp_path, drafts=False)
    assert len(crops.images) == 2 and not crops.suspects.any()
    labelled = crops.labels != UNKNOWN
    assert 0.6 < labelled.mean() < 0.85  # the margin about the portrait is unknown
    again = portrait_crops(faces, tmp_path, drafts=False)
    assert np.array_equal(again.labels, crops.labels)
    drafted = portrait_crops(faces, tmp_path, drafts=True)
    assert (drafted.labels == UNKNOWN).sum() > (crops.labels == UNKNOWN).sum()


def test_the_margin_of_a_portrait_repeats_its_border(portraits, tmp_path):
    crops = portrait_crops(find_source(portraits).faces, tmp_path, drafts=False)
    sample = training._repeated(crops.sample(0), crops.labels[0])
    rows, columns = (np.nonzero((sample.labels != UNKNOWN).any(axis))[0] for axis in (1, 0))
    top, left = rows[0], columns[0]
    assert top > 0 and left > 0
    assert np.array_equal(sample.image[: top + 1], np.repeat(sample.image[top][None], top + 1, 0))
    assert np.array_equal(sample.image[80, :left], np.repeat(sample.image[80, left][None], left, 0))


def test_patches_are_one_square_of_inputs_and_labels():
    given = torch.arange(128.0 * 128).view(1, 1, 128, 128).expand(2, 12, -1, -1)
    small, labels = training.patches(given, given[:, 0].long(), np.random.default_rng(2))
    assert small.shape == (2, 12, 96, 96)
    assert torch.equal(small[:, 3].long(), labels)


class Stopped(Exception):
    pass


def test_a_stopped_training_goes_on_to_the_same_network(portraits, tmp_path, monkeypatch):
    """Stopped in its third step, after it has read the portraits itself."""
    monkeypatch.setattr(training, "BATCH", 2)
    monkeypatch.setattr(training, "KEEP_EVERY", 1)
    options = training.PhotoTrainingOptions(
        portraits=portraits, out=tmp_path / "one.safetensors", procedural=1, steps=4
    )
    training.train_photo_network(options)
    other = training.PhotoTrainingOptions(
        portraits=portraits, out=tmp_path / "two.safetensors", procedural=1, steps=4
    )
    (tmp_path / "one.training").rename(tmp_path / "two.training")
    (tmp_path / "two.training" / training.STATE).unlink()
    drawn, calls, stop = training.drawn_sample, [], 2 * 3 + 1

    def counted(*given):
        calls.append(1)
        if len(calls) == stop:
            raise Stopped
        return drawn(*given)

    monkeypatch.setattr(training, "drawn_sample", counted)
    with pytest.raises(Stopped):
        training.train_photo_network(other)
    stop, calls[:] = 0, []
    training.train_photo_network(other)
    assert len(calls) == 2  # the last step alone
    one, two = (load_file(tmp_path / f"{name}.safetensors") for name in ("one", "two"))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_training_starts_from_a_network(portraits, tmp_path, monkeypatch):
    """With a rate of nothing only the statistics of its normalisation move."""
    monkeypatch.setattr(training, "BATCH", 2)
    first, out = MODELS / "photo_parser.safetensors", tmp_path / "network.safetensors"
    options = training.PhotoTrainingOptions(
        portraits=portraits, out=out, init=first, procedural=1, steps=1, rate=0.0
    )
    training.train_photo_network(options)
    before, after = load_file(first), load_file(out)
    kept = [name for name in before if "running" not in name]
    assert kept and all(torch.allclose(before[name], after[name], atol=1e-3) for name in kept)
