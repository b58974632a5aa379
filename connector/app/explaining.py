"""What a stream would do with records, step by step; nothing is sent or committed.

The records go through the stream's own shaper, its operation's checks and its batcher; their results are reported.
Phone numbers, texts and keys are masked unless they should be revealed; the API key is never shown.
"""

import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.core.batching import Batch, Batcher
from connector.core.chunks import Chunk, Partition
from connector.core.segments import segments_of
from connector.core.verdicts import TABLE, Verdict
from connector.kafka.scanning import scanning
from connector.shaping.decoded import FormatAwayError
from connector.shaping.formats import decoder_for, open_registry
from connector.shaping.shaper import Shaper
from connector.stream.wiring import batch_limits
from connector.telemetry.logging import HIDDEN, mask_phone, mask_record
from connector.trackly.operations import Operation, operation_of

MAX_BODY: Final = 2_000
"""Characters of a request's body that are shown."""

Place = tuple[Partition, int]


class NotExplainedError(Exception):
    """The records cannot be shaped now, through no fault of theirs; the stream would hold, with `reason`."""

    def __init__(self, text: str, *, reason: str) -> None:
        super().__init__(text)
        self.reason = reason


def last_records(settings: Settings, topic: str, count: int) -> list[Chunk]:
    """Read the last records of a topic, `count` in all, the latest by time.

    Raises `NoSuchTopicError` and `KafkaTroubleError`. Nothing is committed, and no group is joined.
    """
    with scanning(settings.kafka, client_id="trackly-connector-explain", group="trackly-connector.explain") as scanner:
        scanner.require(topic)
        spans = {partition: (max(low, high - count), high) for partition, (low, high) in scanner.spans(topic).items()}
        chunks = list(scanner.read(spans))
    times = sorted(
        (at, chunk.partition, offset)
        for chunk in chunks
        for at, offset in zip(chunk.timestamps or [0] * len(chunk), chunk.offsets, strict=True)
    )
    wanted = {(partition, offset) for _, partition, offset in times[-count:]}
    picked = [
        chunk.pick([i for i, o in enumerate(chunk.offsets) if (chunk.partition, o) in wanted]) for chunk in chunks
    ]
    return [chunk for chunk in picked if len(chunk)]


def explain(settings: Settings, stream: StreamSettings, chunks: Sequence[Chunk], *, reveal: bool) -> dict[str, Any]:
    """Return what the stream would do with the records, as JSON-ready values; raises `NotExplainedError`."""
    with open_registry(settings) as registry:
        shaper = Shaper(stream, lambda variant: decoder_for(variant.format, registry))
        try:
            shaped = [shaper.shape(chunk) for chunk in chunks]
        except FormatAwayError as error:
            raise NotExplainedError(f"the stream would hold ({error.reason}): {error}", reason=error.reason) from error
    operation = operation_of(stream)
    batcher = Batcher(batch_limits(stream, operation), "explained")
    verdicts: dict[Place, Verdict] = {}
    events: dict[Place, bytes] = {}
    batches: list[Batch] = []
    for chunk, made in zip(chunks, shaped, strict=True):
        prepared = operation.prepare(chunk, now_ms=max(chunk.timestamps or [0]), shaped=made)
        if prepared.settled is not None:
            part, found = prepared.settled
            verdicts |= {(part.partition, offset): found.of(index) for index, offset in enumerate(part.offsets)}
        for lane, ready in prepared.lanes:
            assert ready.wire is not None
            events |= {(ready.partition, offset): wire for offset, wire in zip(ready.offsets, ready.wire, strict=True)}
            batches += batcher.add(lane, ready, now=0.0)
    batches += batcher.due(now=batcher.limits.window_secs)
    numbers = {
        (chunk.partition, offset): number
        for number, batch in enumerate(batches, start=1)
        for chunk in batch.chunks
        for offset in chunk.offsets
    }
    records = []
    for chunk in chunks:
        plan = shaper.plan_for(chunk.partition.topic)
        sources = {} if plan.mapping is None else dict(plan.mapping.sources)
        for index, offset in enumerate(chunk.offsets):
            place = (chunk.partition, offset)
            record = _record(chunk, index, reveal=reveal)
            if (verdict := verdicts.get(place)) is not None:
                record["verdict"] = _verdict(verdict, reveal=reveal)
            else:
                record |= _event(operation, events[place], sources, reveal=reveal) | {"batch": numbers[place]}
            records.append(record)
    return {
        "stream": stream.name,
        "operation": operation.name,
        "records": records,
        "batches": [
            _batch(settings, stream, operation, number, batch, reveal=reveal)
            for number, batch in enumerate(batches, start=1)
        ],
        "in_effect": left_open(stream),
        "verdicts": verdict_table(stream),
    }


def verdict_table(stream: StreamSettings) -> list[dict[str, str]]:
    """Return what each answer of the platform would mean for this stream's records; the first match counts."""
    told = _in_effect(stream)
    in_effect = {
        "as `delivery.in_doubt` says": told["in_doubt"],
        "`retry.max_attempts`": told["max_attempts"],
        "`retry.transient_codes`": told["transient_codes"],
        "`retry.setting_codes`": told["setting_codes"],
        "`delivery.in_doubt_statuses` (default: 504, 520, 524)": told["in_doubt_statuses"],
    }
    rows = []
    for row in TABLE:
        if row.matches is None:
            continue
        texts = {"when": row.when, "verdict": row.verdict}
        for name, words in in_effect.items():
            texts = {key: text.replace(name, words) for key, text in texts.items()}
        rows.append({"row": row.name, **texts})
    return rows


def left_open(stream: StreamSettings) -> dict[str, str]:
    """Return the settings that the verdict table depends on, with their values."""
    told = _in_effect(stream)
    found = {
        "in doubt": f"{told['in_doubt']}: a lost answer, or status {told['in_doubt_statuses']}",
        "sent again": f"{told['transient_codes']}: {told['max_attempts']} in all, then a dead letter",
    }
    if stream.list_number is not None:
        found["hold"] = f"{told['setting_codes']}: for every record of a batch"
    return found


def _in_effect(stream: StreamSettings) -> dict[str, str]:
    delivery, retry = stream.delivery, stream.retry
    return {
        "in_doubt": f"{stream.in_doubt} (`delivery.in_doubt`)",
        "max_attempts": f"{retry.max_attempts} attempts (`retry.max_attempts`)",
        "transient_codes": f"{', '.join(retry.transient_codes) or 'none'} (`retry.transient_codes`)",
        "setting_codes": f"{', '.join(retry.setting_codes) or 'none'} (`retry.setting_codes`)",
        "in_doubt_statuses": f"{', '.join(map(str, delivery.in_doubt_statuses)) or 'none'} "
        "(`delivery.in_doubt_statuses`)",
    }


def _record(chunk: Chunk, index: int, *, reveal: bool) -> dict[str, Any]:
    key = chunk.key(index)
    shown = None if key is None else key.decode(errors="replace") if reveal else HIDDEN
    return {
        "topic": chunk.partition.topic,
        "partition": chunk.partition.number,
        "offset": chunk.offsets[index],
        "key": shown,
    }


def _verdict(verdict: Verdict, *, reveal: bool) -> dict[str, str]:
    text = verdict.text if reveal else mask_record(verdict.text)
    return {"status": verdict.status, "reason": verdict.reason, "text": text}


def _event(operation: Operation, wire: bytes, sources: dict[str, str], *, reveal: bool) -> dict[str, Any]:
    event = msgspec.json.decode(wire)
    told: dict[str, Any] = {
        "event": event if reveal else mask_record(event),
        "bytes": len(wire),
        "fields": sources,
    }
    body = event.get("body")
    if operation.name == "send" and isinstance(body, str):
        found = segments_of(body)
        told["segments"] = {
            "encoding": found.encoding,
            "units": found.units,
            "count": found.count,
            "price": f"billed as {found.count} segment{'s' if found.count > 1 else ''}, "
            "before what the platform adds to the text or replaces in it",
        }
    return told


def _batch(
    settings: Settings, stream: StreamSettings, operation: Operation, number: int, batch: Batch, *, reveal: bool
) -> dict[str, Any]:
    body = b"".join(operation.body(batch)).decode()
    if not reveal:
        body = json.dumps(mask_record(msgspec.json.decode(body)), ensure_ascii=False)
    more = len(body) - MAX_BODY
    return {
        "number": number,
        "records": batch.count,
        "bytes": batch.size,
        "list_number": None if batch.lane is None else batch.lane if reveal else mask_phone(batch.lane),
        "closed_by": batch.closed_by,
        "why": _why(stream, batch),
        "request": {
            "method": "POST",
            "url": f"{settings.trackly.base_url.rstrip('/')}/{operation.path}",
            "headers": {"Content-Type": "application/json", "X-Api-Key": HIDDEN},
            "body": body if more <= 0 else f"{body[:MAX_BODY]}... and {more:,} characters more",
        },
    }


def _why(stream: StreamSettings, batch: Batch) -> str:
    match batch.closed_by:
        case "count":
            most = 1 if stream.mode == "single" else stream.batch.max_records
            return f"it holds {most:,} record{'s' if most > 1 else ''}, " + (
                "as mode is single" if stream.mode == "single" else "which is batch.max_records"
            )
        case "bytes":
            return f"the next record would take it above {stream.batch.max_bytes:,} bytes, which is batch.max_bytes"
        case _:
            return f"no more came within {stream.batch.window_ms} ms of its first record, which is batch.window_ms"
