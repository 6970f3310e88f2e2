"""What a trained model does, in numbers that need no other network.

Locality (a group's code changes that group's pixels), depth (nose nearer than ears), steadiness
under rotation, and how weight is spread over the manifolds.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from ..model.camera import sample_poses
from ..model.codes import Codes, swap_group
from ..model.generator import Generator, sample_latents
from ..model.labels import CLASS_NAMES
from ..model.renderer import RenderOutput, affordable_rays, render
from .pictures import rgb_change
from .segmentation import class_areas

FACES = 32
REPORT_SEED = 2_000_003
YAWS = (-0.4, 0.0, 0.4)  # radians
EARS, NOSE, HAIR, BACKGROUND = (8, 9), 2, 13, 0
BORDER = 2  # pixels around a region that its soft border may reach
MIN_PIXELS = 4  # a class smaller than this in a picture says nothing


@torch.no_grad()
def report(generator: Generator, resolution: int) -> dict[str, Any]:
    """All checks on the same faces of fixed seeds, at `resolution`."""
    config = generator.config
    device = generator.device
    random = torch.Generator().manual_seed(REPORT_SEED)
    z, appearance = sample_latents(config, FACES, generator=random)
    _, other = sample_latents(config, FACES, generator=random)
    codes = generator.map(z.to(device), appearance.to(device))
    others = generator.map(z.to(device), other.to(device))
    poses = sample_poses(FACES, config.camera, generator=random).to(device)
    rays = affordable_rays(generator, FACES)
    views = [
        render(generator, codes, torch.tensor([[yaw, 0.0]], device=device).expand(FACES, 2),
               resolution, chunk_rays=rays)
        for yaw in YAWS
    ]  # fmt: skip
    return {
        "resolution": resolution,
        "faces": FACES,
        "locality": locality(generator, codes, others, poses, resolution, chunk_rays=rays),
        "relief": [{"yaw": yaw, **relief(view)} for yaw, view in zip(YAWS, views, strict=True)],
        "tint_shift": tint_shift(views),
        "depth_spread": _mean(torch.cat([view.depth for view in views]).std((1, 2, 3))),
        "class_shares": _class_shares(views),
        "manifold_weights": torch.cat([view.weights for view in views]).mean(0).tolist(),
    }


def locality(
    generator: Generator,
    codes: Codes,
    others: Codes,
    poses: Tensor,
    resolution: int,
    *,
    chunk_rays: int | None = None,
) -> dict[str, dict[str, float]]:
    """For each group: mean |change of RGB| inside and outside its pixels when its code changes.

    RGB in [0, 1], averaged over channels; "inside" are pixels whose rendered class is of the group.
    "far" are those more than two pixels away from any of them, where no soft border reaches.
    """
    before = render(generator, codes, poses, resolution, chunk_rays=chunk_rays)
    groups = generator.group_table(before.labels)
    result = {}
    for group, name in enumerate(generator.config.group_names):
        changed = swap_group(codes, others, group)
        after = render(generator, changed, poses, resolution, chunk_rays=chunk_rays)
        change = rgb_change(before.image, after.image)
        inside = groups == group
        far = ~widened(inside)
        result[name] = {
            "inside": _mean(change[inside]),
            "outside": _mean(change[~inside]),
            "far": _mean(change[far]),
            "share": float(inside.float().mean()),
            "far_share": float(far.float().mean()),
        }
    return result


def widened(mask: Tensor, pixels: int = BORDER) -> Tensor:  # (B, H, W) bool
    """The mask and all pixels at most so many steps (diagonal ones too) away from it."""
    size = 2 * pixels + 1
    return max_pool2d(mask[:, None].float(), size, stride=1, padding=pixels)[:, 0] > 0


def relief(view: RenderOutput) -> dict[str, float]:
    """How much nearer to the camera the nose is than the ears, in world units, over the faces
    that show both; and the share of those faces in which it is nearer."""
    labels, depth = view.labels, view.depth[:, 0]
    nose = _class_mean(depth, labels == NOSE)
    ears = _class_mean(depth, (labels == EARS[0]) | (labels == EARS[1]))
    shown = nose.isfinite() & ears.isfinite()
    lead = (ears - nose)[shown]
    return {
        "faces": int(shown.sum()),
        "nose_before_ears": _mean(lead),
        "share_nearer": _mean((lead > 0).float()),
    }


def tint_shift(views: list[RenderOutput]) -> dict[str, float]:
    """Mean |change of mean RGB| (in [0, 1], averaged over channels) of background and hair
    between the outer views and the frontal one: steady appearance stays near 0."""
    means = {}
    for name, label in (("background", BACKGROUND), ("hair", HAIR)):
        colors = torch.stack(
            [
                torch.stack(
                    [_class_mean(view.image[:, c], view.labels == label) for c in range(3)], 1
                )
                for view in views
            ]
        )  # (V, B, 3)
        shift = (colors - colors[len(views) // 2]).abs().mean(-1) / 2
        outer = torch.cat([shift[0], shift[-1]])
        means[name] = _mean(outer[outer.isfinite()])
    return means


def _class_shares(views: list[RenderOutput]) -> dict[str, float]:
    counts = class_areas(torch.cat([view.labels for view in views])).mean(0)
    return {name: float(share) for name, share in zip(CLASS_NAMES, counts, strict=True)}


def _class_mean(values: Tensor, mask: Tensor) -> Tensor:  # (B, H, W) -> (B,), NaN where too small
    counts = mask.sum((1, 2))
    means = (values * mask).sum((1, 2)) / counts.clamp(min=1)
    return torch.where(counts >= MIN_PIXELS, means, torch.nan)


def _mean(values: Tensor) -> float:
    return float(values.detach().mean()) if len(values) else float("nan")
