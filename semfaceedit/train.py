"""Train SemFaceEdit in two stages (Eq. 6-8): `python -m semfaceedit.train`.

This file is the run: options, data, resuming, logging, samples, checkpoints and signals.
`trainer.py` is one step of it.
"""

import json
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .cli import print_json, run_command, select_device
from .data import dataset as data
from .data.sources import open_training_data
from .errors import UserError
from .files import write_text
from .memory import keep_freed_memory
from .model import checkpoint, config
from .model.config import Config, ModelConfig, Phase
from .model.generator import count_parameters
from .training.distributed import World, join_world
from .training.run_folder import Cadence, Run, RunWriter, new_run_folder
from .training.trainer import NonFiniteLossError, Trainer

PROCEDURAL_COUNT = 2000


@dataclass(kw_only=True)
class TrainOptions:
    """Train a generator in two stages and write a run folder.

    Example: semfaceedit train --preset small --data CelebAMask-HQ --out runs

    Without --data, procedural faces are made first. A run that was stopped, or killed, goes on with
    --resume RUN_FOLDER. Several GPUs: torchrun --nproc-per-node 4 -m semfaceedit.train ...
    """

    preset: str | None = None
    """paper, small, tiny or an ablation variant (default: small)."""
    data: Path | None = None
    """Training data in any layout; none: the data of the run that is resumed, else procedural
    faces."""
    out: Path = Path("runs")
    """Where numbered run folders are made."""
    resume: Path | None = None
    """A run folder to go on with; its own settings are used."""
    init: Path | None = None
    """Weights to start from (.safetensors) with fresh optimisers, and the discriminators beside
    them where there are any."""
    seed: int | None = None
    """Seed of weights, latents, poses and data order of a new run (default: 0)."""
    device: str | None = None
    """cpu, cuda or cuda:N (default: CUDA where there is one)."""
    precision: str | None = None
    """Of the generator's layers on a CPU, forward and back: auto, fp32, accurate or fast (default:
    the preset's, auto: accurate on a CPU with AMX, else fp32)."""
    resolution: int | None = None
    """Train at this resolution only, instead of the preset's phases."""
    phases: tuple[str, ...] = ()
    """Other phases of stage 1, each RESOLUTION:STEPS, as in --phases 16:2500 32:3300 64:2000."""
    stage1_iterations: int | None = None
    """Steps of stage 1, everything trained (default: the preset's)."""
    stage2_iterations: int | None = None
    """Steps of stage 2, geometry frozen (default: the preset's)."""
    procedural_count: int | None = None
    """How many procedural faces to make, in place of --data (default: as many as the run that is
    resumed had, else 2000)."""
    rare_share: float | None = None
    """Show faces of classes that a smaller share of the label maps has (glasses, hats, necklaces)
    more often in a new run, as in --rare-share 0.25 (default: the preset's, 0)."""
    paired: bool = False
    """In a new run D_c reads each image together with its label map, so that glasses and hats come
    in both or in neither (the paper's D_c reads the image alone)."""
    sample_every: int = 500
    """Steps between sample grids."""
    checkpoint_every: int = 500
    """Steps between checkpoints."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    monitor_every: int = 1000
    """Steps between pixel Frechet distances."""
    tensorboard: bool = False
    """Also write TensorBoard events (needs the `tb` extra)."""
    dry_run: bool = False
    """Print the settings and stop."""


def run(options: TrainOptions, settings: Config | None = None) -> None:
    """Set the run up, train both stages, and leave weights behind.

    settings: of a new run, in place of the preset that the options name.
    """
    _check(options)
    device = select_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    world = join_world(device.type)
    try:
        if device.type == "cuda" and world.size > 1:
            device = torch.device("cuda", world.local_rank)
            torch.cuda.set_device(device)
        state = checkpoint.load_state(options.resume) if options.resume else None
        if settings is None or state is not None:
            settings = _settings(options, state)
        if options.dry_run:
            print_json(config.to_dict(settings))
            return
        run = _start(options, settings, state, device, world)
        _loop(options, run)
    finally:
        world.close()


def _check(options: TrainOptions) -> None:
    """Refuse what no run can have, before anything is read or made."""
    for name, least in (
        ("sample_every", 1), ("checkpoint_every", 1), ("log_every", 1), ("monitor_every", 1),
        ("procedural_count", 1), ("seed", 0), ("stage1_iterations", 0), ("stage2_iterations", 0),
    ):  # fmt: skip
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least {least}")
    if options.data is not None and options.procedural_count is not None:
        raise UserError("--procedural-count makes faces in place of --data: leave out one of them")
    there = next(path for path in (options.out, *options.out.parents) if path.exists())
    if options.resume is None and not there.is_dir():
        raise UserError(f"--out {options.out}: {there} is no folder: choose another")


def _settings(options: TrainOptions, state: dict[str, Any] | None) -> Config:
    if state is not None:
        settings = config.from_dict(json.loads(state["config"]))
        if options.preset not in (None, settings.preset):
            raise UserError(
                f"--resume {options.resume} is a run of preset {settings.preset!r}, not "
                f"{options.preset!r}: leave --preset out, or start a new run"
            )
        if options.seed not in (None, state["seed"]):
            raise UserError(
                f"--resume {options.resume} is a run of seed {state['seed']}, not {options.seed}: "
                "leave --seed out, or start a new run"
            )
        if options.resolution is not None:
            raise UserError("--resolution sets a new run: leave out --resume")
        if options.init is not None:
            raise UserError("--init starts a new run: leave out --resume")
    else:
        settings = config.preset(options.preset or "small")
    changes: dict[str, Any] = {}
    if options.stage1_iterations is not None:
        changes["stage1_iterations"] = options.stage1_iterations
    if options.stage2_iterations is not None:
        changes["stage2_iterations"] = options.stage2_iterations
    if options.precision is not None:
        changes["cpu_precision"] = options.precision
    if options.rare_share is not None:
        if state is not None or not 0 <= options.rare_share <= 1:
            raise UserError(
                f"--rare-share {options.rare_share:g} must be from 0 to 1, and sets a new run: "
                "leave out --resume"
            )
        changes["rare_share"] = options.rare_share
    model, discriminator = settings.model, settings.discriminator
    if options.paired:
        if state is not None and not discriminator.paired:
            raise UserError("--paired sets a new run: leave out --resume")
        discriminator = replace(discriminator, paired=True)
    if options.phases:
        if state is not None or options.resolution or options.stage1_iterations is not None:
            raise UserError(
                "--phases sets the resolutions and steps of a new run: leave out --resume, "
                "--resolution and --stage1-iterations"
            )
        phases = _phases(options.phases, batch=settings.train.phases[-1].batch)
        changes["phases"], changes["stage1_iterations"] = phases
        model = replace(model, resolution=phases[0][-1].resolution)
    if options.resolution is not None:
        batch = settings.train.phases[-1].batch
        changes["phases"] = (Phase(until=1.0, resolution=options.resolution, batch=batch),)
        model = replace(model, resolution=options.resolution)
    train = replace(settings.train, **changes)
    if train.stage1_iterations + train.stage2_iterations < 1:
        raise UserError("--stage1-iterations 0 --stage2-iterations 0: a run needs a step")
    return replace(settings, model=model, discriminator=discriminator, train=train)


def _phases(texts: tuple[str, ...], *, batch: int) -> tuple[tuple[Phase, ...], int]:
    """Phases from RESOLUTION:STEPS texts, and the steps of all of them."""
    pairs: list[tuple[int, int]] = []
    for text in texts:
        before, _, after = text.partition(":")
        if not (before.isdecimal() and after.isdecimal() and int(after) > 0):
            raise UserError(f"--phases {text!r}: write RESOLUTION:STEPS, such as 32:3000")
        pairs.append((int(before), int(after)))
    total, done, phases = sum(steps for _, steps in pairs), 0, []
    for resolution, steps in pairs:
        done += steps
        phases.append(Phase(until=done / total, resolution=resolution, batch=batch))
    return tuple(phases), total


def _start(
    options: TrainOptions,
    settings: Config,
    state: dict[str, Any] | None,
    device: torch.device,
    world: World,
) -> Run:
    seed = state["seed"] if state else options.seed or 0
    trainer = Trainer(settings, seed=seed, device=device, world=world)
    folder = options.resume
    if state is not None:
        trainer.load_state(state)
    elif options.init is not None:
        _start_from(trainer, options.init)
    faces = _open_data(options, settings, state, world)
    if world.is_main:
        if folder is None:
            folder = new_run_folder(options.out, f"{settings.preset}-{_source_name(options.data)}")
        write_text(folder / "config.json", json.dumps(config.to_dict(settings), indent=2) + "\n")
        known = int(np.isfinite(faces.poses).all(1).sum())
        print(
            f"{folder}: {len(faces)} faces ({known} with a pose) at {faces.resolution}x"
            f"{faces.resolution}, generator "
            f"{count_parameters(trainer.generator):,} parameters, D_c "
            f"{count_parameters(trainer.d_image):,}, D_s {count_parameters(trainer.d_semantic):,}, "
            f"{trainer.images_before(trainer.total_steps):,} images on {device} x {world.size}, "
            f"layers by {trainer.layers.backend}, {trainer.layers.precision}",
            file=sys.stderr,
        )
    return Run(
        folder or options.out,
        settings,
        trainer,
        faces,
        world,
        options.data,
        options.procedural_count,
    )


def _open_data(
    options: TrainOptions, settings: Config, state: dict[str, Any] | None, world: World
) -> data.FaceDataset:
    """The data that the options name, else those of the run that is resumed, else procedural
    faces; the options then name what was opened."""
    named = options.data is not None or options.procedural_count is not None
    if state is not None and not named:
        options.data = Path(state["data"]) if state["data"] else None
        options.procedural_count = state.get("procedural_count")
    options.procedural_count = options.procedural_count or PROCEDURAL_COUNT
    if not world.is_main:
        world.barrier()  # the main process packs the data first
    faces = open_training_data(
        options.data,
        resolution=max(phase.resolution for phase in settings.train.phases),
        procedural_count=options.procedural_count,
    )
    if world.is_main:
        world.barrier()
    before = state.get("data_sha256") if state is not None else None
    if before not in (None, faces.info.get("sha256")):
        if not named:
            raise UserError(
                f"--resume {options.resume}: its data ({options.data or 'procedural faces'}) have "
                "changed since: bring them back, or name those to go on with by --data or "
                "--procedural-count"
            )
        if world.is_main:
            print(
                f"going on with other data: {options.data or 'procedural faces'}", file=sys.stderr
            )
    return faces


def _start_from(trainer: Trainer, path: Path) -> None:
    generator, found = checkpoint.load_generator(path)
    if _shape(found.model) != _shape(trainer.run.model):
        raise UserError(
            f"--init {path}: its model has other settings than this run's (it is of preset "
            f"{found.preset!r}): give --preset {found.preset}, or other weights"
        )
    beside, networks = checkpoint.discriminators_beside(path), None
    if beside.exists():
        networks, theirs = checkpoint.load_discriminators(beside)
        if theirs.discriminator.channels != trainer.run.discriminator.channels:
            raise UserError(f"--init {path}: the discriminators beside it have other channels")
    trainer.start_from(generator, networks)
    which = "with the discriminators beside it" if networks else "with fresh discriminators"
    if networks and trainer.d_image.inputs > networks[0].inputs:
        which += ", whose D_c now learns to read label maps"
    print(f"starting from {path}, {which}", file=sys.stderr)


def _shape(model: ModelConfig) -> ModelConfig:
    """What weights depend on: all but the resolution and the spread of poses."""
    return replace(model, resolution=0, camera=replace(model.camera, yaw_std=0, pitch_std=0))


def _source_name(source: Path | None) -> str:
    return source.resolve().name if source else "procedural"


def _loop(options: TrainOptions, run: Run) -> None:
    """Train until the last step, a signal, or a loss that is no number."""
    trainer, world = run.trainer, run.world
    writer = _writer(options, run) if world.is_main else None
    with _Signals() as signals:
        while trainer.completed < trainer.total_steps:
            try:
                trainer.step(run.data)
            except NonFiniteLossError as error:
                raise UserError(
                    f"{error}: stopped before any weight changed; the last checkpoint in "
                    f"{run.folder} is usable. Look at metrics.jsonl, lower a learning rate, or "
                    f"resume with --resume {run.folder}"
                ) from None
            if writer is not None:
                writer.after_step()
            if world.any(signals.received is not None, trainer.device):
                if writer is not None:
                    writer.save_state()
                raise SystemExit(128 + (signals.received or signal.SIGTERM))
    if writer is not None:
        writer.finish()


def _writer(options: TrainOptions, run: Run) -> RunWriter:
    cadence = Cadence(
        log=options.log_every,
        monitor=options.monitor_every,
        samples=options.sample_every,
        checkpoint=options.checkpoint_every,
    )
    return RunWriter(run, cadence, tensorboard=options.tensorboard)


class _Signals:
    """Within the block, notes SIGTERM and SIGINT, so that the step in progress ends and is saved;
    a second one interrupts at once."""

    def __init__(self) -> None:
        self.received: int | None = None

    def __enter__(self) -> "_Signals":
        self.before = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(self, *_error: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _frame: object) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        print("\nstopping after this step; the state will be saved", file=sys.stderr)


def main(argv: list[str] | None = None) -> int:
    return run_command(TrainOptions, run, argv, name="train")


if __name__ == "__main__":
    raise SystemExit(main())
