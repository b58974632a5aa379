"""What shaping makes of a chunk: events in the shape of the API, or why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass, field

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
    max_segments: int | None = None
    """A text that takes more is refused."""
    limits: dict[int, int] = field(default_factory=dict)
    """The same by index, where the records of a chunk are not all of one topic at first."""

    @classmethod
    def unchanged(cls, chunk: Chunk, *, max_segments: int | None = None) -> "Shaped":
        """Return the events of a chunk whose values are in the API's shape already."""
        return cls(chunk.values, max_segments=max_segments)
