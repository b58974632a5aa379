"""Avro, Protobuf and JSON Schema as Confluent's own serializers write them against Apicurio's registry; and garbage."""

import json
import re
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from errno import ENOSPC
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from unittest.mock import create_autospec
from uuid import UUID, uuid4

import fastavro
import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
)
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufSerializer
from confluent_kafka.serialization import MessageField, SerializationContext
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from hypothesis import given, settings
from hypothesis import strategies as st

from connector.config.formats import FormatSettings
from connector.core.chunks import Headers
from connector.core.reasons import REASONS
from connector.shaping.decoded import FormatAwayError
from connector.shaping.formats import SchemaRegistry, decoder_for, framed, protobuf
from connector.shaping.formats.schemas import Schema as RegisteredSchema
from tests.kit.registries import Apicurio, MakeRegistry, TinyRegistry
from tests.shaping.formats.making import SMS, SMS_JSON, SMS_PROTO, chunk, decode, frame, reasons, registry

AVRO: Final = FormatSettings(type="avro")
PROTOBUF: Final = FormatSettings(type="protobuf")
JSON_SCHEMA: Final = FormatSettings(type="json_schema")
EVENT: Final = {"to": "+15550000001", "body": "Hello"}
GUID: Final = "89791762-2336-4186-9674-299b90a802e2"


class Producing:
    """Confluent's serializers over one registry, under subjects of the test's own."""

    def __init__(self, client: SchemaRegistryClient, asking: SchemaRegistry) -> None:
        self.client = client
        self.asking = asking

    def avro(self, schema: str, *events: Any, **conf: Any) -> list[bytes]:
        return self._all(AvroSerializer(self.client, schema, conf=conf or None), events)

    def protobuf(self, *messages: Any) -> list[bytes]:
        return self._all(ProtobufSerializer(type(messages[0]), self.client), messages)

    def json(self, schema: str, *events: Any) -> list[bytes]:
        return self._all(JSONSerializer(schema, self.client), events)

    def register(self, text: str, kind: str, **more: Any) -> int:
        return self.client.register_schema(f"s-{uuid4()}", Schema(text, kind, **more))

    @staticmethod
    def _all(serialize: Any, events: Any) -> list[bytes]:
        context = SerializationContext(f"t-{uuid4()}", MessageField.VALUE)
        return [serialize(event, context) for event in events]


@pytest.fixture(scope="module")
def producing(apicurio: Apicurio) -> Iterator[Producing]:
    with SchemaRegistryClient({"url": apicurio.url}) as client:
        asking = registry(apicurio.url)
        yield Producing(client, asking)
        asking.close()


@pytest.fixture
def tiny(make_registry: MakeRegistry) -> TinyRegistry:
    return make_registry()


def _messages(proto: str, tmp_path: Path) -> dict[str, Any]:
    """Return the classes of a file's messages, by name."""
    (tmp_path / "sms.proto").write_text(proto)
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{tmp_path}", f"-I{_google()}", "--include_imports"]
    subprocess.run([*command, f"--descriptor_set_out={tmp_path / 'out'}", "sms.proto"], check=True)
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString((tmp_path / "out").read_bytes()).file:
        pool.Add(file)
    found = pool.FindFileByName("sms.proto").message_types_by_name
    return {name: GetMessageClass(described) for name, described in found.items()}


def _google() -> Path:
    import google.type  # noqa: PLC0415

    return Path(next(iter(google.type.__path__))).parents[1]


# ------------------------------------------------------------------ what others write


def test_avro_that_confluents_serializer_writes(producing: Producing) -> None:
    events = [{"to": f"+1555000{n:04d}", "body": "Grüße", "list_number": "+18005551234"} for n in range(9)]

    assert decode(AVRO, producing.asking, producing.avro(SMS, *events)).values == events


def test_fields_that_are_null_are_left_out_at_any_level(producing: Producing) -> None:
    """The API takes no null, and an optional field of Avro is a union with it."""
    of_inner = '{"name": "a", "type": ["null", "int"]}, {"name": "b", "type": "int"}'
    inner = f'{{"type": "record", "name": "In", "fields": [{of_inner}]}}'
    fields = f"""
        {{"name": "in", "type": {inner}}}, {{"name": "maybe", "type": ["null", "In"]}},
        {{"name": "all", "type": {{"type": "array", "items": ["null", "In"]}}}},
        {{"name": "tags", "type": {{"type": "map", "values": ["null", "string"]}}}}
    """
    schema = f'{{"type": "record", "name": "Out", "fields": [{fields}]}}'
    one = {"a": None, "b": 1}
    event = {"in": one, "maybe": one, "all": [None, one, {"a": 2, "b": 3}], "tags": {"x": None, "y": "z"}}

    decoded = decode(AVRO, producing.asking, producing.avro(schema, event, {**event, "maybe": None}))

    bare: dict[str, Any] = {"in": {"b": 1}, "all": [None, {"b": 1}, {"a": 2, "b": 3}], "tags": {"y": "z"}}
    assert decoded.values == [{**bare, "maybe": {"b": 1}}, bare]


def test_logical_types_come_as_json_has_them(producing: Producing) -> None:
    """Decimals keep all their digits, as text; whoever wants a number asks for one."""
    types: dict[str, Any] = {
        "amount": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2},
        "at": {"type": "long", "logicalType": "timestamp-millis"},
        "local": {"type": "long", "logicalType": "local-timestamp-micros"},
        "day": {"type": "int", "logicalType": "date"},
        "time": {"type": "int", "logicalType": "time-millis"},
        "id": {"type": "string", "logicalType": "uuid"},
        "raw": "bytes",
        "four": {"type": "fixed", "name": "Four", "size": 4},
        "ratio": "double",
        "kind": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]},
        "items": {
            "type": "array",
            "items": {"type": "record", "name": "Item", "fields": [{"name": "raw", "type": "bytes"}]},
        },
        "prices": {"type": "map", "values": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}},
        "either": ["null", "string", "Item"],
    }
    schema = {"type": "record", "name": "All", "fields": [{"name": name, "type": kind} for name, kind in types.items()]}
    event = {
        "amount": Decimal("1234567.80"),
        "at": datetime(2026, 1, 31, 8, 0, 0, 123_000, tzinfo=UTC),
        "local": datetime(2026, 1, 31, 8, 0, 0, 123_456),  # noqa: DTZ001 (it has no zone)
        "day": date(2026, 1, 31),
        "time": datetime(2026, 1, 31, 8, 0, 0, 5_000, tzinfo=UTC).time(),
        "id": UUID(GUID),
        "raw": b"\0\xff",
        "four": b"abcd",
        "ratio": float("nan"),
        "kind": "B",
        "items": [{"raw": b"x"}],
        "prices": {"a": Decimal("0.5")},
        "either": {"raw": b"y"},
    }

    decoded = decode(AVRO, producing.asking, producing.avro(json.dumps(schema), event))

    assert decoded.bad == {}
    assert decoded.values == [
        {
            "amount": "1234567.80",
            "at": "2026-01-31T08:00:00.123000Z",
            "local": "2026-01-31T08:00:00.123456",
            "day": "2026-01-31",
            "time": "08:00:00.005000",
            "id": GUID,
            "raw": "AP8=",
            "four": "YWJjZA==",
            "kind": "B",
            "items": [{"raw": "eA=="}],
            "prices": {"a": "0.5"},
            "either": {"raw": "eQ=="},
        }
    ]


@pytest.mark.parametrize(
    ("kind", "number"),
    [
        ({"type": "long", "logicalType": "timestamp-micros"}, 9_223_372_036_832_400_000),
        ({"type": "long", "logicalType": "timestamp-millis"}, -9_223_372_036_854_775_808),
        ({"type": "long", "logicalType": "local-timestamp-millis"}, 253_402_300_800_000),
        ({"type": "int", "logicalType": "date"}, 2_147_483_647),
        ({"type": "int", "logicalType": "time-millis"}, 86_400_000),
        (["null", {"type": "long", "logicalType": "time-micros"}], 86_400_000_000),
    ],
)
@pytest.mark.parametrize("recursive", [False, True])
def test_a_time_that_no_calendar_has_stays_a_number(
    kind: Any, number: int, recursive: bool, tiny: TinyRegistry
) -> None:
    """Such as the infinity of a database: an event is no worse for a field that says it is valid for ever."""
    fields = [{"name": "until", "type": kind}, {"name": "to", "type": "string"}]
    fields += [{"name": "next", "type": ["null", "E"]}] if recursive else []
    schema = {"type": "record", "name": "E", "fields": fields}
    tiny.add(1, json.dumps(schema))
    bare = json.loads(re.sub(r', "logicalType": "[^"]*"', "", json.dumps(schema)))
    [data] = _avro(json.dumps(bare), {"until": number, "to": "a", "next": None})

    decoded = decode(AVRO, registry(tiny.url), [frame(1, data)])

    assert decoded.bad == {}
    assert decoded.values == [{"until": number, "to": "a"}]


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (19.99, "19.99"),
        (0.1, "0.1"),
        (16_777_216.0, "16777216.0"),
        (3.4028234663852886e38, "3.4028235e+38"),
        (-0.0, "-0.0"),
    ],
)
def test_a_float_comes_as_it_was_written_and_not_as_what_four_bytes_make_of_it(
    number: float, written: str, producing: Producing
) -> None:
    """A text would tell of a price of 19.989999771118164; Protobuf's JSON mapping and Java print what is meant, too."""
    kinds = {"price": "float", "maybe": ["null", {"type": "float"}], "all": {"type": "array", "items": "float"}}
    fields = [{"name": name, "type": kind} for name, kind in kinds.items()]
    schema = json.dumps({"type": "record", "name": "E", "fields": fields})

    decoded = decode(
        AVRO, producing.asking, producing.avro(schema, {"price": number, "maybe": number, "all": [number]})
    )

    assert repr(decoded.values) == f"[{{'price': {written}, 'maybe': {written}, 'all': [{written}]}}]"


_ORDER: Final = '{"type": "record", "name": "Order", "fields": [{"name": "price", "type": "float"}]}'
_PRICE: Final = b"\x85\xeb\x9f\x41"
"""19.99 in 32 bits."""


@pytest.mark.parametrize(
    ("schema", "data", "event"),
    [
        (f'[{_ORDER}, "string"]', b"\0" + _PRICE, {"price": 19.99}),
        ('["float", "string"]', b"\0" + _PRICE, 19.99),
        ('{"type": "float"}', _PRICE, 19.99),
        ('"float"', _PRICE, 19.99),
        (
            f'{{"type": "map", "values": ["null", {_ORDER}, "string"]}}',
            b"\2\2a\2" + _PRICE + b"\0",
            {"a": {"price": 19.99}},
        ),
        ('{"type": "array", "items": {"type": "float", "logicalType": "price"}}', b"\2" + _PRICE + b"\0", [19.99]),
        (
            """{"type": "record", "name": "E", "fields": [
                {"name": "all", "type": ["null", "float", "string"]}, {"name": "next", "type": ["null", "E"]},
                {"name": "float", "type": "string", "type_of": "float"}]}""",
            b"\2" + _PRICE + b"\2" + b"\2" + _PRICE + b"\0" + b"\2x" + b"\2y",
            {"all": 19.99, "next": {"all": 19.99, "float": "x"}, "float": "y"},
        ),
        ('["null", "string", "float"]', b"\4" + b"\0\0\xc0\x7f", None),
        (
            '{"type": "record", "name": "E", "fields": [{"name": "of_one", "type": ["float"]}]}',
            b"\0" + b"\0\0\xc0\x7f",
            {},
        ),
    ],
)
def test_a_float_comes_as_it_was_written_wherever_in_a_schema_it_is(
    schema: str, data: bytes, event: Any, tiny: TinyRegistry
) -> None:
    """Of a union, or of a type within itself, only the reader knows which of its numbers had 32 bits."""
    tiny.add(1, schema)

    decoded = decode(AVRO, registry(tiny.url), [frame(1, data)])

    assert decoded.bad == {}
    assert decoded.values == [event]


@pytest.mark.parametrize("pinned", ["double", ["null", "double"], "float", ["string", "float"]])
@pytest.mark.parametrize(
    ("written", "data", "price"),
    [
        ("float", _PRICE, 19.99),
        (["null", "float"], b"\2" + _PRICE, 19.99),
        (["string", "float"], b"\2" + _PRICE, 19.99),
        ("int", b"\x0e", 7.0),
    ],
)
def test_a_pinned_schema_makes_no_longer_number_of_a_float(
    pinned: Any, written: Any, data: bytes, price: float, tmp_path: Path
) -> None:
    tiny, asking = _SHARED

    def schema(kind: Any) -> str:
        return json.dumps({"type": "record", "name": "E", "fields": [{"name": "price", "type": kind}]})

    tiny.add(number := 100 + len(tiny.schemas), schema(written))
    file = tmp_path / "e.avsc"
    file.write_text(schema(pinned))

    decoded = decode(FormatSettings(type="avro", reader_schema_file=file), asking, [frame(number, data)])

    assert decoded.bad == {}
    assert decoded.values == [{"price": price}]


def test_protobuf_that_confluents_serializer_writes(producing: Producing, tmp_path: Path) -> None:
    sms = _messages(SMS_PROTO, tmp_path)["Sms"]

    values = producing.protobuf(sms(**EVENT), sms(to="+15550000002"))

    assert decode(PROTOBUF, producing.asking, values).values == [EVENT, {"to": "+15550000002"}]


def test_a_schema_that_the_registry_has_as_text_is_compiled(producing: Producing, tmp_path: Path) -> None:
    """Java's serializers register the text of the file; what it imports comes with Protobuf or by reference."""
    shared = 'syntax = "proto3"; package shared; message Money { string currency = 1; int64 minor = 2; }'
    subject = f"s-{uuid4()}"
    producing.client.register_schema(subject, Schema(shared, "PROTOBUF"))
    text = """
    syntax = "proto3"; package orders;
    import "google/protobuf/timestamp.proto"; import "google/type/date.proto"; import "shared/money.proto";
    enum Kind { NONE = 0; SHIPPED = 1; }
    message Order {
      google.protobuf.Timestamp at_time = 1; google.type.Date day = 2; shared.Money price = 3; Kind kind = 4;
      map<string, bytes> tags = 5;
    }
    """
    number = producing.register(text, "PROTOBUF", references=[SchemaReference("shared/money.proto", subject, 1)])
    fields = (
        b"\x0a\x06\x08\x80\x90\xa7\xcb\x06",
        b"\x12\x05\x08\xea\x0f\x10\x01",
        b"\x1a\x08\x0a\x03USD\x10\xfa\x01",
        b"\x20\x01",
        b"\x2a\x06\x0a\x01k\x12\x01v",
    )
    data = b"".join(fields)

    decoded = decode(PROTOBUF, producing.asking, [frame(number, b"\0" + data)])

    assert decoded.bad == {}
    [order] = decoded.values
    assert order.pop("at_time").endswith("Z")
    assert order == {
        "day": {"year": 2026, "month": 1},
        "price": {"currency": "USD", "minor": "250"},
        "kind": "SHIPPED",
        "tags": {"k": "dg=="},
    }


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("folder", ["type", "types"])
def test_what_confluents_serializers_import_is_known_without_a_reference(
    folder: str, compiled: bool, tiny: TinyRegistry
) -> None:
    """As its converter for Kafka Connect does, for numbers of 16 bits and for decimals; no registry has these files."""
    names = ["confluent/meta.proto", f"confluent/{folder}/decimal.proto"]
    imports = "".join(f'import "{name}"; ' for name in names)
    tags = '[(confluent.field_meta) = {tags: "PII"}]'
    text = f'syntax = "proto3"; {imports}message M {{ string to = 1 {tags}; confluent.type.Decimal price = 2; }}'
    file = FileDescriptorProto(name="m.proto", syntax="proto3", dependency=names)
    message = file.message_type.add(name="M")
    message.field.add(name="to", number=1, label=1, type=9)
    message.field.add(name="price", number=2, label=1, type=11, type_name=".confluent.type.Decimal")
    tiny.add(1, b64encode(file.SerializeToString()).decode() if compiled else text, "PROTOBUF")

    decoded = decode(PROTOBUF, registry(tiny.url), [frame(1, b"\0" + b"\x0a\1a" + b"\x12\5\x0a\1\x05\x18\2")])

    assert decoded.bad == {}
    assert decoded.values == [{"to": "a", "price": {"value": "BQ==", "scale": 2}}]


def test_json_that_confluents_serializer_writes(producing: Producing) -> None:
    assert decode(JSON_SCHEMA, producing.asking, producing.json(SMS_JSON, EVENT)).values == [EVENT]


def test_each_id_that_the_registry_does_not_know_is_a_dead_letter(producing: Producing) -> None:
    [good] = producing.avro(SMS, {**EVENT, "list_number": None})

    decoded = decode(AVRO, producing.asking, [good, frame(999_999, good[5:]), frame(0xFFFFFFFF, b""), good])

    assert reasons(decoded) == {1: "schema_not_found", 2: "schema_not_found"}
    assert decoded.values[0] == decoded.values[3] == EVENT


@pytest.mark.parametrize(
    ("settings", "number", "told"),
    [
        (AVRO, 3, "schema 3 is JSON, and the format is AVRO"),
        (PROTOBUF, 1, "schema 1 is AVRO, and the format is PROTOBUF"),
        (JSON_SCHEMA, 2, "schema 2 is PROTOBUF, and the format is JSON"),
    ],
)
def test_a_schema_of_another_format_is_of_no_use(settings: FormatSettings, number: int, told: str) -> None:
    decoded = decode(settings, _SHARED[1], [frame(number, b"\0")])

    assert reasons(decoded) == {0: "schema_unusable"}
    assert decoded.bad[0].text == told


def test_an_event_of_a_newer_schema_is_read_with_the_schema_it_was_written_with(producing: Producing) -> None:
    newer = json.loads(SMS)
    newer["fields"].insert(1, {"name": "priority", "type": "int", "default": 0})
    old = producing.avro(SMS, {**EVENT, "list_number": None})
    new = producing.avro(json.dumps(newer), {**EVENT, "priority": 3, "list_number": None})

    decoded = decode(AVRO, producing.asking, [*old, *new, *old])

    assert decoded.values == [EVENT, {**EVENT, "priority": 3}, EVENT]


@pytest.mark.parametrize("kinds", ['["orders.Sms", "Mail", "Part"]', '["Part", "Mail", "null", "orders.Sms"]'])
def test_a_choice_of_schemas_that_are_referred_to_is_read_as_the_one_that_was_written(
    kinds: str, tiny: TinyRegistry
) -> None:
    """How Confluent has it for topics with events of several kinds: a schema that does nothing but refer to others."""
    mail = (
        '{"type": "record", "name": "Mail", "fields": [{"name": "sms", "type": "orders.Sms"}, '
        '{"name": "part", "type": {"type": "record", "name": "Part", "fields": [{"name": "n", "type": "int"}]}}]}'
    )
    tiny.schemas["subjects/sms/versions/1"] = {"schema": SMS}
    tiny.schemas["subjects/mail/versions/1"] = {"schema": mail}
    named = [{"name": "orders.Sms", "subject": "sms", "version": 1}, {"name": "Mail", "subject": "mail", "version": 1}]
    tiny.add(1, kinds, references=named)
    tiny.add(2, '"orders.Sms"', references=named)
    data = b"\x02a\x02b\0"  # two texts and null
    index = {name: bytes([2 * at]) for at, name in enumerate(json.loads(kinds))}

    decoded = decode(
        AVRO,
        registry(tiny.url),
        [
            frame(1, index["orders.Sms"] + data),
            frame(1, index["Mail"] + data + b"\x0a"),
            frame(1, index["Part"] + b"\x0a"),
            frame(2, data),
        ],
    )

    sms = {"to": "a", "body": "b"}
    assert decoded.bad == {}
    assert decoded.values == [sms, {"sms": sms, "part": {"n": 5}}, {"n": 5}, sms]


def test_a_field_that_can_be_nothing_but_null_is_left_out_as_any_that_is_null(tiny: TinyRegistry) -> None:
    """What makes schemas of what it has seen gives a column without a value this type."""
    kinds = ["string", "null", {"type": "null"}, {"type": "map", "values": "null"}]
    fields = [{"name": f"f{number}", "type": kind} for number, kind in enumerate(kinds)]
    tiny.add(1, json.dumps({"type": "record", "name": "E", "fields": fields}))

    decoded = decode(AVRO, registry(tiny.url), [frame(1, b"\2a" + b"\2\2k\0")])

    assert decoded.values == [{"f0": "a", "f3": {}}]


@pytest.mark.parametrize(
    ("kind", "default", "data"),
    [
        ("string", None, b"\2a"),
        ("int", "0", b"\2"),
        (["null", "int"], "0", b"\2\2"),
        ({"type": "array", "items": "int"}, None, b"\0"),
    ],
)
def test_a_default_that_fits_no_type_hinders_nobody_who_reads_what_was_written(
    kind: Any, default: Any, data: bytes, tiny: TinyRegistry
) -> None:
    """Older versions of Avro took such schemas, and registries still have them; the default is a reader's matter."""
    field = {"name": "a", "type": kind, "default": default}
    inner = {"type": "record", "name": "I", "fields": [field]}
    tiny.schemas["subjects/i/versions/1"] = {"schema": json.dumps(inner)}
    tiny.add(1, json.dumps({"type": "record", "name": "E", "fields": [field]}))
    fields = [{"name": "i", "type": "I"}]
    named = [{"name": "I", "subject": "i", "version": 1}]
    tiny.add(2, json.dumps({"type": "record", "name": "E", "fields": fields}), references=named)

    decoded = decode(AVRO, registry(tiny.url), [frame(1, data), frame(2, data)])

    assert decoded.bad == {}
    assert decoded.values[1] == {"i": decoded.values[0]}


def test_a_pinned_schema_brings_every_value_to_the_same_fields(producing: Producing, tmp_path: Path) -> None:
    file = tmp_path / "sms.avsc"
    file.write_text(
        '{"type": "record", "name": "Sms", "namespace": "orders", "fields": ['
        '{"name": "to", "type": "string"}, {"name": "region", "type": "string", "default": "US"}]}'
    )
    pinned = FormatSettings(type="avro", reader_schema_file=file)
    other = '{"type": "record", "name": "Sms", "namespace": "orders", "fields": [{"name": "to", "type": "long"}]}'

    decoded = decode(
        pinned,
        producing.asking,
        [*producing.avro(SMS, {**EVENT, "list_number": None}), *producing.avro(other, {"to": 1})],
    )

    assert decoded.values[0] == {"to": EVENT["to"], "region": "US"}
    assert reasons(decoded) == {1: "not_decodable"}


def test_a_logical_type_that_only_the_producer_has_comes_as_json_has_it(tiny: TinyRegistry, tmp_path: Path) -> None:
    """A schema may come to say of its numbers that they are times, which its readers need not know."""
    written = {
        "at": {"type": "long", "logicalType": "timestamp-millis"},
        "maybe": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
        "price": {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2},
        "days": {"type": "array", "items": {"type": "int", "logicalType": "date"}},
    }
    pinned = {"at": "long", "maybe": ["null", "long"], "price": "bytes", "days": {"type": "array", "items": "int"}}
    data = b"\0" + b"\2\0" + b"\2\1" + b"\2\2\0"

    def schema(kinds: dict[str, Any]) -> str:
        fields = [{"name": name, "type": kind} for name, kind in kinds.items()]
        return json.dumps({"type": "record", "name": "E", "fields": fields})

    tiny.add(1, schema(written))
    file = tmp_path / "e.avsc"
    file.write_text(schema(pinned))

    decoded = decode(FormatSettings(type="avro", reader_schema_file=file), registry(tiny.url), [frame(1, data)])

    assert decoded.bad == {}
    at = "1970-01-01T00:00:00Z"
    assert decoded.values == [{"at": at, "maybe": at, "price": "0.01", "days": ["1970-01-02"]}]
    assert decoded.values == decode(AVRO, registry(tiny.url), [frame(1, data)]).values


def test_a_value_may_be_of_one_of_several_types(tiny: TinyRegistry) -> None:
    """As where a topic has events of several kinds."""
    day = {"type": "int", "logicalType": "date"}
    fields = [{"name": "at", "type": day}, {"name": "gone", "type": ["null", "string"]}]
    kinds = ["null", "string", {"type": "record", "name": "A", "fields": fields}, {"type": "array", "items": "A"}]
    tiny.add(1, json.dumps(kinds))
    tiny.add(2, json.dumps(["null", "string"]))
    values = [frame(1, data) for data in (b"\0", b"\2\2a", b"\4\2\0", b"\6\2\4\0\0")]

    decoded = decode(AVRO, registry(tiny.url), [*values, frame(2, b"\0"), frame(2, b"\2\2b")])

    assert decoded.bad == {}
    assert decoded.values == [None, "a", {"at": "1970-01-02"}, [{"at": "1970-01-03"}], None, "b"]


def test_a_value_of_one_of_many_types_is_read_without_a_look_at_all_of_them(tiny: TinyRegistry) -> None:
    """It took 300 times as long as the same value of that one type: it takes about three times as long."""
    kinds = [{"type": "record", "name": f"R{at}", "fields": [{"name": "f", "type": "string"}]} for at in range(100)]
    tiny.add(1, json.dumps(kinds))
    tiny.add(2, json.dumps(kinds[0]))

    def secs(value: bytes) -> float:
        decoder = decoder_for(AVRO, registry(tiny.url))
        assert decoder is not None
        values = chunk([value] * 300)
        assert decoder.decode(values).values == [{"f": "a"}] * 300
        began = time.thread_time()
        decoder.decode(values)
        return time.thread_time() - began

    of_many, of_one = (min(secs(value) for _ in range(3)) for value in (frame(1, b"\0\2a"), frame(2, b"\2a")))

    assert of_many < 50 * of_one


@pytest.mark.parametrize("rest", ["", ', {"name": "next", "type": ["null", "E"]}'])
@pytest.mark.parametrize(
    ("scale", "data"),
    [(2, b"\x7f" * 20_000), (1_001, b"\x7f"), (999_999, b"\x7f")],
    ids=["long", "scale", "large scale"],
)
def test_a_decimal_of_any_number_of_digits_is_not_made(scale: int, data: bytes, rest: str, tiny: TinyRegistry) -> None:
    """Of a megabyte Python would make one in minutes; of one byte and a scale, text of as many zeros."""
    decimal = f'{{"type": "bytes", "logicalType": "decimal", "precision": {max(scale, 9)}, "scale": {scale}}}'
    tiny.add(1, f'{{"type": "record", "name": "E", "fields": [{{"name": "d", "type": {decimal}}}{rest}]}}')
    length = BytesIO()
    fastavro.schemaless_writer(length, "long", len(data))
    value = length.getvalue() + data + (b"\0" if rest else b"")

    decoded = decode(AVRO, registry(tiny.url), [frame(1, value)])

    assert reasons(decoded) == {0: "not_decodable"}
    assert "a decimal has more than" in decoded.bad[0].text


def test_what_a_pinned_schema_fills_in_is_what_would_have_been_read(tiny: TinyRegistry, tmp_path: Path) -> None:
    """Each value has its own, and in the form that a value of the type has in JSON."""
    tiny.add(1, '{"type": "record", "name": "E", "fields": [{"name": "to", "type": "string"}]}')
    inner = [
        {"name": "gone", "type": ["null", "string"]},
        {"name": "at", "type": {"type": "int", "logicalType": "date"}},
        {"name": "more", "type": "bytes", "default": "\u00ff"},
    ]
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
    added = [
        ("group", {"type": "record", "name": "G", "fields": inner}, {"gone": None, "at": 1}),
        ("groups", {"type": "array", "items": "G"}, [{"gone": None, "at": 2, "more": "a"}]),
        ("named", {"type": "map", "values": ["null", "double"]}, {"a": None}),
        ("raw", "bytes", "\u00ff"),
        ("code", {"type": "fixed", "name": "F", "size": 1}, "\u0000"),
        ("price", decimal, "\u0001"),
        ("maybe", [{"type": "long", "logicalType": "timestamp-millis"}, "null"], 0),
        ("plain", "double", 1),
    ]
    fields = [{"name": name, "type": kind, "default": default} for name, kind, default in added]
    file = tmp_path / "e.avsc"
    file.write_text(json.dumps({"type": "record", "name": "E", "fields": [{"name": "to", "type": "string"}, *fields]}))
    pinned = FormatSettings(type="avro", reader_schema_file=file)

    decoded = decode(pinned, registry(tiny.url), [frame(1, b"\2" + letter) for letter in (b"a", b"b", b"c")])

    filled_in = {
        "group": {"at": "1970-01-02", "more": "/w=="},
        "groups": [{"at": "1970-01-03", "more": "YQ=="}],
        "named": {},
        "raw": "/w==",
        "code": "AA==",
        "price": "0.01",
        "maybe": "1970-01-01T00:00:00Z",
        "plain": 1,
    }
    assert decoded.values == [{"to": letter, **filled_in} for letter in "abc"]
    assert decoded.values[0]["groups"] is not decoded.values[1]["groups"]


@pytest.mark.parametrize(
    ("kinds", "default", "filled_in"),
    [
        ([{"type": "long", "logicalType": "timestamp-millis"}, "null"], None, {}),
        (["bytes", "null"], None, {}),
        ([{"type": "record", "name": "G", "fields": []}, "null"], None, {}),
        (["null", {"type": "long", "logicalType": "timestamp-millis"}], 0, {"more": "1970-01-01T00:00:00Z"}),
        (["null", "int", "bytes"], "\u00ff", {"more": "/w=="}),
        (["int", "double"], 0.5, {"more": 0.5}),
    ],
)
def test_a_default_of_a_choice_is_that_of_the_first_type_that_it_fits(
    kinds: list[Any], default: Any, filled_in: dict[str, Any], tiny: TinyRegistry, tmp_path: Path
) -> None:
    """As Avro has it since 1.12; a schema that has one of another than the first passes the check of settings."""
    written = [{"name": "to", "type": "string"}]
    tiny.add(1, json.dumps({"type": "record", "name": "E", "fields": written}))
    wanted = [*written, {"name": "more", "type": kinds, "default": default}]
    file = tmp_path / "e.avsc"
    file.write_text(json.dumps({"type": "record", "name": "E", "fields": wanted}))
    pinned = FormatSettings(type="avro", reader_schema_file=file)

    decoded = decode(pinned, registry(tiny.url), [frame(1, b"\2a")])

    assert decoded.bad == {}
    assert decoded.values == [{"to": "a", **filled_in}]


def test_what_is_filled_in_within_what_may_be_null_or_is_in_a_map_has_its_form_as_well(
    tiny: TinyRegistry, tmp_path: Path
) -> None:
    written = [{"name": "n", "type": "int"}]
    wanted = [*written, {"name": "raw", "type": "bytes", "default": "\u00ff"}]

    def schema(fields: list[Any]) -> str:
        inner = {"type": "record", "name": "I", "fields": fields}
        maybe = {"name": "maybe", "type": ["null", inner]}
        named = {"name": "named", "type": {"type": "map", "values": ["I", "null"]}}
        return json.dumps({"type": "record", "name": "E", "fields": [maybe, named]})

    tiny.add(1, schema(written))
    file = tmp_path / "e.avsc"
    file.write_text(schema(wanted))
    pinned = FormatSettings(type="avro", reader_schema_file=file)

    decoded = decode(
        pinned,
        registry(tiny.url),
        [frame(1, b"\2\x0a" + b"\4\2a\0\x0a\2b\2" + b"\0"), frame(1, b"\0" + b"\0")],
    )

    inner = {"n": 5, "raw": "/w=="}
    assert decoded.bad == {}
    assert decoded.values == [{"maybe": inner, "named": {"a": inner}}, {"named": {}}]


def test_of_very_many_schemas_the_readers_that_were_not_needed_for_longest_are_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compiling takes long, and what was compiled much memory; a chunk may have more schemas than are kept."""
    monkeypatch.setattr(framed, "MAX_READS", 2)
    asking, compiled = create_autospec(SchemaRegistry, instance=True), list[str]()
    asking.find.side_effect = lambda keys: {key: RegisteredSchema("AVRO", f"schema {key}") for key in keys}

    def compile_schema(schema: RegisteredSchema, _indexes: tuple[int, ...]) -> Callable[[bytes, int], str]:
        compiled.append(schema.text[-1])
        return lambda _value, _start: schema.text

    decoder = framed.FramedDecoder("AVRO", asking, compile_schema)
    for numbers in ([1], [2], [1], [3], [1, 3], [2], [1, 2, 3]):
        decoded = decoder.decode(chunk([frame(number, b"") for number in numbers]))
        assert (decoded.values, decoded.bad) == ([f"schema {number}" for number in numbers], {})

    assert "".join(compiled) == "12321"


def test_whatever_a_schema_does_to_its_compiler_concerns_its_records_alone() -> None:
    asking = create_autospec(SchemaRegistry, instance=True)
    asking.find.side_effect = lambda keys: {key: RegisteredSchema("AVRO", "") for key in keys}

    def compile_schema(_schema: RegisteredSchema, _indexes: tuple[int, ...]) -> Callable[[bytes, int], Any]:
        raise RecursionError("too deep")

    decoded = framed.FramedDecoder("AVRO", asking, compile_schema).decode(chunk([frame(1, b"")]))

    assert reasons(decoded) == {0: "schema_unusable"}
    assert decoded.bad[0].text == "schema 1: RecursionError: too deep"


# ------------------------------------------------------------------ schemas in headers


def test_records_with_other_headers_and_without_any_are_read_by_their_frames(tiny: TinyRegistry) -> None:
    tiny.add(1, SMS)
    [data] = _avro(SMS, {**EVENT, "list_number": None})

    decoded = decode(AVRO, registry(tiny.url), [frame(1, data)] * 3, [None, [("other", b"x")], []])

    assert decoded.values == [EVENT] * 3


def test_a_schema_is_found_by_the_guid_in_a_header(tiny: TinyRegistry) -> None:
    """As Confluent's serializer for headers writes it; its registry's GUIDs are no part of Apicurio's API."""
    tiny.add(1, SMS, guid=GUID)
    header = b"\1" + UUID(GUID).bytes
    [data] = _avro(SMS, {**EVENT, "list_number": None})
    mixed: list[Headers | None] = [[("other", b"x"), ("__value_schema_id", header)], None, [("__key_schema_id", b"\1")]]

    decoded = decode(AVRO, registry(tiny.url), [data, frame(1, data), frame(1, data)], mixed)

    assert decoded.values == [EVENT] * 3
    assert set(tiny.asked) == {f"schemas/guids/{GUID}", "schemas/ids/1"}


def test_an_id_in_the_header_counts_before_what_the_value_begins_with(tiny: TinyRegistry) -> None:
    """A header without a value says nothing, as any header that has another name."""
    number = 0x01020304
    tiny.add(number, SMS)
    tiny.add(2, '"string"')
    [data] = _avro(SMS, {**EVENT, "list_number": None})
    headers: list[Headers | None] = [
        [("__value_schema_id", b"\0" + number.to_bytes(4))],
        [("__value_schema_id", None)],
        [("__value_schema_id", None), ("__value_schema_id", b"\0" + (2).to_bytes(4))],
    ]

    decoded = decode(AVRO, registry(tiny.url), [data, frame(number, data), b"\2a"], headers)

    assert decoded.bad == {}
    assert decoded.values == [EVENT, EVENT, "a"]


@pytest.mark.parametrize(("indexes", "event"), [(b"\0", {"number": 7}), (b"\2\2", {"body": "Hello"})])
def test_the_indexes_of_a_message_are_in_the_header_too(indexes: bytes, event: Any, tiny: TinyRegistry) -> None:
    tiny.add(1, SMS_PROTO, "PROTOBUF", guid=GUID)
    data = b"\x08\x07" if "number" in event else b"\x12\x05Hello"
    ids = [b"\0" + (1).to_bytes(4), b"\1" + UUID(GUID).bytes]
    headers: list[Headers | None] = [[("__value_schema_id", each + indexes)] for each in ids]

    decoded = decode(PROTOBUF, registry(tiny.url), [data, data], headers)

    assert decoded.bad == {}
    assert decoded.values == [event, event]


@pytest.mark.parametrize(
    "header",
    [b"", b"\0" + bytes(3), b"\1" + bytes(15), b"\2" + bytes(16), b"1"],
    ids=["nothing", "short id", "short GUID", "another form", "text"],
)
def test_a_header_with_neither_an_id_nor_a_guid_is_a_dead_letter_though_the_value_has_a_frame(
    header: bytes, tiny: TinyRegistry
) -> None:
    tiny.add(1, SMS)
    [data] = _avro(SMS, {**EVENT, "list_number": None})

    decoded = decode(AVRO, registry(tiny.url), [frame(1, data)], [[("__value_schema_id", header)]])

    assert reasons(decoded) == {0: "not_framed"}
    assert "__value_schema_id" in decoded.bad[0].text


@pytest.mark.parametrize("kind", ["avro", "protobuf"])
def test_what_confluents_serializer_puts_into_the_header_is_understood(
    kind: str, tiny: TinyRegistry, tmp_path: Path
) -> None:
    """Its client is answered as Confluent's registry does, with a GUID."""
    client = SchemaRegistryClient.new_client({"url": f"mock://{uuid4()}"})
    headers: list[tuple[str, str | bytes | None]] = []
    context = SerializationContext("t", MessageField.VALUE, headers)
    conf = {"schema.id.serializer": header_schema_id_serializer}
    if kind == "avro":
        data = AvroSerializer(client, SMS, conf=conf)({**EVENT, "list_number": None}, context)
    else:
        sms = _messages(SMS_PROTO, tmp_path)["Sms"]
        data = ProtobufSerializer(sms, client, conf=conf)(sms(**EVENT), context)
    registered = client.get_latest_version("t-value")
    [(name, header)] = headers
    assert isinstance(header, bytes)
    tiny.add(1, registered.schema.schema_str or "", kind.upper(), guid=registered.guid)

    decoded = decode(FormatSettings(type=kind), registry(tiny.url), [data], [[(name, header)]])  # type: ignore[arg-type]

    assert decoded.bad == {}
    assert EVENT.items() <= decoded.values[0].items()


# ------------------------------------------------------------------ what is wrong with values


def _avro(schema: str, *events: Any) -> list[bytes]:
    parsed = fastavro.parse_schema(json.loads(schema))
    written = []
    for event in events:
        stream = BytesIO()
        fastavro.schemaless_writer(stream, parsed, event)
        written.append(stream.getvalue())
    return written


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "not_framed"),
        (b"\0\0\0\0", "not_framed"),
        (b'{"to": "+15550000001"}', "not_framed"),
        (b"\1" + bytes(30), "not_framed"),
        (frame(1, b""), "not_decodable"),
        (frame(1, b"\x18+1555"), "not_decodable"),
        (frame(1, b"\x18+15550000001\x0aHello\0\0"), "not_decodable"),
        (frame(1, b"\x18+15550000001\x0aHello\x08"), "not_decodable"),
        (frame(1, b"\x02\xff\x0aHello\0"), "not_decodable"),
        (frame(1, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"), "not_decodable"),
        (frame(2, b"\x0a"), "schema_unusable"),
        (frame(3, b"\x0a"), "schema_unusable"),
        (frame(4, b"\x80\x80\x80\x80\x80\x40\0"), "schema_unusable"),
    ],
)
def test_a_bad_value_is_a_dead_letter_and_the_others_continue(value: bytes, reason: str, tiny: TinyRegistry) -> None:
    tiny.add(1, SMS)
    tiny.add(2, '{"type": "record", "name": "Broken"')
    tiny.add(3, '{"type": "nonsense"}')
    tiny.add(4, '{"type": "array", "items": {"type": "record", "name": "Empty", "fields": []}}')
    [good] = _avro(SMS, {**EVENT, "list_number": None})

    decoded = decode(AVRO, registry(tiny.url), [frame(1, good), value, None, frame(1, good)])

    assert reasons(decoded) == {1: reason, 2: "tombstone"}
    assert 0 < len(decoded.bad[1].text) <= 500
    assert decoded.values[0] == decoded.values[3] == EVENT


def test_an_id_of_eight_bytes_is_reported_with_what_the_producer_can_do_about_it(tiny: TinyRegistry) -> None:
    """As the first four of them are 0, it reads as an id that no registry gives."""
    [good] = _avro(SMS, {**EVENT, "list_number": None})
    tiny.add(7, SMS)

    decoded = decode(AVRO, registry(tiny.url), [b"\0" + (7).to_bytes(8) + good])

    assert reasons(decoded) == {0: "schema_not_found"}
    assert "eight bytes" in decoded.bad[0].text
    assert "apicurio.registry.as-confluent" in decoded.bad[0].text


def test_an_id_in_apicurios_own_header_is_reported_with_what_the_producer_can_do_about_it(tiny: TinyRegistry) -> None:
    [good] = _avro(SMS, {**EVENT, "list_number": None})
    headers: list[Headers | None] = [[("apicurio.value.globalId", (7).to_bytes(8))], [("other", b"7")]]

    decoded = decode(AVRO, registry(tiny.url), [good, good], headers)

    assert reasons(decoded) == {0: "not_framed", 1: "not_framed"}
    assert "apicurio.registry.headers.enabled" in decoded.bad[0].text
    assert "apicurio" not in decoded.bad[1].text


def test_values_within_values_without_end_are_refused_and_not_followed(tiny: TinyRegistry) -> None:
    """The compiled reader of Avro follows them until the process dies."""
    tiny.add(1, '{"type": "record", "name": "Link", "fields": [{"name": "next", "type": ["null", "Link"]}]}')

    decoded = decode(AVRO, registry(tiny.url), [frame(1, b"\2" * 500_000 + b"\0"), frame(1, b"\2\2\0")])

    assert (reasons(decoded), decoded.values[1]) == ({0: "not_decodable"}, {"next": {"next": {}}})


def test_types_that_share_types_are_looked_at_once(tiny: TinyRegistry) -> None:
    """Each level names the one below twice: followed each time, 60 of them would be looked at for ever."""
    fields = '"fields": [{"name": "a", "type": %s}, {"name": "b", "type": "L%d"}]'
    schema = '{"type": "record", "name": "L0", "fields": [{"name": "n", "type": "bytes"}]}'
    for level in range(1, 60):
        schema = f'{{"type": "record", "name": "L{level}", {fields % (schema, level - 1)}}}'
    tiny.add(1, schema)
    began = time.process_time()

    assert reasons(decode(AVRO, registry(tiny.url), [frame(1, b"\0")])) == {0: "not_decodable"}
    assert time.process_time() - began < 5


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_no_bytes_whatever_make_a_decoder_raise(data: list[bytes]) -> None:
    tiny = _SHARED[0]
    asking = _SHARED[1]
    values = [frame(1 + index % 3, each) for index, each in enumerate(data)] + data
    for chosen in (AVRO, PROTOBUF, JSON_SCHEMA, FormatSettings(type="cloudevents", data="avro")):
        decoded = decode(chosen, asking, values)
        assert len(decoded.values) == len(values)
        assert {v.reason for v in decoded.bad.values()} <= set(REASONS)
    assert tiny.always is None


_SHARED: list[Any] = []


@pytest.fixture(autouse=True, scope="module")
def _shared() -> Iterator[None]:
    with TinyRegistry() as tiny:
        tiny.add(1, SMS)
        tiny.add(2, SMS_PROTO, "PROTOBUF")
        tiny.add(3, SMS_JSON, "JSON")
        _SHARED[:] = [tiny, registry(tiny.url)]
        yield
        _SHARED[1].close()


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (frame(2, b""), "not_framed"),
        (frame(2, b"\x80\x80\x80\x80\x80\x80"), "not_framed"),
        (frame(2, b"\x01\x02"), "not_framed"),
        (frame(2, b"\x02" + b"\x80" * 5 + b"\x01"), "not_framed"),
        (frame(2, b"\xfe\x01" + b"\0" * 200), "not_framed"),
        (frame(2, b"\x02\x14"), "not_decodable"),
        (frame(2, b"\x04\x02\x04"), "not_decodable"),
        (frame(2, b"\x02\x02\x0a\x05abc"), "not_decodable"),
        (frame(2, b"\x02\x02\x0a\x01\xff"), "not_decodable"),
    ],
)
def test_a_bad_message_is_a_dead_letter(value: bytes, reason: str) -> None:
    good = frame(2, b"\x02\x02" + b"\x0a\x0c+15550000001\x12\x05Hello")

    decoded = decode(PROTOBUF, _SHARED[1], [good, value, good])

    assert (reasons(decoded), decoded.values) == ({1: reason}, [EVENT, None, EVENT])


def test_an_index_may_take_more_than_one_byte(tiny: TinyRegistry) -> None:
    file = FileDescriptorProto(name="m.proto", syntax="proto3")
    for number in range(70):
        file.message_type.add(name=f"M{number}").field.add(name=f"n{number}", number=1, label=1, type=5)
    tiny.schemas["schemas/ids/1"] = _compiled(file)

    decoded = decode(
        PROTOBUF,
        registry(tiny.url),
        [frame(1, b"\x02" + index + b"\x08\1") for index in (b"\x7e", b"\x80\1", b"\x8a\1")],
    )

    assert decoded.values == [{"n63": 1}, {"n64": 1}, {"n69": 1}]


def test_the_indexes_name_the_message_and_another_than_the_expected_one_is_refused() -> None:
    values = [frame(2, b"\0\x08\x07"), frame(2, b"\x02\x02\x0a\x01x"), frame(2, b"\x04\x02\0\x12\x01y")]

    anything = decode(PROTOBUF, _SHARED[1], values)
    expected = decode(FormatSettings(type="protobuf", message="orders.Sms"), _SHARED[1], values)

    assert anything.values == [{"number": 7}, {"to": "x"}, {"body": "y"}]
    assert (expected.values[1], reasons(expected)) == ({"to": "x"}, {0: "unexpected_message", 2: "unexpected_message"})
    assert "orders.Other" in expected.bad[0].text


@pytest.mark.parametrize("name", ["../../escaped.proto", "/tmp/escaped.proto", "a b.proto"])
def test_a_reference_does_not_lead_out_of_the_compilers_folder(name: str, tiny: TinyRegistry) -> None:
    tiny.schemas["subjects/x/versions/1"] = {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"}
    tiny.add(1, SMS_PROTO, "PROTOBUF", references=[{"name": name, "subject": "x", "version": 1}])

    assert reasons(decode(PROTOBUF, registry(tiny.url), [frame(1, b"\0")])) == {0: "schema_unusable"}


@pytest.mark.parametrize("names", [["x" * 300], ["."], ["confluent"], ["a.proto", "a.proto/b.proto"]])
def test_a_reference_that_no_file_can_be_named_after_is_not_the_machines_fault(
    names: list[str], tiny: TinyRegistry
) -> None:
    """Whoever may register a schema would hold the stream for good."""
    tiny.schemas["subjects/x/versions/1"] = {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"}
    references = [{"name": name, "subject": "x", "version": 1} for name in names]
    tiny.add(1, SMS_PROTO, "PROTOBUF", references=references)

    assert reasons(decode(PROTOBUF, registry(tiny.url), [frame(1, b"\0")])) == {0: "schema_unusable"}


def test_what_does_not_compile_is_reported_without_a_folder_of_this_machine(tiny: TinyRegistry) -> None:
    tiny.add(1, 'syntax = "proto3"; import "nowhere.proto";', "PROTOBUF")

    text = decode(PROTOBUF, registry(tiny.url), [frame(1, b"\0")]).bad[0].text

    assert "nowhere.proto: File not found" in text
    assert tempfile.gettempdir() not in text


@pytest.mark.parametrize(
    ("needed", "told"),
    [
        ("orders/money.proto", "to which the registry gave no reference"),
        ("google/protobuf/no/../escaped.proto", "to which the registry gave no reference"),
        ("google/protobuf/nothing.proto", "which is not known here"),
    ],
)
def test_a_compiled_file_names_what_it_imports_and_nobody_has(needed: str, told: str, tiny: TinyRegistry) -> None:
    file = FileDescriptorProto(name="m.proto", syntax="proto3", dependency=[needed])
    tiny.add(1, b64encode(file.SerializeToString()).decode(), "PROTOBUF")

    decoded = decode(PROTOBUF, registry(tiny.url), [frame(1, b"\0")])

    assert reasons(decoded) == {0: "schema_unusable"}
    assert f"imports {needed}, {told}" in decoded.bad[0].text


def _compiled(file: FileDescriptorProto) -> dict[str, Any]:
    return {"schema": b64encode(file.SerializeToString()).decode(), "schemaType": "PROTOBUF"}


def test_compiled_files_may_import_one_another_more_than_once(tiny: TinyRegistry) -> None:
    """They are known by the names of their references, whatever they were compiled under."""
    last, left, right = (FileDescriptorProto(name="default", syntax="proto3") for _ in range(3))
    last.message_type.add(name="Last").field.add(name="n", number=1, label=1, type=5)
    for side, name in ((left, "Left"), (right, "Right")):
        side.dependency.append("last.proto")
        side.message_type.add(name=name).field.add(name="last", number=1, label=1, type=11, type_name=".Last")
    whole = FileDescriptorProto(name="default", syntax="proto3", dependency=["right.proto", "left.proto"])
    message = whole.message_type.add(name="M")
    for number, name in ((1, "Left"), (2, "Right")):
        message.field.add(name=name.lower(), number=number, label=1, type=11, type_name=f".{name}")
    for subject, file in (("last", last), ("left", left), ("right", right)):
        tiny.schemas[f"subjects/{subject}/versions/1"] = _compiled(file)
    references = [
        {"name": f"{subject}.proto", "subject": subject, "version": 1} for subject in ("left", "right", "last")
    ]
    tiny.schemas["schemas/ids/1"] = {**_compiled(whole), "references": references}

    decoded = decode(PROTOBUF, registry(tiny.url), [frame(1, b"\0" + b"\x0a\4\x0a\2\x08\1" + b"\x12\4\x0a\2\x08\2")])

    assert decoded.bad == {}
    assert decoded.values == [{"left": {"last": {"n": 1}}, "right": {"last": {"n": 2}}}]


def test_compiled_files_that_import_one_another_in_a_circle_are_of_no_use(tiny: TinyRegistry) -> None:
    file = FileDescriptorProto(name="a.proto", syntax="proto3", dependency=["b.proto"])
    other = FileDescriptorProto(name="b.proto", syntax="proto3", dependency=["a.proto", "b.proto"])
    tiny.schemas["subjects/a/versions/1"] = _compiled(file)
    tiny.schemas["subjects/b/versions/1"] = _compiled(other)
    references = [{"name": f"{subject}.proto", "subject": subject, "version": 1} for subject in ("a", "b")]
    tiny.schemas["schemas/ids/1"] = {**_compiled(file), "references": references}

    decoded = decode(PROTOBUF, registry(tiny.url), [frame(1, b"\0")])

    assert reasons(decoded) == {0: "schema_unusable"}
    assert "the registry's schema is no valid Protobuf" in decoded.bad[0].text


def test_a_compiled_file_is_added_once_however_many_import_it() -> None:
    """Each imports the two before it: followed each time, the last would never be added."""
    files = [FileDescriptorProto(name=f"f{at}.proto", syntax="proto3") for at in range(60)]
    for at, file in enumerate(files):
        file.dependency.extend(f"f{before}.proto" for before in range(max(at - 2, 0), at))
        file.message_type.add(name=f"M{at}").field.add(name="n", number=1, label=1, type=5)
    *others, last = (RegisteredSchema("PROTOBUF", _compiled(file)["schema"]) for file in files)
    schema = RegisteredSchema(
        "PROTOBUF", last.text, {f"f{at}.proto": other for at, other in reversed([*enumerate(others)])}
    )

    read = protobuf.ProtobufFiles(None).reader(schema, [0])

    assert read(b"\x08\x07", 0) == {"n": 7}


def test_a_message_within_any_other_is_of_the_same_file_and_fields_are_named_as_in_it(tiny: TinyRegistry) -> None:
    parts = ['syntax = "proto3"; package p; import "google/protobuf/any.proto";']
    parts += ["message M { google.protobuf.Any any_event = 1; } message Sms { string list_number = 1; }"]
    tiny.add(1, " ".join(parts), "PROTOBUF")
    kind = "type.googleapis.com/p.Sms"
    packed = b"\x0a" + bytes([len(kind)]) + kind.encode() + b"\x12\4" + b"\x0a\2+1"

    decoded = decode(PROTOBUF, registry(tiny.url), [frame(1, b"\0" + b"\x0a" + bytes([len(packed)]) + packed)])

    assert decoded.bad == {}
    assert decoded.values == [{"any_event": {"@type": kind, "list_number": "+1"}}]


def test_a_compiled_file_that_refers_to_the_text_of_one_is_reported_with_the_way_out(tiny: TinyRegistry) -> None:
    tiny.schemas["subjects/x/versions/1"] = {"schema": 'syntax = "proto3";', "schemaType": "PROTOBUF"}
    file = FileDescriptorProto(name="m.proto", syntax="proto3", dependency=["x.proto"])
    references = [{"name": "x.proto", "subject": "x", "version": 1}]
    tiny.schemas["schemas/ids/1"] = {**_compiled(file), "references": references}

    decoded = decode(PROTOBUF, registry(tiny.url), [frame(1, b"\0")])

    assert reasons(decoded) == {0: "schema_unusable"}
    assert "register both in one form" in decoded.bad[0].text


def test_of_very_many_files_the_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message of a file has a reader of its own, and shares what was compiled."""
    monkeypatch.setattr(protobuf, "MAX_FILES", 2)
    file = FileDescriptorProto(name="m.proto", syntax="proto3")
    for name in ("A", "B"):
        file.message_type.add(name=name)
    read_files = create_autospec(protobuf._files_of, side_effect=protobuf._files_of)
    monkeypatch.setattr(protobuf, "_files_of", read_files)
    of = [RegisteredSchema("PROTOBUF", _compiled(file)["schema"]) for _ in range(3)]
    files = protobuf.ProtobufFiles(None)

    for number, index in ((0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (2, 1), (0, 0)):
        files.reader(of[number], [index])

    read = [call.args[0] for call in read_files.call_args_list]
    assert [[schema is one for one in of].index(True) for schema in read] == [0, 1, 2, 0]


@pytest.mark.parametrize("text", ["message {", "", 'import "nowhere.proto";', b64encode(b"\x0a\x05abc").decode()])
def test_a_file_that_does_not_compile_is_of_no_use_and_compiled_once(
    text: str, tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile_files = create_autospec(protobuf._files_of, side_effect=protobuf._files_of)
    monkeypatch.setattr(protobuf, "_files_of", compile_files)
    tiny.add(1, text, "PROTOBUF")
    decoder = decoder_for(PROTOBUF, registry(tiny.url))
    assert decoder is not None

    found = [reasons(decoder.decode(chunk([frame(1, b"\0")]))) for _ in range(2)]

    assert found in ([{0: "schema_unusable"}] * 2, [{0: "not_decodable"}] * 2)
    assert compile_files.call_count == 1


@pytest.mark.parametrize(
    "trouble", ["kill -TERM $$", "kill -INT $$; kill $$", "kill -KILL $$", f'ulimit -f 0; {sys.executable} "$@"']
)
def test_a_compiler_that_is_ended_or_has_no_room_on_the_disk_says_nothing_of_the_schema(
    trouble: str, tiny: TinyRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C, or whoever stops a service with all of its processes, reaches the compiler as well.

    Ctrl-C does not where the tests run in the background of a shell.
    """
    tiny.add(1, SMS_PROTO, "PROTOBUF")
    decoder = decoder_for(PROTOBUF, registry(tiny.url))
    assert decoder is not None
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{trouble}\n")
    program.chmod(0o755)
    with monkeypatch.context() as patched:
        patched.setattr(sys, "executable", str(program))
        with pytest.raises(FormatAwayError, match="the compiler"):
            decoder.decode(chunk([frame(1, b"\0\x08\x07")]))

    assert decoder.decode(chunk([frame(1, b"\0\x08\x07")])).values == [{"number": 7}]


@pytest.mark.parametrize(
    ("name", "instead", "told"),
    [
        (
            "connector.shaping.formats.protobuf.TemporaryDirectory",
            create_autospec(TemporaryDirectory, side_effect=OSError("full " * 100)),
            "OSError: full",
        ),
        ("pathlib.Path.write_text", create_autospec(Path.write_text, side_effect=OSError(ENOSPC, "full")), "full"),
        ("connector.shaping.formats.protobuf.COMPILE_SECS", 0.0, "TimeoutExpired"),
    ],
    ids=["no folder", "no room", "too slow"],
)
def test_a_machine_that_cannot_compile_holds_the_stream_and_is_tried_again(
    name: str, instead: Any, told: str, tiny: TinyRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.add(1, SMS_PROTO, "PROTOBUF")
    decoder = decoder_for(PROTOBUF, registry(tiny.url))
    assert decoder is not None
    values = chunk([frame(1, b"\0\x08\x07")])
    with monkeypatch.context() as patched:
        patched.setattr(name, instead)
        with pytest.raises(FormatAwayError, match=told) as caught:
            decoder.decode(values)

    assert (caught.value.reason, len(str(caught.value)) <= 300) == ("schema_registry", True)
    assert decoder.decode(values).values == [{"number": 7}]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"{", "not_json"),
        (b"\xff\xfe", "not_utf8"),
        (b'{"to": "+15550000001"}', "schema_violated"),
        (b'{"to": "+15550000001", "body": "secret secret secret secret"}', "schema_violated"),
        (b"[" * 50_000, "not_json"),
    ],
)
def test_json_that_its_schema_does_not_allow_is_a_dead_letter_that_does_not_repeat_it(data: bytes, reason: str) -> None:
    good = frame(3, json.dumps(EVENT).encode())

    decoded = decode(JSON_SCHEMA, _SHARED[1], [good, frame(3, data), good])

    assert (reasons(decoded), decoded.values) == ({1: reason}, [EVENT, None, EVENT])
    assert "secret" not in decoded.bad[1].text


def test_what_a_schema_does_not_allow_is_told_with_its_place(tiny: TinyRegistry) -> None:
    item = {"type": "object", "properties": {"n": {"type": "integer"}}}
    tiny.add(1, json.dumps({"properties": {"all": {"items": item}}}), "JSON")

    decoded = decode(JSON_SCHEMA, registry(tiny.url), [frame(1, b'{"all": [{}, {"n": "secret"}]}')])

    assert decoded.bad[0].text == 'at `value.all[1].n`: the value is not of type "integer"'


def test_a_schema_that_names_no_draft_is_read_as_draft_07_as_confluents_registry_does(tiny: TinyRegistry) -> None:
    """There items may be a list of schemas, one for each place, and prefixItems is nothing."""
    latest = "https://json-schema.org/draft/2020-12/schema"
    for number, (draft, keyword) in enumerate(
        [({}, "items"), ({}, "prefixItems"), ({"$schema": latest}, "prefixItems")]
    ):
        tiny.add(1 + number, json.dumps({**draft, "properties": {"n": {keyword: [{"type": "string"}]}}}), "JSON")

    decoded = decode(JSON_SCHEMA, registry(tiny.url), [frame(number, b'{"n": [1]}') for number in (1, 2, 3)])

    assert reasons(decoded) == {0: "schema_violated", 2: "schema_violated"}


def test_without_validation_json_is_taken_out_of_its_frame_and_nobody_asked() -> None:
    unchecked = FormatSettings(type="json_schema", validation=False)

    assert decode(unchecked, None, [frame(9, b'{"to": 1}')]).values == [{"to": 1}]


@pytest.mark.parametrize(("number", "reason"), [(7, "not_json"), (200, "not_utf8")])
def test_without_validation_an_id_of_eight_bytes_is_reported_as_well(number: int, reason: str) -> None:
    """Nobody is asked for schema 0: what is read as JSON begins with the other half of the id."""
    unchecked = FormatSettings(type="json_schema", validation=False)

    decoded = decode(
        unchecked,
        None,
        [b"\0" + number.to_bytes(8) + b'{"to": 1}', frame(9, b'{"to": '), b"\0" * 4, b'{"to": '],
        [None, None, None, [("__value_schema_id", b"\0" + (9).to_bytes(4))]],
    )

    assert reasons(decoded) == {0: reason, 1: "not_json", 2: "not_framed", 3: "not_json"}
    assert "apicurio.registry.as-confluent" in decoded.bad[0].text
    assert not any("apicurio" in decoded.bad[index].text for index in (1, 2, 3))


@pytest.mark.parametrize("names", [["money.json", "archive/money.json"], ["archive/money.json", "money.json"]])
def test_a_name_that_is_the_end_of_another_stands_for_its_own_schema_alone(
    names: list[str], tiny: TinyRegistry
) -> None:
    subjects = {"money.json": "string", "archive/money.json": "integer"}
    for kind in subjects.values():
        tiny.schemas[f"subjects/{kind}/versions/1"] = {"schema": f'{{"type": "{kind}"}}', "schemaType": "JSON"}
    named = [{"name": name, "subject": subjects[name], "version": 1} for name in names]
    fields = {"new": {"$ref": "money.json"}, "old": {"$ref": "archive/money.json"}}
    tiny.add(1, json.dumps({"properties": fields}), "JSON", references=named)

    decoded = decode(JSON_SCHEMA, registry(tiny.url), [frame(1, b'{"new": "1.50", "old": 2}')])

    assert decoded.bad == {}


def test_a_schema_refers_to_what_the_registry_gives_and_to_nothing_else(tiny: TinyRegistry) -> None:
    tiny.schemas["subjects/n/versions/1"] = {"schema": '{"type": "integer"}', "schemaType": "JSON"}
    referring = [{"name": "number.json", "subject": "n", "version": 1}]
    tiny.add(1, '{"properties": {"n": {"$ref": "number.json"}}}', "JSON", references=referring)
    tiny.add(2, json.dumps({"properties": {"n": {"$ref": f"{tiny.url}/schemas/ids/1"}}}), "JSON")
    tiny.add(3, '{"$ref": "file:///etc/hostname"}', "JSON")

    decoded = decode(
        JSON_SCHEMA,
        registry(tiny.url),
        [frame(1, b'{"n": 1}'), frame(1, b'{"n": "x"}'), *(frame(n, b"{}") for n in (2, 3))],
    )

    assert reasons(decoded) == {1: "schema_violated", 2: "schema_unusable", 3: "schema_unusable"}
    assert all("the registry gave nothing of that name with the schema" in decoded.bad[index].text for index in (2, 3))
    assert tiny.asked.count("schemas/ids/1") == 1


def test_a_schema_may_be_no_object(tiny: TinyRegistry) -> None:
    """JSON Schema has `true` for whatever there is, and `false` for nothing."""
    tiny.add(1, "true", "JSON")
    tiny.add(2, "false", "JSON")
    tiny.add(3, "[]", "JSON")

    decoded = decode(JSON_SCHEMA, registry(tiny.url), [frame(number, b"{}") for number in (1, 2, 3)])

    assert decoded.values[0] == {}
    assert reasons(decoded) == {1: "schema_violated", 2: "schema_unusable"}


def test_a_pattern_that_would_run_for_ever_ends(tiny: TinyRegistry) -> None:
    tiny.add(1, '{"properties": {"a": {"pattern": "^(?=(a+)+$)b"}}}', "JSON")
    began = time.process_time()

    assert reasons(decode(JSON_SCHEMA, registry(tiny.url), [frame(1, b'{"a": "%s!"}' % (b"a" * 5_000))])) == {
        0: "schema_violated"
    }
    assert time.process_time() - began < 5
