"""What of an event is checked before it is posted, and the bytes that go into the request."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.config.streams import StreamSettings
from connector.core.batching import Batch, Batcher, BatchLimits
from connector.core.chunks import Chunk, Partition
from connector.core.verdicts import SKIPPED, Verdict
from connector.shaping.shaped import Shaped
from connector.trackly.endpoints import ENDPOINTS, IMPORT_PATH, MAX_CONTACT_BYTES
from connector.trackly.operations import E164, LONGEST_LIST_NUMBER, Operation, Prepared, Rules, operation_of

LIST: Final = "+18005551234"
OTHER_LIST: Final = "+4930123456"

EVENTS: Final[dict[str, dict[str, Any]]] = {
    "send": {"to": "+14155550101", "body": "Hi {{first_name}}", "contact_data": {"first_name": "Ada"}},
    "contacts": {"phone_number": "+14155550101", "custom_fields": {"plan": "gold", "age": 41, "vip": True}},
    "revenue": {"message_id": "aB12cD34", "revenue": 12.5, "attribution_type": "sale"},
    "history.sends": {"id": 7, "to_number": "+14155550101", "timestamp": "2026-01-31T08:00:00Z", "delivered": True},
    "history.clicks": {
        "message_id": "aB12cD34",
        "offer_id": 9,
        "phone_number": "+14155550101",
        "timestamp": "2026-01-31T08:00:00Z",
    },
    "history.revenue": {"message_id": "aB12cD34", "offer_id": "o-1", "revenue": 0},
}
TAKE_A_LIST: Final = tuple(name for name, endpoint in ENDPOINTS.items() if endpoint.takes_list)


def event(name: str, **changes: Any) -> bytes:
    """Return an event that has the API's shape, with fields changed, added, or left out (`...`)."""
    fields = {**EVENTS[name], **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


def operation(name: str, **rules: Any) -> Operation:
    """Return an operation of a stream that has a list of its own where one is needed, unless told otherwise."""
    if name in TAKE_A_LIST:
        rules.setdefault("list_number", LIST)
    return Operation(name, Rules(**rules))


def prepared(made: Operation, values: Sequence[bytes | None], **columns: Any) -> Prepared:
    chunk = Chunk(Partition("t", 0), 1, range(len(values)), list(values), **columns)
    return made.prepare(chunk, now_ms=1_000_000)


def verdict(made: Operation, value: bytes | None) -> Verdict | None:
    """Return the verdict of one value, or None when it may be posted."""
    settled = prepared(made, [value]).settled
    return None if settled is None else settled[1].of(0)


def reason(name: str, value: bytes | None, **rules: Any) -> str | None:
    found = verdict(operation(name, **rules), value)
    return None if found is None else found.reason


def bodies(made: Operation, ready: Prepared, *, limits: BatchLimits | None = None) -> list[tuple[Batch, bytes]]:
    """Return the requests that come of prepared records, cut as the stream would cut them."""
    most = 1 if made.rules.single else 1_000
    batcher = Batcher(limits or BatchLimits(most, made.rules.max_body_bytes, 1.0, made.envelope_bytes), "b")
    batches: list[Batch] = []
    for lane, chunk in ready.lanes:
        batches += batcher.add(lane, chunk, now=0.0)
    return [(batch, b"".join(made.body(batch))) for batch in batches + batcher.drain()]


# ------------------------------------------------------------------ every operation


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_that_has_the_apis_shape_is_posted_as_it_came(name: str) -> None:
    value = b" \n" + event(name, **({"list_number": LIST} if name in TAKE_A_LIST else {}), unknown=[1, {}]) + b"\t "

    ready = prepared(operation(name), [value])

    assert ready.settled is None
    ((lane, chunk),) = ready.lanes
    assert (lane, chunk.wire) == (None, [value])
    assert chunk.wire is chunk.values, "spliced, not copied"


REQUIRED: Final = {
    "send": ["to", "body"],
    "contacts": ["phone_number"],
    "revenue": ["message_id", "revenue", "attribution_type"],
    "history.sends": ["id", "to_number", "timestamp"],
    "history.clicks": ["message_id", "offer_id", "phone_number", "timestamp"],
    "history.revenue": ["message_id", "offer_id", "revenue"],
}
FIELDS: Final = [(name, field) for name, fields in REQUIRED.items() for field in fields]


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_required_field_that_is_absent_or_null_is_named(name: str, field: str) -> None:
    assert reason(name, event(name, **{field: ...})) == f"missing_{field}"
    assert reason(name, event(name, **{field: None})) == f"missing_{field}"


@pytest.mark.parametrize(("name", "field"), [one for one in FIELDS if one[1] not in {"id", "offer_id", "revenue"}])
def test_a_required_text_that_is_empty_is_missing(name: str, field: str) -> None:
    expected = "wrong_type" if field == "attribution_type" else f"missing_{field}"

    assert reason(name, event(name, **{field: ""})) == expected


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_required_field_of_another_type_is_not_guessed_at(name: str, field: str) -> None:
    others: list[Any] = [[], {}, True, 1.5 if field != "revenue" else "1.5"]
    for wrong in others:
        assert reason(name, event(name, **{field: wrong})) == "wrong_type"


@pytest.mark.parametrize("name", ["revenue", "history.revenue"])
@pytest.mark.parametrize(("amount", "expected"), [(0, None), (-0.0, None), (-0.01, "invalid_revenue"), (1e300, None)])
def test_revenue_is_at_least_nothing(name: str, amount: float, expected: str | None) -> None:
    assert reason(name, event(name, revenue=amount)) == expected


@pytest.mark.parametrize("kind", ["sale", "click", "send", "Sale", "migration", ""])
def test_revenue_is_attributed_to_what_the_api_knows(kind: str) -> None:
    expected = None if kind in {"sale", "click", "send"} else "wrong_type"

    assert reason("revenue", event("revenue", attribution_type=kind)) == expected
    assert reason("history.revenue", event("history.revenue", attribution_type=kind)) is None


PHONES: Final = [(name, field) for name, endpoint in ENDPOINTS.items() for field in endpoint.phones]
BAD_NUMBERS: Final = {
    "no plus": "14155550101",
    "only a plus": "+",
    "one digit": "+1",
    "leading zero": "+04155550101",
    "sixteen digits": "+1415555010123456",
    "blanks": "+1 415 555 0101",
    "dashes": "+1-415-555-0101",
    "letters": "+1415CALLNOW",
    "line break": "+14155550101\n",
    "two in one": "+14155550101\n+14155550102",
    "carriage return": "+14155550101\r",
    "line separator": "+14155550101\u2028",
    "fullwidth digits": "+\uff11\uff14\uff11\uff15\uff15\uff15\uff15",
    "a fullwidth digit": "+1415555010\uff11",
    "fullwidth plus": "\uff0b14155550101",
    "arabic digits": "+\u0661\u0664\u0661\u0665\u0665\u0665",
    "superscript": "+1415555\u00b2",
    "nul": "+14155550101\x00",
    "right to left": "\u202e+14155550101",
    "words": "not a number",
}


@pytest.mark.parametrize(("name", "field"), PHONES)
@pytest.mark.parametrize("number", BAD_NUMBERS.values(), ids=BAD_NUMBERS.keys())
def test_what_is_not_e164_is_refused(name: str, field: str, number: str) -> None:
    """Also when it stands among numbers that are right, and whatever its length does to the check of them all."""
    good, bad = event(name), event(name, **{field: number})

    ready = prepared(operation(name), [good, bad, good])

    assert ready.settled is not None
    chunk, verdicts = ready.settled
    assert (list(chunk.offsets), verdicts.of(0).reason) == ([1], "invalid_phone")
    assert [list(rest.offsets) for _, rest in ready.lanes] == [[0, 2]]


@pytest.mark.parametrize("number", ["+10", "+14155550101", "+999999999999999", "+4915112345678"])
def test_any_e164_number_is_taken(number: str) -> None:
    """The platform knows better which numbers there are."""
    assert reason("send", event("send", to=number)) is None


@pytest.mark.parametrize("name", EVENTS)
@pytest.mark.parametrize(
    ("value", "kind"), [(b"null", "null"), (b"true", "boolean"), (b'"x"', "string"), (b"1", "number"), (b"[]", "array")]
)
def test_json_that_is_no_object_is_named(name: str, value: bytes, kind: str) -> None:
    found = verdict(operation(name), value)

    assert found is not None
    assert (found.reason, found.text) == ("not_an_object", f"the value is a JSON {kind}, not an object")


@pytest.mark.parametrize("name", EVENTS)
def test_a_null_value_is_skipped_and_an_empty_one_is_not_json(name: str) -> None:
    assert verdict(operation(name), None) == SKIPPED
    for value in (b"", b" \n"):
        found = verdict(operation(name), value)
        assert found is not None
        assert (found.reason, found.text) == ("not_json", "the value is empty")


# ------------------------------------------------------------------ values from anywhere


def _with(extra: bytes) -> bytes:
    return b'{"to":"+14155550101","body":"x",' + extra + b"}"


DEEP: Final = 100_000
TORTURE: Final[dict[str, bytes | None]] = {
    "null": None,
    "empty": b"",
    "blank": b"  \n",
    "binary": bytes(range(256)),
    "zeros": b"\x00" * 1_000,
    "avro with a schema id": b"\x00\x00\x00\x00\x07\x02\x18+14155550101",
    "gzip": b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
    "utf-16": '{"to":"+14155550101","body":"x"}'.encode("utf-16"),
    "byte order mark": b"\xef\xbb\xbf" + _with(b'"a":1'),
    "one megabyte of text": _with(b'"metadata":{"a":"%s"}' % (b"x" * 1_000_000)),
    "one megabyte of nothing": b" " * 1_000_000,
    "deep array": b"[" * DEEP + b"]" * DEEP,
    "deep and open": b'{"to":' * DEEP,
    "deep in what is known": _with(b'"metadata":{"a":' + b"[" * DEEP + b"]" * DEEP + b"}"),
    "deep in what is not": _with(b'"x":' + b"[" * DEEP + b"]" * DEEP),
    "rather deep": _with(b'"x":' + b"[" * 900 + b"]" * 900),
    "NaN": _with(b'"x":NaN'),
    "Infinity": _with(b'"x":-Infinity'),
    "a number beyond all": _with(b'"x":1e999'),
    "a number beyond all, known": _with(b'"metadata":{"a":1e999}'),
    "an integer of 5,000 digits": _with(b'"x":' + b"7" * 5_000),
    "an integer of 5,000 digits, known": _with(b'"metadata":{"a":' + b"7" * 5_000 + b"}"),
    "an integer of 5,000 digits as a number": b'{"message_id":"m","revenue":%s,"attribution_type":"sale"}'
    % (b"7" * 5_000),
    "an integer of 5,000 digits as an id": b'{"id":%s,"to_number":"+14155550101","timestamp":"t"}' % (b"7" * 5_000),
    "a fraction of 5,000 digits": _with(b'"x":0.' + b"3" * 5_000),
    "half a character": _with(b'"x":"\\ud800"'),
    "the other half": _with(b'"x":"\\udc00"'),
    "half a character, known": b'{"to":"+14155550101","body":"\\ud83d"}',
    "half a character in a number": b'{"to":"+1415555\\ud800","body":"x"}',
    "bytes that are not UTF-8, unknown": _with(b'"x":"\xff\xfe"'),
    "bytes that are not UTF-8, in a name": _with(b'"\xff":1'),
    "an overlong slash": _with(b'"x":"\xc0\xaf"'),
    "a surrogate in UTF-8": _with(b'"x":"\xed\xa0\x80"'),
    "control character": _with(b'"x":"\x01"'),
    "names given twice": b'{"to":"nobody","body":"x","to":"+14155550101","body":"y"}',
    "names given twice, the last one wrong": b'{"to":"+14155550101","body":"x","to":"nobody"}',
    "list named twice": _with(b'"list_number":"+18005551234","list_number":"+4930123456"'),
    "a name in escapes": b'{"\\u0074o":"+14155550101","body":"x"}',
    "trailing bytes": _with(b'"x":1') + b"garbage",
    "two objects": _with(b'"x":1') * 2,
    "trailing zero": _with(b'"x":1') + b"\x00",
    "form feed around": b"\x0c" + _with(b'"x":1') + b"\x0c",
    "trailing comma": _with(b'"x":[1,]'),
    "single quotes": b"{'to':'+14155550101'}",
    "comment": _with(b'"x":1/*c*/'),
    "leading zero": _with(b'"x":01'),
    "empty name": _with(b'"":1'),
    "prototype": _with(b'"__proto__":{"a":1},"__class__":1'),
    "null list": _with(b'"list_number":null'),
    "list of another type": _with(b'"list_number":5'),
    "list_id beyond all": b'{"id":1,"to_number":"+14155550101","timestamp":"t","list_id":%s}' % (b"9" * 400),
    "a number beyond all, and a list": _with(b'"x":1e999,"list_number":"+18005551234"'),
    "an integer of 5,000 digits, and a list": _with(b'"list_number":"+18005551234","x":' + b"7" * 5_000),
    "rather deep, and a list": _with(b'"list_number":"+18005551234","x":' + b"[" * 900 + b"]" * 900),
    "breaks out of the array": b'{"to":"+14155550101","body":"x"}]},{"a":[{}',
}

PLACEMENTS: Final[dict[str, Operation]] = {
    **{name: operation(name) for name in EVENTS},
    **{f"{name}, strict": operation(name, reject_unknown_fields=True) for name in EVENTS},
    **{f"{name}, single": operation(name, single=True) for name in ("send", "contacts", "revenue")},
    **{f"{name}, no list": operation(name, list_number=None) for name in TAKE_A_LIST},
    "send, top level": operation("send", top_level_list=True),
    "send, top level, no list": operation("send", top_level_list=True, list_number=None),
    "history, one endpoint": operation("history.sends", history_import=True),
    "revenue, imported": operation("revenue", imported_revenue=True),
    "revenue, not imported": operation("revenue", imported_revenue=False),
    "contacts, no journeys": operation("contacts", journeys=False),
}


def check_requests(made: Operation, values: Sequence[bytes | None], ready: Prepared) -> None:
    """Assert that each value has a verdict or stands in one request, as JSON, in order, in as many bytes as counted."""
    settled: list[int] = []
    if ready.settled is not None:
        settled = list(ready.settled[0].offsets)
        assert all(ready.settled[1].of(at).status != "queued" for at in range(len(settled)))
    listed = {"list_number", "list_id"} if made.name == "history.sends" else {"list_number"}
    places = [offset for _, chunk in ready.lanes for offset in chunk.offsets]
    assert sorted(settled + places) == list(range(len(values)))
    for batch, body in bodies(made, ready):
        lane = len(LONGEST_LIST_NUMBER) - len(batch.lane) if batch.lane is not None else 0
        assert len(body) == batch.size - lane
        assert len(body) <= made.rules.max_body_bytes
        request = loads(body)
        posted = [request] if made.rules.single else request[made.endpoint.array]
        sources = [loads(value) for chunk in batch.chunks for value in chunk.values]
        assert len(posted) == len(sources) == batch.count
        for record, source in zip(posted, sources, strict=True):
            event = bare(made.name, source)
            expected = dict(event)
            if batch.lane is not None:
                assert expected.pop("list_number", batch.lane) == request["list_number"] == batch.lane
            elif made.endpoint.takes_list and not event.keys() & listed:
                expected["list_number"] = made.rules.list_number
            assert record == expected


OPTIONAL: Final = {
    "send": ["list_number", "wrap_links", "contact_data", "metadata"],
    "contacts": [
        "list_number",
        "use_journeys",
        "skip_journey_if_exists",
        "signup_date",
        "ip_address",
        "url",
        "custom_fields",
        "use_validation",
    ],
    "revenue": ["offer_id", "timestamp"],
    "history.sends": ["list_number", "list_id", "message", "send_type", "delivered", "length"],
    "history.clicks": ["send_timestamp"],
    "history.revenue": ["payout", "attribution_type", "timestamp"],
}
CONTACT_DATA: Final = ["first_name", "last_name", "custom_fields", "timezone"]


def bare(name: str, source: dict[str, Any]) -> dict[str, Any]:
    """Return an event without the optional fields that are null."""
    event = {field: value for field, value in source.items() if value is not None or field not in OPTIONAL[name]}
    if isinstance(inside := event.get("contact_data"), dict) and name == "send":
        event["contact_data"] = {k: v for k, v in inside.items() if v is not None or k not in CONTACT_DATA}
    if isinstance(inside := event.get("custom_fields"), dict) and name == "contacts":
        event["custom_fields"] = {k: v for k, v in inside.items() if v is not None}
    return event


def loads(value: bytes | None) -> Any:
    """Parse what is JSON in the strict sense; numbers stay text, so that none is rounded on the way."""
    assert value is not None

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(value.decode(), parse_constant=refuse, parse_int=str, parse_float=str)


@pytest.mark.parametrize("made", PLACEMENTS.values(), ids=PLACEMENTS.keys())
@pytest.mark.parametrize("value", TORTURE.values(), ids=TORTURE.keys())
def test_no_value_gets_through_that_is_not_json(made: Operation, value: bytes | None) -> None:
    """One record that is not must not spoil the request of all others."""
    good = event(made.name)

    ready = prepared(made, [good, value, good])

    check_requests(made, [good, value, good], ready)


@pytest.mark.parametrize("made", PLACEMENTS.values(), ids=PLACEMENTS.keys())
def test_a_record_that_is_wrong_takes_no_other_with_it(made: Operation) -> None:
    good = event(made.name, **({"list_number": LIST} if made.name in TAKE_A_LIST else {}))
    values = [value for bad in TORTURE.values() for value in (good, bad)]

    ready = prepared(made, values)

    places = {offset for _, chunk in ready.lanes for offset in chunk.offsets}
    assert set(range(0, len(values), 2)) <= places
    check_requests(made, values, ready)


def test_no_depth_of_nesting_is_too_much_for_a_later_step() -> None:
    """What the check can just read, the rewriting of an event must be able to read as well."""
    made = operation("send", top_level_list=True)
    for depth in range(600, 1_100):
        value = _with(b'"list_number":"+18005551234","x":' + b"[" * depth + b"]" * depth)

        ready = prepared(made, [value])

        assert bool(ready.lanes) is (ready.settled is None)


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
_anything = (
    _json | st.sampled_from([*BAD_NUMBERS.values(), LIST, OTHER_LIST, "+10", ...]) | st.integers(-(10**400), 10**400)
)


@st.composite
def values_of(draw: st.DrawFn, name: str) -> bytes | None:
    """Draw a value: an event with fields as anyone may fill them, any JSON, any bytes, or an event that was damaged."""
    kind = draw(st.sampled_from(["good", "fields", "fields", "damaged", "json", "bytes", "null"]))
    if kind == "null":
        return None
    if kind == "bytes":
        return draw(st.binary(max_size=40))
    if kind == "json":
        return json.dumps(draw(_json)).encode(errors="surrogatepass")
    fields = st.sampled_from([*EVENTS[name], "list_number", "list_id", "use_journeys", "zz"])
    changes = draw(st.dictionaries(fields, _anything, max_size=3)) if kind == "fields" else {}
    text = {key: value for key, value in {**EVENTS[name], **changes}.items() if value is not ...}
    value = json.dumps(text, ensure_ascii=draw(st.booleans())).encode(errors="surrogatepass")
    if kind == "damaged":
        at = draw(st.integers(0, len(value)))
        return value[:at] + draw(st.binary(max_size=3)) + value[at + draw(st.integers(0, 2)) :]
    return value


@given(st.data(), st.sampled_from(sorted(PLACEMENTS)))
def test_any_value_is_posted_as_json_or_has_its_verdict(data: st.DataObject, placement: str) -> None:
    made = PLACEMENTS[placement]
    values = data.draw(st.lists(values_of(made.name), max_size=8))

    ready = prepared(made, values)

    check_requests(made, values, ready)


@given(st.data(), st.sampled_from(sorted(EVENTS)))
def test_a_value_is_judged_alike_in_any_company(data: st.DataObject, name: str) -> None:
    """The checks run over whole columns: what stands beside a record must not change its verdict."""
    made = operation(name)
    values = data.draw(st.lists(values_of(name), min_size=1, max_size=6))

    ready = prepared(made, values)

    together: list[str | None] = [None] * len(values)
    if ready.settled is not None:
        for at, offset in enumerate(ready.settled[0].offsets):
            together[offset] = ready.settled[1].of(at).reason
    alone = [None if (found := verdict(made, value)) is None else found.reason for value in values]
    assert together == alone


@pytest.mark.parametrize(
    "value",
    [
        event("revenue", attribution_type="x" * 1_000_000),
        b'{"message_id":"m","revenue":1,"attribution_type":"sale","%s":1}' % (b"x" * 1_000_000),
        b'{"message_id":"m","revenue":1,"attribution_type":{"%s":1}}' % (b"x" * 1_000_000),
    ],
    ids=["in a value", "in an unknown name", "in a name"],
)
def test_what_is_said_of_a_wrong_event_is_short(value: bytes) -> None:
    """It goes into headers three times: a dead letter must not grow by what is wrong with it, or it fits no topic."""
    found = verdict(operation("revenue", reject_unknown_fields=True), value)

    assert found is not None
    assert 0 < len(found.text) <= 500


# ------------------------------------------------------------------ fields that are null


def wire_of(made: Operation, value: bytes) -> bytes:
    """Return what goes into the request for a value."""
    ready = prepared(made, [value])
    assert ready.settled is None, ready.settled[1].of(0)
    ((_, chunk),) = ready.lanes
    assert chunk.values == [value], "the dead letter would be what came"
    assert chunk.wire is not None
    return chunk.wire[0]


LISTED: Final = {name: {"list_number": LIST} if name in TAKE_A_LIST else {} for name in EVENTS}


@pytest.mark.parametrize(("name", "field"), [(name, field) for name, fields in OPTIONAL.items() for field in fields])
def test_an_optional_field_that_is_null_is_as_if_it_was_not_there(name: str, field: str) -> None:
    made = operation(name, reject_unknown_fields=True)

    sent = wire_of(made, event(name, **{**LISTED[name], field: None}))

    assert loads(sent) == loads(wire_of(made, event(name, **{**LISTED[name], field: ...})))


def test_every_optional_field_is_one_of_those() -> None:
    for name, endpoint in ENDPOINTS.items():
        fields = msgspec.structs.fields(endpoint.event)
        assert [field.encode_name for field in fields if not field.required] == OPTIONAL[name]


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        ("send", b'"contact_data":{"first_name":null}', b'"contact_data":{}'),
        (
            "send",
            b'"contact_data":{"last_name": null,"timezone" : "Europe\\/Berlin","custom_fields":null,"x":null}',
            b'"contact_data":{"timezone":"Europe\\/Berlin","x":null}',
        ),
        ("contacts", b'"custom_fields":{"a":null,"b":1E+2,"c":null}', b'"custom_fields":{"b":1E+2}'),
        ("contacts", b'"url":null,"custom_fields":{"a":1}', b'"custom_fields":{"a":1}'),
        ("contacts", b'"custom_fields":null,"url":"u"', b'"url":"u"'),
    ],
)
def test_so_are_the_members_of_objects_that_take_no_null(name: str, given: bytes, kept: bytes) -> None:
    (to,) = [b'"%s":"+14155550101"' % field.encode() for field in ENDPOINTS[name].phones]
    rest = b'"list_number":"+18005551234",%s,"body":"x"' % to

    assert wire_of(operation(name), b"{%s,%s}" % (rest, given)) == b"{%s,%s}" % (rest, kept)


@pytest.mark.parametrize("more", [b"", b',"wrap_links":null'], ids=["alone", "beside a field that is null"])
def test_null_passes_where_anything_does(more: bytes) -> None:
    """What the platform keeps as it is given, and what no document names, is not ours to take things out of."""
    rest = b'"list_number":"+18005551234","x":null,"y":{"z":null},"metadata":{"a":null}'
    custom = b'"contact_data":{"custom_fields":{"a":null}}'

    assert wire_of(operation("send"), _with(rest + more + b"," + custom)) == _with(rest + b"," + custom)


def test_an_unknown_field_that_is_null_is_refused_where_unknown_fields_are() -> None:
    for more in ({}, {"wrap_links": None}):
        assert reason("send", event("send", surprise=None, **more), reject_unknown_fields=True) == "unknown_field"


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_a_required_field_that_is_null_is_missing_beside_others_that_are_null(name: str, field: str) -> None:
    assert reason(name, event(name, **{**dict.fromkeys(OPTIONAL[name]), field: None})) == f"missing_{field}"


def test_what_is_wrong_beside_null_is_named() -> None:
    found = verdict(operation("send"), _with(b'"list_number":null,"contact_data":7,"wrap_links":"yes"'))

    assert found is not None
    assert (found.reason, found.text) == ("wrong_type", "Expected `object`, got `int` - at `$.contact_data`")


@pytest.mark.parametrize("name", TAKE_A_LIST)
def test_the_streams_list_is_given_to_events_whose_list_is_null(name: str) -> None:
    value = event(name, list_number=None)

    ((_, chunk),) = prepared(operation(name, keep_lists=True), [value, event(name, list_number=OTHER_LIST)]).lanes

    assert chunk.wire is not None
    assert loads(chunk.wire[0]) == loads(event(name, list_number=LIST))
    assert chunk.lists == [LIST, OTHER_LIST]
    assert reason(name, value, list_number=None) == "missing_list_number"


def test_a_history_send_whose_list_is_null_may_name_it_by_id() -> None:
    value = event("history.sends", list_number=None, list_id=5)

    assert loads(wire_of(operation("history.sends"), value)) == loads(event("history.sends", list_id=5))
    assert loads(wire_of(operation("history.sends"), event("history.sends", list_id=None)))["list_number"] == LIST


def test_at_top_level_an_event_whose_list_is_null_goes_the_way_of_those_without() -> None:
    values = [event("send", list_number=number) for number in (None, OTHER_LIST, ..., LIST)]

    lanes = prepared(operation("send", top_level_list=True), values).lanes

    assert {lane: (list(chunk.offsets), chunk.own_list) for lane, chunk in lanes} == {
        LIST: ([0, 2, 3], True),
        OTHER_LIST: ([1], False),
    }
    assert all(b"list_number" not in record for _, chunk in lanes for record in chunk.wire or ())


def test_of_names_that_stand_twice_the_last_counts_where_a_field_is_null() -> None:
    twice = b'"list_number":"+18005551234","list_number":null,"x":1,"x":2,"metadata":null,"metadata":{}'

    assert loads(wire_of(operation("send", list_number=OTHER_LIST), _with(twice))) == {
        "list_number": OTHER_LIST,
        "to": "+14155550101",
        "body": "x",
        "x": "2",
        "metadata": {},
    }
    assert reason("send", _with(b'"to":null,"wrap_links":null')) == "missing_to"


def test_an_event_with_nothing_to_leave_out_is_not_read_another_way() -> None:
    """Of names that stand twice a plain event is judged by both."""
    for body in (b"Hi", b"null"):
        value = b'{"to":5,"to":"+14155550101","body":"%s","metadata":{"a":null}}' % body

        assert reason("send", value) == "wrong_type"


def test_others_of_a_chunk_stay_the_bytes_that_they_are() -> None:
    values = [event("send", list_number=LIST, body=str(at)) for at in range(3)]
    values[1] = event("send", list_number=LIST, wrap_links=None)

    ((_, chunk),) = prepared(operation("send"), values).lanes

    assert chunk.wire is not None
    assert (chunk.wire[0] is values[0], chunk.wire[2] is values[2]) == (True, True)
    assert chunk.values == values


def test_a_chunk_whose_events_with_null_are_all_refused_is_spliced() -> None:
    ((_, chunk),) = prepared(operation("send"), [NAMED, event("send", to="nobody", list_number=None)]).lanes

    assert chunk.wire is chunk.values


def test_a_record_has_the_size_of_what_is_wire_of() -> None:
    fits = padded("contacts", MAX_CONTACT_BYTES, "url", list_number=LIST)
    with_null = fits[:-1] + b',"ip_address":null}'

    assert len(wire_of(operation("contacts"), with_null)) <= MAX_CONTACT_BYTES < len(with_null)
    check_requests(operation("contacts"), [with_null] * 3, prepared(operation("contacts"), [with_null] * 3))


def test_the_position_of_invalid_utf8_is_that_in_the_received_bytes() -> None:
    value = _with(b'"list_number":null,"x":"\xff"')

    found = verdict(operation("send"), value)

    assert found is not None
    assert (found.reason, found.text) == ("not_utf8", f"byte {value.index(0xFF)} is not UTF-8")


def test_what_an_error_would_repeat_is_found_in_an_event_that_had_null() -> None:
    made = operation("history.sends")

    assert made.echoed(wire_of(made, event("history.sends", list_id=None))) == 7


def test_events_made_of_columns_may_hold_null_as_well() -> None:
    """Their types are looked at in place of a decode, as long as they fit."""
    values: list[bytes | None] = [event("send", list_number=None, contact_data=...), event("send", contact_data=...)]
    fields: dict[str, list[Any]] = {
        "to": ["+14155550101"] * 2,
        "body": ["Hi"] * 2,
        "list_number": [None, msgspec.UNSET],
    }
    chunk = Chunk(Partition("t", 0), 1, range(2), [b"source"] * 2)

    ready = operation("send").prepare(chunk, now_ms=0, shaped=Shaped(values, fields=fields))

    ((_, chunk),) = ready.lanes
    assert [loads(record) for record in chunk.wire or ()] == [
        loads(event("send", list_number=LIST, contact_data=...))
    ] * 2


_raw = st.sampled_from(
    [
        b"1E+2",
        b"-0.10",
        b"7" * 40,
        b"1e999",
        b'"\\u00e9\\/"',
        '"é null"'.encode(),
        b'[ null,{"a" : null} ]',
        b"{ }",
        b"true",
    ]
)
_space = st.sampled_from([b"", b" ", b"\n\t"])


@given(st.data(), st.sampled_from(sorted(EVENTS)))
def test_whatever_optional_places_are_null_all_else_is_posted_byte_by_byte(data: st.DataObject, name: str) -> None:
    """Field by field, in their order; so is what stands within the objects that lost a member."""
    inner = {"send": "contact_data", "contacts": "custom_fields"}.get(name)
    inside = CONTACT_DATA if name == "send" else ["a", "b", "c"]

    def members(places: dict[str, bytes], nulls: list[str]) -> tuple[list[tuple[str, bytes]], bytes]:
        every = data.draw(st.permutations([*places.items(), *((field, b"null") for field in nulls)]))
        pieces = []
        for field, raw in every:
            before, after, last = data.draw(_space), data.draw(_space), data.draw(_space)
            pieces.append(before + msgspec.json.encode(field) + b":" + after + raw + last)
        return [(field, raw) for field, raw in every if field not in nulls], b"{" + b",".join(pieces) + b"}"

    source = {field: msgspec.json.encode(value) for field, value in {**EVENTS[name], **LISTED[name]}.items()}
    source |= {field: data.draw(_raw) for field in data.draw(st.sets(st.sampled_from(["x", "ÿ", "z"])))}
    kept: list[tuple[str, bytes]] = []
    if inner is not None:
        kept, source[inner] = members(
            {"other": b'"\\u00fc"'}, data.draw(st.lists(st.sampled_from(inside), unique=True))
        )
    free = [field for field in OPTIONAL[name] if field not in source]
    rest, value = members(source, data.draw(st.lists(st.sampled_from(free), unique=True)))

    sent = msgspec.json.decode(wire_of(operation(name), value), type=dict[str, msgspec.Raw])

    assert list(sent) == [field for field, _ in rest]
    assert {f: bytes(raw) for f, raw in sent.items() if f != inner} == {f: raw for f, raw in rest if f != inner}
    if inner is not None:
        found = msgspec.json.decode(sent[inner], type=dict[str, msgspec.Raw])
        assert [(field, bytes(raw)) for field, raw in found.items()] == kept


# ------------------------------------------------------------------ paths and envelopes


@pytest.mark.parametrize(
    ("name", "rules", "path"),
    [
        ("send", {}, "send/bulk"),
        ("send", {"single": True}, "send"),
        ("contacts", {}, "contacts/bulk"),
        ("contacts", {"single": True}, "contacts"),
        ("revenue", {}, "revenue/bulk"),
        ("revenue", {"single": True}, "revenue"),
        ("history.sends", {}, "history/sends"),
        ("history.clicks", {}, "history/clicks"),
        ("history.revenue", {}, "history/revenue"),
        ("history.sends", {"history_import": True}, IMPORT_PATH),
    ],
)
def test_each_operation_posts_to_its_path(name: str, rules: dict[str, Any], path: str) -> None:
    assert operation(name, **rules).path == path


@pytest.mark.parametrize(
    ("name", "rules", "body"),
    [
        ("send", {}, b'{"messages":[%s,%s]}'),
        ("send", {"top_level_list": True}, b'{"list_number":"+18005551234","messages":[%s,%s]}'),
        ("contacts", {}, b'{"contacts":[%s,%s]}'),
        ("revenue", {}, b'{"records":[%s,%s]}'),
        ("revenue", {"imported_revenue": True}, b'{"imported":true,"records":[%s,%s]}'),
        ("revenue", {"imported_revenue": False}, b'{"imported":false,"records":[%s,%s]}'),
        ("history.clicks", {}, b'{"records":[%s,%s]}'),
    ],
)
def test_records_stand_in_their_envelope(name: str, rules: dict[str, Any], body: bytes) -> None:
    value = event(name, **({"list_number": LIST} if name == "contacts" or (name == "send" and not rules) else {}))
    made = operation(name, **rules)

    ((_, sent),) = bodies(made, prepared(made, [value, value]))

    assert sent == body % (value, value)


def test_history_is_one_operation_of_three_kinds() -> None:
    stream = {"name": "s", "operation": "history", "outcomes": {"topic": "out"}, "dead_letters": {"topic": "dead"}}

    for kind in ("sends", "clicks", "revenue"):
        history = StreamSettings.model_validate({**stream, "history": {"kind": kind}})
        assert operation_of(history).name == f"history.{kind}"


# ------------------------------------------------------------------ lists


@pytest.mark.parametrize("name", TAKE_A_LIST)
def test_the_streams_list_is_given_to_events_that_name_none(name: str) -> None:
    values = [event(name), event(name, list_number=OTHER_LIST)]

    ((_, chunk),) = prepared(operation(name), values).lanes

    assert chunk.wire == [b'{"list_number":"%s",' % LIST.encode() + values[0][1:], values[1]]
    assert chunk.values == values, "the dead letter is what came"


@pytest.mark.parametrize("name", TAKE_A_LIST)
@pytest.mark.parametrize("number", ["", "18005551234", "+1800555\n1234", "+1800555123\uff14"])
def test_a_list_that_is_no_number_is_refused(name: str, number: str) -> None:
    assert reason(name, event(name, list_number=number)) == "invalid_list_number"


@pytest.mark.parametrize("name", TAKE_A_LIST)
@pytest.mark.parametrize("rules", [{}, {"single": True}, {"top_level_list": True}])
def test_without_any_list_an_event_is_refused(name: str, rules: dict[str, Any]) -> None:
    assert reason(name, event(name), list_number=None, **rules) == "missing_list_number"
    assert reason(name, event(name, list_number=LIST), list_number=None, **rules) is None


def test_a_history_send_may_name_its_list_by_id() -> None:
    value = event("history.sends", list_id=5)

    ((_, chunk),) = prepared(operation("history.sends"), [value]).lanes

    assert (chunk.wire, chunk.own_list) == ([value], False)
    assert reason("history.sends", value, list_number=None) is None


def test_at_top_level_each_list_has_its_lane() -> None:
    made = operation("send", top_level_list=True)
    values = [
        event("send", body=str(at), list_number=number) for at, number in enumerate([LIST, OTHER_LIST, ..., LIST])
    ]

    lanes = prepared(made, values).lanes

    assert [(lane, list(chunk.offsets)) for lane, chunk in lanes] == [(LIST, [0, 2, 3]), (OTHER_LIST, [1])]
    assert all(b"list_number" not in record for _, chunk in lanes for record in chunk.wire or ())


def test_an_envelope_is_measured_with_the_longest_list_that_there_can_be() -> None:
    assert E164.fullmatch(LONGEST_LIST_NUMBER)
    assert not E164.fullmatch(LONGEST_LIST_NUMBER + "9")


def test_taking_a_list_out_of_an_event_leaves_all_else_as_it_was() -> None:
    """Numbers that no double holds, and ones that no reader of ours can read, are not ours to round or refuse."""
    rest = b'"metadata":{"n":0.1000,"m":12345678901234567890.5},"x":[1e999,1E+2,%s],"y":"\\u00e9\xc3\xa9"' % (
        b"7" * 5_000
    )
    value = b'{"to":"+14155550101","list_number":"+18005551234","body":"x",%s}' % rest

    ((lane, chunk),) = prepared(operation("send", top_level_list=True), [value]).lanes

    assert lane == LIST
    assert chunk.wire == [b'{"to":"+14155550101","body":"x",%s}' % rest]


OWN: Final = event("send")
NAMED: Final = event("send", list_number=LIST)
OTHER: Final = event("send", list_number=OTHER_LIST)
BROKEN: Final = event("send", to="nobody", list_number=OTHER_LIST)


@pytest.mark.parametrize("top_level", [False, True], ids=["in each message", "at top level"])
@pytest.mark.parametrize(
    ("values", "own"),
    [
        ([OWN, OWN], True),
        ([OWN, NAMED], True),
        ([NAMED, NAMED], True),
        ([OTHER, OTHER], False),
        ([OWN, BROKEN], True),
        ([OWN, b"not json"], True),
        ([OWN, None], True),
        ([NAMED, b"not json"], True),
        ([OTHER, b"not json"], False),
    ],
    ids=[
        "own",
        "own, once by its name",
        "own, by its name",
        "another",
        "own beside a broken one",
        "own beside rubbish",
        "own beside null",
        "own by its name beside rubbish",
        "another beside rubbish",
    ],
)
def test_a_chunk_knows_whether_its_list_is_the_streams_own(
    values: list[bytes | None], own: bool, top_level: bool
) -> None:
    """A wrong list holds the stream only when it is the stream's: what is refused beside it must not hide that."""
    ((_, chunk),) = prepared(operation("send", top_level_list=top_level), values).lanes

    assert chunk.own_list is own


def test_lists_that_are_mixed_are_not_the_streams_own_unless_each_has_its_lane() -> None:
    ((_, chunk),) = prepared(operation("send"), [OWN, OTHER]).lanes
    lanes = prepared(operation("send", top_level_list=True), [OWN, OTHER, NAMED]).lanes

    assert chunk.own_list is False
    assert {lane: chunk.own_list for lane, chunk in lanes} == {LIST: True, OTHER_LIST: False}


@pytest.mark.parametrize("name", [name for name in EVENTS if name not in TAKE_A_LIST])
def test_where_there_is_no_list_none_is_the_streams_own(name: str) -> None:
    ((_, chunk),) = prepared(operation(name), [event(name)]).lanes

    assert chunk.own_list is False


# ------------------------------------------------------------------ sizes


def padded(name: str, size: int, field: str, **fields: Any) -> bytes:
    """Return an event of exactly so many bytes."""
    empty = len(event(name, **fields, **{field: ""}))
    return event(name, **fields, **{field: "x" * (size - empty)})


def test_a_contact_has_its_limit() -> None:
    fits = padded("contacts", MAX_CONTACT_BYTES, "url", list_number=LIST)
    one_more = padded("contacts", MAX_CONTACT_BYTES + 1, "url", list_number=LIST)

    assert [len(fits), len(one_more)] == [4_000, 4_001]
    assert reason("contacts", fits) is None
    assert reason("contacts", one_more) == "contact_too_large"


def test_the_list_that_a_contact_is_given_counts() -> None:
    given = len(b'"list_number":"+18005551234",')

    assert reason("contacts", padded("contacts", MAX_CONTACT_BYTES - given, "url")) is None
    assert reason("contacts", padded("contacts", MAX_CONTACT_BYTES - given + 1, "url")) == "contact_too_large"


PADDING: Final = {"send": "body", "contacts": "url", "history.sends": "message", "history.clicks": "send_timestamp"}


@pytest.mark.parametrize("made", PLACEMENTS.values(), ids=PLACEMENTS.keys())
def test_a_record_that_just_fits_fills_its_request_and_one_byte_more_is_refused(made: Operation) -> None:
    at_top = made.rules.top_level_list
    made = Operation(made.name, replace(made.rules, max_body_bytes=2_000, list_number=LONGEST_LIST_NUMBER))
    lists = {"list_number": LIST} if made.name in TAKE_A_LIST and not at_top else {}
    field = PADDING.get(made.name, "timestamp")
    fits, one_more = (padded(made.name, made.max_record_bytes + more, field, **lists) for more in (0, 1))

    ready = prepared(made, [fits, one_more])

    assert ready.settled is not None
    assert [verdict.reason for verdict in ready.settled[1].exceptions.values()] == ["record_too_large"]
    ((batch, body),) = bodies(made, ready)
    assert len(body) == batch.size == 2_000


# ------------------------------------------------------------------ rules of the stream


def test_a_field_that_no_document_names_passes_unless_the_stream_refuses_it() -> None:
    for name in EVENTS:
        value = event(name, surprise=1)

        assert reason(name, value) is None
        assert reason(name, value, reject_unknown_fields=True) == "unknown_field"
        assert reason(name, event(name), reject_unknown_fields=True) is None


def test_journeys_are_the_operators_choice() -> None:
    """They may text people, so that a contact posted again would do so twice."""
    joins = event("contacts", use_journeys=True)

    assert reason("contacts", joins) is None
    assert reason("contacts", joins, journeys=False) == "journeys_not_allowed"
    assert reason("contacts", event("contacts", use_journeys=False), journeys=False) is None
    assert reason("contacts", event("contacts"), journeys=False) is None


@pytest.mark.parametrize(("age_ms", "expected"), [(59_999, None), (60_000, None), (60_001, "expired")])
def test_what_is_older_than_the_stream_allows_has_expired(age_ms: int, expected: str | None) -> None:
    made = operation("send", max_age_ms=60_000)
    chunk = Chunk(Partition("t", 0), 1, range(2), [event("send")] * 2, timestamps=[1_000_000, 1_000_000 - age_ms])

    settled = made.prepare(chunk, now_ms=1_000_000).settled

    assert (None if settled is None else settled[1].of(0).reason) == expected
    assert settled is None or list(settled[0].offsets) == [1]


def test_without_a_greatest_age_nothing_expires() -> None:
    ready = prepared(operation("send"), [event("send")], timestamps=[0])

    assert ready.settled is None


@pytest.mark.parametrize("name", EVENTS)
def test_a_chunk_without_records_is_nothing(name: str) -> None:
    ready = prepared(operation(name), [])

    assert ready.settled is None
    assert all(len(chunk) == 0 for _, chunk in ready.lanes)


def test_columns_stay_beside_their_records() -> None:
    values = [event("send", body="a"), b"broken", None, event("send", body="b")]
    columns = {"keys": [b"0", b"1", b"2", b"3"], "headers": [[(str(at), None)] for at in range(4)]}

    ready = prepared(operation("send"), values, **columns)

    assert ready.settled is not None
    ((_, good),) = ready.lanes
    assert (list(good.offsets), good.keys, good.values) == ([0, 3], [b"0", b"3"], [values[0], values[3]])
    assert (list(ready.settled[0].offsets), ready.settled[0].keys) == ([1, 2], [b"1", b"2"])
    assert good.header_list(1) == [("3", None)]


NUMBERS: Final = st.sampled_from(
    ["+15550001", "+1", "", "+", "+0123", LONGEST_LIST_NUMBER, "+12\n", "\n", "+12 ", "+١٢"]
)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=8))
def test_of_many_records_exactly_those_with_a_number_that_is_none_are_refused(pairs: list[tuple[str, str]]) -> None:
    """They are looked at together, in one pass; each is judged as it would be alone."""
    ready = prepared(operation("send"), [event("send", to=to, list_number=sender) for to, sender in pairs])

    wrong = [index for index, pair in enumerate(pairs) if not all(map(E164.fullmatch, pair))]
    refused = [] if ready.settled is None else list(ready.settled[0].offsets)
    assert refused == wrong
