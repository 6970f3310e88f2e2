"""Words of a command line before and after the parser: options given twice, errors in one line,
and the values that numbers may have."""

import contextlib
import difflib
import io
import math
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, NoReturn, get_type_hints

from .errors import UserError

SIDES, RULES = " │|", " ─-╰╯+"  # of tyro's frames
WORDINGS = (  # of tyro's messages
    (r"^Error parsing (--\S+): .*?(\w+) could be instantiated from \[(.*)\]",
     r"\1 \3: expected \2"),
    (r"^Error parsing (--\S+): invalid literal for int.*: ", r"\1 expected INT, got "),
    (r"^Error parsing (--\S+): Could not find valid parse for arguments:", r"\1 cannot be"),
    (r"^Error parsing (--\S+): ", r"\1: "),
    (r"^Missing value for argument '(--[\w-]+)'.*", r"\1 needs a value"),
    (r"^Unrecognized options: ", "unexpected: "),
    (r"^Missing from [^:]*: ", "missing: "),
)  # fmt: skip


def gathered(words: Sequence[str], several: Collection[str]) -> list[str]:
    """Options of `several` that are given more than once, as one: `--set a --set b` is
    `--set a b`. Parsers would keep the last alone."""
    kept: list[str] = []
    values: dict[str, list[str]] = {}
    current = kept
    for word in words:
        flag, equals, value = word.partition("=")
        if flag in several and word.startswith("--"):
            current = values.setdefault(flag, [])
            current += [value] if equals else []
            continue
        if word.startswith("--") or word == "-h":
            current = kept
        current.append(word)
    for flag, given in values.items():
        kept += [flag, *given]
    return kept


def known_options(name: str, words: Sequence[str], known: Collection[str]) -> list[str]:
    """The words with every option as it is spelled in `known`, `--no_vgg` as `--no-vgg`.

    An option that the command has not is refused, and those that may be meant are named.
    """
    spelled = []
    for word in words:
        flag, *rest = re.split("(=)", word, maxsplit=1)
        flag = flag.replace("_", "-")
        spelled.append("".join([flag, *rest]) if word.startswith("--") else word)
        if word.startswith("--") and flag not in known:
            near = difflib.get_close_matches(flag, known, n=2, cutoff=0.7)
            meant = f": did you mean {' or '.join(near)}?" if near else ""
            refuse(name, f"no option {word.partition('=')[0]}{meant}")
    return spelled


def refuse(name: str, message: str) -> NoReturn:
    """Say in one line what is wrong with the words given to a command, and leave with 2."""
    advice = f"(semfaceedit {name} --help shows the options)"
    print(f"semfaceedit {name}: error: {message} {advice}", file=sys.stderr)
    raise SystemExit(2)


@contextlib.contextmanager
def errors_in_one_line(name: str) -> Iterator[None]:
    """Errors that tyro frames and prints within the block, as `refuse` says them."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    except SystemExit as ended:
        if not ended.code:
            raise
        refuse(name, unframed(said.getvalue()))
    sys.stderr.write(said.getvalue())


def unframed(text: str) -> str:
    """What a framed message says, in one line, without its title and what follows a rule."""
    said = []
    for line in text.splitlines()[1:]:
        words = re.sub(r"\x1b\[[0-9;]*m", "", line).strip(SIDES)
        if words.strip(RULES):
            said.append(words)
        elif said:
            break
    message = " ".join(said).rstrip(".")
    for pattern, words in WORDINGS:
        message = re.sub(pattern, words, message)
    return message[:1].lower() + message[1:]


@dataclass(frozen=True)
class Within:
    """The values of a number: `batch: Annotated[int, Within(1, 64)] = 8` in an options dataclass.

    above and below are no values themselves. unit: "radians" for angles.
    """

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf
    unit: str = ""

    def __contains__(self, value: float) -> bool:
        """No infinite number is within, and no NaN."""
        held = self.least <= value <= self.most and self.above < value < self.below
        return held and math.isfinite(value)

    def advice(self, value: float) -> str:
        """What to give instead of `value`."""
        if not math.isfinite(value):
            return "must be finite"
        if self.unit == "radians":
            degrees = f"({value:g} degrees are {math.radians(value):.3f})"
            return f"use {self.least:.2f} to {self.most:.2f} radians {degrees}"
        if math.isfinite(self.least) and math.isfinite(self.most):
            return f"use {_plain(self.least)} to {_plain(self.most)}"
        ends = {"at least": self.least, "more than": self.above, "at most": self.most,
                "less than": self.below}  # fmt: skip
        known = [f"{word} {_plain(end)}" for word, end in ends.items() if math.isfinite(end)]
        return f"must be {' and '.join(known)}"


def _plain(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


class With:
    """Options of which one at least must be given for another to have an effect:
    `fps: Annotated[int, Within(1, 240), With("video")] = 24` in an options dataclass."""

    def __init__(self, *names: str):
        self.names = names


class Without(With):
    """Options beside each of which another has no effect: `seed: Annotated[int,
    Without("project")] = 1`."""


def is_given(options: Any, name: str) -> bool:
    """Whether an option of a dataclass has another value than its default."""
    (field,) = [field for field in fields(options) if field.name == name]
    default = field.default if field.default_factory is MISSING else field.default_factory()
    return bool(getattr(options, name) != default)


def flag_of(options: Any, name: str) -> str:
    """An option as it is given: `--fps`, or `--no-half` for what is switched off."""
    return ("--no-" if getattr(options, name) is False else "--") + name.replace("_", "-")


def check_effect(options: Any) -> None:
    """UserError for an option that is given and has, as `With` and `Without` tell, no effect."""
    for name, kind in get_type_hints(type(options), include_extras=True).items():
        for mark in getattr(kind, "__metadata__", ()):
            if not isinstance(mark, With) or not is_given(options, name):
                continue
            flag, others = flag_of(options, name), [o for o in mark.names if is_given(options, o)]
            if isinstance(mark, Without):
                for other in others:
                    raise UserError(
                        f"{flag} has no effect with {flag_of(options, other)}: leave out one of "
                        "them"
                    )
            elif not others:
                needed = " or ".join("--" + other.replace("_", "-") for other in mark.names)
                refuse_given(options, [name], f"is for {needed}: give that too, or")


def refuse_given(options: Any, names: Iterable[str], why: str) -> None:
    """UserError for the first of these options that is given: "--fps WHY leave out --fps"."""
    for name in names:
        if is_given(options, name):
            flag = flag_of(options, name)
            raise UserError(f"{flag} {why} leave out {flag}")


def check_ranges(options: Any) -> None:
    """UserError for a number of an options dataclass that its annotation does not allow."""
    for name, kind in get_type_hints(type(options), include_extras=True).items():
        for within in getattr(kind, "__metadata__", ()):
            if not isinstance(within, Within):
                continue
            value = getattr(options, name)
            for one in value if isinstance(value, tuple | list) else (value,):
                if one is not None and one not in within:
                    flag = "--" + name.replace("_", "-")
                    raise UserError(f"{flag} {_plain(one)}: {within.advice(one)}")
