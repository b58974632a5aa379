"""The clocks that drivers read, once for each decision; what is decided is given the time."""

import asyncio
import time


def now() -> float:
    """Return seconds of the clock that deadlines and waits are measured with."""
    return time.monotonic()


def now_ms() -> int:
    """Return the time of day, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


async def until_next(every_secs: float) -> None:
    """Sleep until the clock comes to a multiple of a time.

    Those that look at something now and then wake up together: an idle process pays for waking, not for looking.
    """
    await asyncio.sleep(every_secs - now() % every_secs + 0.001)  # timers are not exact; it must not be too early
