"""Memory that tensors give back is kept for the next ones, instead of being asked of the system again."""

import ctypes
import platform

# Of glibc's malloc.h.
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_KEPT_BYTES = 1 << 30


def disable_malloc_trim() -> bool:
    """Let this process keep blocks of up to 1 GiB that are freed. For work on a CPU, by whole programs.

    glibc maps each block of 32 MB or more anew, and the system fills each of its pages with zeros
    at the first touch: for the maps of a batch of students a third of all time. The process then
    has its greatest size until it ends.

    Returns:
        Whether the C library could be told; False on one that has no such settings.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(libc.mallopt(_MMAP_THRESHOLD, _KEPT_BYTES) and libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1))
