"""What every request that changes something is checked for, and the headers of every response.

Programs send the token with each request, in the `Authorization` header or as a form field, and never in the URL, which
ends up in logs. Nothing in a request is trusted before the token has been compared, in constant time. Browser logins
are in `sessions.py`.

Wrong tokens are refused and counted, for programs and logins alike, and never lead to a lockout or a delay. The length
of a token prevents guessing. A lockout by address would shut out the operators behind a proxy, since all share its
address; and nobody who guesses has to wait for a delayed answer, as the right one would come at once.
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

from connector.telemetry.logging import LogLimit, get_logger

MAX_BODY_BYTES: Final = 16_384
"""Room for some hundred partitions; larger bodies get a 413."""

MAX_CONNECTIONS: Final = 128
"""Anybody may connect; without a limit, connections could use up the file descriptors for brokers and platform."""

_IDLE_SECS: Final = 75.0
_MAX_FIELDS: Final = 300
_BODY_SECS: Final = 10.0
_REPORT_SECS: Final = 10.0
"""Rejected attempts are logged at most this often, so that guessing cannot fill the disk."""

NO_FORM: Final = "the body must be a form (application/x-www-form-urlencoded)"

Form = list[tuple[str, str]]

log = get_logger("pages")


class _Unreadable(logging.Filter):
    """Drops log records about requests that are not HTTP: anybody may send them, and they repeat what was sent."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a log record is about something else."""
        return record.exc_info is None or not isinstance(record.exc_info[1], HttpProcessingError)


_server_log: Final = logging.getLogger("aiohttp.server.pages")
_server_log.addFilter(_Unreadable())


class _Server(Server):
    """Beyond the limit, a new connection replaces the oldest one."""

    def __call__(self) -> RequestHandler:
        """Return the handler of a connection."""
        there = [known for known in self.connections if known.transport is not None]
        for known in there[: max(len(there) - MAX_CONNECTIONS + 1, 0)]:  # several, if they arrived at once
            known.force_close()
        return super().__call__()


class _Runner(AppRunner):
    async def _make_server(self) -> Server:
        server = await super()._make_server()
        server.__class__ = _Server  # aiohttp offers no other way to use a subclass
        return server


def runner_of(app: Application) -> AppRunner:
    """Return the server of the pages.

    An encoded body is refused, so that invalid encodings cannot fill the log with tracebacks.
    """
    return _Runner(app, access_log=None, auto_decompress=False, logger=_server_log, keepalive_timeout=_IDLE_SECS)


class RefusedError(Exception):
    """A request is not carried out; the message says why, and repeats nothing that was sent."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class TokenGuard:
    """Compares tokens, and limits log lines about wrong ones."""

    def __init__(self) -> None:
        self._refused = LogLimit(_REPORT_SECS)

    def check(self, expected: SecretStr | None, given: str | None, remote: str | None) -> None:
        """Raise `RefusedError` unless this is the token."""
        if expected is None:
            text = "nothing can be changed through the pages: no token is set; set web.token and restart the worker"
            raise RefusedError(403, text)
        if is_same(given or "", expected.get_secret_value()) and given is not None:
            return
        if times := self._refused.due(at=monotonic()):
            log.warning("wrong tokens refused", remote=remote, times=times)
        missing = "no token was given: send it as Authorization: Bearer TOKEN, or as the form's field token"
        raise RefusedError(401, missing if given is None else "the token is wrong")


def is_same(given: str, wanted: str) -> bool:
    """Compare in constant time; a header that is not text contains surrogates."""
    return hmac.compare_digest(given.encode(errors="surrogateescape"), wanted.encode())


def token_in(header: str | None) -> str | None:
    """Return the token in an `Authorization` header, None if there is none."""
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def form_of(expected: SecretStr | None, token_guard: TokenGuard, request: Any) -> Form:
    """Return the fields of a request with the token; without one in the header, it must be in the body."""
    given = token_in(request.headers.get("Authorization"))
    if expected is None or given is not None:
        token_guard.check(expected, given, request.remote)
    form = form_in(await read_body(request))
    if given is None:
        token = next((value for field, value in form or () if field == "token"), None)
        token_guard.check(expected, token, request.remote)
    if form is None:
        raise RefusedError(400, NO_FORM)
    return form


def form_in(body: bytes) -> Form | None:
    """Return the fields of a form, None if the body is not a form."""
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=_MAX_FIELDS)
    except ValueError:
        return None


async def read_body(request: Any) -> bytes:
    """Return the body of a request; raises `RefusedError` if it is encoded, too large, too slow or incomplete."""
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
    """Return a body, None if it has more than `most` bytes; the rest is not read."""
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
"""Headers of every page: nothing is loaded from elsewhere, framed, sniffed or cached.

With `no-referrer`, browsers would also hide the origin of our own forms, which is checked.
"""


async def make_safe(_request: Any, response: Any) -> None:
    """Set the headers of every response, including errors."""
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
