"""The settings of a new run: a preset, a file of changes, and single changes by name."""

import dataclasses
import difflib
import re
import tomllib
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import UserError
from ..model.config import Config, Phase
from ..model.config_values import typed

SECTIONS = ("model", "discriminator", "train")
PHASES = "train.phases"
PHASE = re.compile(r"(?P<resolution>\d+)(/(?P<window>\d+))?:(?P<steps>\d+)", re.ASCII)


def read_settings_file(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """A TOML file -> the options of `train` at its top, and changes of settings by dotted name.

    The tables [train], [model] and [discriminator] hold fields of TrainConfig, ModelConfig and
    DiscriminatorConfig; above them stand options such as preset = "small" or
    phases = ["16:600", "32:1300"] (RESOLUTION:STEPS).
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--config {path}: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"--config {path} is no TOML file: {error}") from None
    tables = {name: values.pop(name) for name in SECTIONS if name in values}
    for name, table in (*tables.items(), *values.items()):
        if isinstance(table, dict) is not (name in SECTIONS):
            raise UserError(
                f"--config {path}: {name!r} is no table of settings: use [{'], ['.join(SECTIONS)}]"
            )
    return values, dict(_flat(tables, ""))


def _flat(values: Mapping[str, Any], prefix: str) -> typing.Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def read_assignments(texts: Sequence[str]) -> dict[str, Any]:
    """`train.generator_lr=2e-4` -> {"train.generator_lr": 2e-4}; values are read as TOML, and as
    text where they are not. UserError for a name given twice."""
    changes: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UserError(f"--set {text!r}: write NAME=VALUE, such as train.generator_lr=2e-4")
        name = name.strip()
        if name in changes:
            raise UserError(f"--set gives {name} twice: give it once")
        try:
            changes[name] = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            changes[name] = value.strip()
    return changes


def changed(config: Config, changes: Mapping[str, Any], *, where: str) -> Config:
    """`config` with other values of the fields that dotted names such as "train.image_r1" name.

    where: the option that the changes come from, for messages. UserError for unknown names, with
    the nearest known ones, and for values of another type or out of range.
    """
    known = _fields(config)
    for name, value in changes.items():
        if name not in known:
            raise UserError(f"{where}: {_unknown(name, known)}")
        try:
            if name == PHASES:
                config = with_phases(config, _texts(value))
            else:
                config = _replaced(config, name.split("."), typed(value, known[name]))
        except (UserError, TypeError, ValueError) as error:
            raise UserError(f"{where}: {name} = {value!r}: {error}") from None
    return config


def with_phases(config: Config, texts: Sequence[str]) -> Config:
    """Phases of stage 1 from texts RESOLUTION:STEPS or RESOLUTION/WINDOW:STEPS; the batch of each
    stays the last phase's."""
    parsed: list[tuple[int, int, int]] = []
    for text in texts:
        match = PHASE.fullmatch(text)
        if match is None or int(match["steps"]) == 0:
            raise UserError(
                f"{text!r}: write RESOLUTION:STEPS, such as 32:3000, or RESOLUTION/WINDOW:STEPS"
            )
        window = int(match["window"] or 0)
        parsed.append((int(match["resolution"]), window, int(match["steps"])))
    if not parsed:
        raise UserError("name at least one phase, such as 64:3000")
    batch = config.train.phases[-1].batch
    total, done, phases = sum(steps for *_, steps in parsed), 0, []
    for resolution, window, steps in parsed:
        done += steps
        phases.append(Phase(until=done / total, resolution=resolution, batch=batch, window=window))
    train = replace(config.train, phases=tuple(phases), stage1_iterations=total)
    return replace(config, model=_at(config, parsed[-1][0]), train=train)


def with_resolution(config: Config, resolution: int) -> Config:
    """One phase of stage 1, at this resolution."""
    phase = replace(config.train.phases[-1], until=1.0, resolution=resolution, window=0)
    return replace(
        config, model=_at(config, resolution), train=replace(config.train, phases=(phase,))
    )


def with_batch(config: Config, batch: int) -> Config:
    """So many images a step in every phase, in micro-batches that are no larger than now."""
    if batch < 1:
        raise UserError(f"--batch {batch}: must be at least 1")
    phases = tuple(replace(phase, batch=batch) for phase in config.train.phases)
    micro = min(batch, config.train.micro_batch)
    return replace(config, train=replace(config.train, phases=phases, micro_batch=micro))


def _at(config: Config, resolution: int) -> Any:
    return replace(config.model, resolution=resolution)


def _fields(config: Config) -> dict[str, Any]:
    """Every setting by its dotted name, with its type."""
    found: dict[str, Any] = {}

    def walk(value: Any, prefix: str) -> None:
        hints = typing.get_type_hints(type(value))
        for field in dataclasses.fields(value):
            inner = getattr(value, field.name)
            if dataclasses.is_dataclass(inner):
                walk(inner, f"{prefix}{field.name}.")
            else:
                found[f"{prefix}{field.name}"] = hints[field.name]

    for section in SECTIONS:
        walk(getattr(config, section), f"{section}.")
    return found


def _unknown(name: str, known: Mapping[str, Any]) -> str:
    by_last = {full.rpartition(".")[2]: full for full in known}
    last = name.rpartition(".")[2]
    if last in by_last:
        return f"no setting {name!r}: did you mean {by_last[last]!r}?"
    parts = [part for part in by_last if last and last in part][:3]
    parts = parts or difflib.get_close_matches(last, by_last, 1)
    if not parts:
        return f"no setting {name!r}: `semfaceedit train --dry-run` prints all"
    return f"no setting {name!r}: did you mean {' or '.join(repr(by_last[p]) for p in parts)}?"


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise UserError('give a list of RESOLUTION:STEPS, such as ["32:1000", "64:2000"]')
    return value


def _replaced(value: Any, path: Sequence[str], new: Any) -> Any:
    first, *rest = path
    return replace(value, **{first: _replaced(getattr(value, first), rest, new) if rest else new})
