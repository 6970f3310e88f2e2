"""Video: GIF and WebP through Pillow, MP4 through imageio's bundled ffmpeg."""

import contextlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..files import write_atomically
from ..outputs import MARK, SOFTWARE, check_replaceable

SUFFIXES = (".mp4", ".gif", ".webp")
MOST_GIF_FPS = 50  # a frame takes whole hundredths of a second, and viewers slow one of 1 down


def check_animation(path: Path, fps: int) -> None:
    """UserError, before any work is done, where `path` cannot be written at that speed."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(f"{path}: name a video file that ends in {', '.join(SUFFIXES)}")
    if path.suffix.lower() == ".gif" and fps > MOST_GIF_FPS:
        raise UserError(
            f"{path}: a GIF has at most {MOST_GIF_FPS} frames per second, not {fps}: lower --fps, "
            "or name a .webp or .mp4 file"
        )
    if path.suffix.lower() == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ImportError:
            raise UserError(
                f"{path}: MP4 needs imageio-ffmpeg: pip install 'semfaceedit[media]', or name a "
                ".gif or .webp file"
            ) from None


def forms_here() -> list[str]:
    """The formats of `SUFFIXES`, without the dot, that can be written on this machine."""
    found = []
    for suffix in SUFFIXES:
        with contextlib.suppress(UserError):
            check_animation(Path(f"video{suffix}"), 1)
            found.append(suffix[1:])
    return found


def save_animation(path: Path, frames: Sequence[np.ndarray], *, fps: int) -> None:
    """Write frames (H, W, 3) uint8 that play endlessly at `fps`."""
    check_animation(path, fps)
    check_replaceable(path)
    if path.suffix.lower() == ".mp4":
        write_atomically(path, lambda temporary: _write_mp4(temporary, frames, fps))
        return
    pictures = [Image.fromarray(frame) for frame in frames]
    kind = path.suffix[1:].upper()
    settings: dict[str, Any] = {"comment": MARK.encode()}
    if kind == "WEBP":
        exif = Image.Exif()
        exif[SOFTWARE] = MARK
        settings = {"lossless": True, "exif": exif}
    write_atomically(
        path,
        lambda temporary: pictures[0].save(
            temporary,
            format=kind,
            save_all=True,
            append_images=pictures[1:],
            duration=round(1000 / fps),
            loop=0,
            **settings,
        ),
    )


def _write_mp4(path: Path, frames: Sequence[np.ndarray], fps: int) -> None:
    from imageio_ffmpeg import write_frames

    height, width = frames[0].shape[:2]
    settings = ["-f", "mp4", "-metadata", f"comment={MARK}"]
    with closing(
        write_frames(
            str(path), (width, height), fps=fps, quality=8, macro_block_size=2,
            output_params=settings,
        )
    ) as writer:  # fmt: skip
        writer.send(None)
        for frame in frames:
            writer.send(np.ascontiguousarray(frame))
