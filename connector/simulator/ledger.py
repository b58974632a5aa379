"""The ledger of what the platform accepted, by record, which tests of the guarantees use.

One dict per kind of record, from identity to how often it was accepted, and a few counters: cheap for a million
records. Identities may be texts and phone numbers, so only the control API returns them, never a log.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

EXAMPLES: Final = 100


class OperationTotals(msgspec.Struct, frozen=True):
    """What became of the records of one kind."""

    accepted: int
    distinct: int | None
    accepted_twice: int
    unidentified: int
    refused: int
    duplicates: int


class LedgerTotals(msgspec.Struct, frozen=True):
    """The ledger's totals. `distinct` is None for a fast simulator, which stores no identities."""

    accepted: int
    """Records accepted, repeats included."""
    distinct: int | None
    """Identities accepted at least once."""
    accepted_twice: int
    """Identities accepted more than once."""
    accepted_twice_examples: tuple[str, ...]
    """The first of those, 100 for each kind of record at most."""
    unidentified: int
    """Records accepted that have no identity."""
    refused: int
    """Records that failed with a code of their own."""
    duplicates: int
    """Records that were skipped or suppressed as repeats: not accepted again."""
    by_operation: dict[str, OperationTotals]
    record_codes: dict[str, int]
    """Refused records by code."""
    requests: int
    requests_by_endpoint: dict[str, int]
    records_by_endpoint: dict[str, int]
    """Records taken or refused one by one; those of requests that failed as a whole are not in it."""
    replies_by_status: dict[int, int]
    unanswered: dict[str, int]
    """Requests that a fault left without a whole answer, by fault."""
    in_flight: int
    """Requests read, whose answer is not out yet."""
    in_flight_max: int
    connections: int
    request_bytes: int
    reply_bytes: int
    """Bodies only, both."""


class Entry(msgspec.Struct, frozen=True):
    """How often one identity was accepted."""

    operation: str
    identity: str
    accepted: int


@dataclass(slots=True)
class _Page:
    """One kind of record. `twice` is the number of identities whose count is above 1."""

    accepted: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    duplicates: int = 0
    examples: list[str] = field(default_factory=list)
    refused: int = 0
    twice: int = 0
    unidentified: int = 0


class Ledger:
    """Counts; decides nothing."""

    def __init__(self, *, identities: bool = True) -> None:
        self._identities = identities
        self._pages: dict[str, _Page] = {}
        self._codes: Counter[str] = Counter()
        self._requests: Counter[str] = Counter()
        self._records: Counter[str] = Counter()
        self._statuses: Counter[int] = Counter()
        self._unanswered: Counter[str] = Counter()
        self._in_flight = 0
        self._in_flight_max = 0
        self._connections = 0
        self._request_bytes = 0
        self._reply_bytes = 0

    def accept(self, operation: str, identities: Sequence[str | None]) -> None:
        """Note that records were accepted."""
        page = self._page(operation)
        page.accepted += len(identities)
        if not self._identities:
            return
        counts = page.counts
        for identity in identities:
            if identity is None:
                page.unidentified += 1
                continue
            count = counts[identity] = counts.get(identity, 0) + 1
            if count == 2:
                page.twice += 1
                if len(page.examples) < EXAMPLES:
                    page.examples.append(identity)

    def accept_unseen(self, operation: str, endpoint: str, records: int) -> None:
        """Note that so many records were accepted without being examined."""
        self._page(operation).accepted += records
        self._records[endpoint] += records

    def refuse(self, operation: str, code: str) -> None:
        """Note that a record failed with a code of its own."""
        self._page(operation).refused += 1
        self._codes[code] += 1

    def skip(self, operation: str) -> None:
        """Note that a record was a repeat, which the platform does not accept again."""
        self._page(operation).duplicates += 1

    def handled(self, endpoint: str, records: int) -> None:
        """Note how many records of a request had a verdict of their own."""
        self._records[endpoint] += records

    def begin(self, endpoint: str, request_bytes: int) -> None:
        """Note a request that was read completely."""
        self._requests[endpoint] += 1
        self._request_bytes += request_bytes
        self._in_flight += 1
        self._in_flight_max = max(self._in_flight_max, self._in_flight)

    def replied(self, status: int, reply_bytes: int) -> None:
        """Note the answer to a request."""
        self._statuses[status] += 1
        self._reply_bytes += reply_bytes

    def left_unanswered(self, fault: str) -> None:
        """Note that a fault kept all or part of the answer from the client."""
        self._unanswered[fault] += 1

    def end(self) -> None:
        """Note that a request is over: its answer is sent, or its connection closed."""
        self._in_flight -= 1

    def connected(self) -> None:
        """Note a new connection."""
        self._connections += 1

    def accepted(self, identity: str, operation: str | None = None) -> int:
        """Return how often the record of that identity was accepted."""
        return sum(page.counts.get(identity, 0) for _, page in self._pages_of(operation))

    def entries(self, operation: str | None = None) -> Iterator[Entry]:
        """Yield all identities with their counts, those of one kind in the order in which each was first accepted."""
        for name, page in self._pages_of(operation):
            for identity in list(page.counts):  # the ledger may grow between two steps of a long answer
                yield Entry(name, identity, page.counts[identity])

    def totals(self) -> LedgerTotals:
        """Return the totals."""
        pages = self._pages
        known = self._identities
        return LedgerTotals(
            accepted=sum(page.accepted for page in pages.values()),
            distinct=sum(len(page.counts) for page in pages.values()) if known else None,
            accepted_twice=sum(page.twice for page in pages.values()),
            accepted_twice_examples=tuple(example for page in pages.values() for example in page.examples),
            unidentified=sum(page.unidentified for page in pages.values()),
            refused=sum(page.refused for page in pages.values()),
            duplicates=sum(page.duplicates for page in pages.values()),
            by_operation={
                name: OperationTotals(
                    accepted=page.accepted,
                    distinct=len(page.counts) if known else None,
                    accepted_twice=page.twice,
                    unidentified=page.unidentified,
                    refused=page.refused,
                    duplicates=page.duplicates,
                )
                for name, page in pages.items()
            },
            record_codes=dict(self._codes),
            requests=self._requests.total(),
            requests_by_endpoint=dict(self._requests),
            records_by_endpoint=dict(self._records),
            replies_by_status=dict(self._statuses),
            unanswered=dict(self._unanswered),
            in_flight=self._in_flight,
            in_flight_max=self._in_flight_max,
            connections=self._connections,
            request_bytes=self._request_bytes,
            reply_bytes=self._reply_bytes,
        )

    def fresh(self) -> "Ledger":
        """Return an empty ledger of the same kind that includes the requests in flight."""
        ledger = Ledger(identities=self._identities)
        ledger._in_flight = ledger._in_flight_max = self._in_flight
        return ledger

    def _page(self, operation: str) -> _Page:
        page = self._pages.get(operation)
        if page is None:
            page = self._pages[operation] = _Page()
        return page

    def _pages_of(self, operation: str | None) -> list[tuple[str, _Page]]:
        """Return the pages of one operation, or of all, by its name."""
        return [(name, page) for name, page in self._pages.items() if operation in {None, name}]
