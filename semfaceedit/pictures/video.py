"""Video: GIF and WebP through Pillow, MP4 through imageio's bundled ffmpeg."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UserError
from ..files import write_atomically
from ..outputs import MARK, SOFTWARE, check_replaceable

SUFFIXES = (".mp4", ".gif", ".webp")
Frames = Sequence[np.ndarray]  # (H, W, 3) uint8 each
Watch = Callable[[Frames], Iterable[np.ndarray]]  # gives them one by one, showing progress
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


def every(frames: Frames) -> Frames:
    """A `Watch` that shows nothing."""
    return frames


def save_animation(path: Path, frames: Frames, *, fps: int, watch: Watch = every) -> None:
    """Write frames (H, W, 3) uint8 that play endlessly at `fps`.

    watch: is asked for each frame when its turn has come; where it raises, no file is left.
    """
    check_animation(path, fps)
    check_replaceable(path)
    if path.suffix.lower() == ".mp4":
        write_atomically(path, lambda temporary: _write_mp4(temporary, frames, fps, watch))
        return
    kind = path.suffix[1:].upper()
    settings: dict[str, Any] = {"comment": MARK.encode()}
    if kind == "WEBP":
        exif = Image.Exif()
        exif[SOFTWARE] = MARK
        settings = {"lossless": True, "exif": exif}
    seen = iter(watch(frames))
    pictures = [_Frame(frame, seen) for frame in frames]
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
    next(seen, None)  # past the last one


class _Frame(Image.Image):
    """A picture that counts itself as seen when it is first written."""

    def __init__(self, values: np.ndarray, seen: Iterator[np.ndarray]):
        self.__dict__ |= vars(Image.fromarray(np.ascontiguousarray(values)))
        self._seen: Iterator[np.ndarray] | None = seen

    def seek(self, frame: int) -> None:
        if self._seen is not None:
            next(self._seen, None)
            self._seen = None
        super().seek(frame)


def _write_mp4(path: Path, frames: Frames, fps: int, watch: Watch) -> None:
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
        for frame in watch(frames):
            writer.send(np.ascontiguousarray(frame))
