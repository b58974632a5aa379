"""How fast the records of a list may proceed: its pace, this worker's share of it, and what waits for it.

The platform sends a list's messages at the list's own rate, and silently drops what has waited for 30 minutes. So a
stream may be given a pace for its lists: what exceeds it waits here, where nothing is dropped.

A list passes records on to batches while its budget lasts: a token bucket, stored as the time from which the list may
proceed again. The budget is charged before records get into a batch, once per record, however often it is posted. So
lists within their pace share batches, which stay full even with a thousand lists; a list that is faster waits in a
queue of its own and delays nobody else. Waiting records are released in lots of up to a request's size.

A worker's share of each pace is its share of the partitions, so workers need no coordination. In any time T, one worker
releases at most pace x (T + `BURST_SECS`) records of a list, plus one lot.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, takewhile
from typing import Final

from connector.core.batching import RECORD_BYTES
from connector.core.chunks import Chunk, is_older, weight

BURST_SECS: Final = 1.0
"""Seconds of pace that a list may catch up on, so that a late call does not cost it any."""

LOT_SECS: Final = 5.0
"""A lot is at most this many seconds of pace; otherwise a slow list would stand still between two lots."""

STALE_SECS: Final = 1_800.0
"""After this time the platform drops a waiting message, as `stale`."""

MAX_SEEN: Final = 200_000
"""Records from which the lists of unread records are estimated; above it all counts are halved."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Messages per minute: for each list by number, and for each other list (None: unlimited)."""

    per_minute: float | None
    lists: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lot:
    """Records that waited for their list's pace and may proceed; `since` is when the first of them came."""

    lane: str | None
    chunk: Chunk = field(repr=False)
    since: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits for a list, and how long this worker needs for it at its share of the pace, with unread records."""

    number: str
    waiting: int
    secs: float

    @property
    def outlives_platform(self) -> bool:
        """Return whether its last record will be posted later than the platform itself would have kept it."""
        return self.secs > STALE_SECS


@dataclass(slots=True)
class _List:
    """One list: when it may proceed, and what waits until then, oldest first."""

    free_at: float = float("-inf")
    queue: deque[Lot] = field(default_factory=deque)
    waiting: int = 0


class Pacer:
    """Keeps the lists of one stream to their pace. `max_lot` is how many records a request holds."""

    def __init__(self, pace: Pace, *, max_lot: int, expired_before: Callable[[], int | None] = lambda: None) -> None:
        """Begin with empty queues; `expired_before` returns the time in ms before which a record is too old, or None.

        Expired records proceed at once and use no pace; otherwise a list with too many records would spend its pace on
        records that expire while they wait, and post nothing.
        """
        self.pace = pace
        self._expired_before = expired_before
        self.share = 1.0
        self.unread = 0
        """Records of the assigned partitions that were not read when they were counted, less those that came since."""
        self.waiting_bytes = 0
        self._max_lot = max_lot
        self._lists: dict[str, _List] = {}
        self._waiting: dict[str, _List] = {}
        self._seen: Counter[str] = Counter()
        self._seen_in_all = 0

    @property
    def waiting_records(self) -> int:
        """How many records wait for the pace of their list."""
        return sum(there.waiting for there in self._waiting.values())

    def set_share(self, own: int, total: int) -> None:
        """Set the share of each pace to that of `own` of `total` partitions."""
        if own and total:
            self.share = min(own / total, 1.0)

    def rate(self, number: str) -> float | None:
        """Return this worker's messages per second for a list; None means unlimited."""
        per_minute = self.pace.lists.get(number, self.pace.per_minute)
        return None if per_minute is None else per_minute / 60 * self.share

    def lot(self, rate: float) -> int:
        """Return how many records of a list proceed at once."""
        return max(min(self._max_lot, int(rate * LOT_SECS)), 1)

    def admit(self, lane: str | None, chunk: Chunk, *, now: float) -> Chunk | None:
        """Return the records of a prepared chunk that are within the pace of their lists, or None; the others wait."""
        counts = Counter(chunk.lists) if lane is None else {lane: len(chunk)}
        self._note_seen(counts, now)
        granted = {number: self._grant(number, count, now) for number, count in counts.items()}
        over = {number for number, count in counts.items() if granted[number] < count}
        if not over:
            return chunk
        if len(counts) == 1:
            (number,) = over
            self._wait(number, lane, chunk.slice(granted[number], len(chunk)), now)
            return chunk.slice(0, granted[number]) if granted[number] else None
        assert chunk.lists is not None
        places: dict[str, list[int]] = {number: [] for number in over}
        for index in [index for index, number in enumerate(chunk.lists) if number in over]:
            places[chunk.lists[index]].append(index)
        waiting: set[int] = set()
        for number, indices in places.items():
            rest = indices[granted[number] :]
            self._wait(number, lane, chunk.pick(rest), now)
            waiting.update(rest)
        go = [index for index in range(len(chunk)) if index not in waiting]
        return chunk.pick(go) if go else None

    def release(self, *, now: float) -> list[Lot]:
        """Return the waiting records that may proceed now."""
        released: list[Lot] = []
        limit = self._expired_before()
        for number, there in list(self._waiting.items()):
            rate = self.rate(number)
            assert rate is not None
            released += self._take(there, _expired_first(there.queue, limit))
            while there.waiting and there.free_at <= now:
                lots = self._take(there, min(there.waiting, self.lot(rate)))
                _charge(there, rate, sum(len(lot.chunk) for lot in lots) - _expired(lots, limit), now)
                released += lots
            if not there.waiting:
                del self._waiting[number]
        return released

    def next_at(self) -> float | None:
        """Return when the next lot may proceed, or None when nothing waits."""
        return min((there.free_at for there in self._waiting.values()), default=None)

    def keep(self, wanted: Callable[[Chunk], bool]) -> None:
        """Drop the chunks for which `wanted` is false."""
        for number, there in list(self._waiting.items()):
            dropped = [lot for lot in there.queue if not wanted(lot.chunk)]
            if dropped:
                there.queue = deque(lot for lot in there.queue if wanted(lot.chunk))
                there.waiting -= sum(len(lot.chunk) for lot in dropped)
                self.waiting_bytes -= sum(_bytes(lot.chunk) for lot in dropped)
            if not there.waiting:
                del self._waiting[number]

    def waits_until(self, wanted: Callable[[Chunk], bool]) -> float | None:
        """Return when the list of a chunk may proceed for which `wanted` is true, or None. For rare questions."""
        lists = (there for there in self._waiting.values() if any(wanted(lot.chunk) for lot in there.queue))
        return next((there.free_at for there in lists), None)

    def backlogs(self, *, now: float) -> list[Backlog]:
        """Return the lists that have something to wait for, the longest wait first.

        The lists of unread records are unknown: they are assumed to be distributed like those of recent records.
        """
        found = []
        for number, there in self._lists.items():
            rate = self.rate(number)
            unread = self.unread * self._seen[number] / max(self._seen_in_all, 1)
            if rate is not None and (there.waiting or unread > rate):
                secs = max(there.free_at - now, 0.0) + (there.waiting + unread) / rate
                found.append(Backlog(number, there.waiting, secs))
        return sorted(found, key=lambda backlog: -backlog.secs)

    def _grant(self, number: str, count: int, now: float) -> int:
        """Return how many of a list's records may proceed, and charge its budget for them."""
        rate = self.rate(number)
        if rate is None:
            return count
        there = self._lists.setdefault(number, _List())
        if there.waiting or there.free_at > now:
            return 0
        granted = min(count, self.lot(rate))
        _charge(there, rate, granted, now)
        return granted

    def _wait(self, number: str, lane: str | None, chunk: Chunk, now: float) -> None:
        there = self._waiting.setdefault(number, self._lists[number])
        there.queue.append(Lot(lane, chunk, now))
        there.waiting += len(chunk)
        self.waiting_bytes += _bytes(chunk)

    def _take(self, there: _List, count: int) -> list[Lot]:
        """Take the first `count` records out of a list's queue."""
        taken: list[Lot] = []
        there.waiting -= count
        while count:
            first = there.queue.popleft()
            self.waiting_bytes -= _bytes(first.chunk)
            if len(first.chunk) > count:
                rest = first.chunk.slice(count, len(first.chunk))
                there.queue.appendleft(Lot(first.lane, rest, first.since))
                self.waiting_bytes += _bytes(rest)
                first = Lot(first.lane, first.chunk.slice(0, count), first.since)
            count -= len(first.chunk)
            taken.append(first)
        return taken

    def _note_seen(self, counts: Mapping[str, int], now: float) -> None:
        """Count records by list; lists that no longer occur, with nothing waiting or charged, are forgotten in time."""
        total = sum(counts.values())
        self.unread = max(self.unread - total, 0)
        self._seen.update(counts)
        self._seen_in_all += total
        if self._seen_in_all > MAX_SEEN:
            self._seen = Counter({number: count // 2 for number, count in self._seen.items() if count > 1})
            self._seen_in_all = self._seen.total()
            self._lists = {
                number: there
                for number, there in self._lists.items()
                if there.waiting or there.free_at > now or number in self._seen
            }


def _charge(there: _List, rate: float, count: int, now: float) -> None:
    there.free_at = max(there.free_at, now - BURST_SECS) + count / rate


def _expired_first(queue: Iterable[Lot], limit: int | None) -> int:
    """Return how many records at the head of a queue are expired."""
    if limit is None:
        return 0
    stamps = chain.from_iterable(lot.chunk.timestamps or [limit] for lot in queue)
    return sum(1 for _ in takewhile(lambda stamp: is_older(stamp, limit), stamps))


def _expired(lots: Iterable[Lot], limit: int | None) -> int:
    """Return how many records are expired: a younger one, or one of a clock that is ahead, may come before them."""
    return sum(len(lot.chunk.older_than(limit)) for lot in lots)


def _bytes(chunk: Chunk) -> int:
    return weight(chunk) + RECORD_BYTES * len(chunk)
