"""Where training data comes from: a folder that was named, or procedural faces made on the spot."""

import sys
from dataclasses import asdict
from pathlib import Path

from ..cli import progress
from ..data.dataset import FaceDataset, open_dataset, open_packed
from ..data.packing import Item, is_packed, pack_dataset
from ..data.parallel import mapped
from ..files import cache_root
from ..model.camera import CameraConfig
from .render import render_faces

PROCEDURAL_VERSION = 2  # changes when the same seed gives other faces


def open_training_data(
    folder: Path | None, *, resolution: int, procedural_count: int
) -> FaceDataset:
    """Open `folder` in any layout, packed at twice the training resolution so that class borders
    are soft there; without a folder, make (once) and open procedural faces.

    What was packed before is taken at any multiple of the training resolution.
    """
    if folder is not None and is_packed(folder):
        faces = open_packed(folder, resolution=resolution)
        if faces.resolution % (2 * resolution):
            print(
                f"{folder}: packed at {faces.resolution}x{faces.resolution}, so class borders are "
                f"hard at {resolution}x{resolution}: `prepare --resolution {2 * resolution}` makes "
                "them soft",
                file=sys.stderr,
            )
        return faces
    if folder is not None:
        return open_dataset(folder, resolution=2 * resolution)
    name = f"procedural-{PROCEDURAL_VERSION}-{procedural_count}-{2 * resolution}"
    packed = cache_root() / name
    if not is_packed(packed):
        size = 2 * resolution
        print(
            f"drawing {procedural_count:,} procedural faces at {size}x{size}, once, into {packed}: "
            "--data names others, --procedural-count fewer",
            file=sys.stderr,
            flush=True,
        )
        make_procedural(packed, count=procedural_count, resolution=2 * resolution)
    return open_packed(packed, resolution=resolution)


def make_procedural(out: Path, *, count: int, resolution: int, first_seed: int = 0) -> None:
    """Render procedural faces of seeds first_seed ... into a packed folder, on all cores."""
    tasks = [(seed, resolution) for seed in range(first_seed, first_seed + count)]
    with mapped(_procedural_item, tasks) as items:
        pack_dataset(
            progress(items, total=count, title="procedural faces"),
            count,
            resolution,
            out,
            {"layout": "procedural", "camera": asdict(CameraConfig()), "first_seed": first_seed},
        )


def _procedural_item(task: tuple[int, int]) -> Item:
    seed, resolution = task
    face = render_faces([seed], resolution)
    image = ((face.images[0] + 1) * 127.5).round().byte().movedim(0, -1)
    return f"{seed:06d}", image.numpy(), face.labels[0].numpy(), face.poses[0].numpy()
