"""What shaping makes of a chunk: events in the shape of the API, or why there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connector.core.chunks import Chunk
from connector.core.verdicts import Verdict


@dataclass(slots=True)
class Shaped:
    """The events of a chunk, one for each record; the chunk keeps the bytes that were read."""

    events: Sequence[bytes | None] = field(repr=False)
    """JSON as the API takes it; None where a record has its verdict, or is a tombstone. The chunk's own values where
    nothing was changed."""
    bad: dict[int, Verdict] = field(default_factory=dict)
    """By index: dead letters and what is skipped."""
    fields: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False)
    """The fields of the events of all records without a verdict, as columns, UNSET where one lacks it; empty where that
    is not known. They hold what JSON holds. Who checks events need not decode what was just encoded."""
    max_segments: int | None = None
    """A text that takes more is refused."""
    limits: dict[int, int] = field(default_factory=dict)
    """The same by index, where the records of a chunk are not all of one topic at first."""

    @classmethod
    def unchanged(cls, chunk: Chunk, *, max_segments: int | None = None) -> "Shaped":
        """Return the events of a chunk whose values are in the API's shape already."""
        return cls(chunk.values, max_segments=max_segments)

    def undecided(self) -> tuple[Sequence[int], "Shaped"]:
        """Return the indices of the records without a verdict, and what was made of them."""
        if not self.bad:
            return range(len(self.events)), self
        live = [index for index in range(len(self.events)) if index not in self.bad]
        limits = {at: self.limits[index] for at, index in enumerate(live) if index in self.limits}
        events = [self.events[index] for index in live]
        return live, Shaped(events, {}, self.fields, max_segments=self.max_segments, limits=limits)

    def put(self, indices: Sequence[int], part: "Shaped") -> None:
        """Put the events and verdicts of a part where its records stand."""
        assert isinstance(self.events, list)
        for index, event in zip(indices, part.events, strict=True):
            self.events[index] = event
        self.bad.update({indices[at]: verdict for at, verdict in part.bad.items()})
