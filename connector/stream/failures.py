"""The latest kinds of dead letters of a stream, for display: one entry per reason, code and HTTP status.

The cost is per batch and reason, never per record. Texts are kept as the platform gave them, and masked only when they
are displayed.
"""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from connector.core.chunks import Partition, locate
from connector.core.results import Finished
from connector.core.verdicts import Verdict

KEPT: Final = 20

Kind = tuple[str, str | None, int | None]


@dataclass(slots=True)
class Failure:
    """Dead letters of one kind: the first of the last batch that had any, and the total number."""

    at: float
    verdict: Verdict
    partition: Partition
    offset: int
    count: int


@dataclass(slots=True)
class Failures:
    """The latest failures of a stream, newest last. Not thread-safe: used under the stream's lock."""

    _kept: dict[Kind, Failure] = field(default_factory=dict)

    def note(self, item: Finished, reasons: Counter[str]) -> None:
        """Note the failures of an item; `reasons` is the result of its `reasons()`."""
        for reason, count in reasons.items():
            verdict, index = _first(item, reason)
            chunk, at = locate(item.chunks, index)
            kind = verdict.reason, verdict.code, verdict.http_status
            known = self._kept.pop(kind, None)
            before = known.count if known is not None else 0
            self._kept[kind] = Failure(time.time(), verdict, chunk.partition, chunk.offsets[at], before + count)
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def status(self, hide: Callable[[str], str]) -> list[dict[str, Any]]:
        """Return them as JSON-ready values, newest first; `hide` masks texts of the platform."""
        return [
            {
                "at": round(failure.at, 3),
                "reason": failure.verdict.reason,
                "code": None if failure.verdict.code is None else hide(failure.verdict.code),
                "text": hide(failure.verdict.text),
                "http_status": failure.verdict.http_status,
                "position": f"{failure.partition}:{failure.offset}",
                "count": failure.count,
            }
            for failure in reversed(self._kept.values())
        ]


def _first(item: Finished, reason: str) -> tuple[Verdict, int]:
    """Return the verdict of the first record that failed for this reason, and its index; there must be one."""
    exceptions, default = item.verdicts.exceptions, item.verdicts.default
    for index, verdict in exceptions.items():
        if verdict.status == "dead_letter" and verdict.reason == reason:
            return verdict, index
    return default, next(index for index in range(len(exceptions) + 1) if index not in exceptions)
