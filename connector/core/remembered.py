"""What this worker still knows of partitions that it released, in case they come back.

A new owner finds what was in flight listed, and must treat it as in doubt. If that owner is this worker again, as after
an outage of the brokers that was longer than a session, less is in doubt. Answers of the platform stay valid whatever
became of the assignment. And records that this worker listed and knows were not accepted are not in doubt either, as
long as nobody else has committed anything since.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from connector.core.chunks import Chunk, Partition
from connector.core.partition import PartitionState
from connector.core.progress import Progress
from connector.core.ranges import RangeSet, runs
from connector.core.results import Finished


@dataclass(slots=True, eq=False)
class _Left:
    """What was listed for a partition when it was released; still valid if nobody else has committed since."""

    epoch: int
    committable: list[Progress]
    """Any of these may be committed. If one of them is, nobody else has posted anything since."""
    not_accepted: RangeSet
    """Offsets that these may list as in flight, although they were never posted or certainly not accepted."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is known of the records of one partition that shared a request."""

    partition: Partition
    offsets: Sequence[int]
    numbers: Sequence[int]
    """Index of each record in the request."""
    resent: bool
    item: Finished
    """The verdicts, without the records."""

    def among(self, doubt: RangeSet) -> "_Answer | None":
        """Return what is known of those of its records that are in doubt, None if none is."""
        at = [index for index, offset in enumerate(self.offsets) if offset in doubt]
        if len(at) == len(self.offsets):
            return self
        if not at:
            return None
        offsets, numbers = ([column[index] for index in at] for column in (self.offsets, self.numbers))
        told = replace(self.item, verdicts=self.item.verdicts.picked(at))
        return replace(self, offsets=_dense(offsets), numbers=_dense(numbers), item=told)


class Remembered:
    """What is known of the records of partitions that are gone.

    The records themselves are not kept, since they are read again. Beyond `max_records` the oldest answers are
    forgotten, which leaves their records in doubt, as after a crash.
    """

    def __init__(self, max_records: int) -> None:
        self._max_records = max_records
        self._records = 0
        self._answers: deque[_Answer] = deque()
        """For records whose partition was released before their results were written."""
        self._latest: dict[Partition, PartitionState] = {}
        """For each partition that was ever assigned, its state under the latest assignment."""
        self._left: dict[Partition, _Left] = {}
        self._replaced: dict[Partition, int] = {}
        """The first assignment of a partition after its topic was recreated: answers from before are of others."""

    # ------------------------------------------------------------------ partitions come and go

    def release(self, state: PartitionState) -> None:
        """Note what is listed for a partition that is released."""
        self._left[state.partition] = _Left(state.epoch, [state.committed], state.not_accepted())

    def assigned(self, state: PartitionState) -> None:
        """Forget what was listed, and the answers for records that have their results by now.

        A record that is no longer in doubt may not even be the same one, if the topic was recreated or truncated.
        """
        partition, doubt = state.partition, state.doubt
        self._latest[partition] = state
        self._left.pop(partition, None)
        self._keep(partition, lambda answer: answer.among(doubt))

    def replaced(self, partition: Partition, epoch: int) -> None:
        """Forget the answers for records of a topic that was recreated, and what comes late of those before `epoch`."""
        self._replaced[partition] = epoch
        self._keep(partition, lambda _answer: None)

    def doubtful(self, partition: Partition, progress: Progress) -> RangeSet:
        """Return what a progress lists as in flight, except for records that are known not to have been accepted."""
        doubt = progress.in_flight.copy()
        if self.is_ours(partition, progress):
            for start, stop in self._left[partition].not_accepted:
                doubt.discard(start, stop)
        return doubt

    def is_ours(self, partition: Partition, progress: Progress) -> bool:
        """Return whether this worker committed this progress, and nobody has committed since."""
        left = self._left.get(partition)
        return left is not None and progress in left.committable

    def unsettled(self, partition: Partition) -> int:
        """Return how many records of a partition were read and not settled when it was last assigned here."""
        state = self._latest[partition]
        holes = sum(stop - start for start, stop in state.holes)
        return max(state.next_read - state.base - state.settled.count - holes, 0)

    def unknown(self, partition: Partition, progress: Progress) -> RangeSet:
        """Return the records in doubt, with no known answer, if a partition starts at this progress."""
        doubt = self.doubtful(partition, progress)
        for answer in self._answers:
            if answer.partition == partition:
                for start, stop in runs(answer.offsets):
                    doubt.discard(start, stop)
        return doubt

    # ------------------------------------------------------------------ news about partitions that are gone

    def note_committable(self, tick: Mapping[Partition, Progress]) -> None:
        """Note what a tick may have committed for partitions that are gone."""
        for partition, progress in tick.items():
            if partition in self._left:
                self._left[partition].committable.append(progress)

    def note_not_accepted(self, chunks: Iterable[Chunk]) -> None:
        """Note records of partitions that are gone that were not accepted.

        Resent ones do not count: an earlier post of theirs may have been accepted.
        """
        for chunk in chunks:
            left = self._left.get(chunk.partition)
            if left is not None and left.epoch == chunk.epoch and not chunk.resent:
                left.not_accepted.update(runs(chunk.offsets))

    def answered(self, item: Finished) -> None:
        """Remember results of records that are still listed as in flight because no result was written.

        A lost answer is not remembered: it says no more than the list.
        """
        if not item.was_batched or item.unlisted or item.verdicts.default.reason == "in_doubt":
            return
        at = 0
        for chunk in item.chunks:
            places = range(at, at + len(chunk))
            at += len(chunk)
            told = replace(item, chunks=(), verdicts=item.verdicts.picked(places), serial=0, bytes=0)
            numbers = _dense(chunk.indices or places)
            answer = _Answer(chunk.partition, _dense(chunk.offsets), numbers, chunk.resent, told)
            kept = self._as_far_as_doubted(answer, chunk.epoch)
            if kept is not None:
                self._answers.append(kept)
                self._records += len(kept.offsets)
        while self._records > self._max_records:
            self._records -= len(self._answers.popleft().offsets)

    def _as_far_as_doubted(self, answer: _Answer, epoch: int) -> _Answer | None:
        """Return what is known of those records posted in `epoch` that may still turn up as in doubt, None if none may.

        If that was not the latest assignment, they must be in doubt under the latest: otherwise they are settled, or
        are not even the same records because the topic was recreated or truncated.
        """
        if epoch < self._replaced.get(answer.partition, 0):
            return None
        latest = self._latest[answer.partition]
        return answer if epoch == latest.epoch else answer.among(latest.doubt)

    # ------------------------------------------------------------------ their records are read again

    def recall(self, chunk: Chunk) -> tuple[tuple[Finished, ...], Chunk | None]:
        """Return the results of records in doubt that were just read, and a chunk of those with no known answer."""
        places = dict(zip(chunk.offsets, range(len(chunk)), strict=True))
        last = chunk.offsets[-1]
        found: list[Finished] = []
        for answer in reversed(self._answers):  # of records that were posted twice, the later answer counts
            if answer.partition == chunk.partition:
                told = [
                    (place, at)
                    for at, offset in enumerate(answer.offsets)
                    if (place := places.pop(offset, None)) is not None
                ]
                if told:
                    found.append(_result(answer, chunk, *zip(*told, strict=True)))
        self._keep(chunk.partition, lambda answer: answer if answer.offsets[-1] > last else None)
        return tuple(found), chunk.pick(list(places.values())) if places else None

    def _keep(self, partition: Partition, kept: Callable[[_Answer], _Answer | None]) -> None:
        """Replace each answer for a partition by the result of `kept`; None removes it."""
        every = [kept(answer) if answer.partition == partition else answer for answer in self._answers]
        self._answers = deque(answer for answer in every if answer is not None)
        self._records = sum(len(answer.offsets) for answer in self._answers)


def _result(answer: _Answer, chunk: Chunk, places: Sequence[int], at: Sequence[int]) -> Finished:
    """Return the results of the records at `places` of a chunk, which are those at `at` of the answer."""
    numbers = [answer.numbers[index] for index in at]
    records = replace(chunk.pick(places), indices=numbers, resent=answer.resent)
    return replace(answer.item, chunks=(records,), verdicts=answer.item.verdicts.picked(at), bytes=-1, recalled=True)


def _dense(numbers: Sequence[int]) -> Sequence[int]:
    """Return ascending numbers as a range, or in eight bytes each."""
    first, last = numbers[0], numbers[-1]
    return range(first, last + 1) if last - first + 1 == len(numbers) else array("q", numbers)
