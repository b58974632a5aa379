"""What a worker knows of a partition that it owns, and what a tick can say of it.

The metadata of a committed offset has room for so many characters. What does not fit is left out of a tick in an order
that never ends in a standstill: results before what starts, as they make room, and of both the oldest first.
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
"""Shares of the metadata that a tick may fill. What starts leaves room for results, which split what was one range.
What was posted before may fill more than what never was: it lies among what is said already, and its end makes room.
Results leave room for starting what is oldest, in pieces of more than one record: with it the committed offset
advances, and all gets shorter. The last few characters are for starting a single record there, so that this never
ends."""

MAX_READS: Final = 1_000
"""Reads of which the times are kept apart: behind a record that waits for days there are millions."""


@dataclass(frozen=True, slots=True)
class Said:
    """What a tick would say of a partition, and below which offset it takes results and batches (None: all)."""

    progress: Progress
    metadata: str
    settle_cut: int | None = None
    start_cut: int | None = None
    stuck: bool = False
    """There is room for no result either, but for those of what holds the committed offset."""

    def fits(self, characters: int, share: float) -> bool:
        """Tell whether it fits a share of so many characters."""
        return len(self.metadata) <= int(characters * share)


NOTHING_SAID: Final = Said(Progress(0), "", 0, 0)


@dataclass(slots=True, eq=False)
class PartitionState:
    """What this worker knows of a partition that it owns."""

    partition: Partition
    epoch: int
    base: int
    birth: int
    settled: RangeSet
    doubt: RangeSet
    """Posted by somebody, fate unknown, not yet settled: listed as in flight until they are."""
    next_read: int
    horizon: int
    """Below it lie the offsets that the progress read at assignment says something about."""
    active: dict[int, list[Range]] = field(default_factory=dict)
    revoking: bool = False
    held: bool = False
    told: Progress = field(default_factory=lambda: Progress(0))
    """What stands committed: it may list more as in flight than is, and leave out holes, but it never says less."""
    told_length: int = 0
    """Characters that it takes."""
    holes: deque[Range] = field(default_factory=deque)
    """Offsets that the topic does not have, above all that has to be said: reading far ahead takes no metadata."""
    reads: deque[tuple[int, int]] = field(default_factory=deque)
    """Of each chunk that was read and is not settled to its end, or of a few together where they are many: the offset
    behind it, and when its oldest record was appended, in milliseconds since 1970."""

    def note_read(self, oldest_ms: int) -> None:
        """Take note of the time of a chunk that was just read."""
        self.reads.append((self.next_read, oldest_ms))
        if len(self.reads) >= MAX_READS:
            self.reads = _thinned(self.reads)

    def in_flight(self) -> RangeSet:
        """Return all offsets that a crash now would leave in doubt."""
        ranges = self.doubt.copy()
        for listed in self.active.values():
            ranges.update(listed)
        return ranges

    def untaken(self) -> RangeSet:
        """Return what stands committed as in flight and is not: withdrawn, or never posted."""
        ranges = self.told.in_flight.copy()
        for start, stop in self.in_flight():
            ranges.discard(start, stop)
        return ranges

    def reach(self, top: int) -> None:
        """Settle the holes that begin at `top` or below, as they lie between what has to be said anyway."""
        top = max(top, self.base, self.settled.stop)
        while self.holes and self.holes[0][0] <= top:
            start, stop = self.holes.popleft()
            self.settled.add(start, stop)
            top = max(top, stop)
        self.base = self.settled.advance(self.base)

    def say(self, settled: Sequence[Range], started: Sequence[Range], *, mark: int, cut: int | None = None) -> Said:
        """Return the progress as it will be when the tick has committed: from `cut` on, as it stands committed."""
        after = self.settled.copy()
        after.update(settled)
        in_flight = self.in_flight()
        in_flight.update(started)
        for start, stop in settled:
            in_flight.discard(start, stop)
        if cut is not None:
            for now, told in ((after, self.told.settled), (in_flight, self.told.in_flight)):
                now.discard(cut, max(now.stop, cut))
                now.update((max(start, cut), stop) for start, stop in told if stop > cut)
        base = after.advance(self.base)
        progress = Progress(base, self.birth, mark, after, in_flight)
        return Said(progress, encode(progress), cut, cut)

    def say_what_fits(self, settled: list[Range], started: list[Range], *, mark: int, room: int, changed: bool) -> Said:
        """Return the progress with as much of a tick as `room` characters are enough for, the oldest first.

        Results go before what starts, as they make room. If none fits, the batch at the committed offset is started, or
        as much of it as fits: when that has settled, the offset advances. To go on listing what is not in flight any
        more is safe; the results that are left out stay queued. With neither, it is said what has `changed` otherwise.
        """

        def fitting(cuts: list[int], share: float, say: Callable[[int], Said], *, least: bool) -> Said:
            return _largest(cuts, say, lambda said: said.fits(room, share), least=least)

        said = self.say(settled, [], mark=mark)
        if settled:
            if not said.fits(room, ROOM_TO_SETTLE):
                said = fitting(
                    sorted(stop for _, stop in settled),
                    ROOM_TO_SETTLE,
                    lambda cut: self.say(_clip(settled, cut), [], mark=mark, cut=cut),
                    least=min(settled)[0] == self.base,  # what continues the committed offset only cuts metadata off
                )
            if said.metadata:
                return replace(said, start_cut=0)
        begun, stuck = sorted(started), bool(settled)
        if begun and begun[0][0] == self.base:
            said = fitting(
                [self.base + 1, *(stop for _, stop in begun)],
                ROOM_FOR_THE_OLDEST,
                lambda cut: self.say([], _clip(begun, cut), mark=mark, cut=cut),
                least=True,
            )
            return replace(said, settle_cut=0, stuck=stuck)
        if changed and said.fits(room, ROOM_TO_SETTLE):
            return replace(said, settle_cut=0, start_cut=0, stuck=stuck)
        return replace(NOTHING_SAID, stuck=stuck)


def _thinned(reads: deque[tuple[int, int]]) -> deque[tuple[int, int]]:
    """Return too many reads with those together that are neighbours within a small share of all offsets."""
    thinned: deque[tuple[int, int]] = deque()
    begin = previous = reads[0][0]
    together = 4 * (reads[-1][0] - begin) // len(reads)
    for stop, oldest_ms in reads:
        if len(thinned) > 1 and stop - begin <= together:  # where the first of them begins is not known
            thinned[-1] = stop, thinned[-1][1]
        else:
            begin = previous
            thinned.append((stop, oldest_ms))
        previous = stop
    return thinned


def _largest(cuts: list[int], say: Callable[[int], Said], fits: Callable[[Said], bool], *, least: bool) -> Said:
    """Return what is said with the largest of rising `cuts` that fits, by bisection.

    If none fits that is nothing, or with `least` what the first cut says all the same.
    """
    best, low, high = say(cuts[0]) if least else NOTHING_SAID, 0, len(cuts)
    while low < high:
        middle = (low + high) // 2
        said = say(cuts[middle])
        if fits(said):
            best, low = said, middle + 1
        else:
            high = middle
    return best


def _clip(ranges: Iterable[Range], cut: int) -> list[Range]:
    """Return the part of ranges that lies below `cut`."""
    return [(start, min(stop, cut)) for start, stop in ranges if start < cut]
