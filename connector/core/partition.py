"""What a worker knows of a partition that it owns, and what a tick can commit for it.

The metadata of a committed offset has limited room. What does not fit is left out of a tick in an order that never ends
in a standstill: results go before records that start, because they make room, and of both the oldest go first.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from connector.core.chunks import Partition
from connector.core.progress import Progress, Range, RangeSet, encode

ROOM_TO_START: Final = 0.5
ROOM_TO_TRY_AGAIN: Final = 0.65
ROOM_TO_SETTLE: Final = 0.75
ROOM_FOR_THE_OLDEST: Final = 0.96
"""Shares of the metadata that a tick may fill. Records that start leave room for results, which split ranges. Records
that were posted before may fill more than those that were not: they lie between ranges that are listed anyway, and
settling them makes room. Results leave room for starting the oldest records, several at a time: with those the
committed offset advances, and all the rest gets shorter. The last few characters are for starting a single oldest
record, so that there is always a way on."""

MAX_READS: Final = 1_000
"""Reads whose times are kept separately: behind a record that waits for days there are millions."""


@dataclass(frozen=True, slots=True)
class PlannedCommit:
    """What a tick would commit for a partition, and the offsets below which it takes results and batches.

    None in place of a cut: all of them.
    """

    progress: Progress
    metadata: str
    settle_cut: int | None = None
    start_cut: int | None = None
    stuck: bool = False
    """There is no room for results either, except for those of the record at the committed offset."""

    def fits(self, characters: int, share: float) -> bool:
        """Return whether the metadata fits into this share of so many characters."""
        return len(self.metadata) <= int(characters * share)


NOTHING_PLANNED: Final = PlannedCommit(Progress(0), "", 0, 0)


@dataclass(slots=True, eq=False)
class PartitionState:
    """What this worker knows of a partition that it owns."""

    partition: Partition
    epoch: int
    base: int
    birth: int
    settled: RangeSet
    doubt: RangeSet
    """Posted by some worker, fate unknown, not yet settled: listed as in flight until they are."""
    next_read: int
    horizon: int
    """The progress read at assignment says nothing about offsets from here on."""
    active: dict[int, list[Range]] = field(default_factory=dict)
    revoking: bool = False
    held: bool = False
    committed: Progress = field(default_factory=lambda: Progress(0))
    """The committed progress. It may list more as in flight than really is, and omit holes, but it never lists less."""
    committed_length: int = 0
    """Length of its metadata in characters."""
    holes: deque[Range] = field(default_factory=deque)
    """Offsets that do not exist in the topic, above everything that has to be listed, so that reading ahead takes no
    metadata."""
    reads: deque[tuple[int, int]] = field(default_factory=deque)
    """For each chunk that was read and is not completely settled (or for several together, if there are many): the
    offset after it, and when its oldest record was appended, in milliseconds since 1970."""

    def note_read(self, oldest_ms: int) -> None:
        """Note the time of a chunk that was just read."""
        self.reads.append((self.next_read, oldest_ms))
        if len(self.reads) >= MAX_READS:
            self.reads = _thinned(self.reads)

    def in_flight(self) -> RangeSet:
        """Return all offsets that a crash now would leave in doubt."""
        ranges = self.doubt.copy()
        for listed in self.active.values():
            ranges.update(listed)
        return ranges

    def not_accepted(self) -> RangeSet:
        """Return what the committed progress lists as in flight and is not: withdrawn, or never posted."""
        ranges = self.committed.in_flight.copy()
        for start, stop in self.in_flight():
            ranges.discard(start, stop)
        return ranges

    def reach(self, top: int) -> None:
        """Settle the holes that begin at `top` or below: they lie between ranges that have to be listed anyway."""
        top = max(top, self.base, self.settled.stop)
        while self.holes and self.holes[0][0] <= top:
            start, stop = self.holes.popleft()
            self.settled.add(start, stop)
            top = max(top, stop)
        self.base = self.settled.advance(self.base)

    def plan(
        self, settled: Sequence[Range], started: Sequence[Range], *, mark: int, cut: int | None = None
    ) -> PlannedCommit:
        """Return the progress as it will be after the tick; from `cut` on, as it is committed now."""
        after = self.settled.copy()
        after.update(settled)
        in_flight = self.in_flight()
        in_flight.update(started)
        for start, stop in settled:
            in_flight.discard(start, stop)
        if cut is not None:
            for now, before in ((after, self.committed.settled), (in_flight, self.committed.in_flight)):
                now.discard(cut, max(now.stop, cut))
                now.update((max(start, cut), stop) for start, stop in before if stop > cut)
        base = after.advance(self.base)
        progress = Progress(base, self.birth, mark, after, in_flight)
        return PlannedCommit(progress, encode(progress), cut, cut)

    def plan_what_fits(
        self, settled: list[Range], started: list[Range], *, mark: int, room: int, changed: bool
    ) -> PlannedCommit:
        """Return the progress with as much of a tick as fits into `room` characters, the oldest first.

        Results go before records that start, because they make room. If no result fits, the batch at the committed
        offset starts, or as much of it as fits: once it is settled, the offset advances. Listing what is no longer in
        flight is safe; results that are left out stay queued. If neither is possible, the result is what has `changed`
        otherwise, or nothing.
        """

        def fitting(
            cuts: list[int], share: float, plan_at: Callable[[int], PlannedCommit], *, least: bool
        ) -> PlannedCommit:
            return _largest(cuts, plan_at, lambda planned: planned.fits(room, share), least=least)

        planned = self.plan(settled, [], mark=mark)
        if settled:
            if not planned.fits(room, ROOM_TO_SETTLE):
                planned = fitting(
                    sorted(stop for _, stop in settled),
                    ROOM_TO_SETTLE,
                    lambda cut: self.plan(_clip(settled, cut), [], mark=mark, cut=cut),
                    least=min(settled)[0] == self.base,  # results at the committed offset only shorten the metadata
                )
            if planned.metadata:
                return replace(planned, start_cut=0)
        begun, stuck = sorted(started), bool(settled)
        if begun and begun[0][0] == self.base:
            planned = fitting(
                [self.base + 1, *(stop for _, stop in begun)],
                ROOM_FOR_THE_OLDEST,
                lambda cut: self.plan([], _clip(begun, cut), mark=mark, cut=cut),
                least=True,
            )
            return replace(planned, settle_cut=0, stuck=stuck)
        if changed and planned.fits(room, ROOM_TO_SETTLE):
            return replace(planned, settle_cut=0, start_cut=0, stuck=stuck)
        return replace(NOTHING_PLANNED, stuck=stuck)


def _thinned(reads: deque[tuple[int, int]]) -> deque[tuple[int, int]]:
    """Merge neighbouring reads that lie within a small share of all offsets."""
    thinned: deque[tuple[int, int]] = deque()
    begin = previous = reads[0][0]
    together = 4 * (reads[-1][0] - begin) // len(reads)
    for stop, oldest_ms in reads:
        if len(thinned) > 1 and stop - begin <= together:  # it is not known where the first one begins
            thinned[-1] = stop, thinned[-1][1]
        else:
            begin = previous
            thinned.append((stop, oldest_ms))
        previous = stop
    return thinned


def _largest(
    cuts: list[int], plan_at: Callable[[int], PlannedCommit], fits: Callable[[PlannedCommit], bool], *, least: bool
) -> PlannedCommit:
    """Return `plan_at` of the largest of the ascending `cuts` that fits, by bisection.

    If none fits: nothing, or with `least` that of the first cut all the same.
    """
    best, low, high = plan_at(cuts[0]) if least else NOTHING_PLANNED, 0, len(cuts)
    while low < high:
        middle = (low + high) // 2
        planned = plan_at(cuts[middle])
        if fits(planned):
            best, low = planned, middle + 1
        else:
            high = middle
    return best


def _clip(ranges: Iterable[Range], cut: int) -> list[Range]:
    """Return the part of the ranges that lies below `cut`."""
    return [(start, min(stop, cut)) for start, stop in ranges if start < cut]
