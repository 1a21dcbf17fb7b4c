"""What is freed stays with the process. By default large blocks are given back at once, and the system has to clear the pages of
the next ones again: up to a twentieth of the time."""

from __future__ import annotations

import contextlib
import ctypes
import functools

M_MMAP_THRESHOLD, M_TRIM_THRESHOLD = -3, -1  # glibc's malloc.h
_LARGEST, _ARENA = 512, 1 << 18  # bytes: the largest small object of Python's allocator, its arenas at least


def keep_freed_memory() -> None:
    """glibc's malloc does, in this process and those forked from it. Where the C library is another one, nothing happens: only
    speed is lost."""
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)


@functools.cache
def keep_freed_objects(size: int) -> list[bytes]:
    """Python's allocator of small objects does, in this process, with so many bytes; returns what has to live on for that.

    It gives an arena back when nothing in it lives: here one object in each does. Arenas are filled one after the other.
    """
    many = [bytes(_LARGEST - b"".__sizeof__()) for _ in range(size // _LARGEST)]
    return many[::_ARENA // _LARGEST]
