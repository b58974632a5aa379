"""The examples of formats are read by streams of those formats, and are events that the API takes."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import fastavro
import pytest
from google.protobuf.json_format import ParseDict

from connector.config.load import load_settings
from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk, Headers, Partition
from connector.shaping.formats import decoder_for
from connector.shaping.shaper import shaper_of
from connector.trackly.operations import operation_of
from tests.kit.registries import MakeRegistry, TinyRegistry
from tests.schemas.conftest import EXAMPLES, examples, schema
from tests.shaping.formats.making import closed_registries, frame, registry
from tests.shaping.formats.test_framed import _messages

__all__ = ["closed_registries"]

FOLDER: Final = EXAMPLES / "formats"
SENDS: Final = examples("event.send.v1")


@pytest.fixture(scope="module")
def streams() -> dict[str, StreamSettings]:
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": "localhost:9092",
        "TRACKLY_API_KEY": "trk_0123456789",
        "REGISTRY_PASSWORD": "p",
    }
    return load_settings(FOLDER / "connector.yaml", environ=environ).streams_by_name


@pytest.fixture
def tiny(make_registry: MakeRegistry) -> TinyRegistry:
    return make_registry()


def _sent(
    stream: StreamSettings, url: str, values: list[bytes | None], headers: list[Headers | None] | None = None
) -> list[Any]:
    """Return the records that the stream would post, after seeing that these are all."""
    shaper = shaper_of(stream, lambda variant: decoder_for(variant.format, registry(url)))
    assert shaper is not None
    chunk = Chunk(Partition("events", 0), 1, range(len(values)), values, headers=headers)
    prepared = operation_of(stream).prepare(chunk, now_ms=0, shaped=shaper.shape(chunk))
    assert prepared.settled is None, prepared.settled
    [(_, ready)] = prepared.lanes
    assert ready.values == values
    return [json.loads(record) for record in ready.wire or []]


def _lines(name: str) -> list[Any]:
    return [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]


def _bare(event: dict[str, Any]) -> dict[str, Any]:
    return {name: event[name] for name in ("to", "body")}


def test_cloudevents_of_both_forms(streams: dict[str, StreamSettings], tiny: TinyRegistry) -> None:
    structured, binary = _lines("cloudevents-structured.ndjson"), _lines("cloudevents-binary.ndjson")
    values: list[bytes | None] = [json.dumps(event).encode() for event in structured]
    values += [json.dumps(event["value"]).encode() for event in binary]
    headers: list[Headers | None] = [None] * len(structured)
    headers += [[(name, value.encode()) for name, value in event["headers"].items()] for event in binary]

    sent = _sent(streams["carts"], tiny.url, values, headers)

    assert [event["to"] for event in sent] == [f"+1415555010{n}" for n in (1, 2, 3, 4)]


def test_avro(streams: dict[str, StreamSettings], tiny: TinyRegistry) -> None:
    """Events of a wider schema are brought to the pinned one."""
    text = (FOLDER / "send.avsc").read_text()
    wider = json.loads(text)
    wider["fields"].append({"name": "order_id", "type": "long"})
    tiny.add(4, json.dumps(wider))
    values: list[bytes | None] = []
    for number, event in enumerate(SENDS):
        stream = BytesIO()
        fastavro.schemaless_writer(stream, fastavro.parse_schema(wider), {**_bare(event), "order_id": number})
        values.append(frame(4, stream.getvalue()))

    sent = _sent(streams["orders"], tiny.url, values)

    assert list(map(_bare, sent)) == list(map(_bare, SENDS))
    assert all("order_id" not in event for event in sent)


def test_protobuf(streams: dict[str, StreamSettings], tiny: TinyRegistry, tmp_path: Path) -> None:
    text = (FOLDER / "send.proto").read_text()
    tiny.add(5, text, "PROTOBUF")
    kind = _messages(text, tmp_path)["Send"]
    values: list[bytes | None] = [
        frame(5, b"\0" + ParseDict(event, kind(), ignore_unknown_fields=True).SerializeToString())
        for event in map(_bare, SENDS)
    ]

    assert list(map(_bare, _sent(streams["logins"], tiny.url, values))) == list(map(_bare, SENDS))


def test_json_schema(streams: dict[str, StreamSettings], tiny: TinyRegistry) -> None:
    tiny.add(6, json.dumps(schema("event.send.v1")), "JSON")
    values: list[bytes | None] = [frame(6, json.dumps(event).encode()) for event in SENDS]

    assert list(map(_bare, _sent(streams["loyalty"], tiny.url, values))) == list(map(_bare, SENDS))
