"""What every request to a page that changes something goes through before it is believed, and what every reply says.

The token is asked for with each request of a program, in the `Authorization` header or as a field of the form, and
never in the address, which ends up in logs. Nothing of a request is believed before the token has been compared, in a
time that does not tell how much of it was right. Browsers that have logged in are `sessions.py`'s.
"""

import asyncio
import hmac
import logging
from collections.abc import Mapping
from time import monotonic
from typing import Any, Final
from urllib.parse import parse_qsl

from aiohttp import StreamReader
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import Application, AppRunner, RequestPayloadError, Response, Server, json_response
from aiohttp.web_protocol import RequestHandler
from pydantic import SecretStr

from connector.telemetry.logging import get_logger

MAX_BODY_BYTES: Final = 16_384
"""Room for some hundred partitions; the answer to more is 413."""

MAX_CONNECTIONS: Final = 128
"""Anybody may open some, and without a bound they take the descriptors that brokers and platform are reached by."""

_IDLE_SECS: Final = 75.0
_MAX_FIELDS: Final = 300
_BODY_SECS: Final = 10.0
_REPORT_SECS: Final = 10.0
"""Refused attempts are logged this often at most: whoever guesses shall not fill the disk."""

NO_FORM: Final = "the body must be a form (application/x-www-form-urlencoded)"

Form = list[tuple[str, str]]

log = get_logger("resume")


class _Unreadable(logging.Filter):
    """Keeps out of the log what is no HTTP: anybody may send it, and what was sent is repeated, a token included."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether this is about something else."""
        return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_server_log: Final = logging.getLogger("aiohttp.server.pages")
_server_log.addFilter(_Unreadable())


class _Server(Server):
    """Where too many are connected, one more takes the place of whoever has been there for longest."""

    def __call__(self) -> RequestHandler:
        """Return what serves a connection."""
        there = [known for known in self.connections if known.transport is not None]
        for known in there[: max(len(there) - MAX_CONNECTIONS + 1, 0)]:  # several, where they came all at once
            known.force_close()
        return super().__call__()


class _Runner(AppRunner):
    async def _make_server(self) -> Server:
        server = await super()._make_server()
        server.__class__ = _Server  # the library makes none of another class
        return server


def runner_of(app: Application) -> AppRunner:
    """Return what serves pages.

    A body that is encoded is refused: that it cannot be decoded must not fill the log with tracebacks.
    """
    return _Runner(app, access_log=None, auto_decompress=False, logger=_server_log, keepalive_timeout=_IDLE_SECS)


class RefusedError(Exception):
    """A request is not carried out; the message says why, and repeats nothing of what was sent."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Doorkeeper:
    """Compares tokens, and remembers when it last told of one that was wrong."""

    def __init__(self) -> None:
        self._told = float("-inf")
        self._refused = 0

    def check(self, expected: SecretStr | None, given: str | None, remote: str | None) -> None:
        """Raise `RefusedError` unless this is the token."""
        if expected is None:
            text = "nothing can be changed through the pages: no token is set; set web.token and restart the worker"
            raise RefusedError(403, text)
        if is_same(given or "", expected.get_secret_value()) and given is not None:
            return
        self._refused += 1
        if monotonic() - self._told > _REPORT_SECS:
            log.warning("resume refused: wrong token", remote=remote, times=self._refused)
            self._told, self._refused = monotonic(), 0
        missing = "no token was given: send it as Authorization: Bearer TOKEN, or as the form's field token"
        raise RefusedError(401, missing if given is None else "the token is wrong")


def is_same(given: str, wanted: str) -> bool:
    """Compare in a time that does not tell how much is right; a header that is not text comes with surrogates."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())


def token_in(header: str | None) -> str | None:
    """Return the token of an `Authorization` header, None when there is none."""
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def form_of(expected: SecretStr | None, doorkeeper: Doorkeeper, request: Any) -> Form:
    """Return the fields of a request that has the token; without one in the header the body is read to find it."""
    given = token_in(request.headers.get("Authorization"))
    if expected is None or given is not None:
        doorkeeper.check(expected, given, request.remote)
    form = form_in(await read_body(request))
    if given is None:
        token = next((value for field, value in form or () if field == "token"), None)
        doorkeeper.check(expected, token, request.remote)
    if form is None:
        raise RefusedError(400, NO_FORM)
    return form


def form_in(body: bytes) -> Form | None:
    """Return the fields of a form, None for a body that is none."""
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=_MAX_FIELDS)
    except ValueError:
        return None


async def read_body(request: Any) -> bytes:
    """Return the body of a request; raises `RefusedError` when it is encoded, too large, too slow or broken off."""
    if request.headers.get("Content-Encoding") is not None:
        raise RefusedError(415, "the body must not be encoded")
    body = None
    try:
        if (request.content_length or 0) <= MAX_BODY_BYTES:
            async with asyncio.timeout(_BODY_SECS):
                body = await read_limited(request.content, MAX_BODY_BYTES)
    except TimeoutError as error:
        raise RefusedError(408, "the body did not come in time") from error
    except (ConnectionError, RequestPayloadError) as error:
        raise RefusedError(400, "the body broke off") from error
    if body is None:
        raise RefusedError(413, f"the body has more than {MAX_BODY_BYTES} bytes")
    return body


async def read_limited(content: StreamReader, most: int) -> bytes | None:
    """Return a body, None for one of more than so many bytes; what comes after these is not read."""
    body = bytearray()
    async for piece in content.iter_any():
        body += piece
        if len(body) > most:
            return None
    return bytes(body)


SAFE_HEADERS: Final[Mapping[str, str]] = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every page: nothing is loaded but what is served here, nothing framed, guessed at or kept.

With `no-referrer` browsers would hide the origin of our own forms as well, by which they are known to be ours.
"""


async def make_safe(_request: Any, response: Any) -> None:
    """Give every reply its headers, those that tell of an unknown page or method as well."""
    for name, value in SAFE_HEADERS.items():
        response.headers.setdefault(name, value)


def answered(status: int, body: dict[str, Any]) -> Response:
    """Answer a POST with JSON-ready values."""
    headers = {}
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="trackly-connector"'
    if status in {408, 413, 415}:
        headers["Connection"] = "close"
    return json_response(body, status=status, headers=headers)
