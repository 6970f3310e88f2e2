"""What every command shares: parsing an options dataclass, errors, seeds, devices, progress.

tyro and rich are used where they are installed; without them a plain parser and plain lines serve,
so that training runs on machines that have torch and little else.
"""

import argparse
import ast
import dataclasses
import inspect
import itertools
import json
import os
import re
import shutil
import signal
import sys
import textwrap
import threading
import time
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch

from .errors import UserError
from .failures import file_advice, is_lack_of_memory, memory_advice
from .kernels import BackendError
from .outputs import check_written, flag_of
from .usage import check_effect, check_ranges, errors_in_one_line, gathered, known_options, refuse

Options = TypeVar("Options")

MOST_SEEDS = 100_000


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
    options: Options | None = None
    try:
        with _terminable():
            options = parse(options_type, argv, name=name)
            check_ranges(options)
            check_effect(options)
            if isinstance(seed := getattr(options, "seed", None), int):
                check_seed(seed)
            if not _only_says(options):
                check_written(options)
            command(options)
            sys.stdout.flush()  # here, where a reader that has left is no defect
    except (UserError, BackendError) as error:
        print(f"semfaceedit {name}: error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of the output has left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (MemoryError, RuntimeError) as error:
        if not is_lack_of_memory(error):
            raise
        print(f"semfaceedit {name}: error: {memory_advice(options_type)}", file=sys.stderr)
        return 1
    except OSError as error:
        said = file_advice(error, flag_of(options, error.filename))
        if said is None:
            raise
        print(f"semfaceedit {name}: error: {said}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"semfaceedit {name}: interrupted", file=sys.stderr)
        return 130
    return 0


def _only_says(options: Any) -> bool:
    """The command writes nothing this time."""
    return any(getattr(options, name, False) for name in ("dry_run", "list_sliders"))


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
    """Parse command-line arguments into a flat options dataclass (tyro, else argparse).

    Options that take several values may be given more than once. What cannot be parsed is said in
    one line and leaves with 2 (SystemExit).
    """
    try:
        import tyro
    except ImportError:
        return _parse_plain(options_type, argv, name=name)
    arguments = []
    options = describe(options_type)
    for option in options:
        annotation = tyro.conf.arg(
            metavar=option.metavar, help=option.help, help_behavior_hint=option.hint
        )
        kind = option.type
        if kind is bool and not option.pair:
            kind = Annotated[bool, tyro.conf.FlagCreatePairsOff]
        arguments.append((option.field.name, Annotated[kind, annotation], option.field))
    described = dataclasses.make_dataclass(options_type.__name__, arguments, kw_only=True)
    words = _words(options, argv, name)
    if {"-h", "--help"} & set(words):
        print(description(options_type) + "\n")  # tyro would join its lines
    with errors_in_one_line(name):
        parsed: Any = tyro.cli(described, args=words, prog=f"semfaceedit {name}", description="")
    return options_type(**vars(parsed))


def _words(options: "Sequence[Option]", argv: Sequence[str] | None, name: str) -> list[str]:
    """The words to parse; unknown options are refused, repeated ones of several values joined."""
    words = sys.argv[1:] if argv is None else argv
    known = {"--help", *(option.flag for option in options)}
    known |= {f"--no-{option.flag[2:]}" for option in options if option.pair}
    words = known_options(name, words, known)
    return gathered(words, {option.flag for option in options if option.several})


class _PlainParser(argparse.ArgumentParser):
    """One whose errors are one line."""

    def error(self, message: str) -> typing.NoReturn:
        refuse(self.prog.removeprefix("semfaceedit "), message)


def _parse_plain(options_type: type[Options], argv: Sequence[str] | None, *, name: str) -> Options:
    parser = _PlainParser(
        prog=f"semfaceedit {name}",
        description=description(options_type),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options = describe(options_type)
    for option in options:
        kind, default = _without_none(option.type), option.default
        settings: dict[str, Any] = {"dest": option.field.name}
        settings["help"] = f"{option.help} {option.hint}".strip().replace("%", "%%")
        settings |= {"required": True} if default is dataclasses.MISSING else {"default": default}
        if kind is bool:
            pair = option.pair
            settings["action"] = argparse.BooleanOptionalAction if pair else "store_true"
        elif typing.get_origin(kind) is typing.Literal:
            settings["choices"] = typing.get_args(kind)
        elif option.several:
            settings |= {"nargs": "*", "type": typing.get_args(kind)[0]}
        else:
            settings |= {"type": kind, "metavar": option.metavar}
        parser.add_argument(option.flag, **settings)
    values = vars(parser.parse_args(_words(options, argv, name)))
    return options_type(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@dataclass(frozen=True)
class Option:
    """An option as `--help` shows it."""

    field: dataclasses.Field
    type: Any
    help: str  # in one line

    @property
    def flag(self) -> str:
        return "--" + self.field.name.replace("_", "-")

    @property
    def pair(self) -> bool:
        """It is a switch that `--no-` turns off; `--no-vgg` itself is none."""
        return self.type is bool and not self.flag.startswith("--no-")

    @property
    def several(self) -> bool:
        """It takes any number of values."""
        return typing.get_origin(_without_none(self.type)) in (tuple, list)

    @property
    def default(self) -> Any:
        """dataclasses.MISSING where the option is required."""
        if self.field.default_factory is not dataclasses.MISSING:
            return self.field.default_factory()
        return self.field.default

    @property
    def metavar(self) -> str | None:
        """What stands for the value: PATH, or PATH ... for several; None: the parser's choice."""
        kind = _without_none(self.type)
        if typing.get_origin(kind) is typing.Literal:
            return "{" + ",".join(map(str, typing.get_args(kind))) + "}"
        kind = typing.get_args(kind)[0] if self.several else kind
        names = {Path: "PATH", str: "TEXT", int: "INT", float: "FLOAT"}
        return names[kind] + " ..." * self.several if kind in names else None

    @property
    def hint(self) -> str:
        """The default, unless the help says it; that a switch is off goes without saying."""
        if self.default is dataclasses.MISSING:
            return "(required)"
        if "(default" in self.help or self.default is None or self.default is False:
            return ""
        if self.default == ():
            return ""
        if self.default is True:
            return f"(default: {self.flag})"
        several = isinstance(self.default, tuple | list)
        return f"(default: {' '.join(map(str, self.default)) if several else self.default})"


def _without_none(kind: Any) -> Any:
    """T of `T | None`; any other type as it is."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    return next(part for part in typing.get_args(kind) if part is not types.NoneType)


def describe(options_type: type) -> list[Option]:
    """The options of a dataclass: those required first, then its fields, then inherited ones."""
    hints = typing.get_type_hints(options_type)
    helps: dict[str, str] = {}
    depth: dict[str, int] = {}
    for level, base in enumerate(options_type.__mro__):
        for name, text in _docstrings(base).items():
            helps.setdefault(name, text)
        for name in inspect.get_annotations(base):
            depth.setdefault(name, level)
    options = [
        Option(field, hints[field.name], helps.get(field.name, ""))
        for field in dataclasses.fields(options_type)
    ]
    return sorted(
        options,
        key=lambda option: (option.default is not dataclasses.MISSING, depth[option.field.name]),
    )


def _docstrings(base: type) -> dict[str, str]:
    """The strings below the fields of a class, each in one line."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
    except (OSError, TypeError):  # a built-in class, or one without a file
        return {}
    (body,) = [node.body for node in tree.body if isinstance(node, ast.ClassDef)]
    texts = {}
    for statement, after in itertools.pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                texts[statement.target.id] = " ".join(str(after.value.value).split())
    return texts


def description(options_type: type) -> str:
    """The docstring, wrapped to the terminal; `Example: COMMAND` on lines that can be copied."""
    width = min(shutil.get_terminal_size().columns, 100) - 2
    parts = []
    for paragraph in (inspect.getdoc(options_type) or "").split("\n\n"):
        text, _, command = " ".join(paragraph.split()).partition("Example: ")
        if text:
            parts.append(textwrap.fill(text, width, break_on_hyphens=False))
        if command:
            parts.append("Example:\n" + "\n".join(_command_lines(command, width)))
    return "\n\n".join(parts)


def _command_lines(command: str, width: int) -> list[str]:
    """A command over several lines of a shell; options stay beside their values."""
    lines = [" "]
    for part in re.split(r" (?=--)", command):
        if len(lines[-1]) + len(part) + 3 > width and lines[-1].strip():
            lines[-1] += " \\"
            lines.append("     ")
        lines[-1] += f" {part}"
    return lines


def parse_seeds(text: str) -> list[int]:
    """`0,4-7` -> [0, 4, 5, 6, 7]."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isascii() and first.isdecimal()) or (dash and not last.isdecimal()):
            raise UserError(f"--seeds {text!r}: {part!r} is not a number or a range such as 4-7")
        start, end = int(first), int(last or first)
        check_seed(end, "--seeds")
        if end < start:
            raise UserError(f"--seeds {text!r}: {part!r} runs backwards: write {last}-{first}")
        if len(seeds) + end - start >= MOST_SEEDS:
            raise UserError(f"--seeds {text!r}: at most {MOST_SEEDS:,} at a time")
        seeds.extend(range(start, end + 1))
    return seeds


def check_seed(seed: int, flag: str = "--seed") -> None:
    """UserError for a seed that is negative or has more than 63 bits."""
    if not 0 <= seed < 2**63:
        raise UserError(f"{flag} {seed}: use a whole number from 0 to {2**63 - 1}")


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
