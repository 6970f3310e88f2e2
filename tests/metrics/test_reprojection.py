"""Depth carried between views, on surfaces whose depth is known in closed form."""

import math

import pytest
import torch

from semfaceedit.metrics.reprojection import HIDDEN, carry, edges, normal_angle, sample
from semfaceedit.model.camera import CameraConfig
from semfaceedit.model.rays import camera_rays

CAMERA = CameraConfig()
SIZE = 48
FRONT = torch.zeros(1, 2)


def plane(pose: torch.Tensor, z: float = 0.02, slope: float = 0.2) -> torch.Tensor:
    """Distance along each ray to the plane z + slope x = `z`."""
    rays = camera_rays(pose.double(), SIZE, CAMERA)
    normal = torch.tensor([slope, 0.0, 1.0], dtype=torch.float64)
    t = (z - rays.origins @ normal) / (rays.directions @ normal)
    return t.view(-1, SIZE, SIZE)


def sphere(pose: torch.Tensor, radius: float = 0.3) -> torch.Tensor:
    """Distance to a sphere around the origin, which fills the picture."""
    rays = camera_rays(pose.double(), SIZE, CAMERA)
    along = -(rays.origins * rays.directions).sum(-1)
    closest = rays.origins + along[..., None] * rays.directions
    half = (radius**2 - closest.square().sum(-1)).sqrt()
    return (along - half).view(-1, SIZE, SIZE)


@pytest.mark.parametrize("surface", [plane, sphere])
@pytest.mark.parametrize("turn", [(0.2, 0.0), (-0.3, 0.0), (0.0, 0.15), (0.1, -0.1)])
def test_two_views_of_one_surface_agree(surface, turn):
    pose = torch.tensor([turn], dtype=torch.float64)
    carried = carry(surface(FRONT), FRONT.double(), surface(pose), pose, CAMERA)
    assert carried.valid.float().mean() > 0.3
    # what is left is linear interpolation: curvature of depth times a pixel squared
    pixel = 2 * CAMERA.half_extent / SIZE
    assert carried.behind[carried.valid].abs().max() < 4 * pixel**2
    assert not carried.hidden.any()


def test_a_view_that_is_nearer_by_a_known_amount():
    """Moved along its rays by 0.01, the second view is that much too near, everywhere."""
    pose = torch.tensor([[0.2, 0.0]], dtype=torch.float64)
    carried = carry(plane(FRONT), FRONT.double(), plane(pose) - 0.01, pose, CAMERA)
    found = carried.behind[carried.valid]
    torch.testing.assert_close(found, torch.full_like(found, 0.01), atol=1e-4, rtol=0)


def test_a_wrong_camera_is_noticed():
    pose = torch.tensor([[0.2, 0.0]], dtype=torch.float64)
    carried = carry(plane(FRONT), FRONT.double(), plane(pose), -pose, CAMERA)
    assert carried.behind[carried.valid].abs().mean() > 0.01


def test_far_behind_is_hidden():
    near = plane(FRONT) - 2 * HIDDEN
    carried = carry(plane(FRONT), FRONT.double(), near, FRONT.double(), CAMERA)
    assert torch.equal(carried.hidden, carried.valid) and not carried.seen.any()


def test_depth_edges_are_left_out():
    depth = torch.ones(1, 8, 8)
    depth[:, :, 4:] = 1.5
    assert edges(depth, 0.1)[0].any(0).tolist() == [False] * 3 + [True] * 2 + [False] * 3


def test_points_that_land_on_an_edge_are_left_out():
    flat, stepped = plane(FRONT, slope=0.0), plane(FRONT, slope=0.0)
    stepped[:, :, SIZE // 2 :] -= 0.9 * HIDDEN
    valid = carry(flat, FRONT.double(), stepped, FRONT.double(), CAMERA).valid[0, SIZE // 3]
    assert not valid[SIZE // 2 - 1 : SIZE // 2 + 1].any()
    assert valid[2 : SIZE // 2 - 2].all() and valid[SIZE // 2 + 2 : -2].all()


def test_sampling_at_pixel_centres_gives_the_pixels():
    picture = torch.arange(16.0).view(1, 1, 4, 4)
    centres = (2 * torch.arange(4) + 1) / 4 - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    torch.testing.assert_close(sample(picture, torch.stack([x, y], -1)[None]), picture)


def test_angles_between_normals():
    a = torch.tensor([[0.0, 0.0, 1.0]])
    b = torch.tensor([[0.0, math.sin(0.3), math.cos(0.3)]])
    assert float(normal_angle(a, b)) == pytest.approx(math.degrees(0.3), rel=1e-5)
