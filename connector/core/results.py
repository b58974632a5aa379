"""Records that have their verdict: on their way to its topic, and remembered where that way was cut off."""

from array import array
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from connector.core.chunks import Chunk, Partition, split, weight
from connector.core.progress import RangeSet, runs
from connector.core.verdicts import Verdicts


@dataclass(slots=True, eq=False)
class Finished:
    """Records whose verdict is not yet on its topic. `serial` is the listing they were posted under, or 0."""

    chunks: tuple[Chunk, ...] = field(repr=False)
    verdicts: Verdicts
    batch_id: str = ""
    serial: int = 0
    attempts: int = 0
    sent_ms: int = 0
    """When the records were last posted, in milliseconds since 1970; 0 if never."""
    answered_ms: int = 0
    """When their request was answered, or given up; 0 where the verdict is of no request."""
    bytes: int = -1
    """Kept in memory for them, near enough for a budget; counted when they are not given."""
    trace: str | None = None
    """The context of the span that the records were posted under, where traces are on."""
    recalled: bool = False
    """They were posted under an assignment that is over; under this one they were read, and nothing else."""
    unlisted: bool = False
    """They were taken off the list, unwritten: whoever has their partition next may post them."""

    def __post_init__(self) -> None:
        if self.bytes < 0:
            self.bytes = sum(map(weight, self.chunks))

    @property
    def count(self) -> int:
        """The number of records."""
        return sum(map(len, self.chunks))

    @property
    def was_batched(self) -> bool:
        """Tell whether the way of the records led through a batch, whether that was posted or not."""
        return self.batch_id != ""

    def reasons(self) -> Counter[str]:
        """Count the dead letters by reason."""
        counts: Counter[str] = Counter()
        exceptions = self.verdicts.exceptions
        for verdict in exceptions.values():
            if verdict.status == "dead_letter":
                counts[verdict.reason] += 1
        if self.verdicts.default.status == "dead_letter":
            counts[self.verdicts.default.reason] += self.count - len(exceptions)
        return counts

    def split(self, indices: Sequence[int]) -> tuple["Finished | None", "Finished | None"]:
        """Return the results of the records at `indices`, which rise, and those of all others; None for no records."""
        inside = set(indices)
        rest = [index for index in range(self.count) if index not in inside]
        if not indices or not rest:
            return (self, None) if indices else (None, self)
        chosen, others = split(self.chunks, indices)
        return self._part(chosen, indices), self._part(others, rest)

    def _part(self, chunks: tuple[Chunk, ...], indices: Sequence[int]) -> "Finished":
        return replace(self, chunks=chunks, verdicts=self.verdicts.picked(indices), bytes=-1)


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


class Answers:
    """Answers for records whose partition went away before their results were written.

    Who takes the partition over finds them listed as in flight. Where that is this worker again, as when the brokers
    were away for longer than a session, it need not doubt what it was told: what the platform has said of a record
    stays true, whatever became of the assignment. The records are not kept, as they are read again. Of too many answers
    the oldest are forgotten, which leaves their records in doubt, as those of a worker that is gone.
    """

    def __init__(self, max_records: int) -> None:
        self._max_records = max_records
        self._records = 0
        self._answers: deque[_Answer] = deque()

    def keep(self, item: Finished, may_be_doubted: Callable[[Chunk], bool]) -> None:
        """Remember results of records that were posted, and are listed as long as nobody has written a result.

        That an answer was lost tells no more than the listing.
        """
        if not item.was_batched or item.unlisted or item.verdicts.default.reason == "in_doubt":
            return
        at = 0
        for chunk in item.chunks:
            places = range(at, at + len(chunk))
            at += len(chunk)
            if may_be_doubted(chunk):
                told = replace(item, chunks=(), verdicts=item.verdicts.picked(places), serial=0, bytes=0)
                numbers = _dense(chunk.indices or places)
                self._answers.append(_Answer(chunk.partition, _dense(chunk.offsets), numbers, chunk.resent, told))
                self._records += len(chunk)
        while self._records > self._max_records:
            self._records -= len(self._answers.popleft().offsets)

    def assigned(self, partition: Partition, doubt: RangeSet) -> None:
        """Forget what has its result by now, or is not even the same record, as where a topic was made anew."""
        self._drop(lambda answer: answer.partition == partition and not any(o in doubt for o in answer.offsets))

    def without(self, partition: Partition, doubt: RangeSet) -> RangeSet:
        """Return what is left of offsets in doubt, which is nothing where all of them are answered for."""
        left = doubt.copy()
        for answer in self._answers:
            if answer.partition == partition:
                for start, stop in runs(answer.offsets):
                    left.discard(start, stop)
        return left

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
