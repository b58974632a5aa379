"""Every record of a stream between being read and being settled: the heart of the tick.

`Flow` knows which batches are ready, listed, waiting to be tried again, or finished, and plans each tick: which offsets
are committed with which progress, which results are written, and which batches may be posted once the commit is known.
It changes nothing that a crash would need until `committed` says so; `aborted` takes everything back.

Invariants, each of which a test breaks on purpose:

- a batch is posted only after a tick that lists all its offsets as in flight has committed;
- an offset is committed past only when it is settled (or known not to exist);
- a record has at most one place at a time: open batch, ready, waiting, active, or finished;
- nothing of a partition that was let go, or of an older assignment of it, reaches a tick.

It is not thread-safe: the drivers share it under the stream's assignment lock.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from connector.core.batching import Batch, wire_size
from connector.core.chunks import Chunk, Partition, source_bytes
from connector.core.crowding import Crowding
from connector.core.partition import NOTHING_SAID, ROOM_TO_SETTLE, PartitionState, Said
from connector.core.progress import MAX_METADATA, Progress, Range, encode, runs
from connector.core.remembered import Remembered
from connector.core.results import Finished
from connector.core.sizing import SizeLimit
from connector.core.starting import SUSPECTS_SHARE, StartQueue
from connector.core.verdicts import Verdicts

ANSWERS_PER_IN_FLIGHT = 4
"""Partitions may be lost more than once before they are read again; what is kept of an answer is small."""

BATCH_BYTES = 250
CHUNK_BYTES = 450
"""What a batch and each of its chunks take beside the records: of single records that is most of all."""

MARKS = 1 << 14
"""Ticks are told apart by a number that takes two bytes and starts over."""


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """Bounds of what is in flight and of one tick."""

    max_in_flight_records: int
    max_tick_records: int
    max_tick_bytes: int
    max_metadata: int = MAX_METADATA


@dataclass(slots=True, eq=False)
class Tick:
    """One transaction: offsets with progress, results to write, and what may be posted when it has committed."""

    offsets: dict[Partition, tuple[int, str]]
    settle: list[Finished] = field(repr=False)
    start: list[tuple[int, Batch]] = field(repr=False)
    epochs: dict[Partition, int]
    settled: dict[Partition, list[Range]] = field(repr=False)
    told: dict[Partition, Progress] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Intake:
    """What a chunk holds that is new to this worker, and what a worker before it had in flight."""

    fresh: tuple[Chunk, ...]
    doubtful: tuple[Chunk, ...]
    answered: tuple[Finished, ...] = ()
    """Results of what this worker itself had in flight, and knows the answers for; to be queued."""
    vanished: int = 0
    """Offsets in doubt that are no longer in the topic: settled without an outcome, as there is nothing to write."""
    passed_over: int = 0
    """Offsets between the records that were read, which the topic does not have (compaction, markers)."""


NOTHING = Intake((), ())


PlaceName = Literal["unread", "ready", "crowded", "waiting", "posted", "answered", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the record is that the committed offset waits for; `elsewhere` is an open batch, or a running tick."""

    name: PlaceName
    batch_id: str = ""
    attempts: int = 0
    until: float = 0.0
    """When what waits may be tried again."""


class Flow:
    """The state of one stream, for the partitions that are assigned to this worker."""

    def __init__(self, limits: FlowLimits, *, first_mark: int = 0) -> None:
        """Make the state of a stream; marks begin apart, so that no two workers are likely to say the same."""
        self.limits = limits
        self.partitions: dict[Partition, PartitionState] = {}
        self.queue = StartQueue()
        self.finished: deque[Finished] = deque()
        self.active: dict[int, Batch] = {}
        self.active_records = 0
        self.held_bytes = 0
        self._dirty: set[Partition] = set()
        self.crowding = Crowding(self._is_oldest)
        self.remembered = Remembered(ANSWERS_PER_IN_FLIGHT * limits.max_in_flight_records)
        self._serial = 0
        self._witness = -1
        """The listing of the last record that was let in although its partition is full."""
        self.size = SizeLimit()
        self._larger = -1
        """The listing of the last batch that may hold more records than were answered since an answer was lost."""
        self._mark = first_mark

    @property
    def ready(self) -> deque[Batch]:
        """Batches that never failed and may start."""
        return self.queue.ready

    @property
    def waiting(self) -> int:
        """Batches that wait to be tried again."""
        return self.queue.waiting

    # ------------------------------------------------------------------ partitions come and go

    def assign(self, partition: Partition, epoch: int, progress: Progress) -> PartitionState:
        """Take over a partition at the progress that its last owner committed."""
        if partition in self.partitions:
            self.let_go([partition])
        state = PartitionState(
            partition,
            epoch,
            progress.base,
            progress.birth,
            progress.settled.copy(),
            self.remembered.doubtful(partition, progress),
            next_read=progress.base,
            horizon=max(progress.settled.stop, progress.in_flight.stop),
            told=progress,
            told_length=len(encode(progress)),
        )
        self.partitions[partition] = state
        self.remembered.assigned(state)
        if state.doubt != progress.in_flight:
            self._dirty.add(partition)  # what nobody doubts need not be listed any longer
        return state

    def begin_revoke(self, partitions: Iterable[Partition]) -> None:
        """Start nothing more on these partitions and forget what was not started; what is posted may still finish."""
        for partition in partitions:
            if partition in self.partitions:
                self.partitions[partition].revoking = True
        self._prune_unstarted()

    def hold(self, partition: Partition) -> None:
        """Start nothing more of a partition until it begins anew, and forget what was not started."""
        state = self.partitions.get(partition)
        if state is not None and not state.held:
            state.held = True
            self._prune_unstarted()

    def is_drained(self, partitions: Iterable[Partition]) -> bool:
        """Tell whether nothing of these partitions is listed or waits to be written, nor needs to be said."""
        states = {p: self.partitions[p] for p in partitions if p in self.partitions}
        if any(state.active for state in states.values()) or not self._dirty.isdisjoint(states):
            return False
        return not any(chunk.partition in states for item in self.finished for chunk in item.chunks)

    def listed(self, partitions: Iterable[Partition]) -> int:
        """Return how many records of these partitions stand listed as in flight, by what was committed last."""
        return sum(self.partitions[p].told.in_flight.count for p in partitions if p in self.partitions)

    def has_nothing_left(self, partition: Partition) -> bool:
        """Tell whether all that was read of a partition is settled, or was forgotten by `begin_revoke`."""
        state = self.partitions.get(partition)
        return state is None or state.revoking or state.base >= state.next_read

    def mark(self, partition: Partition) -> None:
        """Have the next tick commit a partition's progress, changed or not."""
        self._dirty.add(partition)

    def let_go(self, partitions: Iterable[Partition]) -> None:
        """Let partitions go: no tick names them again, and late replies for them are of use only if they come back."""
        for partition in partitions:
            state = self.partitions.pop(partition, None)
            if state is not None:
                self.remembered.let_go(state)
            self._dirty.discard(partition)
            self.crowding.forget(partition)
        self._prune_unstarted()
        finished, self.finished = self.finished, deque()
        for item in finished:
            self.held_bytes -= item.bytes
            self.settle(item)

    def is_alive(self, chunk: Chunk) -> bool:
        """Tell whether the chunk's partition is still ours, under the assignment that it was read in."""
        state = self.partitions.get(chunk.partition)
        return state is not None and state.epoch == chunk.epoch

    def may_start(self, chunk: Chunk) -> bool:
        """Tell whether records of the chunk may be started: ours, not about to be revoked, not held."""
        state = self.partitions.get(chunk.partition)
        return state is not None and state.epoch == chunk.epoch and not state.revoking and not state.held

    # ------------------------------------------------------------------ records come in

    def intake(self, chunk: Chunk) -> Intake:
        """Sort the records of a chunk that was just read: drop what is settled or stale, set apart what is in doubt.

        What is read of a partition that is held is dropped as well: it is read again when that begins anew.
        """
        state = self.partitions.get(chunk.partition)
        if state is None or state.epoch != chunk.epoch or state.held or not chunk.offsets:
            return NOTHING
        # What lies below the committed offset is settled, though `settled` forgets it once the offset has passed.
        state.next_read = max(state.next_read, state.base)
        if chunk.offsets[0] < state.next_read:
            chunk = chunk.slice(bisect_left(chunk.offsets, state.next_read), len(chunk))
            if not chunk.offsets:
                return NOTHING
        vanished, passed_over = self._skip_holes(state, chunk.offsets)
        state.next_read = chunk.offsets[-1] + 1
        if chunk.oldest_ms > 0:
            state.note_read(chunk.oldest_ms)
        if chunk.offsets[0] >= state.horizon:
            return Intake((chunk,), (), vanished=vanished, passed_over=passed_over)
        fresh = [
            i for i, offset in enumerate(chunk.offsets) if offset not in state.settled and offset not in state.doubt
        ]
        listed = [i for i, offset in enumerate(chunk.offsets) if offset in state.doubt]
        answered, doubtful = self.remembered.recall(chunk.pick(listed)) if listed else ((), None)
        return Intake(
            (chunk.pick(fresh),) if fresh else (),
            (doubtful,) if doubtful else (),
            answered,
            vanished,
            passed_over,
        )

    def pass_over(self, partition: Partition, offset: int) -> tuple[int, int]:
        """Settle what lies below an offset that was reached behind the last record: markers, what was aborted.

        Returns how many of these offsets were in doubt, and how many there are; none while records wait before them, or
        while what is read is dropped. Else they stay uncommitted until another record comes, and are taken for records
        that retention has removed before they were read.
        """
        state = self.partitions[partition]
        begin = max(state.next_read, state.base)
        if state.base < state.next_read or offset <= begin or state.held or state.revoking:
            return 0, 0
        state.next_read = begin
        counts = self._skip_holes(state, (offset,))
        state.next_read = offset
        return counts

    def _skip_holes(self, state: PartitionState, offsets: Sequence[int]) -> tuple[int, int]:
        """Note the offsets that the topic does not have; return how many were in doubt, and how many there are."""
        holes: list[Range] = []
        if offsets[0] > state.next_read:
            holes.append((state.next_read, offsets[0]))
        if offsets[-1] - offsets[0] + 1 != len(offsets):
            there = runs(offsets)
            holes += [(left[1], right[0]) for left, right in pairwise(there)]
        if not holes:
            return 0, 0
        doubted = state.doubt.count
        for start, stop in holes:
            state.doubt.discard(start, stop)
        state.holes.extend(holes)
        self._dirty.add(state.partition)
        return doubted - state.doubt.count, sum(stop - start for start, stop in holes)

    def add_ready(self, batches: Iterable[Batch]) -> None:
        """Queue batches that may be listed and posted, without what was let go or is held by now."""
        for batch in map(self._startable, batches):
            if batch is not None:
                self.ready.append(batch)
                self.held_bytes += _bytes(batch)

    def settle(self, item: Finished) -> Finished | None:
        """Queue results of records that belong to no active batch; those whose partition is gone are remembered.

        Returns what was queued.
        """
        alive = self._alive_finished(item)
        if alive is not None:
            self.held_bytes += alive.bytes
            self.finished.append(alive)
        return alive

    # ------------------------------------------------------------------ what became of a posted batch

    def finish(
        self,
        serial: int,
        chunks: tuple[Chunk, ...],
        verdicts: Verdicts,
        *,
        attempts: int,
        sent_ms: int,
        answered_ms: int,
    ) -> Finished | None:
        """Queue the results of records of an active batch; the rest of it must have been taken away before."""
        batch = self.active.pop(serial)
        self.active_records -= batch.count
        size = _bytes(batch)
        self.held_bytes -= size
        self._relist(serial, chunks)
        item = Finished(
            chunks,
            verdicts,
            batch.id,
            serial,
            attempts,
            sent_ms,
            answered_ms,
            size if chunks is batch.chunks else -1,
            batch.trace,
        )
        return self.settle(item)

    def withdraw(self, serial: int) -> Batch:
        """Take an active batch off the list, as it was surely not taken: the next tick says so."""
        batch = self.active.pop(serial)
        self.active_records -= batch.count
        self.held_bytes -= _bytes(batch)
        self._relist(serial, ())
        return batch

    def again(self, batch: Batch, *, at: float) -> None:
        """Queue a batch, or a part of one, to be listed and posted again from time `at` on.

        It was surely not taken, but for chunks that are marked as resent.
        """
        self.remembered.not_taken(batch.chunks)
        pruned = self._startable(batch)
        if pruned is not None:
            self.held_bytes += _bytes(pruned)
            self.queue.again(pruned, at=at)

    def take_out(self, chosen: Callable[[Batch], Iterable[int]]) -> list[Batch]:
        """Take the chosen records, whose indices rise, out of all that is ready or waits to be tried again."""
        taken: list[Batch] = []

        def left(batch: Batch) -> Batch | None:
            indices = list(chosen(batch))
            if not indices:
                return batch
            if len(indices) < batch.count:
                out, rest = self._divide(batch, indices, (batch.id, f"{batch.id}.0"))
            else:
                out, rest = batch, None
            self.held_bytes -= _bytes(out)
            taken.append(out)
            return rest

        self.queue.change(left)
        return taken

    def set_aside(self, item: Finished, reason: str) -> tuple[Finished | None, Finished | None]:
        """Take the dead letters of a reason out of a finished item that is queued, unwritten and off the list.

        They were surely not taken, so nobody need doubt them. Returns them, and what is left, which stays queued.
        """
        count = item.count
        apart = [i for i in range(count) if (v := item.verdicts.of(i)).status == "dead_letter" and v.reason == reason]
        chosen, others = item.split(apart)
        self.finished.remove(item)
        self.held_bytes -= item.bytes
        if item.serial:
            self._relist(item.serial, others.chunks if others else ())
        if others:
            self.held_bytes += others.bytes
            self.finished.append(others)
        return (replace(chosen, serial=0, unlisted=not chosen.recalled) if chosen else None), others

    def doubt(self, chunks: Iterable[Chunk]) -> None:
        """Keep records listed as in flight although no request of theirs is: they may have been taken."""
        for chunk in chunks:
            if self.is_alive(chunk):
                self.partitions[chunk.partition].doubt.update(runs(chunk.offsets))
                self._dirty.add(chunk.partition)

    def _relist(self, serial: int, chunks: tuple[Chunk, ...]) -> None:
        """Make an active listing say only `chunks`."""
        listed: dict[Partition, list[Range]] = {}
        for chunk in chunks:
            listed.setdefault(chunk.partition, []).extend(runs(chunk.offsets))
        for state in self.partitions.values():
            if serial in state.active:
                if state.partition in listed:
                    state.active[serial] = listed[state.partition]
                else:
                    del state.active[serial]
                self._dirty.add(state.partition)

    # ------------------------------------------------------------------ ticks

    def wants_tick(self, *, now: float, slots: int) -> bool:
        """Tell whether a tick would change anything."""
        if self.finished or self._dirty:
            return True
        return slots > 0 and self.queue.is_due(now=now, suspects=self._room_for_suspects(slots) > 0)

    def oldest(self, partition: Partition) -> Place:
        """Return where the first record is that is not settled: a search through all batches, for rare questions."""
        state = self.partitions[partition]
        if state.base >= state.next_read:
            return Place("unread")

        def holds(chunks: Iterable[Chunk]) -> bool:
            return any(self.is_alive(c) and c.partition == partition and _has(c.offsets, state.base) for c in chunks)

        for item in self.finished:
            if holds(item.chunks):
                return Place("answered", item.batch_id, item.attempts)
        for batch in self.active.values():
            if holds(batch.chunks):
                return Place("posted", batch.id, batch.attempts)
        for at, batch in self.queue.retries():
            if holds(batch.chunks):
                return Place("waiting", batch.id, batch.attempts, at)
        for batch in self.ready:
            if holds(batch.chunks):
                return Place("crowded" if partition in self.crowding.crammed else "ready", batch.id, batch.attempts)
        return Place("elsewhere")

    def oldest_ms(self) -> int | None:
        """Return when the oldest record was appended that was read and is not settled, None when all are.

        It is that of its chunk, which may be older by what one read brings.
        """
        return min((state.reads[0][1] for state in self.partitions.values() if state.reads), default=None)

    def plan(self, *, now: float, slots: int, trial: bool = False) -> Tick | None:
        """Return the next tick, or None when there is nothing to say; `slots` is how many batches may start.

        A `trial` is to see if the platform works: batches that never failed go before those that wait to be tried
        again, as it must not be the one that is to blame, and a single record starts. Where answers are lost, as many
        are in doubt as are posted.
        """
        self._mark = (self._mark + 1) % MARKS
        settle = self._take_finished()
        start = self._take_startable(now, slots, trial=trial)
        settled = _ranges(chunk for item in settle for chunk in item.chunks)
        started = _ranges(chunk for _, batch in start for chunk in batch.chunks)
        fits, cuts = self._say(settled.keys() | started.keys() | self._dirty, settled, started)
        if cuts:
            settle, start = self._cut(settle, start, cuts)
            settled = _ranges(chunk for item in settle for chunk in item.chunks)
        if not fits:
            return None
        return Tick(
            {partition: (said.progress.base, said.metadata) for partition, said in fits.items()},
            settle,
            start,
            {partition: self.partitions[partition].epoch for partition in fits},
            settled,
            {partition: said.progress for partition, said in fits.items()},
        )

    def extend(self, tick: Tick, *, now: float, slots: int, trial: bool = False) -> Tick | None:
        """Return the tick, with the batches that may start by now if it was planned without any.

        Its results may be written already, so that they stay as they are, and with them what is said of a partition
        that starts nothing: meanwhile records may have left the list, and to go on listing them is safe. Returns None
        when the tick must be taken back, since it names a partition that is ours no more under that assignment.
        """
        if not all((own := self.partitions.get(p)) and own.epoch == epoch for p, epoch in tick.epochs.items()):
            return None
        if tick.start:
            return tick
        start = self._take_startable(now, slots, trial=trial)
        started = _ranges(chunk for _, batch in start for chunk in batch.chunks)
        fits, cuts = self._say(started.keys(), tick.settled, started, written=tick.offsets.keys())
        if cuts:
            start = self._cut([], start, cuts)[1]
        return replace(
            tick,
            offsets={**tick.offsets, **{p: (said.progress.base, said.metadata) for p, said in fits.items()}},
            start=start,
            epochs={**tick.epochs, **{p: self.partitions[p].epoch for p in fits}},
            told={**tick.told, **{p: said.progress for p, said in fits.items()}},
        )

    def committed(self, tick: Tick) -> list[tuple[int, Batch]]:
        """Adopt a tick that is known to have committed, and return what may be posted now."""
        self._note_gone(tick)
        for partition, epoch in tick.epochs.items():
            state = self.partitions.get(partition)
            if state is None or state.epoch != epoch:
                continue
            for start, stop in tick.settled.get(partition, ()):
                state.settled.add(start, stop)
                state.doubt.discard(start, stop)
            state.base = state.settled.advance(state.base)
            while state.reads and state.reads[0][0] <= state.base:
                state.reads.popleft()
            length = len(tick.offsets[partition][1])
            self.crowding.committed(partition, shorter=length < state.told_length)
            state.told, state.told_length = tick.told[partition], length
        for item in tick.settle:
            self.held_bytes -= item.bytes
            if item.serial:
                self._drop_listing(item.serial)
        posted = []
        for serial, batch in tick.start:
            alive = self._startable(batch)
            if alive is not batch:  # revoked or held meanwhile: listed, but not to be posted any more
                self._dirty |= {c.partition for c in batch.chunks if self.is_alive(c) and not self.may_start(c)}
                self.held_bytes += (_bytes(alive) if alive else 0) - _bytes(batch)
            if alive is None:
                continue
            for chunk in alive.chunks:
                self.partitions[chunk.partition].active.setdefault(serial, []).extend(runs(chunk.offsets))
            self.active[serial] = alive
            self.active_records += alive.count
            posted.append((serial, alive))
        return posted

    def aborted(self, tick: Tick) -> None:
        """Take back everything of a tick that is known not to have committed, in what is still ours."""
        self._note_gone(tick)
        self._dirty |= {p for p in tick.offsets if p in self.partitions}
        for item in reversed(tick.settle):
            self.held_bytes -= item.bytes
            alive = self._alive_finished(item)
            if alive is not None:
                self.held_bytes += alive.bytes
                self.finished.appendleft(alive)
        for _, batch in reversed(tick.start):
            self.held_bytes -= _bytes(batch)
            alive_batch = self._startable(batch)
            if alive_batch is not None:
                self.held_bytes += _bytes(alive_batch)
                self.queue.put_back([alive_batch])

    def _note_gone(self, tick: Tick) -> None:
        """Note of partitions that are gone what a tick said of them, and that nobody posted what it was to start."""
        self.remembered.said(tick.told)
        for _, batch in tick.start:
            self.remembered.not_taken(batch.chunks)

    def _take_finished(self) -> list[Finished]:
        settle: list[Finished] = []
        passed_over: list[Finished] = []
        records = size = 0
        while self.finished:
            item = self.finished[0]
            if self.crowding.keeps(item.chunks, self.crowding.stuck):
                passed_over.append(self.finished.popleft())
                continue
            records += item.count
            size += item.bytes
            if settle and (records > self.limits.max_tick_records or size > self.limits.max_tick_bytes):
                break
            settle.append(self.finished.popleft())
        self.finished.extendleft(reversed(passed_over))
        return settle

    def _take_startable(self, now: float, slots: int, *, trial: bool) -> list[tuple[int, Batch]]:
        start: list[tuple[int, Batch]] = []
        crowded: list[Batch] = []
        records, suspects = self.active_records, self._room_for_suspects(slots)
        has_witness = self._witness in self.active  # else nothing may pass there that tells the others from an outage
        has_larger = self._larger in self.active
        while len(start) < slots:
            taken = self.queue.take(now=now, suspects=suspects > 0, trial=trial)
            if taken is None:
                break
            batch, is_witness, rest = self._with_room(taken, may_testify=not has_witness)
            crowded += [rest] if rest else []
            if batch is None:
                self.queue.keep_turn(taken)
                continue
            if records and records + batch.count > self.limits.max_in_flight_records:
                self.queue.put_back([batch])
                break
            may_try = not (has_larger or batch.was_posted)
            most = 1 if trial or is_witness else self.size.most(now=now, may_try=may_try)
            is_part = most is not None and batch.count > most
            self._serial += 1
            if most is not None and is_part:
                batch = self._first_of(batch, most)
            if is_witness or (is_part and not (trial or batch.was_posted)):
                batch.family = -self._serial  # it was never posted with others, so what it tells is its own
            if is_witness:
                self._witness, has_witness = self._serial, True
            if self.size.limit is not None and batch.count > self.size.limit:
                self._larger, has_larger = self._serial, True
            records += batch.count
            suspects -= batch.suspect
            start.append((self._serial, batch))
        if slots:
            self.queue.crowd_out(crowded)
        return start

    def _first_of(self, batch: Batch, most: int) -> Batch:
        """Return the first records of a batch, and put the others back."""
        first, rest = self._divide(batch, range(most), (f"{batch.id}.t{self._serial:x}", batch.id))
        self.queue.put_rest(rest)
        return first

    def _room_for_suspects(self, slots: int) -> int:
        """Return how many of the suspects that wait may start, where so many batches may."""
        if not self.queue.has_suspects:
            return 0
        under_way = sum(batch.suspect for batch in self.active.values())
        return max(int(SUSPECTS_SHARE * (len(self.active) + slots)), 1) - under_way

    def _with_room(self, batch: Batch, *, may_testify: bool) -> tuple[Batch | None, bool, Batch | None]:
        """Return the part of a batch that metadata has room for, if it is a witness, and the part that has to wait.

        A witness was never posted and goes where only what was posted before has room.
        """
        crowding = self.crowding
        if not crowding.keeps_part(batch.chunks, crowding.full):
            return batch, False, None
        is_witness = may_testify and not batch.was_posted
        full = crowding.crammed if is_witness or batch.was_posted else crowding.full
        if not crowding.keeps_part(batch.chunks, full):
            return batch, is_witness, None
        if all(chunk.partition in full for chunk in batch.chunks):
            return None, is_witness, batch
        part, rest = self._cut_batch(batch, dict.fromkeys(full, 0))
        return part, is_witness, rest

    def _is_oldest(self, chunk: Chunk) -> bool:
        """Tell whether a chunk begins with the record that the committed offset waits for."""
        return self.is_alive(chunk) and chunk.offsets[0] == self.partitions[chunk.partition].base

    # ------------------------------------------------------------------ what there is no room to say

    def _say(
        self,
        partitions: Iterable[Partition],
        settled: Mapping[Partition, list[Range]],
        started: Mapping[Partition, list[Range]],
        *,
        written: Collection[Partition] = (),
    ) -> tuple[dict[Partition, Said], dict[Partition, Said]]:
        """Return what a tick says of each partition, and of those where not all fits what is to be cut off.

        What is said already of those that are `written` is said in any case: there it is all that starts, or nothing.
        """
        fits: dict[Partition, Said] = {}
        cuts: dict[Partition, Said] = {}
        for partition in partitions:
            state, begun = self.partitions[partition], started.get(partition, [])
            if partition in written and partition in self.crowding.crammed:  # its results alone fill the metadata
                cuts[partition] = NOTHING_SAID
                continue
            done = settled.get(partition, [])
            state.reach(max(stop for _, stop in (*done, *begun, (0, state.told.in_flight.stop))))
            said = state.say(done, begun, mark=self._mark)
            room = self.crowding.room_to_start(partition) if begun else ROOM_TO_SETTLE
            if not said.fits(self.limits.max_metadata, room):
                said = cuts[partition] = NOTHING_SAID if partition in written else self._say_less(state, done, begun)
                self.crowding.note(partition, stuck=said.stuck)
            if said.metadata:
                fits[partition] = said
        self._dirty -= fits.keys()
        return fits, cuts

    def _say_less(self, state: PartitionState, settled: list[Range], started: list[Range]) -> Said:
        """Return what there is room to say of a partition; what starts there from now on has to make some."""
        return state.say_what_fits(
            settled,
            started,
            mark=self._mark,
            room=self.limits.max_metadata,
            changed=state.partition in self._dirty,
        )

    def _cut(
        self, settle: list[Finished], start: list[tuple[int, Batch]], cuts: Mapping[Partition, Said]
    ) -> tuple[list[Finished], list[tuple[int, Batch]]]:
        """Return what is left of a tick without the records at or above the cuts; those go back to their queues."""
        kept, put_off = [], []
        for item in settle:
            now, later = self._cut_finished(item, {p: said.settle_cut for p, said in cuts.items()})
            kept += [now] if now else []
            put_off += [later] if later else []
        self.finished.extendleft(reversed(put_off))
        begun, put_back = [], []
        for serial, batch in start:
            first, rest = self._cut_batch(batch, {p: said.start_cut for p, said in cuts.items()})
            begun += [(serial, first)] if first else []
            put_back += [rest] if rest else []
        self.queue.put_back(put_back)
        return kept, begun

    def _cut_finished(
        self, item: Finished, cuts: Mapping[Partition, int | None]
    ) -> tuple[Finished | None, Finished | None]:
        """Return the parts of an item below and above the cuts; each lists its own records."""
        now, later = item.split(_below(item.chunks, cuts)[0])
        if now is None or later is None:
            return now, later
        self.held_bytes += now.bytes + later.bytes - item.bytes
        if item.serial:
            self._serial += 1
            later.serial = self._serial
            for partition, listed in _ranges(later.chunks).items():
                self.partitions[partition].active[later.serial] = listed
        return now, later

    def _cut_batch(self, batch: Batch, cuts: Mapping[Partition, int | None]) -> tuple[Batch | None, Batch | None]:
        """Return the parts of a batch that was not posted, below and above the cuts."""
        inside, outside = _below(batch.chunks, cuts)
        if not inside or not outside:
            return (batch, None) if inside else (None, batch)
        return self._divide(batch, inside, (f"{batch.id}.0", f"{batch.id}.1"))

    def _divide(self, batch: Batch, indices: Sequence[int], batch_ids: tuple[str, str]) -> tuple[Batch, Batch]:
        """Return the records at `indices` of a batch that was not posted, and all others, as batches of their own."""
        envelope = batch.size - wire_size(batch.chunks, 0)
        chosen, others = (
            batch.piece(chunks, batch_id, envelope_bytes=envelope)
            for chunks, batch_id in zip(batch.split(indices), batch_ids, strict=True)
        )
        self.held_bytes += _bytes(chosen) + _bytes(others) - _bytes(batch)
        return chosen, others

    def _drop_listing(self, serial: int) -> None:
        for state in self.partitions.values():
            state.active.pop(serial, None)

    # ------------------------------------------------------------------ letting go of what is not ours

    def _startable(self, batch: Batch) -> Batch | None:
        """Return the batch without chunks that may not start, the batch itself if all may, None if none may."""
        chunks = tuple(chunk for chunk in batch.chunks if self.may_start(chunk))
        if len(chunks) == len(batch.chunks):
            return batch
        if not chunks:
            return None
        count = sum(map(len, chunks))
        gone = sum(chunk.wire_bytes for chunk in batch.chunks if not self.may_start(chunk))
        return replace(batch, chunks=chunks, count=count, size=batch.size - gone)

    def _prune_unstarted(self) -> None:
        def pruned(batch: Batch) -> Batch | None:
            left = self._startable(batch)
            self.held_bytes += (_bytes(left) if left else 0) - _bytes(batch)
            return left

        self.queue.change(pruned)

    def _alive_finished(self, item: Finished) -> Finished | None:
        """Return the item without chunks of partitions that are gone, for which the answers are remembered."""
        if all(map(self.is_alive, item.chunks)):
            return item
        indices: list[int] = []
        at = 0
        for chunk in item.chunks:
            if self.is_alive(chunk):
                indices += range(at, at + len(chunk))
            at += len(chunk)
        alive, gone = item.split(indices)
        if gone:
            self.remembered.answered(gone)
        return alive


def _has(offsets: Sequence[int], offset: int) -> bool:
    at = bisect_left(offsets, offset)
    return at < len(offsets) and offsets[at] == offset


def _bytes(batch: Batch) -> int:
    """Return what a batch keeps in memory: records, what they were made of, and objects."""
    sources = sum([source_bytes(chunk) for chunk in batch.chunks])
    return batch.size + sources + 120 * batch.count + CHUNK_BYTES * len(batch.chunks) + BATCH_BYTES


def _ranges(chunks: Iterable[Chunk]) -> dict[Partition, list[Range]]:
    ranges: dict[Partition, list[Range]] = {}
    for chunk in chunks:
        ranges.setdefault(chunk.partition, []).extend(runs(chunk.offsets))
    return ranges


def _below(chunks: Iterable[Chunk], cuts: Mapping[Partition, int | None]) -> tuple[list[int], list[int]]:
    """Return the indices of records below the cut of their partition, where it has one, and of those above."""
    inside: list[int] = []
    outside: list[int] = []
    at = 0
    for chunk in chunks:
        cut = cuts.get(chunk.partition)
        middle = at + (len(chunk) if cut is None else bisect_left(chunk.offsets, cut))
        inside += range(at, middle)
        outside += range(middle, at + len(chunk))
        at += len(chunk)
    return inside, outside
