"""A TCP proxy that can be told to cut, or to fall silent: the network between one worker and the broker.

And one that understands a little of what it passes on: answers in which a broker names topics but no brokers, as those
give that come up again.
"""

import asyncio
import contextlib
import struct
import threading
from typing import Literal, Self

HOST = "127.0.0.1"
CHUNK = 1 << 16

Trouble = Literal["reset", "silence"]

_End = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Listens from the start on, and forwards to `target` once that is set. All methods may be called by any thread.

    `reset`: connections are torn down, new ones refused at once. `silence`: connections stay, new ones are taken, and
    no byte passes in either direction until the trouble is over; what was sent meanwhile arrives then.
    """

    def __init__(self) -> None:
        self.target = 0
        self._trouble: Trouble | None = None
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self.port: int = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> str:
        """Where clients find it: `host:port`."""
        return f"{HOST}:{self.port}"

    def trouble(self, trouble: Trouble | None) -> None:
        """Begin a trouble, or end it."""
        self._loop.call_soon_threadsafe(self._set, trouble)

    def _set(self, trouble: Trouble | None) -> None:
        self._trouble = trouble
        if trouble == "silence":
            self._flowing.clear()
        else:
            self._flowing.set()
        if trouble == "reset":
            for writer in self._writers:
                writer.transport.abort()

    async def _listen(self) -> int:
        self._flowing.set()
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _close(self) -> None:
        self._server.close()
        self._set("reset")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            if self._trouble == "reset" or not self.target:
                return
            await self._flowing.wait()
            onward, back = await asyncio.open_connection(HOST, self.target)
            self._writers.add(back)
            try:
                await self._join((reader, writer), (onward, back))
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except OSError:
            pass  # an end that is gone is gone for the other one as well
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _join(self, client: _End, broker: _End) -> None:
        """Pass on what each end says until both have ended."""
        await asyncio.gather(self._forward(client[0], broker[1]), self._forward(broker[0], client[1]))

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()  # what was read before the end still arrives


class NamelessProxy(Proxy):
    """While `nameless` is set, answers about topics name no brokers."""

    def __init__(self) -> None:
        self.nameless = False
        super().__init__()

    async def _join(self, client: _End, broker: _End) -> None:
        asked: dict[int, int] = {}
        await asyncio.gather(self._ask(client[0], broker[1], asked), self._answer(broker[0], client[1], asked))

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[int, int]) -> None:
        """Pass requests on, and remember the versions of those for metadata by their number."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(reader)
                api, version, number = struct.unpack_from(">hhi", frame)
                if api == _METADATA:
                    asked[number] = version
                await _pass_on(frame, writer)
        writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: dict[int, int]) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                frame = await _frame(reader)
                version = asked.pop(int.from_bytes(frame[:4]), None)
                if version is not None and self.nameless:
                    assert version >= _FLEXIBLE
                    frame = _without_brokers(frame)
                await _pass_on(frame, writer)
        writer.close()


_METADATA = 3
_FLEXIBLE = 9
"""The version of metadata since which lengths are varints."""


async def _frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(int.from_bytes(await reader.readexactly(4)))


async def _pass_on(frame: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(len(frame).to_bytes(4) + frame)
    await writer.drain()


def _without_brokers(frame: bytes) -> bytes:
    """Return a metadata response (version 9 and later) with an empty array of brokers.

    Correlation id (4 bytes), no tags (1), throttle time (4), then the brokers: their count and one; of each node id
    (4), host, port (4), rack, tags.
    """
    start = at = 9
    count, at = _varint(frame, at)
    for _ in range(count - 1):
        for skipped in (4, 4):  # host and rack, each behind a number
            length, at = _varint(frame, at + skipped)
            at += max(length - 1, 0)
        tags, at = _varint(frame, at)
        assert tags == 0
    return frame[:start] + b"\x01" + frame[at:]


def _varint(frame: bytes, at: int) -> tuple[int, int]:
    """Return an unsigned varint and where it ends."""
    value = shift = 0
    while True:
        byte = frame[at]
        value, at, shift = value | (byte & 0x7F) << shift, at + 1, shift + 7
        if byte < 0x80:
            return value, at
