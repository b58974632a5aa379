"""A steady flow of records, and the times at which the platform took them: how long a partition stood still."""

import itertools
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Self

from connector.demo.topics import Record
from connector.simulator import SimulatorThread
from tests.kit.world import World, sends

TAG = "feed"


def watch_ledger(platform: SimulatorThread, note: Callable[[Sequence[str | None]], None]) -> None:
    """Have each lot of identities that the platform accepts told: the ledger itself keeps no order and no times."""
    ledger = platform._simulator._behaviour.ledger
    write = ledger.accept_all

    def watched(operation: str, identities: Sequence[str | None]) -> None:
        note(identities)
        write(operation, identities)

    ledger.accept_all = watched  # type: ignore[method-assign] # what it is for


class Watch:
    """Notes when the ledger accepted what; times are those of the monotonic clock."""

    def __init__(self, platform: SimulatorThread) -> None:
        self.accepted: list[tuple[float, int]] = []
        """When how many records were accepted."""
        self.times: dict[str, float] = {}
        """When each record was first accepted, by its text."""
        watch_ledger(platform, self._note)

    def _note(self, identities: Sequence[str | None]) -> None:
        at = time.monotonic()
        self.accepted.append((at, len(identities)))
        for identity in identities:
            self.times.setdefault(identity or "", at)

    def count(self, start: float, stop: float) -> int:
        """Return how many records were accepted between two times."""
        return sum(records for at, records in self.accepted if start <= at < stop)


class Feed:
    """Produces records at a steady pace, round robin over the partitions, until it is left."""

    def __init__(self, world: World, *, per_sec: int = 400, partitions: int = 4) -> None:
        self.watch = Watch(world.platform)
        self.partitions = partitions
        self._world = world
        self._per_sec = per_sec
        self._produced = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def mark(self) -> int:
        """Return a number below which lie all records that were produced by now."""
        return self._produced

    def wait_posted(self, partitions: Collection[int], *, after: int, since: float, within_secs: float) -> float:
        """Wait until each partition has had a record accepted that was produced after the mark.

        Return the seconds from `since` until the last of them had.
        """
        deadline = since + within_secs
        while True:
            first = {partition: self._first(partition, after) for partition in partitions}
            if all(at is not None for at in first.values()):
                return max(at for at in first.values() if at is not None) - since
            if time.monotonic() > deadline:
                waiting = [partition for partition, at in first.items() if at is None]
                raise AssertionError(f"nothing of partitions {waiting} was posted within {within_secs:g} s")
            time.sleep(0.05)

    def longest_gap(self, partition: int, start: float, stop: float) -> float:
        """Return the longest time between two times without a record of a partition accepted."""
        texts = (f"{TAG} {number}" for number in range(partition, self._produced, self.partitions))
        times = sorted({at for text in texts if start <= (at := self.watch.times.get(text, 0.0)) <= stop})
        edges = [start, *times, stop]
        return max(right - left for left, right in itertools.pairwise(edges))

    def _first(self, partition: int, after: int) -> float | None:
        start = after + (partition - after) % self.partitions
        times = self.watch.times
        for number in range(start, self._produced, self.partitions):
            at = times.get(f"{TAG} {number}")
            if at is not None:
                return at
        return None

    def _run(self) -> None:
        self._world.produce(self._records())

    def _records(self) -> Iterator[Record]:
        began = time.monotonic()
        for record in sends(10_000_000, tag=TAG):
            ahead = self._produced / self._per_sec - (time.monotonic() - began)
            if self._stopping.wait(max(ahead, 0.0)) if ahead > 0.02 else self._stopping.is_set():
                return
            yield record
            self._produced += 1
