"""Where every record of a stream is between being read and being settled: the heart of the tick.

`Flow` knows which batches are ready, listed, waiting for a retry, or finished, and plans each tick: which offsets are
committed with which progress, which results are written, and which batches may be posted once the commit is known.
State that must agree with what is committed changes only in `committed`; `aborted` takes the whole tick back.

Invariants, each of which has a test that breaks it on purpose:

- a batch is posted only after a tick that lists all its offsets as in flight has committed;
- a committed offset passes only records that are settled (or known not to exist);
- a record is in at most one place at a time: open batch, ready, waiting, active, or finished;
- nothing of a partition that was released, or of an older assignment of it, gets into a tick.

It is not thread-safe: the drivers share it under the stream's lock.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from connector.core.batching import Batch, wire_size
from connector.core.chunks import Chunk, Partition, source_bytes
from connector.core.metadata_room import MetadataRoom
from connector.core.partition import NOTHING_PLANNED, ROOM_TO_SETTLE, PartitionState, PlannedCommit
from connector.core.progress import MAX_METADATA, Progress, Range, encode, runs
from connector.core.remembered import Remembered
from connector.core.results import Finished
from connector.core.sizing import SizeLimit
from connector.core.starting import SUSPECTS_SHARE, StartQueue
from connector.core.verdicts import Verdicts

ANSWERS_PER_IN_FLIGHT = 4
"""Answers that are remembered per record that may be in flight: a partition may be lost several times before its
records are read again, and an answer takes little memory."""

BATCH_BYTES = 250
CHUNK_BYTES = 450
"""Memory of a batch and of each of its chunks besides the records; for batches of one record this is most of it."""

MARKS = 1 << 14
"""Marks, which identify ticks, take two bytes in the metadata and wrap around."""


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """Limits of what is in flight and of one tick."""

    max_in_flight_records: int
    max_tick_records: int
    max_tick_bytes: int
    max_metadata: int = MAX_METADATA


@dataclass(slots=True, eq=False)
class Tick:
    """One transaction: offsets with metadata, results to write, and batches that may be posted once it committed."""

    offsets: dict[Partition, tuple[int, str]]
    settle: list[Finished] = field(repr=False)
    start: list[tuple[int, Batch]] = field(repr=False)
    epochs: dict[Partition, int]
    settled: dict[Partition, list[Range]] = field(repr=False)
    progress: dict[Partition, Progress] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Intake:
    """The records of a chunk, sorted: those that are new, and those that an earlier worker had in flight."""

    fresh: tuple[Chunk, ...]
    doubtful: tuple[Chunk, ...]
    answered: tuple[Finished, ...] = ()
    """Results of records that this worker itself had in flight and knows the answers for; to be queued."""
    vanished: int = 0
    """How many offsets in doubt are no longer in the topic: settled without a result, as there is nothing to write."""
    passed_over: int = 0
    """How many offsets between the records do not exist in the topic (compaction, transaction markers)."""


NOTHING = Intake((), ())


PlaceName = Literal["unread", "ready", "no_room", "waiting", "posted", "answered", "elsewhere"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the record at the committed offset is; `elsewhere` is an open batch or a running tick."""

    name: PlaceName
    batch_id: str = ""
    attempts: int = 0
    until: float = 0.0
    """When a batch that waits may be retried."""


class Flow:
    """The state of one stream, for the partitions that are assigned to this worker."""

    def __init__(self, limits: FlowLimits, *, first_mark: int = 0) -> None:
        """Create the state of a stream; a random `first_mark` makes it unlikely that two workers use the same marks."""
        self.limits = limits
        self.partitions: dict[Partition, PartitionState] = {}
        self.queue = StartQueue()
        self.finished: deque[Finished] = deque()
        self.active: dict[int, Batch] = {}
        self.active_records = 0
        self.held_bytes = 0
        self._dirty: set[Partition] = set()
        self.metadata_room = MetadataRoom(self._is_oldest)
        self.remembered = Remembered(ANSWERS_PER_IN_FLIGHT * limits.max_in_flight_records)
        self._serial = 0
        self._witness = -1
        """Serial of the last batch that was let in as a witness although its partition is full (see `_with_room`)."""
        self.size = SizeLimit()
        self._larger = -1
        """Serial of the last batch that may exceed the size limit, to try whether larger batches are answered again."""
        self._mark = first_mark

    @property
    def ready(self) -> deque[Batch]:
        """Batches that never failed and may start."""
        return self.queue.ready

    @property
    def waiting(self) -> int:
        """How many batches wait for a retry."""
        return self.queue.waiting

    # ------------------------------------------------------------------ partitions come and go

    def assign(self, partition: Partition, epoch: int, progress: Progress) -> PartitionState:
        """Take over a partition at the progress that its last owner committed."""
        if partition in self.partitions:
            self.release([partition])
        state = PartitionState(
            partition,
            epoch,
            progress.base,
            progress.birth,
            progress.settled.copy(),
            self.remembered.doubtful(partition, progress),
            next_read=progress.base,
            horizon=max(progress.settled.stop, progress.in_flight.stop),
            committed=progress,
            committed_length=len(encode(progress)),
        )
        self.partitions[partition] = state
        self.remembered.assigned(state)
        if state.doubt != progress.in_flight:
            self._dirty.add(partition)  # what is no longer in doubt need not stay listed
        return state

    def begin_revoke(self, partitions: Iterable[Partition]) -> None:
        """Start nothing more on these partitions and forget what was not started; what is posted may still finish."""
        for partition in partitions:
            if partition in self.partitions:
                self.partitions[partition].revoking = True
        self._prune_unstarted()

    def hold(self, partition: Partition) -> None:
        """Start nothing more on a partition until it is assigned again, and forget what was not started."""
        state = self.partitions.get(partition)
        if state is not None and not state.held:
            state.held = True
            self._prune_unstarted()

    def is_drained(self, partitions: Iterable[Partition]) -> bool:
        """Return whether these partitions have nothing listed, no result to write, and no progress to commit."""
        states = {p: self.partitions[p] for p in partitions if p in self.partitions}
        if any(state.active for state in states.values()) or not self._dirty.isdisjoint(states):
            return False
        return not any(chunk.partition in states for item in self.finished for chunk in item.chunks)

    def listed(self, partitions: Iterable[Partition]) -> int:
        """Return how many records of these partitions are in flight according to the last commit."""
        return sum(self.partitions[p].committed.in_flight.count for p in partitions if p in self.partitions)

    def has_nothing_left(self, partition: Partition) -> bool:
        """Return whether everything that was read of a partition is settled, or was forgotten by `begin_revoke`."""
        state = self.partitions.get(partition)
        return state is None or state.revoking or state.base >= state.next_read

    def mark(self, partition: Partition) -> None:
        """Make the next tick commit a partition's progress, changed or not."""
        self._dirty.add(partition)

    def release(self, partitions: Iterable[Partition]) -> None:
        """Release partitions: no tick names them again, and late replies for them are only kept in case they return."""
        for partition in partitions:
            state = self.partitions.pop(partition, None)
            if state is not None:
                self.remembered.release(state)
            self._dirty.discard(partition)
            self.metadata_room.forget(partition)
        self._prune_unstarted()
        finished, self.finished = self.finished, deque()
        for item in finished:
            self.held_bytes -= item.bytes
            self.settle(item)

    def is_alive(self, chunk: Chunk) -> bool:
        """Return whether the chunk's partition is still assigned, under the assignment that the chunk was read in."""
        state = self.partitions.get(chunk.partition)
        return state is not None and state.epoch == chunk.epoch

    def may_start(self, chunk: Chunk) -> bool:
        """Return whether records of the chunk may start: partition still assigned, not being revoked, not held."""
        state = self.partitions.get(chunk.partition)
        return state is not None and state.epoch == chunk.epoch and not state.revoking and not state.held

    # ------------------------------------------------------------------ records come in

    def intake(self, chunk: Chunk) -> Intake:
        """Sort the records of a chunk that was just read: drop what is settled or stale, separate what is in doubt.

        Records of a held partition are dropped as well: they are read again when the partition is assigned again.
        """
        state = self.partitions.get(chunk.partition)
        if state is None or state.epoch != chunk.epoch or state.held:
            return NOTHING
        # Everything below the committed offset is settled, although `settled` forgets it once the offset has passed.
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
        """Settle the offsets up to `offset`, reached after the last record: transaction markers, aborted records.

        Returns how many of these offsets were in doubt, and how many there are; zeros while records before them are not
        settled, or while what is read is dropped. If they stayed uncommitted until the next record, they could be
        mistaken for records that retention removed before they were read.
        """
        state = self.partitions[partition]
        if state.base < state.next_read or offset <= state.base or state.held or state.revoking:
            return 0, 0
        state.next_read = state.base
        counts = self._skip_holes(state, (offset,))
        state.next_read = offset
        return counts

    def _skip_holes(self, state: PartitionState, offsets: Sequence[int]) -> tuple[int, int]:
        """Note offsets that do not exist in the topic; return how many were in doubt, and how many there are."""
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
        """Queue batches that may be listed and posted, without chunks that may no longer start."""
        for batch in map(self._startable, batches):
            if batch is not None:
                self.ready.append(batch)
                self.held_bytes += _bytes(batch)

    def settle(self, item: Finished) -> Finished | None:
        """Queue results of records that belong to no active batch; those of released partitions are only remembered.

        Returns what was queued.
        """
        alive = self._alive_finished(item)
        if alive is not None:
            self.held_bytes += alive.bytes
            self.finished.append(alive)
        return alive

    # ------------------------------------------------------------------ results of a posted batch

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
        """Queue the results of records of an active batch; its other records must have been taken out before."""
        batch = self.active.pop(serial)
        self.active_records -= batch.count
        size = _bytes(batch)
        self.held_bytes -= size
        self._relist(serial, batch.chunks, chunks)
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
        """Take a batch that was certainly not accepted off the in-flight list, with effect from the next tick."""
        batch = self.active.pop(serial)
        self.active_records -= batch.count
        self.held_bytes -= _bytes(batch)
        self._relist(serial, batch.chunks, ())
        return batch

    def again(self, batch: Batch, *, at: float) -> None:
        """Queue a batch, or a part of one, to be listed and posted again from time `at` on.

        It was certainly not accepted, except for chunks that are marked as resent.
        """
        self.remembered.note_not_accepted(batch.chunks)
        pruned = self._startable(batch)
        if pruned is not None:
            self.held_bytes += _bytes(pruned)
            self.queue.again(pruned, at=at)

    def take_out(self, chosen: Callable[[Batch], Iterable[int]]) -> list[Batch]:
        """Take the records at the indices that `chosen` returns (ascending) out of all ready and waiting batches."""
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
        """Take the dead letters with this reason out of a queued item; return them, and what stays queued.

        They were certainly not accepted, so they leave the in-flight list.
        """
        count = item.count
        apart = [i for i in range(count) if (v := item.verdicts.of(i)).status == "dead_letter" and v.reason == reason]
        chosen, others = item.split(apart)
        self.finished.remove(item)
        self.held_bytes -= item.bytes
        if item.serial:
            self._relist(item.serial, item.chunks, others.chunks if others else ())
        if others:
            self.held_bytes += others.bytes
            self.finished.append(others)
        return (replace(chosen, serial=0, unlisted=not chosen.recalled) if chosen else None), others

    def doubt(self, chunks: Iterable[Chunk]) -> None:
        """Keep records listed as in flight although no request for them is active: they may have been accepted."""
        for chunk in chunks:
            if self.is_alive(chunk):
                self.partitions[chunk.partition].doubt.update(runs(chunk.offsets))
                self._dirty.add(chunk.partition)

    def _relist(self, serial: int, before: Iterable[Chunk], after: Iterable[Chunk]) -> None:
        """Change an active listing of the chunks `before` to one of those `after`."""
        listed = _ranges(after)
        for partition in {chunk.partition for chunk in before}:
            state = self.partitions.get(partition)
            if state is not None and serial in state.active:
                if partition in listed:
                    state.active[serial] = listed[partition]
                else:
                    del state.active[serial]
                self._dirty.add(partition)

    # ------------------------------------------------------------------ ticks

    def wants_tick(self, *, now: float, slots: int) -> bool:
        """Return whether a tick would change anything."""
        if self.finished or self._dirty:
            return True
        return slots > 0 and self.queue.is_due(now=now, suspects=self._room_for_suspects(slots) > 0)

    def oldest(self, partition: Partition) -> Place:
        """Return where the first unsettled record is. Searches all batches, so only for rare questions."""
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
                has_no_room = partition in self.metadata_room.full_for_retries
                return Place("no_room" if has_no_room else "ready", batch.id, batch.attempts)
        return Place("elsewhere")

    def oldest_ms(self) -> int | None:
        """Return when the oldest record that was read and is not settled was appended, or None when all are settled.

        In milliseconds since 1970. It is the oldest of a chunk, so the record itself may be a little younger.
        """
        return min((state.reads[0][1] for state in self.partitions.values() if state.reads), default=None)

    def plan(self, *, now: float, slots: int, trial: bool = False) -> Tick | None:
        """Return the next tick, or None when there is nothing to commit; `slots` is how many batches may start.

        A `trial` finds out whether the platform works: batches that never failed go before retries, so that it does not
        fail for a fault of its own, and a single record starts, since a lost answer leaves everything in doubt that was
        posted.
        """
        self._mark = (self._mark + 1) % MARKS
        settle = self._take_finished()
        start = self._take_startable(now, slots, trial=trial)
        settled = _ranges(chunk for item in settle for chunk in item.chunks)
        started = _ranges(chunk for _, batch in start for chunk in batch.chunks)
        fits, cuts = self._plan_commits(settled.keys() | started.keys() | self._dirty, settled, started)
        if cuts:
            settle, start = self._cut(settle, start, cuts)
            settled = _ranges(chunk for item in settle for chunk in item.chunks)
        if not fits:
            return None
        return Tick(
            {partition: (planned.progress.base, planned.metadata) for partition, planned in fits.items()},
            settle,
            start,
            {partition: self.partitions[partition].epoch for partition in fits},
            settled,
            {partition: planned.progress for partition, planned in fits.items()},
        )

    def extend(self, tick: Tick, *, now: float, slots: int, trial: bool = False) -> Tick | None:
        """Return the tick with the batches that may start by now, if it was planned without any.

        Its results may be written already, so they stay, and so does the progress of partitions that start nothing:
        records may have left the in-flight list since, but listing them longer is safe. Returns None if the tick must
        be aborted, because it names a partition that is no longer assigned under that epoch.
        """
        if not all((own := self.partitions.get(p)) and own.epoch == epoch for p, epoch in tick.epochs.items()):
            return None
        if tick.start:
            return tick
        start = self._take_startable(now, slots, trial=trial)
        started = _ranges(chunk for _, batch in start for chunk in batch.chunks)
        fits, cuts = self._plan_commits(started.keys(), tick.settled, started, written=tick.offsets.keys())
        if cuts:
            start = self._cut([], start, cuts)[1]
        return replace(
            tick,
            offsets={**tick.offsets, **{p: (planned.progress.base, planned.metadata) for p, planned in fits.items()}},
            start=start,
            epochs={**tick.epochs, **{p: self.partitions[p].epoch for p in fits}},
            progress={**tick.progress, **{p: planned.progress for p, planned in fits.items()}},
        )

    def committed(self, tick: Tick) -> list[tuple[int, Batch]]:
        """Adopt a tick that is known to have committed, and return the batches that may be posted now, by serial."""
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
            self.metadata_room.committed(partition, shorter=length < state.committed_length)
            state.committed, state.committed_length = tick.progress[partition], length
        for item in tick.settle:
            self.held_bytes -= item.bytes
            for chunk in item.chunks if item.serial else ():
                if chunk.partition in self.partitions:
                    self.partitions[chunk.partition].active.pop(item.serial, None)
        posted = []
        for serial, batch in tick.start:
            alive = self._startable(batch)
            if alive is not batch:  # revoked or held in the meantime: listed, but no longer to be posted
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
        """Take back everything of a tick that is known not to have committed, on partitions that are still assigned."""
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
        """Note, for partitions that are gone, what a tick may have committed, and that its batches were not posted."""
        self.remembered.note_committable(tick.progress)
        for _, batch in tick.start:
            self.remembered.note_not_accepted(batch.chunks)

    def _take_finished(self) -> list[Finished]:
        settle: list[Finished] = []
        passed_over: list[Finished] = []
        records = size = 0
        while self.finished:
            item = self.finished[0]
            if self.metadata_room.must_wait(item.chunks, self.metadata_room.stuck):
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
        deferred: list[Batch] = []
        records, suspects = self.active_records, self._room_for_suspects(slots)
        has_witness = self._witness in self.active  # otherwise nothing that passes there could rule out an outage
        has_larger = self._larger in self.active
        while len(start) < slots:
            taken = self.queue.take(now=now, suspects=suspects > 0, trial=trial)
            if taken is None:
                break
            batch, is_witness, rest = self._with_room(taken, may_testify=not has_witness)
            deferred += [rest] if rest else []
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
                batch.family = -self._serial  # never posted with its former batch, so its failures are its own
            if is_witness:
                self._witness, has_witness = self._serial, True
            if self.size.limit is not None and batch.count > self.size.limit:
                self._larger, has_larger = self._serial, True
            records += batch.count
            suspects -= batch.suspect
            start.append((self._serial, batch))
        if slots:
            self.queue.defer(deferred)
        return start

    def _first_of(self, batch: Batch, most: int) -> Batch:
        """Return the first `most` records of a batch, and put the others back."""
        first, rest = self._divide(batch, range(most), (f"{batch.id}.t{self._serial:x}", batch.id))
        self.queue.put_rest(rest)
        return first

    def _room_for_suspects(self, slots: int) -> int:
        """Return how many of the waiting suspects may start, if `slots` batches may."""
        if not self.queue.has_suspects:
            return 0
        under_way = sum(batch.suspect for batch in self.active.values())
        return max(int(SUSPECTS_SHARE * (len(self.active) + slots)), 1) - under_way

    def _with_room(self, batch: Batch, *, may_testify: bool) -> tuple[Batch | None, bool, Batch | None]:
        """Return the part of a batch that the metadata has room for, whether it is a witness, and the part that waits.

        A witness was never posted, and is let in where only records that were posted before have room: if it passes
        while others fail, there is no outage.
        """
        room = self.metadata_room
        if not room.part_must_wait(batch.chunks, room.full):
            return batch, False, None
        is_witness = may_testify and not batch.was_posted
        full = room.full_for_retries if is_witness or batch.was_posted else room.full
        if not room.part_must_wait(batch.chunks, full):
            return batch, is_witness, None
        if all(chunk.partition in full for chunk in batch.chunks):
            return None, is_witness, batch
        part, rest = self._cut_batch(batch, dict.fromkeys(full, 0))
        return part, is_witness, rest

    def _is_oldest(self, chunk: Chunk) -> bool:
        """Return whether a chunk starts at the committed offset."""
        return self.is_alive(chunk) and chunk.offsets[0] == self.partitions[chunk.partition].base

    # ------------------------------------------------------------------ metadata without room

    def _plan_commits(
        self,
        partitions: Iterable[Partition],
        settled: Mapping[Partition, list[Range]],
        started: Mapping[Partition, list[Range]],
        *,
        written: Collection[Partition] = (),
    ) -> tuple[dict[Partition, PlannedCommit], dict[Partition, PlannedCommit]]:
        """Return the progress to commit for each partition, and the cuts for those where not everything fits.

        For partitions in `written`, results and progress are fixed already: there all batches start, or none.
        """
        fits: dict[Partition, PlannedCommit] = {}
        cuts: dict[Partition, PlannedCommit] = {}
        for partition in partitions:
            state, begun = self.partitions[partition], started.get(partition, [])
            if partition in written and partition in self.metadata_room.full_for_retries:
                cuts[partition] = NOTHING_PLANNED  # its results alone fill the metadata
                continue
            done = settled.get(partition, [])
            state.reach(max(stop for _, stop in (*done, *begun, (0, state.committed.in_flight.stop))))
            planned = state.plan(done, begun, mark=self._mark)
            room = self.metadata_room.room_to_start(partition) if begun else ROOM_TO_SETTLE
            if not planned.fits(self.limits.max_metadata, room):
                planned = cuts[partition] = (
                    NOTHING_PLANNED if partition in written else self._plan_less(state, done, begun)
                )
                self.metadata_room.note(partition, stuck=planned.stuck)
            if planned.metadata:
                fits[partition] = planned
        self._dirty -= fits.keys()
        return fits, cuts

    def _plan_less(self, state: PartitionState, settled: list[Range], started: list[Range]) -> PlannedCommit:
        """Return the part of a tick's progress that fits for a partition, and where it is cut."""
        return state.plan_what_fits(
            settled,
            started,
            mark=self._mark,
            room=self.limits.max_metadata,
            changed=state.partition in self._dirty,
        )

    def _cut(
        self, settle: list[Finished], start: list[tuple[int, Batch]], cuts: Mapping[Partition, PlannedCommit]
    ) -> tuple[list[Finished], list[tuple[int, Batch]]]:
        """Return results and batches of a tick without records at or above the cuts, which go back to their queues."""
        kept, put_off = [], []
        for item in settle:
            now, later = self._cut_finished(item, {p: planned.settle_cut for p, planned in cuts.items()})
            kept += [now] if now else []
            put_off += [later] if later else []
        self.finished.extendleft(reversed(put_off))
        begun, put_back = [], []
        for serial, batch in start:
            first, rest = self._cut_batch(batch, {p: planned.start_cut for p, planned in cuts.items()})
            begun += [(serial, first)] if first else []
            put_back += [rest] if rest else []
        self.queue.put_back(put_back)
        return kept, begun

    def _cut_finished(
        self, item: Finished, cuts: Mapping[Partition, int | None]
    ) -> tuple[Finished | None, Finished | None]:
        """Return the parts of an item below and above the cuts, each with a listing of its own."""
        now, later = item.split(_below(item.chunks, cuts)[0])
        if now is None or later is None:
            return now, later
        self.held_bytes += now.bytes + later.bytes - item.bytes
        if item.serial:
            self._serial += 1
            later.serial = self._serial
            below = _ranges(now.chunks)
            for partition, listed in _ranges(later.chunks).items():
                active = self.partitions[partition].active
                active[later.serial] = listed
                if partition in below:
                    active[item.serial] = below[partition]
                else:
                    active.pop(item.serial, None)
        return now, later

    def _cut_batch(self, batch: Batch, cuts: Mapping[Partition, int | None]) -> tuple[Batch | None, Batch | None]:
        """Return the parts below and above the cuts of a batch that was not posted."""
        inside, outside = _below(batch.chunks, cuts)
        if not inside or not outside:
            return (batch, None) if inside else (None, batch)
        return self._divide(batch, inside, (f"{batch.id}.0", f"{batch.id}.1"))

    def _divide(self, batch: Batch, indices: Sequence[int], batch_ids: tuple[str, str]) -> tuple[Batch, Batch]:
        """Divide a batch that was not posted: the records at `indices`, and all others, as two batches."""
        envelope = batch.size - wire_size(batch.chunks, 0)
        chosen, others = (
            batch.piece(chunks, batch_id, envelope_bytes=envelope)
            for chunks, batch_id in zip(batch.split(indices), batch_ids, strict=True)
        )
        self.held_bytes += _bytes(chosen) + _bytes(others) - _bytes(batch)
        return chosen, others

    # ------------------------------------------------------------------ dropping what is no longer assigned

    def _startable(self, batch: Batch) -> Batch | None:
        """Return the batch without chunks that may not start; the same object if all may, None if none may."""
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
        """Return the item without chunks of partitions that are gone, whose answers are remembered."""
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
    """Return the memory of a batch in bytes: records, what they were made from, and objects."""
    sources = sum([source_bytes(chunk) for chunk in batch.chunks])
    return batch.size + sources + 120 * batch.count + CHUNK_BYTES * len(batch.chunks) + BATCH_BYTES


def _ranges(chunks: Iterable[Chunk]) -> dict[Partition, list[Range]]:
    ranges: dict[Partition, list[Range]] = {}
    for chunk in chunks:
        ranges.setdefault(chunk.partition, []).extend(runs(chunk.offsets))
    return ranges


def _below(chunks: Iterable[Chunk], cuts: Mapping[Partition, int | None]) -> tuple[list[int], list[int]]:
    """Return the indices of the records below the cut of their partition (all, if it has none), and of those above."""
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
