"""The folder of a run: metrics, samples, checkpoints and the report."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..cli import wrote
from ..data.dataset import FaceDataset
from ..errors import UserError
from ..files import try_lock, write_text
from ..metrics.generator_checks import report
from ..model import checkpoint
from ..model.config import Config
from ..model.renderer import affordable_rays
from ..pictures.grids import sample_grid, save_png
from .distributed import World
from .monitor import Monitor, RateDisplay, manifold_warning
from .trainer import Trainer

WARN_AFTER = 200  # steps; before them the manifolds' weights say little


@dataclass(frozen=True)
class TrainingData:
    """A folder of faces, or how many procedural ones to make."""

    path: Path | None
    procedural_count: int

    @property
    def name(self) -> str:
        return self.path.resolve().name if self.path else "procedural"


@dataclass(frozen=True)
class Run:
    """A run folder with its settings, data and trainer."""

    folder: Path
    config: Config
    trainer: Trainer
    data: FaceDataset
    world: World
    source: TrainingData


def new_run_folder(out: Path, name: str) -> Path:
    """Make and return `out/NNNNN-name`, NNNNN one more than the largest there."""
    out.mkdir(parents=True, exist_ok=True)
    while True:
        numbers = [int(path.name[:5]) for path in out.iterdir() if path.name[:5].isdecimal()]
        folder = out / f"{max(numbers, default=-1) + 1:05d}-{name}"
        with contextlib.suppress(FileExistsError):  # another run took the name a moment ago
            folder.mkdir()
            return folder


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes from training in `folder`; UserError where one does."""
    path = folder / ".lock"
    with path.open("a+") as file:
        if try_lock(file.fileno()) is False:
            file.seek(0)
            raise UserError(
                f"{folder}: process {file.read().strip() or 'of another user'} trains in it: wait "
                "until it ends, or stop it"
            )
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        yield


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """Steps between what a run writes."""

    log: int
    monitor: int
    samples: int
    checkpoint: int


class RunWriter:
    """What the main process writes: metrics.jsonl, sample grids, states and weights."""

    def __init__(self, run: Run, cadence: Cadence, *, tensorboard: bool = False):
        self.run, self.cadence, self.trainer = run, cadence, run.trainer
        self.monitor: Monitor | None = None
        self.display = RateDisplay(self.trainer.total_steps, self.trainer.completed)
        self.metrics = run.folder / "metrics.jsonl"
        self._drop_metrics_after(self.trainer.completed)
        self.tensorboard = _tensorboard(run.folder) if tensorboard else None
        self.lap = time.monotonic(), self.trainer.completed  # when the last log line was written
        self.warned = False

    def after_step(self, stopping: Callable[[], bool]) -> None:
        """Log and save; then `show`, which is long, so that nothing is lost when it is stopped."""
        if self._due(self.cadence.log):
            self._log(dict(self.trainer.latest))
        if self._due(self.cadence.checkpoint) or self._due(self.cadence.monitor):
            self.save_state()
        self.show(stopping)

    def show(self, stopping: Callable[[], bool]) -> None:
        """Measure and draw what is due at this step and is not there yet, unless `stopping`."""
        done = self.trainer.completed
        if done == 0:
            return
        if self._due(self.cadence.monitor) and not self._is_measured(done):
            self._measure(stopping)
        path = self.run.folder / f"samples-{done:08d}.png"
        if self._due(self.cadence.samples) and not path.exists() and not stopping():
            self._samples(path)

    def _due(self, interval: int) -> bool:
        done = self.trainer.completed
        return done % interval == 0 or done == self.trainer.total_steps

    def save_state(self) -> None:
        state = self.trainer.state()
        state["procedural_count"] = self.run.source.procedural_count
        state["data"] = str(self.run.source.path.resolve()) if self.run.source.path else ""
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
        write_text(path, json.dumps(facts, indent=2) + "\n")
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
        if done >= WARN_AFTER:
            if warning and not self.warned:
                self.display.message(f"warning: {warning}")
            self.warned = warning is not None

    def _is_measured(self, step: int) -> bool:
        lines = self.metrics.read_text().splitlines() if self.metrics.exists() else []
        records = map(json.loads, lines)
        return any(r["step"] == step and "frechet_image" in r for r in records)

    def _measure(self, stopping: Callable[[], bool]) -> None:
        if self.monitor is None:
            self.monitor = Monitor(self.run.data, self.run.config.train.rare_share)
        phase, _ = self.trainer.phase(self.trainer.completed - 1)
        values = self.monitor.measure(self.trainer.averages[0], phase.seen, stopping)
        if values is None:
            return
        self._append({"step": self.trainer.completed, **values})
        self.display.message(
            f"step {self.trainer.completed}: pixel Frechet distance, images "
            f"{values['frechet_image']:.4f}, semantic maps {values['frechet_semantic']:.4f}"
        )

    def _samples(self, path: Path) -> None:
        phase, _ = self.trainer.phase(self.trainer.completed - 1)
        average, seeds = self.trainer.averages[0], list(range(6))
        rays = affordable_rays(average, len(seeds))
        grid = sample_grid(average, seeds=seeds, resolution=phase.resolution, chunk_rays=rays)
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
        write_text(self.metrics, "".join(f"{line}\n" for line in kept))


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard needs tensorboard: pip install 'semfaceedit[tb]'") from None
    return SummaryWriter(str(folder))
