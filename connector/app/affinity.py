"""Keeps the threads that constantly need the interpreter lock on one CPU while they are busy.

Only one of them runs at a time. If the scheduler spreads them over CPUs, each turn wakes up another CPU, and the
records are in another one's cache: measured, that costs an eighth of a stream's speed. The scheduler still chooses the
CPU: each second the busiest thread may run anywhere for a moment, and the others follow it. All other threads, above
all those of librdkafka, may run anywhere; they inherit the affinity of the thread that created them, and are released
from it.
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
"""How long the busiest may run anywhere: a few turns of the scheduler, which moves it if others want its CPU."""

BUSY_SHARE: Final = 0.25
"""Share of a CPU that all of them use together. Below it there is nothing to gain, and they may run anywhere."""

_TICKS_PER_SEC: Final = os.sysconf("SC_CLK_TCK")
_TASKS: Final = Path("/proc/self/task")

log = get_logger("app")


@dataclass(frozen=True, slots=True)
class _Seen:
    """A thread: the CPU time that it has used, in ticks, and its last CPU."""

    ticks: int
    cpu: int


class ThreadAffinity:
    """Keeps threads on one CPU; `threads` returns their native ids, which may change. Only works on Linux."""

    def __init__(self, threads: Callable[[], Collection[int]]) -> None:
        self._threads = threads
        self._before: dict[int, int] = {}
        self._looked_at = time.monotonic()
        self._worked = time.process_time()
        self._kept = False

    async def run(self) -> None:
        """Look once a second, until cancelled or not permitted."""
        try:
            while True:
                await until_next(LOOK_SECS)
                with suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended
                    await self._look()
        except OSError as error:  # CPUs were removed, or a sandbox forbids it
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
        """Return whether all threads together used enough since the last look; examining each of them costs more."""
        before, self._worked = self._worked, time.process_time()
        at = time.monotonic()
        if self._worked - before >= BUSY_SHARE * (at - self._looked_at):
            return True
        self._before, self._looked_at = {}, at
        return False

    def _busiest(self) -> int | None:
        """Return the thread that used most since the last look, None if all used little."""
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
    # The name, in parentheses, may contain anything; of the fields after it, utime and stime are the 12th and 13th.
    fields = (_TASKS / str(thread) / "stat").read_text().rpartition(")")[2].split()
    return _Seen(int(fields[11]) + int(fields[12]), int(fields[36]))


def _all_threads() -> set[int]:
    return {int(task.name) for task in _TASKS.iterdir()}


def _let_go(thread: int) -> None:
    try:
        if os.sched_getaffinity(thread) != USABLE:
            os.sched_setaffinity(thread, USABLE)
    except OSError:  # it has ended, or may not be moved
        pass
