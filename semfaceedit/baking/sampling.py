"""What the page's shader draws, in PyTorch: the reference that its pictures are tested against."""

import numpy as np
import torch
from torch import Tensor, nn

from ..kernels import color_composite, semantic_composite
from ..model.rays import Rays, camera_rays
from ..model.renderer import RenderOutput
from .bake import BakedFace

CHUNK_RAYS = 1 << 15
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
    distances = meet(face, rays)
    alpha, labels, semantics = composite(face, rays, distances)
    group = torch.tensor(face.group_of_class)[labels][..., None, None]
    colors = []
    for layer in range(face.layers):
        where = _places(face, rays, distances, layer)
        groups = [_look_up(texture[layer], where) for texture in face.colors[look]]
        colors.append(torch.stack(groups, 1))
    color = torch.stack(colors, 1).gather(2, group.expand(-1, -1, 1, 3))[:, :, 0]
    reached = torch.where(distances < MISSED, distances, face.camera.far)
    rgb, depth, weights = color_composite(alpha, color, reached)

    def picture(pixels: Tensor) -> Tensor:
        return pixels.reshape(1, resolution, resolution, -1).movedim(-1, 1)

    return RenderOutput(
        2 * picture(rgb) - 1, picture(semantics), picture(depth), weights.mean(0)[None]
    )


def composite(face: BakedFace, rays: Rays, distances: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Opacities (R, K), labels (R, K) and the semantic map (R, N) of rays that meet the layers at
    `distances` (R, K): Eq. 2."""
    alphas, scores = [], []
    for layer in range(face.layers):
        where = _places(face, rays, distances, layer)
        opacity = _look_up(face.alpha[layer][..., None], where)[:, 0]
        alphas.append(opacity * (distances[:, layer] < MISSED))
        scores.append(_look_up(face.scores[layer], where))
    alphas[-1] = torch.ones_like(alphas[-1])  # the plane lets nothing through
    alpha = torch.stack(alphas, 1)
    return alpha, *semantic_composite(alpha, torch.stack(scores, 1))


@torch.no_grad()
def frontal_labels(face: BakedFace) -> np.ndarray:
    """The label (K, H, W) uint8 of each texel that shows anything, on the ray from the front camera
    through it; 0 elsewhere."""
    width, height = face.size
    labels = np.zeros(face.alpha.shape, np.uint8)
    origin = torch.tensor([0.0, 0.0, 1.0])
    for layer in range(face.layers):
        shown = torch.from_numpy(face.alpha[layer] > 0)
        points = face.surfaces.points(layer, width, height)[shown]
        found = []
        for part in points.split(CHUNK_RAYS):
            distance = (part - origin).norm(dim=-1, keepdim=True)
            rays = Rays(origin.expand_as(part)[None], ((part - origin) / distance)[None])
            distances = meet(face, rays)
            distances[:, layer] = distance[:, 0]  # where nearer surfaces hide it, too
            found.append(composite(face, rays, distances)[1][:, layer])
        if found:
            labels[layer][shown.numpy()] = torch.cat(found).byte().numpy()
    return labels


def _places(face: BakedFace, rays: Rays, distances: Tensor, layer: int) -> Tensor:
    """Where rays meet a layer, (1, R, 1, 2) in [-1, 1] across its textures."""
    xy = (rays.origins[0] + distances[:, layer : layer + 1] * rays.directions[0])[:, :2]
    return 2 * face.surfaces.box_of(layer).to_unit(xy)[None, :, None] - 1


def _look_up(texture: np.ndarray, where: Tensor) -> Tensor:
    """Bilinear values (R, C) in [0, 1] of bytes (H, W, C) at (1, R, 1, 2) in [-1, 1]."""
    values = torch.as_tensor(texture).movedim(-1, 0)[None].float() / 255
    found = nn.functional.grid_sample(values, where, padding_mode="border", align_corners=False)
    return found[0, :, :, 0].T
