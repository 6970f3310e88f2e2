"""Files: written whole or not at all, hashed, and where the cache is."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from .errors import UserError


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """`write` to a temporary file beside `path`, flush it to the disk, then rename it into place.

    The folders on the way are made here, when there is something to write, for every output alike.
    A reader, or a process killed at any moment, sees the old file or the new one, never a part.
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the umask leaves; safetensors writes files of 0600
        write(temporary)
        temporary.chmod(mode)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError | SafetensorError) and _disk_is_full(path.parent):
            raise OSError(28, "No space left on device", str(path)) from error
        raise


def check_writable(path: Path, flag: str = "--out", *, folder: bool = False) -> None:
    """Raise, before work that would be lost, the OSError that writing the file or folder `path` of
    the option `flag` would; UserError where it would lie in a file. Nothing is left behind.

    folder: `path` is to be one.
    """
    made: list[Path] = []
    try:
        there = path.exists()  # raises for a name that is too long
        if folder and there and not path.is_dir():
            raise UserError(f"{path} is or lies in a file: choose another {flag}")
        for parent in reversed((path, *path.parents) if there else path.parents):
            if not parent.exists():
                parent.mkdir()
                made.append(parent)
            elif not parent.is_dir() and parent != path:
                raise UserError(f"{path.parent} is or lies in a file: choose another {flag}")
        with tempfile.TemporaryFile(dir=path if path.is_dir() else path.parent):
            pass
    except OSError as error:
        raise type(error)(error.errno, error.strerror, str(path)) from None
    finally:
        for parent in reversed(made):
            parent.rmdir()


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file or folder until it is closed; False where another process has it, None
    where the file system or the operating system has no such locks."""
    try:
        import fcntl  # not on Windows
    except ImportError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write, which then takes its place; nothing is flushed to the disk."""
    partial = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        yield partial
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text))  # type: ignore[arg-type]


def check_regular(path: Path) -> None:
    """OSError where `path` is a pipe or a device, which a reader would wait for without end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise OSError("it is a pipe or a device, not a file")


def read_regular(path: Path, most: int) -> bytes:
    """The bytes of a regular file of at most `most` bytes; OSError for any other kind of file.

    A pipe or a device of that name is neither waited for nor read without end.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("it is a pipe, a device or a folder, not a file")
        if status.st_size > most:
            raise OSError(f"it has {status.st_size} bytes, {most} are the most that is read")
        return file.read(status.st_size)


def _disk_is_full(folder: Path) -> bool:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < 1 << 20


def cache_root() -> Path:
    """Where packed data is kept: $SEMFACEEDIT_CACHE, else ~/.cache/semfaceedit."""
    folder = os.environ.get("SEMFACEEDIT_CACHE")
    return Path(folder) if folder else Path.home() / ".cache" / "semfaceedit"


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
