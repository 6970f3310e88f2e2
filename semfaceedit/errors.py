"""The one exception that commands turn into one line and a non-zero exit code; a hint in it."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Something the user can mend: the message says what was wrong, where, and what to do."""


def meant(name: str, known: Iterable[str]) -> str:
    """The words " (did you mean 'hat'?)" for a name that is nearly one of `known`, else none."""
    by_lower = {one.lower(): one for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f" (did you mean {by_lower[near[0]]!r}?)" if near else ""
