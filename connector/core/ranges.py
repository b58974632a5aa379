"""Sets of offsets as sorted ranges: what they cost depends on the number of ranges, not on that of offsets."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence

Range = tuple[int, int]
"""Offsets from the first number up to, but not including, the second."""


class RangeSet:
    """A set of offsets as sorted ranges that neither touch nor overlap."""

    __slots__ = ("_starts", "_stops")

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._stops: list[int] = []
        for start, stop in ranges:
            self.add(start, stop)

    def __iter__(self) -> Iterator[Range]:
        return zip(self._starts, self._stops, strict=True)

    def __len__(self) -> int:
        """Return the number of ranges, not of offsets."""
        return len(self._starts)

    def __contains__(self, offset: int) -> bool:
        at = bisect_right(self._starts, offset) - 1
        return at >= 0 and offset < self._stops[at]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RangeSet) and self._starts == other._starts and self._stops == other._stops

    __hash__ = None  # type: ignore[assignment] # mutable

    def __repr__(self) -> str:
        return f"RangeSet({list(self)})"

    @property
    def count(self) -> int:
        """The number of offsets."""
        return sum(self._stops) - sum(self._starts)

    @property
    def stop(self) -> int:
        """One past the highest offset; 0 when empty."""
        return self._stops[-1] if self._stops else 0

    def copy(self) -> "RangeSet":
        """Return an independent copy."""
        twin = RangeSet()
        twin._starts = self._starts.copy()
        twin._stops = self._stops.copy()
        return twin

    def add(self, start: int, stop: int) -> None:
        """Add the offsets from `start` up to, but not including, `stop`, merging ranges that touch."""
        if start >= stop:
            return
        low = bisect_left(self._stops, start)
        high = bisect_right(self._starts, stop)
        if low < high:
            start = min(start, self._starts[low])
            stop = max(stop, self._stops[high - 1])
        self._starts[low:high] = [start]
        self._stops[low:high] = [stop]

    def update(self, ranges: Iterable[Range]) -> None:
        """Add every range."""
        for start, stop in ranges:
            self.add(start, stop)

    def discard(self, start: int, stop: int) -> None:
        """Remove the offsets from `start` up to, but not including, `stop`; missing ones are ignored."""
        low = bisect_right(self._stops, start)
        high = bisect_left(self._starts, stop)
        if start >= stop or low >= high:
            return
        starts, stops = [], []
        if self._starts[low] < start:
            starts.append(self._starts[low])
            stops.append(start)
        if self._stops[high - 1] > stop:
            starts.append(stop)
            stops.append(self._stops[high - 1])
        self._starts[low:high] = starts
        self._stops[low:high] = stops

    def advance(self, base: int) -> int:
        """Remove everything below `base` and the range that begins at it; return the first missing offset >= `base`."""
        self.discard(0, base)
        if self._starts and self._starts[0] == base:
            del self._starts[0]
            base = self._stops.pop(0)
        return base


def runs(offsets: Sequence[int]) -> list[Range]:
    """Return ascending offsets as ranges."""
    if not offsets:
        return []
    first, last = offsets[0], offsets[-1]
    if last - first + 1 == len(offsets):
        return [(first, last + 1)]
    ranges = []
    start = previous = first
    for offset in offsets:
        if offset - previous > 1:
            ranges.append((start, previous + 1))
            start = offset
        previous = offset
    ranges.append((start, previous + 1))
    return ranges
