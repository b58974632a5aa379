"""The four operations: what is checked before an event is posted, and what goes into the request.

Checks reject only what the API is documented to reject. They run over columns of a chunk: all its phone numbers are
checked in one pass of a regular expression. An event that has the API's shape goes into the request as the bytes that
were read.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from msgspec import UNSET

from connector.config.streams import StreamSettings
from connector.core.batching import Batch
from connector.core.chunks import Chunk
from connector.core.segments import segments_of, too_long
from connector.core.verdicts import QUEUED, Verdict, Verdicts
from connector.shaping.refusing import refused
from connector.shaping.shaped import Shaped
from connector.trackly.decoding import Column, EventDecoder, decode_fields
from connector.trackly.endpoints import ENDPOINTS, IMPORT_PATH

LONGEST_LIST_NUMBER = "+" + "9" * 15
"""E.164 allows 15 digits; the size of an envelope is computed with the longest number."""

E164 = re.compile(r"\+[1-9][0-9]{1,14}")
_E164_LINES = re.compile(r"(?:\+[1-9][0-9]{1,14}+\n)*+")


@dataclass(frozen=True, slots=True)
class Rules:
    """How a stream uses its endpoint; each is a setting."""

    list_number: str | None = None
    top_level_list: bool = False
    keep_lists: bool = False
    """Keep the list number of each record, if a batch may hold several lists."""
    single: bool = False
    history_import: bool = False
    imported_revenue: bool | None = None
    reject_unknown_fields: bool = False
    journeys: bool = True
    max_body_bytes: int = 5_000_000
    max_age_ms: int | None = None


@dataclass(slots=True)
class Prepared:
    """A chunk after the checks: what can be posted, by lane, and what already has its verdict."""

    lanes: list[tuple[str | None, Chunk]] = field(default_factory=list)
    settled: tuple[Chunk, Verdicts] | None = None


class Operation:
    """One endpoint with a stream's rules: checks events, builds bodies."""

    def __init__(self, name: str, rules: Rules) -> None:
        self.name = name
        self.endpoint = ENDPOINTS[name]
        self.rules = rules
        self.events = EventDecoder(self.endpoint, rejects_unknown=rules.reject_unknown_fields)
        self._inject = b'{"list_number":"%s",' % (rules.list_number or "").encode()
        self.path = (
            (self.endpoint.single_path or "")
            if rules.single
            else IMPORT_PATH
            if rules.history_import
            else self.endpoint.bulk_path
        )

    @property
    def envelope_bytes(self) -> int:
        """Upper bound for the bytes of a body without records."""
        if self.rules.single:
            return 0
        head, tail = self._envelope(LONGEST_LIST_NUMBER if self.rules.top_level_list else None)
        return len(head) + len(tail)

    @property
    def max_record_bytes(self) -> int:
        """Size of the largest record that fits into a request of its own."""
        return self.rules.max_body_bytes - self.envelope_bytes

    def body(self, batch: Batch) -> list[bytes]:
        """Return the request body of a batch in pieces."""
        head, tail = (b"", b"") if self.rules.single else self._envelope(batch.lane)
        pieces = [piece for chunk in batch.chunks for piece in (b",", chunk.join())]
        pieces[0] = head
        return [*pieces, tail]

    def echoed(self, record: bytes) -> Any:
        """Return what an error about this record repeats of it; the record must have passed the checks."""
        assert self.endpoint.echo is not None
        return getattr(self.events.decode(record), self.endpoint.echo)

    def _envelope(self, lane: str | None) -> tuple[bytes, bytes]:
        first = b""
        if lane is not None:
            first = b'"list_number":"%s",' % lane.encode()
        elif self.rules.imported_revenue is not None:
            first = b'"imported":%s,' % (b"true" if self.rules.imported_revenue else b"false")
        return b'{%s"%s":[' % (first, self.endpoint.array.encode()), b"]}"

    # ------------------------------------------------------------------ checks

    def prepare(self, chunk: Chunk, *, now_ms: int, shaped: Shaped | None = None) -> Prepared:
        """Check the records of a chunk and prepare what goes into requests.

        Without `shaped` the values are the events. Never raises, whatever a record contains: records that cannot be
        posted have their verdict in `settled`.
        """
        shaped = shaped or Shaped.unchanged(chunk)
        bad = dict(shaped.bad)
        live, rest = shaped.undecided()
        prepared = Prepared()
        if live:
            found, prepared.lanes = self._checked(chunk.pick(live), rest, now_ms)
            bad.update({live[at]: verdict for at, verdict in found.items()})
        if bad:
            wrong = sorted(bad)
            verdicts = Verdicts(QUEUED, {at: bad[index] for at, index in enumerate(wrong)})
            prepared.settled = (chunk.pick(wrong), verdicts)
        return prepared

    def _checked(
        self, chunk: Chunk, shaped: Shaped, now_ms: int
    ) -> tuple[dict[int, Verdict], list[tuple[str | None, Chunk]]]:
        """Return the verdicts of events that are not posted, and by lane what goes into requests."""
        bad: dict[int, Verdict] = {}
        column, values, length = self.events.columns(shaped, bad)
        self._check_columns(column, bad)
        if shaped.max_segments is not None or shaped.limits:
            self._check_segments(column("body"), shaped, bad)
        for index in chunk.older_than(self.expired_before(now_ms)):
            assert chunk.timestamps is not None
            bad.setdefault(index, refused("expired", f"{(now_ms - chunk.timestamps[index]) / 1000:.0f} s old"))
        lists: Sequence[Any] = column("list_number") if self.endpoint.takes_list else []
        if self.name == "history.sends":  # these may name their list by id instead
            ids = column("list_id")
            lists = [ids[index] if number is UNSET else number for index, number in enumerate(lists)]
        names = set(lists)
        absent = lists.count(UNSET) if UNSET in names else 0  # hashing a text is cheaper than comparing it with UNSET
        if lists:
            self._check_lists(lists, names, bad)
        wire = self._wire(values, lists, absent, bad)
        self._check_sizes(wire, bad, length if wire is values else None)
        if bad:
            good = [index for index in range(len(chunk)) if index not in bad]
            if not good:
                return bad, []
            chunk = chunk.pick(good)
            wire = [wire[index] for index in good]
            lists = [lists[index] for index in good] if lists else lists
            names = set(lists)
        ready = replace(chunk, wire=wire, own_list=bool(lists) and names <= {UNSET, self.rules.list_number})
        if wire is chunk.values or wire == chunk.values:
            ready.wire = ready.values  # type: ignore[assignment] # no null is left
        if self.rules.keep_lists and lists and not self.rules.top_level_list:
            same: dict[Any, Any] = {number: self.rules.list_number if number is UNSET else number for number in names}
            ready.lists = list(map(same.__getitem__, lists))  # the same few strings instead of one per record
        if self.rules.top_level_list and lists:
            return bad, self._by_list(ready, lists)
        return bad, [(None, ready)]

    def expired_before(self, now_ms: int) -> int | None:
        """Return the timestamp in ms before which a record is too old to be posted, None without a maximum age."""
        return None if self.rules.max_age_ms is None else now_ms - self.rules.max_age_ms

    def _check_columns(self, column: Column, bad: dict[int, Verdict]) -> None:
        for name in self.endpoint.phones:
            numbers = column(name)
            for index in _no_numbers(numbers):
                if index not in bad:
                    bad[index] = (
                        refused("invalid_phone", f"`{name}` is not an E.164 number")
                        if numbers[index]
                        else refused(f"missing_{name}", f"`{name}` is empty")
                    )
        if not self.rules.journeys:
            for index, wanted in enumerate(column("use_journeys")):
                if wanted is True and index not in bad:
                    bad[index] = refused("journeys_not_allowed", "`use_journeys` needs the setting contacts.journeys")

    def _check_segments(self, texts: Sequence[str], shaped: Shaped, bad: dict[int, Verdict]) -> None:
        if shaped.max_segments is not None:
            long = [(index, shaped.max_segments) for index in too_long(texts, shaped.max_segments)]
        else:
            long = [(index, most) for index, most in shaped.limits.items() if too_long([texts[index]], most)]
        for index, most in long:
            if index not in bad:
                found = segments_of(texts[index])
                text = f"{found.count} segments ({found.encoding}, {found.units} units); at most {most}"
                bad[index] = refused("too_many_segments", text)

    def _check_lists(self, lists: Sequence[Any], names: set[Any], bad: dict[int, Verdict]) -> None:
        named = [number for number in names if isinstance(number, str)]
        wrong = {named[index] for index in _no_numbers(named)}
        absent = UNSET in names and self.rules.list_number is None
        if not wrong and not absent:
            return
        for index, number in enumerate(lists):
            if index in bad:
                continue
            if number in wrong:
                bad[index] = refused("invalid_list_number", "`list_number` is not an E.164 number")
            elif absent and number is UNSET:
                bad[index] = refused(
                    "missing_list_number", "the event has no `list_number` and the stream has no default"
                )

    def _wire(
        self, values: Sequence[bytes | None], lists: Sequence[Any], absent: int, bad: dict[int, Verdict]
    ) -> Sequence[bytes]:
        """Return the bytes of each record in the request; `absent` of them name no list."""
        spliced: Sequence[bytes] = values  # type: ignore[assignment] # nulls are in bad and never used
        if self.rules.top_level_list:
            if absent == len(lists):
                return spliced
            # The limits page shows a list at top level only with messages that name none.
            return [
                value if number is UNSET or index in bad else _without_list(value)
                for index, (value, number) in enumerate(zip(spliced, lists, strict=True))
            ]
        if absent == 0 or self.rules.list_number is None:
            return spliced
        inject = self._inject
        if absent == len(lists) and not bad:
            return [inject + value[1:] for value in map(bytes.lstrip, spliced)]
        return [
            inject + value.lstrip()[1:] if number is UNSET and index not in bad else value
            for index, (value, number) in enumerate(zip(spliced, lists, strict=True))
        ]

    def _check_sizes(self, wire: Sequence[bytes], bad: dict[int, Verdict], length: int | None) -> None:
        """Reject records that are too large; `length` is the minimum size of all good ones together, if known."""
        limit = self.max_record_bytes
        smaller = self.endpoint.max_record_bytes
        if length is not None and length <= min(limit, smaller or limit):
            return  # all together are smaller than the limit for one
        sizes = [len(record) for index, record in enumerate(wire) if index not in bad] if bad else list(map(len, wire))
        if not sizes or max(sizes) <= min(limit, smaller or limit):
            return
        for index, record in enumerate(wire):
            if index in bad:
                continue
            if smaller is not None and len(record) > smaller:
                bad[index] = refused("contact_too_large", f"{len(record)} bytes; a contact may have {smaller}")
            elif len(record) > limit:
                bad[index] = refused("record_too_large", f"{len(record)} bytes; a request has room for {limit}")

    def _by_list(self, chunk: Chunk, lists: Sequence[Any]) -> list[tuple[str | None, Chunk]]:
        default = self.rules.list_number
        names = {default if number is UNSET else number for number in set(lists)}
        if len(names) == 1:
            return [(names.pop(), chunk)]
        groups: dict[str | None, list[int]] = {}
        for index, number in enumerate(lists):
            groups.setdefault(default if number is UNSET else number, []).append(index)
        return [(name, replace(chunk.pick(indices), own_list=name == default)) for name, indices in groups.items()]


def _no_numbers(texts: Sequence[str]) -> list[int]:
    """Return the indices of texts that are not E.164 numbers, in one pass over valid runs."""
    lines = "\n".join(texts) + "\n"
    if lines.count("\n") != len(texts):
        return [index for index, text in enumerate(texts) if E164.fullmatch(text) is None]
    found = []
    at = index = 0
    while (stop := _E164_LINES.match(lines, at).end()) < len(lines):  # type: ignore[union-attr] # matches the empty text as well
        index += lines.count("\n", at, stop)
        found.append(index)
        at = lines.index("\n", stop) + 1
        index += 1
    return found


def _without_list(value: bytes) -> bytes:
    """Return an event without its list; all other fields keep their bytes, including numbers of any size."""
    event = decode_fields(value)
    event.pop("list_number", None)
    return msgspec.json.encode(event)


def operation_of(settings: StreamSettings) -> Operation:
    """Return the operation of a stream according to its settings."""
    delivery = settings.delivery
    rules = Rules(
        list_number=settings.list_number,
        top_level_list=settings.list_number_placement == "top_level",
        keep_lists=settings.pace.is_on,
        single=settings.mode == "single",
        history_import=settings.history.endpoint == "import" and settings.operation == "history",
        imported_revenue=settings.revenue.imported if settings.operation == "revenue" else None,
        reject_unknown_fields=settings.unknown_fields == "reject",
        journeys=settings.operation != "contacts" or settings.contacts.journeys,
        max_body_bytes=settings.batch.max_bytes,
        max_age_ms=None if delivery.max_age_secs is None else int(delivery.max_age_secs * 1000),
    )
    kind = f".{settings.history.kind}" if settings.operation == "history" else ""
    return Operation(f"{settings.operation}{kind}", rules)
