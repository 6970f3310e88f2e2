"""What a process does with the memory that a step leaves free."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGE, LARGEST = 1 << 30, 1 << 25  # bytes; older versions of glibc take no more than the second


def keep_freed_memory() -> bool:
    """Keep freed blocks for the next step instead of giving them back; says whether it could.

    glibc maps every large block anew and gives it back when it is freed, so each step on a CPU has
    all of its tensors faulted in page by page: a tenth or more of a step's time. For programs that
    repeat a step many times; the process then stays as large as its largest step. glibc only.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    raised = mallopt(M_MMAP_THRESHOLD, LARGE) or mallopt(M_MMAP_THRESHOLD, LARGEST)
    return bool(raised and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))


def give_back_memory() -> None:
    """Give what is free back to the system, after work that is not soon repeated. glibc only."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
