"""What a page takes along: the edit in the full-size photograph, a page, and video."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..baking.bake import TEXELS, bake, looks_of
from ..baking.page import page
from ..editing.photograph_file import save_like
from ..editing.project import FaceProject
from ..editing.tuning import with_weights
from ..editing.views import RenderedFace, View, path, turn
from ..errors import UserError
from ..kernels import use_backend
from ..model.generator import seed_codes
from ..model.renderer import render
from ..outputs import save_page
from ..pictures.grids import picture_rows
from ..pictures.video import Frames, check_animation, save_animation
from . import answers
from .face_views import CHUNK_RAYS
from .messages import pack_message
from .outbox import Outbox
from .photograph_view import PastedFaces, jpeg
from .revisions import Revision
from .session import EditingSession

VIDEOS = ("mp4", "webp")
FPS, FRAMES = 24, 72  # of a video
YAWS = (-0.5, 0.5)  # between which a head turns in it
SHOWN = 900  # pixels of the photograph in the page
TYPES = {"mp4": "video/mp4", "webp": "image/webp", "html": "text/html", "png": "image/png"}

Tell = Callable[[int, int], None]  # parts that are done, of how many
Making = Callable[[Tell], tuple[dict[str, Any], bytes]]  # fields of the answer, and its payload


class Cancelled(Exception):
    """The person no longer wants it."""


@dataclass(frozen=True)
class Video:
    """A turning head, or, with a start, a change from another face to the one at hand."""

    form: Literal["mp4", "webp"]
    kind: str
    pose: tuple[float, float]
    start: int | FaceProject | None = None  # a seed, or a face that was read


class Exporter:
    """Makes one thing at a time, of the face as it is when it is asked for."""

    def __init__(self, session: EditingSession, faces: PastedFaces, backend: str | None):
        self.session, self.faces, self.backend = session, faces, backend
        self.task: asyncio.Task[None] | None = None
        self.cancelled = threading.Event()

    def begin(self, outbox: Outbox, what: str, work: Making) -> None:
        """Start `work`, whose answer goes to a page."""
        if self.task is not None and not self.task.done():
            raise UserError("something is being made: wait, or press Cancel")
        self.cancelled.clear()
        self.task = asyncio.create_task(self._run(outbox, what, work))

    async def _run(self, outbox: Outbox, what: str, work: Making) -> None:
        loop = asyncio.get_running_loop()

        def tell(done: int, total: int) -> None:
            if self.cancelled.is_set():
                raise Cancelled
            message = pack_message({"type": "making", "what": what, "done": done, "total": total})
            loop.call_soon_threadsafe(outbox.put, "making", message)

        def run() -> tuple[dict[str, Any], bytes]:
            with use_backend(self.backend):
                return work(tell)

        made: dict[str, Any] = {"type": "made", "what": what}
        payload = b""
        try:
            fields, payload = await asyncio.to_thread(run)
            made |= fields
        except Cancelled:
            made["problem"] = "Cancelled."
        except UserError as error:
            made["problem"] = str(error)
        except OSError as error:
            made["problem"] = f"not made: {error}"
        except Exception:
            traceback.print_exc()
            made["problem"] = answers.DEFECT
        outbox.put("made", pack_message(made, payload))

    # The photograph.

    def photograph(self, tell: Tell) -> tuple[dict[str, Any], bytes]:
        """The surroundings of the face in the photograph, without and with the edit."""
        tell(0, 1)
        found = self.faces.pasted(self._edited())
        rows, columns = found.place
        pictures = [
            jpeg(pixels[rows, columns], SHOWN)
            for pixels in (found.sized.pixels, found.pasted.pixels)
        ]
        share = round(100 * float(found.pasted.region.mean()), 1)
        height, width = found.original.photograph.pixels.shape[:2]
        about = {"split": len(pictures[0]), "share": share, "width": width, "height": height}
        return about, b"".join(pictures)

    def pasted(self, tell: Tell) -> tuple[dict[str, Any], bytes]:
        """The photograph with the edit in it, at its full size, as the bytes of a PNG."""
        tell(0, 1)
        original, pixels = self.faces.whole(self._edited())
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "edited.png")
            save_like(file, pixels, original.photograph)
            return _file(f"{original.file.stem}-edited.png"), file.read_bytes()

    def _edited(self) -> Revision:
        """The face at hand; UserError where its photograph is as it was."""
        revision = self.session.revision
        if not self.faces.is_edited(revision):
            raise UserError("nothing has been changed yet: edit the face first")
        return revision

    # The rest.

    def page(self, name: str, tell: Tell) -> tuple[dict[str, Any], bytes]:
        """`face.html` of the face at hand."""
        generator, project = self.session.generator, self.session.face

        def watch(chunks: Sequence[int]) -> Iterable[int]:
            for done, chunk in enumerate(chunks):
                tell(done, len(chunks) + 1)
                yield chunk

        face = bake(
            project.generator(generator),
            project.codes(generator),
            size=TEXELS,
            looks=looks_of(generator),
            watch=watch,
            shared=generator,
        )
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "face.html")
            save_page(file, page(face, title=name))
            return _file(f"{name}.html"), file.read_bytes()

    @torch.no_grad()
    def video(self, wanted: Video, name: str, tell: Tell) -> tuple[dict[str, Any], bytes]:
        """An animation of the face at hand."""
        generator, project = self.session.generator, self.session.face
        name = f"{name}.{wanted.form}"
        check_animation(Path(name), FPS)
        face = RenderedFace(project.codes(generator), project.tuned)
        views: list[View]
        if wanted.start is None:
            views = turn([face], YAWS, wanted.pose[1], FRAMES)
        else:
            there = path(generator, [self._start(wanted.start), face], "all", wanted.pose, FRAMES)
            views = [*there, *[there[-1]] * (FPS // 2)]
        frames, count = [], len(views)
        for done, (shown, pose) in enumerate(views):
            tell(done, 2 * count)
            output = render(
                with_weights(generator, shown.tuned),
                shown.codes,
                torch.tensor([pose], device=generator.device),
                self.session.views.resolution,
                chunk_rays=CHUNK_RAYS,
                shade=wanted.kind == "image",
            )
            frames.append(picture_rows(output, generator.config.camera)[wanted.kind][0].numpy())

        def watch(pictures: Frames) -> Iterable[np.ndarray]:
            for done, picture in enumerate(pictures):
                tell(count + done, 2 * count)
                yield picture

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, name)
            save_animation(file, frames, fps=FPS, watch=watch)
            return _file(name), file.read_bytes()

    def _start(self, start: int | FaceProject) -> RenderedFace:
        generator = self.session.generator
        if isinstance(start, int):
            return RenderedFace(seed_codes(generator, start))
        return RenderedFace(start.codes(generator), start.tuned)


def _file(name: str) -> dict[str, Any]:
    return {"name": name, "mime": TYPES[name.rpartition(".")[2]]}
