"""What every command shares: parsing an options dataclass, errors, seeds, devices, progress.

tyro and rich are used where they are installed; without them a plain parser and plain lines serve,
so that training runs on machines that have torch and little else.
"""

import argparse
import dataclasses
import errno
import inspect
import json
import signal
import sys
import threading
import time
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch

from .errors import UserError
from .kernels import BackendError

Options = TypeVar("Options")


def run_command(
    options_type: type[Options],
    command: Callable[[Options], None],
    argv: Sequence[str] | None = None,
    *,
    name: str,
) -> int:
    """Parse `argv` into `options_type`, run `command`, and return the exit code.

    0: done. 1: an error the user can mend, said in one line on standard error. 130: interrupted.
    A full disk is such an error too. Anything else is a defect and keeps its traceback. SIGTERM
    leaves with 143 through SystemExit, so that temporary files go.
    """
    try:
        with _terminable():
            command(parse(options_type, argv, name=name))
    except (UserError, BackendError) as error:
        print(f"semfaceedit {name}: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        where = f" ({error.filename})" if error.filename else ""
        said = {
            errno.EACCES: f"permission denied{where}: check who may read or write it, or",
            errno.EROFS: f"read-only file system{where}:",
        }
        what = said.get(error.errno or 0, f"no space left on the disk{where}: free some space or")
        print(
            f"semfaceedit {name}: error: {what} choose another --out; files already written are "
            "intact",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print(f"semfaceedit {name}: interrupted", file=sys.stderr)
        return 130
    return 0


@contextmanager
def _terminable() -> Iterator[None]:
    """Within the block SIGTERM raises SystemExit(143)."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # where handlers cannot be set
        yield
        return
    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def parse(options_type: type[Options], argv: Sequence[str] | None, *, name: str) -> Options:
    """Parse command-line arguments into a flat options dataclass (tyro, else argparse)."""
    try:
        import tyro
    except ImportError:
        return _parse_plain(options_type, argv, name=name)
    arguments = sys.argv[1:] if argv is None else list(argv)
    return tyro.cli(
        options_type,
        args=arguments,
        prog=f"semfaceedit {name}",
        description=inspect.getdoc(options_type),
    )


def _parse_plain(options_type: type[Options], argv: Sequence[str] | None, *, name: str) -> Options:
    parser = argparse.ArgumentParser(
        prog=f"semfaceedit {name}",
        description=inspect.getdoc(options_type),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    hints = typing.get_type_hints(options_type)
    for field in dataclasses.fields(options_type):  # type: ignore[arg-type]
        flag = "--" + field.name.replace("_", "-")
        kind = hints[field.name]
        if isinstance(kind, types.UnionType):
            kind = next(part for part in typing.get_args(kind) if part is not types.NoneType)
        settings: dict[str, Any] = {"dest": field.name}
        if field.default is not dataclasses.MISSING:
            settings["default"] = field.default
        elif field.default_factory is not dataclasses.MISSING:
            settings["default"] = field.default_factory()
        else:
            settings["required"] = True
        if kind is bool:
            settings["action"] = argparse.BooleanOptionalAction
        elif typing.get_origin(kind) is typing.Literal:
            settings["choices"] = typing.get_args(kind)
        elif typing.get_origin(kind) in (tuple, list):
            settings["nargs"] = "*"
            settings["type"] = typing.get_args(kind)[0]
        else:
            settings["type"] = kind
        parser.add_argument(flag, **settings)
    values = vars(parser.parse_args(argv))
    return options_type(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


def parse_seeds(text: str) -> list[int]:
    """`0,4-7` -> [0, 4, 5, 6, 7]."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise UserError(f"--seeds {text!r}: {part!r} is not a number or a range such as 4-7")
        seeds.extend(range(int(first), int(last or first) + 1))
    return seeds


def select_device(name: str | None) -> torch.device:
    """The device that was asked for, else CUDA where there is one, else the CPU."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name!r} is not a device: use cpu, cuda or cuda:0") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"--device {name}: CUDA is not available here (torch {torch.__version__}): use "
            "--device cpu, or install a CUDA build of torch"
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"--device {name}: only {torch.cuda.device_count()} CUDA device(s) here")
    return device


def print_json(value: object) -> None:
    """One JSON object on standard output."""
    json.dump(value, sys.stdout, indent=2, default=str)
    sys.stdout.write("\n")


def wrote(path: Path, note: str = "") -> None:
    """Say what was written."""
    print(f"wrote {path}" + (f" ({note})" if note else ""), file=sys.stderr)


def remark(text: str) -> None:
    """Say what may be wrong with a result that is given all the same."""
    print(f"note: {text}", file=sys.stderr)


Item = TypeVar("Item")


def progress(items: Iterable[Item], *, total: int, title: str) -> Iterator[Item]:
    """Iterate with a progress bar (rich on a terminal, else a line every ten seconds)."""
    try:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        Progress = None  # type: ignore[assignment,misc]
    if Progress is not None and sys.stderr.isatty():
        from rich.console import Console

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as bar:
            yield from bar.track(items, total=total, description=title)
        return
    last = time.monotonic()
    for count, item in enumerate(items):
        yield item
        if time.monotonic() - last > 10:
            last = time.monotonic()
            print(f"{title}: {count + 1}/{total}", file=sys.stderr)
