"""A server that a test scripts byte by byte, a client that posts to it, and what each of them saw."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from pydantic import SecretStr

from connector.config.certificates import TlsSettings
from connector.config.trackly import TimeoutSettings, TracklySettings
from connector.core.batching import Batch
from connector.core.chunks import Chunk, Partition
from connector.core.verdicts import Reply
from connector.trackly.client import Client
from connector.trackly.operations import Operation, Rules
from tests.kit.patience import PATIENCE_SECS

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
T = TypeVar("T")

VALUE: Final = b'{"to":"+15550000001","body":"x"}'
OK: Final = b'{"queued_count":1,"error_count":0,"errors":[]}'


def settings(
    *, connect_secs: float = 5.0, total_secs: float = PATIENCE_SECS, idle_secs: float = 4.0, **given: Any
) -> TracklySettings:
    """Return the settings of a client; those of TLS are given by their own names."""
    tls = {name: given.pop(name) for name in TlsSettings.model_fields if name in given}
    return TracklySettings(
        api_key=SecretStr("key"),
        timeouts=TimeoutSettings(connect_secs=connect_secs, total_secs=total_secs),
        idle_connection_secs=idle_secs,
        tls=TlsSettings(**tls),
        **{"max_reply_bytes": 100_000, **given},
    )


def batch(value: bytes = VALUE) -> Batch:
    """Return a batch of one record."""
    chunk = Chunk(Partition("t", 0), 1, range(1), [value], wire=[value])
    return Batch("b", None, (chunk,), 1, len(value), "count")


def whole(body: bytes, *, status: bytes = b"200 OK", headers: bytes = b"") -> bytes:
    """Return a reply of a known length."""
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), headers, body)


async def read_request(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the head and the body of a request."""
    head = await reader.readuntil(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
    return head, await reader.readexactly(int(lengths[0]) if lengths else 0)


def answer(*parts: bytes, raw: bool = False) -> Handler:
    """Answer each request of a connection with these parts; `raw` ones are the last of theirs."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await read_request(reader)
            for part in parts:
                writer.write(part if raw else whole(part))
            await writer.drain()
            if raw:
                return

    return handle


@dataclass
class Served:
    """A server under test: where it listens, and its connections in the order they came."""

    port: int = 0
    connections: list[asyncio.StreamWriter] = field(default_factory=list)
    ended: list[asyncio.StreamWriter] = field(default_factory=list)
    complaints: list[dict[str, Any]] = field(default_factory=list)
    """What the event loop had to complain about: exceptions that nobody caught."""


@asynccontextmanager
async def serving(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    """Serve on a port of its own while the block runs."""
    served = Served()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            await handler(reader, writer)
        writer.close()
        served.ended.append(writer)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    served.port = server.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        server.close()
        for writer in served.connections:
            writer.transport.abort()


def talk(
    handler: Handler,
    use: Callable[[Client, Served], Awaitable[T]],
    *,
    tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1",
    as_proxy: bool = False,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
    **options: Any,
) -> T:
    """Serve with `handler`, have `use` talk to it, or through it, by a client, and return what that returned."""

    async def go() -> T:
        async with serving(handler, tls) as served:
            complaints = served.complaints
            asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
            address = f"{host}:{served.port}"
            given = {
                "base_url": f"https://{address}" if tls else f"http://{address}",
                "proxy": f"http://{address}" if as_proxy else None,
                **options,
            }
            client = Client(settings(**given), lambda: "key")
            try:
                async with asyncio.timeout(2 * PATIENCE_SECS):
                    return await use(client, served)
            finally:
                await client.close()

    async def goodbye() -> T:
        try:
            return await go()
        finally:
            await asyncio.sleep(0.02)  # closed transports need some turns of the loop

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(goodbye())


async def send(client: Client, value: bytes = VALUE, *, before: float = float("inf")) -> Reply:
    """Post one record."""
    return await client.post(Operation("send", Rules()), batch(value), before=before)


def post(handler: Handler, **options: Any) -> Reply:
    """Post one record to a server and return what came of it; nothing may have been left uncaught."""

    async def use(client: Client, served: Served) -> Reply:
        reply = await send(client)
        assert not served.complaints, served.complaints
        return reply

    return talk(handler, use, **options)


async def until(seen: Callable[[], object]) -> None:
    """Let the loop turn until something is so."""
    async with asyncio.timeout(PATIENCE_SECS):
        while not seen():  # noqa: ASYNC110 (what is waited for happens in transports, which set no event)
            await asyncio.sleep(0.002)
