"""The clocks that drivers read, once per decision; the core gets the time as an argument."""

import asyncio
import time


def now() -> float:
    """Return seconds on the monotonic clock of deadlines and waits."""
    return time.monotonic()


def awake() -> float:
    """Return seconds on a clock that also runs while the machine sleeps, as time does for the platform."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def now_ms() -> int:
    """Return Unix time in milliseconds."""
    return time.time_ns() // 1_000_000


async def until_next(every_secs: float) -> None:
    """Sleep until the clock reaches the next multiple of `every_secs`.

    Periodic tasks then wake up together: in an idle process, waking up costs more than the work.
    """
    await asyncio.sleep(every_secs - now() % every_secs + 0.001)  # timers are not exact, and must not be early
