"""A run: its data, where it starts, the loop over its steps, and signals.

`trainer.py` is one step, `run_folder.py` what is written, `settings.py` what is set.
"""

import json
import signal
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.dataset import FaceDataset
from ..errors import UserError
from ..files import write_text
from ..model import checkpoint
from ..model.config import Config
from ..model.config_values import to_dict
from ..model.generator import count_parameters
from ..model.growth import check_growth
from ..procedural.sources import open_training_data
from ..threads import FairThreads
from .distributed import World, join_world
from .run_folder import Cadence, Run, RunWriter, TrainingData, locked, new_run_folder
from .trainer import NonFiniteLossError, Trainer

PROCEDURAL_COUNT = 2000
FEW = {"tiny": 200}  # procedural faces of presets for tests, drawn in half a minute


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What a run is: new, or one that goes on.

    data: None to go on with the data of the run that is resumed.
    state: of the run that is resumed, from `resume`.
    """

    config: Config
    seed: int
    data: TrainingData | None
    out: Path  # where a new run's folder is made
    device: torch.device
    cadence: Cadence
    resume: Path | None = None
    state: dict[str, Any] | None = None
    init: Path | None = None
    tensorboard: bool = False


def train(plan: RunPlan) -> Path:
    """Set a run up, train both stages, leave weights behind, and return the run's folder."""
    world = join_world(plan.device.type)
    try:
        if plan.device.type == "cuda" and world.size > 1:
            device = torch.device("cuda", world.local_rank)
            torch.cuda.set_device(device)
            plan = replace(plan, device=device)
        with ExitStack() as stack:
            if plan.resume is not None and world.is_main:
                stack.enter_context(locked(plan.resume))
            run = _start(plan, world)
            if plan.resume is None and world.is_main:
                stack.enter_context(locked(run.folder))
            writer = (
                RunWriter(run, plan.cadence, tensorboard=plan.tensorboard)
                if world.is_main
                else None
            )
            _loop(run, writer)
            return run.folder
    finally:
        world.close()


def _start(plan: RunPlan, world: World) -> Run:
    trainer = Trainer(plan.config, seed=plan.seed, device=plan.device, world=world)
    if plan.state is not None:
        trainer.load_state(plan.state)
        if trainer.completed >= trainer.total_steps and world.is_main:
            print(
                f"{plan.resume}: all {trainer.completed} steps are done; its weights are written "
                "again. --stage1-iterations and --stage2-iterations set more steps",
                file=sys.stderr,
            )
    elif plan.init is not None:
        _start_from(trainer, plan.init)
    source = _source(plan)
    faces = _open(source, plan, world)
    folder = plan.resume or plan.out
    if world.is_main:
        if plan.resume is None:
            folder = new_run_folder(plan.out, f"{plan.config.preset}-{source.name}")
        write_text(folder / "config.json", json.dumps(to_dict(plan.config), indent=2) + "\n")
        print(f"{folder}: {_summary(trainer, faces, world)}", file=sys.stderr)
    return Run(folder, plan.config, trainer, faces, world, source)


def _source(plan: RunPlan) -> TrainingData:
    """The data of the plan, else those of the run that is resumed, else procedural faces."""
    if plan.data is not None:
        return plan.data
    state = plan.state or {}
    path = Path(state["data"]) if state.get("data") else None
    return TrainingData(path, state.get("procedural_count") or PROCEDURAL_COUNT)


def _open(source: TrainingData, plan: RunPlan, world: World) -> FaceDataset:
    with world.main_first():  # it packs the data, which the others then find
        faces = open_training_data(
            source.path,
            resolution=max(phase.resolution for phase in plan.config.train.phases),
            procedural_count=source.procedural_count,
        )
    before = plan.state.get("data_sha256") if plan.state is not None else None
    if before not in (None, faces.info.get("sha256")):
        where = source.path or "procedural faces"
        if plan.data is None:
            raise UserError(
                f"--resume {plan.resume}: its data ({where}) have changed since: restore them, "
                "or pass --data or --procedural-count to continue with others"
            )
        if world.is_main:
            print(f"continuing with other data: {where}", file=sys.stderr)
    return faces


def _summary(trainer: Trainer, faces: FaceDataset, world: World) -> str:
    known = int(np.isfinite(faces.poses).all(1).sum())
    return (
        f"{len(faces)} faces ({known} with a pose) at {faces.resolution}x{faces.resolution}, "
        f"generator {count_parameters(trainer.generator):,} parameters, D_c "
        f"{count_parameters(trainer.d_image):,}, D_s {count_parameters(trainer.d_semantic):,}, "
        f"{trainer.images_before(trainer.total_steps):,} images on {trainer.device} x {world.size}"
        f", layers by {trainer.layers.backend}, {trainer.layers.precision}"
    )


def _start_from(trainer: Trainer, path: Path) -> None:
    path = checkpoint.locate_weights(path)
    generator, config = checkpoint.load_generator(path)
    try:
        check_growth(config.model, trainer.config.model)
    except UserError as error:
        raise UserError(
            f"--init {path}: {error}: give --preset {config.preset}, or other weights"
        ) from None
    beside, networks = checkpoint.discriminators_beside(path), None
    if beside.exists():
        networks, theirs = checkpoint.load_discriminators(beside)
        if theirs.discriminator.channels != trainer.config.discriminator.channels:
            raise UserError(f"--init {path}: the discriminators beside it have other channels")
    trainer.start_from(generator, networks)
    which = "with the discriminators beside it" if networks else "with fresh discriminators"
    if networks and trainer.d_image.inputs > networks[0].inputs:
        which += ", whose D_c now learns to read label maps"
    print(f"starting from {path}, {which}", file=sys.stderr)


def _loop(run: Run, writer: RunWriter | None) -> None:
    """Train until the last step, a signal, or a loss that is no number."""
    trainer = run.trainer
    with _Signals() as signals, FairThreads() as threads:
        if writer is not None:
            writer.show(signals.stopping)  # what a run that was stopped had not come to
        _leave_if_stopped(signals, run, writer)
        while trainer.completed < trainer.total_steps:
            threads.step()
            try:
                trainer.step(run.data)
            except NonFiniteLossError as error:
                raise UserError(
                    f"{error}: stopped before any weight changed; the last checkpoint in "
                    f"{run.folder} is usable. Look at metrics.jsonl, lower a learning rate, or "
                    f"resume with --resume {run.folder}"
                ) from None
            if writer is not None:
                writer.after_step(signals.stopping)
            _leave_if_stopped(signals, run, writer)
    if writer is not None:
        writer.finish()


def _leave_if_stopped(signals: "_Signals", run: Run, writer: RunWriter | None) -> None:
    """Save the state and leave, where this process or another one of the run got a signal."""
    if run.world.any(signals.stopping(), run.trainer.device):
        if writer is not None:
            writer.save_state()
        raise SystemExit(128 + (signals.received or signal.SIGTERM))


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

    def stopping(self) -> bool:
        return self.received is not None

    def _note(self, number: int, _frame: object) -> None:
        if self.received is not None:
            raise KeyboardInterrupt
        self.received = number
        print("\nstopping after this step; the state will be saved", file=sys.stderr)
