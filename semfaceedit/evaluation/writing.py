"""report.json, and the same as tables in report.md."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ..files import sha256_of_file
from ..machine import machine
from ..model.generator import count_parameters
from ..model.labels import GROUP_OF_CLASS
from ..model.mean_face import fingerprint
from .sections import SECTIONS
from .session import QUESTIONS_OF, EvaluateOptions, Evaluation, plain
from .tables import format_number

PARTS = ("results", "missing", "timings")
FORMAT = "semfaceedit-evaluation"
HERE = (
    "checkpoint",
    "out",
    "data",
    "training_data",
    "run_folder",
    "inception_weights",
    "vgg_weights",
)
CAPTIONS = {
    "samples": "Real pictures and their maps above, generated ones below: the first of each set.",
    "areas": "How many pictures show each class.",
    "unchosen": "The first 64 generated faces, in their order.",
    "novelty-pixels": "The generated faces nearest to a picture of training in pixels, nearest "
    "first, each above that picture.",
    "novelty-features": "The same in features of a parser.",
    "inversion-miou": "Agreement of the inverted face's map with the given one; the band is one "
    "standard deviation over faces. Iteration 0 is the mean face.",
    "inversion-groups": "The same for each group.",
    "inversion-psnr": "Likeness of the picture; the image term begins with the second stage.",
    "inversion-faces": "A row for each face: picture, inverted face, given map, its map, and the "
    "inverted face with its map from yaw -0.4 and 0.4.",
    "editing": "How far a painted label map is followed, and how much of the rest stays.",
}
FIGURES = {"quality": ("samples", "unchosen"), "semantics": ("areas",),
           "novelty": ("novelty-pixels", "novelty-features"),
           "inversion": ("inversion-miou", "inversion-groups", "inversion-psnr",
                         "inversion-faces"), "editing": ("editing",)}  # fmt: skip


def collect(evaluation: Evaluation, chosen: Sequence[str]) -> dict[str, Any]:
    """Everything known, with earlier answers to questions that are not asked now.

    `timings` and `machine` are what the seed does not decide.
    """
    options, results = evaluation.options, evaluation.results
    report = plain(
        {
            "format": FORMAT,
            "version": 1,
            "checkpoint": _checkpoint(evaluation),
            "data": _data(evaluation) if evaluation.uses_data(chosen) else None,
            "settings": {**_settings(options), "resolution": evaluation.resolution},
            "notes": notes(evaluation),
            "results": results.values,
            "missing": results.missing,
            "timings": results.timings,
            "machine": machine(),
        }
    )
    before = _earlier(evaluation, report)
    told, now = before.get("settings", {}), report["settings"]
    answered = {name.split(".")[0] for part in PARTS for name in before.get(part, ())}
    idle = {name for name, served in QUESTIONS_OF.items() if not served & set(chosen)}
    both = now | {name: told[name] for name in idle & set(told)}
    others = {name for name in answered - set(chosen) if _same_settings(name, told, both)}
    now |= {name: both[name] for name in idle if QUESTIONS_OF[name] & others and name in both}
    for part in PARTS:
        kept = {n: v for n, v in before.get(part, {}).items() if n.split(".")[0] in others}
        report[part] = dict(sorted((kept | report[part]).items()))
    report["data"] = report["data"] or before.get("data")
    return report


def _same_settings(question: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether all settings that a question depends on are as they were."""
    names = [name for name in now if question in QUESTIONS_OF.get(name, {question})]
    return all(name in before and before[name] == now[name] for name in names)


def _earlier(evaluation: Evaluation, report: Mapping[str, Any]) -> dict[str, Any]:
    """The report that is there, if it is of the same checkpoint and data."""
    try:
        before = json.loads((evaluation.options.out / "report.json").read_text())
    except (OSError, ValueError):
        return {}
    same = all(before.get(key) == report[key] for key in ("version", "checkpoint"))
    data = before.get("data")
    return before if same and (None in (data, report["data"]) or data == report["data"]) else {}


def notes(evaluation: Evaluation) -> list[str]:
    """What a reader must know to compare these figures with others."""
    found = []
    if tuple(evaluation.config.model.group_of_class) != GROUP_OF_CLASS:
        found.append(
            f"The checkpoint has its own grouping of the classes ({evaluation.config.model.groups} "
            "groups): figures over groups cannot be compared with those of the usual four."
        )
    if evaluation.options.truncation < 1:
        found.append("Truncated faces: distances cannot be compared with the paper's.")
    return found


def _checkpoint(evaluation: Evaluation) -> dict[str, Any]:
    header, path = evaluation.header, evaluation.weights
    return {
        "file": path.name,
        "sha256": sha256_of_file(path),
        "fingerprint": fingerprint(evaluation.generator),
        "preset": evaluation.config.preset,
        "trained_on_images": header["images"],
        "ema_decay": header["ema_decay"],
        "parameters": count_parameters(evaluation.generator),
        "groups": evaluation.config.model.group_names,
    }


def _data(evaluation: Evaluation) -> dict[str, Any]:
    data = evaluation.data
    return {
        "layout": data.info.get("layout"),
        "pictures": len(data),
        "packed_resolution": data.resolution,
        "key": evaluation.data_key,
    }


def _settings(options: EvaluateOptions) -> dict[str, Any]:
    """The options, without what only says where files are on this machine."""
    chosen = {field.name: getattr(options, field.name) for field in fields(options)}
    for name in HERE:
        value = chosen.pop(name)
        if name in ("inception_weights", "vgg_weights"):
            chosen[name] = None if value is None else value.name
    chosen.pop("all")
    return chosen


def markdown(report: Mapping[str, Any], figures: Sequence[str] = ()) -> str:
    """The report as tables; `figures` are the names of files in `figures/`."""
    lines = ["# Evaluation", "", *_head(report)]
    for question, (title, write) in SECTIONS.items():
        values = _of(report["results"], question)
        missing = _of(report["missing"], question)
        if not values and not missing:
            continue
        lines += ["", f"## {title}", ""]
        if values:
            lines += write(values, _of(report["timings"], question))
        for why in dict.fromkeys(missing.values()):
            names = ", ".join(name or question for name in missing if missing[name] == why)
            lines += ["", f"Not measured: {names}: {why}"]
        for name in FIGURES.get(question, ()):
            if f"{name}.png" in figures and values:
                lines += ["", f"![{CAPTIONS[name]}](figures/{name}.png)", "", f"*{CAPTIONS[name]}*"]
    return "\n".join([*lines, "", *_foot(report)]) + "\n"


def _of(table: Mapping[str, Any], question: str) -> dict[str, Any]:
    """The entries of a question, under the rest of their names."""
    own = {name: value for name, value in table.items() if name.split(".")[0] == question}
    return {name.partition(".")[2]: value for name, value in own.items()}


def _head(report: Mapping[str, Any]) -> list[str]:
    checkpoint, data, settings = report["checkpoint"], report["data"], report["settings"]
    lines = [
        f"Checkpoint `{checkpoint['file']}` (preset {checkpoint['preset']}, "
        f"{checkpoint['parameters']:,} parameters, trained on {checkpoint['trained_on_images']:,} "
        f"images, average {checkpoint['ema_decay']}, sha256 {checkpoint['sha256'][:16]}), at "
        f"{settings['resolution']}x{settings['resolution']}, seed {settings['seed']}, truncation "
        f"{format_number(settings['truncation'])}.",
    ]
    if data is not None:
        lines += ["", f"Data: {data['layout']}, {data['pictures']:,} pictures (key {data['key']})."]
    return lines + [line for note in report["notes"] for line in ("", note)]


def _foot(report: Mapping[str, Any]) -> list[str]:
    where = report["machine"]
    total = sum(entry.get("seconds") or 0 for entry in report["timings"].values())
    return [
        f"Measured with semfaceedit {where['semfaceedit']}, torch {where['torch']}, on "
        f"{where['gpu'] or where['cpu']} ({where['threads']} threads); the measurements took "
        f"{total / 60:.1f} minutes, generating pictures not counted.",
    ]
