"""The transport under httpx: HTTP/1.1 over asyncio, one request at a time per connection, with or without a proxy.

It guarantees what must be known exactly: whether any byte of a request was written when something failed, that an idle
connection is never used after the platform may have closed it, and that no reply is taken for that of another request.
It is also several times cheaper than httpx's own transport, whose pool checks every connection for every request.
Responses are parsed by httptools.

Failures are raised as httpx's exceptions; `ConnectError` and `ConnectTimeout` mean that nothing was written.
"""

import asyncio
import base64
import fcntl
import os
import select
import socket
import ssl
import termios
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import httptools
import httpx

from connector.clock import awake

MAX_HEADER_BYTES = 65_536
"""Limit for a reply's headers, and for anything else in it that is not body (reason, trailer, chunk framing), if they
come in more than one read; a read is at most 256 KiB, by the event loop."""

BeforeWrite = Callable[[], None]
"""Called just before the first byte is written; an exception stops the request."""


class ReplyTooLargeError(Exception):
    """The reply is larger than `max_reply_bytes`; `status` is its HTTP status."""

    def __init__(self, status: int) -> None:
        super().__init__("the reply is too large")
        self.status = status


class TunnelRefusedError(httpx.ProxyError):
    """The proxy does not forward to the platform, so nothing was written to that; `status` is the proxy's answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"the proxy refuses a tunnel with HTTP {status}")
        self.status = status


READ_AHEAD_BYTES: Final = 65_536
"""What a server has read of a request, at least, before it can have rejected it."""


@dataclass(slots=True)
class _Reply:
    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytearray = field(default_factory=bytearray)
    """One buffer: with a few bytes per chunk, separate objects would take thirty times as much."""


class _Connection(asyncio.Protocol):
    """One connection; `done` is the future of the awaited reply, if any."""

    def __init__(self, max_reply_bytes: int) -> None:
        self._max = max_reply_bytes
        self.transport: asyncio.Transport | None = None
        self.done: asyncio.Future[_Reply] | None = None
        self.closed = False
        self.idle_since = 0.0
        self._parser: Any = None
        self._reply = _Reply()
        self._is_long = False
        """Whether the request may be answered before it was read completely."""
        self._asks_for_tunnel = False
        self._unheard = 0
        """Bytes since the parser last reported a head or a part of a body; it buffers what it has not reported."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def exchange(self, request: list[bytes], *, asks_for_tunnel: bool = False) -> "asyncio.Future[_Reply]":
        """Write a request and return the future of its reply; if a tunnel is requested, of the head only."""
        assert self.transport is not None
        self._asks_for_tunnel = asks_for_tunnel
        self._parser = httptools.HttpResponseParser(self)
        self._unheard = 0
        self.done = asyncio.get_running_loop().create_future()
        self._is_long = sum(map(len, request)) > READ_AHEAD_BYTES
        self.transport.writelines(request)
        return self.done

    def data_received(self, data: bytes) -> None:
        if self.done is None or self.done.done():
            self.abort()  # not requested: the next request must not take it for its reply
            return
        self._unheard += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(httpx.RemoteProtocolError(f"not HTTP: {error}"))
        if self._unheard > MAX_HEADER_BYTES:
            self._fail(httpx.RemoteProtocolError("a part of the reply that is no body is too large"))

    def eof_received(self) -> None:
        self.closed = True
        reply = self._reply
        named = {name.lower() for name, _ in reply.headers}
        if reply.status and not named & {b"content-length", b"transfer-encoding"}:
            self._finish()  # a reply without a length ends with the connection

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        error = httpx.ReadError(f"connection lost: {exc}" if exc else "connection closed before the reply's end")
        error.__cause__ = exc
        self._fail(error)

    def is_silent(self) -> bool:
        """Return whether the kernel has nothing for us, neither data nor EOF; the event loop may not know yet."""
        if self.transport is None or self.transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return not poll.poll(0)

    def has_ended(self) -> bool:
        """Return whether it is unusable, or was closed by the other side without any data, according to the kernel."""
        if self.closed or self.transport is None or self.transport.is_closing():
            return True
        descriptor = self.transport.get_extra_info("socket").fileno()
        poll = select.poll()
        poll.register(descriptor, select.POLLRDHUP)
        if not poll.poll(0):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as same:
            try:
                return not same.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            except OSError:
                return True

    def _is_ahead(self) -> bool:
        """Return whether the kernel has unsent or unacknowledged bytes: the other side lacks part of the request."""
        assert self.transport is not None
        if self.transport.get_write_buffer_size():
            return True
        descriptor = self.transport.get_extra_info("socket").fileno()
        return any(fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))

    def abort(self) -> None:
        """Close immediately."""
        self.closed = True
        if self.transport is not None:
            self.transport.abort()

    def _fail(self, error: Exception) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(error)
        self.abort()

    def _finish(self) -> None:
        reply, self._reply = self._reply, _Reply()  # later data must not be added to it
        if self.done is not None and not self.done.done():
            self.done.set_result(reply)

    # callbacks of the parser

    def on_message_begin(self) -> None:
        if self.done is not None and self.done.done():
            self.abort()  # a second reply to one request: the next one could be anybody's

    def on_header(self, name: bytes, value: bytes) -> None:
        self._reply.headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._reply.status = self._parser.get_status_code()
        self._unheard = 0
        if self._asks_for_tunnel and self._reply.status >= 200:
            self._parser = None  # what follows is not HTTP
            self._finish()
        elif 200 <= self._reply.status < 300 and self._is_ahead():
            # A rejection may be early, but accepting records requires reading them: this is a second reply to an
            # earlier request.
            self._fail(httpx.RemoteProtocolError("the reply was there before the request"))

    def on_body(self, part: bytes) -> None:
        if self._parser is None:
            self.abort()  # in a tunnel, the client sends first
            return
        self._reply.body += part
        self._unheard = 0
        if len(self._reply.body) > self._max:
            self._fail(ReplyTooLargeError(self._reply.status))

    def on_message_complete(self) -> None:
        if self._parser is None:
            return
        if 100 <= self._reply.status < 200:
            self._reply = _Reply()
            return
        assert self.transport is not None
        # A server may reject a request before it has read it completely; the rest would precede the next request. What
        # TLS has encrypted and not sent yet is not included in the buffer's size.
        unread = bool(self.transport.get_write_buffer_size()) or (self._is_long and self._reply.status >= 300)
        keep = self._parser.should_keep_alive() and not unread
        self._finish()
        if not keep:
            self.abort()


class ExactTransport(httpx.AsyncBaseTransport):
    """A pool of connections to one origin, or to a proxy that forwards requests, or tunnels, to it.

    `request.extensions["before_write"]` is called just before the first byte of a request is written. A request for a
    tunnel does not count: it contains only the origin's host.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext,
        idle_secs: float,
        connect_secs: float,
        max_reply_bytes: int,
        proxy: str | None = None,
    ) -> None:
        self._tls = tls
        self._proxy = None if proxy is None else httpx.Proxy(proxy)
        self._proxy_tls = ssl.create_default_context() if proxy and proxy.startswith("https") else None
        self._credentials = b""
        """The proxy's credentials as a header line, if there are any."""
        if self._proxy is not None and self._proxy.raw_auth is not None:
            self._credentials = b"Proxy-Authorization: Basic %s\r\n" % base64.b64encode(b":".join(self._proxy.raw_auth))
        self._idle_secs = idle_secs
        self._connect_secs = connect_secs
        self._max_reply_bytes = max_reply_bytes
        self._idle: deque[_Connection] = deque()
        self._busy: set[_Connection] = set()
        self._lookups: dict[tuple[str, int], asyncio.Task[list[Any]]] = {}
        """Questions for the addresses of a host that are not answered yet."""
        self._failing: set[Any] = set()
        """Addresses of the host that could not be connected to; others are tried first."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request whose stream is `Pieces`, and return its reply, completely read."""
        connection = self._take_idle() or await self._connect(request.url)
        before_write: BeforeWrite | None = request.extensions.get("before_write")
        if before_write is not None:
            try:
                before_write()
            except BaseException:
                # If connecting took too long for this request, the next one can use the connection.
                self._keep(connection)
                raise
        self._busy.add(connection)
        try:
            assert isinstance(request.stream, Pieces)
            reply = await connection.exchange([self._head(request), *request.stream.pieces])
        except BaseException:
            connection.abort()
            raise
        finally:
            self._busy.discard(connection)
        self._keep(connection)
        return httpx.Response(reply.status, headers=reply.headers, content=None, stream=Pieces([bytes(reply.body)]))

    def _keep(self, connection: _Connection) -> None:
        """Keep a connection for another request."""
        if not connection.closed:
            connection.idle_since = awake()
            self._idle.append(connection)

    def _take_idle(self) -> _Connection | None:
        """Return the connection used last, if it is recent enough; close all that are not."""
        oldest = awake() - self._idle_secs  # time passes for the platform while we sleep
        while self._idle and (self._idle[0].closed or self._idle[0].idle_since < oldest):
            self._idle.popleft().abort()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.is_silent():
                return connection
            connection.abort()
        return None

    async def _connect(self, url: httpx.URL) -> _Connection:
        try:
            async with asyncio.timeout(self._connect_secs):
                if self._proxy is None:
                    connection = await self._open(url, self._tls)
                else:
                    connection = await self._open(self._proxy.url, self._proxy_tls)
                    if url.scheme == "https":
                        try:
                            await self._tunnel(connection, url)
                        except BaseException:
                            connection.abort()
                            raise
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"no connection within {self._connect_secs} s") from error
        except (OSError, UnicodeError) as error:  # UnicodeError: the host cannot be encoded as a name
            raise httpx.ConnectError(str(error)) from error
        if connection.has_ended():
            # For instance a load balancer without backends. A request written now would fail too, but count as lost,
            # not as not sent.
            connection.abort()
            raise httpx.ConnectError("the connection ended before the request was written")
        return connection

    async def _open(self, url: httpx.URL, tls: ssl.SSLContext | None) -> _Connection:
        secure = url.scheme == "https"
        host = _host(url)
        reached = await self._reach(host, url.port or (443 if secure else 80))
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self._max_reply_bytes),
            sock=reached,
            ssl=tls if secure else None,
            server_hostname=host if secure else None,
        )
        return connection

    async def _tunnel(self, connection: _Connection, url: httpx.URL) -> None:
        """Request a tunnel from the proxy, and start TLS with the other end."""
        target = url.netloc if url.port else url.netloc + b":443"
        head = b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n" % (target, target, self._credentials)
        reply = await connection.exchange([head], asks_for_tunnel=True)
        if not 200 <= reply.status < 300:
            raise TunnelRefusedError(reply.status)
        if connection.transport is None or connection.closed:
            raise httpx.ConnectError("the connection ended before the request was written")
        loop = asyncio.get_running_loop()
        secure = await loop.start_tls(connection.transport, connection, self._tls, server_hostname=_host(url))
        connection.transport = cast("asyncio.Transport", secure)

    def _head(self, request: httpx.Request) -> bytes:
        url, lines = request.url, [b"%s: %s" % (name, value) for name, value in request.headers.raw]
        target, told = url.raw_path, b""
        if self._proxy is not None and url.scheme == "http":
            target, told = b"http://%s%s" % (url.netloc, url.raw_path), self._credentials
        return b"%s %s HTTP/1.1\r\n%s%s\r\n\r\n" % (request.method.encode(), target, told, b"\r\n".join(lines))

    async def _reach(self, host: str, port: int) -> socket.socket:
        """Return a socket that is connected to an address of the host.

        Each address gets a share of the time, and those that failed come last: an address that never answers, such as
        IPv6 without a route, must not block the others.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._connect_secs
        found = list(await self._look_up(host, port))
        self._failing.intersection_update(address for *_, address in found)
        found.sort(key=lambda info: info[4] in self._failing)
        failure: OSError | None = None
        for tried, (family, kind, protocol, _, address) in enumerate(found):
            reached = socket.socket(family, kind, protocol)
            try:
                reached.setblocking(False)
                reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                async with asyncio.timeout((deadline - loop.time()) / (len(found) - tried)):
                    await loop.sock_connect(reached, address)
            except BaseException as error:
                reached.close()
                if not isinstance(error, OSError):
                    raise
                self._failing.add(address)
                failure = error
            else:
                self._failing.discard(address)
                return reached
        raise failure or OSError(f"{host} has no address")

    async def _look_up(self, host: str, port: int) -> list[Any]:
        """Return the addresses of a host; all who ask at the same time share one question, and none of them ends it.

        Few threads ask, each until it has its answer: behind a slow name server most questions would come too late.
        """
        asking = self._lookups.get((host, port))
        if asking is None:
            loop = asyncio.get_running_loop()
            asking = loop.create_task(loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            self._lookups[host, port] = asking
            asking.add_done_callback(lambda done: self._looked_up((host, port), done))
        return await asyncio.shield(asking)

    def _looked_up(self, target: tuple[str, int], done: asyncio.Task[list[Any]]) -> None:
        del self._lookups[target]
        if not done.cancelled():
            done.exception()  # nobody may be left to hear of it

    async def aclose(self) -> None:
        """Close every connection."""
        for connection in [*self._idle, *self._busy]:
            connection.abort()
        self._idle.clear()


class Pieces(httpx.AsyncByteStream):
    """A body that is in memory already, of a request or a reply; joining megabytes would copy them."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


def _host(url: httpx.URL) -> str:
    return url.raw_host.decode("ascii")  # as the request has it: Python's own encoding of names is older
