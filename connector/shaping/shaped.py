"""The result of shaping a chunk: events as the API accepts them, or why there are none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from connector.core.chunks import Chunk
from connector.core.verdicts import Verdict


@dataclass(slots=True)
class Shaped:
    """The events of a chunk, one per record; the chunk keeps the bytes that were read."""

    events: Sequence[bytes | None] = field(repr=False)
    """JSON as the API accepts it; None if a record has its verdict, or is a tombstone. The chunk's own values if
    nothing was changed."""
    bad: dict[int, Verdict] = field(default_factory=dict)
    """By index: dead letters and skipped records."""
    fields: Mapping[str, Sequence[Any]] = field(default_factory=dict, repr=False)
    """The fields of the events of all records without a verdict, as columns of JSON values, UNSET where an event has
    none; empty if unknown. With them, checks need not decode what was just encoded."""
    max_segments: int | None = None
    """Maximum number of segments of a text."""
    limits: dict[int, int] = field(default_factory=dict)
    """The same by index, if the records of a chunk come from several topics originally."""

    @classmethod
    def unchanged(cls, chunk: Chunk, *, max_segments: int | None = None) -> "Shaped":
        """Return the events of a chunk whose values already have the API's shape."""
        return cls(chunk.values, max_segments=max_segments)

    def undecided(self) -> tuple[Sequence[int], "Shaped"]:
        """Return the indices of the records without a verdict, and their events."""
        if not self.bad:
            return range(len(self.events)), self
        live = [index for index in range(len(self.events)) if index not in self.bad]
        limits = {at: self.limits[index] for at, index in enumerate(live) if index in self.limits}
        events = [self.events[index] for index in live]
        return live, Shaped(events, {}, self.fields, max_segments=self.max_segments, limits=limits)

    def put(self, indices: Sequence[int], part: "Shaped") -> None:
        """Insert the events and verdicts of a part at the indices of its records."""
        assert isinstance(self.events, list)
        for index, event in zip(indices, part.events, strict=True):
            self.events[index] = event
        self.bad.update({indices[at]: verdict for at, verdict in part.bad.items()})
