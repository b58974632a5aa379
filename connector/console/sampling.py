"""Figures over time, for all viewers: one sampler, idle while nobody is looking.

Once a second it queries the status, and computes rates from counts. A count that falls (a worker was restarted) gives
no rate below 0. Points are rows of `SERIES`, which the charts draw unchanged.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from connector.telemetry.logging import get_logger

EVERY_SECS: Final = 1.0
KEPT: Final = 300
"""Points of each stream: five minutes."""

LINGER_SECS: Final = 60.0
"""How long it continues after the last viewer has left, who may only have changed pages."""

SMOOTH: Final = 5
"""Seconds that a displayed rate is averaged over."""

GAP_SECS: Final = 15.0
"""After a longer gap everything starts over: a rate would say nothing about now, and a chart would draw a line."""

SERIES: Final = ("at", "read", "settled", "dead", "requests", "lag", "in_flight", "limit")
"""Seconds since 1970, four rates per second, and three states."""

Status = dict[str, Any]
Rates = Mapping[str, float]

log = get_logger("console")


def counts_of(stream: Status) -> dict[str, int]:
    """Return the counts of a stream that rates are computed from."""
    dead = sum(stream["dead_letters"].values())
    return {
        "read": stream["records_read"],
        "queued": stream["queued"],
        "dead": dead,
        "requests": stream["requests"],
        "batches": sum(stream["batches_closed"].values()),
        "settled": stream["queued"] + stream["skipped"] + dead,
    }


@dataclass(slots=True)
class Track:
    """What was seen of one stream: counts of the last seconds, and points for the charts."""

    counts: deque[tuple[float, dict[str, int]]] = field(default_factory=lambda: deque(maxlen=SMOOTH + 1))
    points: deque[tuple[float | None, ...]] = field(default_factory=lambda: deque(maxlen=KEPT))

    def add(self, now: float, stream: Status, *, at: float) -> None:
        """Add a status, unless the last one was a moment ago: a rate over so short a time says nothing.

        `now` is on a monotonic clock, `at` is Unix time, which may be set back: then the charts start over.
        """
        if self.counts and now - self.counts[-1][0] < EVERY_SECS / 2:
            return
        if self.counts and now - self.counts[-1][0] > GAP_SECS:
            self.counts.clear()
            self.points.clear()
        if self.points and at < (self.points[-1][0] or 0.0):
            self.points.clear()
        counts = counts_of(stream)
        rates = _rates(*self.counts[-1], now, counts) if self.counts else None
        self.counts.append((now, counts))
        states = (stream["lag"], stream["in_flight_requests"], stream["concurrency_limit"])
        moving = [None] * 4 if rates is None else [rates[name] for name in ("read", "settled", "dead", "requests")]
        self.points.append((round(at, 1), *(None if rate is None else round(rate, 1) for rate in moving), *states))

    def rates(self) -> Rates | None:
        """Return the rates over the last seconds; None before the second look."""
        if len(self.counts) < 2:
            return None
        return _rates(*self.counts[0], *self.counts[-1])


def _rates(then: float, before: dict[str, int], now: float, counts: dict[str, int]) -> Rates:
    secs = max(now - then, 1e-3)
    return {name: max(count - before[name], 0) / secs for name, count in counts.items()}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The status at one time, with the rates of each stream by name. `number` ascends."""

    number: int
    at: float
    status: Status
    rates: Mapping[str, Rates | None]


class Sampler:
    """Looks once a second while there are viewers; `ask` returns the status."""

    def __init__(self, ask: Callable[[], Awaitable[Status]]) -> None:
        self.tracks: dict[str, Track] = {}
        self.closed = False
        self._ask = ask
        self._latest: Snapshot | None = None
        self._looked_at = float("-inf")
        self._news = asyncio.Condition()
        self._viewers = 0
        self._left_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def latest(self) -> Snapshot:
        """Return the present state, no older than the interval of looks."""
        if time.monotonic() - self._looked_at > EVERY_SECS * 1.5:
            async with self._news:
                if time.monotonic() - self._looked_at > EVERY_SECS * 0.5:
                    await self._look()
        assert self._latest is not None
        return self._latest

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Keep it looking while the context lasts."""
        self._viewers += 1
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            yield
        finally:
            self._viewers -= 1
            self._left_at = time.monotonic()

    async def after(self, number: int) -> Snapshot | None:
        """Wait for a snapshot newer than a number; None once it is closed."""
        async with self._news:
            while not self.closed and (self._latest is None or self._latest.number <= number):
                await self._news.wait()
        return None if self.closed else self._latest

    async def close(self) -> None:
        """End it, and release everybody who waits."""
        self.closed = True
        if self._task is not None:
            self._task.cancel()
        async with self._news:
            self._news.notify_all()

    async def _run(self) -> None:
        while self._viewers or time.monotonic() - self._left_at < LINGER_SECS:
            began = time.monotonic()
            try:
                async with self._news:
                    await self._look()
                    self._news.notify_all()
            except Exception as error:  # noqa: BLE001 (the next look may succeed; viewers see that nothing moves)
                log.warning("console cannot look at the streams", error=f"{type(error).__name__}: {error}")
            await asyncio.sleep(max(EVERY_SECS - (time.monotonic() - began), 0.1))

    async def _look(self) -> None:
        status = await self._ask()
        now, at = time.monotonic(), time.time()
        streams = {stream["name"]: stream for stream in status["streams"]}
        for name in self.tracks.keys() - streams.keys():
            del self.tracks[name]
        for name, stream in streams.items():
            self.tracks.setdefault(name, Track()).add(now, stream, at=at)
        rates = {name: track.rates() for name, track in self.tracks.items()}
        number = 1 if self._latest is None else self._latest.number + 1
        self._latest, self._looked_at = Snapshot(number, at, status, rates), now
