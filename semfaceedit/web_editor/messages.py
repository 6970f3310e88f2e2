"""The frames of the editor's socket: a JSON header and bytes, in one binary message.

Four bytes hold the header's length (little endian), then comes the header, then the payload.
`page/socket.js` is the other end. What an error repeats of a message is cut short.
"""

import json
import unicodedata
from collections.abc import Sequence
from reprlib import repr as quoted
from typing import Any

from ..errors import UserError

MOST_HEADER = 1 << 16  # bytes
MOST_WORD = 200  # characters
MOST_NUMBERS = 64
MOST_SEED, STRIP = 2**31 - 1, 8  # faces in a strip of thumbnails
MOST_ANGLE = 1.2  # radians


def pack_message(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """Header and payload as one message. ValueError for NaN, which the page could not read."""
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    return len(text).to_bytes(4, "little") + text + payload


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """The header, a JSON object with a `type`, and the payload of a message.

    UserError where the message is not of that form.
    """
    length = int.from_bytes(message[:4], "little")
    header = None
    if length <= min(MOST_HEADER, len(message) - 4):
        try:
            header = json.loads(message[4 : 4 + length])
        except (ValueError, RecursionError):
            pass
    if not isinstance(header, dict) or not isinstance(header.get("type"), str):
        raise UserError("a message that is not of this editor's page: reload the page")
    return header, message[4 + length :]


def number(header: dict[str, Any], name: str, low: float, high: float) -> float:
    """A field between two numbers."""
    value = header.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise UserError(
            f"{name} is {quoted(value)}: a number from {low:.10g} to {high:.10g} is needed"
        )
    return float(value)


def whole(header: dict[str, Any], name: str, low: int, high: int) -> int:
    """A field that is a whole number, from low to high."""
    value = number(header, name, low, high)
    if not value.is_integer():
        raise UserError(f"{name} is {value:g}: a whole number is needed")
    return int(value)


def word(header: dict[str, Any], name: str) -> str:
    """A field that is a text, without control characters or halves of characters."""
    value = header.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MOST_WORD:
        raise UserError(
            f"{name} is {quoted(value)}: a text of at most {MOST_WORD} characters is needed"
        )
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in value):
        raise UserError(f"{name} is {quoted(value)}: it holds characters that are no text")
    return value


def numbers(header: dict[str, Any], name: str, most: float) -> dict[str, float]:
    """A field that gives names a number each, from -most to most."""
    value = header.get(name)
    if not isinstance(value, dict) or len(value) > MOST_NUMBERS:
        raise UserError(f"{name} is {quoted(value)}: at most {MOST_NUMBERS} numbers are needed")
    for key in value:
        if len(key) > MOST_WORD:
            raise UserError(f"{name} has the name {quoted(key)}: it is too long")
    return {key: number(value, key, -most, most) for key in value}


def one_of(header: dict[str, Any], name: str, choices: Sequence[str]) -> str:
    """A field that is one of these words."""
    value = header.get(name)
    if value not in choices:
        raise UserError(f"{name} is {quoted(value)}: use one of {', '.join(choices)}")
    return str(value)


def pose_of(header: dict[str, Any]) -> tuple[float, float]:
    angles = (number(header, name, -MOST_ANGLE, MOST_ANGLE) for name in ("yaw", "pitch"))
    yaw, pitch = angles
    return yaw, pitch


def seeds_of(header: dict[str, Any]) -> range:
    first = whole(header, "first", 0, MOST_SEED - STRIP)
    return range(first, first + STRIP)
