"""The bytes of outcomes and the headers of dead letters.

An outcome is a small JSON object built from a template: within a chunk only the offset and the index differ. A dead
letter is the source record, key and value unchanged, with headers that say what happened. Header names are those of
Kafka Connect (`__connect.errors.*`) and KIP-1191 (`__dlq.errors.*`), which consoles understand, plus `trackly.*`. When
a record fails again, the headers of its last failure replace the earlier ones.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import repeat
from typing import Final, Protocol

import msgspec

from connector.core.chunks import Chunk, Headers, Partition
from connector.core.packing import unpacked
from connector.core.results import Finished
from connector.core.verdicts import Verdict

OUTCOME_VERSION = 1

FAILURE_PREFIXES = ("__connect.errors.", "__dlq.errors.", "trackly.")
"""Headers about a failure; they are replaced, not kept."""

KEPT_PREFIXES = ("trackly.origin.", "trackly.redrives")
"""Those of them that follow a record through every redrive."""

_INDICES = [f',"index":{index}' for index in range(1_000)]
"""For the largest request; measured: building these each time takes a third of an outcome's time."""

_LAST_DIGITS = [f"{number:03d}" for number in range(1_000)]
"""The part that differs between offsets of the same thousand; measured: formatting each offset takes a third of the
rest."""


TRACEPARENT = "traceparent"
"""Header of the W3C trace context. An outcome has the context of its batch's span. A dead letter is the source record
forwarded, so it keeps its own context, and gets that of the span only if it had none."""

REDRIVES = "trackly.redrives"
"""Header: how often a record was sent again."""

_TOPIC = re.compile(rb"[a-zA-Z0-9._-]{1,249}")


class HeaderValues(Protocol):
    """Headers by name, such as a dict."""

    def get(self, name: str, /) -> bytes | None:
        """Return a header's value, or None if it is missing or null."""


def origin_of(facts: HeaderValues) -> tuple[Partition, int] | None:
    """Return where a record first failed, according to its headers; None if they are missing or invalid."""
    topic = facts.get("trackly.origin.topic")
    number = number_of(facts.get("trackly.origin.partition"))
    offset = number_of(facts.get("trackly.origin.offset"))
    if not topic or number is None or offset is None or not _TOPIC.fullmatch(topic):
        return None
    return Partition(topic.decode(), number), offset


def number_of(value: bytes | None) -> int | None:
    """Return the number in a header, or None if it is missing or not a valid offset."""
    return int(value) if value and value.isdigit() and len(value) <= 18 else None


def redrives_of(facts: HeaderValues) -> int:
    """Return how often a record was sent again, according to its headers."""
    return number_of(facts.get(REDRIVES)) or 0


class Origin(msgspec.Struct, gc=False):
    """Where a record first failed."""

    topic: str
    partition: int
    offset: int


class Outcome(msgspec.Struct, gc=False):
    """The fields of an outcome that are read back."""

    status: str
    topic: str
    partition: int
    offset: int
    stream: str = ""
    operation: str = ""
    source: str = ""
    """What settled it if not an answer of the platform: `evidence`."""
    origin: Origin | None = None


_decode_outcome: Final = msgspec.json.Decoder(Outcome).decode


def outcome_in(value: bytes | None) -> Outcome | None:
    """Return the outcome in a value of an outcome topic, None for anything else."""
    try:
        return _decode_outcome(value or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None


def outcomes_in(chunks: Iterable[Chunk]) -> Iterator[Outcome]:
    """Yield the outcomes among the values of an outcome topic; anything else is skipped."""
    for chunk in chunks:
        yield from filter(None, map(outcome_in, chunk.values))


LARGE_OUTCOME_BYTES: Final = 10_000
"""An outcome without its key is smaller: the platform's message id is truncated long before."""

FRAME_BYTES: Final = 100
"""Upper bound of what a batch of one record takes besides key, value and headers, and a header besides name and
value."""


@dataclass(slots=True)
class Outcomes:
    """Outcomes of one source partition, ready to be produced: values, and keys if there are any."""

    source: int
    values: list[str] = field(repr=False)
    keys: list[bytes | None] | None = field(default=None, repr=False)
    key_bytes: int = 0
    """Upper bound for the length of each key."""
    headers: Headers | None = field(default=None, repr=False)
    """Headers of each outcome; only with tracing."""

    def may_exceed(self, limit: int) -> bool:
        """Return whether an outcome may have more than `limit` bytes; usually ruled out by the size of all keys."""
        return self.keys is not None and self.key_bytes + LARGE_OUTCOME_BYTES > limit

    def keys_within(self, limit: int) -> list[bytes | None] | None:
        """Return the keys, with None in place of those that make an outcome larger than `limit` bytes."""
        if self.keys is None:
            return None
        frame = FRAME_BYTES + sum(len(name) + len(value or b"") + FRAME_BYTES for name, value in self.headers or ())
        sizes = [frame + len(value) + len(key or b"") for value, key in zip(self.values, self.keys, strict=True)]
        return [key if size <= limit else None for key, size in zip(self.keys, sizes, strict=True)]


@dataclass(slots=True)
class DeadLetter:
    """One dead letter, ready to be produced; `value` is also None if it had to be left out."""

    source: int
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: Headers = field(repr=False)

    @property
    def size(self) -> int:
        """Upper bound of its bytes on the wire: key, value, headers and framing."""
        headers = sum(len(name.encode(errors="surrogatepass")) + len(value or b"") + 10 for name, value in self.headers)
        return len(self.key or b"") + len(self.value or b"") + headers + 100


@dataclass(frozen=True, slots=True)
class ResultEncoder:
    """Builds the results of one stream."""

    stream: str
    operation: str
    group: str
    failures_only: bool = False

    def outcomes(self, item: Finished) -> Iterator[Outcomes]:
        """Yield the outcomes of finished records, one item per chunk that has any."""
        if self.failures_only:
            return
        verdicts = item.verdicts
        headers: Headers | None = None if item.trace is None else [(TRACEPARENT, item.trace.encode())]
        at = 0
        for chunk in item.chunks:
            stop = at + len(chunk)
            hit = verdicts.exceptions and [i for i in verdicts.exceptions if at <= i < stop]
            if not hit:
                if verdicts.default.status != "dead_letter":
                    lines = self._lines(item, chunk, verdicts.default, at)
                    yield Outcomes(chunk.partition.number, lines, _keys(chunk), chunk.key_bytes, headers)
            else:
                mixed = self._mixed(item, chunk, at)
                mixed.headers = headers
                yield mixed
            at = stop

    def _mixed(self, item: Finished, chunk: Chunk, at: int) -> Outcomes:
        """Return the outcomes of a chunk whose records differ in their verdicts.

        All skipped records of a chunk may be exceptions; those with one verdict are built together.
        """
        each = list(map(item.verdicts.exceptions.get, range(at, at + len(chunk)), repeat(item.verdicts.default)))
        # Outcomes contain no values, so packed ones need not be cut.
        bare = replace(chunk, values=[None] * len(chunk), wire=None)
        lines: dict[int, str] = {}
        for verdict in dict(zip(map(id, each), each, strict=True)).values():
            if verdict.status != "dead_letter":
                places = [place for place, own in enumerate(each) if own is verdict]
                lines.update(zip(places, self._lines(item, bare.pick(places), verdict, at, places), strict=True))
        kept = sorted(lines)
        return Outcomes(
            chunk.partition.number, list(map(lines.__getitem__, kept)), _keys(bare.pick(kept)), chunk.key_bytes
        )

    def _lines(
        self, item: Finished, chunk: Chunk, verdict: Verdict, at: int, places: list[int] | None = None
    ) -> list[str]:
        """Return outcomes that differ only in offset and index."""
        topic, number = chunk.partition
        head = (
            f'{{"version":{OUTCOME_VERSION},"status":"{verdict.status}","stream":"{self.stream}",'
            f'"operation":"{self.operation}","topic":{json.dumps(topic)},"partition":{number},"offset":'
        )
        if not item.batch_id:
            tail = f',"reason":{json.dumps(verdict.reason)}}}'
            return _with_origins(_lines(head, chunk.offsets, [""] * len(chunk), tail), chunk)
        tail = (
            f',"batch_id":"{item.batch_id}","attempts":{item.attempts},"http_status":{verdict.http_status or 0},'
            f'"sent_at":"{iso(item.sent_ms)}","answered_at":"{iso(item.answered_ms)}"'
        )
        if verdict.message_id is not None:
            tail += f',"message_id":{json.dumps(verdict.message_id)}'
        if chunk.resent:
            tail += ',"resent":true'
        tail += "}"
        return _with_origins(_lines(head, chunk.offsets, _indices(chunk, at, places), tail), chunk)

    def dead_letters(self, item: Finished, *, now_ms: int) -> Iterator[DeadLetter]:
        """Yield the dead letters of finished records."""
        verdicts = item.verdicts
        if verdicts.default.status != "dead_letter":
            at = sorted(i for i, verdict in verdicts.exceptions.items() if verdict.status == "dead_letter")
        else:
            at = [i for i in range(item.count) if verdicts.of(i).status == "dead_letter"]
        start, chunks = 0, iter(item.chunks)
        chunk = next(chunks, None)
        for index in at:
            while chunk is not None and index - start >= len(chunk):
                start += len(chunk)
                chunk = next(chunks, None)
            assert chunk is not None
            place = index - start
            number = chunk.indices[place] if chunk.indices is not None else index
            headers = self._headers(item, chunk, place, verdict=verdicts.of(index), index=number, now_ms=now_ms)
            yield DeadLetter(chunk.partition.number, chunk.key(place), chunk.values[place], headers)

    def _headers(
        self, item: Finished, chunk: Chunk, place: int, *, verdict: Verdict, index: int, now_ms: int
    ) -> Headers:
        topic, number = chunk.partition
        offset = chunk.offsets[place]
        source = chunk.header_list(place)
        headers: Headers = [
            (name, value)
            for name, value in source
            if not name.startswith(FAILURE_PREFIXES) or name.startswith(KEPT_PREFIXES)
        ]
        message = f"{verdict.reason}: {verdict.text}" if verdict.text else verdict.reason
        ours: list[tuple[str, object]] = [
            ("__connect.errors.topic", topic),
            ("__connect.errors.partition", number),
            ("__connect.errors.offset", offset),
            ("__connect.errors.connector.name", self.stream),
            ("__connect.errors.stage", "TASK_PUT"),
            ("__connect.errors.exception.message", message),
            ("__dlq.errors.topic", topic),
            ("__dlq.errors.partition", number),
            ("__dlq.errors.offset", offset),
            ("__dlq.errors.group", self.group),
            ("__dlq.errors.message", message),
            ("trackly.stream", self.stream),
            ("trackly.operation", self.operation),
            ("trackly.reason", verdict.reason),
            ("trackly.failed_at", iso(now_ms)),
        ]
        if verdict.code is not None:
            ours.append(("trackly.code", verdict.code))
        if verdict.text:
            ours.append(("trackly.text", verdict.text))
        if verdict.http_status is not None:
            ours.append(("trackly.http_status", verdict.http_status))
        if item.answered_ms:
            ours += [("trackly.batch_id", item.batch_id), ("trackly.index", index)]
        if item.sent_ms:
            ours += [("trackly.attempts", item.attempts), ("trackly.sent_at", iso(item.sent_ms))]
        if chunk.resent:
            ours.append(("trackly.resent", "true"))
        if not any(name == "trackly.origin.topic" for name, _ in source):
            ours += [
                ("trackly.origin.topic", topic),
                ("trackly.origin.partition", number),
                ("trackly.origin.offset", offset),
            ]
        if item.trace is not None and not any(name == TRACEPARENT for name, _ in source):
            ours.append((TRACEPARENT, item.trace))
        headers += [(name, str(value).encode(errors="replace")) for name, value in ours]
        return headers


def _keys(chunk: Chunk) -> list[bytes | None] | None:
    return None if chunk.keys is None else unpacked(chunk.keys)


def _lines(head: str, offsets: Sequence[int], indices: Sequence[str], tail: str) -> list[str]:
    """Return a line for each offset; consecutive offsets share all digits but the last three."""
    if not isinstance(offsets, range) or offsets.step != 1 or offsets.start < 1_000:
        return [f"{head}{offset}{index}{tail}" for offset, index in zip(offsets, indices, strict=True)]
    lines: list[str] = []
    while len(lines) < len(offsets):
        done = len(lines)
        thousand, first = divmod(offsets[done], 1_000)
        ends = _LAST_DIGITS[first : first + len(offsets) - done]
        begin = f"{head}{thousand}"
        those = indices[done : done + len(ends)]
        lines += [f"{begin}{end}{index}{tail}" for end, index in zip(ends, those, strict=True)]
    return lines


def _indices(chunk: Chunk, at: int, places: list[int] | None) -> list[str]:
    """Return the part of each outcome with the record's index in its request."""
    if chunk.indices is None and places is None and at + len(chunk) <= len(_INDICES):
        return _INDICES[at : at + len(chunk)]
    indices = chunk.indices or (range(at, at + len(chunk)) if places is None else [at + i for i in places])
    return [f',"index":{index}' for index in indices]


def _with_origins(lines: list[str], chunk: Chunk) -> list[str]:
    """Return the outcomes of a chunk; for records that were sent again, with where they first failed."""
    if chunk.headers is None:
        return lines
    told = [_origin(dict(headers)) if headers else "" for headers in chunk.headers]
    return [f"{line[:-1]}{origin}}}" for line, origin in zip(lines, told, strict=True)] if any(told) else lines


def _origin(facts: HeaderValues) -> str:
    origin = origin_of(facts)
    if origin is None:
        return ""
    (topic, number), offset = origin
    return f',"origin":{{"topic":"{topic}","partition":{number},"offset":{offset}}},"redrives":{redrives_of(facts)}'


def evidence_outcome(
    stream: str,
    operation: str,
    source: tuple[Partition, int],
    origin: tuple[Partition, int],
    redrives: int,
    *,
    now_ms: int,
) -> str:
    """Return the outcome of a record that the platform accepted according to evidence, without an answer."""
    (topic, number), offset = source
    line = (
        f'{{"version":{OUTCOME_VERSION},"status":"queued","stream":"{stream}","operation":"{operation}",'
        f'"topic":{json.dumps(topic)},"partition":{number},"offset":{offset},"source":"evidence",'
        f'"decided_at":"{iso(now_ms)}"'
    )
    if origin != source:
        (topic, number), offset = origin
        line += (
            f',"origin":{{"topic":{json.dumps(topic)},"partition":{number},"offset":{offset}}},"redrives":{redrives}'
        )
    return line + "}"


def without_value(letter: DeadLetter, limit: int) -> DeadLetter:
    """Return a dead letter that fits into `limit` bytes: without value and, if needed, foreign headers and key.

    Position and reason always stay, so that the record can be looked up at its source.
    """
    said = ("trackly.value_omitted", f"{len(letter.value or b'')} bytes; the topic takes {limit}".encode())
    smaller = DeadLetter(letter.source, letter.key, None, [*letter.headers, said])
    if smaller.size > limit:
        ours = [(name, value) for name, value in smaller.headers if name.startswith(FAILURE_PREFIXES)]
        smaller = DeadLetter(letter.source, None, None, ours)
    return smaller


def iso(ms: int) -> str:
    """Return milliseconds since 1970 as an ISO 8601 time in UTC."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
