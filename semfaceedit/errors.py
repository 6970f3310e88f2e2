"""The one exception that commands turn into a single line and a non-zero exit code."""


class UserError(Exception):
    """Something the user can mend: the message says what was wrong, where, and what to do."""
