"""Carries out a plan: each disturbance of an episode in its own time, then waits until all partitions are posted."""

import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Any, Final

from tests.chaos.arena import Arena, Slot, elsewhere
from tests.chaos.feed import Feed
from tests.chaos.plan import SPARE, WORKERS, Disturbance, Episode

STUCK_SECS: Final = 120.0
"""A partition of which nothing is posted for so long after all is well again will not be, without help."""

Steps = Iterator[float]
"""A disturbance under way: it yields how many seconds it lets pass before its next step."""


class StuckError(AssertionError):
    """The workers do not recover."""


class BrokerLostItError(Exception):
    """The broker does not keep its word, on which all else rests."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """How long it took, after an episode, until records of every partition were posted again."""

    kinds: tuple[str, ...]
    secs: float


class Conductor:
    """Disturbs an arena and keeps count."""

    def __init__(self, arena: Arena, feed: Feed, tell: Callable[[str], None]) -> None:
        self.counts: Counter[str] = Counter()
        self.recoveries: list[Recovery] = []
        self.problems: list[str] = []
        self._arena = arena
        self._feed = feed
        self._tell = tell
        self._sides = 0
        self._askers = ThreadPoolExecutor(thread_name_prefix="asker")

    @property
    def slowest(self) -> Recovery:
        """The recovery that took longest."""
        return max(self.recoveries, key=lambda recovery: recovery.secs, default=Recovery((), 0.0))

    def play(self, episode: Episode) -> None:
        """Carry out an episode, put everything right, and wait until the workers have recovered."""
        self._tell("; ".join(map(str, episode)))
        began = time.monotonic()
        due = [(d.after, number, self._steps(d)) for number, d in enumerate(episode)]
        heapify(due)
        while due:
            at, number, steps = heappop(due)
            time.sleep(max(began + at - time.monotonic(), 0.0))
            pause = next(steps, None)
            if pause is not None:
                heappush(due, (time.monotonic() - began + pause, number, steps))
        self.counts.update(disturbance.kind for disturbance in episode)
        self.recover(tuple(disturbance.kind for disturbance in episode))

    def recover(self, kinds: tuple[str, ...]) -> None:
        """Put everything right and wait until records of every partition are posted; raises `StuckError`."""
        arena, feed = self._arena, self._feed
        arena.heal()
        healed, marks = time.monotonic(), feed.marks()
        looked = healed
        while waiting := feed.waiting(marks):
            if not arena.broker_is_sound:
                raise BrokerLostItError("the broker has lost what it had acknowledged: this run proves nothing")
            if time.monotonic() - healed > STUCK_SECS:
                raise StuckError(f"after {kinds} nothing is posted of {waiting}: {list(arena.statuses())}")
            if time.monotonic() - looked > 1:
                arena.tend()
                looked = time.monotonic()
            time.sleep(0.05)
        took = time.monotonic() - healed
        self.recoveries.append(Recovery(kinds, took))
        self._tell(f"  posted again after {took:.1f} s")

    # ------------------------------------------------------------------ the disturbances, one method a kind

    def _steps(self, disturbance: Disturbance) -> Steps:
        values = dict(disturbance.values)
        if "faults" in values:
            return self._platform(**values)
        if "worker" in values:
            values["slot"] = self._arena.slots[values.pop("worker")]
        steps: Steps = getattr(self, f"_{disturbance.kind}")(**values)
        return steps

    def _platform(self, faults: dict[str, Any], secs: float) -> Steps:
        number = self._arena.add_faults(faults)
        yield secs
        self._arena.remove_faults(number)

    def _kill(self, slot: Slot, away_secs: float) -> Steps:
        self._arena.kill(slot)
        yield away_secs
        self._arena.fill(slot)

    _kill_for_long = _kill

    def _kill_all(self, away_secs: float) -> Steps:
        for slot in self._arena.slots:
            self._arena.kill(slot)
        yield away_secs
        for slot in self._arena.slots[:WORKERS]:
            self._arena.fill(slot)

    def _kill_again_and_again(self, slot: Slot, times: int, every_secs: float) -> Steps:
        for _ in range(times):
            self._arena.kill(slot)
            self._arena.fill(slot)
            yield every_secs

    def _stop_in_a_hurry(self, slot: Slot, grace_secs: float) -> Steps:
        self._arena.signal(slot, signal.SIGTERM)
        yield grace_secs
        self._arena.kill(slot)
        self._arena.fill(slot)

    def _freeze(self, slot: Slot, secs: float) -> Steps:
        self._arena.signal(slot, signal.SIGSTOP)
        yield secs
        self._arena.signal(slot, signal.SIGCONT)

    _freeze_briefly = _freeze

    def _scale(self, secs: float, orderly: bool) -> Steps:
        spare = self._arena.slots[SPARE]
        self._arena.fill(spare)
        yield secs
        if orderly:
            self._arena.signal(spare, signal.SIGTERM)
        else:
            self._arena.kill(spare)

    def _twin(self, slot: Slot) -> Steps:
        """Start a second worker with the id of one that runs: one of them has to go, and to say why.

        It is the newcomer, unless the group still knows the first one by an earlier process of this host.
        """
        twin = self._arena.start(slot, **elsewhere(self._arena.folder))
        first = slot.worker
        assert first is not None
        both = (twin.process, first.process)
        for _ in range(150):
            if any(process.poll() is not None for process in both):
                break
            yield 0.2
        codes = [process.poll() for process in both]
        if sorted(codes, key=str) != [4, None]:
            self.problems.append(
                f"of two workers with one id the second ended with {codes[0]}, the first with {codes[1]}"
            )
        if twin.process.poll() is None:
            twin.kill()

    def _broker_stop(self, away_secs: float) -> Steps:
        self._arena.restart_broker("stop", away_secs)
        yield 0

    def _broker_kill(self, away_secs: float) -> Steps:
        self._arena.restart_broker("kill", away_secs)
        yield 0

    def _broker_freeze(self, secs: float) -> Steps:
        self._arena.broker.pause()
        yield secs
        self._arena.broker.resume()

    def _cut_off(self, slot: Slot, how: Any, secs: float) -> Steps:
        slot.trouble(how)
        yield secs
        slot.trouble(None)

    def _meanwhile(self, ask: Callable[[], object]) -> Steps:
        """Ask the cluster for something while the episode goes on, which may have to thaw the broker that is asked."""
        answer = self._askers.submit(ask)
        while not answer.done():
            yield 0.05
        answer.result()

    def _authorization_taken(self, what: str, secs: float) -> Steps:
        yield from self._meanwhile(partial(self._arena.deny, what))
        yield secs
        yield from self._meanwhile(self._arena.allow_all)

    def _outcomes_refused(self, secs: float) -> Steps:
        yield from self._meanwhile(partial(self._arena.refuse_outcomes, True))
        yield secs
        yield from self._meanwhile(partial(self._arena.refuse_outcomes, False))

    def _topic_deleted(self, records: int) -> Steps:
        arena = self._arena
        self._sides += 1
        sides = {lane.source + f".side{self._sides}": lane for lane in arena.lanes}
        for topic, lane in sides.items():
            yield from self._meanwhile(partial(arena.topics.create, partitions=2, name=topic))
            self._feed.side(lane, topic, records)
        yield 4.0  # most are found, some are under way
        yield from self._meanwhile(partial(arena.topics.delete, *sides))
        self._feed.deleted.update(sides)
