"""The photograph of the face at hand with all edits in it, for the page and to take along."""

from __future__ import annotations

import hashlib
import io
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image
from starlette.websockets import WebSocket
from torch.overrides import TorchFunctionMode

from ..data.align import Window
from ..editing.composition import NothingChanged, Pasted
from ..editing.paste import WORKING, paste, region_since, rendering
from ..editing.photograph_file import Photograph, read_original
from ..editing.project import FaceProject
from ..editing.source_photograph import NoPhotograph, find_photograph, window_on
from ..errors import UserError
from ..files import sha256_of_file
from ..kernels import use_backend
from ..model.codes import Film
from ..model.generator import Generator
from ..model.renderer import RenderOutput
from . import answers
from .background import Background
from .messages import pack_message
from .outbox import Outbox
from .revisions import Revision
from .session import EditingSession
from .uploads import SUFFIXES, check_picture, clean_name, keep_picture

ALONG, AROUND = 1024, 0.3  # pixels along the crop at most, and the border about it, in its sides
QUICK = WORKING // 2  # at which the first of two pictures is found
MOST_KEPT = 3  # pictures: the one at hand, and those that a page shows beside it
LOOK = 0.03  # seconds between looks at whether a stroke is sharp


class Outdated(Exception):
    """Another picture is wanted by now."""


class MissingPhotograph(UserError):
    """A photograph that was there once: who has its file can give it again (`supply`)."""


@dataclass(frozen=True)
class Sized:
    """A photograph, at the size that it has or smaller."""

    pixels: np.ndarray  # (H, W, 3) uint8; a whole one may have 16 bits
    window: Window  # of the crop, in these

    def reduced(self, along: int) -> Sized:
        """With at most so many pixels along the crop."""
        factor = along / self.window.side
        if factor >= 1:
            return self
        height, width = self.pixels.shape[:2]
        size = round(factor * width), round(factor * height)
        small = Image.fromarray(self.pixels).resize(size, Image.Resampling.LANCZOS)
        return Sized(np.asarray(small), self.window.scaled(size[0] / width))


@dataclass(frozen=True)
class Original:
    """A photograph that was read: whole, as it is shown, and as it is shown first."""

    file: Path
    photograph: Photograph
    whole: Sized
    fine: Sized
    quick: Sized


@dataclass(frozen=True)
class PastedFace:
    """A photograph with the edits of a face in it, at the size at which it is shown."""

    project: FaceProject
    original: Original
    sized: Sized  # one of its sizes ...
    pasted: Pasted  # ... with the edits in it
    working: int  # pixels along the crop, at which the edits were found

    @property
    def place(self) -> tuple[slice, slice]:
        """Rows and columns of the surroundings of the face."""
        height, width = self.pasted.region.shape
        window = self.sized.window
        border = AROUND * window.side
        left, top = (max(0, round(edge - border)) for edge in (window.left, window.top))
        right = min(width, round(window.left + window.side + border))
        bottom = min(height, round(window.top + window.side + border))
        return slice(top, bottom), slice(left, right)


class Renderings:
    """Renders faces at their own pose, and keeps what it made of one of them."""

    def __init__(self) -> None:
        self._shape: Film | None = None  # of the face that is kept
        self._look: Film | None = None
        self._kept: dict[int, RenderOutput] = {}  # by resolution

    def keep(self, face: FaceProject) -> None:
        """Of all faces, keep those with these offsets from now on."""
        if not self._is_kept(face):
            self._shape, self._look, self._kept = face.geometry, face.appearance, {}

    def __call__(self, generator: Generator, face: FaceProject, resolution: int) -> RenderOutput:
        if not self._is_kept(face):
            return rendering(generator, face, resolution)
        if resolution not in self._kept:
            self._kept[resolution] = rendering(generator, face, resolution)
        return self._kept[resolution]

    def _is_kept(self, face: FaceProject) -> bool:
        return face.geometry is self._shape and face.appearance is self._look


class PastedFaces:
    """Pastes faces into their photograph, one at a time, and keeps the last ones."""

    def __init__(self, session: EditingSession):
        self.session = session
        self._lock = threading.Lock()
        self._renderings = Renderings()
        self._original: tuple[FaceProject, Original] | None = None
        self._kept: list[PastedFace] = []  # the newest last
        self._supplied: dict[str, Path] = {}  # files that were given again, by their hash

    def pasted(self, revision: Revision, working: int = WORKING) -> PastedFace:
        """All edits of a face in its photograph; as it is without any. UserError where there is no
        photograph to show."""
        with self._lock:
            return self._pasted(revision, working)

    def whole(self, revision: Revision) -> tuple[Original, np.ndarray]:
        """The same at the photograph's full size, (H, W, 3) uint8."""
        with self._lock:
            found = self._pasted(revision, WORKING)
            original = found.original
            if found.sized is original.whole:
                return original, found.pasted.pixels
            return original, self._paste(revision, original.whole, WORKING).pixels

    def is_edited(self, revision: Revision) -> bool:
        return revision.project is not self._inverted(revision)

    def supply(self, revision: Revision, data: bytes, name: str) -> None:
        """Keep the file of a face's photograph, which was missing, beside the faces.

        UserError where it is not the very file that the face was found in.
        """
        source = self._inverted(revision).crop
        known = None if source is None else source.photograph
        if known is None or hashlib.sha256(data).hexdigest() != known.sha256:
            raise UserError(
                f"{name}: not the very file that the face was found in: choose that, or open this "
                "one as another photograph"
            )
        suffix = check_picture(data, name)
        if (own := PurePath(known.path).suffix).lower() in SUFFIXES:
            suffix = own  # so that the project finds it by its name
        file, _ = keep_picture(data, self.session.saved.out, clean_name(known.path), suffix)
        self._supplied[known.sha256] = file

    def _pasted(self, revision: Revision, working: int) -> PastedFace:
        original = self._read(self._inverted(revision))
        for known in self._kept:
            same = known.project is revision.project and known.original is original
            if same and known.working >= working:
                return known
        sized = original.fine if working == WORKING else original.quick
        pasted = self._paste(revision, sized, working)
        made = PastedFace(revision.project, original, sized, pasted, working)
        others = [k for k in self._kept if k.project is not revision.project]
        self._kept = [*others, made][-MOST_KEPT:]
        return made

    def _paste(self, revision: Revision, sized: Sized, working: int) -> Pasted:
        before, after = self._inverted(revision), revision.project
        generator = self.session.generator
        unchanged = Pasted(sized.pixels, np.zeros(sized.pixels.shape[:2], bool))
        if after is before:
            return unchanged
        region = region_since(before, after, generator.config.resolution)
        self._renderings.keep(before)
        try:
            return paste(
                generator, before, after, region, sized.pixels, sized.window, working=working,
                rendered=self._renderings,
            )  # fmt: skip
        except NothingChanged:
            return unchanged

    def _inverted(self, revision: Revision) -> FaceProject:
        """The face that the photograph shows."""
        root = root_of(self.session.history[0], revision)
        if root is None or root.crop is None or revision.project.crop is None:
            raise UserError(
                "the map was taken from another side since: go back to a revision before"
            )
        return root.as_inverted() if root.origin is not None else root

    def _given_again(self, before: FaceProject) -> Path | None:
        known = None if before.crop is None else before.crop.photograph
        file = None if known is None else self._supplied.get(known.sha256)
        if known is None or file is None or not file.is_file():
            return None
        return file if sha256_of_file(file) == known.sha256 else None

    def _read(self, before: FaceProject) -> Original:
        try:
            file = find_photograph(before, near=self.session.saved.out / "face")
        except NoPhotograph as error:
            given = self._given_again(before)
            if given is None:
                out = self.session.saved.out
                raise MissingPhotograph(
                    f"{error.fact}: put the very file into {out}, or open the photograph again"
                ) from None
            file = given
        if self._original is not None:
            known, original = self._original
            if known.crop == before.crop and original.file == file:
                return original
        photograph = read_original(file)
        assert before.crop is not None
        height, width = photograph.pixels.shape[:2]
        try:
            window = window_on(before.crop, width, height)
        except UserError as error:
            raise UserError(str(error).removeprefix("--photograph: ")) from None
        shown = Sized(photograph.pixels, window)
        whole = shown if photograph.low is None else Sized(photograph.finest, window)
        fine = shown.reduced(ALONG)
        original = Original(file, photograph, whole, fine, fine.reduced(ALONG // 2))
        self._original = before, original
        return original


class PhotographView:
    """Sends pages the surroundings of a face in its photograph, with all edits in them.

    For each page the face that it asked for last: a coarse picture soon, then the fine one.
    sharpening: whether the face at hand is about to be replaced by a sharper one.
    """

    def __init__(self, faces: PastedFaces, backend: str | None, sharpening: Callable[[], bool]):
        self.faces, self.backend, self.sharpening = faces, backend, sharpening
        self._background = Background("photograph")
        self._ended = False

    def ask(self, page: WebSocket, outbox: Outbox, number: int) -> None:
        """Send a page the revision of this number, if it is still known."""
        self._background.ask(page, outbox, self._answers(page, number))

    def end(self) -> None:
        """Leave what is being made."""
        self._ended = True

    def _answers(self, page: WebSocket, number: int) -> Iterator[bytes]:
        def check() -> None:
            if self._ended or self._background.outdated(page):
                raise Outdated

        try:
            while self.sharpening():
                check()
                time.sleep(LOOK)
            edited = self.faces.is_edited(self._revision(number))
            for working in (QUICK, WORKING) if edited else (WORKING,):
                revision = self._revision(number)
                with use_backend(self.backend), _Interruptible(check):
                    found = self.faces.pasted(revision, working)
                fine = found.working == WORKING
                yield _message(revision, found, fine)
                if fine:
                    break
        except Outdated:
            pass
        except (UserError, OSError) as error:
            yield _refusal(number, str(error), isinstance(error, MissingPhotograph))
        except Exception:
            traceback.print_exc()
            yield _refusal(number, answers.DEFECT)

    def _revision(self, number: int) -> Revision:
        revisions, _ = self.faces.session.history
        found = next((r for r in revisions if r.number == number), None)
        if found is None:
            raise Outdated
        return found


class _Interruptible(TorchFunctionMode):  # type: ignore[misc]
    """What runs in it, in this thread, ends with what `check` raises at the next call of torch."""

    def __init__(self, check: Callable[[], None]):
        super().__init__()
        self.check = check

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.check()
        return function(*args, **(kwargs or {}))


def root_of(revisions: Sequence[Revision], revision: Revision) -> FaceProject | None:
    """What was chosen, opened or found, and led to this face; None: it is forgotten."""
    return next((r.project for r in revisions if r.number == revision.root), None)


def jpeg(pixels: np.ndarray, most: int | None = None) -> bytes:
    """Pixels (H, W, 3) as the bytes of a JPEG, of at most so many along an edge."""
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    if most is not None:
        picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def _message(revision: Revision, found: PastedFace, fine: bool) -> bytes:
    rows, columns = found.place
    window = found.sized.window
    header = {
        "type": "photograph",
        "number": revision.number,
        "version": revision.version,
        "fine": fine,
        "crop": [window.left - columns.start, window.top - rows.start, window.side],
    }
    return pack_message(header, jpeg(found.pasted.pixels[rows, columns]))


def _refusal(number: int, problem: str, missing: bool = False) -> bytes:
    """missing: the page may offer to find the file."""
    header = {"type": "photograph", "number": number, "problem": problem, "missing": missing}
    return pack_message(header)
