"""The editor's page and its socket, on loopback alone."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import tempfile
import traceback
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Literal, cast, get_args

import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from ..baking.page import PAGE as BAKED
from ..editing.fit_terms import Watch
from ..editing.mask_edits import paint
from ..editing.project import FaceProject
from ..editing.region_transfer import What
from ..editing.sliders import MOST
from ..errors import UserError
from . import answers
from .changes import Changes
from .exports import VIDEOS, Exporter, Making, Video
from .face_views import KINDS
from .http import Guard, PatientProtocol
from .layers import MOST_TEXELS, Baker, Wanted
from .messages import (
    MOST_SEED,
    number,
    numbers,
    one_of,
    pack_message,
    pose_of,
    quoted,
    seeds_of,
    unpack,
    whole,
    word,
)
from .outbox import Outbox, receive, send
from .patience import read_within
from .photograph_view import PastedFaces, PhotographView
from .session import EditingSession
from .uploads import check_picture, clean_name, keep_picture

WEB = Path(__file__).with_name("page")
HOSTS = ["127.0.0.1", "localhost"]
PICTURES = ("view", "follow", "faces", "looks", "thumbnail")
EXPORTS = ("photograph", "pasted", "page", "video")
CANVASES = ("face", "map", "before")  # that a view may be for
MOST_WANTED = 32  # pictures that one page waits for
MOST_BYTES = 64 << 20  # of a message: a photograph and its label map
MOST_ITERATIONS = 2000
WRONG_KEY = 4403  # the code with which a socket is closed


class EditorServer:
    """One session for every page that is open; what changes the face runs one at a time.

    `app` is the ASGI application; its socket speaks to who gives `key` in the address. Messages are
    described in `handlers` by their type; each field is checked before it is used, and a UserError
    goes to the page that sent the message.
    """

    def __init__(self, session: EditingSession, key: str, backend: str | None = None):
        self.session, self.key = session, key
        self.changes = Changes(session, backend)
        self.baker, self.pasted = Baker(session, backend), PastedFaces(session)
        self.exporter = Exporter(session, self.pasted, backend)
        self.photograph = PhotographView(
            self.pasted, backend, lambda: self.changes.sharpening is not None
        )
        self.handlers: dict[str, Callable[[WebSocket, dict[str, Any], bytes], Awaitable[None]]] = {
            "view": self._view,
            "follow": self._view,
            "faces": self._faces,
            "looks": self._looks,
            "thumbnail": self._thumbnail,
            "layers": self._layers,
            "photograph": self._photograph,
            "supply": self._supply,
            "export": self._export,
            "cancel": self._cancel,
            "choose": self._choose,
            "open": self._open,
            "look": self._look,
            "adjust": self._adjust,
            "turn": self._turn,
            "go": self._go,
            "paint": self._paint,
            "stroke": self._stroke,
            "edit": self._edit,
            "transfer": self._transfer,
            "invert": self._invert,
            "stop": self._stop,
            "save": self._save,
        }
        self.app = Starlette(
            routes=[
                Route("/", self._index),
                WebSocketRoute("/socket", self._connect),
                Mount("/baked", StaticFiles(directory=BAKED)),  # what draws baked faces
                Mount("/", StaticFiles(directory=WEB)),
            ],
            middleware=[
                Middleware(Guard),
                Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS),
            ],
        )

    def end(self) -> Path | None:
        """Stop what runs and keep a face that is not on the disk."""
        self.changes.end()
        self.baker.interrupt()
        self.photograph.end()
        self.exporter.cancelled.set()
        return self.session.autosave()

    async def _index(self, request: Request) -> Response:
        return FileResponse(WEB / "index.html")

    async def _connect(self, socket: WebSocket) -> None:
        if not _same_origin(socket):
            await socket.close(1008)
            return
        await socket.accept()
        given = socket.query_params.get("key", "")
        if not secrets.compare_digest(given.encode(), self.key.encode()):
            await socket.close(WRONG_KEY)  # once accepted: only so does the page learn the code
            return
        outbox = self.changes.pages[socket] = Outbox(socket)
        wanted: asyncio.Queue[bytes] = asyncio.Queue(MOST_WANTED)
        tasks = [asyncio.create_task(work) for work in (outbox.run(), self._draw(socket, wanted))]
        try:
            outbox.put("about", answers.about(self.session))
            await self.changes.tell_state(outbox)
            while True:
                message = await receive(socket)
                kind = _type(message)
                if kind == "follow":  # the next stroke: the last one is sharp enough
                    self.changes.painting.set()
                    self.baker.interrupt()
                if kind not in PICTURES:
                    await self._answer(socket, message)
                elif wanted.full():
                    await send(
                        socket, answers.error("too many pictures are asked for at once: wait")
                    )
                else:
                    wanted.put_nowait(message)
        except (WebSocketDisconnect, KeyError):  # KeyError: a text message
            pass
        finally:
            del self.changes.pages[socket]
            for task in tasks:
                task.cancel()

    async def _draw(self, socket: WebSocket, wanted: asyncio.Queue[bytes]) -> None:
        """Pictures, one after another, but beside all else: no button waits for them."""
        with contextlib.suppress(WebSocketDisconnect):
            while True:
                await self._answer(socket, await wanted.get())

    async def _answer(self, socket: WebSocket, message: bytes) -> None:
        try:
            header, payload = unpack(message)
            if header["type"] not in self.handlers:
                raise UserError(
                    f"no message {quoted(header['type'])} is known here: reload the page"
                )
            await self.handlers[header["type"]](socket, header, payload)
        except UserError as error:
            await send(socket, answers.error(str(error)))
        except WebSocketDisconnect:
            raise
        except OSError as error:
            await send(socket, answers.error(f"not written: {error}"))
        except Exception:
            traceback.print_exc()
            await send(socket, answers.error(answers.DEFECT))

    # Pictures.

    async def _view(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        target, moving = one_of(header, "target", CANVASES), header.get("moving") is True
        revision = header.get("revision")
        picture = await self.changes.thread(
            self.session.view,
            word(header, "kind"),
            pose_of(header),
            moving=moving,
            revision=None if revision is None else whole(header, "revision", 0, 10**6),
            labels=self._labels(payload) if header["type"] == "follow" else None,
            changes=numbers(header, "changes", MOST) if "changes" in header else None,
        )
        answer = {
            "type": "frame",
            "target": target,
            "kind": header["kind"],
            "size": len(picture),
            "moving": moving,
        }
        await send(
            socket, pack_message(answer, answers.encoded(picture, "JPEG" if moving else "PNG"))
        )

    async def _faces(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        seeds = seeds_of(header)
        strip = await self.changes.thread(self.session.views.faces, seeds)
        answer = {"type": "faces", "first": seeds[0], "count": len(seeds)}
        await send(socket, pack_message(answer, answers.encoded(strip)))

    async def _looks(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        group, seeds = word(header, "group"), seeds_of(header)
        strip = await self.changes.thread(self.session.looks, group, seeds)
        answer = {"type": "looks", "group": group, "first": seeds[0], "count": len(seeds)}
        await send(socket, pack_message(answer, answers.encoded(strip)))

    async def _thumbnail(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        name = word(header, "name")
        picture = await read_within(lambda: self.session.saved.thumbnail(name), name)
        await send(
            socket, pack_message({"type": "thumbnail", "name": name}, answers.encoded(picture))
        )

    async def _layers(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        """The face of a revision, for the page to turn by itself; they come when they are baked."""
        number, version = (whole(header, name, 0, MOST_SEED) for name in ("number", "version"))
        wanted = Wanted(number, version, whole(header, "texels", 8, MOST_TEXELS))
        self.baker.ask(socket, self.changes.pages[socket], wanted)

    async def _photograph(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        """A revision in its photograph, when it is pasted there."""
        number = whole(header, "number", 0, MOST_SEED)
        self.photograph.ask(socket, self.changes.pages[socket], number)

    async def _supply(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        """The payload is the photograph of the face at hand, which was missing."""
        name, revision = clean_name(word(header, "name")), self.session.revision
        await self.changes.thread(self.pasted.supply, revision, payload, name)
        await send(socket, pack_message({"type": "supplied"}))

    async def _export(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        """Something to take along, while the face can go on being edited."""
        what, outbox = one_of(header, "what", EXPORTS), self.changes.pages[socket]
        try:
            self.exporter.begin(outbox, what, await self._work_of(what, header))
        except UserError as error:
            outbox.put("made", pack_message({"type": "made", "what": what, "problem": str(error)}))

    async def _work_of(self, what: str, header: dict[str, Any]) -> Making:
        exporter = self.exporter
        if what in ("photograph", "pasted"):
            return exporter.photograph if what == "photograph" else exporter.pasted
        name = clean_name(f"{word(header, 'name')}.")
        if what == "page":
            return partial(exporter.page, name)
        form = cast(Literal["mp4", "webp"], one_of(header, "form", VIDEOS))
        kind, pose = one_of(header, "kind", KINDS), pose_of(header)
        start: int | FaceProject | None = None
        if "seed" in header:
            start = whole(header, "seed", 0, MOST_SEED)
        elif "project" in header:
            start = await self._read(word(header, "project"))
        return partial(exporter.video, Video(form, kind, pose, start), name)

    async def _cancel(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        self.exporter.cancelled.set()

    # Changes that are done at once.

    async def _choose(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        seed = whole(header, "seed", 0, MOST_SEED)
        await self.changes.change(lambda: self.session.choose(seed))

    async def _open(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        name = word(header, "name")
        project = await self._read(name)
        await self.changes.change(lambda: self.session.take(project, name))

    async def _look(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        group, seed = word(header, "group"), whole(header, "seed", 0, MOST_SEED)
        amount = number(header, "amount", 0, 1)
        await self.changes.change(lambda: self.session.look(group, seed, amount))

    async def _adjust(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        changes = numbers(header, "changes", MOST)
        await self.changes.change(lambda: self.session.adjust(changes))

    async def _turn(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        pose = pose_of(header)
        await self.changes.change(lambda: self.session.turn(pose))

    async def _go(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        revision = whole(header, "revision", 0, 10**6)
        await self.changes.change(lambda: self.session.go(revision))

    async def _paint(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        """An edit of the map by code; the face does not change."""
        painted = paint(self._labels(payload), [word(header, "name")])
        await send(socket, pack_message({"type": "map"}, painted.tobytes()))

    async def _save(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        name = word(header, "name")
        path = await self.changes.change(lambda: self.session.save(name))
        self.changes.pages[socket].put("saved", pack_message({"type": "saved", "path": str(path)}))

    async def _stroke(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        """The face follows a stroke at once, and is sharpened until something else happens."""
        labels, name = self._labels(payload), word(header, "name")
        painted_on = whole(header, "number", 0, MOST_SEED)

        def work() -> None:
            self._check_painted_on(painted_on)
            self.session.stroke(labels, name)

        await self.changes.stroke(work)

    def _check_painted_on(self, number: int) -> None:
        if self.session.revision.number != number:
            raise UserError(
                "the face has changed since this map was painted: look, and apply again"
            )

    # Changes that take a while.

    async def _edit(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        labels, iterations = self._labels(payload), whole(header, "iterations", 1, MOST_ITERATIONS)
        painted_on = whole(header, "number", 0, MOST_SEED)
        appearance = header.get("appearance") is True
        name = word(header, "name") if "name" in header else "painted map"

        def work(watch: Watch) -> None:
            self._check_painted_on(painted_on)
            self.session.edit(
                labels, iterations=iterations, appearance=appearance, name=name, watch=watch
            )

        self._begin("edit", "the face follows the map", iterations, work)

    async def _transfer(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        name, source = "", cast(int | FaceProject, 0)
        if "seed" in header:
            source = whole(header, "seed", 0, MOST_SEED)
        else:
            name = word(header, "project")
            source = await self._read(name)
        what, region = cast(What, one_of(header, "what", get_args(What))), word(header, "region")
        iterations = whole(header, "iterations", 1, MOST_ITERATIONS)
        self._begin(
            "transfer",
            f"taking over the {region}",
            iterations,
            lambda watch: self.session.transfer(
                source, what, [region], iterations=iterations, watch=watch, name=name
            ),
        )

    async def _invert(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        """The payload is the photograph, of `split` bytes, and its label map, if it has one."""
        split = whole(header, "split", 1, len(payload))
        name = clean_name(str(header.get("name")))
        photograph, mask = payload[:split], payload[split:]
        suffix = check_picture(photograph, "the photograph")
        if mask:
            check_picture(mask, "the label map")

        def work(watch: Watch) -> None:
            # The photograph stays beside the faces, so that edits can be pasted into it.
            image, new = keep_picture(photograph, self.session.saved.out, name, suffix)
            try:
                with tempfile.TemporaryDirectory() as folder:
                    labels = Path(folder, "label map")
                    labels.write_bytes(mask)
                    try:
                        self.session.invert(image, labels if mask else None, watch=watch)
                    except UserError as error:
                        told = str(error).replace(str(labels), "the label map")
                        raise UserError(told.replace(str(image), "the photograph")) from None
            except BaseException:
                if new:
                    image.unlink(missing_ok=True)
                raise

        self._begin("inversion", "looking for the face of the photograph", 500, work)

    async def _stop(self, socket: WebSocket, header: dict[str, Any], payload: bytes) -> None:
        self.changes.stopping.set()

    # What they share.

    def _begin(self, kind: str, name: str, iterations: int, work: Callable[[Watch], None]) -> None:
        """Start a change that takes a while; a bake does not hold it up."""
        self.changes.begin(kind, name, iterations, work)
        self.baker.interrupt()

    async def _read(self, name: str) -> FaceProject:
        """A face project of the folder."""
        saved, generator = self.session.saved, self.session.generator
        return await read_within(lambda: FaceProject.load(saved.file(name), generator), name)

    def _labels(self, payload: bytes) -> np.ndarray:
        """The map of the page (R, R)."""
        size = len(self.session.face.labels)
        if len(payload) != size**2:
            raise UserError(f"a map of {len(payload)} bytes, {size}x{size} are needed: reload")
        return np.frombuffer(payload, np.uint8).reshape(size, size).copy()


class PageServer(uvicorn.Server):
    """What serves an editor; told to end, it lets a running fit end first."""

    def __init__(self, editor: EditorServer):
        super().__init__(
            uvicorn.Config(
                editor.app,
                log_level="warning",
                lifespan="off",
                timeout_graceful_shutdown=2,  # seconds
                http=PatientProtocol,
                ws_max_size=MOST_BYTES,
            )
        )
        self.editor = editor

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.editor.changes.end()
        self.editor.exporter.cancelled.set()
        super().handle_exit(sig, frame)


def _same_origin(socket: WebSocket) -> bool:
    """Whether a page of this server speaks: any site may open a socket to loopback."""
    origin = socket.headers.get("origin", "")
    return origin.partition("://")[2] == socket.headers.get("host", "")


def _type(message: bytes) -> str:
    """The type of a message, "" where it is none."""
    try:
        return str(unpack(message)[0]["type"])
    except UserError:
        return ""
