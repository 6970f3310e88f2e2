"""The camera's convention by hand-computed cases, and the converters into it."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from semfaceedit.errors import UserError
from semfaceedit.model.camera import (
    CELEBAMASKHQ_PITCH,
    CameraConfig,
    camera_to_world,
    pose_from_celebamaskhq,
    pose_from_deep3dfacerecon,
    pose_from_eg3d,
    project,
    sample_poses,
)
from semfaceedit.model.rays import camera_rays

CAMERA = CameraConfig()


def poses(*rows: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def opencv_matrix(pose: torch.Tensor, radius: float = 2.7) -> torch.Tensor:
    """EG3D's matrix for a pose, from its definition: x right, y down, z forward."""
    matrix = camera_to_world(pose).clone()
    matrix[..., :3, 1:3] *= -1
    matrix[..., :3, 3] *= radius
    return matrix


def test_frontal_camera_is_on_the_z_axis():
    expected = torch.eye(4, dtype=torch.float64)
    expected[2, 3] = 1
    torch.testing.assert_close(camera_to_world(poses((0, 0)))[0], expected)


@pytest.mark.parametrize(
    ("pose", "position"),
    [
        ((math.pi / 2, 0), (-1, 0, 0)),
        ((0, math.pi / 6), (0, -0.5, math.sqrt(3) / 2)),
        ((-math.pi / 2, math.pi / 6), (math.sqrt(3) / 2, -0.5, 0)),
    ],
)
def test_positions(pose, position):
    matrix = camera_to_world(poses(pose))[0]
    torch.testing.assert_close(matrix[:3, 3], torch.tensor(position, dtype=torch.float64))
    rotation = matrix[:3, :3]
    torch.testing.assert_close(rotation.T @ rotation, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(rotation) == pytest.approx(1)


def test_nose_moves_right_for_yaw_and_up_for_pitch():
    nose = torch.tensor([[[0.0, 0.0, 0.05]]], dtype=torch.float64)
    x, y = project(nose, poses((0.3, 0.0)), CAMERA)[0, 0]
    assert x > 0.05 and abs(y) < 1e-12
    x, y = project(nose, poses((0.0, 0.3)), CAMERA)[0, 0]
    assert y < -0.05 and abs(x) < 1e-12


def test_rays_pass_through_pixel_centres():
    rays = camera_rays(poses((0, 0)), 2, CAMERA)
    half = 0.5 * math.tan(math.radians(6))
    corners = [(-half, half, -1), (half, half, -1), (-half, -half, -1), (half, -half, -1)]
    expected = torch.nn.functional.normalize(torch.tensor(corners, dtype=torch.float64), dim=-1)
    torch.testing.assert_close(rays.directions[0], expected)
    torch.testing.assert_close(rays.origins[0], poses((0, 0)).new_tensor([[0, 0, 1]]).expand(4, 3))


def test_points_on_rays_project_to_their_pixels():
    pose = poses((0.4, -0.2), (-0.1, 0.3))
    rays = camera_rays(pose, 5, CAMERA)
    projected = project(rays.origins + 0.97 * rays.directions, pose, CAMERA)
    centres = (2 * torch.arange(5, dtype=torch.float64) + 1) / 5 - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    torch.testing.assert_close(
        projected, torch.stack([x, y], -1).reshape(1, 25, 2).expand(2, 25, 2)
    )


def test_chunks_join_to_the_whole():
    rays = camera_rays(poses((0.1, 0.1)), 3, CAMERA)
    parts = list(rays.chunk(4))
    assert [part.origins.shape[1] for part in parts] == [4, 4, 1]
    torch.testing.assert_close(torch.cat([p.directions for p in parts], 1), rays.directions)


def test_pose_prior_has_the_configured_spread():
    generator = torch.Generator().manual_seed(0)
    drawn = sample_poses(20_000, CAMERA, generator=generator)
    torch.testing.assert_close(drawn.std(0), torch.tensor([0.3, 0.155]), atol=0, rtol=0.02)
    torch.testing.assert_close(drawn.mean(0), torch.zeros(2), atol=0.008, rtol=0)


def test_eg3d_round_trip():
    pose = poses((0.4, -0.2), (-0.7, 0.3), (0, 0))
    torch.testing.assert_close(pose_from_eg3d(opencv_matrix(pose)), pose)


def test_celebamaskhq_signs_and_level():
    yaw, pitch = torch.tensor([20.0, 0.0]), torch.tensor([0.0, -CELEBAMASKHQ_PITCH])
    converted = torch.rad2deg(pose_from_celebamaskhq(yaw, pitch))
    torch.testing.assert_close(converted, torch.tensor([[-20.0, CELEBAMASKHQ_PITCH], [0.0, 0.0]]))


def test_deep3dfacerecon_offset():
    angles = torch.tensor([[0.1, 0.0, 0.3], [0.0, 0.2, 0.0]])
    torch.testing.assert_close(
        pose_from_deep3dfacerecon(angles), torch.tensor([[0.0, 0.0], [0.2, 0.1]])
    )


@pytest.fixture
def with_camera(real_faces: Path) -> Path:
    return real_faces / "with_camera"


def test_eg3d_labels_agree_with_the_photographs(with_camera):
    """Where the noses point in these photographs, judged by eye."""

    def pose(values) -> tuple[float, float]:
        matrix = torch.tensor(np.asarray(values, np.float64)[:16].reshape(1, 4, 4))
        return tuple(pose_from_eg3d(matrix)[0].tolist())

    files = {path.stem: pose(np.load(path)) for path in with_camera.glob("eg3d_projector/*.npy")}
    table = dict(json.loads((with_camera / "panohead/dataset.json").read_text())["labels"])
    assert files["R"][0] > 0.2  # nose to the image's right
    assert abs(files["00064"][0]) < 0.05 and abs(files["00612"][0]) < 0.05  # frontal
    assert files["00612"][1] > files["00064"][1] + 0.1  # chin lifted
    assert pose(table["000134.jpg"])[0] < -0.15  # nose to the image's left
    assert pose(table["000157.jpg"])[0] > 0.15


def test_shifted_rays_pass_where_a_finer_grid_has_its_centres():
    pose = torch.tensor([[0.3, -0.1], [0.0, 0.2]], dtype=torch.float64)
    fine = camera_rays(pose, 16, CameraConfig()).directions.view(2, 16, 16, 3)
    shift = torch.tensor([[-0.25, -0.25], [0.25, -0.25]], dtype=torch.float64)  # right, down
    moved = camera_rays(pose, 8, CameraConfig(), shift=shift).directions.view(2, 8, 8, 3)
    torch.testing.assert_close(moved[0], fine[0, ::2, ::2], rtol=0, atol=1e-14)
    torch.testing.assert_close(moved[1], fine[1, ::2, 1::2], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    "wrong",
    [{"yaw_std": 9.0}, {"pitch_std": -0.1}, {"fov_degrees": 0.0}, {"near": 2.0}, {"far": math.inf},
     {"yaw_std": math.nan}],
)  # fmt: skip
def test_a_camera_that_cannot_be_is_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        CameraConfig(**wrong)
