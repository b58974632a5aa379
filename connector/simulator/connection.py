"""One client connection: HTTP/1.1 read with httptools, requests answered one after the other, in order.

A request costs a few small calls, none of them per record, since the simulator is the far end of speed measurements.
Bodies are read completely even if they are too long, so that the client gets its 413 instead of a reset during a write.
"""

import asyncio
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, assert_never, cast

import httptools

from connector.simulator.http import Manner, Reaction, Request, json_reply

if TYPE_CHECKING:  # the server makes connections, and a connection asks the server
    from connector.simulator.server import Simulator

MAX_HEAD_BYTES: Final = 65_536  # beyond the read that a head began in
MAX_READ_BYTES: Final = 256_000_000  # of a body that is thrown away; then the connection is dropped
MAX_WAITING: Final = 16  # pipelined requests, above which nothing is read
DRIP_PIECES: Final = 10
_LINGER_NONE: Final = struct.pack("ii", 1, 0)  # closing such a socket resets the connection


class Connection(asyncio.Protocol):
    """Reads, waits, writes. At most one request is being answered: `_request`."""

    def __init__(self, host: "Simulator", loop: asyncio.AbstractEventLoop) -> None:
        self._host = host
        self._loop = loop
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._last_active = host.now()
        self._closing = False
        # the request that is being read
        self._in_head = False
        self._head_bytes = 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        # the one that is being answered, and those that wait
        self._request: Request | None = None
        self._waiting: deque[Request] = deque()
        self._slow: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        self._writable.set()

    # From asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)
        self._host.connections.add(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Drop what is being answered."""
        self._closing = True
        self._host.connections.discard(self)
        self._waiting.clear()
        if self._slow is not None:
            self._slow.cancel()
        if self._request is not None:
            request, self._request = self._request, None
            self._host.done(request)
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Feed the parser, which calls the methods below."""
        if self._closing:
            return
        self._last_active = self._host.now()
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._refuse(400, "Malformed request")
            return
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(431, "Headers are too large")

    def pause_writing(self) -> None:
        """Pause a long answer: the client reads too slowly."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Continue it."""
        self._writable.set()

    # From httptools.

    def on_message_begin(self) -> None:
        """Forget the last request."""
        self._in_head = True
        self._head_bytes = 0
        self._url = b""
        self._headers = {}
        self._body = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Collect the URL, which comes in pieces when reads split it."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Drop the connection if an outage requires it; otherwise wait for the body."""
        self._in_head = False
        if self._closing:
            return
        if self._host.hangs_up(self._path()):
            self.drop()
        elif self._headers.get(b"expect", b"").lower() == b"100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body, unless it is already too long."""
        self._body_bytes += len(body)
        if self._body_bytes <= self._host.max_body_bytes:
            self._body.append(body)
        elif self._body:
            self._body = []
        elif self._body_bytes > MAX_READ_BYTES:
            self.drop()

    def on_message_complete(self) -> None:
        """Queue the request."""
        if self._closing:
            return
        headers = self._headers
        self._waiting.append(
            Request(
                method=self._parser.get_method().decode("ascii"),
                path=self._path(),
                query=self._url.partition(b"?")[2].decode("latin-1"),
                api_key=_text(headers.get(b"x-api-key")),
                content_type=_text(headers.get(b"content-type")),
                body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
                body_bytes=self._body_bytes,
                keep_alive=self._parser.should_keep_alive(),
            )
        )
        self._body = []
        self._answer_waiting()
        if len(self._waiting) > MAX_WAITING and self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    # From the server.

    def drop(self) -> None:
        """Close immediately, whatever is being answered."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()

    def close_if_idle(self, *, before: float) -> bool:
        """Close the connection if it is idle and nothing arrived since `before`; return whether it was closed."""
        is_idle = self._request is None and self._last_active <= before
        if is_idle:
            self._close()
        return is_idle

    # Answering.

    def _path(self) -> str:
        return self._url.partition(b"?")[0].decode("latin-1")

    def _answer_waiting(self) -> None:
        """Answer requests until one is not answered immediately."""
        while self._waiting and self._request is None and self._transport is not None and not self._closing:
            request = self._request = self._waiting.popleft()
            reaction = self._host.react(request)
            reply = reaction.reply
            if reaction.manner is Manner.WHOLE and reaction.delay_secs <= 0 and reply.pieces is None:
                self._transport.write(reply.head(keep_alive=request.keep_alive) + reply.body)
                self._finish(request)
            else:
                self._slow = self._loop.create_task(self._answer_slowly(self._transport, request, reaction))

    async def _answer_slowly(self, transport: asyncio.Transport, request: Request, reaction: Reaction) -> None:
        """Send a slow or partial answer, then continue with waiting requests; cancelled with the connection."""
        await asyncio.sleep(reaction.delay_secs)
        if self._closing:
            return
        reply = reaction.reply
        head, body = reply.head(keep_alive=request.keep_alive), reply.body
        match reaction.manner:
            case Manner.WHOLE if reply.pieces is not None:
                transport.write(head)
                for piece in reply.pieces:
                    transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    await asyncio.sleep(0)  # give others a turn
                    await self._writable.wait()
                transport.write(b"0\r\n\r\n")
            case Manner.WHOLE:
                transport.write(head + body)
            case Manner.DRIP:
                transport.write(head)
                size = max(1, -(-len(body) // DRIP_PIECES))
                for at in range(0, len(body), size):
                    transport.write(body[at : at + size])
                    await asyncio.sleep(reaction.drip_secs / DRIP_PIECES)
            case Manner.CUT | Manner.CLOSE:
                if reaction.manner is Manner.CUT:
                    transport.write(head + body[: len(body) // 2])
                self._close(reset=reaction.reset)
                return
            case Manner.STALL:
                return
            case _:
                assert_never(reaction.manner)
        self._finish(request)
        self._answer_waiting()
        if not self._closing and len(self._waiting) <= MAX_WAITING and not transport.is_reading():
            transport.resume_reading()

    def _finish(self, request: Request) -> None:
        self._request = None
        self._last_active = self._host.now()
        self._host.done(request)
        if not request.keep_alive:
            self._close()

    def _refuse(self, status: int, text: str) -> None:
        """Answer what is not a request, and close."""
        if self._transport is not None and self._request is None:
            reply = json_reply(status, {"error": text})
            self._transport.write(reply.head(keep_alive=False) + reply.body)
        self._close()

    def _close(self, *, reset: bool = False) -> None:
        self._closing = True
        if self._transport is None:
            return
        if reset:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NONE)
            self._transport.abort()
        else:
            self._transport.close()


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
