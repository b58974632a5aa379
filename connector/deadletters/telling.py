"""How a dead letter is displayed, the same for the command line and the console.

Unless everything is revealed, a key is shown as `***`: it may identify a person, and a hash of a phone number is as
good as the number. Positions distinguish records. Only headers about the failure are ours; the values of all others are
hidden as well.
"""

from typing import Any, Final

from connector.core.records import FAILURE_PREFIXES
from connector.deadletters.addresses import json_of
from connector.deadletters.letters import Letter, spelled, told_time
from connector.telemetry.logging import HIDDEN, fit_to_show, mask_mail, mask_record

MAX_LEVELS: Final = 100
"""Nesting limit of a value that is shown as JSON; a deeper one is shown as text. Formatting or masking it would exceed
Python's recursion limit, and one such record would keep all others from being listed."""


def shown(letter: Letter, *, reveal: bool) -> dict[str, Any]:
    """Return everything about a dead letter as JSON-ready values."""

    def hidden(text: str | None) -> str | None:
        return text if reveal or text is None else mask_mail(fit_to_show(text))

    def header(name: str, value: bytes | None) -> list[str | None]:
        if reveal or name.startswith(FAILURE_PREFIXES):
            return [name, hidden(_text(value))]
        return [mask_record(name), None if value is None else HIDDEN]

    source = letter.source
    return {
        "position": letter.position,
        "at": told_time(letter.timestamp_ms),
        "stream": letter.stream,
        "reason": letter.reason,
        "code": hidden(letter.code),
        "text": hidden(letter.text),
        "http_status": letter.status,
        "attempts": letter.attempts,
        "redrives": letter.redrives,
        "source": None if source is None else spelled(source),
        "origin": spelled(letter.origin),
        "key": _text(letter.key) if reveal or letter.key is None else HIDDEN,
        "value": _value(letter, reveal=reveal),
        "headers": [header(name, value) for name, value in letter.headers],
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


def _value(letter: Letter, *, reveal: bool) -> Any:
    """Return the value, as JSON if it is, otherwise as text; all but its shape is hidden unless `reveal`."""
    value = json_of(letter.value)
    if _is_deep(value):
        value = None
    if reveal:
        return value if value is not None else _text(letter.value)
    if letter.value is None:
        return None
    if isinstance(value, dict):
        return mask_record(value)
    return f"<{len(letter.value)} bytes>"


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_LEVELS):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return False
    return True
