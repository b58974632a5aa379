"""The progress of a partition, made anew from its results.

A record that has a result is done. One that has none may have been posted, or have waited, or never have been read:
nothing but its place tells. So all of them up to an offset that the caller names count as in flight, which is in doubt
for whoever begins there, unless the caller knows that nothing was.
"""

from collections.abc import Iterable, Iterator

from connector.core.progress import Progress, Range, RangeSet

_COMPACT_AT = 10_000
"""Ranges that are kept unsorted at least before they are put in order."""


class Gathered:
    """Ranges in any order, that may touch and overlap; takes time and memory by what is left once they are joined."""

    def __init__(self) -> None:
        self._ranges: list[Range] = []
        self._limit = _COMPACT_AT

    def add(self, ranges: Iterable[Range]) -> None:
        """Take in ranges, none of them empty."""
        self._ranges += ranges
        if len(self._ranges) > self._limit:
            self._ranges = list(_joined(self._ranges))
            self._limit = max(2 * len(self._ranges), _COMPACT_AT)

    def ranges(self) -> list[Range]:
        """Return them sorted, without any that touch or overlap."""
        self._ranges = list(_joined(self._ranges))
        return self._ranges


def _joined(ranges: list[Range]) -> Iterator[Range]:
    """Yield ranges joined where they touch or overlap; sorts the list."""
    ranges.sort()
    start, stop = ranges[0] if ranges else (0, 0)
    for begin, end in ranges:
        if begin > stop:
            yield start, stop
            start, stop = begin, end
        elif end > stop:
            stop = end
    if start < stop:
        yield start, stop


def gaps(done: Iterable[Range], start: int) -> list[Range]:
    """Return what lies between sorted ranges, from `start` on."""
    found = []
    for begin, stop in done:
        if begin > start:
            found.append((start, begin))
        start = max(start, stop)
    return found


def without_result(gaps: Iterable[Range], there: Iterable[Range]) -> list[Range]:
    """Return each gap from its first to its last offset that has a record, none of a gap without records.

    Both are sorted, and `there` are the offsets of records; what it says outside of the gaps does not matter. Offsets
    that have none, such as markers of transactions, would else keep the committed offset where it is.
    """
    found: list[Range] = []
    records = iter(there)
    record = next(records, None)
    for begin, end in gaps:
        first = last = -1
        while record is not None and record[0] < end:
            start, stop = max(record[0], begin), min(record[1], end)
            if start < stop:
                first = start if first < 0 else first
                last = stop
            if record[1] > end:
                break  # the next gap may have a part of it
            record = next(records, None)
        if first >= 0:
            found.append((first, last))
    return found


def rebuilt(
    done: Iterable[Range], between: Iterable[Range], *, start: int, until: int | None, birth: int = 0
) -> Progress:
    """Return the progress from `start` on: `done` has results, `between` are the gaps that hold records without one.

    Both are sorted. What has no result is in flight, and all behind the last result up to `until` as well; with None
    nothing was in flight, so that all of it is unread.
    """
    top = max([start, *(stop for _, stop in done)])
    open_ranges = [*between, *([(top, until)] if until is not None and until > top else [])]
    settled, in_flight, at = RangeSet(), RangeSet(), start
    for begin, stop in open_ranges:
        settled.add(at, begin)
        if until is not None:
            in_flight.add(begin, stop)
        at = stop
    settled.add(at, top)
    base = settled.advance(start)
    return Progress(base, birth, 0, settled, in_flight)
