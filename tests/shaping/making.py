"""Streams with a mapping, and chunks for them."""

import json
from typing import Any

from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk, Headers, Partition
from connector.core.verdicts import Verdict
from connector.shaping.shaper import Shaper
from connector.trackly.operations import Prepared, operation_of


def stream(**settings: Any) -> StreamSettings:
    """Return the settings of a send stream over `orders` and `carts`."""
    base: dict[str, Any] = {
        "name": "shop",
        "topics": ["orders", "carts"],
        "operation": "send",
        "list_number": "+18005551234",
        "outcomes": {"topic": "out"},
        "dead_letters": {"topic": "dead"},
    }
    return StreamSettings.model_validate({**base, **settings})


def chunk(
    *values: Any,
    topic: str = "orders",
    keys: list[bytes | None] | None = None,
    headers: list[Headers | None] | None = None,
    timestamps: list[int] | None = None,
) -> Chunk:
    """Return a chunk of JSON values; bytes and None stay what they are."""
    raw = [value if value is None or isinstance(value, bytes) else json.dumps(value).encode() for value in values]
    return Chunk(Partition(topic, 0), 1, range(len(raw)), raw, keys=keys, headers=headers, timestamps=timestamps)


def prepared(settings: StreamSettings, source: Chunk) -> Prepared:
    """Shape and check a chunk as the stream would."""
    return operation_of(settings).prepare(source, now_ms=0, shaped=Shaper(settings).shape(source))


def posted(result: Prepared) -> list[Any]:
    """Return what would be posted."""
    return [json.loads(event) for _, part in result.lanes for event in part.wire or []]


def settled(result: Prepared) -> dict[int, Verdict]:
    """Return the verdicts by offset."""
    if result.settled is None:
        return {}
    part, verdicts = result.settled
    return {offset: verdicts.of(index) for index, offset in enumerate(part.offsets)}
