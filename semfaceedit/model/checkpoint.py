"""Files of a run: weights as safetensors with a JSON header, trainer state, atomic writing."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from .. import __version__
from ..errors import UserError, meant
from ..files import check_regular, write_atomically
from ..tensor_files import is_unchanged, reason_of, write_tensors
from . import config_values
from .config import Config, ModelConfig
from .discriminator import Discriminator, build_discriminators
from .generator import Generator

FORMAT = "semfaceedit-generator"
DISCRIMINATORS_FORMAT = "semfaceedit-discriminators"
FORMAT_VERSION = 1
STATE_PATTERN = "state-*.pt"
WEIGHTS = Path(__file__).parents[1] / "weights"  # what comes with the package
CACHED = ("mean-codes-", "surfaces-")  # beginnings of names of what is found once and kept there
BESIDE = ("-discriminators", "-encoder", "-directions")  # ends of names of files beside weights
SHIPPED_WEIGHTS = WEIGHTS / "portraits.safetensors"  # where no checkpoint is named
WEIGHTS_VARIABLE = "SEMFACEEDIT_WEIGHTS"  # names others in their place


def save_generator(
    path: Path,
    generator: Generator,
    run: Config,
    *,
    images: int,
    ema_decay: float | None,
    half: bool = False,
) -> None:
    """Write weights; the header carries all that is needed to use them.

    half: fp16, but for what is multiplied by large frequencies or finds the manifolds.
    """
    tensors = {
        name: _half(tensor) if half and not _needs_fp32(name) else tensor
        for name, tensor in generator.state_dict().items()
    }
    _save(path, FORMAT, tensors, run, images=images, ema_decay=ema_decay)


def save_discriminators(
    path: Path, networks: tuple[Discriminator, Discriminator], run: Config, *, images: int
) -> None:
    """Write D_c and D_s in fp16."""
    tensors = {
        f"{name}.{key}": _half(tensor)
        for name, network in zip(("d_image", "d_semantic"), networks, strict=True)
        for key, tensor in network.state_dict().items()
    }
    _save(path, DISCRIMINATORS_FORMAT, tensors, run, images=images)


def _save(path: Path, kind: str, tensors: dict[str, Tensor], run: Config, **facts: Any) -> None:
    header = {
        "format": kind,
        "version": FORMAT_VERSION,
        "software": __version__,
        "config": config_values.to_dict(run),
        **facts,
    }
    write_tensors(path, tensors, header)


def _half(tensor: Tensor) -> Tensor:
    return tensor.half() if tensor.is_floating_point() else tensor


def _needs_fp32(name: str) -> bool:
    return name.startswith("manifolds.") or ".first_" in name


def read_header(path: Path, kind: str = FORMAT) -> dict[str, Any]:
    """The JSON header of a weights file."""
    if path.is_dir():
        raise UserError(f"{path} is a folder: give the file of weights in it")
    try:
        check_regular(path)
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("semfaceedit", "{}"))
    except FileNotFoundError:
        named = shipped_weights() if len(path.parts) == 1 else []
        there = [str(other) for other in path.parent.glob("*.safetensors")]
        raise UserError(
            f"no checkpoint at {path}{meant(str(path), [*named, *there])}: give a .safetensors "
            f"file of a run, or {' or '.join(shipped_weights())}"
        ) from None
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not a readable weights file: {reason_of(error)}") from None
    if not isinstance(header, dict) or header.get("format") != kind:
        what = "weights" if kind == FORMAT else "discriminators"
        raise UserError(f"{path} holds no {what} of semfaceedit (no such header in it)")
    version = header.get("version")
    if not isinstance(version, int) or not isinstance(header.get("config"), dict):
        raise UserError(f"{path} has no sound header: it was damaged, copy or export it again")
    if version > FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {version}, this semfaceedit reads up to "
            f"{FORMAT_VERSION}: install a newer version"
        )
    return header


def shipped_weights() -> list[str]:
    """Names of the weights that come with the package, without what lies beside them."""
    names = sorted(path.stem for path in WEIGHTS.glob("*.safetensors"))
    return [n for n in names if not n.startswith(CACHED) and not n.endswith(BESIDE)]


def locate_weights(path: Path | None) -> Path:
    """The weights file that a user means: a file, or the name of weights of the package, such as
    `procedural`; None: what SEMFACEEDIT_WEIGHTS names, or the package's default."""
    if path is None and os.environ.get(WEIGHTS_VARIABLE):
        path = Path(os.environ[WEIGHTS_VARIABLE])
    if path is None:
        if not SHIPPED_WEIGHTS.exists():
            raise UserError("no weights came with this installation: give --checkpoint")
        return SHIPPED_WEIGHTS
    named = WEIGHTS / f"{path}.safetensors"
    return named if len(path.parts) == 1 and named.is_file() else path


def load_generator(
    path: Path | None, *, device: torch.device | str = "cpu", preset: str | None = None
) -> tuple[Generator, Config]:
    """Build the generator that a weights file describes and load it, in evaluation mode.

    `path`: as `locate_weights` takes it. `preset`: what the caller expects; another one raises
    UserError.
    """
    path = locate_weights(path)
    header = read_header(path)
    run = config_values.from_dict(header["config"])
    if preset is not None and preset != run.preset:
        raise UserError(
            f"{path} holds weights of preset {run.preset!r}, not {preset!r}: leave --preset out "
            "or give another --checkpoint"
        )
    tensors = _tensors(path, header)
    _check_sizes(run.model, tensors, path)
    generator = Generator(run.model)
    generator.source = path
    _fill(generator, tensors, path)
    return generator.to(device).eval().requires_grad_(False), run


def discriminators_beside(path: Path) -> Path:
    """Where the discriminators of the weights file `path` are kept."""
    return path.with_name(f"{path.stem}-discriminators.safetensors")


def load_discriminators(path: Path) -> tuple[tuple[Discriminator, Discriminator], Config]:
    """D_c and D_s of a file that `save_discriminators` wrote, in evaluation mode."""
    header = read_header(path, DISCRIMINATORS_FORMAT)
    run = config_values.from_dict(header["config"])
    tensors = _tensors(path, header)
    _check_channels(run.discriminator.channels, tensors, path)
    networks = build_discriminators(run)
    for name, network in zip(("d_image.", "d_semantic."), networks, strict=True):
        own = {key.removeprefix(name): t for key, t in tensors.items() if key.startswith(name)}
        _fill(network, own, path)
        network.eval().requires_grad_(False)
    return networks, run


def _tensors(path: Path, header: dict[str, Any]) -> dict[str, Tensor]:
    """Every tensor in fp32; UserError where one is damaged."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path} is not a readable weights file: {reason_of(error)}") from None
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise UserError(f"{path}: {name} holds NaN or infinity: copy or export the file again")
    if not is_unchanged(header, tensors):
        raise UserError(f"{path} was changed since it was written: copy or export it again")
    return tensors


def _check_sizes(model: ModelConfig, tensors: dict[str, Tensor], path: Path) -> None:
    """UserError where the configuration speaks of more than the file can hold, before a network
    of that size is made."""
    largest = max((max(t.shape, default=1) for t in tensors.values()), default=0)
    for field in dataclasses.fields(model):
        value = getattr(model, field.name)
        if field.name in ("resolution", "ray_samples"):
            largest_here = 4096
        elif isinstance(value, int) and not isinstance(value, bool):
            largest_here = max(largest, len(tensors))
        else:
            continue
        if not 0 <= value <= largest_here:
            raise UserError(f"{path} does not fit its own configuration: {field.name} is {value}")


def _check_channels(channels: tuple[int, ...], tensors: dict[str, Tensor], path: Path) -> None:
    largest = max((max(t.shape, default=1) for t in tensors.values()), default=0)
    if len(channels) > len(tensors) or not all(1 <= count <= largest for count in channels):
        raise UserError(f"{path} does not fit its own configuration: channels are {channels}")


def _fill(module: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"{path} does not fit its own configuration: {reason}") from None


def save_state(run_folder: Path, step: int, state: dict[str, Any], keep: int = 2) -> Path:
    """Write the trainer's state of `step` and remove all but the newest `keep` states."""
    path = run_folder / f"state-{step:08d}.pt"
    write_atomically(path, lambda temporary: torch.save(state, temporary))
    for old in sorted(run_folder.glob(STATE_PATTERN))[:-keep]:
        old.unlink()
    return path


def load_state(run_folder: Path, *, flag: str = "--resume") -> dict[str, Any]:
    """The newest state of a run that reads whole; `flag` is the option that named the run."""
    if not run_folder.is_dir():
        raise UserError(f"{flag} {run_folder}: no such run folder: give a folder that `train` made")
    problems = []
    for path in sorted(run_folder.glob(STATE_PATTERN), reverse=True):
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch reports damage in many types
            problems.append(f"{path.name}: {' '.join(str(error).split())[:200]}")
    raise UserError(
        f"{flag} {run_folder}: no usable state-*.pt in it ({'; '.join(problems) or 'none found'}): "
        "give a run folder whose training saved one, or start a new run"
    )
