"""Counts dead letters by reason, code, source topic, stream and minute, column by column.

One `Counter` over tuples of what headers say, taken as the bytes that they are: the loops run in C, and only what is
distinct is ever turned into text.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from connector.core.chunks import Chunk, Headers
from connector.deadletters.letters import Facts, Letter, reason_of

_Row = tuple[bytes | None, bytes | None, bytes | None, bytes | None, int]

MINUTE_MS: Final = 60_000
AGES: Final = (("last hour", 3_600_000), ("last day", 86_400_000), ("last week", 604_800_000))
_STEPS: Final = tuple(minutes * MINUTE_MS for minutes in (1, 5, 15, 60, 360, 1_440, 10_080, 43_200))
MAX_STEPS: Final = 30
"""Lines of a time line, at most."""


@dataclass(slots=True)
class Sums:
    """What was counted."""

    rows: Counter[_Row] = field(default_factory=Counter)

    def add(self, chunk: Chunk) -> None:
        """Count the records of a chunk, which has its timestamps."""
        assert chunk.timestamps is not None
        headers = chunk.headers if chunk.headers is not None else [None] * len(chunk)
        self._count(headers, chunk.timestamps)

    def add_letters(self, letters: Iterable[Letter]) -> None:
        """Count single dead letters."""
        chosen = list(letters)
        self._count([letter.headers for letter in chosen], [letter.timestamp_ms for letter in chosen])

    def _count(self, headers: Iterable[Headers | None], timestamps: Iterable[int]) -> None:
        facts = [Facts(row or []) for row in headers]
        self.rows.update(
            zip(
                [said.get("trackly.reason") or reason_of(said).encode() for said in facts],
                [said.get("trackly.code") for said in facts],
                [
                    said.get("trackly.origin.topic")
                    or said.get("__connect.errors.topic")
                    or said.get("__dlq.errors.topic")
                    for said in facts
                ],
                [said.get("trackly.stream") for said in facts],
                [time // MINUTE_MS for time in timestamps],
                strict=True,
            )
        )

    @property
    def total(self) -> int:
        """Dead letters counted."""
        return self.rows.total()

    def by(self, column: int) -> dict[str, int]:
        """Return counts by what stands in a column (0 reason, 1 code, 2 source topic, 3 stream), most first."""
        counts: Counter[str] = Counter()
        for row, count in self.rows.items():
            told = row[column]
            counts[told.decode(errors="replace") if isinstance(told, bytes) else "none"] += count
        return dict(counts.most_common())

    def by_age(self, *, now_ms: int) -> dict[str, int]:
        """Return counts by age; each dead letter is in one."""
        counts = dict.fromkeys([*(name for name, _ in AGES), "older"], 0)
        for row, count in self.rows.items():
            age = now_ms - row[4] * MINUTE_MS - MINUTE_MS
            counts[next((name for name, limit in AGES if age < limit), "older")] += count
        return counts

    def time_line(self) -> list[tuple[str, int]]:
        """Return counts by time, in steps as wide as it takes, from the first that is not empty to the last."""
        if not self.rows:
            return []
        minutes = [row[4] * MINUTE_MS for row in self.rows]
        span = max(minutes) - min(minutes)
        step = next((step for step in _STEPS if span // step < MAX_STEPS), _STEPS[-1])
        counts: Counter[int] = Counter()
        for row, count in self.rows.items():
            counts[row[4] * MINUTE_MS // step] += count
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


def _minute(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1_000, UTC).strftime("%Y-%m-%dT%H:%MZ")
