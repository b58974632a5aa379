"""The headers with which a dead letter leaves its topic: those about the failure are removed, its origin stays.

Foreign headers pass through in order, including repeated names.
"""

from connector.core.chunks import Headers
from connector.core.records import REDRIVES, DeadLetter, iso
from connector.deadletters.letters import Letter, Position, told_time

_FRAME_BYTES = 2_000
"""Upper bound of what a record takes besides key, value and headers, in any encoding."""

_PARKED = ("trackly.parked_at", "trackly.parked_note")


def redriven_headers(letter: Letter) -> Headers:
    """Return the headers of a record that is sent again: foreign ones, its origin, and the number of redrives."""
    return [*letter.facts.foreign(), *_origin(letter.origin), (REDRIVES, b"%d" % (letter.redrives + 1))]


def redriven_fits(letter: Letter, value: bytes | None, limit: int) -> bool:
    """Return whether a record that is sent again with this value certainly fits its topic's `limit`, in bytes."""
    if _fits_surely(letter, value, letter.headers, limit):  # most do, and this is fast
        return True
    return fits(letter, value, redriven_headers(letter), limit)


def fits(letter: Letter, value: bytes | None, headers: Headers, limit: int) -> bool:
    """Return whether a dead letter with this value and these headers certainly fits a topic's `limit`, in bytes."""
    return _fits_surely(letter, value, headers, limit) or DeadLetter(0, letter.key, value, headers).size <= limit


def _fits_surely(letter: Letter, value: bytes | None, headers: Headers, limit: int) -> bool:
    told = sum([4 * len(name) + 3 * len(header or b"") + 10 for name, header in headers])
    return len(value or b"") + len(letter.key or b"") + told + _FRAME_BYTES <= limit


def parked_headers(letter: Letter, note: str, *, now_ms: int) -> Headers:
    """Return the headers of a dead letter that is parked: all that it had, plus when and why."""
    headers = [header for header in letter.headers if header[0] not in _PARKED]
    if "trackly.origin.topic" not in letter.facts:
        headers += _origin(letter.origin)
    failed_at = told_time(letter.timestamp_ms)
    if "trackly.failed_at" not in letter.facts and failed_at is not None:
        headers.append(("trackly.failed_at", failed_at.encode()))  # needed to find out what became of it later
    headers.append(("trackly.parked_at", iso(now_ms).encode()))
    if note:
        headers.append(("trackly.parked_note", note.encode(errors="replace")))
    return headers


def _origin(origin: Position) -> Headers:
    (topic, number), offset = origin
    return [
        ("trackly.origin.topic", topic.encode(errors="replace")),
        ("trackly.origin.partition", b"%d" % number),
        ("trackly.origin.offset", b"%d" % offset),
    ]
