"""What the page's shader draws, in PyTorch: the reference that its pictures are tested against."""

import torch
from torch import Tensor, nn

from ..kernels import color_composite, semantic_composite
from ..model.rays import Rays, camera_rays
from ..model.renderer import RenderOutput
from .bake import BakedFace

MISSED = 3e4  # stands for the distance to a surface that is not met


def meet(face: BakedFace, rays: Rays) -> Tensor:
    """Distances (R, K) along the rays of one picture; MISSED where a layer is not met or hidden.

    As the renderer does: coarse samples between near and far, the first interval in which the ray
    goes from in front of a surface to behind it, and one linear interpolation in it.
    """
    surfaces, camera = face.surfaces, face.camera
    origins, directions = rays.origins[0], rays.directions[0]
    distances = torch.linspace(camera.near, camera.far, face.samples)
    points = origins[:, None] + distances[:, None] * directions[:, None]  # (R, S, 3)
    plane = (surfaces.plane_z - origins[:, 2]) / directions[:, 2].clamp(max=-1e-4)
    found = []
    for layer in range(face.layers - 1):
        above = points[..., 2] - surfaces.height_at(layer, points[..., :2])
        entered = (above[:, :-1] >= 0) & (above[:, 1:] < 0)
        start = entered.byte().argmax(1, keepdim=True)
        before, after = above.gather(1, start)[:, 0], above.gather(1, start + 1)[:, 0]
        share = before / (before - after).clamp(min=1e-9)
        distance = distances[start[:, 0]] + share * (distances[1] - distances[0])
        shown = entered.any(1) & (distance < plane)
        found.append(torch.where(shown, distance, MISSED))
    return torch.stack([*found, plane], 1)


@torch.no_grad()
def draw(
    face: BakedFace, pose: tuple[float, float], resolution: int, look: int = 0
) -> RenderOutput:
    """The picture of a baked face from a pose (yaw, pitch): what `render` gives, without weights.

    look: whose colours, an index of `face.looks`.
    """
    rays = camera_rays(torch.tensor([pose]), resolution, face.camera)
    origins, directions = rays.origins[0], rays.directions[0]
    distances = meet(face, rays)
    alphas, scores, colors = [], [], []
    for layer in range(face.layers):
        hit = distances[:, layer] < MISSED
        xy = (origins + distances[:, layer : layer + 1] * directions)[:, :2]
        where = 2 * face.surfaces.box_of(layer).to_unit(xy)[None, :, None] - 1
        alphas.append(_look_up(face.alpha[layer][..., None], where)[:, 0] * hit)
        scores.append(_look_up(face.scores[layer], where))
        groups = [_look_up(group[layer], where) for group in face.colors[look]]
        colors.append(torch.stack(groups, 1))
    alphas[-1] = torch.ones_like(alphas[-1])  # the plane lets nothing through
    alpha = torch.stack(alphas, 1)
    labels, semantics = semantic_composite(alpha, torch.stack(scores, 1))
    group = torch.tensor(face.group_of_class)[labels][..., None, None]
    color = torch.stack(colors, 1).gather(2, group.expand(-1, -1, 1, 3))[:, :, 0]
    rgb, depth, weights = color_composite(alpha, color, distances.clamp(max=face.camera.far))

    def picture(pixels: Tensor) -> Tensor:
        return pixels.reshape(1, resolution, resolution, -1).movedim(-1, 1)

    return RenderOutput(
        2 * picture(rgb) - 1, picture(semantics), picture(depth), weights.mean(0)[None]
    )


def _look_up(texture: "torch.Tensor | object", where: Tensor) -> Tensor:
    """Bilinear values (R, C) in [0, 1] of bytes (H, W, C) at (1, R, 1, 2) in [-1, 1]."""
    values = torch.as_tensor(texture).movedim(-1, 0)[None].float() / 255
    found = nn.functional.grid_sample(values, where, padding_mode="border", align_corners=False)
    return found[0, :, :, 0].T
