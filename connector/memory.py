"""How a process allocates: settings of the machinery below us that cost or save much when records are many."""

import ctypes
import gc

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
"""From glibc's `malloc.h`."""

ARENAS = 8
"""Two threads that share one wait for each other at every message: measured, two arenas in place of eight make a stream
3 to 6 % slower, and save 3 MB. glibc's own limit is eight for each CPU."""

KEPT_BYTES, MAPPED_BYTES = 64 << 20, 32 << 20
"""What is kept when it is free, and what is larger than what is kept, 32 MiB at most. Request bodies of some MB are
given back to the kernel otherwise, and each page of the next one is a fault: measured with records of 4 KB, two for
each record."""


def tune_allocator() -> None:
    """Set how the C library allocates; call before any thread starts. Where it is not glibc, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES)


def calm_collector() -> None:
    """Leave alone what lives as long as the process, and look less often for cycles among what does not.

    Chunks are many objects that die young and hold no cycles: looking for some at every 700th costs a tenth.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
