"""Which records must wait for an earlier one with their key: with `ordering: key`, all of them.

A key of a partition is busy from when a record with it is admitted to a batch until the result of that record is
committed. Whatever happens to the record meanwhile (retries, halving, a transient code after which it is sent again
alone, an aborted tick, a hold), it stays the only one with its key that may be posted, so the order cannot change. Even
two records with one key in one request, in order, would not be safe: the platform judges each separately, and may
accept the second and ask for a retry of the first.

A crash is safe as well: when a record was listed as in flight, everything before it with its key was settled.

The key stays busy until the commit, not until the answer: a result that is known but not written can still be deferred
(metadata without room, a dead-letter storm), and after a crash that record would be posted again.

Keys belong to one partition, so this state is kept per partition. A chunk of new keys costs a few set operations;
records that must wait become rows in lists by key, built and taken apart in C.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from operator import itemgetter
from typing import Any, Final

from connector.core.chunks import Chunk, Partition
from connector.core.results import Finished

ROW_BYTES: Final = 300
"""Memory of a waiting record besides its bytes: a tuple of 9, slots in lists, an offset, and its share of a list."""


@dataclass(frozen=True, slots=True)
class Released:
    """Records whose turn has come, all of one lane; `since` is when the first of them began to wait."""

    lane: str | None
    chunk: Chunk = field(repr=False)
    since: float


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the records of a chunk have in common; rows of one kind may be joined into one chunk again."""

    lane: str | None
    own_list: bool
    resent: bool
    is_spliced: bool
    has_headers: bool
    has_timestamps: bool
    has_lists: bool


_Row = tuple[int, Any, Any, Any, Any, Any, bytes, _Kind, tuple[float, int, int]]
"""Offset, value, key, headers, timestamp, list, wire, kind, and of its chunk: arrival time, `oldest_ms`,
`header_bytes`."""

_OFFSET, _VALUE, _KEY, _WIRE, _KIND, _ARRIVAL = 0, 1, 2, 6, 7, 8

LaneChunk = tuple[str | None, Chunk]
"""A lane and prepared records for it."""


@dataclass(slots=True)
class _PartitionQueues:
    """One partition under one assignment. A key with waiting records is always busy."""

    epoch: int
    busy: set[bytes] = field(default_factory=set)
    waiting: defaultdict[bytes, list[_Row]] = field(default_factory=lambda: defaultdict(list))
    """Lists, not deques: most hold few rows, and an empty deque takes 600 bytes."""
    count: int = 0
    bytes: int = 0


class KeyQueues:
    """Lets the records of each key go one after another. Records without a key never wait."""

    def __init__(self) -> None:
        self._states: dict[Partition, _PartitionQueues] = {}
        self.waiting_bytes = 0

    @property
    def waiting_records(self) -> int:
        """How many records wait for an earlier one with their key."""
        return sum(state.count for state in self._states.values())

    def admit(self, lanes: Sequence[LaneChunk], *, now: float) -> list[LaneChunk]:
        """Return the part of a prepared chunk, divided by lane, that may go now; the rest waits, in offset order."""
        keys: Sequence[bytes | None] | None = lanes[0][1].keys if lanes else None
        if keys is None:
            return list(lanes)
        if len(lanes) > 1:
            keys = [key for _, chunk in lanes for key in chunk.keys or ()]
        state = self._state_of(lanes[0][1])
        wanted = set(keys)
        keyless = keys.count(None) if None in wanted else 0
        wanted.discard(None)
        if len(wanted) == len(keys) - keyless and state.busy.isdisjoint(wanted):
            state.busy |= wanted  # type: ignore[arg-type] # None was removed
            return list(lanes)
        places: Sequence[int] = range(len(keys))
        if len(lanes) > 1:  # lanes follow one another, but order is by offset
            offsets = [offset for _, chunk in lanes for offset in chunk.offsets]
            places = sorted(places, key=offsets.__getitem__)
        # A dict keeps the last value given for a key: iterating backwards, that is the first record of the key.
        backwards = places[::-1]
        first = dict(zip(map(keys.__getitem__, backwards), backwards, strict=True))
        free = wanted - state.busy
        go = set(map(first.__getitem__, free))
        if keyless:
            go.update([index for index, key in enumerate(keys) if key is None])
        state.busy |= free  # type: ignore[arg-type] # None was removed
        return self._part(state, lanes, go, now)

    def settled(self, items: Iterable[Finished]) -> list[Released]:
        """Return the records whose turn has come, now that the results of these items are committed."""
        freed: defaultdict[Partition, set[bytes | None]] = defaultdict(set)
        for item in items:
            if not item.was_batched or item.recalled:  # these never made a key busy
                continue
            for chunk in item.chunks:
                state = self._states.get(chunk.partition)
                if state is not None and state.epoch == chunk.epoch and chunk.keys is not None:
                    freed[chunk.partition].update(chunk.keys)
        released = []
        for partition, keys in freed.items():
            released += self._next(partition, self._states[partition], keys)
        return released

    def keep(self, wanted: Callable[[Chunk], bool]) -> None:
        """Forget the partitions for which `wanted` is false, with everything that waits there."""
        for partition, state in list(self._states.items()):
            if not wanted(Chunk(partition, state.epoch, (), [])):
                self._forget(partition)

    def _state_of(self, chunk: Chunk) -> _PartitionQueues:
        state = self._states.get(chunk.partition)
        if state is not None and state.epoch != chunk.epoch:
            self._forget(chunk.partition)
            state = None
        if state is None:
            state = self._states[chunk.partition] = _PartitionQueues(chunk.epoch)
        return state

    def _forget(self, partition: Partition) -> None:
        self.waiting_bytes -= self._states.pop(partition).bytes

    def _part(self, state: _PartitionQueues, lanes: Sequence[LaneChunk], go: set[int], now: float) -> list[LaneChunk]:
        """Return the records at the indices `go`, which run over all lanes. The others become rows, in offset order."""
        admitted: list[LaneChunk] = []
        rows: list[_Row] = []
        start = 0
        for lane, chunk in lanes:
            numbers = range(start, start + len(chunk))
            chosen = [index - start for index in numbers if index in go]
            if chosen:
                admitted.append((lane, chunk.pick(chosen)))
            if len(chosen) < len(chunk):
                rest = list(_rows(lane, chunk.pick([index - start for index in numbers if index not in go]), now))
                rows += rest
                self._add_bytes(state, _bytes(rest))
            start += len(chunk)
        if len(lanes) > 1:
            rows.sort(key=itemgetter(_OFFSET))
        state.count += len(rows)
        places = map(state.waiting.__getitem__, map(itemgetter(_KEY), rows))
        deque(map(list.append, places, rows), maxlen=0)  # runs entirely in C
        return admitted

    def _next(self, partition: Partition, state: _PartitionQueues, freed: set[bytes | None]) -> list[Released]:
        """Free the keys for which nothing waits, and take the first waiting record of each of the others."""
        waiting = state.waiting
        next_keys = waiting.keys() & freed
        state.busy -= freed - next_keys
        if not next_keys:
            return []
        rows = [waiting[key].pop(0) for key in next_keys]
        for key in [key for key in next_keys if not waiting[key]]:
            del waiting[key]
        rows.sort(key=itemgetter(_OFFSET))
        state.count -= len(rows)
        kinds = set(map(itemgetter(_KIND), rows))
        if len(kinds) == 1:
            groups = {kinds.pop(): rows}
        else:
            groups = {kind: [] for kind in dict.fromkeys(map(itemgetter(_KIND), rows))}
            for row in rows:
                groups[row[_KIND]].append(row)
        released = [_joined(partition, state.epoch, kind, group) for kind, group in groups.items()]
        self._add_bytes(state, -sum(map(_bytes, groups.values())))
        return released

    def _add_bytes(self, state: _PartitionQueues, size: int) -> None:
        state.bytes += size
        self.waiting_bytes += size


def _bytes(rows: Sequence[_Row]) -> int:
    """Return the memory of rows of one kind, in bytes."""
    kind: _Kind = next(map(itemgetter(_KIND), rows))
    size = ROW_BYTES * len(rows) + sum(map(len, map(itemgetter(_WIRE), rows)))
    size += sum(map(len, map(itemgetter(_KEY), rows)))  # a row that waits always has a key
    if not kind.is_spliced:
        size += sum(map(len, filter(None, map(itemgetter(_VALUE), rows))))
    if kind.has_headers:
        size += sum([arrival[2] for arrival in map(itemgetter(_ARRIVAL), rows)])
    return size


def _rows(lane: str | None, chunk: Chunk, now: float) -> Iterable[_Row]:
    """Return the records of a chunk as rows."""
    assert chunk.wire is not None
    assert chunk.keys is not None
    kind = _Kind(
        lane,
        chunk.own_list,
        chunk.resent,
        chunk.wire is chunk.values,
        chunk.headers is not None,
        chunk.timestamps is not None,
        chunk.lists is not None,
    )
    nothing = repeat(None)
    return zip(
        chunk.offsets,
        chunk.values,
        chunk.keys,
        chunk.headers or nothing,
        chunk.timestamps or nothing,
        chunk.lists or nothing,
        chunk.wire,
        repeat(kind),
        repeat((now, chunk.oldest_ms, chunk.header_bytes)),
        strict=False,
    )


def _joined(partition: Partition, epoch: int, kind: _Kind, rows: list[_Row]) -> Released:
    """Return rows of one kind, in ascending offset order, as a chunk."""
    offsets, values, keys, headers, timestamps, lists, wire, _, arrival = map(list, zip(*rows, strict=True))
    chunk = Chunk(
        partition=partition,
        epoch=epoch,
        offsets=offsets,
        values=values,
        keys=keys,
        headers=headers if kind.has_headers else None,
        timestamps=timestamps if kind.has_timestamps else None,
        lists=lists if kind.has_lists else None,
        wire=values if kind.is_spliced else wire,
        oldest_ms=min(map(itemgetter(1), arrival)),
        own_list=kind.own_list,
        resent=kind.resent,
    )
    return Released(kind.lane, chunk, min(map(itemgetter(0), arrival)))
