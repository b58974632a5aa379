"""Keeps the threads that take turns at the interpreter's lock on one CPU while they are busy.

Only one of them runs at a time. Where the scheduler spreads them over CPUs, each turn wakes another CPU and finds the
records in another's cache: measured, that costs an eighth of a stream's speed. Which CPU it is remains the scheduler's
choice: each second the busiest of them may run anywhere for a moment, and the others go where it went. All other
threads, those of librdkafka above all, may run anywhere; they inherit what the thread was kept to that made them, and
are let go of.
"""

import asyncio
import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from connector.clock import until_next
from connector.cpus import USABLE
from connector.telemetry.logging import get_logger

LOOK_SECS: Final = 1.0
FREE_SECS: Final = 0.05
"""How long the busiest may run anywhere: some turns of the scheduler, which moves it if others want its CPU."""

BUSY_SHARE: Final = 0.25
"""Of a CPU, taken by all of them together. Below it there is nothing to gain, and they wait for nobody's CPU."""

_TICKS_PER_SEC: Final = os.sysconf("SC_CLK_TCK")
_TASKS: Final = Path("/proc/self/task")

log = get_logger("app")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A thread: the CPU time that it has taken, in ticks, and where it ran last."""

    ticks: int
    cpu: int


class Together:
    """Keeps threads together; `threads` gives their native ids, and may give more later. Linux alone can do it."""

    def __init__(self, threads: Callable[[], Collection[int]]) -> None:
        self._threads = threads
        self._before: dict[int, int] = {}
        self._looked_at = time.monotonic()
        self._worked = time.process_time()
        self._kept = False

    async def run(self) -> None:
        """Look once a second, until cancelled or not allowed to."""
        try:
            while True:
                await until_next(LOOK_SECS)
                with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended meanwhile
                    await self._look()
        except OSError as error:  # CPUs that were taken away, or a sandbox that forbids it
            log.debug("threads run anywhere", error=str(error))
        finally:
            self.part()

    async def _look(self) -> None:
        busiest = self._busiest() if self._is_busy() else None
        if busiest is None:
            if self._kept:
                self.part()
            return
        os.sched_setaffinity(busiest, USABLE)
        await asyncio.sleep(FREE_SECS)
        self._gather(_look_at(busiest).cpu)

    def part(self) -> None:
        """Let every thread run anywhere again."""
        self._kept = False
        for thread in _all_threads():
            _let_go(thread)

    def _is_busy(self) -> bool:
        """Tell whether all threads together took enough since the last look: to look at each of them costs more."""
        before, self._worked = self._worked, time.process_time()
        at = time.monotonic()
        if self._worked - before >= BUSY_SHARE * (at - self._looked_at):
            return True
        self._before, self._looked_at = {}, at
        return False

    def _busiest(self) -> int | None:
        """Return the thread that took most since the last look, None while all took little."""
        at = time.monotonic()
        now = {thread: _look_at(thread).ticks for thread in self._running()}
        taken = {thread: ticks - self._before.get(thread, ticks) for thread, ticks in now.items()}
        enough = BUSY_SHARE * (at - self._looked_at) * _TICKS_PER_SEC
        self._before, self._looked_at = now, at
        return max(taken, key=lambda thread: taken[thread]) if sum(taken.values()) >= enough else None

    def _running(self) -> set[int]:
        return _all_threads().intersection(self._threads())

    def _gather(self, cpu: int) -> None:
        self._kept = True
        together = self._running()
        for thread in together:
            os.sched_setaffinity(thread, {cpu})
        for thread in _all_threads() - together:
            _let_go(thread)


def _look_at(thread: int) -> _Seen:
    # The name, in parentheses, may hold anything; of what follows it, utime and stime are the 12th and 13th fields.
    fields = (_TASKS / str(thread) / "stat").read_text().rpartition(")")[2].split()
    return _Seen(int(fields[11]) + int(fields[12]), int(fields[36]))


def _all_threads() -> set[int]:
    return {int(task.name) for task in _TASKS.iterdir()}


def _let_go(thread: int) -> None:
    try:
        if os.sched_getaffinity(thread) != USABLE:
            os.sched_setaffinity(thread, USABLE)
    except OSError:  # it has ended meanwhile, or may not be moved
        pass
