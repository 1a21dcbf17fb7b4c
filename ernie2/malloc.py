"""glibc keeps freed memory in the process. By default it gives large blocks back at once, and the system has
to clear the pages of the next ones again: up to a twentieth of the time."""

from __future__ import annotations

import contextlib
import ctypes

M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # glibc's malloc.h


def keep_freed_memory() -> None:
    """Sets it for this process and those forked from it; with another C library nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
