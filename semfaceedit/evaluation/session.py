"""What is evaluated, with which settings, and the results that are already there."""

import dataclasses
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..data.dataset import FaceDataset
from ..editing.encoder import Encoder
from ..errors import UserError
from ..files import write_text
from ..metrics.perceptual import PerceptualFeatures, load_perceptual
from ..model.checkpoint import load_generator, read_header
from ..model.config import Config
from ..model.generator import Generator
from ..model.mean_face import fingerprint
from ..options import EncoderOptions, open_encoder
from ..outputs import FOLDER
from ..procedural.sources import open_training_data
from ..training.distributed import World
from ..usage import Within, Without, check_ranges

METRICS_VERSION = 1  # changes when a metric's definition does, so that no old result is reused
COMPARED = {"quality", "semantics", "novelty"}  # with real pictures, over the whole set
PHOTOGRAPHED = {"inversion", "consistency"}  # on pictures of --data, else on procedural heads
GENERATED = {*COMPARED, "consistency"}  # pictures of the generator, drawn once for all
QUESTIONS_OF = {  # options that are for these questions alone
    **dict.fromkeys(("truncation", "count"), GENERATED),
    "batch": {*GENERATED, "locality"},
    "chunk_rays": {*GENERATED, "locality", "inversion"},
    "data": COMPARED | PHOTOGRAPHED,
    "procedural_count": COMPARED,
    "training_data": {"novelty"},
    **dict.fromkeys(("inception_weights", "download_inception"), {"quality", "semantics"}),
    "parser_steps": {"semantics", "novelty"},
    **dict.fromkeys(("pairs", "geometry_iterations", "appearance_iterations"), PHOTOGRAPHED),
    "edited_faces": {"editing"},
    "vgg_weights": {*PHOTOGRAPHED, "editing"},
    **dict.fromkeys(("encoder", "no_encoder"), {"inversion", "editing"}),
    "faces": {"locality", "consistency"},
    "run_folder": {"consistency"},
    **dict.fromkeys(("cost_resolutions", "cost_repeats"), {"cost"}),
}
DIGITS = 6  # of the figures in a report
HELD_OUT = 1_000_000  # first seed of procedural faces that no training sees


@dataclass(kw_only=True)
class EvaluateOptions(EncoderOptions):
    """Measure a checkpoint and write report.json, report.md and plots.

    Example: semfaceedit evaluate --all --checkpoint RUN/generator-ema0.998.safetensors
    --out evaluation

    Name the questions before the options: quality, semantics, novelty, inversion, editing,
    locality, consistency, cost; or pass --all. `semfaceedit evaluate ablate --help` shows how to
    train and compare the ablations. Results with the same settings are reused, so an interrupted
    evaluation continues where it stopped. Several GPUs: torchrun --nproc-per-node 4
    -m semfaceedit.evaluate ...

    Metrics that cannot be computed (no Inception weights, too few pictures) are listed with the
    reason. The exit code is 1 if a question that was named, or weights that were passed, gave no
    result.
    """

    all: bool = False
    """Answer all questions."""
    out: Annotated[Path, FOLDER] = Path("evaluation")
    """Folder for the report; results already there are reused."""
    data: Path | None = None
    """Real pictures, in any layout that `train` reads (default: procedural faces, and the weights
    `procedural`)."""
    training_data: Path | None = None
    """Pictures that the checkpoint was trained on, for novelty; --data then holds others."""
    procedural_count: Annotated[int, Within(2, 10_000_000), Without("data")] = 2000
    """Number of procedural faces, without --data."""
    count: Annotated[int, Within(2)] = 10_000
    """Number of generated pictures, compared with at most as many real ones (10,000 in the
    paper)."""
    resolution: Annotated[int | None, Within(4, 4096)] = None
    """Width and height in pixels (default: the checkpoint's)."""
    truncation: Annotated[float, Within(0, 1)] = 1.0
    """Truncation of generated faces: 1 is none, as in the paper; 0 is the mean face."""
    seed: int = 0
    """Random seed of latents, poses, patches and the segmentation network."""
    batch: Annotated[int, Within(1)] = 4
    """Pictures rendered at a time."""
    chunk_rays: Annotated[int | None, Within(1)] = 4096
    """Rays of each picture evaluated at a time."""
    inception_weights: Path | None = None
    """Inception weights of torch-fidelity, for FID and KID (needs the `metrics` extra)."""
    download_inception: Annotated[bool, Without("inception_weights")] = False
    """Download torch-fidelity's Inception weights (91 MB)."""
    parser_steps: Annotated[int, Within(1)] = 1500
    """Training steps of the network that segments generated pictures."""
    pairs: Annotated[int, Within(1)] = 8
    """Number of photographs with label maps to invert."""
    geometry_iterations: Annotated[int, Within(0)] = 200
    """Iterations on the geometry alone in each inversion."""
    appearance_iterations: Annotated[int, Within(0)] = 300
    """Iterations on geometry and appearance after those."""
    edited_faces: Annotated[int, Within(1)] = 20
    """Number of generated faces whose label maps are edited, in nine ways each."""
    vgg_weights: Path | None = None
    """Weights of torchvision's VGG-16 for the VGG term of inversions and edits (default: without
    the term)."""
    faces: Annotated[int, Within(1)] = 64
    """Number of generated faces for locality and 3-D consistency."""
    run_folder: Path | None = None
    """Run folder to take D_c from (default: the discriminators beside --checkpoint, else its
    folder)."""
    cost_resolutions: Annotated[tuple[int, ...], Within(4, 4096)] = (64, 128, 256, 512)
    """Resolutions at which time and memory are measured."""
    cost_repeats: Annotated[int, Within(1)] = 3
    """Timed renders at each resolution."""


class Unmeasured(UserError):
    """Why a figure cannot be had here; the others still can."""


@dataclass
class Results:
    """Figures by name, each kept in a file of its own as soon as it is known."""

    folder: Path
    values: dict[str, Any] = field(default_factory=dict)
    timings: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def find(self, name: str, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
        """What was measured before under these inputs: `values` and `timings`."""
        try:
            kept = json.loads((self.folder / f"{name}.json").read_text())
        except (OSError, ValueError):
            return None
        return kept if kept.get("inputs") == plain(inputs) else None

    def keep(
        self, name: str, inputs: Mapping[str, Any], values: Mapping[str, Any], seconds: float
    ) -> dict[str, Any]:
        """Write a result; its entry `timings` is kept apart from what a seed decides."""
        timings = {"seconds": seconds, **values.get("timings", {})}
        stays = {key: value for key, value in values.items() if key != "timings"}
        kept = {"inputs": plain(inputs), "values": plain(stays), "timings": plain(timings)}
        write_text(self.folder / f"{name}.json", json.dumps(kept, indent=1) + "\n")
        return kept

    def measure(
        self, name: str, inputs: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The values of that name: those kept, else computed now and kept."""
        kept = self.find(name, inputs)
        if kept is None:
            start = time.monotonic()
            kept = self.keep(name, inputs, compute(), time.monotonic() - start)
            print(f"{name}: {kept['timings']['seconds']:.0f} s", file=sys.stderr)
        self.timings[name] = kept["timings"]
        return kept["values"]

    def attempt(
        self, name: str, inputs: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]
    ) -> None:
        """Measure into `values`; where that cannot be, note the reason and say it in one line."""
        try:
            self.values[name] = self.measure(name, inputs, compute)
        except UserError as error:
            self.missing[name] = str(error)
            print(f"not measured: {name}: {error}", file=sys.stderr)


@dataclass
class Evaluation:
    """A checkpoint, the real pictures it is compared with, and what is known about both."""

    options: EvaluateOptions
    device: torch.device
    world: World
    generator: Generator
    weights: Path
    config: Config
    header: dict[str, Any]
    results: Results
    encoder: Encoder | None = None

    @classmethod
    def open(cls, options: EvaluateOptions, device: torch.device, world: World) -> "Evaluation":
        check_ranges(options)
        heads_alone = options.checkpoint is None and options.data is None
        path = Path("procedural") if heads_alone else options.checkpoint  # compare like with like
        generator, config = load_generator(path, device=device)
        assert generator.source is not None  # where it was loaded from
        header = read_header(generator.source)
        results = Results(options.out / "results")
        encoder = open_encoder(options, generator)
        return cls(
            options, device, world, generator, generator.source, config, header, results, encoder
        )

    @property
    def resolution(self) -> int:
        return self.options.resolution or self.config.model.resolution

    @property
    def procedural(self) -> bool:
        return self.options.data is None

    @cached_property
    def data(self) -> FaceDataset:
        """The real pictures, packed at twice the evaluated resolution or more."""
        with self.world.main_first():  # it packs the data, which the others then find
            return open_training_data(
                self.options.data,
                resolution=self.resolution,
                procedural_count=self.options.procedural_count,
            )

    @cached_property
    def data_key(self) -> str:
        return digest(self.data.info["sha256"])

    @cached_property
    def perceptual(self) -> tuple[PerceptualFeatures | None, str]:
        """The network of the VGG term, and what the report says of it."""
        path = self.options.vgg_weights
        if path is None:
            return None, "left out (no --vgg-weights)"
        return load_perceptual(path, device=self.device)

    @property
    def source(self) -> str:
        """What tells the real pictures of inversions and poses apart."""
        return "procedural" if self.procedural else self.data_key

    def uses_data(self, chosen: Sequence[str]) -> bool:
        """Whether those questions read the data; procedural heads of no training are not of it."""
        return bool(set(chosen) & (COMPARED if self.procedural else COMPARED | PHOTOGRAPHED))

    @property
    def basis(self) -> dict[str, Any]:
        """What every result of this checkpoint depends on."""
        return {
            "version": [__version__, METRICS_VERSION],
            "checkpoint": fingerprint(self.generator),
            "resolution": self.resolution,
            "seed": self.options.seed,
            "device": self.device.type,
            "backend": self.options.backend or "automatic",
        }

    @property
    def generated_inputs(self) -> dict[str, Any]:
        """What the generated pictures depend on."""
        return {**self.basis, "truncation": self.options.truncation}

    @property
    def compared_inputs(self) -> dict[str, Any]:
        """What a comparison of generated with real pictures depends on."""
        return {**self.generated_inputs, "count": self.options.count, "data": self.data_key}


def digest(value: Any) -> str:
    """16 hexadecimal digits of plain values."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """Plain types for JSON: figures of six digits, null for what is not a number."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, bool | int | str) or value is None:
        return value
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, Sequence):
        return [plain(part) for part in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    return str(value)
