"""Where every record of a stream is between being read and being settled: the heart of the tick.

`Flow` moves records from place to place (batches that are ready, listed, or waiting for a retry; results) and puts
together each tick: which offsets are committed with which progress, which results are written, and which batches may be
posted once the commit is known. State that must agree with what is committed changes only in `committed`; `aborted`
takes the whole tick back.

What is decided on the way has modules of its own: what becomes of a record that was just read (`intake`), what goes
into a tick (`choosing`), how much of that fits into the metadata (`fitting`), and which offsets are listed (`listing`).

Invariants, each of which has a test that breaks it on purpose:

- a batch is posted only after a tick that lists all its offsets as in flight has committed;
- a committed offset passes only records that are settled (or known not to exist);
- a record is in at most one place at a time: open batch, ready, waiting, active, or finished;
- nothing of a partition that was released, or of an older assignment of it, gets into a tick.

It is not thread-safe: the drivers share it under the stream's lock.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import count

from connector.core.batching import Batch
from connector.core.choosing import Chooser, take_results
from connector.core.chunks import Chunk, Partition
from connector.core.fitting import PlannedCommit, plan_commits
from connector.core.intake import NOTHING, Intake, pass_over, take_in
from connector.core.listing import enlist, ranges_of, relist
from connector.core.metadata_room import MetadataRoom
from connector.core.partition import PartitionState
from connector.core.place import Place, place_of_oldest
from connector.core.progress import MAX_METADATA, Progress
from connector.core.ranges import Range, runs
from connector.core.remembered import Remembered
from connector.core.results import Finished
from connector.core.sizing import SizeLimit
from connector.core.starting import StartQueue
from connector.core.verdicts import Verdicts

ANSWERS_PER_IN_FLIGHT = 4
"""Answers that are remembered per record that may be in flight: a partition may be lost several times before its
records are read again, and an answer takes little memory."""

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
        self.size = SizeLimit()
        self._serials = count(1)
        self._chooser = Chooser(self.queue, self.metadata_room, self.size, self._serials)
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
        state = PartitionState.at(partition, epoch, progress, self.remembered.doubtful(partition, progress))
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
        if partition in self.partitions:
            self.partitions[partition].held = True
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
            self._weigh(item)
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
        intake = take_in(chunk, state, self.remembered)
        if intake.passed_over:
            self._dirty.add(chunk.partition)
        return intake

    def pass_over(self, partition: Partition, offset: int) -> tuple[int, int]:
        """Settle the offsets up to `offset`, reached after the last record, as `intake.pass_over` has it.

        Returns zeros while what is read is dropped.
        """
        state = self.partitions[partition]
        counts = (0, 0) if state.held or state.revoking else pass_over(state, offset)
        if any(counts):
            self._dirty.add(partition)
        return counts

    def add_ready(self, batches: Iterable[Batch]) -> None:
        """Queue batches that may be listed and posted, without chunks that may no longer start."""
        for batch in batches:
            startable = batch.only(self.may_start)
            if startable is not None:
                self.ready.append(startable)
                self.held_bytes += startable.bytes

    def settle(self, item: Finished) -> Finished | None:
        """Queue results of records that belong to no active batch; those of released partitions are only remembered.

        Returns what was queued.
        """
        alive = self._alive(item)
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
        batch = self._end(serial, chunks)
        item = Finished(
            chunks,
            verdicts,
            batch.id,
            serial,
            attempts,
            sent_ms,
            answered_ms,
            batch.bytes if chunks is batch.chunks else -1,
            batch.trace,
        )
        return self.settle(item)

    def withdraw(self, serial: int) -> Batch:
        """Take a batch that was certainly not accepted off the in-flight list, with effect from the next tick."""
        return self._end(serial, ())

    def _end(self, serial: int, left: Iterable[Chunk]) -> Batch:
        """End a request: its batch is no longer active, and only the chunks that are `left` stay listed."""
        batch = self.active.pop(serial)
        self.active_records -= batch.count
        self.held_bytes -= batch.bytes
        self._dirty |= relist(self.partitions, serial, batch.chunks, left)
        return batch

    def again(self, batch: Batch, *, at: float) -> None:
        """Queue a batch, or a part of one, to be listed and posted again from time `at` on.

        It was certainly not accepted, except for chunks that are marked as resent.
        """
        self.remembered.note_not_accepted(batch.chunks)
        startable = batch.only(self.may_start)
        if startable is not None:
            self.held_bytes += startable.bytes
            self.queue.again(startable, at=at)

    def take_out(self, chosen: Callable[[Batch], Iterable[int]]) -> list[Batch]:
        """Take the records at the indices that `chosen` returns (ascending) out of all ready and waiting batches."""
        taken: list[Batch] = []

        def left(batch: Batch) -> Batch | None:
            indices = list(chosen(batch))
            if not indices:
                return batch
            if len(indices) < batch.count:
                out, rest = batch.divide(indices, (batch.id, f"{batch.id}.0"))
            else:
                out, rest = batch, None
            self._weigh(batch, rest)
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
        self._weigh(item, others)
        if item.serial:
            self._dirty |= relist(self.partitions, item.serial, item.chunks, others.chunks if others else ())
        if others:
            self.finished.append(others)
        return (replace(chosen, serial=0, unlisted=not chosen.recalled) if chosen else None), others

    def doubt(self, chunks: Iterable[Chunk]) -> None:
        """Keep records listed as in flight although no request for them is active: they may have been accepted."""
        for chunk in chunks:
            if self.is_alive(chunk):
                self.partitions[chunk.partition].doubt.update(runs(chunk.offsets))
                self._dirty.add(chunk.partition)

    # ------------------------------------------------------------------ ticks

    def wants_tick(self, *, now: float, slots: int) -> bool:
        """Return whether a tick would change anything."""
        if self.finished or self._dirty:
            return True
        return slots > 0 and self.queue.is_due(
            now=now, suspects=self._chooser.room_for_suspects(self.active, slots) > 0
        )

    def oldest(self, partition: Partition) -> Place:
        """Return where the first unsettled record is. Searches all batches, so only for rare questions."""
        return place_of_oldest(
            self.partitions[partition],
            answered=self.finished,
            posted=self.active.values(),
            waiting=self.queue.retries(),
            ready=self.ready,
            has_room=partition not in self.metadata_room.full_for_retries,
        )

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
        limits = self.limits
        settle = take_results(
            self.finished, self.metadata_room, max_records=limits.max_tick_records, max_bytes=limits.max_tick_bytes
        )
        start = self._choose(now, slots, trial=trial)
        settled = ranges_of(chunk for item in settle for chunk in item.chunks)
        started = ranges_of(chunk for _, batch in start for chunk in batch.chunks)
        fits, cuts = self._plan_commits(settled.keys() | started.keys() | self._dirty, settled, started)
        if cuts:
            settle, start = self._cut(settle, start, cuts)
            settled = ranges_of(chunk for item in settle for chunk in item.chunks)
        if not fits:
            return None
        return self._naming(Tick({}, settle, start, {}, settled, {}), fits)

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
        start = self._choose(now, slots, trial=trial)
        started = ranges_of(chunk for _, batch in start for chunk in batch.chunks)
        fits, cuts = self._plan_commits(started.keys(), tick.settled, started, written=tick.offsets.keys())
        if cuts:
            start = self._cut([], start, cuts)[1]
        return self._naming(replace(tick, start=start), fits)

    def committed(self, tick: Tick) -> list[tuple[int, Batch]]:
        """Adopt a tick that is known to have committed, and return the batches that may be posted now, by serial."""
        self._note_gone(tick)
        for partition, epoch in tick.epochs.items():
            state = self.partitions.get(partition)
            if state is None or state.epoch != epoch:
                continue
            is_shorter = state.adopt(
                tick.settled.get(partition, ()), tick.progress[partition], len(tick.offsets[partition][1])
            )
            self.metadata_room.committed(partition, shorter=is_shorter)
        for item in tick.settle:
            self._weigh(item)
            for chunk in item.chunks if item.serial else ():
                if chunk.partition in self.partitions:
                    self.partitions[chunk.partition].active.pop(item.serial, None)
        posted = []
        for serial, batch in tick.start:
            startable = batch.only(self.may_start)
            if startable is not batch:  # revoked or held in the meantime: listed, but no longer to be posted
                self._dirty |= {c.partition for c in batch.chunks if self.is_alive(c) and not self.may_start(c)}
                self._weigh(batch, startable)
            if startable is None:
                continue
            enlist(self.partitions, serial, startable.chunks)
            self.active[serial] = startable
            self.active_records += startable.count
            posted.append((serial, startable))
        return posted

    def aborted(self, tick: Tick) -> None:
        """Take back everything of a tick that is known not to have committed, on partitions that are still assigned."""
        self._note_gone(tick)
        self._dirty |= {p for p in tick.offsets if p in self.partitions}
        for item in reversed(tick.settle):
            alive = self._alive(item)
            self._weigh(item, alive)
            if alive is not None:
                self.finished.appendleft(alive)
        for _, batch in reversed(tick.start):
            startable = batch.only(self.may_start)
            self._weigh(batch, startable)
            if startable is not None:
                self.queue.put_back([startable])

    def _note_gone(self, tick: Tick) -> None:
        """Note, for partitions that are gone, what a tick may have committed, and that its batches were not posted."""
        self.remembered.note_committable(tick.progress)
        for _, batch in tick.start:
            self.remembered.note_not_accepted(batch.chunks)

    def _choose(self, now: float, slots: int, *, trial: bool) -> list[tuple[int, Batch]]:
        """Take the batches that start out of the queue."""
        choice = self._chooser.choose(
            self.active,
            records=self.active_records,
            max_records=self.limits.max_in_flight_records,
            slots=slots,
            now=now,
            trial=trial,
        )
        self.held_bytes += choice.added_bytes
        return choice.start

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
        """Return what to commit for each partition, and the cuts, as `fitting.plan_commits` has it."""
        fits, cuts = plan_commits(
            [self.partitions[partition] for partition in partitions],
            settled,
            started,
            mark=self._mark,
            room=self.metadata_room,
            characters=self.limits.max_metadata,
            changed=self._dirty,
            written=written,
        )
        self._dirty -= fits.keys()
        return fits, cuts

    def _naming(self, tick: Tick, fits: Mapping[Partition, PlannedCommit]) -> Tick:
        """Return a tick that commits this for these partitions as well."""
        return replace(
            tick,
            offsets={**tick.offsets, **{p: (planned.progress.base, planned.metadata) for p, planned in fits.items()}},
            epochs={**tick.epochs, **{p: self.partitions[p].epoch for p in fits}},
            progress={**tick.progress, **{p: planned.progress for p, planned in fits.items()}},
        )

    def _cut(
        self, settle: list[Finished], start: list[tuple[int, Batch]], cuts: Mapping[Partition, PlannedCommit]
    ) -> tuple[list[Finished], list[tuple[int, Batch]]]:
        """Return results and batches of a tick without records at or above the cuts, which go back to their queues."""
        kept, put_off, begun, put_back = [], [], [], []
        settle_cuts = {partition: planned.settle_cut for partition, planned in cuts.items()}
        for item in settle:
            now, later = item.cut(settle_cuts)
            if now and later:
                self._weigh(item, now, later)
                if item.serial:
                    later.serial = next(self._serials)
                    enlist(self.partitions, later.serial, later.chunks)
                    relist(self.partitions, item.serial, item.chunks, now.chunks)
            kept += [now] if now else []
            put_off += [later] if later else []
        start_cuts = {partition: planned.start_cut for partition, planned in cuts.items()}
        for serial, batch in start:
            first, rest = batch.cut(start_cuts)
            self._weigh(batch, first, rest)
            begun += [(serial, first)] if first else []
            put_back += [rest] if rest else []
        self.finished.extendleft(reversed(put_off))
        self.queue.put_back(put_back)
        return kept, begun

    # ------------------------------------------------------------------ what is left of batches and results

    def _prune_unstarted(self) -> None:
        def pruned(batch: Batch) -> Batch | None:
            startable = batch.only(self.may_start)
            self._weigh(batch, startable)
            return startable

        self.queue.change(pruned)

    def _alive(self, item: Finished) -> Finished | None:
        """Return the item without chunks of partitions that are gone, whose answers are remembered."""
        alive, gone = item.sorted_by(self.is_alive)
        if gone:
            self.remembered.answered(gone)
        return alive

    def _weigh(self, whole: Batch | Finished, *parts: Batch | Finished | None) -> None:
        """Count the memory of what is left of a batch or an item, if anything, instead of that of the whole."""
        self.held_bytes += sum(part.bytes for part in parts if part) - whole.bytes
