"""Counts dead letters by reason, code, source topic, stream and minute, column by column.

One `Counter` over tuples of raw header bytes: the loops run in C, and only distinct values are decoded.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, Final

from connector.core.chunks import Chunk, Headers
from connector.deadletters.letters import LAST_MS, Facts, Letter, layout_of, reason_of

_Told = tuple[bytes | None, bytes | None, bytes | None, bytes | None]
"""Reason, code, source topic, stream."""

_NAMES: Final = ("trackly.reason", "trackly.code", "trackly.origin.topic", "trackly.stream")

MINUTE_MS: Final = 60_000
AGES: Final = (("last hour", 3_600_000), ("last day", 86_400_000), ("last week", 604_800_000))
_STEPS: Final = tuple(minutes * MINUTE_MS for minutes in (1, 5, 15, 60, 360, 1_440, 10_080, 43_200))
MAX_STEPS: Final = 30
"""Maximum number of lines of a time line."""


@dataclass(slots=True)
class Sums:
    """The counts."""

    rows: Counter[tuple[_Told, int]] = field(default_factory=Counter)

    def add(self, chunk: Chunk) -> None:
        """Count the records of a chunk, which must have timestamps."""
        assert chunk.timestamps is not None
        headers = chunk.headers if chunk.headers is not None else [None] * len(chunk)
        self._count(headers, chunk.timestamps)

    def add_letters(self, letters: Iterable[Letter]) -> None:
        """Count single dead letters."""
        chosen = list(letters)
        self._count([letter.headers for letter in chosen], [letter.timestamp_ms for letter in chosen])

    def _count(self, headers: Sequence[Headers | None], timestamps: Sequence[int]) -> None:
        minutes = [time // MINUTE_MS for time in timestamps]
        told = self._told_alike(headers) or [_told(row) for row in headers]
        self.rows.update(zip(told, minutes, strict=True))

    def _told_alike(self, headers: Sequence[Headers | None]) -> list[_Told] | None:
        """Return the tuples of records whose headers are laid out like the first one's; None if any is different.

        Measured: this takes a third of examining each, and dead letters of one stream are alike.
        """
        rows = [row or [] for row in headers]
        places = layout_of(rows[0]).places if rows else {}
        if any(name not in places for name in _NAMES) or len(set(map(len, rows))) > 1:
            return None
        pick: Callable[[Headers], tuple[tuple[str, bytes | None], ...]] = itemgetter(*map(places.__getitem__, _NAMES))
        picked = list(map(pick, rows))
        values: dict[tuple[tuple[str, bytes | None], ...], _Told] = {}
        for row in set(picked):
            if tuple([name for name, _ in row]) != _NAMES:
                return None
            reason, code, topic, stream = (value for _, value in row)
            if not reason:
                return None
            values[row] = (reason, code, topic, stream)
        return [values[row] for row in picked]

    @property
    def total(self) -> int:
        """How many dead letters were counted."""
        return self.rows.total()

    def by(self, column: int) -> dict[str, int]:
        """Return counts by a column (0 reason, 1 code, 2 source topic, 3 stream), highest first.

        Equal counts are sorted by name, so that the result does not depend on which process read first.
        """
        counts: Counter[str] = Counter()
        for (row, _), count in self.rows.items():
            told = row[column]
            counts[told.decode(errors="replace") if isinstance(told, bytes) else "none"] += count
        return dict(sorted(counts.items(), key=lambda row: (-row[1], row[0])))

    def by_age(self, *, now_ms: int) -> dict[str, int]:
        """Return counts by age; each dead letter is in one class."""
        counts = dict.fromkeys([*(name for name, _ in AGES), "older"], 0)
        for (_, minute), count in self.rows.items():
            age = now_ms - minute * MINUTE_MS - MINUTE_MS
            counts[next((name for name, limit in AGES if age < limit), "older")] += count
        return counts

    def time_line(self) -> list[tuple[str, int]]:
        """Return counts by time, in steps of suitable width, from the first that is not empty to the last."""
        if not self.rows:
            return []
        minutes = [_within(minute) for _, minute in self.rows]
        span = max(minutes) - min(minutes)
        step = next((step for step in _STEPS if span // step < MAX_STEPS), _STEPS[-1])
        counts: Counter[int] = Counter()
        for (_, minute), count in self.rows.items():
            counts[_within(minute) // step] += count
        first = min(counts) if (max(counts) - min(counts)) < 4 * MAX_STEPS else None
        starts = sorted(counts) if first is None else range(first, max(counts) + 1)
        return [(_minute(start * step), counts[start]) for start in starts]

    def as_json(self, *, now_ms: int) -> dict[str, Any]:
        """Return everything as JSON-ready values."""
        return {
            "total": self.total,
            "reasons": self.by(0),
            "codes": self.by(1),
            "source_topics": self.by(2),
            "streams": self.by(3),
            "ages": self.by_age(now_ms=now_ms),
            "time_line": [{"from": start, "count": count} for start, count in self.time_line()],
        }


def _told(row: Headers | None) -> _Told:
    said = Facts(row or [])
    topic = said.get("trackly.origin.topic") or said.get("__connect.errors.topic") or said.get("__dlq.errors.topic")
    return reason_of(said).encode(), said.get("trackly.code"), topic, said.get("trackly.stream")


def _within(minute: int) -> int:
    """Return the time of a minute in milliseconds, limited to the range of valid times."""
    return min(max(minute * MINUTE_MS, 0), LAST_MS // MINUTE_MS * MINUTE_MS)


def _minute(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%MZ")
