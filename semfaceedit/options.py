"""Options and steps that the commands on faces share: checkpoint, VGG term, fit and output."""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from .cli import remark, select_device, wrote
from .data.decoding import save_label_map
from .editing.encoder import Encoder, find_encoder
from .editing.fit_display import LiveFit, view_sheet
from .editing.fit_terms import Goal, Watch, perceptual_weight
from .editing.paste import check_paste, paste_to_file
from .editing.project import FORMAT, FaceProject
from .editing.refit import EditedFace, EditSettings, default_edit_settings
from .errors import UserError
from .kernels import use_backend
from .memory import keep_freed_memory
from .metrics.perceptual import PerceptualFeatures, load_perceptual
from .model.checkpoint import load_generator, locate_weights
from .model.config import Config
from .model.generator import Generator
from .outputs import check_outputs, paths_in
from .pictures.grids import save_png
from .usage import With, Within, Without, refuse_given


@dataclass(kw_only=True)
class CheckpointOptions:
    """Which weights, and where they run."""

    checkpoint: Path | None = None
    """Weights file, or the name of weights in the package: portraits, portraits-128 or procedural
    (default: what SEMFACEEDIT_WEIGHTS names, or portraits)."""
    device: str | None = None
    """cpu, cuda or cuda:N (default: CUDA if available)."""
    backend: str | None = None
    """reference, triton, cuda or cpu (default: the fastest available)."""


@dataclass(kw_only=True)
class EncoderOptions(CheckpointOptions):
    """Which encoder reads faces."""

    encoder: Path | None = None
    """Encoder of `train-encoder` (default: W-encoder.safetensors beside the weights
    W.safetensors, if there is one)."""
    no_encoder: bool = False
    """Use no encoder: inversion starts at the mean face, as in the paper."""


@dataclass(kw_only=True)
class FitOptions(EncoderOptions):
    """What every fit takes."""

    precision: str | None = None
    """fp32, accurate or fast, of the layers (default: the backend's choice; steps of a fit are fast
    where the CPU has bf16 products)."""
    learning_rate: Annotated[float | None, Within(above=0, most=1)] = None
    """Learning rate (Adam) at the start of each stage (default: 0.01, with an encoder 0.025)."""
    image_weight: Annotated[float | None, Within(0)] = None
    """Weight of the image term; 10 preserves more of the picture outside the edit (default: 1, as
    in the paper; edits with an encoder 5)."""
    resolution: Annotated[int | None, Within(4, 1024)] = None
    """Width and height in pixels (default: those of the checkpoint or the project)."""
    vgg_weights: Annotated[Path | None, Without("no_vgg")] = None
    """Weights of torchvision's VGG-16, .pth or .safetensors, for the VGG term of the loss."""
    download_vgg: Annotated[bool, Without("vgg_weights", "no_vgg")] = False
    """Download torchvision's VGG-16 weights (528 MB) to torch's cache, for that term."""
    no_vgg: bool = False
    """Leave the term out without saying so."""


@dataclass(kw_only=True)
class RefitOptions(FitOptions):
    """What editing and transfer take."""

    appearance: bool | None = None
    """Fit the appearance as well as the geometry (default: only with an encoder)."""
    dilation: Annotated[float, Within(0, below=1)] = EditSettings.dilation
    """Widen the edited region by this share of the picture's width."""
    iterations: Annotated[int | None, Within(0)] = None
    """Maximum number of steps (default: 150; with an encoder 28, each on a quarter of the
    pixels)."""
    learning_rate: Annotated[float | None, Within(above=0, most=1)] = None
    """Initial learning rate (Adam; default: 0.005, with an encoder 0.02)."""
    start_samples: Annotated[int, Within(0, 100_000)] = EditSettings.start_samples
    """If the face lacks a class (say, a hat), its gradient vanishes; so this many samples are drawn
    to find better starting points. 0: start from the face alone. An encoder makes them
    needless."""
    paste: Path | None = None
    """Write the edit into the photograph at its full size, too: a .png, .tif or .jpg file."""
    photograph: Annotated[Path | None, With("paste")] = None
    """The photograph for --paste (default: the file that the face was inverted from)."""


OF_A_FIT = (  # options that have no effect where an edit or a transfer needs no fit
    "appearance", "dilation", "iterations", "learning_rate", "start_samples", "image_weight",
)  # fmt: skip
OF_ITS_MODELS = ("encoder", "vgg_weights", "download_vgg")  # likewise, but for a photograph's fit
FOLLOWED = 0.5  # of the labels inside, below which an edit is said to have failed
EDIT_PICTURES = ("labels", "preview", "views")  # beside an edited face


@dataclass(frozen=True)
class Tools:
    """What a fit is run with."""

    perceptual: PerceptualFeatures | None
    live: LiveFit


def open_checkpoint(
    options: CheckpointOptions, *, preset: str | None = None
) -> tuple[Generator, Config]:
    """The generator and its run's configuration, on the device of the options."""
    path = locate_weights(options.checkpoint)
    if path.is_dir():
        raise UserError(f"--checkpoint {path} is a folder: give the file of weights in it")
    device = select_device(options.device)
    return load_generator(path, device=device, preset=preset)


def open_encoder(options: EncoderOptions, generator: Generator) -> Encoder | None:
    """The encoder that the options name, or the one beside the weights; None for none."""
    if options.no_encoder and options.encoder is not None:
        raise UserError("give --encoder or --no-encoder, not both")
    return None if options.no_encoder else find_encoder(generator, options.encoder)


def given(options: Any, *names: str) -> dict[str, Any]:
    """Those options that are not left open (None), by name."""
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def check_project(out: Path) -> None:
    """UserError where `out` is no name for a project."""
    if out.is_dir() or out.suffix != ".safetensors":
        raise UserError(f"--out {out}: name a file that ends in .safetensors")


@contextmanager
def tools(
    options: FitOptions, out: Path, *, beside: tuple[str, ...], vgg: bool = True
) -> Iterator[Tools]:
    """The VGG term, if the options and the task want it, and a live display of the fit of `out`.

    Within the block the options' backend is in use. beside: the pictures OUT.NAME.png that the task
    may write.
    """
    check_project(out)
    pictures = [out.with_suffix(f".{name}.png") for name in beside]
    check_outputs([out, *pictures], paths_in(options), kind=FORMAT)
    perceptual, note = None, ""
    device = select_device(options.device)
    if device.type == "cpu":
        keep_freed_memory()
    given = options.vgg_weights is not None or options.download_vgg
    if vgg and given:
        perceptual, origin = load_perceptual(
            options.vgg_weights, download=options.download_vgg, device=device
        )
        print(origin, file=sys.stderr)
    elif vgg and not options.no_vgg:
        note = "the VGG term of the loss is left out; --vgg-weights FILE or --download-vgg adds it"
    with use_backend(options.backend, options.precision):
        yield Tools(perceptual, LiveFit(out.with_suffix(".preview.png"), note))


class FitArguments(NamedTuple):
    """What `edit` and `transfer` take by name."""

    settings: EditSettings
    perceptual: PerceptualFeatures | None
    watch: Watch
    encoder: Encoder | None


class EditJob:
    """A face to edit, with all that the options of `edit` and `transfer` have in common.

    needs_fit: the encoder is of use.
    """

    def __init__(self, options: RefitOptions, path: Path, out: Path, *, needs_fit: bool = True):
        self.options, self.out = options, out
        self.generator, _ = open_checkpoint(options)
        self.encoder = open_encoder(options, self.generator) if needs_fit else None
        if self.encoder is not None:
            refuse_given(
                options, ["start_samples"], "is for fits without an encoder: give --no-encoder, or"
            )
        self.face = FaceProject.load(path, self.generator)
        self.pasting = _check_pasting(options, self.face, path)

    @contextmanager
    def arguments(self, *, vgg: bool) -> Iterator[FitArguments]:
        """As `tools`, within which the work is done."""
        with tools(self.options, self.out, beside=EDIT_PICTURES, vgg=vgg) as using:
            self.live = using.live
            settings = _edit_settings(self.options, using, self.encoder)
            yield FitArguments(settings, using.perceptual, using.live, self.encoder)

    def finish(self, edited: EditedFace) -> None:
        """All of `finish`, OUT.views.png: the face before and after, from several sides; and the
        edit in its photograph."""
        if not self.live.shown:  # without a fit, the face before stands for the goal
            self.live.show(edited.after, Goal(edited.before.semantics, edited.before.image))
        out = _keep(edited.project, self.out, self.live, interrupted=edited.interrupted)
        say_if_not_followed(edited.project.metrics)
        path = out.with_suffix(".views.png")
        own = self.face.generator(self.generator)
        faces = [self.face.codes(self.generator), edited.project.codes(self.generator)]
        resolution = edited.after.image.shape[-1]
        save_png(path, view_sheet(own, faces, float(self.face.pose[1]), resolution))
        wrote(path)
        if self.pasting is not None:
            paste_to_file(self.generator, self.face, edited, *self.pasting)
        if edited.interrupted:
            raise KeyboardInterrupt


def _edit_settings(options: RefitOptions, tools: Tools, encoder: Encoder | None) -> EditSettings:
    return default_edit_settings(
        encoder,
        **given(options, "iterations", "learning_rate", "appearance", "image_weight"),
        dilation=options.dilation,
        start_samples=options.start_samples,
        resolution=options.resolution,
        perceptual_weight=perceptual_weight(tools.perceptual),
    )


def _check_pasting(
    options: RefitOptions, project: FaceProject, near: Path
) -> tuple[Path, Path] | None:
    """Photograph and output of --paste; UserError, before any work, where that cannot be."""
    if options.paste is None:
        return None
    return check_paste(project, options.paste, options.photograph, near), options.paste


def say_if_not_followed(metrics: dict[str, float]) -> None:
    """A remark where little of an edited label map came about."""
    followed = metrics.get("labels_inside", 1.0)
    if followed < FOLLOWED:
        remark(
            f"only {followed:.0%} of the labels inside the region came out as asked: these "
            "weights hardly draw it on this face; ask for less, give more --iterations, or take "
            "another face or other weights"
        )


def finish(project: FaceProject, path: Path, live: LiveFit, *, interrupted: bool) -> None:
    """Write a project and its label map, say how well it fits, and pass Ctrl-C on."""
    _keep(project, path, live, interrupted=interrupted)
    if interrupted:
        raise KeyboardInterrupt


def _keep(project: FaceProject, path: Path, live: LiveFit, *, interrupted: bool) -> Path:
    """Write a project and its label map, and say how well it fits, or that it is unfinished.

    Returns the project's path: an unfinished face takes no finished one's place.
    """
    live.close()
    if interrupted and path.exists():
        path = path.with_stem(f"{path.stem}-interrupted")
        check_outputs([path], kind=FORMAT)
    project.save(path)
    labels = path.with_suffix(".labels.png")
    save_label_map(labels, project.labels)
    print(_summary(project.metrics, project.iterations), file=sys.stderr)
    wrote(path, "as far as it came before it was interrupted" if interrupted else "")
    if project.tuned is not None:
        size = f"{project.tuned.bytes / 1e6:.1f} MB"
        wrote(
            project.tuned.beside(path), f"weights tuned to this face, {size}: keep them beside it"
        )
    wrote(labels)
    if live.shown:
        wrote(live.path)
    return path


def _summary(metrics: dict[str, float], iterations: int) -> str:
    parts = []
    for prefix, name in (("", ""), ("unmasked_", "without the mask of Eq. 10: ")):
        if f"{prefix}change_inside" in metrics:
            inside, outside, like = (
                metrics[prefix + key] for key in ("change_inside", "change_outside", "ssim_outside")
            )
            where = f"{outside:.4f} outside (SSIM {like:.3f})"
            if math.isnan(outside):
                where = "outside not measured: the region is the whole picture"
            parts.append(f"{name}mean change of RGB {inside:.4f} inside the region, {where}")
        if f"{prefix}labels_inside" in metrics:
            share = metrics[prefix + "labels_inside"]
            parts[-1] += f", {share:.0%} of the labels inside match the edit"
    if "miou_groups" in metrics:
        parts.append(
            f"after {iterations} iterations mIoU {metrics['miou_groups']:.3f} over groups "
            f"(initially {metrics['start_miou_groups']:.3f}), {metrics['miou_classes']:.3f} over "
            f"classes, PSNR {metrics['psnr']:.1f} dB"
        )
    return "; ".join(parts)
