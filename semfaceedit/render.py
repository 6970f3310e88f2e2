"""Seeds and face projects as grids or video: `python -m semfaceedit.render`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from .api import generate
from .cli import parse_seeds, progress, run_command, wrote
from .data.decoding import save_label_map
from .editing.project import FORMAT, FaceProject
from .editing.tuning import with_weights
from .editing.views import RenderedFace, View, path, turn
from .errors import UserError, meant
from .kernels import use_backend
from .model import config
from .model.camera import VISIBLE
from .model.codes import truncate
from .model.generator import Generator, seed_codes
from .model.mean_face import mean_codes
from .model.renderer import render
from .options import CheckpointOptions, open_checkpoint
from .outputs import FOLDER, check_outputs, paths_in
from .pictures.grids import picture_rows, save_png, tile
from .pictures.video import check_animation, save_animation
from .usage import With, Within

SEEN = Within(-VISIBLE, VISIBLE, unit="radians")
KINDS = ("image", "semantics", "depth", "normals", "labels")


@dataclass(kw_only=True)
class RenderOptions(CheckpointOptions):
    """Render faces: from several viewpoints, as a turntable video, or morphing into each other.

    Example: semfaceedit render --checkpoint RUN/generator-ema0.998.safetensors --seeds 0-3
    --yaws -0.4 0 0.4 --out faces

    Faces are generated from --seeds, or read from --projects, or both, projects first. --video
    writes a video of the turning head; --interpolate changes from each face to the next instead, in
    all codes (all), the geometry (z), or the appearance of one group (hair, face, garment,
    background).
    """

    out: Annotated[Path, FOLDER] = Path("renders")
    """Folder for the pictures."""
    projects: tuple[Path, ...] = ()
    """Face projects made with this checkpoint."""
    seeds: str | None = None
    """Generated faces, e.g. 0,4-7 (default: 0-3, if there are no --projects)."""
    kinds: tuple[str, ...] = ("image", "semantics", "depth")
    """Pictures to write: image, semantics, depth, normals, labels (class ids as palette PNGs)."""
    yaws: Annotated[tuple[float, ...], SEEN] = (-0.4, 0.0, 0.4)
    """Head turns in radians; positive turns the nose to the image's right. --video sweeps from the
    smallest to the largest; --interpolate takes one, 0 by default."""
    pitches: Annotated[tuple[float, ...], SEEN] = (0.0,)
    """Head tilts in radians; positive raises the nose. --video and --interpolate take one."""
    video: str | None = None
    """Write a video with this file name into --out: .mp4, .gif or .webp."""
    interpolate: str | None = None
    """Codes that change from each face to the next: all, z, or the name of a group."""
    frames: Annotated[int, Within(1, 100_000), With("video", "interpolate")] = 48
    """Frames of a turn, or from one face to the next (without --video: pictures in a strip)."""
    fps: Annotated[int, Within(1, 240), With("video")] = 24
    """Frames per second of the video; at most 50 for .gif."""
    resolution: Annotated[int | None, Within(1, 4096)] = None
    """Width and height in pixels (default: the checkpoint's)."""
    truncation: Annotated[float, Within(0, 1)] = 1.0
    """Share of the distance to the mean face to keep: 1 leaves faces alone, 0.7 makes them more
    regular, 0 is the mean face."""
    chunk_rays: Annotated[int | None, Within(1)] = 8192
    """Rays evaluated at a time; limits memory and does not change the picture."""
    cull: Annotated[float, Within(0, below=1)] = 0.0
    """Skip the colour of points with less compositing weight: 1e-4 is faster and barely visible."""
    save_projects: bool = False
    """Also write each generated face as a project with its label map, ready for `edit` and
    `transfer`."""
    preset: str | None = None
    """Fail unless the checkpoint is of this preset."""


@torch.no_grad()
def run(options: RenderOptions) -> None:
    """Write what the options ask for."""
    _check(options)
    generator, settings = open_checkpoint(options, preset=options.preset)
    faces = _faces(options, generator)
    resolution = options.resolution or settings.model.resolution
    if options.interpolate is not None:
        views, columns = _path(options, generator, faces), options.frames
    elif options.video is not None:
        views = turn(faces, options.yaws, options.pitches[0], options.frames)
        columns = options.frames
    else:
        views, columns = _grid(options, faces), len(options.yaws) * len(options.pitches)
    check_outputs(_outputs(options, len(views)), paths_in(options), kind=FORMAT)
    with use_backend(options.backend):
        pictures = _render_views(options, generator, views, resolution)
    for kind in options.kinds:
        if kind == "labels":
            _save_labels(options, pictures[kind])
        elif options.video is not None:
            _save_video(options, kind, pictures[kind], columns)
        else:
            path = options.out / f"{kind}.png"
            save_png(path, tile(torch.stack(pictures[kind]), columns=columns))
            wrote(path)
    if options.save_projects:
        with use_backend(options.backend):
            for seed in _seeds(options):
                _save_project(options, generator, seed, resolution)


def _outputs(options: RenderOptions, views: int) -> list[Path]:
    """Every file that will be written."""
    outputs: list[Path] = []
    for kind in options.kinds:
        if kind == "labels":
            outputs += [_label_path(options, index) for index in range(views)]
        elif options.video is not None:
            outputs.append(_video_path(options, kind))
        else:
            outputs.append(options.out / f"{kind}.png")
    if options.save_projects:
        for path in [_project_path(options, seed) for seed in _seeds(options)]:
            outputs += [path, path.with_suffix(".labels.png")]
    return outputs


def _label_path(options: RenderOptions, index: int) -> Path:
    return options.out / f"labels-{index:04d}.png"


def _project_path(options: RenderOptions, seed: int) -> Path:
    return options.out / f"face-{seed}.safetensors"


def _video_path(options: RenderOptions, kind: str) -> Path:
    name = Path(options.video or "")
    return options.out / (
        name if kind == "image" else name.with_name(f"{name.stem}-{kind}{name.suffix}")
    )


def _save_project(options: RenderOptions, generator: Generator, seed: int, resolution: int) -> None:
    project = generate(generator, seed, resolution=resolution).project
    path = _project_path(options, seed)
    project.save(path)
    save_label_map(path.with_suffix(".labels.png"), project.labels)
    labels = path.with_suffix(".labels.png").name
    wrote(path, f"and its label map {labels}: paint over it and pass it to `edit --labels`")


def _seeds(options: RenderOptions) -> list[int]:
    if options.seeds is None:
        return [] if options.projects else [0, 1, 2, 3]
    return parse_seeds(options.seeds)


def _faces(options: RenderOptions, generator: Generator) -> list[RenderedFace]:
    """Projects, then seeds, pulled towards the mean face by the truncation."""
    projects = [FaceProject.load(path, generator) for path in options.projects]
    faces = [RenderedFace(project.codes(generator), project.tuned) for project in projects]
    faces += [RenderedFace(seed_codes(generator, seed)) for seed in _seeds(options)]
    if options.truncation == 1:
        return faces
    mean = mean_codes(generator)
    return [replace(f, codes=truncate(f.codes, mean, options.truncation)) for f in faces]


def _grid(options: RenderOptions, faces: list[RenderedFace]) -> list[View]:
    poses = [(yaw, pitch) for pitch in options.pitches for yaw in options.yaws]
    return [(face, pose) for face in faces for pose in poses]


def _path(options: RenderOptions, generator: Generator, faces: list[RenderedFace]) -> list[View]:
    """`frames` views from each face to the next, in the codes named by --interpolate."""
    pose = (options.yaws[len(options.yaws) // 2], options.pitches[0])
    which = options.interpolate or "all"
    names = generator.config.group_names
    if which not in ("all", "z", *names):
        near = meant(which, ("all", *names))
        raise UserError(f"--interpolate {which}{near}: use all, z, {', '.join(names)}")
    return path(generator, faces, which, pose, options.frames)


def _render_views(
    options: RenderOptions, generator: Generator, views: list[View], resolution: int
) -> dict[str, list[Tensor]]:
    """Every kind of picture of every view, (H, W, 3) uint8; labels (H, W)."""
    device = generator.device
    pictures: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for face, pose in progress(views, total=len(views), title="rendering"):
        output = render(
            with_weights(generator, face.tuned),
            face.codes,
            torch.tensor([pose], device=device),
            resolution,
            chunk_rays=options.chunk_rays,
            cull=options.cull,
        )
        for kind, picture in picture_rows(output, generator.config.camera).items():
            pictures[kind].append(picture[0])
        pictures["labels"].append(output.labels[0].byte().cpu())
    return pictures


def _save_labels(options: RenderOptions, labels: list[Tensor]) -> None:
    """Raw class ids, one palette PNG a view."""
    for index, ids in enumerate(labels):
        save_label_map(_label_path(options, index), ids.numpy())
    wrote(options.out / "labels-*.png", f"{len(labels)} files")


def _save_video(options: RenderOptions, kind: str, pictures: list[Tensor], frames: int) -> None:
    """Faces that turn stand side by side; a path between faces plays one after the other."""
    stacked = torch.stack(pictures)
    if options.interpolate is None:
        stacked = stacked.unflatten(0, (-1, frames)).permute(1, 2, 0, 3, 4).flatten(2, 3)
    path = _video_path(options, kind)
    save_animation(
        path,
        list(stacked.numpy()),
        fps=options.fps,
        watch=lambda frames: progress(frames, total=len(frames), title=f"writing {path.name}"),
    )
    wrote(path)


def _check(options: RenderOptions) -> None:
    faces = len(options.projects) + len(_seeds(options))
    for kind in options.kinds:
        if kind not in KINDS:
            raise UserError(f"--kinds {kind}{meant(kind, KINDS)}: use {', '.join(KINDS)}")
    if not (options.yaws and options.pitches and options.kinds):
        raise UserError("--yaws, --pitches and --kinds need at least one value each")
    moves = options.video is not None or options.interpolate is not None
    if moves and len(options.pitches) > 1:
        raise UserError("--video and --interpolate use one pitch: give a single value to --pitches")
    several = options.yaws != RenderOptions.yaws and len(options.yaws) > 1
    if options.interpolate is not None and several:
        raise UserError("--interpolate uses one yaw: give a single value to --yaws")
    if options.video is not None:
        check_animation(Path(options.video), options.fps)
        if set(options.kinds) == {"labels"}:
            raise UserError(
                "--video has no effect on labels, which are pictures: name another of --kinds, or "
                "leave out --video"
            )
    if options.save_projects and options.truncation < 1:
        raise UserError("--save-projects writes faces as they are: leave --truncation out")
    if options.save_projects and not _seeds(options):
        raise UserError("--save-projects writes generated faces: name some with --seeds")
    if options.interpolate is not None and faces < 2:
        raise UserError("--interpolate needs at least two --seeds or --projects")
    if options.preset is not None:
        config.preset(options.preset)


def main(argv: list[str] | None = None) -> int:
    return run_command(RenderOptions, run, argv, name="render")


if __name__ == "__main__":
    raise SystemExit(main())
