"""Parts of a face that an edit moves or stretches, in the photograph's own pixels.

A rendering of a wider mouth is coarse, but the photograph shows a mouth: a smooth field of
displacements is found under which the parts of the photograph's label map become those of the
edited one, and the photograph is drawn along it. What no such field explains (teeth where lips were
closed) is left to the rendering.
"""

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from ..model.labels import CLASS_NAMES
from .descent import Adam
from .guided import blur

SIZE = 128  # pixels along the crop, at which displacements are found
PARTS = ("nose", "l_eye", "r_eye", "l_brow", "r_brow", "mouth", "u_lip", "l_lip")
LEVELS = ((8, 4.0, 40), (16, 2.0, 40), (32, 1.0, 40))  # nodes along an edge, sigma of maps, steps
RATE = 0.02  # of Adam, in half sides of the crop
STIFF = 0.02  # weight of the field's gradients
REACH = 0.06  # around parts that changed, where displacements fade to nothing, in sides
MOST = 2.0  # times its area, that the photograph is enlarged
LEAST = 12  # pixels of SIZE x SIZE, that a part needs to be moved


def _parts(labels: Tensor) -> Tensor:
    """(1, 1, w, w) class ids -> (1, 8, SIZE, SIZE) shares of the parts."""
    ids = torch.tensor([CLASS_NAMES.index(name) for name in PARTS])
    shares = (labels == ids[None, :, None, None]).float()
    return interpolate(shares, (SIZE, SIZE), mode="area")


@torch.enable_grad()
def displacements(own: Tensor, after: Tensor) -> Tensor | None:
    """(1, 2, SIZE, SIZE): from each place of the edited face, where the photograph shows it.

    x and y in half sides of the crop; nothing far from parts that changed. None where
    no part moved. own and after: classes of the photograph and of the edited face, (1, 1, w, w).
    """
    before, wanted = _parts(own), _parts(after)
    counts = torch.stack([m.sum((2, 3))[0] for m in (before, wanted)])
    shown = ((counts > LEAST).all(0))[None, :, None, None]
    before, wanted = before * shown, wanted * shown
    changed = ((before - wanted).abs() > 0.5).sum((2, 3), keepdim=True) >= LEAST
    if not bool(changed.any()):
        return None
    parts = (torch.maximum(before, wanted) * changed).amax(1, keepdim=True) > 0.5
    near = (blur(parts.float(), REACH * SIZE / 2.5) > 0.02).float()
    near = blur(near, REACH * SIZE / 4)
    field = torch.zeros(1, 2, LEVELS[0][0], LEVELS[0][0])
    for nodes, sigma, steps in LEVELS:
        field = interpolate(field, (nodes, nodes), mode="bicubic", align_corners=True)
        field.requires_grad_(True)
        maps = [blur(m, sigma) for m in (before, wanted)]
        optimizer = Adam([field])
        for step in range(steps):
            u = _full(field) * near
            error = (drawn_along(maps[0], u) - maps[1]).square().sum(1).mean()
            loss = error + STIFF * _roughness(u)
            (gradient,) = torch.autograd.grad(loss, [field])
            optimizer.step([gradient], RATE * (1 - step / steps))
        field = field.detach()
    return (_full(field) * near).detach()


def enlarged(field: Tensor, size: int) -> Tensor:
    """(1, 1, size, size) bool: where the photograph is drawn at more than `MOST` times its area, or
    folded, and so shows no detail of its own."""
    u = field * (field.shape[-1] / 2)  # pixels
    (xx, xy), (yx, yy) = (torch.gradient(u[0, axis], dim=(1, 0)) for axis in (0, 1))
    area = (1 + xx) * (1 + yy) - xy * yx
    return interpolate((area < 1 / MOST).float()[None, None], (size, size)) > 0


def _full(field: Tensor) -> Tensor:
    return interpolate(field, (SIZE, SIZE), mode="bicubic", align_corners=True)


def _roughness(u: Tensor) -> Tensor:
    """Mean square of the derivatives of displacements, in pixels a pixel."""
    dx, dy = u[..., 1:] - u[..., :-1], u[..., 1:, :] - u[..., :-1, :]
    return (dx.square().mean() + dy.square().mean()) * (SIZE / 2) ** 2


def drawn_along(maps: Tensor, field: Tensor, mode: str = "bilinear") -> Tensor:
    """Maps (1, C, w, w) of the crop, drawn along displacements (1, 2, s, s)."""
    size = maps.shape[-1]
    u = interpolate(field, (size, size), mode="bilinear", align_corners=False)
    line = (torch.arange(size) + 0.5) * (2 / size) - 1
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)[None] + u.movedim(1, -1)
    return grid_sample(maps, grid, mode=mode, padding_mode="border", align_corners=False)
