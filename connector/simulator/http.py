"""Requests and replies as values, and replies as bytes. `connection` decides when what is sent."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import lru_cache
from http import HTTPStatus
from typing import Final

import msgspec

JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"
NDJSON: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Request:
    """A request that was read completely.

    `body` is empty if it was longer than the limit; `body_bytes` is its true length. Personal data is not part of the
    repr.
    """

    method: str
    path: str
    query: str = field(default="", repr=False)
    api_key: str | None = field(default=None, repr=False)
    content_type: str | None = None
    body: bytes = field(default=b"", repr=False)
    body_bytes: int = 0
    keep_alive: bool = True


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer: its body or, for long ones, pieces that are created as the client reads them."""

    status: int
    body: bytes = field(default=b"", repr=False)
    content_type: str | None = JSON
    headers: tuple[tuple[str, str], ...] = ()
    pieces: Iterator[bytes] | None = field(default=None, repr=False)

    def head(self, *, keep_alive: bool) -> bytes:
        """Return the status line and the headers, including the empty line after them."""
        length = None if self.pieces is not None else len(self.body)
        return _head(self.status, length, self.content_type, self.headers, keep_alive)


class Manner(Enum):
    """How an answer is sent."""

    WHOLE = auto()
    DRIP = auto()  # the head at once, the body piece by piece
    CUT = auto()  # half of the body, then the connection is closed
    CLOSE = auto()  # nothing, the connection is closed
    STALL = auto()  # nothing, the connection stays


@dataclass(frozen=True, slots=True)
class Reaction:
    """What to do about a request: wait, then answer in this manner."""

    reply: Reply
    manner: Manner = Manner.WHOLE
    delay_secs: float = 0.0
    drip_secs: float = 0.0
    reset: bool = False
    """Whether a closed connection is reset (RST) instead of ended (FIN)."""


@lru_cache(maxsize=1024)
def _head(
    status: int,
    length: int | None,
    content_type: str | None,
    headers: tuple[tuple[str, str], ...],
    keep_alive: bool,
) -> bytes:
    lines = [f"HTTP/1.1 {status} {phrase(status)}"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
    lines.extend(f"{name}: {value}" for name, value in headers)
    if not keep_alive:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def json_reply(status: int, document: object) -> Reply:
    """Return a reply with the document as JSON."""
    return Reply(status, msgspec.json.encode(document))


def page_reply(status: int) -> Reply:
    """Return a reply as proxies and load balancers send it: an HTML page."""
    text = f"<html><body><h1>{status} {phrase(status)}</h1></body></html>\n"
    return Reply(status, text.encode(), content_type=HTML)


def phrase(status: int) -> str:
    """Return the reason phrase of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
