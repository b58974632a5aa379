"""The progress of a partition, rebuilt from its results.

A record with a result is settled. One without may have been posted, have waited, or never have been read; the results
do not tell. So all of them up to an offset that the caller gives count as in flight, which means in doubt for the next
owner, unless the caller knows that nothing was in flight.
"""

from collections.abc import Iterable, Iterator

from connector.core.progress import Progress
from connector.core.ranges import Range, RangeSet

_COMPACT_AT = 10_000
"""Minimum number of ranges that are collected before they are sorted and merged."""


class Gathered:
    """Collects ranges in any order, which may touch and overlap; its cost depends on what remains after merging."""

    def __init__(self) -> None:
        self._ranges: list[Range] = []
        self._limit = _COMPACT_AT

    def add(self, ranges: Iterable[Range]) -> None:
        """Add ranges, none of them empty."""
        self._ranges += ranges
        if len(self._ranges) > self._limit:
            self._ranges = list(_joined(self._ranges))
            self._limit = max(2 * len(self._ranges), _COMPACT_AT)

    def ranges(self) -> list[Range]:
        """Return the ranges sorted and merged."""
        self._ranges = list(_joined(self._ranges))
        return self._ranges


def _joined(ranges: list[Range]) -> Iterator[Range]:
    """Yield the ranges sorted and merged; sorts the list in place."""
    if not ranges:
        return
    ranges.sort()
    start, stop = ranges[0]
    for begin, end in ranges:
        if begin > stop:
            yield start, stop
            start = begin
        stop = max(stop, end)
    yield start, stop


def gaps(done: Iterable[Range], start: int) -> tuple[list[Range], int]:
    """Return the gaps between sorted ranges, from `start` on, and the offset after all of them."""
    found = []
    for begin, stop in done:
        if begin > start:
            found.append((start, begin))
        start = max(start, stop)
    return found, start


def without_result(gaps: Iterable[Range], there: Iterable[Range]) -> list[Range]:
    """Return each gap from its first to its last offset with a record; gaps without records are dropped.

    Both arguments are sorted; `there` are the offsets of records, inside the gaps and elsewhere. Offsets without
    records, such as transaction markers, would otherwise keep the committed offset from advancing.
    """
    found: list[Range] = []
    records = iter(there)
    record = next(records, None)
    for begin, end in gaps:
        inside: list[Range] = []
        while record is not None:
            start, stop = max(record[0], begin), min(record[1], end)
            if start < stop:
                inside.append((start, stop))
            if record[1] > end:
                break  # all of it, or a part, may lie in the next gap
            record = next(records, None)
        if inside:
            found.append((inside[0][0], inside[-1][1]))
    return found


def rebuilt(between: Iterable[Range], *, start: int, top: int, until: int | None, birth: int = 0) -> Progress:
    """Return the progress from `start` on: results end before `top`, `between` are gaps that hold records without one.

    They are sorted. Records without a result count as in flight, and so does everything after the last result up to
    `until`; if that is None, nothing was in flight and all of it is unread.
    """
    open_ranges = [*between, *([] if until is None else [(top, max(until, top))])]
    settled, in_flight, at = RangeSet(), RangeSet(), start
    for begin, stop in open_ranges:
        settled.add(at, begin)
        if until is not None:
            in_flight.add(begin, stop)
        at = stop
    settled.add(at, top)
    base = settled.advance(start)
    return Progress(base, birth, settled=settled, in_flight=in_flight)
