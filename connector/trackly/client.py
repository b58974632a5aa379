"""Requests to the platform: the only home of httpx.

What went wrong is told apart by one question: had the writing of the request begun? The transport asks just before
the first byte; a failure earlier is certainly not sent, one later may have been taken. Nothing is retried here, and
idle connections are left before the platform would close them.
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
"""A shorter key, as of a test, is no secret, and may stand in any text by chance."""


class TooLateError(Exception):
    """The batch was listed too long ago to be posted now; nothing was written."""


class Client:
    """Posts bodies and asks for lists; one for each stream, so that no stream waits for another's connections.

    `api_key` is called for each request: a key that is given by file may change while we run.
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
            "Host": self._base.netloc.decode("ascii"),  # httpx adds none to what comes in pieces
            "User-Agent": f"trackly-connector/{__version__}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Connection": "keep-alive",
        }

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    def read_certificates_again(self) -> None:
        """Have new connections use what the files of authorities and of our certificate say now.

        Files that cannot be used, as when one of a pair has not been replaced yet, leave all as it was. An authority
        that is gone from its file is trusted until the next start: a context can only be given more.
        """
        tls = self._settings.tls
        if tls.ca_file is None and tls.cert_file is None:
            return
        with suppress(OSError):
            client_context(tls)  # whether they can be used is tried on another one, as failing would spoil ours
            if tls.ca_file is not None:
                self._tls.load_verify_locations(tls.ca_file)
            if tls.cert_file is not None:
                load_pair(self._tls, tls.cert_file, tls.key_file)

    async def post(self, operation: Operation, batch: Batch, *, before: float) -> Reply:
        """Post a batch and return what came of it; raises `TooLateError` when the write could not begin in time.

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
        """Ask for the account's lists: the cheapest question that needs the key, used as a probe and as a check."""
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
        """Return the answer to a request and its body, without our key: what is said goes into dead letters.

        The transport is asked without httpx's client around it: that follows redirects, keeps cookies and looks into
        the environment, none of which is wanted, and takes 100 us for each request.
        """
        headers = {**self._headers, "X-Api-Key": (key := self._api_key())}
        if content is not None:
            headers |= {"Content-Type": "application/json", "Content-Length": str(sum(map(len, content)))}
        # Said to be ASCII, as all of it is, headers are not decoded by trial at every look at them.
        request = httpx.Request(
            method,
            self._url(path),
            headers=httpx.Headers(headers, encoding="ascii"),
            stream=Pieces(content or []),
            extensions={"before_write": before_write},
        )
        async with asyncio.timeout(self._total_secs):
            response = await self._transport.handle_async_request(request)
        # As it came: a compressed one, which we did not ask for, is never inflated. Not by way of the response, which
        # takes 5 us to hand out what is here already.
        assert isinstance(response.stream, Pieces)
        body = b"".join(response.stream.pieces)
        return response, body.replace(key.encode(), HIDDEN.encode()) if len(key) >= _SECRET_CHARS else body

    def _url(self, path: str) -> httpx.URL:
        if path not in self._urls:
            self._urls[path] = self._base.join(path)
        return self._urls[path]


def _trouble(error: BaseException, *, written: bool) -> Reply:
    """Tell a transport failure as a reply; texts are ours or the library's and never hold a header."""
    text = f"{type(error).__name__}: {error}"[:300].rstrip(": ")
    tls = _tls_error(error)
    if written and not (tls and _refuses_us(tls)):
        timeout = isinstance(error, TimeoutError | httpx.TimeoutException)
        return Reply("lost", trouble="timeout" if timeout else "reset", text=text)
    if tls:
        return Reply("not_sent", trouble="tls", text=text)
    if isinstance(error, TunnelRefusedError) and error.status == _PROXY_WANTS_CREDENTIALS:
        return Reply("answered", status=error.status, text=text, foreign=True)  # as where it hands requests on
    if isinstance(error, TimeoutError | httpx.ConnectTimeout):
        return Reply("not_sent", trouble="connect_timeout", text=text)
    if isinstance(error, httpx.ProxyError):
        return Reply("not_sent", trouble="proxy", text=text)
    return Reply("not_sent", trouble="connect", text=text)


def _refuses_us(error: ssl.SSLError) -> bool:
    """Tell whether the server ended the handshake for want of a certificate of ours that it likes.

    With TLS 1.3 we hear of it when the request is written already, but a server reads nothing before it knows us.
    """
    reason = error.reason or ""
    return "ALERT" in reason and any(part in reason for part in ("CERTIFICATE", "UNKNOWN_CA", "ACCESS_DENIED"))


def _tls_error(error: BaseException | None) -> ssl.SSLError | None:
    """Return the failure of TLS that caused an error, if one did."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, ssl.SSLError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
