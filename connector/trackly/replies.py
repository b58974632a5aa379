"""What a reply says, verified before it is trusted.

A bulk reply lists failures by index. It is trusted only if it is consistent: every record is counted once, no index is
repeated or out of range, and the number that an error repeats is the number of that record. Any other reply is
unreadable, and the records of the request are in doubt.
"""

from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
from msgspec import Raw

from connector.core.batching import Batch
from connector.core.chunks import locate
from connector.core.verdicts import RecordError, Reply
from connector.shaping.refusing import MAX_TEXT
from connector.trackly.operations import Operation

_MAX_VALUE_BYTES = 1_000_000
"""Limit for a value of any type. No larger one is meaningful, and 16 MB of empty lists would become 400 MB of objects,
and block everything else while they are created."""


class _Entry(msgspec.Struct, gc=False):
    index: int
    code: str | None = None
    error: str | None = None
    to: Raw = Raw()
    phone_number: Raw = Raw()
    id: Raw = Raw()


class _Bulk(msgspec.Struct):
    success: Raw = Raw()
    queued_count: int | None = None
    success_count: int | None = None
    error_count: int | None = None
    duplicates_skipped: int | None = 0
    invalid_phones: int | None = 0
    errors: list[_Entry] | None = None


class _Single(msgspec.Struct):
    success: bool | None = None
    message_id: str | None = None
    contact_id: Raw = Raw()
    revenue_id: Raw = Raw()


class _Failure(msgspec.Struct):
    """An error reply: each field may have any type, and an invalid one does not hide the others."""

    code: Raw = Raw()
    error: Raw = Raw()
    message: Raw = Raw()
    errors: Raw = Raw()
    queued_count: Raw = Raw()
    success_count: Raw = Raw()
    success: Raw = Raw()


_decode_bulk = msgspec.json.Decoder(_Bulk).decode
_decode_single = msgspec.json.Decoder(_Single).decode
_decode_failure = msgspec.json.Decoder(_Failure).decode


def _value(raw: Raw) -> Any:
    """Return a value of any type, or None if it is missing or cannot be read."""
    if not 0 < len(raw) <= _MAX_VALUE_BYTES:
        return None
    try:
        return msgspec.json.decode(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def read_reply(
    operation: Operation, batch: Batch, *, status: int, retry_after: str | None, body: bytes, now: float
) -> Reply:
    """Return what an answer says; `now` is Unix time in seconds, for a `Retry-After` that is a date.

    Never raises, whatever the platform, or something in its place, has sent.
    """
    wait = parse_retry_after(retry_after, now)
    if not 200 <= status < 300:
        said = _object(body)
        code, text = _failure(said, body)
        foreign, taken = said is None, said is not None and _names_taken(operation, said)
        return Reply(
            "answered", status=status, code=code, text=text, retry_after_secs=wait, foreign=foreign, some_taken=taken
        )
    if not body:
        return _unreadable(status, "the reply is empty")
    try:
        if operation.rules.single:
            return _read_single(status, _decode_single(body))
        return _read_bulk(operation, batch, status, _decode_bulk(body))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        return _unreadable(status, f"the reply cannot be read: {error}")


def _read_single(status: int, said: _Single) -> Reply:
    named = said.message_id or _value(said.contact_id) or _value(said.revenue_id)
    if said.success is False or (said.success is None and not named):
        return _unreadable(status, "the reply does not say that the record was taken")
    return Reply("answered", status=status, message_id=said.message_id and said.message_id[:MAX_TEXT])


def _read_bulk(operation: Operation, batch: Batch, status: int, said: _Bulk) -> Reply:
    counts = {"queued_count": said.queued_count, "success_count": said.success_count}
    accepted = counts[operation.endpoint.accepted_count]
    failed = said.error_count
    duplicates, invalid, entries = said.duplicates_skipped or 0, said.invalid_phones or 0, said.errors or []
    if accepted is None or failed is None:
        return _unreadable(status, f"the reply has no {operation.endpoint.accepted_count} and error_count")
    if min(accepted, failed, duplicates, invalid) < 0:
        return _unreadable(status, "a count is negative")
    # It is not documented whether skipped records count as accepted, nor whether invalid numbers count as errors.
    rest = batch.count - accepted - failed
    readings = [failed + apart for skipped in (0, duplicates) for apart in (0, invalid) if skipped + apart == rest]
    if not readings:
        return _unreadable(status, f"the counts do not add up: {accepted} + {failed} for {batch.count} records")
    # If two interpretations are consistent, the one with more failures never calls a rejected record queued.
    missing = max(readings) - len(entries)
    if _value(said.success) is False and not failed:
        return _unreadable(status, "the reply says that it failed, and counts no failure")
    if missing < 0:
        return _unreadable(status, f"{len(entries)} errors are listed, {failed} counted")
    problem = _check_entries(operation, batch, entries)
    if problem is not None:
        return _unreadable(status, problem)
    errors = tuple(RecordError(e.index, (e.code or "")[:MAX_TEXT], (e.error or "")[:MAX_TEXT]) for e in entries)
    return Reply("answered", status=status, errors=errors, unnamed=missing)


def _check_entries(operation: Operation, batch: Batch, entries: list[_Entry]) -> str | None:
    """Return what is wrong with the listed errors, or None."""
    seen: set[int] = set()
    echo = operation.endpoint.echo
    for entry in entries:
        if not 0 <= entry.index < batch.count:
            return f"index {entry.index} of {batch.count} records"
        if entry.index in seen:
            return f"index {entry.index} is listed twice"
        seen.add(entry.index)
        echoed: Raw = getattr(entry, echo) if echo else Raw()
        if bytes(memoryview(echoed)[:5]) not in {b"", b"null"}:
            chunk, at = locate(batch.chunks, entry.index)
            assert chunk.wire is not None
            if str(operation.echoed(chunk.wire[at])) != str(_value(echoed)):
                return f"index {entry.index} repeats the `{echo}` of another record"
    return None


def _object(body: bytes) -> _Failure | None:
    """Return an error reply as the JSON object that the platform would send, or None for anything else."""
    try:
        return _decode_failure(body)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _failure(said: _Failure | None, body: bytes) -> tuple[str | None, str]:
    """Return the code and the text of an error reply, whatever it contains."""
    code, texts = None, []
    if said is not None:
        texts = [text for text in (_value(said.error), _value(said.message)) if isinstance(text, str) and text]
        code = _value(said.code)
        errors = _value(said.errors) if code is None else None
        if isinstance(errors, list):
            # It is not documented which status a bulk request has if all records failed: it may list them as usual.
            entries = [entry for entry in errors if isinstance(entry, dict)]
            codes = {each if isinstance(each := entry.get("code"), str) else "" for entry in entries}
            if len(codes) == 1:
                code = codes.pop() or None
                texts += [entry["error"] for entry in entries if isinstance(entry.get("error"), str) and entry["error"]]
    text = texts[0] if texts else body[: 4 * MAX_TEXT].decode(errors="replace").strip()
    return code[:MAX_TEXT] if isinstance(code, str) else None, text[:MAX_TEXT]


def is_foreign(body: bytes) -> bool:
    """Return whether an answer is not a JSON object, and therefore not the platform's own."""
    return _object(body) is None


def _names_taken(operation: Operation, said: _Failure) -> bool:
    """Return whether an error reply says that records were accepted: they must not be posted again for its status."""
    if operation.rules.single:
        return _value(said.success) is True
    counts = (_value(said.queued_count), _value(said.success_count))
    return any(isinstance(count, int | float) and count > 0 for count in counts)


def _unreadable(status: int, why: str) -> Reply:
    return Reply("answered", status=status, unreadable=why[:MAX_TEXT])


def parse_retry_after(value: str | None, now: float) -> float | None:
    """Return the seconds that a `Retry-After` header asks for, or None if it is missing or cannot be read."""
    if not value:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:  # HTTP dates are in UTC, whether they say so or not
            date = date.replace(tzinfo=UTC)
        return max(date.timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return None
