"""What a command says, in one line, of a machine that has too little memory or disk."""

import dataclasses
import errno
import os
from typing import Any

import torch


def is_lack_of_memory(error: Exception) -> bool:
    """Of CUDA, of torch's allocator on the CPU, or of Python."""
    lacking = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, lacking) or "allocate memory" in str(error)


def memory_advice(options_type: type[Any]) -> str:
    """The options that need less memory when they are smaller."""
    known = {field.name for field in dataclasses.fields(options_type)}
    flags = [name for name in ("chunk_rays", "resolution", "batch", "count") if name in known]
    smaller = " or ".join(f"--{name.replace('_', '-')}" for name in flags)
    return f"not enough memory: {f'give a smaller {smaller}, or ' if smaller else ''}free some"


def file_advice(error: OSError, flag: str) -> str | None:
    """Why a file could not be written, and what to do; None where that is a defect.

    flag: the option that named it.
    """
    where = f" ({error.filename})" if error.filename else ""
    full = f"no space left on the disk{where}: free some space or"
    said = {
        errno.ENOSPC: full,
        errno.EDQUOT: full,
        errno.EACCES: f"permission denied{where}: check its permissions, or",
        errno.EROFS: f"read-only file system{where}:",
    }
    if where:  # folders that cannot be made, names that are too long
        for number in (errno.ENOENT, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR):
            said[number] = f"{os.strerror(number).lower()}{where}:"
    what = said.get(error.errno or 0)
    return what and f"{what} choose another {flag}; files already written are intact"
