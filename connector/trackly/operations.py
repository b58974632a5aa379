"""The four operations: where they post, what they take, and what of it is checked before a request is spent.

A check here refuses only what the API is documented to refuse. It runs over the columns of a chunk: one typed decode
for each record, unless its event was made of columns here, then one pass of a regular expression over all its phone
numbers. An event that has the API's shape is spliced into the request as the bytes it came in.

An optional field that is null is as if it was not there, as in events of any other format. Such fields are looked for
where a decode fails, so that events without them cost nothing more.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from connector.config.streams import StreamSettings
from connector.core.batching import Batch
from connector.core.chunks import Chunk
from connector.core.mapped import UNDECODABLE, mapped
from connector.core.segments import segments_of, too_long
from connector.core.utf8 import not_utf8
from connector.core.verdicts import QUEUED, SKIPPED, Verdict, Verdicts
from connector.shaping.json_values import json_from
from connector.shaping.refusing import UndecodableError, refused, undecodable
from connector.shaping.shaped import Shaped

OperationName = Literal["send", "contacts", "revenue", "history"]

MAX_CONTACT_BYTES = 4_000
"""One contact object; the API answers 413 `payload_too_large` above it."""

LONGEST_LIST_NUMBER = "+" + "9" * 15
"""E.164 allows 15 digits; an envelope is measured with the longest."""

E164 = re.compile(r"\+[1-9][0-9]{1,14}")
_E164_LINES = re.compile(r"(?:\+[1-9][0-9]{1,14}+\n)*+")

_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_NULL = msgspec.Raw(b"null")

Text = Annotated[str, Meta(min_length=1)]
"""A required string that must not be empty."""

Amount = Annotated[float, Meta(ge=0)]

CustomFields = dict[str, str | int | float | bool]
"""What is kept with a contact."""

_TYPES: dict[Any, str] = {
    str: "text",
    Text: "text",
    str | UnsetType: "text",
    dict[str, Any] | UnsetType: "object",
}
"""Types of fields of which the Python types of a column tell all but the length of a text."""

Column = Callable[[str], Sequence[Any]]
"""Returns a field of all events, by its name."""


class _Event(msgspec.Struct, gc=False):
    """An event as the API takes it; fields that no document names pass, unless the stream refuses them."""


class ContactData(_Event):
    """Values for the macros in a text."""

    first_name: str | UnsetType = UNSET
    last_name: str | UnsetType = UNSET
    custom_fields: dict[str, Any] | UnsetType = UNSET
    timezone: str | UnsetType = UNSET


class SendEvent(_Event):
    """A text to one recipient: `POST /v2/send` and `/v2/send/bulk`."""

    to: str
    body: Text
    list_number: str | UnsetType = UNSET
    wrap_links: bool | UnsetType = UNSET
    contact_data: ContactData | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class ContactEvent(_Event):
    """A contact to create or update on one list: `POST /v2/contacts` and `/v2/contacts/bulk`."""

    phone_number: str
    list_number: str | UnsetType = UNSET
    use_journeys: bool | UnsetType = UNSET
    skip_journey_if_exists: bool | UnsetType = UNSET
    signup_date: str | UnsetType = UNSET
    ip_address: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    custom_fields: CustomFields | UnsetType = UNSET
    use_validation: bool | UnsetType = UNSET


class RevenueEvent(_Event):
    """Revenue of one message: `POST /v2/revenue` and `/v2/revenue/bulk`."""

    message_id: Text
    revenue: Amount
    attribution_type: Literal["sale", "click", "send"]
    offer_id: str | int | UnsetType = UNSET
    timestamp: str | UnsetType = UNSET


class HistorySendEvent(_Event):
    """A past send: `POST /v2/history/sends`."""

    id: str | int
    to_number: str
    timestamp: Text
    list_number: str | UnsetType = UNSET
    list_id: int | UnsetType = UNSET
    message: str | UnsetType = UNSET
    send_type: str | UnsetType = UNSET
    delivered: bool | UnsetType = UNSET
    length: int | UnsetType = UNSET


class HistoryClickEvent(_Event):
    """A past click: `POST /v2/history/clicks`."""

    message_id: Text
    offer_id: str | int
    phone_number: str
    timestamp: Text
    send_timestamp: str | UnsetType = UNSET


class HistoryRevenueEvent(_Event):
    """Past revenue: `POST /v2/history/revenue`."""

    message_id: Text
    offer_id: str | int
    revenue: Amount
    payout: float | UnsetType = UNSET
    attribution_type: str | UnsetType = UNSET
    timestamp: str | UnsetType = UNSET


_MEMBERS: dict[Any, Collection[str] | None] = {
    ContactData | UnsetType: ContactData.__struct_fields__,
    CustomFields | UnsetType: None,
}
"""Types of fields of which members may be absent, but not null: those of these names, None for any."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One kind of record of the API: paths under the base URL, the array's name, and what to check."""

    event: type[_Event]
    bulk_path: str
    single_path: str | None
    array: str
    accepted_count: str
    """The reply's field that counts what was taken."""
    echo: str | None
    """The record's field that an entry of `errors` repeats."""
    phones: tuple[str, ...]
    texts: tuple[str, ...] = ()
    """Required strings that must not be empty (`Text`)."""
    numbers: tuple[str, ...] = ()
    """Required numbers that must be at least 0 (`Amount`)."""
    takes_list: bool = False
    max_record_bytes: int | None = None
    repeats_skipped: bool = False
    """The platform skips a record that it has already; posting it again is harmless."""


ENDPOINTS: dict[str, Endpoint] = {
    "send": Endpoint(
        SendEvent, "send/bulk", "send", "messages", "queued_count", "to", ("to",), ("body",), takes_list=True
    ),
    "contacts": Endpoint(
        ContactEvent,
        "contacts/bulk",
        "contacts",
        "contacts",
        "success_count",
        "phone_number",
        ("phone_number",),
        takes_list=True,
        max_record_bytes=MAX_CONTACT_BYTES,
        repeats_skipped=True,
    ),
    "revenue": Endpoint(
        RevenueEvent,
        "revenue/bulk",
        "revenue",
        "records",
        "success_count",
        None,
        (),
        ("message_id",),
        ("revenue",),
    ),
    "history.sends": Endpoint(
        HistorySendEvent,
        "history/sends",
        None,
        "records",
        "success_count",
        "id",
        ("to_number",),
        ("timestamp",),
        takes_list=True,
        repeats_skipped=True,
    ),
    "history.clicks": Endpoint(
        HistoryClickEvent,
        "history/clicks",
        None,
        "records",
        "success_count",
        None,
        ("phone_number",),
        ("message_id", "timestamp"),
        repeats_skipped=True,
    ),
    "history.revenue": Endpoint(
        HistoryRevenueEvent,
        "history/revenue",
        None,
        "records",
        "success_count",
        None,
        (),
        ("message_id",),
        ("revenue",),
    ),
}

IMPORT_PATH = "history/import"
"""The one history endpoint that the limits page names; the reference pages have a typed one for each kind."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How a stream uses its endpoint; each is a setting."""

    list_number: str | None = None
    top_level_list: bool = False
    keep_lists: bool = False
    """Keep the list of each record beside it, where a batch may hold several."""
    single: bool = False
    history_import: bool = False
    imported_revenue: bool | None = None
    reject_unknown_fields: bool = False
    journeys: bool = True
    max_body_bytes: int = 5_000_000
    max_age_ms: int | None = None


@dataclass(slots=True)
class Prepared:
    """A chunk sorted: what can go into requests, by lane, and what already has its verdict."""

    lanes: list[tuple[str | None, Chunk]] = field(default_factory=list)
    settled: tuple[Chunk, Verdicts] | None = None


class Operation:
    """One endpoint under a stream's rules: checks events, builds bodies."""

    _FILLER: ClassVar[bytes] = (
        b'{"to":"+10","body":"-","phone_number":"+10","message_id":"-","revenue":0,"attribution_type":"sale","id":"-",'
        b'"to_number":"+10","timestamp":"-","offer_id":"-"}'
    )

    def __init__(self, name: str, rules: Rules) -> None:
        self.name = name
        self.endpoint = ENDPOINTS[name]
        self.rules = rules
        event: type[_Event] = self.endpoint.event
        if rules.reject_unknown_fields:
            event = msgspec.defstruct(  # type: ignore[assignment] # a struct type, made at run time
                event.__name__, [], bases=(event,), forbid_unknown_fields=True, gc=False
            )
        self._decode: Callable[[Any], Any] = msgspec.json.Decoder(event).decode
        self._filler = msgspec.json.decode(self._FILLER, type=self.endpoint.event)
        fields = msgspec.structs.fields(self.endpoint.event)
        self.required = tuple(f.encode_name for f in fields if f.required)
        """Names of the fields that each event must have."""
        self._optional = {f.encode_name: _MEMBERS.get(f.type, ()) for f in fields if not f.required}
        """By the name of each field that an event may lack: the members that it may lack in turn, None for any."""
        self._types = {f.encode_name: _TYPES.get(f.type, "other") for f in fields}
        self.fields = frozenset(self._types)
        """Names of the fields that the platform's reference has."""
        self._required_texts = {name for name in self.required if self._types[name] == "text"}
        self._needs_decode = len(self._required_texts) < len(self.required)
        self._inject = b'{"list_number":"%s",' % (rules.list_number or "").encode()
        self.path = (
            (self.endpoint.single_path or "")
            if rules.single
            else IMPORT_PATH
            if rules.history_import
            else self.endpoint.bulk_path
        )

    @property
    def example(self) -> dict[str, Any]:
        """An event that has what each must have, and no more."""
        made: dict[str, Any] = msgspec.to_builtins(self._filler)
        return made

    @property
    def envelope_bytes(self) -> int:
        """Bytes of a body without records, at most."""
        if self.rules.single:
            return 0
        head, tail = self._envelope(LONGEST_LIST_NUMBER if self.rules.top_level_list else None)
        return len(head) + len(tail)

    @property
    def max_record_bytes(self) -> int:
        """The largest record that fits a request alone."""
        return self.rules.max_body_bytes - self.envelope_bytes

    def body(self, batch: Batch) -> list[bytes]:
        """Return the request body of a batch in pieces."""
        head, tail = (b"", b"") if self.rules.single else self._envelope(batch.lane)
        pieces = [piece for chunk in batch.chunks for piece in (b",", chunk.join())]
        pieces[0] = head
        return [*pieces, tail]

    def echoed(self, record: bytes) -> Any:
        """Return what an error about this record repeats of it; the record is one that passed the check."""
        assert self.endpoint.echo is not None
        return getattr(self._decode(record), self.endpoint.echo)

    def _envelope(self, lane: str | None) -> tuple[bytes, bytes]:
        first = b""
        if lane is not None:
            first = b'"list_number":"%s",' % lane.encode()
        elif self.rules.imported_revenue is not None:
            first = b'"imported":%s,' % (b"true" if self.rules.imported_revenue else b"false")
        return b'{%s"%s":[' % (first, self.endpoint.array.encode()), b"]}"

    # ------------------------------------------------------------------ checking and preparing

    def prepare(self, chunk: Chunk, *, now_ms: int, shaped: Shaped | None = None) -> Prepared:
        """Check the records of a chunk and make ready what goes into requests.

        Without `shaped` the values are the events. Never raises for anything that a record may hold: what cannot be
        posted has its verdict in `settled`.
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
        values, length = shaped.events, None
        column = self._by_types(shaped)
        if column is None:
            events, values = self._decode_all(values, bad)
            column = _by_decode(events)
            length, wrong_bytes = not_utf8(values, bad)
            for index, at in wrong_bytes.items():
                bad[index] = refused("not_utf8", f"byte {at} is not UTF-8")
        self._check_columns(column, bad)
        if shaped.max_segments is not None or shaped.limits:
            self._check_segments(column("body"), shaped, bad)
        for index in chunk.older_than(self.expired_before(now_ms)):
            assert chunk.timestamps is not None
            bad.setdefault(index, refused("expired", f"{(now_ms - chunk.timestamps[index]) / 1000:.0f} s old"))
        lists: Sequence[Any] = column("list_number") if self.endpoint.takes_list else []
        if self.name == "history.sends":  # where a list may be named by its id as well
            ids = column("list_id")
            lists = [ids[index] if number is UNSET else number for index, number in enumerate(lists)]
        names = set(lists)
        absent = lists.count(UNSET) if UNSET in names else 0  # to compare it with a text costs more than to hash that
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
            ready.lists = list(map(same.__getitem__, lists))  # the same few strings, not one for each record
        if self.rules.top_level_list and lists:
            return bad, self._by_list(ready, lists)
        return bad, [(None, ready)]

    def _by_types(self, shaped: Shaped) -> Column | None:
        """Return the columns that events were made of, None where only a decode tells whether they fit."""
        fields = shaped.fields
        if self._needs_decode or not fields.keys() >= self._required_texts:
            return None
        for name, column in fields.items():
            kinds = set(map(type, column))
            if name not in self._required_texts:
                kinds.discard(UnsetType)
            match self._types.get(name):
                case "text":
                    fits = kinds <= {str} and not (name in self.endpoint.texts and "" in column)
                case "object":
                    fits = all(issubclass(kind, dict | msgspec.Struct) for kind in kinds)
                case "other":
                    fits = not kinds
                case _:
                    fits = not self.rules.reject_unknown_fields
            if not fits:
                return None
        absent = [UNSET] * len(shaped.events)
        return lambda name: fields.get(name, absent)

    def expired_before(self, now_ms: int) -> int | None:
        """Return below which timestamp a record is too old to be posted, or None where none is."""
        return None if self.rules.max_age_ms is None else now_ms - self.rules.max_age_ms

    def _decode_all(
        self, values: Sequence[bytes | None], bad: dict[int, Verdict]
    ) -> tuple[list[Any], Sequence[bytes | None]]:
        """Return the events and their bytes: those that came, but where an optional field was null."""
        without: dict[int, bytes] = {}

        def again(index: int, error: Exception) -> Any:
            value = values[index]
            rest = None if value is None else _without_nulls(value, self._optional)
            if rest is not None:
                try:
                    event = self._decode(rest)
                except UNDECODABLE as wrong:
                    error = wrong
                else:
                    without[index] = rest
                    return event
            bad[index] = self._diagnose(value, error)
            return self._filler

        events = mapped(self._decode, values, UNDECODABLE, again)
        if without:
            values = [without.get(index, value) for index, value in enumerate(values)]
        return events, values

    def _diagnose(self, value: bytes | None, error: Exception) -> Verdict:
        """Return the verdict of a value that the typed decoder refused."""
        if value is None:
            return SKIPPED
        try:
            event = json_from(value)
        except UndecodableError as wrong:
            return undecodable(wrong)
        if not isinstance(event, dict):
            return refused("not_an_object", f"the value is a JSON {_json_kind(event)}, not an object")
        for name in self.required:
            if event.get(name) is None:
                return refused(f"missing_{name}", f"the event has no `{name}`")
            if event[name] == "" and name in self.endpoint.texts:
                return refused(f"missing_{name}", f"`{name}` is empty")
            if name in self.endpoint.numbers and isinstance(event[name], int | float) and event[name] < 0:
                return refused(f"invalid_{name}", f"`{name}` is below 0")
        if "unknown field" in str(error):
            return refused("unknown_field", str(error))
        return refused("wrong_type", str(error))

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
        """Return the bytes that go into the request for each record; `absent` of them name no list."""
        spliced: Sequence[bytes] = values  # type: ignore[assignment] # nulls are in bad and never used
        if self.rules.top_level_list:
            if absent == len(lists):
                return spliced
            # The limits page shows messages without a list of their own beside a list at top level.
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
        """Find what is too large; `length` is that of all good records at least, where it is known."""
        limit = self.max_record_bytes
        smaller = self.endpoint.max_record_bytes
        if length is not None and length <= min(limit, smaller or limit):
            return  # all together are no larger than one may be
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


def _by_decode(events: list[Any]) -> Column:
    return lambda name: _FIELDS[name](events)


_FIELDS: dict[str, Callable[[list[Any]], list[Any]]] = {
    "to": lambda events: [event.to for event in events],
    "to_number": lambda events: [event.to_number for event in events],
    "phone_number": lambda events: [event.phone_number for event in events],
    "body": lambda events: [event.body for event in events],
    "list_number": lambda events: [event.list_number for event in events],
    "list_id": lambda events: [event.list_id for event in events],
    "use_journeys": lambda events: [event.use_journeys for event in events],
}
"""Written out, since the interpreter learns where such an attribute lies: a third of the time of `attrgetter`."""


def _no_numbers(texts: Sequence[str]) -> list[int]:
    """Return the indices of the texts that are not E.164 numbers, in one pass over all that lies between them."""
    lines = "\n".join(texts) + "\n"
    if lines.count("\n") != len(texts):
        return [index for index, text in enumerate(texts) if E164.fullmatch(text) is None]
    found = []
    at = index = 0
    while (stop := _E164_LINES.match(lines, at).end()) < len(lines):  # type: ignore[union-attr] # nothing matches too
        index += lines.count("\n", at, stop)
        found.append(index)
        at = lines.index("\n", stop) + 1
        index += 1
    return found


def _without_list(value: bytes) -> bytes:
    """Return an event without its list; all other fields stay the bytes that they are, numbers of any size included."""
    event = _decode_fields(value)
    event.pop("list_number", None)
    return msgspec.json.encode(event)


def _without_nulls(value: bytes, optional: Mapping[str, Collection[str] | None]) -> bytes | None:
    """Return an event without what is null and may be absent, None where there is nothing of that kind.

    What else is null stays, as do the bytes of all other members: what no document names and what may hold anything
    pass as they are, and a required field is missing. Of names that stand twice the last counts.
    """
    if b"null" not in value:
        return None
    try:
        value.decode()  # where it is not UTF-8 is told by the bytes that came
        event = _decode_fields(value)
        kept = {name: raw for name, raw in event.items() if raw != _NULL or name not in optional}
        found = len(kept) < len(event)
        for name, members in optional.items():
            if members == () or name not in kept or bytes(memoryview(kept[name])[:1]) != b"{":
                continue
            inside = _decode_fields(kept[name])
            rest = {key: raw for key, raw in inside.items() if raw != _NULL or not (members is None or key in members)}
            if len(rest) < len(inside):
                kept[name] = msgspec.Raw(msgspec.json.encode(rest))
                found = True
    except UNDECODABLE:
        return None
    return msgspec.json.encode(kept) if found else None


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    return {str: "string", int: "number", float: "number", list: "array"}.get(type(value), "value")


def operation_for(
    name: OperationName, rules: Rules, *, history_kind: Literal["sends", "clicks", "revenue"] = "sends"
) -> Operation:
    """Return the operation of a stream."""
    if name == "history":
        return Operation(f"history.{history_kind}", rules)
    return Operation(name, rules)


def operation_of(settings: StreamSettings) -> Operation:
    """Return the operation of a stream as its settings have it."""
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
    return operation_for(settings.operation, rules, history_kind=settings.history.kind)
