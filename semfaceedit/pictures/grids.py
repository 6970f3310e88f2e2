"""Picture grids: image, semantic map in CelebAMask-HQ colours, and depth, side by side."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..model.camera import CameraConfig
from ..model.generator import Generator, seed_codes
from ..model.labels import colorize
from ..model.rays import pixel_directions
from ..model.renderer import RenderOutput, render
from ..outputs import save_picture

GRID_YAWS = (-0.45, 0.0, 0.45)  # radians, about 1.5 standard deviations of the prior
GRID_KINDS = ("image", "semantics", "depth")
DEPTH_SPAN = (0.90, 1.12)  # world units, white to black


def picture_rows(output: RenderOutput, camera: CameraConfig | None = None) -> dict[str, Tensor]:
    """Each kind of picture as (B, H, W, 3) uint8: image, semantics, depth (white is near) and
    normals (x, y, z as red, green, blue)."""
    image = ((output.image.clamp(-1, 1) + 1) * 127.5).round().byte().movedim(1, -1).cpu()
    near, far = DEPTH_SPAN
    shade = ((far - output.depth[:, 0]) / (far - near)).clamp(0, 1) * 255
    depth = shade.round().byte()[..., None].expand(-1, -1, -1, 3).cpu()
    normal = ((normals(output, camera or CameraConfig()) + 1) * 127.5).round().byte().cpu()
    return {
        "image": image,
        "semantics": colorize(output.labels),
        "depth": depth,
        "normals": normal,
    }


def normals(output: RenderOutput, camera: CameraConfig) -> Tensor:
    """Surface normals in camera axes (B, H, W, 3), x right, y up, z towards the camera.

    Cross products of central differences of the points that the depth map stands for.
    """
    depth = output.depth[:, 0]
    local = pixel_directions(depth.shape[-1], camera).to(depth)
    points = (local * depth[..., None]).movedim(-1, 1)
    padded = torch.nn.functional.pad(points, (1, 1, 1, 1), mode="replicate")
    across = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    down = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    normal = torch.linalg.cross(down, across, dim=1).movedim(1, -1)
    return torch.nn.functional.normalize(normal, dim=-1)


def tile(pictures: Tensor, columns: int) -> Tensor:
    """(M, H, W, 3) -> one picture of M / columns rows."""
    rows = pictures.unflatten(0, (-1, columns))
    return rows.permute(0, 2, 1, 3, 4).flatten(2, 3).flatten(0, 1)


def save_png(path: Path, picture: Tensor, *, scale: int = 1) -> None:
    """Write (H, W, 3) uint8, enlarged by a whole factor so that small pictures can be looked at."""
    image = Image.fromarray(picture.numpy())
    if scale > 1:
        image = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    save_picture(path, image)


@torch.no_grad()
def sample_grid(
    generator: Generator,
    *,
    seeds: list[int],
    resolution: int,
    yaws: tuple[float, ...] = GRID_YAWS,
    truncation: float = 1.0,
    chunk_rays: int | None = None,
) -> Tensor:
    """A row for each seed: images, then semantic maps, then depth, each from every yaw."""
    rows: list[Tensor] = []
    mean = generator.mean_codes() if truncation < 1 else None
    for seed in seeds:
        codes = seed_codes(generator, seed, truncation=truncation, mean=mean)
        outputs = [
            picture_rows(
                render(generator, codes, _pose(yaw, generator), resolution, chunk_rays=chunk_rays)
            )
            for yaw in yaws
        ]
        rows.extend(output[kind] for kind in GRID_KINDS for output in outputs)
    return tile(torch.cat(rows), columns=len(GRID_KINDS) * len(yaws))


def _pose(yaw: float, generator: Generator) -> Tensor:
    return torch.tensor([[yaw, 0.0]], device=generator.device)
