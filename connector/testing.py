"""A test kit for mappings and transforms: records in, and what the connector would make of each.

    from connector.testing import ends_of, sample

    def test_orders_are_texted() -> None:
        (end,) = ends_of("connector.yaml", "orders", [sample({"id": 7, "phone": "+14155550101"})])

        assert end.event == {"to": "+14155550101", "body": "Order 7 has shipped."}

No broker, platform or API key is needed. Records are shaped and checked by the connector's own code.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from connector.config.load import load_settings
from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk, Partition
from connector.hooks import Records, Transform
from connector.shaping.formats import decoder_for, open_registry
from connector.shaping.json_values import JsonDecoder
from connector.shaping.shaped import Shaped
from connector.shaping.shaper import Plan, Shaper, shape_by
from connector.trackly.operations import Operation, Rules, operation_of

__all__ = ["End", "Records", "Sample", "apply", "ends_of", "sample"]


@dataclass(frozen=True, slots=True)
class Sample:
    """A record to try, as bytes like in Kafka."""

    value: bytes | None = field(repr=False)
    key: bytes | None = field(default=None, repr=False)
    headers: tuple[tuple[str, bytes | None], ...] = field(default=(), repr=False)
    topic: str | None = None
    """The stream's first topic if None."""
    timestamp_ms: int = 0


@dataclass(frozen=True, slots=True)
class End:
    """What becomes of a record before anything is posted."""

    status: Literal["posted", "skipped", "dead_letter"]
    event: Any = field(default=None, repr=False)
    """What would be posted."""
    reason: str = ""
    text: str = ""


def sample(
    value: Any,
    *,
    key: str | bytes | None = None,
    headers: Mapping[str, str | bytes | None] | None = None,
    topic: str | None = None,
    timestamp_ms: int = 0,
) -> Sample:
    """Return a record; a value other than bytes and None is encoded as JSON, other text as UTF-8."""
    raw = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
    told = tuple((name, _bytes(text)) for name, text in (headers or {}).items())
    return Sample(raw, _bytes(key), told, topic, timestamp_ms)


def ends_of(settings: str | Path, stream: str, samples: Iterable[Sample]) -> list[End]:
    """Shape and check records like a stream of a settings file; raises SettingsError if the file is invalid.

    References to the environment are resolved as at a start, so what they name must exist.
    """
    loaded = load_settings(Path(settings))
    found = next((candidate for candidate in loaded.streams if candidate.name == stream), None)
    if found is None:
        raise ValueError(f"{settings} has no stream {stream}")
    operation = operation_of(found)
    with open_registry(loaded) as registry:
        shaper = Shaper(found, lambda variant: decoder_for(variant.format, registry))
        return [_end(operation, piece, shaper.shape(piece)) for piece in _chunks(samples, found)]


def apply(
    transform: Transform, samples: Sequence[Sample], *, operation: Operation | None = None, topic: str = "test"
) -> list[End]:
    """Call a transform with all records at once, as JSON, and check its results as events of an operation.

    Without `operation` it is `send` with a list of its own. Raises `FormatAwayError` where the stream would hold: if
    the function raises, or returns another number of values.
    """
    checks = operation or Operation("send", Rules(list_number="+18005551234", top_level_list=True))
    plan = Plan(JsonDecoder(), is_json=True, mapping=None, transform=transform)
    whole = _chunk(samples, Partition(topic, 0))
    shaped = shape_by(plan, whole, topic)
    return [_end(checks, *_one(whole, shaped, index)) for index in range(len(whole))]


def _chunks(samples: Iterable[Sample], settings: StreamSettings) -> Iterable[Chunk]:
    default = settings.topics[0] if settings.topics else "test"
    return [_chunk([one], Partition(one.topic or default, 0)) for one in samples]


def _chunk(samples: Sequence[Sample], partition: Partition) -> Chunk:
    return Chunk(
        partition,
        1,
        range(len(samples)),
        [one.value for one in samples],
        keys=[one.key for one in samples],
        headers=[list(one.headers) for one in samples],
        timestamps=[one.timestamp_ms for one in samples],
    )


def _one(chunk: Chunk, shaped: Shaped, index: int) -> tuple[Chunk, Shaped]:
    bad = {0: shaped.bad[index]} if index in shaped.bad else {}
    return chunk.slice(index, index + 1), Shaped([shaped.events[index]], bad, max_segments=shaped.max_segments)


def _end(operation: Operation, chunk: Chunk, shaped: Shaped) -> End:
    prepared = operation.prepare(chunk, now_ms=0, shaped=shaped)
    if prepared.settled is not None:
        verdict = prepared.settled[1].of(0)
        status: Literal["skipped", "dead_letter"] = "skipped" if verdict.status == "skipped" else "dead_letter"
        return End(status, None, verdict.reason, verdict.text)
    ((_, ready),) = prepared.lanes
    assert ready.wire is not None
    return End("posted", json.loads(ready.wire[0]))


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
