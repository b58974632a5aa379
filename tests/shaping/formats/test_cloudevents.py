"""CloudEvents of the project's own samples, of another maker, and of nobody's making."""

import json
from pathlib import Path
from typing import Any, Final

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from connector.config.formats import FormatSettings
from connector.core.chunks import Headers
from connector.shaping.decoded import Decoded
from tests.shaping.formats.making import SMS, decode, frame, reasons, registry

SAMPLES: Final = Path(__file__).resolve().parents[2] / "data" / "cloudevents"
CLOUDEVENTS: Final = FormatSettings(type="cloudevents")
STRUCTURED: Final[Headers] = [("content-type", b"application/cloudevents+json; charset=utf-8")]
EVENT: Final = {"to": "+15550000001", "body": "Hello"}
BINARY: Final[Headers] = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"1"),
    ("ce_source", b"/orders"),
    ("ce_type", b"shipped"),
]


def _samples(name: str) -> list[Any]:
    samples = json.loads((SAMPLES / name).read_text())["tests"]
    return [pytest.param(sample, id=sample["id"]) for sample in samples]


def _decode(value: bytes | None, headers: Headers | None = None) -> Decoded:
    return decode(CLOUDEVENTS, None, [value], None if headers is None else [headers])


def _structured(**more: Any) -> bytes:
    return json.dumps({"specversion": "1.0", "id": "1", "source": "/orders", "type": "shipped", **more}).encode()


@pytest.mark.parametrize("sample", _samples("valid-events.json"))
@pytest.mark.parametrize("headers", [STRUCTURED, None], ids=["by header", "without headers"])
def test_every_valid_sample_is_an_event(sample: dict[str, Any], headers: Headers | None) -> None:
    event = {name: value for name, value in sample["event"].items() if value is not None}
    data = event.pop("data", {})

    decoded = _decode(json.dumps(sample["event"]).encode(), headers)

    assert (decoded.bad, decoded.values, decoded.attributes) == ({}, [data], [event])


@pytest.mark.parametrize("sample", _samples("invalid-events.json"))
def test_every_invalid_sample_is_a_dead_letter_that_says_why(sample: dict[str, Any]) -> None:
    decoded = _decode(json.dumps(sample["event"]).encode(), STRUCTURED)

    assert reasons(decoded) == {0: "not_a_cloudevent"}
    assert decoded.bad[0].text


def _tables(scenario: str) -> list[dict[str, str]]:
    """Return the tables of a scenario, each as the pairs that it lists."""
    tables: list[dict[str, str]] = [{}]
    for line in scenario.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if not line.strip().startswith("|"):
            tables += [{}] if tables[-1] else []
        elif cells[0] != "key":
            tables[-1][cells[0]] = cells[-1]
    return [table for table in tables if table]


@pytest.mark.parametrize("number", [1, 2], ids=["binary", "structured"])
def test_the_scenarios_of_the_kafka_binding_hold(number: int) -> None:
    scenario = (SAMPLES / "kafka-protocol-binding.feature").read_text().split("Scenario")[number]
    payload, data = (text.strip() for text in scenario.split('"""')[1::2])
    headers, attributes, *examples = _tables(scenario)
    content_types = list(examples[0])[1:] if examples else [headers["content-type"]]
    assert content_types

    for content_type in content_types:
        given: Headers = [(name, value.encode()) for name, value in (headers | {"content-type": content_type}).items()]
        decoded = _decode(payload.encode(), given)

        assert (decoded.bad, decoded.attributes, decoded.values) == ({}, [attributes], [json.loads(data)])


def _headers(message: KafkaMessage) -> Headers:
    return list(message.headers.items())


@pytest.mark.parametrize("make", [to_binary_event, to_structured_event])
@pytest.mark.parametrize(
    ("content_type", "data"),
    [("application/json", EVENT), ("application/vnd.orders+json", EVENT), (None, EVENT), ("text/plain", "Hällo")],
)
def test_what_another_maker_writes_is_read_in_either_mode(make: Any, content_type: str | None, data: Any) -> None:
    attributes = {"id": "7", "source": "/orders", "type": "shipped", "orderid": "A-1"}
    if content_type is not None:
        attributes["datacontenttype"] = content_type
    message = make(CloudEvent(dict(attributes), data))

    decoded = _decode(message.value, _headers(message))

    assert (decoded.bad, decoded.values) == ({}, [data])
    assert decoded.attributes is not None
    assert decoded.attributes[0] is not None
    assert attributes.items() <= decoded.attributes[0].items()


def test_bytes_of_a_structured_event_are_read_as_its_content_type_says() -> None:
    encoded = "eyJ0byI6ICIrMTU1NTAwMDAwMDEiLCAiYm9keSI6ICJIZWxsbyJ9"

    as_json = _decode(_structured(data_base64=encoded, datacontenttype="application/json"))
    as_bytes = _decode(_structured(data_base64=encoded, datacontenttype="application/x-unknown"))
    unnamed = _decode(_structured(data_base64=encoded))

    assert (as_json.values, as_bytes.values, unnamed.values) == ([EVENT], [encoded], [EVENT])


def test_names_of_headers_and_media_types_are_read_in_any_case_and_a_null_header_is_none() -> None:
    binary: Headers = [(name.upper(), data) for name, data in BINARY]
    binary += [("Content-Type", b"Text/JSON"), ("ce_subject", None), ("other", b"\xff")]
    structured: Headers = [("CONTENT-TYPE", b"Application/CloudEvents+JSON"), ("ce_specversion", b"0.3")]

    decoded = decode(CLOUDEVENTS, None, [b'{"a": 1}', _structured(data=EVENT)], [binary, structured])

    required = {"specversion": "1.0", "id": "1", "source": "/orders", "type": "shipped"}
    assert (decoded.bad, decoded.values) == ({}, [{"a": 1}, EVENT])
    assert decoded.attributes == [{**required, "datacontenttype": "Text/JSON"}, required]


def test_data_that_is_null_or_missing_is_an_empty_event_and_other_data_is_what_it_is() -> None:
    assert [_decode(_structured(**more)).values for more in ({}, {"data": None}, {"data": 0}, {"data": ""})] == [
        [{}],
        [{}],
        [0],
        [""],
    ]


def test_a_record_without_a_value_is_a_tombstone_in_either_mode() -> None:
    decoded = decode(CLOUDEVENTS, None, [None, None], [BINARY, None])

    assert {verdict.status for verdict in decoded.bad.values()} == {"skipped"}


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b"{", STRUCTURED, "not_json"),
        (b"\xff", None, "not_utf8"),
        (b"[]", None, "not_a_cloudevent"),
        (b'{"to": "+15550000001", "body": "plain"}', None, "not_a_cloudevent"),
        (_structured(data_base64="%%%"), None, "not_a_cloudevent"),
        (_structured(data_base64=7), None, "not_a_cloudevent"),
        (_structured(data={}, data_base64="e30="), None, "not_a_cloudevent"),
        (_structured(data_base64="e30= "), None, "not_a_cloudevent"),
        (_structured(nested={"a": 1}), None, "not_a_cloudevent"),
        (_structured(ratio=1.5), None, "not_a_cloudevent"),
        (_structured(subject=""), None, "not_a_cloudevent"),
        (_structured(subject=7), None, "not_a_cloudevent"),
        (_structured(Mixed="a"), None, "not_a_cloudevent"),
        (_structured(datacontenttype="json"), None, "not_a_cloudevent"),
        (_structured(specversion="0.3"), None, "not_a_cloudevent"),
        (b"{}", [("content-type", b"application/cloudevents; charset=utf-8")], "content_type_unknown"),
        (b"{}", [("content-type", b"application/cloudevents json")], "content_type_unknown"),
        (b"<a/>", [("content-type", b"application/cloudevents+xml")], "content_type_unknown"),
        (b"[]", [("content-type", b"application/cloudevents-batch+json")], "content_type_unknown"),
        (b"{", [*BINARY, ("content-type", b"application/json")], "not_json"),
        (b"\0\1", [*BINARY, ("content-type", b"application/avro")], "content_type_unknown"),
        (b"{}", BINARY[:3], "not_a_cloudevent"),
        (b"{}", [*BINARY, ("ce_time", b"noon")], "not_a_cloudevent"),
        (b"{}", [*BINARY, ("ce_subject", b"\xff")], "not_utf8"),
        (b"\xff", [*BINARY, ("content-type", b"text/plain")], "not_utf8"),
        (b"[" * 100_000, None, "not_json"),
    ],
)
def test_what_is_no_event_is_a_dead_letter_and_the_others_continue(
    value: bytes, headers: Headers | None, reason: str
) -> None:
    good = _structured(data=EVENT)

    decoded = decode(CLOUDEVENTS, None, [good, value, good], [None, headers, STRUCTURED])

    assert (decoded.values, reasons(decoded)) == ([EVENT, None, EVENT], {1: reason})


@pytest.mark.parametrize(
    ("time", "is_one"),
    [
        ("2026-01-31T08:00:00Z", True),
        ("2026-01-31t08:00:00.123456789z", True),
        ("2026-01-31T08:00:00-23:59", True),
        ("2024-02-29T00:00:00Z", True),
        ("2016-12-31T23:59:60Z", True),
        ("2026-02-29T00:00:00Z", False),
        ("2026-13-31T08:00:60Z", False),
        ("2026-01-31T99:99:60Z", False),
        ("2026-01-31T24:00:00Z", False),
        ("2026-01-31T08:60:00Z", False),
        ("2026-01-31T08:00:61Z", False),
        ("2026-01-31T08:00:00", False),
        ("2026-01-31T08:00:00+24:00", False),
        ("2026-01-31 08:00:00Z", False),
        ("2026-01-31T08:00:00Z\n", False),
    ],
)
def test_a_time_is_one_of_rfc_3339_and_a_leap_second_is_one(time: str, is_one: bool) -> None:
    decoded = _decode(_structured(time=time))

    assert reasons(decoded) == ({} if is_one else {0: "not_a_cloudevent"})


@pytest.mark.parametrize(
    ("content_type", "told"),
    [
        (b"application/cloudevents+xml; a=b", "application/cloudevents+xml"),
        (b"application/cloudevents json", "something else"),
    ],
)
def test_a_structured_event_that_is_no_json_is_reported_with_what_it_is(content_type: bytes, told: str) -> None:
    decoded = _decode(b"{}", [("content-type", content_type)])

    assert decoded.bad[0].text == f"a structured CloudEvent comes as application/cloudevents+json; this is {told}"


def test_framed_data_in_binary_mode_is_decoded_beside_json(make_registry: Any) -> None:
    tiny = make_registry()
    tiny.add(3, SMS)
    avro = frame(3, b"\x18+15550000001\x0aHello\0")
    headers: list[Headers | None] = [
        [*BINARY, ("content-type", b"application/avro")],
        [*BINARY, ("content-type", b"application/json")],
        BINARY,
        [*BINARY, ("content-type", b"application/avro")],
        STRUCTURED,
    ]
    values = [avro, json.dumps(EVENT).encode(), avro, b"\0\0\0\0\3\xff", _structured(data=EVENT)]

    decoded = decode(FormatSettings(type="cloudevents", data="avro"), registry(tiny.url), values, headers)

    assert decoded.values == [EVENT, EVENT, EVENT, None, EVENT]
    assert reasons(decoded) == {3: "not_decodable"}
    assert decoded.attributes is not None
    assert [None if each is None else each["id"] for each in decoded.attributes] == ["1"] * 5
