"""What goes into the next tick: which results, which batches, and how much of each batch.

`StartQueue` has the order in which batches start. Here is what bounds them: the slots, the records in flight, the share
of suspects, the room in the metadata of each partition, and the size up to which requests are answered. A batch that
cannot start as a whole is divided; the rest of it stays queued.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from connector.core.batching import Batch
from connector.core.metadata_room import MetadataRoom
from connector.core.results import Finished
from connector.core.sizing import SizeLimit
from connector.core.starting import SUSPECTS_SHARE, StartQueue


def take_results(finished: deque[Finished], room: MetadataRoom, *, max_records: int, max_bytes: int) -> list[Finished]:
    """Take the results that a tick writes: at most so many, and so many bytes when written, but one item always.

    Those of partitions without room for results stay where they are.
    """
    settle: list[Finished] = []
    passed_over: list[Finished] = []
    records = size = 0
    while finished:
        item = finished[0]
        if room.must_wait(item.chunks, room.stuck):
            passed_over.append(finished.popleft())
            continue
        records += item.count
        size += item.written_bytes
        if settle and (records > max_records or size > max_bytes):
            break
        settle.append(finished.popleft())
    finished.extendleft(reversed(passed_over))
    return settle


@dataclass(frozen=True, slots=True)
class Choice:
    """The batches that start, each under its new serial, and the memory in bytes that dividing batches has added."""

    start: list[tuple[int, Batch]]
    added_bytes: int


class Chooser:
    """Takes the batches that start out of the queue.

    At most one batch in flight is a witness: a record that was never posted, let in where the metadata has room only
    for records that were. If it passes while others fail, there is no outage. And at most one tries whether more
    records than the size limit are answered again.
    """

    def __init__(self, queue: StartQueue, room: MetadataRoom, size: SizeLimit, serials: Iterator[int]) -> None:
        self._queue = queue
        self._room = room
        self._size = size
        self._serials = serials
        self._witness = self._larger = -1
        """Serials of the last witness, and of the last batch that may exceed the size limit."""

    def choose(
        self, active: Mapping[int, Batch], *, records: int, max_records: int, slots: int, now: float, trial: bool
    ) -> Choice:
        """Take what may start beside the `active` batches with so many `records`: at most `slots` batches.

        They have at most `max_records` together with the active ones, unless there is only one. For a `trial`, each is
        a single record.
        """
        start: list[tuple[int, Batch]] = []
        deferred: list[Batch] = []
        added_bytes, suspects = 0, self.room_for_suspects(active, slots)
        has_witness = self._witness in active  # otherwise nothing that passes there could rule out an outage
        has_larger = self._larger in active
        while len(start) < slots:
            taken = self._queue.take(now=now, suspects=suspects > 0, trial=trial)
            if taken is None:
                break
            batch, rest, is_witness = self._with_room(taken, may_testify=not has_witness)
            if rest is not None:
                deferred.append(rest)
            if batch is None:
                self._queue.keep_turn(taken)
                continue
            added_bytes += batch.bytes + (rest.bytes if rest else 0) - taken.bytes
            if records and records + batch.count > max_records:
                self._queue.put_back([batch])
                break
            serial = next(self._serials)
            may_try = not (has_larger or batch.was_posted)
            most = 1 if trial or is_witness else self._size.most(now=now, may_try=may_try)
            others = None
            if most is not None and batch.count > most:
                whole, first = batch, self._room.first_to_start(batch.chunks)
                some = range(first, min(first + most, whole.count))
                batch, others = whole.divide(some, (f"{whole.id}.t{serial:x}", whole.id))
                self._queue.put_rest(others)
                added_bytes += batch.bytes + others.bytes - whole.bytes
            if is_witness or (others is not None and not (trial or batch.was_posted)):
                batch.family = -serial  # never posted with its former batch, so its failures are its own
            if is_witness:
                self._witness, has_witness = serial, True
            if self._size.limit is not None and batch.count > self._size.limit:
                self._larger, has_larger = serial, True
            records += batch.count
            suspects -= batch.suspect
            start.append((serial, batch))
        if slots:
            self._queue.defer(deferred)
        return Choice(start, added_bytes)

    def room_for_suspects(self, active: Mapping[int, Batch], slots: int) -> int:
        """Return how many of the waiting suspects may start beside the `active` batches, if `slots` batches may."""
        if not self._queue.has_suspects:
            return 0
        under_way = sum(batch.suspect for batch in active.values())
        return max(int(SUSPECTS_SHARE * (len(active) + slots)), 1) - under_way

    def _with_room(self, batch: Batch, *, may_testify: bool) -> tuple[Batch | None, Batch | None, bool]:
        """Return the part of a batch for which the metadata has room, the part that waits, and if this is a witness."""
        room = self._room
        if not room.part_must_wait(batch.chunks, room.full):
            return batch, None, False
        is_witness = may_testify and not batch.was_posted
        full = room.full_for_retries if is_witness or batch.was_posted else room.full
        if not room.part_must_wait(batch.chunks, full):
            return batch, None, is_witness
        return *batch.cut(dict.fromkeys(full, 0)), is_witness
