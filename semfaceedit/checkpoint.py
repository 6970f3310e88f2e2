"""Files of a run: weights as safetensors with a JSON header, trainer state, atomic writing."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from . import __version__, config
from .config import Config
from .errors import UserError
from .generator import Generator

FORMAT = "semfaceedit-generator"
FORMAT_VERSION = 1
STATE_PATTERN = "state-*.pt"


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """`write` to a temporary file beside `path`, flush it to the disk, then rename it into place.

    A reader, or a process killed at any moment, sees the old file or the new one, never a part.
    """
    temporary = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, RuntimeError | SafetensorError) and _disk_is_full(path.parent):
            raise OSError(28, "No space left on device", str(path)) from error
        raise


def write_text(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text))  # type: ignore[arg-type]


def save_generator(
    path: Path, generator: Generator, run: Config, *, images: int, ema_decay: float | None
) -> None:
    """Write weights; the header carries all that is needed to use them."""
    header = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "software": __version__,
        "config": config.to_dict(run),
        "images": images,
        "ema_decay": ema_decay,
    }
    tensors = {name: tensor.contiguous() for name, tensor in generator.state_dict().items()}
    metadata = {"semfaceedit": json.dumps(header)}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a weights file."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("semfaceedit", "{}"))
    except FileNotFoundError:
        raise UserError(f"no checkpoint at {path}: give a .safetensors file of a run") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a readable weights file: {error}") from None
    if header.get("format") != FORMAT:
        raise UserError(f"{path} holds no weights of semfaceedit (no header in it)")
    if header["version"] > FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {header['version']}, this semfaceedit reads up to "
            f"{FORMAT_VERSION}: install a newer version"
        )
    return header


def load_generator(
    path: Path, *, device: torch.device | str = "cpu", preset: str | None = None
) -> tuple[Generator, Config]:
    """Build the generator that a weights file describes and load it, in evaluation mode.

    `preset`: what the caller expects; another one raises UserError.
    """
    header = read_header(path)
    run = config.from_dict(header["config"])
    if preset is not None and preset != run.preset:
        raise UserError(
            f"{path} holds weights of preset {run.preset!r}, not {preset!r}: leave --preset out "
            "or give another --checkpoint"
        )
    generator = Generator(run.model)
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    try:
        generator.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{path} does not fit its own configuration: {error}") from None
    return generator.to(device).eval().requires_grad_(False), run


def save_state(run_folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write the trainer's state of `step` and remove all but the newest `keep` states."""
    path = run_folder / f"state-{step:08d}.pt"
    write_atomically(path, lambda temporary: torch.save(state, temporary))
    for old in sorted(run_folder.glob(STATE_PATTERN))[:-keep]:
        old.unlink()
    return path


def load_state(run_folder: Path) -> dict[str, Any]:
    """The newest state of a run that reads whole."""
    if not run_folder.is_dir():
        raise UserError(f"--resume {run_folder}: no such run folder")
    problems = []
    for path in sorted(run_folder.glob(STATE_PATTERN), reverse=True):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch reports damage in many types
            problems.append(f"{path.name}: {error}")
    raise UserError(
        f"--resume {run_folder}: no usable state-*.pt in it ({'; '.join(problems) or 'none found'})"
    )


def _disk_is_full(folder: Path) -> bool:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < 1 << 20
