"""Requests to the platform: the only module that uses httpx as a client.

Failures are classified by one question: had writing the request begun? The transport calls back just before the first
byte; after an earlier failure the request was certainly not sent, after a later one it may have been accepted. Nothing
is retried here, and idle connections are dropped before the platform would close them.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from contextlib import suppress

import httpx

from connector import __version__
from connector.clock import awake
from connector.config.certificates import client_context, load_pair
from connector.config.model import HIDDEN
from connector.config.trackly import TracklySettings
from connector.core.batching import Batch
from connector.core.verdicts import Reply
from connector.trackly.operations import Operation
from connector.trackly.replies import is_foreign, read_reply
from connector.trackly.transport import BeforeWrite, ExactTransport, Pieces, ReplyTooLargeError, TunnelRefusedError

_PROXY_WANTS_CREDENTIALS = 407
_FAILURES = (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError, RuntimeError)
_SECRET_CHARS = 8
"""A shorter key, as in tests, is not a secret, and may occur in any text by chance."""


class TooLateError(Exception):
    """The batch was listed too long ago to be posted now; nothing was written."""


class Client:
    """Posts batches and queries lists; one per stream, so that no stream waits for another's connections.

    `api_key` is called for each request, because a key that is given by file may change at any time.
    """

    def __init__(self, settings: TracklySettings, api_key: Callable[[], str]) -> None:
        self._settings = settings
        self._total_secs = settings.timeouts.total_secs
        self._api_key = api_key
        self._base = httpx.URL(f"{settings.base_url}/")
        self._urls: dict[str, httpx.URL] = {}
        self._tls = client_context(settings.tls)
        self._transport = ExactTransport(
            tls=self._tls,
            idle_secs=settings.idle_connection_secs,
            connect_secs=settings.timeouts.connect_secs,
            max_reply_bytes=settings.max_reply_bytes,
            proxy=settings.proxy,
        )
        self._headers = {
            "Host": self._base.netloc.decode("ascii"),  # httpx adds none to a streamed request
            "User-Agent": f"trackly-connector/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",  # of every request, says the platform: also of one without a body
            "Connection": "keep-alive",
        }

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    def read_certificates_again(self) -> None:
        """Use the present contents of the certificate files for new connections.

        If they cannot be used, for instance because only one of a pair was replaced, nothing changes. An authority that
        was removed from its file is trusted until the next start: a context can only be extended.
        """
        tls = self._settings.tls
        if tls.ca_file is None and tls.cert_file is None:
            return
        with suppress(OSError):
            client_context(tls)  # tried on a new context, since a failure would damage ours
            if tls.ca_file is not None:
                self._tls.load_verify_locations(tls.ca_file)
            if tls.cert_file is not None:
                load_pair(self._tls, tls.cert_file, tls.key_file)

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Post a batch and return the result; raises `TooLateError` if the write could not begin in time.

        `before` is a time of `awake()`, which also counts while the machine sleeps.
        """
        written = False

        def before_write() -> None:
            nonlocal written
            if awake() > before:
                raise TooLateError
            written = True

        try:
            response, body = await self._ask("POST", operation.path, operation.body(batch), before_write)
        except ReplyTooLargeError as error:
            return Reply("answered", status=error.status, unreadable=str(error))
        except _FAILURES as error:
            return _trouble(error, written=written)
        return read_reply(
            operation,
            batch,
            status=response.status_code,
            retry_after=response.headers.get("retry-after"),
            body=body,
            now=time.time(),
        )

    async def lists(self) -> Reply:
        """Query the account's lists: the cheapest request that needs the key, used as a probe and as a check."""
        try:
            response, body = await self._ask("GET", "lists?per_page=100")
        except ReplyTooLargeError as error:
            return Reply("answered", status=error.status)
        except _FAILURES as error:
            return _trouble(error, written=False)
        text = body[:100_000].decode(errors="replace")
        return Reply("answered", status=response.status_code, text=text, foreign=is_foreign(body))

    async def _ask(
        self,
        method: str,
        path: str,
        content: list[bytes] | None = None,
        before_write: BeforeWrite | None = None,
    ) -> tuple[httpx.Response, bytes]:
        """Return the response to a request and its body, with our key masked, because texts go into dead letters.

        The transport is used without httpx's client, which follows redirects, stores cookies and reads environment
        variables, none of which is wanted, and takes 100 us per request.
        """
        headers = {**self._headers, "X-Api-Key": (key := self._api_key())}
        if content is not None:
            headers["Content-Length"] = str(sum(map(len, content)))
        # With a declared encoding, httpx does not detect one at each access. All headers are ASCII.
        request = httpx.Request(
            method,
            self._url(path),
            headers=httpx.Headers(headers, encoding="ascii"),
            stream=Pieces(content or []),
            extensions={"before_write": before_write},
        )
        async with asyncio.timeout(self._total_secs):
            response = await self._transport.handle_async_request(request)
        # As received: a compressed body, which we did not request, is never decompressed. Not read through the
        # response, which takes 5 us to return what is here already.
        assert isinstance(response.stream, Pieces)
        body = b"".join(response.stream.pieces)
        return response, body.replace(key.encode(), HIDDEN.encode()) if len(key) >= _SECRET_CHARS else body

    def _url(self, path: str) -> httpx.URL:
        if path not in self._urls:
            self._urls[path] = self._base.join(path)
        return self._urls[path]


def _trouble(error: BaseException, *, written: bool) -> Reply:
    """Return a transport failure as a reply; texts are ours or the library's and never contain a header."""
    text = f"{type(error).__name__}: {error}"[:300].rstrip(": ")
    tls = _tls_error(error)
    if written and not (tls and _refuses_us(tls)):
        timeout = isinstance(error, TimeoutError | httpx.TimeoutException)
        return Reply("lost", trouble="timeout" if timeout else "reset", text=text)
    if tls:
        return Reply("not_sent", trouble="tls", text=text)
    if isinstance(error, TunnelRefusedError) and error.status == _PROXY_WANTS_CREDENTIALS:
        return Reply("answered", status=error.status, text=text, foreign=True)  # as where it forwards requests
    if isinstance(error, TimeoutError | httpx.ConnectTimeout):
        return Reply("not_sent", trouble="connect_timeout", text=text)
    if isinstance(error, httpx.ProxyError):
        return Reply("not_sent", trouble="proxy", text=text)
    return Reply("not_sent", trouble="connect", text=text)


def _refuses_us(error: ssl.SSLError) -> bool:
    """Return whether the server ended the handshake because it does not accept our certificate, or got none.

    With TLS 1.3 we learn this after writing the request, but the server reads nothing before it has verified us.
    """
    reason = error.reason or ""
    return "ALERT" in reason and any(part in reason for part in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED"))


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the TLS error that caused an error, or None."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ssl.SSLError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
