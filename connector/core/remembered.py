"""What this worker still knows of partitions that it let go, should they come back.

Who takes a partition over finds what was in flight listed as such, and has to doubt it. Where that is this worker
again, as when the brokers were away for longer than a session, it need not doubt what it was told: what the platform
has said of a record stays true, whatever became of the assignment. Nor need it doubt what it listed itself and knows
that nobody took, as long as nobody else has committed anything since.
"""

from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from connector.core.chunks import Chunk, Partition
from connector.core.partition import PartitionState
from connector.core.progress import Progress, RangeSet, runs
from connector.core.results import Finished


@dataclass(slots=True, eq=False)
class _Left:
    """What was listed of a partition when it was let go, and is listed yet if nobody else has committed since."""

    epoch: int
    said: list[Progress]
    """Any of these may stand committed. If one does, nobody else has posted anything since."""
    untaken: RangeSet
    """They may list these as in flight; these were never posted, or surely not taken."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is known of records of one partition that were in one request."""

    partition: Partition
    offsets: Sequence[int]
    numbers: Sequence[int]
    """Where each stood in the request."""
    resent: bool
    item: Finished
    """Their verdicts, without the records."""


class Remembered:
    """What is known of the records of partitions that went away.

    The records are not kept, as they are read again. Of answers for too many records the oldest are forgotten, which
    leaves their records in doubt, as those of a worker that is gone.
    """

    def __init__(self, max_records: int) -> None:
        self._max_records = max_records
        self._records = 0
        self._answers: deque[_Answer] = deque()
        """For records whose partition went away before their results were written."""
        self._latest: dict[Partition, PartitionState] = {}
        """The state of each partition that was ever ours, under its latest assignment."""
        self._left: dict[Partition, _Left] = {}

    # ------------------------------------------------------------------ partitions come and go

    def let_go(self, state: PartitionState) -> None:
        """Take note of what is listed of a partition that is let go."""
        self._left[state.partition] = _Left(state.epoch, [state.told], state.untaken())

    def assigned(self, state: PartitionState) -> None:
        """Forget what was listed, and the answers for what has its result by now.

        What nobody doubts may not even be the same record, as where a topic was made anew.
        """
        partition, doubt = state.partition, state.doubt
        self._latest[partition] = state
        self._left.pop(partition, None)
        self._drop(lambda answer: answer.partition == partition and not any(o in doubt for o in answer.offsets))

    def doubtful(self, partition: Partition, progress: Progress) -> RangeSet:
        """Return what a progress lists as in flight, without what is known that nobody has taken."""
        doubt = progress.in_flight.copy()
        if self.is_ours(partition, progress):
            for start, stop in self._left[partition].untaken:
                doubt.discard(start, stop)
        return doubt

    def is_ours(self, partition: Partition, progress: Progress) -> bool:
        """Tell whether it was this worker that committed a progress, and let the partition go after it."""
        left = self._left.get(partition)
        return left is not None and progress in left.said

    def unsettled(self, partition: Partition) -> int:
        """Return how many records were read of a partition, when it was ours last, and not settled."""
        state = self._latest[partition]
        holes = sum(stop - start for start, stop in state.holes)
        return max(state.next_read - state.base - state.settled.count - holes, 0)

    def unknown(self, partition: Partition, progress: Progress) -> RangeSet:
        """Return which records are in doubt, if a partition begins at this progress, that no answer is known for."""
        doubt = self.doubtful(partition, progress)
        for answer in self._answers:
            if answer.partition == partition:
                for start, stop in runs(answer.offsets):
                    doubt.discard(start, stop)
        return doubt

    # ------------------------------------------------------------------ what is learned of those that are gone

    def said(self, told: Mapping[Partition, Progress]) -> None:
        """Note of partitions that are gone what a tick said of them: it may stand committed."""
        for partition, progress in told.items():
            if partition in self._left:
                self._left[partition].said.append(progress)

    def not_taken(self, chunks: Iterable[Chunk]) -> None:
        """Note of partitions that are gone what was not taken; what is posted again may have been, at first."""
        for chunk in chunks:
            left = self._left.get(chunk.partition)
            if left is not None and left.epoch == chunk.epoch and not chunk.resent:
                left.untaken.update(runs(chunk.offsets))

    def answered(self, item: Finished) -> None:
        """Remember results of records that were posted, and are listed as long as nobody has written a result.

        That an answer was lost tells no more than the listing.
        """
        if not item.was_batched or item.unlisted or item.verdicts.default.reason == "in_doubt":
            return
        at = 0
        for chunk in item.chunks:
            places = range(at, at + len(chunk))
            at += len(chunk)
            if self._may_be_doubted(chunk):
                told = replace(item, chunks=(), verdicts=item.verdicts.picked(places), serial=0, bytes=0)
                numbers = _dense(chunk.indices or places)
                self._answers.append(_Answer(chunk.partition, _dense(chunk.offsets), numbers, chunk.resent, told))
                self._records += len(chunk)
        while self._records > self._max_records:
            self._records -= len(self._answers.popleft().offsets)

    def _may_be_doubted(self, chunk: Chunk) -> bool:
        """Tell whether records may be found in doubt that were posted under an assignment that is over.

        If it was not the latest, that one began with them in doubt: or they are settled, or not even the same records,
        as where the topic was made anew.
        """
        latest = self._latest[chunk.partition]
        return chunk.epoch == latest.epoch or any(offset in latest.doubt for offset in chunk.offsets)

    # ------------------------------------------------------------------ their records are read again

    def recall(self, chunk: Chunk) -> tuple[tuple[Finished, ...], Chunk | None]:
        """Return the results of records in doubt that were just read, and those of them that nobody can tell of."""
        places = dict(zip(chunk.offsets, range(len(chunk)), strict=True))
        last = chunk.offsets[-1]
        found: list[Finished] = []
        for answer in reversed(self._answers):  # what was posted twice has the later answer
            if answer.partition == chunk.partition:
                told = [
                    (place, at)
                    for at, offset in enumerate(answer.offsets)
                    if (place := places.pop(offset, None)) is not None
                ]
                if told:
                    found.append(_result(answer, chunk, *zip(*told, strict=True)))
        self._drop(lambda answer: answer.partition == chunk.partition and answer.offsets[-1] <= last)
        return tuple(found), chunk.pick(list(places.values())) if places else None

    def _drop(self, unwanted: Callable[[_Answer], bool]) -> None:
        self._answers = deque(answer for answer in self._answers if not unwanted(answer))
        self._records = sum(len(answer.offsets) for answer in self._answers)


def _result(answer: _Answer, chunk: Chunk, places: Sequence[int], at: Sequence[int]) -> Finished:
    """Return the results of records at `places` of a chunk, of which an answer tells at `at`."""
    numbers = [answer.numbers[index] for index in at]
    records = replace(chunk.pick(places), indices=numbers, resent=answer.resent)
    return replace(answer.item, chunks=(records,), verdicts=answer.item.verdicts.picked(at), bytes=-1, recalled=True)


def _dense(numbers: Sequence[int]) -> Sequence[int]:
    """Return rising numbers as a range, or in eight bytes each."""
    first, last = numbers[0], numbers[-1]
    return range(first, last + 1) if last - first + 1 == len(numbers) else array("q", numbers)
