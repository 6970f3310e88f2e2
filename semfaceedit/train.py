"""Train SemFaceEdit in two stages (Eq. 6-8): `python -m semfaceedit.train`."""

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from .cli import print_json, run_command, select_device
from .errors import UserError, meant
from .memory import keep_freed_memory
from .model.checkpoint import load_state
from .model.config import Config, preset
from .model.config_values import from_dict, to_dict, typed
from .outputs import FOLDER
from .training.run import FEW, PROCEDURAL_COUNT, RunPlan, train
from .training.run_folder import Cadence, TrainingData
from .training.settings import (
    changed,
    read_assignments,
    read_settings_file,
    with_batch,
    with_phases,
    with_resolution,
)
from .usage import Within, check_ranges, is_given

NEW_RUN = ("out", "config", "set", "batch", "phases", "resolution", "rare_share", "init")
OF_FILE = (  # options that a file of settings may hold
    "preset", "init", "paired", "phases", "batch", "resolution", "rare_share", "seed",
    "stage1_iterations", "stage2_iterations", "procedural_count",
)  # fmt: skip


@dataclass(kw_only=True)
class TrainOptions:
    """Train a generator in two stages and write a run folder.

    Example: semfaceedit train --preset small --data CelebAMask-HQ --out runs

    Without --data, procedural faces are rendered first. A run that was stopped or killed continues
    with --resume RUN_FOLDER. Several GPUs: torchrun --nproc-per-node 4 -m semfaceedit.train ...
    """

    preset: str | None = None
    """paper, medium, small, tiny or an ablation variant (default: small)."""
    data: Path | None = None
    """Training data in any supported layout (default: procedural faces, or the data of the run that
    is resumed)."""
    out: Annotated[Path, FOLDER] = Path("runs")
    """Folder in which to create a numbered run folder."""
    config: Path | None = None
    """TOML file that describes a new run: options such as preset = "small" or phases = ["64:2000"],
    then tables [train], [model] and [discriminator] with the fields that config.json has. Options
    on the command line take precedence."""
    set: tuple[str, ...] = ()
    """Single settings of a new run, e.g. train.generator_lr=2e-4 model.width=96."""
    batch: Annotated[int | None, Within(1)] = None
    """Images per step of a new run (default: the preset's)."""
    resume: Path | None = None
    """Run folder to continue, with its settings."""
    init: Path | None = None
    """Weights to start a new run from (a .safetensors file, or the name of weights in the package),
    with fresh optimisers; discriminators beside the file are used too."""
    seed: int | None = None
    """Random seed of a new run: weights, latents, poses and data order (default: 0)."""
    device: str | None = None
    """cpu, cuda or cuda:N (default: CUDA if available)."""
    resolution: Annotated[int | None, Within(1)] = None
    """Train at this resolution only, instead of the preset's phases."""
    phases: tuple[str, ...] = ()
    """Phases of stage 1, each RESOLUTION:STEPS, e.g. 16:2500 32:3300 64:2000, or
    RESOLUTION/WINDOW:STEPS, e.g. 128/64:2000, for random windows of so many pixels (default: the
    preset's)."""
    stage1_iterations: Annotated[int | None, Within(0)] = None
    """Steps of stage 1, which trains everything (default: the preset's)."""
    stage2_iterations: Annotated[int | None, Within(0)] = None
    """Steps of stage 2, with the geometry frozen (default: the preset's)."""
    procedural_count: Annotated[int | None, Within(1, 10_000_000)] = None
    """Number of procedural faces, instead of --data (default: 2000, of preset tiny 200, or that of
    the run that is resumed)."""
    rare_share: Annotated[float | None, Within(0, 1)] = None
    """Oversample faces with classes present in less than this share of label maps (glasses, hats,
    necklaces), e.g. 0.25; for a new run (default: the preset's, 0)."""
    paired: bool = False
    """Let the image discriminator of a new run read each image together with its label map, so that
    glasses and hats appear in both or in neither (in the paper it reads the image alone)."""
    sample_every: Annotated[int, Within(1)] = 500
    """Steps between sample grids."""
    checkpoint_every: Annotated[int, Within(1)] = 500
    """Steps between checkpoints."""
    log_every: Annotated[int, Within(1)] = 20
    """Steps between lines in metrics.jsonl."""
    monitor_every: Annotated[int, Within(1)] = 1000
    """Steps between measurements of the pixel Fréchet distance."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs `pip install 'semfaceedit[tb]'`)."""
    dry_run: bool = False
    """Print the settings as JSON and stop."""


def run(options: TrainOptions) -> None:
    """Train what the options say."""
    changes: dict[str, Any] = {}
    if options.config is not None:
        options, changes = _with_file(options, options.config)
    _check(options)
    state = load_state(options.resume) if options.resume else None
    config = _resumed(options, state) if state is not None else _new(options, changes)
    config = _with_iterations(options, config)
    if options.dry_run:
        print_json(to_dict(config))
        return
    device = select_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    train(
        RunPlan(
            config=config,
            seed=state["seed"] if state is not None else options.seed or 0,
            data=_data(options, config),
            out=options.out,
            device=device,
            cadence=Cadence(
                log=options.log_every,
                monitor=options.monitor_every,
                samples=options.sample_every,
                checkpoint=options.checkpoint_every,
            ),
            resume=options.resume,
            state=state,
            init=options.init,
            tensorboard=options.tensorboard,
        )
    )


def _with_file(options: TrainOptions, path: Path) -> tuple[TrainOptions, dict[str, Any]]:
    """The options with those of a file of settings where the command line has none, and the
    settings that the file changes."""
    values, changes = read_settings_file(path)
    hints = get_type_hints(TrainOptions)
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in OF_FILE:
            raise UserError(
                f"--config {path}: no option {name!r} in a file{meant(name, OF_FILE)}: use "
                f"{', '.join(OF_FILE)}"
            )
        try:
            given[name] = typed(value, hints[name])
        except UserError as error:
            raise UserError(f"--config {path}: {name} = {value!r}: {error}") from None
    unset = {f.name for f in fields(TrainOptions) if getattr(options, f.name) == f.default}
    return replace(options, **{n: v for n, v in given.items() if n in unset}), changes


def _check(options: TrainOptions) -> None:
    """Refuse what no run can have, before anything is read or made."""
    check_ranges(options)  # again, as a file may have said more
    if options.data is not None and options.procedural_count is not None:
        raise UserError("--procedural-count makes faces in place of --data: leave out one of them")
    if options.phases and (options.resolution or options.stage1_iterations is not None):
        raise UserError(
            "--phases sets resolutions and steps: leave out --resolution and --stage1-iterations"
        )


def _resumed(options: TrainOptions, state: dict[str, Any]) -> Config:
    """The settings of the run that is resumed, which no option may change."""
    config = from_dict(json.loads(state["config"]))
    for name in NEW_RUN:
        if is_given(options, name):
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} sets a new run: leave it out, or leave out --resume")
    if options.paired and not config.discriminator.paired:
        raise UserError("--paired sets a new run: leave it out, or leave out --resume")
    for name, value, given in (
        ("preset", config.preset, options.preset),
        ("seed", state["seed"], options.seed),
    ):
        if given not in (None, value):
            raise UserError(
                f"--resume {options.resume} is a run of {name} {value!r}, not {given!r}: leave "
                f"--{name} out, or start a new run"
            )
    return config


def _new(options: TrainOptions, changes: dict[str, Any]) -> Config:
    config = changed(preset(options.preset or "small"), changes, where=f"--config {options.config}")
    config = changed(config, read_assignments(options.set), where="--set")
    if options.paired:
        config = replace(config, discriminator=replace(config.discriminator, paired=True))
    if options.rare_share is not None:
        config = replace(config, train=replace(config.train, rare_share=options.rare_share))
    if options.phases:
        try:
            config = with_phases(config, options.phases)
        except UserError as error:
            raise UserError(f"--phases {error}") from None
    if options.resolution is not None:
        config = with_resolution(config, options.resolution)
    return config if options.batch is None else with_batch(config, options.batch)


def _with_iterations(options: TrainOptions, config: Config) -> Config:
    given = {
        name: value
        for name in ("stage1_iterations", "stage2_iterations")
        if (value := getattr(options, name)) is not None
    }
    train = replace(config.train, **given)
    if train.stage1_iterations + train.stage2_iterations < 1:
        raise UserError("--stage1-iterations 0 --stage2-iterations 0: a run needs a step")
    return replace(config, train=train)


def _data(options: TrainOptions, config: Config) -> TrainingData | None:
    """What the options name; for a new run, procedural faces where they name nothing."""
    if options.data is None and options.procedural_count is None and options.resume is not None:
        return None
    usual = FEW.get(config.preset, PROCEDURAL_COUNT)
    return TrainingData(options.data, options.procedural_count or usual)


def main(argv: list[str] | None = None) -> int:
    return run_command(TrainOptions, run, argv, name="train")


if __name__ == "__main__":
    raise SystemExit(main())
