"""safetensors files with a JSON header and a hash: a number that was damaged is seen."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from .files import write_atomically

MOMENTS = "adam."  # begins the names of an optimizer's tensors


def hash_tensors(tensors: Mapping[str, Tensor], settings: str = "") -> str:
    """16 hexadecimal digits of names and fp32 values."""
    digest = hashlib.sha256(settings.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def hash_all(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """The same of tensors and of a JSON header, but for the header's own hash."""
    facts = json.loads(json.dumps({k: v for k, v in header.items() if k != "sha256"}))
    return hash_tensors(tensors, json.dumps(facts, sort_keys=True))


def is_unchanged(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bool:
    """Whether a header's hash is that of what was read with it. Older files hash their tensors
    alone, or nothing."""
    known = header.get("sha256")
    return known is None or known in (hash_all(header, tensors), hash_tensors(tensors))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any] | None = None
) -> None:
    """Write tensors and a JSON header, with `hash_all` of both."""
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    facts = dict(header or {})
    metadata = {"semfaceedit": json.dumps(facts | {"sha256": hash_all(facts, kept)})}
    write_atomically(path, lambda temporary: save_file(kept, temporary, metadata))


def read_kept(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Header and tensors that `write_tensors` wrote, to save finding them again; None where there
    is no such file or it was damaged."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("semfaceedit", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        sound = isinstance(header, dict) and header.get("sha256") == hash_all(header, tensors)
    except (SafetensorError, OSError, ValueError, RuntimeError, RecursionError):
        return None  # whatever it was, it is found again
    return (header, tensors) if sound else None


def reason_of(error: Exception) -> str:
    """Why a file of tensors cannot be read, in one line for users."""
    if isinstance(error, SafetensorError):  # whose words speak of the format's inside
        return "it is damaged, or of another kind"
    return (str(error).splitlines() or [type(error).__name__])[0]


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """Adam's moments and steps by name, as `restore_optimizer` takes them."""
    return {
        f"{MOMENTS}{index}.{name}": tensor
        for index, state in optimizer.state_dict()["state"].items()
        for name, tensor in state.items()
    }


def restore_optimizer(optimizer: Optimizer, tensors: dict[str, Tensor]) -> None:
    """Take what `optimizer_tensors` gave out of `tensors` into an optimizer of the same parameters;
    its rates stay."""
    states: dict[int, dict[str, Tensor]] = {}
    for key in [key for key in tensors if key.startswith(MOMENTS)]:
        index, name = key.removeprefix(MOMENTS).split(".", 1)
        states.setdefault(int(index), {})[name] = tensors.pop(key)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})
