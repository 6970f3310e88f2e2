"""Settings from and to plain values: JSON, TOML and what is typed on a command line."""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ..errors import UserError
from .camera import CameraConfig
from .config import Config, DiscriminatorConfig, ModelConfig, Phase, TrainConfig


def to_dict(config: Config) -> dict[str, Any]:
    """Plain types, as written to config.json and into checkpoints."""
    return dataclasses.asdict(config)


def from_dict(values: dict[str, Any]) -> Config:
    """The inverse of `to_dict`; unknown or missing keys raise UserError."""
    try:
        model = dict(values["model"])
        camera = _built(CameraConfig, model.pop("camera"))
        train = dict(values["train"])
        phases = tuple(_built(Phase, phase) for phase in train.pop("phases"))
        return Config(
            preset=typed(values["preset"], str),
            model=_built(ModelConfig, model, camera=camera),
            discriminator=_built(DiscriminatorConfig, dict(values["discriminator"])),
            train=_built(TrainConfig, train, phases=phases),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"not a configuration of this version of semfaceedit: {error}") from None


def _built(kind: type[Any], values: Mapping[str, Any], **parts: Any) -> Any:
    """A dataclass of settings from plain values, each of its field's type."""
    hints = get_type_hints(kind)
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in hints:
            raise UserError(f"not a configuration of this version of semfaceedit: {name!r}")
        try:
            given[name] = typed(value, hints[name])
        except UserError as error:
            raise UserError(f"not a configuration: {name} = {value!r}: {error}") from None
    return kind(**given, **parts)


def typed(value: Any, hint: Any) -> Any:
    """`value` as a field of this type takes it; UserError where it is of another."""
    origin, arguments = get_origin(hint), get_args(hint)
    if type(None) in arguments:  # an option that may be left out
        return typed(value, next(part for part in arguments if part is not type(None)))
    if hint is Path:
        return Path(typed(value, str))
    if origin is Literal:
        if value not in arguments:
            raise UserError(f"use one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        parts = value if isinstance(value, list | tuple) else None
        if parts is None:
            raise UserError("give a list, such as [0.0, 0.99]")
        if arguments[-1] is Ellipsis:
            return tuple(typed(part, arguments[0]) for part in parts)
        if len(parts) != len(arguments):
            raise UserError(f"give a list of {len(arguments)} values")
        return tuple(typed(p, a) for p, a in zip(parts, arguments, strict=True))
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise UserError("give a finite number")
        return number
    if isinstance(value, hint) and not (hint is int and isinstance(value, bool)):
        return value
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    raise UserError(f"give {kinds.get(hint, hint)}")
