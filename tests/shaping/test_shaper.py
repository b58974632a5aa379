"""A stream's mapping, from the bytes of a record to those of the event, and every way in which one can fail."""

from dataclasses import replace
from typing import Any

import jmespath
import orjson
import pytest
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from connector.config.streams import StreamSettings
from connector.core.chunks import Headers
from connector.mapping.mapping import InvalidMappingError
from connector.mapping.projection import MAX_NAMES
from connector.shaping.decoded import Decoder
from connector.shaping.formats import decoder_for
from connector.shaping.shaper import Shaper, shape_by, shaper_of
from connector.trackly.operations import operation_of
from tests.shaping.making import chunk, posted, prepared, settled, stream

MAPPING: dict[str, Any] = {
    "when": "value.type == 'order.shipped' && value.sms_opt_in",
    "fields": {
        "to": "value.customer.phone",
        "body": {
            "template": "Hi {{ value.customer.first_name | default('there') }}, order {{ value.id }} has shipped."
        },
        "metadata": {
            "order_id": "value.id",
            "source": {"const": "shop"},
            "tier": {"from": "value.tier", "default": "c"},
        },
    },
    "list_number": {"table": {"US": "+18005551234", "GB": "+441632960960"}, "by": "value.country"},
}


def order(**changes: Any) -> dict[str, Any]:
    return {
        "type": "order.shipped",
        "sms_opt_in": True,
        "id": 7,
        "country": "GB",
        "customer": {"phone": "+14155550101", "first_name": "Ada"},
        **changes,
    }


def test_a_mapping_makes_events_in_the_apis_shape() -> None:
    result = prepared(stream(mapping=MAPPING), chunk(order(), order(customer={"phone": "+14155550102"}, tier="a")))

    assert posted(result) == [
        {
            "to": "+14155550101",
            "body": "Hi Ada, order 7 has shipped.",
            "metadata": {"order_id": 7, "source": "shop", "tier": "c"},
            "list_number": "+441632960960",
        },
        {
            "to": "+14155550102",
            "body": "Hi there, order 7 has shipped.",
            "metadata": {"order_id": 7, "source": "shop", "tier": "a"},
            "list_number": "+441632960960",
        },
    ]
    assert result.settled is None


def test_the_chunk_keeps_the_bytes_that_were_read() -> None:
    """They are what a dead letter of the platform carries."""
    source = chunk(order(), order())
    values = list(source.values)
    ((_, part),) = prepared(stream(mapping=MAPPING), source).lanes

    assert part.values == values
    assert part.wire != values


def test_each_record_has_one_end() -> None:
    result = prepared(
        stream(mapping=MAPPING),
        chunk(
            order(type="order.paid"),
            order(sms_opt_in=False),
            order(),
            None,
            b"{nope",
            b'"\xff"',
            order(customer={}),
            order(customer={"phone": "+1", "first_name": {"a": 1}}),
            order(customer={"phone": "nope"}),
        ),
    )
    verdicts = settled(result)

    assert len(posted(result)) == 1
    assert {offset: (v.status, v.reason) for offset, v in verdicts.items()} == {
        0: ("skipped", "filtered"),
        1: ("skipped", "filtered"),
        3: ("skipped", "tombstone"),
        4: ("dead_letter", "not_json"),
        5: ("dead_letter", "not_utf8"),
        6: ("dead_letter", "missing_to"),
        7: ("dead_letter", "mapping_failed"),
        8: ("dead_letter", "invalid_phone"),
    }
    assert verdicts[7].text == "mapping.fields.body: `value.customer.first_name` would print an object"


@pytest.mark.parametrize(
    ("mapping", "where"),
    [
        ({"when": "contains(value.nothing, 'a')", "fields": {"to": "value.to"}}, "mapping.when: contains() takes"),
        ({"fields": {"metadata": {"n": "length(value.n)"}}}, "mapping.fields.metadata.n: length() takes"),
        ({"fields": {"body": {"template": "{{ value.text }}"}}}, "mapping.fields.body: `text` is not there"),
        ({"list_number": "sum(value.nothing)"}, "mapping.list_number: sum() takes"),
        (
            {"list_number": {"table": {"a": "+18005551234"}, "by": "max(value.n)"}},
            "mapping.list_number.by: max() takes",
        ),
    ],
)
def test_what_fails_is_named_and_others_continue(mapping: dict[str, Any], where: str) -> None:
    good = {"to": "+14155550101", "body": "a", "text": "a", "n": [1], "nothing": [1]}
    source = chunk({"n": 1}, good)
    verdicts = settled(prepared(stream(mapping=mapping), source))

    assert Shaper(stream(mapping=mapping)).shape(source).events[0] is None
    assert verdicts[0].reason == "mapping_failed"
    assert verdicts[0].text.startswith(where)
    assert 1 not in verdicts or verdicts[1].reason != "mapping_failed"


def test_beside_a_record_that_fails_the_others_are_checked_by_their_own_fields() -> None:
    fields = {"to": "value.to", "body": "value.to", "metadata": {"n": "length(value.n)"}}
    numbers = ["nope", "+14155550101", "nope", "+14155550102"]
    source = chunk({"to": numbers[0]}, {"to": numbers[1]}, *({"to": number, "n": []} for number in numbers[2:]))
    result = prepared(stream(mapping={"fields": fields}), source)

    assert [event["to"] for event in posted(result)] == ["+14155550102"]
    assert [verdict.reason for verdict in settled(result).values()] == ["mapping_failed"] * 2 + ["invalid_phone"]


def test_roots_other_than_the_value() -> None:
    fields = {
        "to": "key",
        "body": {"template": "{{ topic }} {{ timestamp | date('UTC', 'yyyy-MM-dd') }}"},
        "metadata": {"a": 'headers."x-a"', "b": "headers.b", "at": "timestamp", "gone": "attributes.id"},
    }
    headers: list[Headers | None] = [[("x-a", b"1"), ("x-a", b"2"), ("b", b"\xff\x00")], None]
    source = chunk({}, {}, keys=[b"+14155550101", b"+14155550102"], headers=headers, timestamps=[1_769_846_400_000, 1])
    result = prepared(stream(mapping={"fields": fields}, list_number_placement="top_level"), source)

    assert posted(result) == [
        {
            "to": "+14155550101",
            "body": "orders 2026-01-31",
            "metadata": {"a": "2", "b": "/wA=", "at": 1_769_846_400_000},
        },
        {"to": "+14155550102", "body": "orders 1970-01-01", "metadata": {"at": 1}},
    ]


@pytest.mark.parametrize(
    ("list_number", "value", "expected"),
    [
        ("value.list", {"list": "+18005550001"}, "+18005550001"),
        ("value.list", {}, None),
        ({"const": "+18005550002"}, {}, "+18005550002"),
        ("headers.list", {}, "+18005550003"),
        ({"table": {"7": "+18005550004"}, "by": "value.store"}, {"store": 7}, "+18005550004"),
        ({"table": {"7": "+18005550004"}, "by": "value.store"}, {"store": 8}, None),
        ({"table": {"a": "+18005550004"}, "by": "value.store", "default": "+18005550005"}, {}, "+18005550005"),
    ],
)
def test_the_list_is_chosen_by_field_header_or_table(list_number: Any, value: Any, expected: str | None) -> None:
    """Where nothing is chosen it is the stream's own."""
    source = chunk({"to": "+14155550101", "body": "a", **value}, headers=[[("list", b"+18005550003")]])
    mapping = {"fields": {"to": "value.to", "body": "value.body"}, "list_number": list_number}
    result = prepared(stream(mapping=mapping), source)

    assert [event["list_number"] for event in posted(result)] == [expected or "+18005551234"]


def test_a_filter_alone_leaves_the_bytes_as_they_are() -> None:
    good = b'{"to":"+14155550101", "body":"x","send":true,"send":true}'
    source = chunk(good, {"to": "+14155550101", "body": "y"})
    shaped = Shaper(stream(mapping={"when": "value.send"})).shape(source)
    result = operation_of(stream(list_number=None, unknown_fields="pass")).prepare(source, now_ms=0, shaped=shaped)
    verdicts = settled(result)

    assert shaped.events == [good, None]
    assert verdicts[1].reason == "filtered"
    assert verdicts[0].reason == "missing_list_number"  # checked as ever


def test_segments_are_bounded_on_the_splice_path_too() -> None:
    settings = stream(mapping={"max_segments": 1})
    source = chunk(*({"to": "+14155550101", "body": body} for body in ("a" * 160, "a" * 161, "漢" * 71)))
    shaped = Shaper(settings).shape(source)
    result = operation_of(settings).prepare(source, now_ms=0, shaped=shaped)

    assert shaped.events is source.values
    assert len(posted(result)) == 1
    assert {offset: (v.reason, v.text) for offset, v in settled(result).items()} == {
        1: ("too_many_segments", "2 segments (GSM-7, 161 units); at most 1"),
        2: ("too_many_segments", "2 segments (UCS-2, 71 units); at most 1"),
    }


@pytest.mark.parametrize(
    "mapping",
    [
        {},
        {"when": "value.to"},
        {"list_number": "value.list"},
        {"fields": {"to": "value.to", "body": "value.body"}},
        {"fields": {"to": "value.to", "body": "value.body || ''"}},
    ],
)
@pytest.mark.parametrize("beside", [[], [b"{"]], ids=["alone", "beside what is no JSON"])
def test_segments_are_bounded_whatever_else_a_mapping_does(mapping: dict[str, Any], beside: list[bytes]) -> None:
    events = [{"to": "+14155550101", "body": "a" * length} for length in (161, 160)]
    result = prepared(stream(mapping={**mapping, "max_segments": 1}), chunk(*events, *beside))

    assert [event["body"] for event in posted(result)] == ["a" * 160]
    assert [verdict.reason for verdict in settled(result).values()] == [
        "too_many_segments",
        *["not_json"] * len(beside),
    ]


def test_a_stream_that_shapes_nothing_has_no_shaper() -> None:
    assert shaper_of(stream()) is None
    assert shaper_of(stream(mapping={"max_segments": 1})) is not None
    assert shaper_of(stream(overrides=[{"topics": ["carts"], "mapping": {"fields": {"to": "key"}}}])) is not None


def _decoder_of(settings: StreamSettings) -> Decoder | None:
    return decoder_for(settings.format, None)


FRAMED: dict[str, Any] = {"format": {"type": "json_schema", "validation": False}}
GOOD = {"to": "+14155550101", "body": "a"}


def _framed(*values: Any) -> list[bytes]:
    return [b"\0\0\0\0\1" + orjson.dumps(value) for value in values]


def test_each_part_of_the_settings_makes_a_shaper() -> None:
    for settings in (FRAMED, {"transform": "tests.shaping.hooks:text"}, {"mapping": {"when": "value.a"}}):
        assert shaper_of(stream(**settings), _decoder_of) is not None
        assert shaper_of(stream(overrides=[{"topics": ["carts"], **settings}]), _decoder_of) is not None


def test_what_is_decoded_is_posted_as_json_without_a_mapping_as_well() -> None:
    shaped = Shaper(stream(**FRAMED), _decoder_of).shape(chunk(*_framed(GOOD), b"{}", None, *_framed([1])))

    assert shaped.events == [orjson.dumps(GOOD), None, None, b"[1]"]
    assert {index: verdict.reason for index, verdict in shaped.bad.items()} == {1: "not_framed", 2: "tombstone"}


@pytest.mark.parametrize("mapping", [{"fields": {"to": "value.to", "body": "value.body"}}, {"when": "value.to"}])
def test_what_is_decoded_is_mapped(mapping: dict[str, Any]) -> None:
    shaper = Shaper(stream(**FRAMED, mapping=mapping), _decoder_of)

    assert shaper.shape(chunk(*_framed(GOOD))).events == [orjson.dumps(GOOD)]


def test_a_mapping_of_cloudevents_follows_fields_of_their_data() -> None:
    settings = stream(format={"type": "cloudevents"}, mapping={"fields": {"to": "value.to", "body": "value.id"}})
    event = {"specversion": "1.0", "source": "/orders", "type": "t", "id": "7", "data": {**GOOD, "id": "of the data"}}

    assert [orjson.loads(event or b"") for event in Shaper(settings, _decoder_of).shape(chunk(event)).events] == [
        {"to": GOOD["to"], "body": "of the data"}
    ]


def test_a_mapping_has_the_attributes_of_what_it_passes() -> None:
    fields = {"to": "value.to", "body": {"template": "{{ value.body }} {{ attributes.id }}"}}
    settings = stream(
        format={"type": "cloudevents"}, mapping={"when": "attributes.type == 'shipped'", "fields": fields}
    )
    event = {"specversion": "1.0", "source": "/orders", "data": GOOD}
    kinds = ["paid", "shipped", None, "shipped"]
    source = chunk(*({**event, "id": str(at), "type": kind} for at, kind in enumerate(kinds)))

    shaped = Shaper(settings, _decoder_of).shape(source)

    assert [None if event is None else orjson.loads(event)["body"] for event in shaped.events] == [
        None,
        "a 1",
        None,
        "a 3",
    ]
    assert {index: verdict.reason for index, verdict in shaped.bad.items()} == {0: "filtered", 2: "not_a_cloudevent"}


@pytest.mark.parametrize(
    ("settings", "needed"),
    [
        ({"mapping": MAPPING}, False),
        ({"mapping": {"when": "timestamp"}}, True),
        ({"mapping": {"fields": {"metadata": {"at": {"template": "{{ timestamp }}"}}}}}, True),
        ({"mapping": {"fields": {"metadata": {"all": "@"}}}}, True),
        ({"transform": "tests.shaping.hooks:text"}, True),
        ({"overrides": [{"topics": ["carts"], "mapping": {"when": "timestamp"}}]}, True),
    ],
)
def test_timestamps_are_kept_where_anything_uses_them(settings: dict[str, Any], needed: bool) -> None:
    assert Shaper(stream(**settings)).needs_timestamps is needed


OVERRIDES: list[dict[str, Any]] = [
    {
        "topics": ["carts"],
        "mapping": {"when": None, "fields": {"body": {"const": "Your cart waits"}, "metadata": None}},
    },
    {"pattern": "^orders$", "mapping": None},
]


def test_an_override_is_laid_over_the_streams_mapping() -> None:
    settings = stream(mapping=MAPPING, overrides=OVERRIDES)
    result = prepared(settings, chunk(order(type="x"), topic="carts"))
    raw = {"to": "+14155550101", "body": "as it is", "list_number": "+18005551234"}

    assert posted(result) == [{"to": "+14155550101", "body": "Your cart waits", "list_number": "+441632960960"}]
    assert posted(prepared(settings, chunk(raw, topic="orders"))) == [raw]


def test_what_is_sent_again_is_shaped_by_where_it_came_from_first() -> None:
    def from_topic(topic: bytes) -> Headers:
        return [("trackly.origin.topic", topic), ("trackly.origin.partition", b"0"), ("trackly.origin.offset", b"1")]

    settings = stream(mapping=MAPPING, overrides=[*OVERRIDES, {"topics": ["x"], "mapping": {"max_segments": 1}}])
    settings = settings.model_copy(update={"overrides": settings.overrides[:1]})
    source = chunk(
        order(), order(type="cart"), order(), topic="shop.redrive",
        headers=[from_topic(b"orders"), from_topic(b"carts"), None],
    )  # fmt: skip
    bodies = [event["body"] for event in posted(prepared(settings, source))]

    assert bodies == ["Hi Ada, order 7 has shipped.", "Your cart waits", "Hi Ada, order 7 has shipped."]


def test_records_that_are_sent_again_may_all_be_of_one_topic() -> None:
    origin: Headers = [
        ("trackly.origin.topic", b"carts"), ("trackly.origin.partition", b"0"), ("trackly.origin.offset", b"1")
    ]  # fmt: skip
    source = chunk(order(type="cart"), b"{", topic="shop.redrive", headers=[origin, origin])
    result = prepared(stream(mapping=MAPPING, overrides=OVERRIDES[:1]), source)

    assert [event["body"] for event in posted(result)] == ["Your cart waits"]
    assert settled(result)[1].reason == "not_json"


def test_segments_of_what_is_sent_again_are_those_of_its_topic() -> None:
    headers: list[Headers | None] = [
        [("trackly.origin.topic", topic), ("trackly.origin.partition", b"0"), ("trackly.origin.offset", b"1")]
        for topic in (b"orders", b"carts")
    ]
    overrides = [{"topics": ["carts"], "mapping": {"max_segments": 3}}]
    settings = stream(mapping={"when": "value.to", "max_segments": 1}, overrides=overrides)
    event = {"to": "+14155550101", "body": "a" * 300}
    source = chunk(b"{", event, event, topic="shop.redrive", headers=[headers[0], *headers])
    verdicts = settled(prepared(settings, source))

    assert {offset: v.reason for offset, v in verdicts.items()} == {0: "not_json", 1: "too_many_segments"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "to"]), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(JSON | st.binary(max_size=5), max_size=8))
def test_each_record_has_one_result_for_any_content(values: list[Any]) -> None:
    fields = {
        "to": "value.to",
        "body": {"template": "{{ value.a.b }} {{ value.b | default('x') }}"},
        "metadata": {"a": "value.a[0].b || value.b", "s": {"from": "value.a.b", "default": 1}},
    }
    settings = stream(mapping={"when": "value.b != `7`", "fields": fields})
    source = chunk(*values)
    result = prepared(settings, source)
    ends = [*settled(result), *(offset for _, part in result.lanes for offset in part.offsets)]

    assert sorted(ends) == list(range(len(values)))
    for _, part in result.lanes:
        for wire in part.wire or []:
            orjson.loads(wire)


def test_whole_numbers_of_any_size_stay_as_they_are() -> None:
    mapping = {"fields": {"to": "value.to", "body": {"template": "{{ value.id }}"}, "metadata": {"id": "value.id"}}}
    result = prepared(stream(mapping=mapping), chunk({"to": "+14155550101", "id": 12345678901234567890123}))

    (event,) = posted(result)
    assert (event["body"], event["metadata"]["id"]) == ("12345678901234567890123", 12345678901234567890123)


def test_half_a_surrogate_pair_is_named_in_the_dead_letter() -> None:
    """The value is whole: to call it truncated would send people after their producers' limits."""
    verdicts = settled(prepared(stream(mapping=MAPPING), chunk(b'{"body":"\\ud800"}', b'{"body":"cut of')))

    assert [verdicts[n].reason for n in (0, 1)] == ["not_json", "not_json"]
    # Which column orjson names depends on its version.
    assert verdicts[0].text.startswith("no low surrogate in string: ")
    assert verdicts[1].text.startswith("unexpected end of data: ")


def test_no_number_that_json_does_not_have_is_taken() -> None:
    verdicts = settled(prepared(stream(mapping=MAPPING), chunk(b'{"id": NaN}')))

    assert verdicts[0].reason == "not_json"


def test_shaped_bytes_pass_unknown_fields_that_are_refused() -> None:
    """A record that has its verdict already is no stumbling block for the checks of the others."""
    settings = stream(
        mapping={"when": "value.a", "fields": {"to": "value.to", "body": "value.a"}}, unknown_fields="reject"
    )
    result = prepared(settings, chunk({"to": "+14155550101"}, {"to": "+14155550101", "a": "x"}))

    assert posted(result) == [{"to": "+14155550101", "body": "x", "list_number": "+18005551234"}]


def test_the_filler_is_an_event_of_every_operation() -> None:
    for operation, fields in (("contacts", {"phone_number": "key"}), ("revenue", {"message_id": "key"})):
        settings = stream(
            operation=operation, mapping={"when": "value.a", "fields": fields},
            list_number="+18005551234" if operation == "contacts" else None,
        )  # fmt: skip
        verdicts = settled(prepared(settings, chunk({}, {})))

        assert [v.reason for v in verdicts.values()] == ["filtered", "filtered"]


PRINTED = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.just([1])
)
RECORD = st.fixed_dictionaries({}, optional={"a": PRINTED, "b": st.fixed_dictionaries({"c": PRINTED})})


@tries(deadline=None)  # the first loads Jinja and Babel, and all compile templates
@given(st.lists(RECORD, max_size=6))
def test_records_together_are_printed_as_each_alone(values: list[Any]) -> None:
    """Templates that print fields are filled column by column, where all records have them."""
    texts = ["100% {{ value.a }}", "{{ value.b.c | default('x') }}\n{{ topic }}", "{{ value.a }}{{ value.b.c }}"]
    for text in texts:
        settings = stream(mapping={"fields": {"to": {"const": "+14155550101"}, "body": {"template": text}}})
        together = Shaper(settings).shape(chunk(*values))
        alone = [Shaper(settings).shape(chunk(value)) for value in values]

        assert together.events == [one.events[0] for one in alone]
        assert together.bad == {index: one.bad[0] for index, one in enumerate(alone) if one.bad}


FIELDS: dict[str, Any] = {
    "when": "value.a && value.b.c == 'x'",
    "fields": {
        "to": "value.b.c",
        "body": {"template": "{{ value.a }} {{ value.d.e | default('?') }} {{ key }}"},
        "metadata": {"a": "value.d.f", "b": {"from": "value.b.d", "default": 2}},
    },
    "list_number": {"table": {"x": "+18005550001"}, "by": "value.b.c"},
}
"""A mapping that does nothing but follow fields, so that most records are decoded no further."""

FIELDS_RECORD = st.fixed_dictionaries(
    {}, optional={
        "a": PRINTED, "z": PRINTED,
        "b": st.fixed_dictionaries({"c": st.just("x")}, optional={"d": PRINTED}) | PRINTED,
        "d": st.fixed_dictionaries({}, optional={"e": PRINTED, "f": PRINTED}) | PRINTED,
    },
)  # fmt: skip
JUNK = st.sampled_from([None, b"", b"{", b"[1]", b'"x"', b'{"a":1,"z":"\xff"}', b'{"a":"\xff"}', b'{"a":1}x', b"\xff"])


@pytest.mark.parametrize("when", [FIELDS["when"], None, "value.a", "value.z == 'x' && value.a"])
@given(data=st.data())
def test_the_fields_alone_tell_what_the_whole_record_tells(when: str | None, data: st.DataObject) -> None:
    """The way by way of a projection is one by way of fewer bytes; where it cannot tell, the whole record is asked."""
    values = data.draw(st.lists(FIELDS_RECORD | JUNK, max_size=6))
    source = chunk(
        *values, keys=data.draw(st.lists(st.none() | st.just(b"k"), min_size=len(values), max_size=len(values)))
    )
    for mapping in ({**FIELDS, "when": when}, {"when": when or "value.z"}):
        plan = Shaper(stream(mapping=mapping)).plan_for("orders")
        found = shape_by(plan, source, "orders")
        whole = shape_by(replace(plan, projection=None), source, "orders")

        assert plan.projection is not None
        assert (found.events, found.bad) == (whole.events, whole.bad)


@pytest.mark.parametrize(
    "mapping",
    [
        {"fields": {"to": "value"}},
        {"fields": {"to": "value", "body": "value.b"}},
        {"fields": {"to": "value.a", "body": {"template": "{{ value }}"}}},
        {"fields": {"to": "value.a", "metadata": {"all": "value.a.b"}}},
        {"fields": {"to": "value.a[0]"}},
        {"fields": {"to": "key"}},
        {"list_number": "value.list"},
        {"fields": {"to": 'value."a\\"b"'}},
        {"when": "value.a != 'x'", "fields": {"to": "value.to"}},
        {"fields": {"to": ".".join(["value", *["a"] * MAX_NAMES])}},
    ],
)
def test_what_needs_more_of_a_record_than_some_fields_is_given_all_of_it(mapping: dict[str, Any]) -> None:
    assert Shaper(stream(mapping=mapping)).plan_for("orders").projection is None


def test_a_number_that_nobody_looks_at_may_be_of_any_size() -> None:
    """As in an event that needs no mapping: each record's end depends on nothing but itself."""
    mapping = {"fields": {"to": "value.to", "body": {"template": "{{ value.a | default('-') }}"}}}
    values = [b'{"to":"+14155550101","a":1,"z":1e999}', {"to": "+14155550102"}]

    assert [event["body"] for event in posted(prepared(stream(mapping=mapping), chunk(*values)))] == ["1", "-"]


def test_any_number_of_fields_is_followed_beside_headers() -> None:
    names = [f"n{number}" for number in range(12)]
    fields = {"to": "value.to", "body": "headers.h", "metadata": {name: f"value.all.{name}" for name in names}}
    values: list[dict[str, Any]] = [
        {"to": "+14155550101", "all": {name: name.upper() for name in names}},
        {"to": "+14155550102"},
    ]
    settings = stream(mapping={"fields": fields})

    result = prepared(settings, chunk(*values, headers=[[("h", b"1")], [("h", b"2")]]))

    assert Shaper(settings).plan_for("orders").projection is not None
    assert [(event["body"], event.get("metadata")) for event in posted(result)] == [
        ("1", values[0]["all"]),
        ("2", None),
    ]


@pytest.mark.parametrize("length", [MAX_NAMES - 1, MAX_NAMES, 900])
def test_a_path_may_be_long(length: int) -> None:
    """Up to a limit only what it leads to is decoded."""
    names = ["a"] * length
    deep: Any = "found"
    for name in names[:MAX_NAMES]:  # so that the longest path leads to nothing
        deep = {name: deep}
    settings = stream(
        mapping={"fields": {"to": "value.to", "body": {"from": ".".join(["value", *names]), "default": "x"}}}
    )
    result = prepared(settings, chunk({"to": "+14155550101"}, {"to": "+14155550102", **deep}))

    assert (Shaper(settings).plan_for("orders").projection is None) == (length >= MAX_NAMES)
    assert [event["body"] for event in posted(result)] == ["x", "found" if length <= MAX_NAMES else "x"]


def test_a_chunk_may_hold_nothing_to_check() -> None:
    settings = stream(delivery={"max_age_secs": 60}, mapping={"when": "value.a", "fields": {"to": "value.a"}})

    assert prepared(settings, chunk(timestamps=[])).settled is None
    assert len(settled(prepared(settings, chunk({}, None, timestamps=[1, 1])))) == 2


@pytest.mark.parametrize("text", ["Hello", "", "{# nobody reads this #}Hello", "{{ 'Hel' }}lo"])
def test_a_template_may_print_no_field(text: str) -> None:
    mapping = {"fields": {"to": "value.to", "body": {"template": text}}}
    result = prepared(stream(mapping=mapping), chunk({"to": "+14155550101"}))

    assert [event["body"] for event in posted(result)] == (["Hello"] if text else [])


def test_a_field_may_have_any_name() -> None:
    mapping = {"fields": {"to": "value.to", "body": "value.to", "metadata": {'a"b\\': "value.a", "c": "value.c"}}}
    source = chunk({"to": "+14155550101", "a": 1}, {"to": "+14155550102", "a": 2, "c": 3})

    assert [event["metadata"] for event in posted(prepared(stream(mapping=mapping), source))] == [
        {'a"b\\': 1},
        {'a"b\\': 2, "c": 3},
    ]


EVENT_FIELDS = {
    "to": st.sampled_from(["+14155550101", "nope", "", 7, None, ["x"]]),
    "body": st.sampled_from(["x", "", "a" * 200, 7, None]),
    "list_number": st.sampled_from(["+18005550001", "nope", None]),
    "metadata": st.sampled_from([{"a": 1}, None, 7]),
    "wrap_links": st.sampled_from([True, None, "yes"]),
    "more": st.sampled_from([1, "x", None]),
}


@pytest.mark.parametrize("names", [("to", "body"), ("to", "body", "list_number"), ("to",), tuple(EVENT_FIELDS)])
@pytest.mark.parametrize("settings", [{}, {"unknown_fields": "reject"}, {"list_number": None}])
@given(data=st.data())
def test_events_made_of_columns_are_checked_as_what_is_encoded_would_be(
    names: tuple[str, ...], settings: dict[str, Any], data: st.DataObject
) -> None:
    values = data.draw(st.lists(st.fixed_dictionaries({name: EVENT_FIELDS[name] for name in names}), max_size=5))
    mapping = {"fields": {name: f"value.{name}" for name in names}, "max_segments": 1, "when": "value.to"}
    of = stream(mapping=mapping, **settings)
    source = chunk(*values)
    shaped = Shaper(of).shape(source)
    by_columns, by_bytes = (
        operation_of(of).prepare(source, now_ms=0, shaped=part) for part in (shaped, replace(shaped, fields={}))
    )

    assert posted(by_columns) == posted(by_bytes)
    assert settled(by_columns) == settled(by_bytes)


def test_a_list_is_chosen_in_one_place() -> None:
    with pytest.raises(InvalidMappingError, match="is set in fields too"):
        Shaper(stream(mapping={"fields": {"list_number": "value.a"}, "list_number": "value.b"}))


@given(st.lists(st.fixed_dictionaries({}, optional={"a": PRINTED, "b": st.just({"c": "x"}) | PRINTED}), max_size=4))
def test_what_passes_together_is_what_passes_alone(values: list[Any]) -> None:
    """A condition that is plainly true of all records of a chunk is seen to be in one look at each field."""
    for when in ("value.a", "value.b.c == 'x'", "value.a && value.b.c == 'x' && topic"):
        settings = stream(mapping={"when": when, "fields": {"to": "value.a"}})
        found = Shaper(settings).shape(chunk(*values))
        passes = [jmespath.search(f"!(!({when}))", {"value": value, "topic": "orders"}) for value in values]

        assert [index not in found.bad for index in range(len(values))] == passes
