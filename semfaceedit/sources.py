"""Where training data comes from: a folder that was named, or procedural faces made on the spot."""

import os
from pathlib import Path

from .cli import progress
from .data import FaceDataset, open_dataset, open_packed
from .packing import Item, is_packed, pack

PROCEDURAL_VERSION = 1  # changes when the same seed gives other faces
RENDER_BATCH = 8


def cache_root() -> Path:
    base = os.environ.get("SEMFACEEDIT_CACHE")
    return Path(base) if base else Path.home() / ".cache" / "semfaceedit"


def open_training_data(
    folder: Path | None, *, resolution: int, procedural_count: int
) -> FaceDataset:
    """Open `folder` in any layout, packed at twice the training resolution so that class borders
    are soft there; without a folder, make (once) and open procedural faces."""
    if folder is not None:
        return open_dataset(folder, resolution=2 * resolution)
    name = f"procedural-{PROCEDURAL_VERSION}-{procedural_count}-{2 * resolution}"
    packed = cache_root() / name
    if not is_packed(packed):
        make_procedural(packed, count=procedural_count, resolution=2 * resolution)
    return open_packed(packed, resolution=resolution)


def make_procedural(out: Path, *, count: int, resolution: int, first_seed: int = 0) -> None:
    """Render procedural faces of seeds first_seed ... into a packed folder."""
    from .camera import CameraConfig
    from .procedural import render_faces

    def items():
        starts = range(0, count, RENDER_BATCH)
        for start in progress(starts, total=len(starts), title="procedural faces"):
            seeds = range(first_seed + start, first_seed + min(start + RENDER_BATCH, count))
            faces = render_faces(seeds, resolution)
            images = ((faces.images + 1) * 127.5).round().byte().movedim(1, -1).numpy()
            for index, seed in enumerate(seeds):
                item: Item = (
                    f"{seed:06d}",
                    images[index],
                    faces.labels[index].numpy(),
                    faces.poses[index].numpy(),
                )
                yield item

    info = {"layout": "procedural", "camera": vars(CameraConfig()), "first_seed": first_seed}
    pack(items(), count, resolution, out, info)
