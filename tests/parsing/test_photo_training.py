"""Training samples of the photograph's network: pictures, maps and meshes change together."""

import numpy as np
import pytest
import torch

from semfaceedit.model.labels import FLIP_IDS
from semfaceedit.parsing import photo_training as training
from semfaceedit.parsing.mesh_parts import ID, MeshParts
from semfaceedit.parsing.photo_augment import (
    CHANGES,
    UNKNOWN,
    Sample,
    with_background,
    with_glasses,
)
from semfaceedit.parsing.photo_network import PhotoNetwork, load_photo_network


@pytest.fixture(scope="module")
def faces():
    return training.procedural_crops(3)


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
    assert {pair[1] for pair in found} <= {ID["neck"], ID["hair"], ID["neck_l"], ID["ear_r"]}


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
