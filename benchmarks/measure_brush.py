"""Does a face follow a painted map at once, and does the rest stay?

    python benchmarks/measure_brush.py [--checkpoint procedural] [--seeds 0-19] [--edits hat fringe]
        [--ways answer default hundred] [--pictures FOLDER]

Ways: `answer`, what the encoder says of the painted map, without a fit (the editor shows it while a
stroke is drawn); `default`, what `edit` does with the encoder; `hundred`, 100 steps of Eq. 10 at
full size without it, from the face or from samples that have what is asked for. Means over the
seeds whose faces can take the edit; changes are means of |RGB| in [0, 1] outside the painted region
(widened by 3 %), seconds are medians, CPU seconds means.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from semfaceedit.api import Editor, generate, load
from semfaceedit.cli import parse_seeds
from semfaceedit.editing.encoder import follow_map
from semfaceedit.editing.fit_terms import finished
from semfaceedit.editing.map_edit import edit
from semfaceedit.editing.mask_edits import EDITS, painted
from semfaceedit.editing.project import FaceProject
from semfaceedit.editing.refit import EditSettings, dilate, footprint, render_project
from semfaceedit.editing.target import resize_labels
from semfaceedit.machine import cpu_name
from semfaceedit.metrics.pictures import rgb_change, ssim
from semfaceedit.model.labels import PALETTE
from semfaceedit.pictures.grids import picture_rows, save_png

Way = Callable[[Editor, FaceProject, np.ndarray], FaceProject]


def answer(editor: Editor, face: FaceProject, labels: np.ndarray) -> FaceProject:
    assert editor.encoder is not None
    return follow_map(editor.encoder, face, labels)


def default(editor: Editor, face: FaceProject, labels: np.ndarray) -> FaceProject:
    settings = editor.edit_settings(perceptual_weight=0)
    return finished(editor.edit(face, labels, settings=settings)).project


def hundred(editor: Editor, face: FaceProject, labels: np.ndarray) -> FaceProject:
    settings = EditSettings(iterations=100, perceptual_weight=0)
    return finished(edit(editor.generator, face, labels, settings=settings)).project


WAYS: dict[str, Way] = {"answer": answer, "default": default, "hundred": hundred}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, default=Path("procedural"))
    parser.add_argument("--seeds", default="0-19")
    parser.add_argument("--edits", nargs="+", default=list(EDITS), choices=list(EDITS))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--pictures", type=Path, help="folder: a sheet for each edit")
    options = parser.parse_args()
    editor = load(options.checkpoint)
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, {options.checkpoint}")
    print(
        f"{'edit':<16}{'way':<9}{'faces':>6}{'followed':>9}{'worst':>7}{'outside':>9}{'SSIM':>7}"
        f"{'seconds':>9}{'CPU s':>7}"
    )
    for name in options.edits:
        rows: dict[str, list[list[float]]] = {way: [] for way in options.ways}
        shown = []
        for seed in parse_seeds(options.seeds):
            face = generate(editor.generator, seed).project
            labels = painted(face.labels, name)
            if labels is None:
                continue
            line = [face.preview, PALETTE[labels]]
            for way in options.ways:
                figures, picture = measured(editor, face, labels, WAYS[way])
                rows[way].append(figures)
                line.append(picture)
            shown.append(np.concatenate(line, 1))
        for way, found in rows.items():
            if not found:
                continue
            followed, outside, like, seconds, cpu = zip(*found, strict=True)
            print(
                f"{name:<16}{way:<9}{len(found):>6}{statistics.fmean(followed):>9.3f}"
                f"{min(followed):>7.2f}{statistics.fmean(outside):>9.4f}"
                f"{statistics.fmean(like):>7.3f}{statistics.median(seconds):>9.2f}"
                f"{statistics.fmean(cpu):>7.2f}",
                flush=True,
            )
        if options.pictures is not None and shown:
            options.pictures.mkdir(parents=True, exist_ok=True)
            sheet = torch.from_numpy(np.concatenate(shown))
            save_png(options.pictures / f"{name.replace(' ', '-')}.png", sheet, scale=2)


def measured(
    editor: Editor, face: FaceProject, labels: np.ndarray, way: Way
) -> tuple[list[float], np.ndarray]:
    """Share of the region's labels as painted, change and SSIM outside, seconds, CPU seconds; and
    the picture (r, r, 3)."""
    began, busy = time.monotonic(), time.process_time()
    made = way(editor, face, labels)
    seconds, cpu = time.monotonic() - began, time.process_time() - busy
    size = len(face.preview)
    before, after = (render_project(editor.generator, f, size) for f in (face, made))
    region = footprint(dilate(labels != face.labels, EditSettings.dilation), before.image)
    wanted = torch.from_numpy(resize_labels(labels, size))
    followed = (after.labels[0] == wanted)[region[0, 0]].float().mean()
    outside = rgb_change(before.image, after.image)[~region[:, 0]].mean()
    like = ssim(after.image, before.image, ~region)
    picture = picture_rows(after)["image"][0].numpy()
    return [float(followed), float(outside), float(like), seconds, cpu], picture


if __name__ == "__main__":
    main()
