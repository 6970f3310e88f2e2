"""How well and how fast are photographs and heads inverted, at each precision of the layers?

    python benchmarks/measure_fits.py [--checkpoint portraits] [--data PACKED] [--count 12]
        [--steps 40] [--depth-weight 0.3] [--precisions fp32 accurate fast default]

`default` is what fits take by themselves: steps at `fast` where that is offered. The faces: every
seventh from the third of `prepare`'s PACKED, else procedural heads that no training saw. Each is
inverted from what the encoder reads, as `invert` does. Medians of CPU seconds from picture and map
to a saved project, means of mIoU over groups and PSNR; of heads also the depth error in world units
where both show the head: of the encoder alone, after the fit, of the mean face at the true pose.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from semfaceedit.api import Editor, load
from semfaceedit.data.dataset import FaceDataset, open_packed
from semfaceedit.editing.fit import zero_offsets
from semfaceedit.editing.fit_terms import Goal, finished
from semfaceedit.editing.inversion import (
    InvertSettings,
    default_invert_settings,
    invert,
    read_face,
)
from semfaceedit.editing.target import OVERSAMPLING, Target, pictures
from semfaceedit.kernels import use_backend
from semfaceedit.machine import cpu_name
from semfaceedit.model.codes import Codes
from semfaceedit.model.mean_face import mean_codes
from semfaceedit.model.renderer import render
from semfaceedit.procedural.render import render_faces

FIRST, EVERY = 2, 7  # of the packed faces
HEADS = 5_100_000  # first seed
FIGURES = ("CPU s", "mIoU", "PSNR", "encoder", "fit", "mean face")


def packed_faces(data: FaceDataset, count: int) -> Iterator[tuple[Target, None]]:
    for place in range(FIRST, len(data), EVERY)[:count]:
        yield Target(np.array(data.images[place]), np.array(data.labels[place]), None), None


def heads(count: int, size: int) -> Iterator[tuple[Target, int]]:
    for seed in range(HEADS, HEADS + count):
        face = render_faces([seed], OVERSAMPLING * size)
        image = ((face.images[0].movedim(0, -1) + 1) * 127.5).round().byte().numpy()
        yield Target(image, face.labels[0].to(torch.uint8).numpy(), face.poses[0].numpy()), seed


def measured(
    editor: Editor, target: Target, seed: int | None, settings: InvertSettings
) -> list[float]:
    """One face's `FIGURES`, NaN where unknown."""
    generator, size = editor.generator, editor.generator.config.resolution
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        found = finished(
            invert(
                generator, target.image, target.labels, settings=settings, encoder=editor.encoder
            )
        )
        found.project.save(Path(folder) / "face.safetensors")
        seconds = time.process_time() - began
    depths = [float("nan")] * 3
    if seed is not None:
        assert target.pose is not None and editor.encoder is not None
        true_pose = torch.from_numpy(target.pose)[None]
        image, shares = pictures(target, size)
        truth = render_faces([seed], size, generator.config.camera, true_pose)
        read, pose = read_face(generator, editor.encoder, Goal(shares, image), None)
        ways: list[tuple[Codes, Tensor]] = [
            (read, pose),
            (found.project.offsets, found.project.pose[None]),
            (zero_offsets(generator), true_pose),
        ]
        for place, (offsets, seen_from) in enumerate(ways):
            codes = mean_codes(generator) + offsets
            made = render(generator, codes, seen_from, size, shade=False)
            both = (made.labels > 0) & (truth.labels > 0)
            depths[place] = float((made.depth[:, 0] - truth.depth)[both].abs().mean())
    metrics = found.project.metrics
    return [seconds, metrics["miou_groups"], metrics["psnr"], *depths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("portraits"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--depth-weight", type=float)
    parser.add_argument("--precisions", nargs="+", default=["fp32", "accurate", "fast", "default"])
    options = parser.parse_args()
    editor = load(options.checkpoint)
    size = editor.generator.config.resolution
    settings = default_invert_settings(
        editor.encoder, appearance_iterations=options.steps, perceptual_weight=0
    )
    if options.depth_weight is not None:
        settings = replace(settings, depth_weight=options.depth_weight)
    rows: dict[str, list[list[float]]] = {name: [] for name in options.precisions}
    if options.data is None:
        faces: Iterator[tuple[Target, int | None]] = heads(options.count, size)
    else:
        faces = packed_faces(open_packed(options.data), options.count)
    for number, (target, seed) in enumerate(faces):
        for name, found in rows.items():  # in turns: what else runs touches all alike
            with use_backend(precision=None if name == "default" else name):
                if not number:  # what only a first call does
                    measured(editor, target, seed, settings)
                found.append(measured(editor, target, seed, settings))
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, {options.checkpoint}")
    print(f"{'precision':<12}{'faces':>6}" + "".join(f"{name:>11}" for name in FIGURES))
    for name, found in rows.items():
        seconds, *scores = zip(*found, strict=True)
        figures = [statistics.median(seconds), *(statistics.fmean(score) for score in scores)]
        print(f"{name:<12}{len(found):>6}" + "".join(f"{value:>11.4f}" for value in figures))


if __name__ == "__main__":
    main()
