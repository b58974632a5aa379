"""How fast the records of a list may go on: its pace, this worker's share of it, and what waits for it.

The platform sends a list's messages at the list's own rate and drops, in silence, what has waited for 30 minutes. So
a stream may be given a pace for its lists: what is above it waits here, where nothing is dropped.

A list gives records to batches as long as its budget lasts: a token bucket, told as the time from which on the list may
go on again. It is asked before the records come into a batch, and each record counts once, however often it is posted.
So a list within its pace shares batches with all others, which stay full with a thousand lists; one that is faster
waits in a queue of its own, and nobody waits with it. What waits is let go in lots as large as a request.

A worker has the share of each pace that it has of the partitions; nobody has to ask anybody. In any time T the records
of a list that one worker lets go are at most its pace x (T + `BURST_SECS`) and one lot.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import chain, takewhile
from typing import Final

from connector.core.chunks import Chunk, is_older, weight

BURST_SECS: Final = 1.0
"""Pace that a list may make up for, so that a late look does not cost it any."""

LOT_SECS: Final = 5.0
"""A lot is no more than the pace of so many seconds, else a slow list would stand still between two."""

STALE_SECS: Final = 1_800.0
"""What waits longer on the platform is dropped there, as `stale`."""

CHUNK_BYTES: Final = 120
"""What a waiting record costs beside its bytes, as in a batch."""

REMEMBERED: Final = 200_000
"""Records by which it is told what lists the unread ones belong to; then all counts are halved."""


@dataclass(frozen=True, slots=True)
class Pace:
    """Messages a minute: of each list that is named, and of each that is not (None: as fast as can be)."""

    per_minute: float | None
    lists: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Lot:
    """Records that waited for their list's pace and may go on; `since` is when the first of them came."""

    lane: str | None
    chunk: Chunk = field(repr=False)
    since: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits of a list, and how long this worker needs for it at its share of the pace, unread records included."""

    number: str
    waiting: int
    secs: float

    @property
    def outlives_platform(self) -> bool:
        """Tell whether its last record is to be posted later than the platform itself would have kept it."""
        return self.secs > STALE_SECS


@dataclass(slots=True)
class _List:
    """One list: when it may go on, and what waits until then, oldest first."""

    free_at: float = float("-inf")
    queue: deque[Lot] = field(default_factory=deque)
    waiting: int = 0


class Pacer:
    """Keeps the lists of one stream to their pace. `max_lot` is how many records a request holds."""

    def __init__(self, pace: Pace, *, max_lot: int, expired_before: Callable[[], int | None] = lambda: None) -> None:
        """Begin with nothing; `expired_before` tells below which timestamp, if any, a record is too old to be posted.

        Such ones go on at once and use up no pace: a list that is overrun would post nothing else but what is fresh
        when its turn comes, and that would come to be nothing at all.
        """
        self.pace = pace
        self._expired_before = expired_before
        self.share = 1.0
        self.unread = 0
        """Records of our partitions that were not read yet."""
        self.waiting_bytes = 0
        self._max_lot = max_lot
        self._lists: dict[str, _List] = {}
        self._waiting: dict[str, _List] = {}
        self._seen: Counter[str] = Counter()
        self._seen_in_all = 0

    @property
    def waiting_records(self) -> int:
        """Records that wait for the pace of their list."""
        return sum(there.waiting for there in self._waiting.values())

    def set_share(self, own: int, total: int) -> None:
        """Take the share of the pace that belongs to `own` of `total` partitions."""
        if own and total:
            self.share = min(own / total, 1.0)

    def rate(self, number: str) -> float | None:
        """Return this worker's messages a second for a list, None for as many as can be."""
        per_minute = self.pace.lists.get(number, self.pace.per_minute)
        return None if per_minute is None else per_minute / 60 * self.share

    def lot(self, rate: float) -> int:
        """Return how many records of a list go on at once."""
        return max(min(self._max_lot, int(rate * LOT_SECS)), 1)

    def admit(self, lane: str | None, chunk: Chunk, *, now: float) -> Chunk | None:
        """Return the records of a prepared chunk that are within the pace of their lists; the others wait."""
        counts = Counter(chunk.lists) if lane is None else {lane: len(chunk)}
        self._see(counts, now)
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
        """Return what may go on now of what waits."""
        released: list[Lot] = []
        limit = self._expired_before()
        for number, there in list(self._waiting.items()):
            rate = self.rate(number)
            assert rate is not None
            released += self._take(there, _expired_first(there.queue, limit))
            while there.waiting and there.free_at <= now:
                released += self._take(there, self._charge(there, rate, there.waiting, now))
            if not there.waiting:
                del self._waiting[number]
        return released

    def next_at(self) -> float | None:
        """Return when the next lot may go, or None when nothing waits."""
        return min((there.free_at for there in self._waiting.values()), default=None)

    def keep(self, wanted: Callable[[Chunk], bool]) -> None:
        """Drop the chunks that are not wanted any more."""
        for number, there in list(self._waiting.items()):
            dropped = [lot for lot in there.queue if not wanted(lot.chunk)]
            if dropped:
                there.queue = deque(lot for lot in there.queue if wanted(lot.chunk))
                there.waiting -= sum(len(lot.chunk) for lot in dropped)
                self.waiting_bytes -= sum(_bytes(lot.chunk) for lot in dropped)
            if not there.waiting:
                del self._waiting[number]

    def waits_until(self, wanted: Callable[[Chunk], bool]) -> float | None:
        """Return when the list of a chunk of some sort may go on, None where none waits: for rare questions."""
        lists = (there for there in self._waiting.values() if any(wanted(lot.chunk) for lot in there.queue))
        return next((there.free_at for there in lists), None)

    def backlogs(self, *, now: float) -> list[Backlog]:
        """Return the lists with something to wait for, the longest wait first.

        Of what was not read nobody knows the lists: it is taken to be like what was read of late.
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
        """Return how many of a list's records may go on, which are counted then."""
        rate = self.rate(number)
        if rate is None:
            return count
        there = self._lists.setdefault(number, _List())
        if there.waiting or there.free_at > now:
            return 0
        return self._charge(there, rate, count, now)

    def _charge(self, there: _List, rate: float, count: int, now: float) -> int:
        granted = min(count, self.lot(rate))
        there.free_at = max(there.free_at, now - BURST_SECS) + granted / rate
        return granted

    def _wait(self, number: str, lane: str | None, chunk: Chunk, now: float) -> None:
        there = self._waiting.setdefault(number, self._lists[number])
        there.queue.append(Lot(lane, chunk, now))
        there.waiting += len(chunk)
        self.waiting_bytes += _bytes(chunk)

    def _take(self, there: _List, count: int) -> list[Lot]:
        """Take the first records out of a list's queue."""
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

    def _see(self, counts: Mapping[str, int], now: float) -> None:
        """Count what comes of each list; lists that do not come any more, and owe nothing, are forgotten in time."""
        self._seen.update(counts)
        self._seen_in_all += sum(counts.values())
        if self._seen_in_all > REMEMBERED:
            self._seen = Counter({number: count // 2 for number, count in self._seen.items() if count > 1})
            self._seen_in_all = self._seen.total()
            self._lists = {
                number: there
                for number, there in self._lists.items()
                if there.waiting or there.free_at > now or number in self._seen
            }


def _expired_first(queue: Iterable[Lot], limit: int | None) -> int:
    """Return how many of the first records of a queue are too old, one after another."""
    if limit is None:
        return 0
    stamps = chain.from_iterable(lot.chunk.timestamps or [limit] for lot in queue)
    return sum(1 for _ in takewhile(lambda stamp: is_older(stamp, limit), stamps))


def _bytes(chunk: Chunk) -> int:
    return weight(chunk) + CHUNK_BYTES * len(chunk)
