"""Train SemFaceEdit in two stages (Eq. 6-8): `python -m semfaceedit.train`.

This file is the run: options, data, resuming, logging, samples, checkpoints and signals.
`trainer.py` is one step of it.
"""

import contextlib
import json
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .cli import print_json, run_command, select_device, wrote
from .data import dataset as data
from .data.sources import open_training_data
from .errors import UserError
from .memory import keep_freed_memory
from .metrics.generator_checks import report
from .model import checkpoint, config
from .model.config import Config, Phase
from .model.generator import count_parameters
from .pictures.grids import sample_grid, save_png
from .training.distributed import World, join_world
from .training.monitor import Monitor, RateDisplay, manifold_warning
from .training.trainer import NonFiniteLossError, Trainer

PROCEDURAL_COUNT = 2000


@dataclass(kw_only=True)
class Options:
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


@dataclass(frozen=True)
class Run:
    """A run folder with its settings, data and trainer."""

    folder: Path
    config: Config
    trainer: Trainer
    data: data.FaceDataset
    world: World


def train(options: Options, settings: Config | None = None) -> None:
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


def _check(options: Options) -> None:
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


def _settings(options: Options, state: dict[str, Any] | None) -> Config:
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
    options: Options,
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
        checkpoint.write_text(
            folder / "config.json", json.dumps(config.to_dict(settings), indent=2) + "\n"
        )
        known = int(np.isfinite(faces.poses).all(1).sum())
        print(
            f"{folder}: {len(faces)} faces ({known} with a pose) at {faces.resolution}x"
            f"{faces.resolution}, generator "
            f"{count_parameters(trainer.generator):,} parameters, D_c "
            f"{count_parameters(trainer.d_image):,}, D_s {count_parameters(trainer.d_semantic):,}, "
            f"{trainer.images_before(trainer.total_steps):,} images on {device} x {world.size}",
            file=sys.stderr,
        )
    return Run(folder or options.out, settings, trainer, faces, world)


def _open_data(
    options: Options, settings: Config, state: dict[str, Any] | None, world: World
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
    if replace(found.model, resolution=0) != replace(trainer.run.model, resolution=0):
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


def _source_name(source: Path | None) -> str:
    return source.resolve().name if source else "procedural"


def new_run_folder(out: Path, name: str) -> Path:
    """Make and return `out/NNNNN-name`, NNNNN one more than the largest there."""
    out.mkdir(parents=True, exist_ok=True)
    while True:
        numbers = [int(path.name[:5]) for path in out.iterdir() if path.name[:5].isdecimal()]
        folder = out / f"{max(numbers, default=-1) + 1:05d}-{name}"
        with contextlib.suppress(FileExistsError):  # another run took the name a moment ago
            folder.mkdir()
            return folder


def _loop(options: Options, run: Run) -> None:
    """Train until the last step, a signal, or a loss that is no number."""
    trainer, world = run.trainer, run.world
    writer = _Writer(options, run) if world.is_main else None
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


class _Writer:
    """What the main process writes: metrics.jsonl, sample grids, states and weights."""

    def __init__(self, options: Options, run: Run):
        self.options, self.run, self.trainer = options, run, run.trainer
        self.monitor: Monitor | None = None
        self.display = RateDisplay(self.trainer.total_steps, self.trainer.completed)
        self.metrics = run.folder / "metrics.jsonl"
        self._drop_metrics_after(self.trainer.completed)
        self.tensorboard = _tensorboard(run.folder) if options.tensorboard else None
        self.lap = time.monotonic(), self.trainer.completed  # when the last log line was written
        self.warned = False

    def after_step(self) -> None:
        done, options = self.trainer.completed, self.options
        last = done == self.trainer.total_steps
        if done % options.log_every == 0 or last:
            self._log(dict(self.trainer.latest))
        if done % options.monitor_every == 0 or last:
            self._measure()
        if done % options.sample_every == 0 or last:
            self._samples()
        if done % options.checkpoint_every == 0 or last:
            self.save_state()

    def save_state(self) -> None:
        state = self.trainer.state()
        state["procedural_count"] = self.options.procedural_count
        state["data"] = str(self.options.data.resolve()) if self.options.data else ""
        state["data_sha256"] = self.run.data.info.get("sha256")
        checkpoint.save_state(self.run.folder, self.trainer.completed, state)

    def finish(self) -> None:
        """Write the averaged weights, which `render` and editing use, and report.json."""
        images = self.trainer.images_before(self.trainer.completed)
        for average, decay in zip(
            self.trainer.averages, self.run.config.train.ema_decays, strict=True
        ):
            path = self.run.folder / f"generator-ema{decay}.safetensors"
            checkpoint.save_generator(
                path, average, self.run.config, images=images, ema_decay=decay
            )
            wrote(path)
        path = self.run.folder / "report.json"
        facts = report(self.trainer.averages[0], self.run.config.model.resolution)
        checkpoint.write_text(path, json.dumps(facts, indent=2) + "\n")
        wrote(path)

    def _log(self, log: dict[str, Any]) -> None:
        done, trainer = self.trainer.completed, self.trainer
        start, first = self.lap
        self.lap = time.monotonic(), done
        seconds, steps = self.lap[0] - start, done - first
        phase, _ = trainer.phase(done - 1)
        record: dict[str, Any] = {
            "step": done,
            "images": trainer.images_before(done),
            "stage": trainer.stage(done - 1),
            "resolution": phase.resolution,
            "seconds": round(seconds, 3),
            "images_per_second": round(steps * phase.batch / seconds, 2) if seconds else None,
        }
        weights = log.pop("weights").cpu()
        record.update({name: float(value) for name, value in log.items()})
        record["manifold_weights"] = [round(value, 4) for value in weights.tolist()]
        self._append(record)
        note = f"D_c {record['d_image']:.2f} G {record['g_image']:.2f} {phase.resolution}px"
        self.display.update(done, record["images"], record["images_per_second"] or 0.0, note)
        warning = manifold_warning(weights, self.run.config.train.collapse_share)
        if warning and not self.warned:
            self.display.message(f"warning: {warning}")
        self.warned = warning is not None

    def _measure(self) -> None:
        if self.monitor is None:
            self.monitor = Monitor(self.run.data, self.run.config.train.rare_share)
        phase, _ = self.trainer.phase(self.trainer.completed - 1)
        values = self.monitor.measure(self.trainer.averages[0], phase.resolution)
        self._append({"step": self.trainer.completed, **values})
        self.display.message(
            f"step {self.trainer.completed}: pixel Frechet distance, images "
            f"{values['frechet_image']:.4f}, semantic maps {values['frechet_semantic']:.4f}"
        )

    def _samples(self) -> None:
        phase, _ = self.trainer.phase(self.trainer.completed - 1)
        grid = sample_grid(
            self.trainer.averages[0], seeds=list(range(6)), resolution=phase.resolution
        )
        path = self.run.folder / f"samples-{self.trainer.completed:08d}.png"
        save_png(path, grid, scale=max(1, 64 // phase.resolution))

    def _append(self, record: dict[str, Any]) -> None:
        with open(self.metrics, "a") as file:
            file.write(json.dumps(record) + "\n")
        if self.tensorboard is not None:
            for name, value in record.items():
                if isinstance(value, float):
                    self.tensorboard.add_scalar(name, value, record["step"])

    def _drop_metrics_after(self, step: int) -> None:
        """Remove lines that a killed run wrote after the state that is resumed."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text().splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except ValueError:  # the line that was being written when the run was killed
                continue
        checkpoint.write_text(self.metrics, "".join(f"{line}\n" for line in kept))


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs tensorboard: pip install 'semfaceedit[tb]'") from None
    return SummaryWriter(str(folder))


def main(argv: list[str] | None = None) -> int:
    return run_command(Options, train, argv, name="train")


if __name__ == "__main__":
    raise SystemExit(main())
