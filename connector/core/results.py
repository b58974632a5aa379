"""Records that have their verdict, on their way to its topic."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from connector.core.chunks import Chunk, split, weight
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
