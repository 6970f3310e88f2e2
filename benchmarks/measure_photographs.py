"""How well label maps and poses are read off photographs.

    python benchmarks/measure_photographs.py maps --pairs FOLDER [--skip 50] [--count N]
    python benchmarks/measure_photographs.py poses --pairs FOLDER... --table TABLE
    python benchmarks/measure_photographs.py poses --procedural 300

`maps` compares with the label maps of a folder with images/ and masks/: over the aligned crop that
every command takes (256 x 256) and over the whole photograph, IoU of each class over all pictures
together. The first 50 by name were looked at when outlines were chosen and are left out.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from semfaceedit.data.align import crop_pair, fit_window
from semfaceedit.data.decoding import read_image
from semfaceedit.data.layouts import find_source, read_labels, read_pose_table
from semfaceedit.data.pose import landmarks_from_labels, sides_exchanged
from semfaceedit.errors import UserError
from semfaceedit.metrics.segmentation import confusion, score_of
from semfaceedit.model.labels import (
    CLASS_NAMES,
    FLIP_IDS,
    GROUP_NAMES,
    GROUP_OF_CLASS,
    NUM_CLASSES,
)
from semfaceedit.parsing.photographs import read_face
from semfaceedit.procedural.render import render_faces

CROP = 256  # pixels along an edge


def maps(pairs: Path, skip: int, count: int | None) -> dict[str, object]:
    faces = find_source(pairs).faces[skip:][:count]
    joint = {name: torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.int64) for name in AREAS}
    unseen, centres, sides = [], [], []
    for face in faces:
        image, labels = read_image(face.image), read_labels(face)
        if sides_exchanged(labels):
            labels = FLIP_IDS.astype(np.uint8)[labels]
        try:
            read = read_face(image, face.name)
        except UserError:
            unseen.append(face.name)
            continue
        size = image.shape[1::-1]
        found = np.asarray(Image.fromarray(read.labels).resize(size, Image.Resampling.NEAREST))
        true = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        landmarks = landmarks_from_labels(true)
        window = None if landmarks is None else fit_window(landmarks)
        joint["photograph"] += confusion(*(torch.from_numpy(m.copy()) for m in (found, true)))
        crops = [crop_pair(image, m, read.window, CROP)[1] for m in (found, true)]
        joint["crop"] += confusion(*(torch.from_numpy(m.copy()) for m in crops))
        own = landmarks_from_labels(found)
        if window is not None and own is not None and (asked := fit_window(own)) is not None:
            middle = (
                asked.left + asked.side / 2 - window.left - window.side / 2,
                asked.top + asked.side / 2 - window.top - window.side / 2,
            )
            centres.append(float(np.hypot(*middle)) / window.side)
            sides.append(asked.side / window.side)
    report: dict[str, object] = {"pictures": len(faces), "no face seen": unseen}
    report["window"] = {
        "centre, RMS in sides": float(np.sqrt(np.mean(np.square(centres)))),
        "side, mean and standard deviation": [float(np.mean(sides)), float(np.std(sides))],
    }
    for name, matrix in joint.items():
        score = score_of(matrix, GROUP_OF_CLASS)
        report[name] = {
            "mIoU groups": round(score.groups, 4),
            "mIoU classes": round(score.classes, 4),
            "groups": _named(GROUP_NAMES, score.per_group),
            "classes": _named(CLASS_NAMES, score.per_class),
        }
    return report


AREAS = ("crop", "photograph")


def table_poses(folders: list[Path], table: Path) -> dict[str, object]:
    known = read_pose_table(table)
    pairs = []
    for path in sorted(p for folder in folders for p in folder.iterdir()):
        if path.stem.isdecimal() and str(int(path.stem)) in known:
            try:
                read = read_face(read_image(path), path)
            except UserError:
                continue
            pairs.append((read.pose, known[str(int(path.stem))]))
    return _errors(pairs)


def procedural_poses(count: int) -> dict[str, object]:
    pairs = []
    for seed in range(900_000, 900_000 + count):
        faces = render_faces([seed], 128)
        image = ((faces.images[0].movedim(0, -1) + 1) * 127.5).round().byte().numpy()
        try:
            pairs.append((read_face(image, str(seed)).pose, tuple(faces.poses[0].tolist())))
        except UserError:
            continue
    return _errors(pairs)


def _errors(pairs: list) -> dict[str, object]:
    found, true = (np.degrees([pair[side] for pair in pairs]) for side in (0, 1))
    wrong = found - true
    return {
        "faces": len(pairs),
        "RMS, degrees (yaw, pitch)": np.sqrt((wrong**2).mean(0)).round(2).tolist(),
        "mean error": wrong.mean(0).round(2).tolist(),
        "correlation": [
            round(float(np.corrcoef(found[:, i], true[:, i])[0, 1]), 3) for i in (0, 1)
        ],
    }


def _named(names: tuple[str, ...], values: tuple[float, ...]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in zip(names, values, strict=True)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="what", required=True)
    read = commands.add_parser("maps")
    read.add_argument("--pairs", type=Path, required=True)
    read.add_argument("--skip", type=int, default=50)
    read.add_argument("--count", type=int)
    turned = commands.add_parser("poses")
    turned.add_argument("--pairs", type=Path, nargs="*", default=[])
    turned.add_argument("--table", type=Path)
    turned.add_argument("--procedural", type=int)
    given = parser.parse_args()
    if given.what == "maps":
        report = maps(given.pairs, given.skip, given.count)
    elif given.procedural:
        report = procedural_poses(given.procedural)
    else:
        report = table_poses(given.pairs, given.table)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
