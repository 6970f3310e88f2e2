"""Plots and picture grids of an evaluation."""

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..model.codes import Codes
from ..model.labels import CLASS_NAMES, colorize
from ..model.renderer import render
from ..pictures.grids import picture_rows, save_png, tile
from ..pictures.plots import Line, bar_plot, line_plot
from .inversion import kept_pairs, load_project, pair
from .novelty import training_pictures
from .pictures import generated_pictures, real_chunk, real_pictures
from .session import Evaluation

GRID = 8  # pictures in a row
UNCHOSEN = 64
SHOWN = 4  # inverted pairs
SMALLEST = 64  # pixels that a picture has at least in a grid
NOVEL_YAW = 0.4


def draw(evaluation: Evaluation) -> None:
    """Every figure whose numbers are there, into `figures/`."""
    folder, values = evaluation.options.out / "figures", evaluation.results.values
    folder.mkdir(parents=True, exist_ok=True)
    makers: dict[str, tuple[str, Callable[[Path], None]]] = {
        "samples": ("quality.sliced_wasserstein", lambda path: samples(evaluation, path)),
        "unchosen": ("quality.sliced_wasserstein", lambda path: unchosen(evaluation, path)),
        "novelty-pixels": ("novelty", lambda path: closest(evaluation, "pixels", path)),
        "novelty-features": ("novelty", lambda path: closest(evaluation, "features", path)),
        "areas": ("semantics.areas", lambda path: area_bars(values["semantics.areas"], path)),
        "inversion-miou": ("inversion", lambda path: miou_curves(values["inversion"], path)),
        "inversion-groups": ("inversion", lambda path: group_curves(values["inversion"], path)),
        "inversion-psnr": ("inversion", lambda path: psnr_curve(values["inversion"], path)),
        "inversion-faces": ("inversion", lambda path: inverted_faces(evaluation, path)),
        "editing": ("editing", lambda path: edit_bars(values["editing"], path)),
    }
    for name, (needed, make) in makers.items():
        if needed in values:
            make(folder / f"{name}.png")


def samples(evaluation: Evaluation, path: Path) -> None:
    """Real pictures above, generated ones below, each with its map."""
    rows = []
    for pictures in (real_pictures(evaluation), generated_pictures(evaluation)):
        chunk = next(pictures.read())
        rows += [chunk.images[:GRID].movedim(1, -1), colorize(chunk.labels[:GRID])]
    count = min(len(row) for row in rows)
    _save(path, torch.cat([row[:count] for row in rows]), count)


def unchosen(evaluation: Evaluation, path: Path) -> None:
    """The first 64 generated pictures."""
    images = next(generated_pictures(evaluation).read()).images[:UNCHOSEN].movedim(1, -1)
    columns = min(GRID, len(images))
    _save(path, images[: len(images) // columns * columns], columns)


def closest(evaluation: Evaluation, space: str, path: Path) -> None:
    """Rows of generated faces, each above the picture of training that is nearest to it."""
    pairs = evaluation.results.values["novelty"]["spaces"][space]["closest"]
    training, resolution = training_pictures(evaluation), evaluation.resolution
    images = torch.cat([chunk.images for chunk in generated_pictures(evaluation).read()])
    rows: list[Tensor] = []
    columns = min(GRID, len(pairs))
    for first in range(0, len(pairs) // columns * columns, columns):
        part = pairs[first : first + columns]
        rows.append(images[[made for made, *_ in part]].movedim(1, -1))
        rows += [
            real_chunk(training, range(known, known + 1), resolution).images.movedim(1, -1)
            for _, known, _ in part
        ]
    _save(path, torch.cat(rows), columns)


def area_bars(areas: dict[str, Any], path: Path) -> None:
    kinds, classes = ("real", "generated"), areas["classes"]
    chosen = [
        name for name in CLASS_NAMES[1:] if any(classes[name][f"{kind}_presence"] for kind in kinds)
    ]
    bar_plot(
        path,
        chosen,
        {kind: [classes[name][f"{kind}_presence"] for name in chosen] for kind in kinds},
        title="Pictures that show a class",
        y_label="share of pictures",
    )


def miou_curves(values: dict[str, Any], path: Path) -> None:
    names = {f"{len(values['per_group'])} groups": "groups", "19 classes": "classes"}
    lines = [_line(label, values, values[name]) for label, name in names.items()]
    line_plot(path, lines, title=f"Inversion: mIoU, mean over {values['pairs']} faces",
              x_label="iteration", y_label="mIoU", y_range=(0, 1))  # fmt: skip


def group_curves(values: dict[str, Any], path: Path) -> None:
    lines = [
        Line(name, values["iterations"], _floats(curve))
        for name, curve in values["per_group"].items()
    ]
    line_plot(path, lines, title="Inversion: IoU of each group", x_label="iteration",
              y_label="IoU", y_range=(0, 1))  # fmt: skip


def psnr_curve(values: dict[str, Any], path: Path) -> None:
    line_plot(path, [_line("PSNR", values, values["psnr"])], title="Inversion: picture",
              x_label="iteration", y_label="PSNR (dB)")  # fmt: skip


def edit_bars(values: dict[str, Any], path: Path) -> None:
    names = {"labels as painted": "labels_inside", "SSIM outside": "ssim_outside",
             "identity": "identity"}  # fmt: skip
    bars: dict[str, Sequence[float]] = {
        label: _floats([found[key] for found in values["edits"].values()])
        for label, key in names.items()
    }
    bar_plot(path, list(values["edits"]), bars, title="Edits: mean over faces", y_label="share")


def _line(name: str, values: dict[str, Any], curve: dict[str, Any]) -> Line:
    return Line(name, values["iterations"], _floats(curve["mean"]), _floats(curve["deviation"]))


def _floats(values: list[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


@torch.no_grad()
def inverted_faces(evaluation: Evaluation, path: Path) -> None:
    """A row for each face: picture, inverted, both maps, and the inverted face from two sides."""
    rows: list[Tensor] = []
    for kept in islice(kept_pairs(evaluation), SHOWN):
        source, project = pair(evaluation, kept["index"]), load_project(evaluation, kept["index"])
        codes = project.codes(evaluation.generator)
        step = len(source.labels) // evaluation.resolution
        own = _pictures(evaluation, codes, project.pose)
        sides = [
            _pictures(evaluation, codes, torch.tensor([yaw, 0.0]))
            for yaw in (-NOVEL_YAW, NOVEL_YAW)
        ]
        rows += [
            torch.from_numpy(np.ascontiguousarray(source.image[::step, ::step]))[None],
            own["image"],
            colorize(torch.from_numpy(np.ascontiguousarray(source.labels[::step, ::step]))[None]),
            own["semantics"],
            *(side["image"] for side in sides),
            *(side["semantics"] for side in sides),
        ]
    _save(path, torch.cat(rows), 8)


def _pictures(evaluation: Evaluation, codes: Codes, pose: Tensor) -> dict[str, Tensor]:
    output = render(
        evaluation.generator,
        codes,
        pose[None].to(evaluation.device),
        evaluation.resolution,
        chunk_rays=evaluation.options.chunk_rays,
    )
    return picture_rows(output)


def _save(path: Path, pictures: Tensor, columns: int) -> None:
    save_png(path, tile(pictures, columns), scale=max(1, SMALLEST // pictures.shape[1]))
