"""Avro of any schema becomes the event that the documented table says, with or without a pinned schema."""

import json
import struct
from base64 import b64encode
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from itertools import count
from typing import Any, Final, NamedTuple

import fastavro
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as st

from connector.shaping.formats.avro import compile_avro, pin
from connector.shaping.formats.schemas import Schema


class Case(NamedTuple):
    """A schema, a value as the writer takes it, and the event."""

    schema: Any
    value: Any
    event: Any


def _shortest(value: float) -> float:
    """Return a number of 32 bits with the fewest digits that tell it from others."""
    short = (float(f"{value:.{digits}g}") for digits in range(1, 18))
    return next(found for found in short if struct.pack("f", found) == struct.pack("f", value))


_names = map("N{}".format, count())
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DECIMAL: Final = {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2}
_MILLIS: Final = {"type": "long", "logicalType": "timestamp-millis"}
_DATE: Final = {"type": "int", "logicalType": "date"}

PLAIN = st.one_of(
    st.just(Case("null", None, None)),
    st.booleans().map(lambda value: Case("boolean", value, value)),
    st.integers(-(2**31), 2**31 - 1).map(lambda value: Case("int", value, value)),
    st.integers(-(2**63), 2**63 - 1).map(lambda value: Case("long", value, value)),
    st.text(max_size=4).map(lambda value: Case("string", value, value)),
    st.binary(max_size=4).map(lambda value: Case("bytes", value, b64encode(value).decode())),
    st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False).map(
        lambda value: Case("float", value, _shortest(value))
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda value: Case("double", value, value)),
    st.sampled_from([float("nan"), float("inf")]).map(lambda value: Case("double", value, None)),
    st.sampled_from([float("nan"), float("-inf")]).map(lambda value: Case({"type": "float"}, value, None)),
    st.sampled_from("AB").map(
        lambda value: Case({"type": "enum", "name": next(_names), "symbols": ["A", "B"]}, value, value)
    ),
    st.binary(min_size=2, max_size=2).map(
        lambda value: Case({"type": "fixed", "name": next(_names), "size": 2}, value, b64encode(value).decode())
    ),
    st.integers(-(10**9), 10**9).map(
        lambda cents: Case(_DECIMAL, Decimal(cents).scaleb(-2), f"{Decimal(cents).scaleb(-2):f}")
    ),
    st.integers(-(10**12), 10**13).map(
        lambda at: Case(_MILLIS, at, (_EPOCH + timedelta(milliseconds=at)).isoformat().replace("+00:00", "Z"))
    ),
    st.integers(-700_000, 2_000_000).map(
        lambda day: Case(_DATE, day, (date(1970, 1, 1) + timedelta(days=day)).isoformat())
    ),
)


_ALIKE: Final = dict.fromkeys(("int", "long", "float", "double"), "number") | dict.fromkeys(("string", "bytes"), "text")
"""Types that a reader may take for one another: of several in a union it takes the first."""


def _union(case: Case, first: Case | None, other: Case | None) -> Case:
    """Return a case whose type is one of several, with at most one of each kind."""
    kinds: dict[str, Any] = {}
    for each in (first, case, other):
        if each is not None and not isinstance(each.schema, list):
            kind = each.schema if isinstance(each.schema, str) else each.schema["type"]
            named = kind in ("record", "enum", "fixed")
            kinds.setdefault(str(each.schema["name"]) if named else _ALIKE.get(kind, kind), each.schema)
    if isinstance(case.schema, list) or case.schema not in kinds.values():
        return case
    kind = case.schema if isinstance(case.schema, str) else case.schema["type"]
    branch = case.schema["name"] if kind in ("record", "enum", "fixed") else kind
    value = case.value if case.value is None else (branch, case.value)
    return Case(list(kinds.values()), value, case.event)


def _record(fields: list[Case]) -> Case:
    named = [(f"f{number}", case) for number, case in enumerate(fields)]
    schema = {
        "type": "record",
        "name": next(_names),
        "fields": [{"name": name, "type": case.schema} for name, case in named],
    }
    event = {name: case.event for name, case in named if case.event is not None}
    return Case(schema, {name: case.value for name, case in named}, event)


def _map(case: Case, size: int) -> Case:
    members = [f"k{number}" for number in range(size)]
    event = {} if case.event is None else dict.fromkeys(members, case.event)
    return Case({"type": "map", "values": case.schema}, dict.fromkeys(members, case.value), event)


def _array(case: Case, size: int) -> Case:
    record = _record([case, Case("int", 0, 0)])  # items without bytes are refused
    return Case({"type": "array", "items": record.schema}, [record.value] * size, [record.event] * size)


SIZES = st.integers(0, 2)
CASES = st.recursive(
    PLAIN,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map(_record),
        st.tuples(inner, PLAIN | st.none(), inner | st.none()).map(lambda parts: _union(*parts)),
        st.tuples(inner, SIZES).map(lambda parts: _map(*parts)),
        st.tuples(inner, SIZES).map(lambda parts: _array(*parts)),
    ),
    max_leaves=8,
)


def _written(case: Case) -> bytes:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(case.schema), case.value)
    return stream.getvalue()


@tries(deadline=None)
@given(CASES, st.booleans())
def test_a_value_of_any_schema_becomes_the_event_of_the_table(case: Case, pinned: bool) -> None:
    parsed = pin(fastavro.parse_schema(case.schema)) if pinned else None
    read = compile_avro(Schema("AVRO", json.dumps(case.schema)), parsed)

    assert repr(read(b"12345" + _written(case), 5)) == repr(case.event)


def _read(schema: Any, value: Any, pinned: Any) -> Any:
    stream = BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), value)
    read = compile_avro(Schema("AVRO", json.dumps(schema)), pin(fastavro.parse_schema(pinned)))
    return read(stream.getvalue(), 0)


def test_a_choice_of_types_is_brought_to_a_choice_of_types() -> None:
    written = {"type": "record", "name": "E", "fields": [{"name": "a", "type": "int"}]}
    more = [*written["fields"], {"name": "b", "type": "bytes", "default": "b"}]

    assert _read(["string", written], ("E", {"a": 1}), [{**written, "fields": more}, "string"]) == {"a": 1, "b": "Yg=="}
    assert _read(["string", written], "x", ["null", "string"]) == "x"


def test_a_value_with_logical_types_of_its_writer_alone_gets_the_defaults_of_the_pinned_schema() -> None:
    written = {"type": "record", "name": "E", "fields": [{"name": "at", "type": _MILLIS}]}
    pinned = {
        **written,
        "fields": [
            {"name": "at", "type": "long"},
            {"name": "raw", "type": "bytes", "default": "b"},
            {"name": "gone", "type": ["null", "string"], "default": None},
        ],
    }

    assert _read(written, {"at": 0}, pinned) == {"at": "1970-01-01T00:00:00Z", "raw": "Yg=="}
