"""The mean face of a checkpoint, found once and kept on the disk, and what tells checkpoints apart.

Means are kept beside the weights, or in the cache where that folder cannot be written.
"""

import dataclasses
import json
from pathlib import Path
from weakref import WeakKeyDictionary

from safetensors import SafetensorError

from ..files import cache_root
from ..tensor_files import hash_tensors, read_kept, write_tensors
from .codes import Codes, Film
from .generator import Generator

COUNT, SEED = 10_000, 0  # latents averaged over (GRAM and pi-GAN average as many), and their seed
HEADER = {"format": "semfaceedit-means", "count": COUNT, "seed": SEED}
PARTS = ("geometry.frequencies", "geometry.phases", "appearance.frequencies", "appearance.phases")

_means: WeakKeyDictionary[Generator, Codes] = WeakKeyDictionary()
_fingerprints: WeakKeyDictionary[Generator, str] = WeakKeyDictionary()


def mean_codes(generator: Generator) -> Codes:
    """`generator.mean_codes()` of 10,000 latents, batch 1, on the generator's device.

    Found once for each generator in memory, and once for each checkpoint on the disk. The weights
    must not change afterwards.
    """
    if generator not in _means:
        _means[generator] = _read(generator) or _found(generator)
    return _means[generator]


def fingerprint(generator: Generator) -> str:
    """16 hexadecimal digits that tell checkpoints apart: a hash of configuration and weights."""
    if generator not in _fingerprints:
        settings = json.dumps(dataclasses.asdict(generator.config), sort_keys=True)
        _fingerprints[generator] = hash_tensors(generator.state_dict(), settings)
    return _fingerprints[generator]


def share_means(generator: Generator, base: Generator) -> None:
    """Let `generator` have the mean face and the fingerprint of `base`."""
    _means[generator], _fingerprints[generator] = mean_codes(base), fingerprint(base)


def cache_files(generator: Generator, what: str = "mean-codes") -> list[Path]:
    """Where what was found out about a checkpoint may be kept, first choice first; none without a
    source."""
    if generator.source is None:
        return []
    name = f"{what}-{fingerprint(generator)}.safetensors"
    return [generator.source.parent / name, cache_root() / name]


def _read(generator: Generator) -> Codes | None:
    device = generator.device
    for path in cache_files(generator):
        kept = read_kept(path)
        if kept is None or kept[0] | HEADER != kept[0] or set(kept[1]) != set(PARTS):
            continue
        t = [kept[1][name].to(device) for name in PARTS]
        return Codes(Film(t[0], t[1]), Film(t[2], t[3]))
    return None


def _found(generator: Generator) -> Codes:
    codes = generator.mean_codes(COUNT, SEED)
    films = (codes.geometry, codes.appearance)
    tensors = dict(zip(PARTS, (t for f in films for t in (f.frequencies, f.phases)), strict=True))
    for path in cache_files(generator):
        try:
            write_tensors(path, tensors, HEADER)
            break
        except (OSError, SafetensorError):  # a folder that cannot be written costs time only
            continue
    return codes
