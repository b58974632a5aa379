"""Records that have a verdict, until their results are written."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from connector.core.chunks import Chunk, Partition, below, large_key_bytes, split, weight
from connector.core.verdicts import Verdicts

OUTCOME_BYTES = 550
DEAD_LETTER_BYTES = 2_600
"""Memory in librdkafka's queue of an outcome, and of a dead letter besides its record: mostly its headers."""


@dataclass(slots=True, eq=False)
class Finished:
    """Records whose results are not written yet. `serial` is the listing they were posted under, or 0."""

    chunks: tuple[Chunk, ...] = field(repr=False)
    verdicts: Verdicts
    batch_id: str = ""
    serial: int = 0
    attempts: int = 0
    sent_ms: int = 0
    """When the records were last posted, in milliseconds since 1970; 0 if never."""
    answered_ms: int = 0
    """When their request was answered, or given up; 0 if the verdict does not come from a request."""
    bytes: int = -1
    """Approximate memory for the buffer budget; computed if not given."""
    trace: str | None = None
    """With tracing: the context of the span under which the records were posted."""
    recalled: bool = False
    """They were posted under an earlier assignment; under the present one they were only read."""
    unlisted: bool = False
    """They were taken off the in-flight list without a result: the next owner of their partition may post them."""

    def __post_init__(self) -> None:
        if self.bytes < 0:
            self.bytes = sum(map(weight, self.chunks))

    @property
    def count(self) -> int:
        """How many records there are."""
        return sum(map(len, self.chunks))

    @property
    def written_bytes(self) -> int:
        """Approximate memory of the results in the producer's queue, until the brokers have them."""
        dead = self.reasons().total()
        outcomes = OUTCOME_BYTES * (self.count - dead) + sum(map(large_key_bytes, self.chunks))
        return outcomes + DEAD_LETTER_BYTES * dead + self.bytes * dead // self.count

    @property
    def was_batched(self) -> bool:
        """Return whether the records were part of a batch, posted or not."""
        return self.batch_id != ""

    def reasons(self) -> Counter[str]:
        """Count the dead letters by reason."""
        counts: Counter[str] = Counter()
        exceptions = self.verdicts.exceptions
        for verdict in exceptions.values():
            if verdict.status == "dead_letter":
                counts[verdict.reason] += 1
        default, others = self.verdicts.default, self.count - len(exceptions)
        if others and default.status == "dead_letter":
            counts[default.reason] += others
        return counts

    def split(self, indices: Sequence[int]) -> tuple["Finished | None", "Finished | None"]:
        """Return the results of the records at `indices` (ascending), and those of all others; None for no records."""
        inside = set(indices)
        rest = [index for index in range(self.count) if index not in inside]
        if not indices or not rest:
            return (self, None) if indices else (None, self)
        chosen, others = split(self.chunks, indices)
        return self._part(chosen, indices), self._part(others, rest)

    def cut(self, cuts: Mapping[Partition, int | None]) -> tuple["Finished | None", "Finished | None"]:
        """Return the results below the cut of their partition, and all others, as `below` has it; None for none."""
        return self.split(below(self.chunks, cuts))

    def sorted_by(self, wanted: Callable[[Chunk], bool]) -> tuple["Finished | None", "Finished | None"]:
        """Return the results in chunks for which `wanted` is true, and all others; None for no records."""
        if all(map(wanted, self.chunks)):
            return self, None
        indices: list[int] = []
        start = 0
        for chunk in self.chunks:
            indices += range(start, start + len(chunk)) if wanted(chunk) else ()
            start += len(chunk)
        return self.split(indices)

    def _part(self, chunks: tuple[Chunk, ...], indices: Sequence[int]) -> "Finished":
        return replace(self, chunks=chunks, verdicts=self.verdicts.picked(indices), bytes=-1)
