"""What came of a request is told exactly: certainly not sent, answered, or lost. Against real sockets."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from connector.core.batching import Batch
from connector.core.chunks import Chunk, Partition
from connector.core.verdicts import Reply
from connector.trackly.client import Client, ClientOptions, TooLateError
from connector.trackly.operations import Operation, Rules

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

VALUE = b'{"to":"+15550000001","body":"x"}'
OK = b'{"queued_count":1,"error_count":0,"errors":[]}'


def _batch() -> Batch:
    chunk = Chunk(Partition("t", 0), 1, range(1), [VALUE], wire=[VALUE])
    return Batch("b", None, (chunk,), 1, len(VALUE), "count")


def _whole(body: bytes, *, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


def _post(handler: Handler | None, *, total_secs: float = 2, before: float = float("inf")) -> Reply:
    """Post one record to a server of the test's own, or to a closed port, and return what came of it."""

    async def go() -> Reply:
        connections: list[asyncio.StreamWriter] = []

        async def served(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await (handler or _answer(OK))(reader, writer)
            writer.close()

        server = await asyncio.start_server(served, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        if handler is None:
            server.close()
            await server.wait_closed()
        options = ClientOptions(f"http://127.0.0.1:{port}", total_secs=total_secs, max_reply_bytes=100_000)
        client = Client(options, lambda: "key")
        try:
            return await client.post(Operation("send", Rules()), _batch(), before=before)
        finally:
            await client.close()
            server.close()
            for writer in connections:
                writer.transport.abort()
            await asyncio.sleep(0.05)

    return asyncio.run(go())


async def _read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return await reader.readexactly(length)


def _answer(*parts: bytes, raw: bool = False) -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_request(reader)
        for part in parts:
            writer.write(part if raw else _whole(part))
        await writer.drain()
        writer.close()

    return handle


def test_a_whole_answer_is_read() -> None:
    assert _post(_answer(OK)).ok


def test_a_closed_port_means_certainly_not_sent() -> None:
    reply = _post(None)

    assert (reply.kind, reply.trouble) == ("not_sent", "connect")


def test_a_connection_that_ends_without_an_answer_is_lost() -> None:
    assert _post(_answer(raw=True)).kind == "lost"


def test_an_answer_cut_in_its_body_is_lost() -> None:
    assert _post(_answer(_whole(OK)[:-5], raw=True)).kind == "lost"


def test_no_answer_in_time_is_lost() -> None:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_request(reader)
        await reader.read()
        writer.close()

    reply = _post(handle, total_secs=0.3)

    assert (reply.kind, reply.trouble) == ("lost", "timeout")


def test_what_is_not_http_is_lost() -> None:
    assert _post(_answer(b"SSH-2.0-OpenSSH\r\n", raw=True)).kind == "lost"


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" + _whole(OK),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(OK), OK),
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + OK,
    ],
)
def test_every_form_of_a_whole_answer_is_read(raw: bytes) -> None:
    assert _post(_answer(raw, raw=True)).unreadable is None


def test_an_answer_that_is_too_large_is_not_held() -> None:
    reply = _post(_answer(b"x" * 200_000))

    assert reply.unreadable == "the reply is too large"


def test_a_batch_that_comes_too_late_is_not_written() -> None:
    seen = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.read())
        writer.close()

    with pytest.raises(TooLateError):
        _post(handle, before=time.clock_gettime(time.CLOCK_BOOTTIME) - 1)

    assert not any(seen)
