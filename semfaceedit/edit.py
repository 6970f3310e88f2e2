"""Face project and edited label map -> edited face (Eq. 10): `python -m semfaceedit.edit`."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, max_pool2d

from .checkpoint import load_generator
from .cli import run_command, select_device, wrote
from .errors import UserError
from .fit_display import LiveFit, view_sheet
from .fitting import Fit, FitSettings, Goal, Stage, Step, Watch
from .generator import Generator
from .invert import finish, vgg_of
from .kernels import use_backend
from .perceptual import PerceptualFeatures
from .project import FaceProject
from .renderer import RenderOutput, render
from .samples import save_png
from .target import check_labels, class_shares, read_edited_labels


@dataclass(frozen=True, kw_only=True)
class EditSettings(FitSettings):
    """Editing (Eq. 10): from the face as it is, without noise, at its own pose.

    Example: EditSettings(iterations=200, appearance=True, perceptual_weight=0)
    """

    iterations: int = 150
    appearance: bool = False  # move the appearance offsets too
    dilation: float = 0.03  # how far the changed region is widened, in widths of the picture
    masked: bool = True  # image and VGG terms only outside the region; False: everywhere
    learning_rate: float = 5e-3
    noise: float = 0.0
    pose_every: int = 0
    resolution: int | None = None  # pixels along an edge (default: the project's)


@dataclass(frozen=True, kw_only=True)
class EditedFace:
    """A face before and after an edit or a transfer, at the pose of its project."""

    project: FaceProject
    region: Tensor  # (1, 1, r, r) bool: where it was to change
    before: RenderOutput
    after: RenderOutput
    history: list[Step]
    interrupted: bool = False

    @property
    def change(self) -> dict[str, float]:
        """Mean |change of RGB| in [0, 1] inside and outside the region; NaN where it is empty."""
        change = (self.after.image - self.before.image).abs().mean(1, keepdim=True) / 2
        return {
            "change_inside": float(change[self.region].mean()),
            "change_outside": float(change[~self.region].mean()),
        }


def edit(
    generator: Generator,
    project: FaceProject,
    labels: np.ndarray,  # (R, R) class ids, as large as the project's map
    *,
    region: np.ndarray | None = None,
    settings: EditSettings | None = None,
    perceptual: PerceptualFeatures | None = None,
    watch: Watch | None = None,
) -> EditedFace:
    """Change the face so that its semantic map becomes `labels`.

    region: (R, R) bool, where the picture may change; by default where `labels` differ from the
    project's map, widened by `settings.dilation`. Outside it the face as rendered before is kept.
    """
    settings = settings or EditSettings()
    labels = check_labels(labels)
    chosen = _changed(project, labels, region, settings.dilation)
    resolution = settings.resolution or len(project.preview)
    before = render_project(generator, project, resolution)
    mask = footprint(chosen, resolution).to(before.image.device)
    goal = Goal(
        class_shares(labels, resolution).to(before.image),
        before.image,
        ~mask if settings.masked else None,
    )
    return refit(
        generator,
        replace(project, labels=labels),
        goal,
        mask,
        before,
        settings,
        perceptual=perceptual,
        watch=watch,
    )


def _changed(
    project: FaceProject, labels: np.ndarray, region: np.ndarray | None, dilation: float
) -> np.ndarray:
    """Where the picture may change, (R, R) bool."""
    if labels.shape != project.labels.shape:
        size = len(project.labels)
        raise UserError(f"labels of shape {labels.shape}: the project's map is {size}x{size}")
    chosen = labels != project.labels if region is None else np.asarray(region, bool)
    if chosen.shape != labels.shape:
        raise UserError(f"region of shape {chosen.shape}: give {labels.shape}, like the labels")
    if not chosen.any():
        raise UserError("the edited map does not differ from the project's: there is nothing to do")
    return dilate(chosen, dilation) if region is None else chosen


def refit(
    generator: Generator,
    project: FaceProject,
    goal: Goal,
    region: Tensor,  # (1, 1, r, r) bool
    before: RenderOutput,
    settings: EditSettings,
    *,
    perceptual: PerceptualFeatures | None,
    watch: Watch | None,
) -> EditedFace:
    """Move the offsets of `project`, from where they are, towards `goal` under all terms."""
    device = before.image.device
    fit = Fit(
        generator,
        goal,
        project.offsets,
        project.pose[None].to(device),
        settings,
        perceptual=perceptual,
        watch=watch,
    )
    fit.run(
        Stage(
            name="edit",
            iterations=settings.iterations,
            appearance=settings.appearance,
            image=True,
        )
    )
    made = fit.project(project.labels, project.image, project.crop)
    edited = EditedFace(
        project=made,
        region=region,
        before=before,
        after=fit.render(),
        history=fit.history,
        interrupted=fit.interrupted,
    )
    return with_change(edited)


def with_change(edited: EditedFace) -> EditedFace:
    """The same with its change among the project's metrics."""
    metrics = edited.project.metrics | edited.change
    return replace(edited, project=replace(edited.project, metrics=metrics))


@torch.no_grad()
def render_project(
    generator: Generator, project: FaceProject, resolution: int, *, keep_shading: bool = False
) -> RenderOutput:
    """The face of a project at its own pose."""
    codes = project.codes(generator)
    pose = project.pose[None].to(codes.geometry.phases.device)
    return render(generator, codes, pose, resolution, keep_shading=keep_shading)


def dilate(mask: np.ndarray, share: float) -> np.ndarray:
    """Widen a mask (R, R) in a square by `share` of its width, rounded up."""
    reach = int(np.ceil(share * len(mask)))
    widened = max_pool2d(torch.from_numpy(mask)[None].float(), 2 * reach + 1, 1, reach)
    return widened[0].bool().numpy()


def footprint(mask: np.ndarray, resolution: int) -> Tensor:
    """(R, R) bool -> (1, 1, r, r) bool: pixels that hold any of the mask."""
    return adaptive_max_pool2d(torch.from_numpy(mask)[None, None].float(), resolution).bool()


@dataclass(kw_only=True)
class Options:
    """Change the shape of a face: edit its label map and let the face follow.

    `invert` writes the map to edit beside the project (FACE.labels.png); an edited copy of the
    original mask serves as well.

    Example: semfaceedit edit --checkpoint RUN/generator-ema0.998.safetensors
    --project face.safetensors --labels edited.png --no-vgg --out edited.safetensors
    """

    checkpoint: Path
    """The weights that the project was made with (.safetensors)."""
    project: Path
    """The face to edit."""
    labels: Path
    """The edited label map."""
    out: Path = Path("edited.safetensors")
    """The face project to write; preview, label map and views are kept beside it."""
    appearance: bool = False
    """Move the appearance offsets too."""
    dilation: float = EditSettings.dilation
    """How far the changed region is widened, in widths of the picture."""
    iterations: int = EditSettings.iterations
    """At most so many steps."""
    learning_rate: float = EditSettings.learning_rate
    """Adam's rate at the start."""
    resolution: int | None = None
    """Pixels along an edge (default: the project's)."""
    vgg: bool = True
    """Use the VGG term; --no-vgg leaves it out."""
    vgg_weights: Path | None = None
    """Weights of torchvision's vgg16, .pth or .safetensors."""
    download_vgg: bool = False
    """Fetch the published VGG-16 weights (528 MB) into torch's cache."""
    device: str | None = None
    """cpu, cuda or cuda:N."""
    backend: str | None = None
    """reference, triton, cuda or cpu (default: the fastest that runs here)."""


def edit_files(options: Options) -> None:
    device = select_device(options.device)
    if not 0 <= options.dilation < 1:
        raise UserError(f"--dilation {options.dilation}: use a share of the width, from 0 to 1")
    generator, _ = load_generator(options.checkpoint, device=device)
    project = FaceProject.load(options.project, generator)
    labels = read_edited_labels(options.labels, len(project.labels), project.crop)
    perceptual = vgg_of(options.vgg, options.vgg_weights, options.download_vgg, device)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    live = LiveFit(options.out.with_suffix(".png"))
    with use_backend(options.backend):
        edited = edit(
            generator,
            project,
            labels,
            settings=EditSettings(
                iterations=options.iterations,
                appearance=options.appearance,
                dilation=options.dilation,
                learning_rate=options.learning_rate,
                resolution=options.resolution,
                perceptual_weight=EditSettings.perceptual_weight if options.vgg else 0.0,
            ),
            perceptual=perceptual,
            watch=live,
        )
        live.close()
        save_views(generator, project, edited, options.out)
    finish(edited.project, options.out, interrupted=edited.interrupted)


def save_views(generator: Generator, project: FaceProject, edited: EditedFace, out: Path) -> None:
    """Write OUT.views.png: the face before and after, from several sides."""
    faces = [project.codes(generator), edited.project.codes(generator)]
    path = out.with_suffix(".views.png")
    sheet = view_sheet(generator, faces, float(project.pose[1]), edited.after.image.shape[-1])
    save_png(path, sheet)
    wrote(path)


def main(argv: list[str] | None = None) -> int:
    return run_command(Options, edit_files, argv, name="edit")


if __name__ == "__main__":
    raise SystemExit(main())
