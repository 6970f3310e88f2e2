"""The files of a baked face."""

from collections.abc import Iterator
from pathlib import Path

from ..outputs import check_outputs, save_page
from .bake import BakedFace
from .container import ImageFormat
from .page import page

__all__ = ["ImageFormat", "check_bake", "write_bake"]

PAGE_FILE = "face.html"
FILES = (PAGE_FILE,)


def check_bake(folder: Path) -> None:
    """UserError, before any work, where a file in `folder` is not ours to replace."""
    check_outputs([folder / name for name in FILES])


def write_bake(
    face: BakedFace, folder: Path, *, title: str, image_format: ImageFormat
) -> Iterator[tuple[Path, int]]:
    """Write each file; yields its path and size in bytes."""
    save_page(folder / PAGE_FILE, page(face, title=title, image_format=image_format))
    yield folder / PAGE_FILE, (folder / PAGE_FILE).stat().st_size
