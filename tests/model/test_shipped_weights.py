"""The weights in the package: they load, draw whole faces, and know the pose of a face."""

from pathlib import Path

import pytest
import torch

from semfaceedit.model.checkpoint import (
    WEIGHTS,
    discriminators_beside,
    load_discriminators,
    load_generator,
)
from semfaceedit.model.discriminator import image_input
from semfaceedit.model.generator import seed_codes
from semfaceedit.model.labels import CLASS_NAMES, one_hot
from semfaceedit.model.renderer import render
from semfaceedit.procedural.render import render_faces

YAWS = (-0.4, 0.0, 0.4)
FEATURES = ("skin", "nose", "l_eye", "r_eye", "hair", "neck", "cloth")


@pytest.fixture(scope="module", params=["procedural", "portraits", "portraits-128"])
def views(request):
    generator, _ = load_generator(Path(request.param))
    with torch.no_grad():
        return generator, [
            [render(generator, seed_codes(generator, seed), torch.tensor([[yaw, 0.0]]), 64)
             for yaw in YAWS]
            for seed in range(4)
        ]  # fmt: skip


def test_every_face_has_every_group_at_every_pose(views):
    generator, faces = views
    for face in faces:
        for view in face:
            groups = torch.bincount(generator.group_table(view.labels).flatten(), minlength=4)
            least = torch.full((4,), 0.005)
            least[generator.config.group_names.index("garment")] = 0.002  # it may be a corner
            assert (groups > least * groups.sum()).all()


def test_faces_have_their_features_from_the_front(views):
    _, faces = views
    for face in faces:
        found = {CLASS_NAMES[index] for index in face[1].labels.unique()}
        assert found >= set(FEATURES)


def test_faces_turn(views):
    """The nose moves to the picture's right with the yaw."""
    _, faces = views
    nose = CLASS_NAMES.index("nose")
    for face in faces:
        columns = [(view.labels[0] == nose).nonzero()[:, 1].float().mean() for view in face]
        assert columns[0] < columns[1] - 1 < columns[2] - 2


def test_the_discriminator_knows_the_pose_of_unseen_faces():
    (d_image, _), run = load_discriminators(discriminators_beside(WEIGHTS / "procedural"))
    faces = render_faces(range(900_000, 900_008), run.model.resolution)
    pictures = image_input(d_image, faces.images, 2 * one_hot(faces.labels) - 1)
    error = torch.rad2deg(d_image(pictures)[1] - faces.poses).square().mean(0).sqrt()
    assert (error < 6).all()


def test_files_are_small():
    sizes = [path.stat().st_size for path in WEIGHTS.iterdir()]
    assert max(sizes) < 16e6 and sum(sizes) < 20e6
