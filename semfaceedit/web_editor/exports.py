"""What a page takes along: the edit in the full-size photograph, a page, and video."""

from __future__ import annotations

import asyncio
import io
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from ..baking.bake import TEXELS, bake, looks_of
from ..baking.page import page
from ..editing.paste import NoPhotograph, Pasted, find_photograph, paste, since, window_on
from ..editing.photograph_file import Photograph, read_original, save_like
from ..editing.project import FaceProject
from ..editing.tuning import with_weights
from ..editing.views import RenderedFace, View, path, turn
from ..errors import UserError
from ..kernels import use_backend
from ..model.generator import seed_codes
from ..model.renderer import render
from ..outputs import save_page
from ..pictures.grids import picture_rows
from ..pictures.video import check_animation, save_animation
from . import answers
from .face_views import CHUNK_RAYS
from .messages import pack_message
from .outbox import Outbox
from .session import EditingSession

VIDEOS = ("mp4", "webp")
FPS, FRAMES = 24, 72  # of a video
YAWS = (-0.5, 0.5)  # between which a head turns in it
SHOWN, AROUND = 900, 0.3  # pixels of the photograph in the page, and the border about the face
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


@dataclass(frozen=True)
class _PastedFace:
    """A photograph with an edit in it, kept until the face changes."""

    project: FaceProject
    original: Photograph
    pasted: Pasted
    shown: bytes  # two JPEGs, before and after, of the same size
    split: int  # bytes of the first
    name: str


class Exporter:
    """Makes one thing at a time, of the face as it is when it is asked for."""

    def __init__(self, session: EditingSession, backend: str | None):
        self.session, self.backend = session, backend
        self.task: asyncio.Task[None] | None = None
        self.cancelled = threading.Event()
        self._pasted: _PastedFace | None = None

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
        found = self._paste()
        share = round(100 * float(found.pasted.region.mean()), 1)
        height, width = found.pasted.pixels.shape[:2]
        about = {"split": found.split, "share": share, "width": width, "height": height}
        return about, found.shown

    def pasted(self, tell: Tell) -> tuple[dict[str, Any], bytes]:
        """The photograph with the edit in it, at its full size, as the bytes of a PNG."""
        tell(0, 1)
        found = self._paste()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "edited.png")
            save_like(file, found.pasted.pixels, found.original)
            return _file(f"{found.name}-edited.png"), file.read_bytes()

    def _paste(self) -> _PastedFace:
        project = self.session.face
        if self._pasted is None or self._pasted.project is not project:
            self._pasted = self._paste_now(project)
        return self._pasted

    def _paste_now(self, project: FaceProject) -> _PastedFace:
        generator, before = self.session.generator, origin(self.session)
        if before is None or project.crop is None or before.crop is None:
            raise UserError(
                "the map was taken from another side since: go back to a revision before"
            )
        if project is before:
            raise UserError("nothing has been changed yet: edit the face first")
        try:
            file = find_photograph(before, near=self.session.saved.out / "face")
            original = read_original(file)
            height, width = original.pixels.shape[:2]
            window = window_on(before.crop, width, height)
            edited = since(generator, before, project)
            pasted = paste(generator, before, edited, original.pixels, window)
        except NoPhotograph as error:
            out = self.session.saved.out
            raise UserError(
                f"{error.fact}: put the very file into {out}, or open the photograph again"
            ) from None
        except UserError as error:
            raise UserError(str(error).removeprefix("--paste: ")) from None
        border = AROUND * window.side
        left, top = (max(0, round(edge - border)) for edge in (window.left, window.top))
        right = min(width, round(window.left + window.side + border))
        bottom = min(height, round(window.top + window.side + border))
        shown = [_small(p[top:bottom, left:right]) for p in (original.pixels, pasted.pixels)]
        return _PastedFace(project, original, pasted, b"".join(shown), len(shown[0]), file.stem)

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
            tell(done, count + 1)
            output = render(
                with_weights(generator, shown.tuned),
                shown.codes,
                torch.tensor([pose], device=generator.device),
                self.session.views.resolution,
                chunk_rays=CHUNK_RAYS,
                shade=wanted.kind == "image",
            )
            frames.append(picture_rows(output, generator.config.camera)[wanted.kind][0].numpy())
        tell(count, count + 1)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, name)
            save_animation(file, frames, fps=FPS)
            return _file(name), file.read_bytes()

    def _start(self, start: int | FaceProject) -> RenderedFace:
        generator = self.session.generator
        if isinstance(start, int):
            return RenderedFace(seed_codes(generator, start))
        return RenderedFace(start.codes(generator), start.tuned)


def origin(session: EditingSession) -> FaceProject | None:
    """What was chosen, opened or found, and led to the face at hand; None: it is forgotten."""
    revisions, at = session.history
    root = revisions[at].root
    return next((r.project for r in revisions if r.number == root), None)


def _file(name: str) -> dict[str, Any]:
    return {"name": name, "mime": TYPES[name.rpartition(".")[2]]}


def _small(pixels: np.ndarray) -> bytes:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((SHOWN, SHOWN), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()
