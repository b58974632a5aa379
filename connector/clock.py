"""The clocks that drivers read, once for each decision; what is decided is given the time."""

import asyncio
import time


def now() -> float:
    """Return seconds of the clock that deadlines and waits are measured with."""
    return time.monotonic()


def awake() -> float:
    """Return seconds of the clock that goes on while the machine sleeps, as the platform does."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def now_ms() -> int:
    """Return the time of day, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


async def until_next(every_secs: float) -> None:
    """Sleep until the clock comes to a multiple of a time.

    Those that look at something now and then wake up together: an idle process pays for waking, not for looking.
    """
    await asyncio.sleep(every_secs - now() % every_secs + 0.001)  # timers are not exact; it must not be too early
