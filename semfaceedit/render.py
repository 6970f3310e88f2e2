"""Render seeds from poses, as grids or moving pictures: `python -m semfaceedit.render`."""

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from . import checkpoint, config
from .checkpoint import write_atomically
from .cli import parse_seeds, progress, run_command, select_device, wrote
from .errors import UserError
from .film import Film
from .generator import Generator
from .kernels import use_backend
from .labels import PALETTE
from .media import check_animation, save_animation
from .renderer import Codes, render
from .samples import picture_rows, save_png, seed_codes, tile

KINDS = ("image", "semantics", "depth", "normals", "labels")


@dataclass(kw_only=True)
class Options:
    """Render faces of a checkpoint: from several poses, as a turntable, or between two faces.

    Example: semfaceedit render --checkpoint RUN/generator-ema0.998.safetensors --seeds 0-3
    --yaws -0.4 0 0.4 --out faces

    With --video the head turns in a moving picture; with --interpolate hair (or all, z, face,
    garment, background) it changes from each seed to the next instead, in all codes or in one.
    """

    checkpoint: Path | None = None
    """Weights of a run (default: those that come with semfaceedit, of procedural faces)."""
    out: Path = Path("renders")
    """Folder for the pictures."""
    seeds: str = "0-3"
    """Which faces, as 0,4-7."""
    kinds: tuple[str, ...] = ("image", "semantics", "depth")
    """What to write: image, semantics, depth, normals, labels (raw ids as palette PNGs)."""
    yaws: tuple[float, ...] = (-0.4, 0.0, 0.4)
    """Head turns in radians, positive turns the nose to the image's right."""
    pitches: tuple[float, ...] = (0.0,)
    """Head tilts in radians, positive lifts the nose."""
    video: str | None = None
    """Write a moving picture of this name into --out: .mp4, .gif or .webp."""
    interpolate: str | None = None
    """Go from each seed to the next in these codes: all, z, or a group's name."""
    frames: int = 48
    """Frames of a turn, or between two seeds (without --video: pictures in a strip)."""
    fps: int = 24
    """Frames a second of a moving picture."""
    resolution: int | None = None
    """Pixels along an edge (default: the checkpoint's)."""
    truncation: float = 1.0
    """Pull towards the mean face: 1 none, 0.7 for nicer pictures, 0 the mean face."""
    chunk_rays: int | None = 8192
    """Rays evaluated at a time; bounds memory, does not change the picture."""
    preset: str | None = None
    """Refuse a checkpoint of another preset."""
    device: str | None = None
    """cpu, cuda or cuda:N."""
    backend: str | None = None
    """reference, triton, cuda or cpu (default: the fastest that runs here)."""


@torch.no_grad()
def render_faces(options: Options) -> None:
    """Write what the options ask for."""
    seeds = parse_seeds(options.seeds)
    device = select_device(options.device)
    _check(options, seeds)
    generator, settings = checkpoint.load_generator(
        options.checkpoint, device=device, preset=options.preset
    )
    mean = generator.mean_codes() if options.truncation < 1 else None
    faces = [
        seed_codes(generator, seed, truncation=options.truncation, mean=mean) for seed in seeds
    ]
    resolution = options.resolution or settings.model.resolution
    if options.interpolate is not None:
        views, columns = _path(options, generator, faces), options.frames
    elif options.video is not None:
        views, columns = _turn(options, faces), options.frames
    else:
        views, columns = _grid(options, faces), len(options.yaws) * len(options.pitches)
    options.out.mkdir(parents=True, exist_ok=True)
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


View = tuple[Codes, tuple[float, float]]  # codes of batch 1, (yaw, pitch)


def _grid(options: Options, faces: list[Codes]) -> list[View]:
    poses = [(yaw, pitch) for pitch in options.pitches for yaw in options.yaws]
    return [(codes, pose) for codes in faces for pose in poses]


def _turn(options: Options, faces: list[Codes]) -> list[View]:
    """From one outermost yaw to the other and back, slowing at the ends."""
    low, high = min(options.yaws), max(options.yaws)
    middle, half = (low + high) / 2, (high - low) / 2
    steps = [2 * math.pi * frame / options.frames for frame in range(options.frames)]
    poses = [(middle + half * math.sin(step), options.pitches[0]) for step in steps]
    return [(codes, pose) for codes in faces for pose in poses]


def _path(options: Options, generator: Generator, faces: list[Codes]) -> list[View]:
    """`frames` views from each face to the next, in the codes named by --interpolate."""
    pose = (options.yaws[len(options.yaws) // 2], options.pitches[0])
    which = options.interpolate or "all"
    names = generator.config.group_names
    if which not in ("all", "z", *names):
        raise UserError(f"--interpolate {which}: use all, z, {', '.join(names)}")
    views = []
    current = faces[0]
    for target in faces[1:]:
        for frame in range(options.frames):
            weight = frame / max(options.frames - 1, 1)
            views.append((interpolate(current, target, weight, which, names), pose))
        current = views[-1][0]
    return views


def interpolate(
    start: Codes, end: Codes, weight: float, which: str, group_names: tuple[str, ...]
) -> Codes:
    """Codes between two faces in FiLM space: in all codes, in the geometry (`z`), or in the
    appearance of one group; the others stay those of `start`."""
    geometry, appearance = start.geometry, start.appearance
    if which in ("all", "z"):
        geometry = geometry.lerp(end.geometry, weight)
    if which == "all":
        appearance = appearance.lerp(end.appearance, weight)
    elif which != "z":
        chosen = torch.tensor([name == which for name in group_names])
        share = (weight * chosen)[:, None, None].to(appearance.phases)
        appearance = Film(
            torch.lerp(appearance.frequencies, end.appearance.frequencies, share),
            torch.lerp(appearance.phases, end.appearance.phases, share),
        )
    return Codes(geometry, appearance)


def _render_views(
    options: Options, generator: Generator, views: list[View], resolution: int
) -> dict[str, list[Tensor]]:
    """Every kind of picture of every view, (H, W, 3) uint8; labels (H, W)."""
    device = next(generator.parameters()).device
    pictures: dict[str, list[Tensor]] = {kind: [] for kind in KINDS}
    for codes, pose in progress(views, total=len(views), title="rendering"):
        output = render(
            generator,
            codes,
            torch.tensor([pose], device=device),
            resolution,
            chunk_rays=options.chunk_rays,
        )
        for kind, picture in picture_rows(output, generator.config.camera).items():
            pictures[kind].append(picture[0])
        pictures["labels"].append(output.labels[0].byte().cpu())
    return pictures


def _save_labels(options: Options, labels: list[Tensor]) -> None:
    """Raw class ids, one palette PNG a view."""
    for index, ids in enumerate(labels):
        image = Image.fromarray(ids.numpy(), mode="P")
        image.putpalette(PALETTE.tobytes())
        path = options.out / f"labels-{index:04d}.png"
        write_atomically(path, lambda temporary, image=image: image.save(temporary, format="PNG"))  # type: ignore[misc]
    wrote(options.out / "labels-*.png")


def _save_video(options: Options, kind: str, pictures: list[Tensor], frames: int) -> None:
    """Faces that turn stand side by side; a path between faces plays one after the other."""
    stacked = torch.stack(pictures)
    if options.interpolate is None:
        stacked = stacked.unflatten(0, (-1, frames)).permute(1, 2, 0, 3, 4).flatten(2, 3)
    name = Path(options.video or "")
    path = options.out / (name.name if kind == "image" else f"{name.stem}-{kind}{name.suffix}")
    save_animation(path, list(stacked.numpy()), fps=options.fps)
    wrote(path)


def _check(options: Options, seeds: list[int]) -> None:
    if options.resolution is not None and not 1 <= options.resolution <= 4096:
        raise UserError(f"--resolution {options.resolution}: use 1 to 4096")
    for kind in options.kinds:
        if kind not in KINDS:
            raise UserError(f"--kinds {kind}: use {', '.join(KINDS)}")
    if options.frames < 1 or options.fps < 1:
        raise UserError("--frames and --fps must be at least 1")
    if not options.yaws or not options.pitches:
        raise UserError("--yaws and --pitches need at least one angle each")
    if options.video is not None:
        check_animation(Path(options.video))
    if options.interpolate is not None and len(seeds) < 2:
        raise UserError("--interpolate needs at least two --seeds")
    if options.preset is not None:
        config.preset(options.preset)


def main(argv: list[str] | None = None) -> int:
    return run_command(Options, render_faces, argv, name="render")


if __name__ == "__main__":
    raise SystemExit(main())
