"""Admits prepared records to batches: first by the order of their keys, then by the pace of their lists.

A record that waits for its list's pace keeps its key busy, so that a later record with the same key, for another list,
cannot overtake it. Without either setting a chunk goes straight to the batcher.
"""

from collections.abc import Callable, Iterable, Sequence

from connector.core.batching import Batch, Batcher
from connector.core.chunks import Chunk
from connector.core.ordering import KeyQueues, LaneChunk
from connector.core.pacing import Pacer
from connector.core.results import Finished


class Admission:
    """Passes records on to batches as soon as their keys and lists allow, and keeps the rest.

    The methods return the batches that they closed. A record that has waited here does not wait for a batch window as
    well: its window starts when the record was taken in.
    """

    def __init__(self, batcher: Batcher, *, key_queues: KeyQueues | None = None, pacer: Pacer | None = None) -> None:
        self.batcher = batcher
        self.key_queues = key_queues
        self.pacer = pacer
        self.lots = 0
        """How many lots waited for their pace and were released."""

    @property
    def held_bytes(self) -> int:
        """Bytes of the records in open batches and of those that wait here."""
        held = self.batcher.open_bytes
        for part in (self.key_queues, self.pacer):
            if part is not None:
                held += part.waiting_bytes
        return held

    def take(self, lanes: Sequence[LaneChunk], *, now: float) -> list[Batch]:
        """Take in a prepared chunk, divided by lane."""
        closed: list[Batch] = []
        for lane, chunk in lanes if self.key_queues is None else self.key_queues.admit(lanes, now=now):
            closed += self._pass(lane, chunk, since=now, now=now)
        return closed

    def settled(self, items: Iterable[Finished], *, now: float, at_most: int | None = None) -> list[Batch]:
        """Admit the next record of each key of `items`, whose results are committed; `at_most` as in `due`."""
        if self.key_queues is None:
            return []
        closed: list[Batch] = []
        released = self.key_queues.settled(items)
        for turn in released:
            closed += self._pass(turn.lane, turn.chunk, since=turn.since, now=now)
        return closed + self.batcher.due(now=now, at_most=at_most) if released else closed

    def due(self, *, now: float, may_start: bool, at_most: int | None = None) -> list[Batch]:
        """Close batches whose window has passed, at most `at_most`; if any `may_start`, admit what the paces allow.

        A budget that is not used while nothing may start is lost: otherwise an outage would end in a flood.
        """
        closed: list[Batch] = []
        if self.pacer is not None and may_start:
            for lot in self.pacer.release(now=now):
                closed += self.batcher.add(lot.lane, lot.chunk, now=lot.since)
                self.lots += 1
        return closed + self.batcher.due(now=now, at_most=at_most)

    def next_deadline(self, *, may_start: bool) -> float | None:
        """Return when `due` should be called again, or None when nothing waits for a time."""
        times = [self.batcher.next_deadline()]
        if self.pacer is not None and may_start:
            times.append(self.pacer.next_at())
        return min((time for time in times if time is not None), default=None)

    def keep(self, wanted: Callable[[Chunk], bool]) -> None:
        """Drop the chunks for which `wanted` is false."""
        for part in (self.batcher, self.key_queues, self.pacer):
            if part is not None:
                part.keep(wanted)

    def _pass(self, lane: str | None, chunk: Chunk, *, since: float, now: float) -> list[Batch]:
        if self.pacer is not None:
            admitted = self.pacer.admit(lane, chunk, now=now)
            if admitted is None:
                return []
            chunk = admitted
        return self.batcher.add(lane, chunk, now=since)
