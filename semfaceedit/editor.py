"""The web editor: `python -m semfaceedit.editor`."""

import os
import secrets
import signal
import socket
import sys
import warnings
import webbrowser
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from PIL import Image

from .api import Editor
from .cli import run_command, select_device, wrote
from .errors import UserError
from .files import cache_root
from .kernels import use_backend
from .memory import keep_freed_memory
from .metrics.perceptual import load_perceptual
from .options import EncoderOptions, open_checkpoint, open_encoder
from .outputs import FOLDER
from .parsing.network import load_parser
from .usage import Within, Without
from .web_editor.session import EditingSession

HOST = "127.0.0.1"
KEY_BYTES = 16


@dataclass(kw_only=True)
class EditorOptions(EncoderOptions):
    """Edit faces in the browser: turn the head, paint the label map, change the look of a region.

    Example: semfaceedit editor --out faces

    Open the URL that it prints. Served on localhost only; the URL contains a required access key.
    From another machine, forward the port: ssh -L 8008:127.0.0.1:8008 MACHINE.
    """

    project: Path | None = None
    """Face project to open first (default: the face of --seed)."""
    seed: Annotated[int, Without("project")] = 1
    """Generated face to open first."""
    out: Annotated[Path, FOLDER] = Path("faces")
    """Folder in which the page opens and saves face projects."""
    port: Annotated[int, Within(0, 65_535)] = 8008
    """Port on 127.0.0.1; 0 takes any free port."""
    resolution: Annotated[int | None, Within(16, 1024)] = None
    """Width and height of a still view in pixels (default: twice the checkpoint's)."""
    vgg_weights: Path | None = None
    """Weights of torchvision's VGG-16, to use the VGG term in edits and inversions."""
    parser: Path | None = None
    """Network of `train-parser`, to predict the label maps of photographs instead of the one that
    ships."""
    browser: bool = False
    """Open the page in the default browser."""


def run(options: EditorOptions) -> None:
    try:
        from .web_editor.server import EditorServer, PageServer
    except ImportError as error:
        raise UserError(
            f"the editor needs {error.name}: pip install 'semfaceedit[editor]'"
        ) from None
    device = select_device(options.device)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the page's are checked
    if device.type == "cpu":
        keep_freed_memory()
    generator, config = open_checkpoint(options)
    perceptual = None
    if options.vgg_weights is not None:
        perceptual, _ = load_perceptual(options.vgg_weights, device=device)
    parser = None if options.parser is None else load_parser(options.parser, device)
    made = Editor(generator, config, perceptual, parser, open_encoder(options, generator))
    _ = made.directions  # a damaged file of them is told now
    session = EditingSession(made, options.out, resolution=options.resolution)
    with use_backend(options.backend):
        if options.project is not None:
            session.open(options.project)
        else:
            session.choose(options.seed)
        key = page_key()
        editor = EditorServer(session, key, options.backend)
        listener = listen(options.port)
        address = f"http://{HOST}:{listener.getsockname()[1]}/?key={key}"
        print(f"the editor is at {address} (press Ctrl-C to stop it)", file=sys.stderr, flush=True)
        if options.browser:
            webbrowser.open(address)
        try:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            PageServer(editor).run(sockets=[listener])
        except KeyboardInterrupt:  # the ways to end it
            pass
        finally:
            kept = editor.end()
            if kept is not None:
                wrote(kept, "the face with unsaved changes")


def page_key() -> str:
    """The key in the page's address, which other users of this machine do not know.

    It is kept in a file of the cache that its owner alone can read, so that a page goes on when the
    editor is started again; where no file can be kept, the key is new each time.
    """
    path = cache_root() / "editor-key"
    try:
        with path.open() as file:
            status, key = os.fstat(file.fileno()), file.read()
        private = os.name != "posix" or (
            status.st_uid == os.getuid() and not status.st_mode & 0o077
        )
        if private and len(key) >= KEY_BYTES:
            return key
    except (OSError, ValueError):
        pass
    key = secrets.token_urlsafe(KEY_BYTES)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(key)
    except OSError:
        pass
    return key


def listen(port: int) -> socket.socket:
    """A socket on loopback at this port, or at any free one for 0."""
    try:
        return socket.create_server((HOST, port))
    except (OSError, OverflowError) as error:
        raise UserError(
            f"port {port} on {HOST} is not available ({error}): choose another with --port, or "
            "--port 0 for any free one"
        ) from None


def main(argv: list[str] | None = None) -> int:
    return run_command(EditorOptions, run, argv, name="editor")


if __name__ == "__main__":
    raise SystemExit(main())
