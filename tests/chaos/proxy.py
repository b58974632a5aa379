"""A TCP proxy that can be told to cut, or to fall silent: the network between one worker and the broker."""

import asyncio
import contextlib
import threading
from typing import Literal, Self

HOST = "127.0.0.1"
CHUNK = 1 << 16

Trouble = Literal["reset", "silence"]


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
                await asyncio.gather(self._forward(reader, back), self._forward(onward, writer))
            finally:
                self._writers.discard(back)
                back.transport.abort()
        except OSError:
            pass  # an end that is gone is gone for the other one as well
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._flowing.wait()
                writer.write(data)
                await writer.drain()
        writer.close()  # what was read before the end still arrives
