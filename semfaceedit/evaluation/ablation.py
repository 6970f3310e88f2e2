"""Ablations (Tables 2 and 3, and Table 1's single-stage row): `semfaceedit evaluate ablate`.

Every variant is trained from scratch on the same number of images and measured like any checkpoint.
"""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Annotated, Any

from ..cli import parse_seeds, run_command, select_device, wrote
from ..errors import UserError, meant
from ..files import write_text
from ..memory import keep_freed_memory
from ..model import config, config_values
from ..model.checkpoint import STATE_PATTERN, load_state
from ..model.config import Config, Phase
from ..model.generator import Generator, count_parameters
from ..outputs import FOLDER, check_outputs, paths_in, save_page
from ..procedural.sources import open_training_data
from ..training.run import RunPlan, train
from ..training.run_folder import Cadence, TrainingData
from ..usage import Within, Without
from .inception import check_file
from .session import EvaluateOptions, digest, plain
from .tables import format_number, table

DEPTH = 8  # FiLM layers of both modules, as in the paper
STAGE1_SHARE = 0.8  # of the steps: the paper's 120,000 of 150,000
CHECKPOINTS = 8  # over a training


@dataclass(frozen=True)
class Variant:
    """A row: what differs from the proposed model, and the preset of it at the paper's size."""

    title: str
    paper: str
    sharing: config.Sharing = "proposed"
    depth: int = DEPTH
    stages: str = "both"  # "both", "first" (stage 2 left out) or "one" (all images in stage 1)


VARIANTS = {
    "proposed": Variant("proposed", "paper"),
    "unshared": Variant("nothing shared", "paper-unshared", sharing="none"),
    "shared": Variant("all shared", "paper-shared", sharing="all"),
    "depth6": Variant("depth 6", "paper-depth6", depth=6),
    "depth4": Variant("depth 4", "paper-depth4", depth=4),
    "stage1": Variant("stage 1 only", "paper", stages="first"),
    "single-stage": Variant("single stage", "paper", stages="one"),
}
TABLES = {
    "Table 1, last rows: two stages or one": ("proposed", "single-stage", "stage1"),
    "Table 2: sharing in the Appearance Module": ("unshared", "shared", "proposed"),
    "Table 3: depth of both modules": ("depth4", "depth6", "proposed"),
}
MEASURED = ("quality", "semantics", "locality")
MEASURED_WITH = ("count", "parser_steps", "inception_weights", "backend")
COLUMNS = {
    "FID": ("quality.fid", "distance"),
    "KID x 1000": ("quality.kid", "distance"),
    "SWD x 1000": ("quality.sliced_wasserstein", "distance"),
    "pixel Frechet": ("quality.pixel_frechet", "distance"),
    "maps: SWD x 1000": ("semantics.sliced_wasserstein", "distance"),
    "maps: pixel Frechet": ("semantics.pixel_frechet", "distance"),
    "parse mIoU": ("semantics.agreement", "generated", "groups"),
}


@dataclass(kw_only=True)
class AblationOptions:
    """Train the paper's ablations on equally many images, measure them, and write the tables.

    Example: semfaceedit evaluate ablate --preset small --images 5000 --resolution 16 --out ablation

    The variants: the proposed model; nothing shared; everything shared; depth 6 and depth 4 instead
    of 8; stage 1 only; a single stage. If interrupted, run the same command again to continue. All
    variants in one --out are trained with the same settings and data; if the options for measuring
    change, they are measured again.
    """

    preset: str = "small"
    """Preset that sets width and training of all variants; depths are the paper's 8, 6 and 4."""
    images: Annotated[int, Within(1)] = 5000
    """Number of images each variant is trained on."""
    resolution: Annotated[int | None, Within(4, 4096)] = None
    """Resolution for training and measuring (default: the preset's last)."""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """Variants to train and measure now; the tables show all that were measured alike."""
    seeds: str = "0"
    """Seeds, e.g. 0,1: each variant is trained once per seed, and the tables show means."""
    data: Path | None = None
    """Real pictures, in any layout that `train` reads (default: procedural faces)."""
    procedural_count: Annotated[int, Within(2, 10_000_000), Without("data")] = 2000
    """Number of procedural faces, without --data."""
    count: Annotated[int, Within(2)] = 2000
    """Number of generated pictures to measure each variant on."""
    parser_steps: Annotated[int, Within(1)] = 400
    """Training steps of the network that segments generated pictures; it is trained once."""
    inception_weights: Path | None = None
    """Inception weights of torch-fidelity, for FID and KID."""
    out: Annotated[Path, FOLDER] = Path("ablation")
    """Folder for runs, measurements and tables."""
    device: str | None = None
    """cpu, cuda or cuda:N (default: CUDA if available)."""
    backend: str | None = None
    """reference, triton, cuda or cpu (default: the fastest available)."""


def ablate(options: AblationOptions) -> None:
    """Train and measure what is not there yet, then write ablation.json and ablation.md.

    UserError where --out has variants that were trained otherwise.
    """
    seeds = parse_seeds(options.seeds)
    for name in options.variants:
        if name not in VARIANTS:
            raise UserError(f"--variants {name}{meant(name, VARIANTS)}: use {', '.join(VARIANTS)}")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("ablate runs in one process: start one per GPU with its own --variants")
    if options.inception_weights is not None:
        check_file(options.inception_weights)
    check_runs(options)
    for seed in seeds:
        for name in options.variants:
            print(f"{name}, seed {seed}", file=sys.stderr)
            measure_run(options, name, seed, trained(options, name, seed))
    write_tables(options, seeds)


def settings(options: AblationOptions, variant: Variant) -> Config:
    """The run of a variant: one phase, both depths, and the budget split between the stages."""
    base = config.preset(options.preset)
    phase = base.train.phases[-1]
    resolution = options.resolution or phase.resolution
    steps = options.images // phase.batch
    first = steps if variant.stages == "one" else round(STAGE1_SHARE * steps)
    second = steps - first if variant.stages == "both" else 0
    if first < 1:
        raise UserError(f"--images {options.images}: at least {2 * phase.batch} are needed")
    return replace(
        base,
        model=replace(
            base.model,
            resolution=resolution,
            sharing=variant.sharing,
            geometry_depth=variant.depth,
            appearance_depth=variant.depth,
        ),
        train=replace(
            base.train,
            phases=(Phase(until=1.0, resolution=resolution, batch=phase.batch),),
            stage1_iterations=first,
            stage2_iterations=second,
        ),
    )


def check_runs(options: AblationOptions) -> None:
    """UserError where a variant in --out was trained with other settings or on other data."""
    tables = [options.out / name for name in ("ablation.json", "ablation.md")]
    check_outputs(tables, paths_in(options))
    wanted = {name: settings(options, variant) for name, variant in VARIANTS.items()}
    folder = options.out / "runs"
    runs = sorted(folder.glob("*-seed*/*/config.json"))
    for run in runs:
        name = run.parent.parent.name.rpartition("-seed")[0]
        if name in wanted and json.loads(run.read_text()) != plain_config(wanted[name]):
            raise UserError(
                f"{run.parent}: a run with other settings: give the same options as before, or "
                "choose another --out"
            )
    faces = open_training_data(
        options.data,
        resolution=wanted["proposed"].model.resolution,
        procedural_count=options.procedural_count,
    )
    record, data = folder / "data.json", {"key": digest(faces.info["sha256"])}
    if runs and record.is_file() and json.loads(record.read_text()) != data:
        raise UserError(
            f"{folder}: runs on other data: give the same --data or --procedural-count as before, "
            "or choose another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_text(record, json.dumps(data) + "\n")


def trained(options: AblationOptions, name: str, seed: int) -> Path:
    """The weights of a variant: those that are there, else of a training begun or taken up."""
    wanted = settings(options, VARIANTS[name])
    folder = options.out / "runs" / f"{name}-seed{seed}"
    weights = f"generator-ema{wanted.train.ema_decays[0]}.safetensors"
    resume = None
    for run in sorted(folder.glob("*")):
        if (run / weights).is_file():
            return run / weights
        if any(run.glob(STATE_PATTERN)):
            resume = run
    steps = wanted.train.stage1_iterations + wanted.train.stage2_iterations
    state = load_state(resume) if resume else None
    device = select_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    train(
        RunPlan(
            config=wanted,
            seed=seed,
            data=TrainingData(options.data, options.procedural_count),
            out=folder,
            device=device,
            cadence=Cadence(
                log=20, monitor=steps + 1, samples=max(1, steps),
                checkpoint=max(1, steps // CHECKPOINTS),
            ),
            resume=resume,
            state=state,
        )
    )  # fmt: skip
    return max(folder.glob(f"*/{weights}"))


def plain_config(value: Config) -> Any:
    """A configuration as it reads from config.json."""
    return json.loads(json.dumps(config_values.to_dict(value)))


def measure_run(options: AblationOptions, name: str, seed: int, checkpoint: Path) -> None:
    """Distances, agreement and locality of a variant, as `evaluate` writes them."""
    from .run import evaluate

    evaluate(
        EvaluateOptions(
            checkpoint=checkpoint,
            out=_report_path(options, name, seed).parent,
            data=options.data,
            procedural_count=options.procedural_count,
            count=options.count,
            parser_steps=options.parser_steps,
            inception_weights=options.inception_weights,
            device=options.device,
            backend=options.backend,
        ),
        MEASURED,
    )


def _report_path(options: AblationOptions, name: str, seed: int) -> Path:
    return options.out / "measured" / f"{name}-seed{seed}" / "report.json"


def _report(options: AblationOptions, name: str, seed: int) -> dict[str, Any] | None:
    """What was measured of a variant under these options; None while a question is open."""
    try:
        report = json.loads(_report_path(options, name, seed).read_text())
    except (OSError, ValueError):
        return None
    answered = {part.split(".")[0] for part in report["results"]}
    if not answered.issuperset(MEASURED):
        return None
    told = _told(options)
    if any(report["settings"][option] != told[option] for option in MEASURED_WITH):
        print(
            f"{name}, seed {seed}: measured with other settings, not in the tables until it is "
            "among --variants again",
            file=sys.stderr,
        )
        return None
    return report


def write_tables(options: AblationOptions, seeds: Sequence[int]) -> None:
    """The tables of all variants that were measured under these options."""
    rows = {name: row(options, name, seeds) for name in VARIANTS}
    known = {name: found for name, found in rows.items() if found is not None}
    document = plain(
        {"format": "semfaceedit-ablation", "options": _told(options), "variants": known}
    )
    options.out.mkdir(parents=True, exist_ok=True)
    write_text(options.out / "ablation.json", json.dumps(document, indent=1) + "\n")
    save_page(options.out / "ablation.md", markdown(document))
    wrote(options.out / "ablation.md")


def _told(options: AblationOptions) -> dict[str, Any]:
    """The options, without what only says where files are."""
    return {k: v for k, v in asdict(options).items() if k not in ("out", "data", "device")} | {
        "data": "procedural" if options.data is None else options.data.name,
        "inception_weights": options.inception_weights and options.inception_weights.name,
    }


def row(options: AblationOptions, name: str, seeds: Sequence[int]) -> dict[str, Any] | None:
    """Means over seeds of a variant's figures, with half their range; None without any."""
    found_of = (_report(options, name, seed) for seed in seeds)
    reports = [report for report in found_of if report is not None]
    if not reports:
        return None
    found: dict[str, Any] = {
        "seeds": len(reports),
        "parameters": reports[0]["checkpoint"]["parameters"],
        "paper_parameters": _paper_parameters(VARIANTS[name].paper),
        "images": reports[0]["checkpoint"]["trained_on_images"],
    }
    for label, path in COLUMNS.items():
        found[label] = _summary([_figure(report, path) for report in reports])
    found["leakage"] = _summary([_leakage(report) for report in reports])
    return found


def _figure(report: dict[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = report["results"]
    for key in path:
        value = None if value is None else value.get(key)
    return value


def _leakage(report: dict[str, Any]) -> float:
    """The mean over groups of the change far outside, as a share of the change inside."""
    groups = report["results"]["locality"]["per_group"].values()
    return mean(part["leak_far"] or 0.0 for part in groups)


def _summary(values: Sequence[float | None]) -> dict[str, float] | None:
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {"mean": mean(known), "half_range": (max(known) - min(known)) / 2}


def _paper_parameters(preset: str) -> int:
    return count_parameters(Generator(config.preset(preset).model))


def markdown(document: dict[str, Any]) -> str:
    """The tables of ablation.json."""
    options, variants = document["options"], document["variants"]
    lines = [
        "# Ablations",
        "",
        f"Preset {options['preset']} with depth {DEPTH}, "
        f"{options['resolution'] or 'its last'} pixels, {options['images']:,} images of "
        f"{options['data']} faces for each variant (a variant without stage 2 ends earlier), seeds "
        f"{options['seeds']}; measured on {options['count']:,} generated pictures. Lower is better "
        "but for the parse mIoU. With several seeds, ± is half the range.",
    ]
    head = ["variant", "parameters", "at the paper's size", "images", *COLUMNS, "far leakage"]
    for title, names in TABLES.items():
        rows = [
            [
                VARIANTS[name].title,
                *(variants[name][key] for key in ("parameters", "paper_parameters", "images")),
                *(_cell(variants[name][key]) for key in (*COLUMNS, "leakage")),
            ]
            for name in names
            if name in variants
        ]
        if rows:
            lines += ["", f"## {title}", "", *table(head, rows)]
    return "\n".join(lines) + "\n"


def _cell(summary: dict[str, float] | None) -> str:
    if summary is None:
        return format_number(None)
    shown = format_number(summary["mean"])
    return f"{shown} ± {format_number(summary['half_range'])}" if summary["half_range"] else shown


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(AblationOptions, ablate, argv, name="evaluate ablate")
