"""What is shown of a dead letter, the same for the command line and the console."""

from collections.abc import Callable
from typing import Any

from connector.core.records import iso
from connector.deadletters.addresses import json_of
from connector.deadletters.letters import Letter, spelled
from connector.telemetry.logging import mask_event


def shown(letter: Letter, *, hide: Callable[[str], str] | None) -> dict[str, Any]:
    """Return what there is to know of a dead letter as JSON-ready values.

    `hide` makes a text fit to be shown; None reveals everything.
    """

    def hidden(text: str | None) -> str | None:
        return text if hide is None or text is None else hide(text)

    source = letter.source
    return {
        "position": letter.position,
        "at": iso(letter.timestamp_ms) if letter.timestamp_ms >= 0 else None,
        "stream": letter.stream,
        "reason": letter.reason,
        "code": hidden(letter.code),
        "text": hidden(letter.text),
        "http_status": letter.status,
        "attempts": letter.attempts,
        "redrives": letter.redrives,
        "source": None if source is None else spelled(source),
        "origin": spelled(letter.origin),
        "key": hidden(_text(letter.key)),
        "value": _value(letter, reveal=hide is None),
        "headers": [[name, hidden(_text(value))] for name, value in letter.headers],
    }


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode(errors="backslashreplace")


def _value(letter: Letter, *, reveal: bool) -> Any:
    """Return the value: as JSON where it is some, else as text; hidden but for its shape unless it is asked for."""
    value = json_of(letter.value)
    if reveal:
        return value if value is not None else _text(letter.value)
    if letter.value is None:
        return None
    if isinstance(value, dict):
        return mask_event(None, "", value)
    return f"<{len(letter.value)} bytes>"
