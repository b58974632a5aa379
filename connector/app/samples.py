"""Samples for `explain`: lines of JSON, each the value of a record, or a record with key, headers and topic.

A record has the format of `dead-letters export`, of which only `value` is required: bytes that are UTF-8 are text,
others `{"base64": ...}`; a value that is any other JSON stands for its own text.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

from connector.core.chunks import Chunk, Headers, Partition
from connector.core.records import origin_of
from connector.deadletters.lines import FIELDS, FORMAT, InvalidLineError, bytes_of

MAX_LINE: Final = 5_000_000

MAX_SAMPLES: Final = 1_000
"""Samples of one file that are taken; the others are left."""

_EXPORTED: Final = json.dumps(FORMAT).encode()

_Row = tuple[Partition, bytes | None, bytes | None, Headers, int]
"""Partition, key, value, headers and timestamp."""


class InvalidSampleError(ValueError):
    """A line is not a sample; the text says which."""


def read_samples(lines: Iterable[bytes], *, records: bool, topic: str) -> list[Chunk]:
    """Return the records of a file as chunks of one each, at most `MAX_SAMPLES`; without a topic, they are of `topic`.

    With `records`, each line is a record; otherwise it is a value, taken as it is, unless it is an exported dead
    letter. Offsets count up. Raises `InvalidSampleError`.
    """
    counts: Counter[Partition] = Counter()
    chunks = []
    for partition, key, value, headers, at_ms in _rows(lines, records=records, topic=topic):
        chunks.append(
            Chunk(
                partition,
                1,
                [counts[partition]],
                [value],
                keys=[key],
                headers=[headers],
                timestamps=[at_ms],
                oldest_ms=at_ms,
            )
        )
        counts[partition] += 1
    return chunks


def _rows(lines: Iterable[bytes], *, records: bool, topic: str) -> Iterator[_Row]:
    taken = 0
    for number, line in enumerate(lines, start=1):
        text = line.rstrip(b"\r\n")
        if not text.strip():
            continue
        if taken == MAX_SAMPLES:
            return
        taken += 1
        if len(text) > MAX_LINE:
            raise InvalidSampleError(f"line {number} has more than {MAX_LINE:,} bytes")
        if records or _EXPORTED in text:
            yield _record(text, number, topic)
        else:
            yield Partition(topic, 0), None, text, [], 0


def _record(text: bytes, number: int, topic: str) -> _Row:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidSampleError(f"line {number} is not JSON") from None
    if not isinstance(data, dict) or "value" not in data:
        raise InvalidSampleError(
            f"line {number} is not a record: an object with value, and optionally key, headers and topic"
        )
    if unknown := sorted(data.keys() - FIELDS):
        raise InvalidSampleError(f"line {number} has {unknown[0]}; a record has {', '.join(sorted(FIELDS))}")
    name, part, at_ms = data.get("topic", topic), data.get("partition", 0), data.get("timestamp_ms", 0)
    if not isinstance(name, str) or not isinstance(part, int) or not isinstance(at_ms, int):
        raise InvalidSampleError(f"line {number} has an invalid topic, partition or timestamp_ms")
    try:
        headers = [(name, _bytes(value)) for name, value in _pairs(data.get("headers"))]
        value, key = _bytes(data["value"]), _bytes(data.get("key"))
    except (TypeError, InvalidLineError):
        raise InvalidSampleError(f"line {number} has an invalid key, value or headers") from None
    # A dead letter is explained as what it was when it first failed.
    origin = origin_of(dict(headers))
    return Partition(name, part) if origin is None else origin[0], key, value, headers, at_ms


def _pairs(headers: Any) -> Iterable[tuple[str, Any]]:
    match headers:
        case None:
            return []
        case dict():
            return headers.items()
        case list() if all(isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in headers):
            return [(name, value) for name, value in headers]
        case _:
            raise TypeError


def _bytes(value: Any) -> bytes | None:
    if value is None or isinstance(value, str) or (isinstance(value, dict) and value.keys() == {"base64"}):
        return bytes_of(value)
    return json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")
