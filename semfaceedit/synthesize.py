"""Command `synthesize`: procedural faces on disk, in CelebAMask-HQ's own layout.

CelebA-HQ-img/{i}.jpg                                the pictures
CelebAMask-HQ-mask-anno/{i // 2000}/{i:05d}_{part}.png    0 or 255, one file per part present
CelebAMask-HQ-pose-anno.txt                          yaw, pitch, roll in the data set's degrees
poses.npy                                            (N, 2) float32 yaw, pitch in radians, exact
depth/{i:05d}.png                                    16 bit, DEPTH_SCALE world units a step
dataset.json                                         what all this is
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from .cli import progress, run_command, wrote
from .data.layouts import NATIVE_IMAGES, NATIVE_MASKS, POSE_TABLE, SYNTHETIC_FORMAT
from .data.parallel import mapped
from .errors import UserError
from .files import replacing, write_text
from .model.camera import CELEBAMASKHQ_PITCH, CameraConfig
from .model.labels import CLASS_NAMES
from .outputs import FOLDER
from .procedural.dataset import DEPTH_SCALE, FACES_PER_FOLDER, VERSION, image_path, write_face
from .procedural.heads import sample_head
from .usage import Within

SMALLEST, LARGEST = 16, 1024


@dataclass(frozen=True)
class SynthesizeOptions:
    """Write procedural faces with exact poses, label maps and depth, as CelebAMask-HQ stores them.

    Example: semfaceedit synthesize --out faces --count 2000 --resolution 128

    The same seeds always give the same faces. If interrupted, run the same command again to
    continue.
    """

    out: Annotated[Path, FOLDER]
    """Folder to write: new, empty, or started by the same command."""
    count: Annotated[int, Within(1, 10_000_000)] = 2000
    """Number of faces."""
    resolution: Annotated[int, Within(SMALLEST, LARGEST)] = 128
    """Width and height in pixels."""
    seed: int = 0
    """Seed of the first face; the others count up from it."""
    workers: Annotated[int | None, Within(1, 1024)] = None
    """Number of processes (default: one per core)."""


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(SynthesizeOptions, run, argv, name="synthesize")


def run(options: SynthesizeOptions) -> None:
    """Write the faces that are not there yet."""
    out = options.out
    _begin(options)
    _write_poses(options)
    missing = [i for i in range(options.count) if not image_path(out, i).is_file()]
    tasks = [(out, i, options.seed + i, options.resolution) for i in missing]
    with mapped(write_face, tasks, options.workers) as done:
        for _ in progress(done, total=len(tasks), title="faces"):
            pass
    write_text(out / "dataset.json", json.dumps(_document(options) | {"complete": True}, indent=1))
    wrote(out)


def _document(options: SynthesizeOptions) -> dict[str, Any]:
    return {
        "format": SYNTHETIC_FORMAT,
        "version": VERSION,
        "count": options.count,
        "resolution": options.resolution,
        "seed": options.seed,
        "camera": asdict(CameraConfig()),
        "depth_scale": DEPTH_SCALE,
        "classes": list(CLASS_NAMES),
    }


def _begin(options: SynthesizeOptions) -> None:
    """Make the folders; refuse what another command, or other options, left there."""
    out = options.out
    if out.is_dir() and any(out.iterdir()):
        _check_own(options)
    for folder in (NATIVE_IMAGES, "depth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    for index in range(math.ceil(options.count / FACES_PER_FOLDER)):
        (out / NATIVE_MASKS[0] / str(index)).mkdir(parents=True, exist_ok=True)
    if not (out / "dataset.json").is_file():
        document = json.dumps(_document(options) | {"complete": False}, indent=1)
        write_text(out / "dataset.json", document)


def _check_own(options: SynthesizeOptions) -> None:
    path = options.out / "dataset.json"
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or found.get("format") != SYNTHETIC_FORMAT:
        raise UserError(
            f"{options.out}: is not empty and holds no synthesized faces: choose another --out"
        )
    for key, value in _document(options).items():
        if found.get(key) != value:
            raise UserError(
                f"{options.out}: holds faces with {key} {found.get(key)}, not {value}: give the "
                "same options to continue, or choose another --out"
            )


def _write_poses(options: SynthesizeOptions) -> None:
    """poses.npy, and the table in the data set's own terms (see `pose_from_celebamaskhq`)."""
    config = CameraConfig()
    seeds = range(options.seed, options.seed + options.count)
    poses = np.array([sample_head(seed, config).pose for seed in seeds], np.float32)
    with replacing(options.out / "poses.npy") as path, path.open("wb") as file:
        np.save(file, poses)
    lines = [str(options.count), "Yaw Pitch Raw"]
    for index, (yaw, pitch) in enumerate(np.rad2deg(poses.astype(np.float64))):
        lines.append(f"{index}.jpg {-yaw:.6f} {pitch - CELEBAMASKHQ_PITCH:.6f} {0:.6f}")
    write_text(options.out / POSE_TABLE, "\n".join(lines) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
