"""How a process allocates memory: settings of libraries below us that matter with many records."""

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""From glibc's `malloc.h`."""

ARENAS = 8
"""Threads that share an arena wait for each other at every message: measured, two arenas instead of eight make a stream
3 to 6 % slower, and save 3 MB. glibc's own limit is eight per CPU."""

KEPT_BYTES, MAPPED_BYTES = 64 << 20, 32 << 20
"""How much free memory is kept, and the size from which memory is mapped, at most 32 MiB. Otherwise request bodies of
some MB are returned to the kernel, and each page of the next one is a fault: measured with records of 4 KB, two per
record."""


def tune_allocator() -> None:
    """Configure the C library's allocator; call before any thread starts. Does nothing without glibc."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def calm_collector() -> None:
    """Exclude what lives as long as the process from garbage collection, and collect less often.

    Chunks are many short-lived objects without cycles: looking for cycles every 700 objects costs a tenth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
