"""The server around the behaviour: a port, its connections, and a clock."""

import asyncio
import errno
import logging
import math
import socket
import ssl
import time
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar

from connector.simulator.behaviour import Behaviour
from connector.simulator.connection import Connection
from connector.simulator.control import control, is_control
from connector.simulator.faults import Faults
from connector.simulator.http import Reaction, Request, json_reply
from connector.simulator.settings import BASE_PATH, CONTROL_PATH, SimulatorSettings

_T = TypeVar("_T")

_log = logging.getLogger(__name__)

BACKLOG: Final = 1_024
LOOK_SECS: Final = 1.0  # how often idle connections are looked for, at the least
SHUTDOWN_SECS: Final = 5.0
HANDSHAKES_SECS: Final = 0.1
CONTROL_BODY_BYTES: Final = 1_000_000  # kept of a body, however low the platform's own limit is set
CLOCK_SECS: Final = 0.001  # the shortest wait: a loop's clock may be early by so much
REBIND_SECS: Final = 0.01

_CRASHED: Final = json_reply(500, {"error": "The simulator failed", "code": "internal_error"})


class Simulator:
    """A simulator on the running loop: `async with Simulator.running(settings) as simulator`.

    The port stays bound while the simulator lives, even while an outage makes it refuse connections, so that nobody
    else can take it. It belongs to the loop's thread, and so does `behaviour` with the ledger; `SimulatorThread` is for
    all others.
    """

    def __init__(self, settings: SimulatorSettings, *, loop: asyncio.AbstractEventLoop) -> None:
        self.max_body_bytes = max(settings.switches.max_body_bytes, CONTROL_BODY_BYTES)
        self.connections: set[Connection] = set()
        self.crashes: list[str] = []
        self._settings = settings
        self._loop = loop
        self.behaviour = Behaviour(settings, now=loop.time())
        self._tls = _tls_context(settings)
        self._socket = _bound_socket(settings.host, settings.port)
        self._port: int = self._socket.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._aligning = asyncio.Lock()
        self._changed = asyncio.Event()

    @classmethod
    @asynccontextmanager
    async def running(cls, settings: SimulatorSettings | None = None) -> AsyncIterator["Simulator"]:
        """Serve while the context lasts.

        Raises OSError if the address is unavailable or the TLS files cannot be read (`ssl.SSLError` is one).
        """
        simulator = cls(settings or SimulatorSettings(), loop=asyncio.get_running_loop())
        try:
            await simulator.align()
            keeper = asyncio.create_task(simulator._keep(), name="simulator-keeper")
            try:
                yield simulator
            finally:
                keeper.cancel()
                with suppress(asyncio.CancelledError):
                    await keeper
        finally:
            await simulator._close()

    @property
    def url(self) -> str:
        """The base URL of the API for clients: `http://127.0.0.1:49152/api/v2`."""
        return f"{self._origin}{BASE_PATH}"

    @property
    def control_url(self) -> str:
        """The URL of the control API."""
        return f"{self._origin}{CONTROL_PATH}"

    @property
    def _origin(self) -> str:
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        return f"{'http' if self._tls is None else 'https'}://{host}:{self._port}"

    async def set_faults(self, faults: Faults) -> None:
        """Replace the standing faults, and wait until the port follows.

        Raises ValueError for faults that a fast simulator does not support.
        """
        self.behaviour.set_faults(faults, now=self.now())
        await self.align()
        self._changed.set()

    # For connections.

    def now(self) -> float:
        """Return the time of the loop's clock."""
        return self._loop.time()

    def hangs_up(self, path: str) -> bool:
        """Return whether the connection should be dropped before the request is read."""
        return not is_control(path) and self.behaviour.hangs_up(path, self.now())

    def react(self, request: Request) -> Reaction:
        """Decide about a request. Each call is followed by one of `done`."""
        now = self.now()
        if is_control(request.path):
            self._loop.call_soon(self._changed.set)  # after the reply is out: the change may close the port
            return Reaction(self._guarded(lambda: control(request, self.behaviour, now=now)) or _CRASHED)
        waited = not self.behaviour.timeline.started
        reaction = self._guarded(lambda: self.behaviour.react(request, now=now, wall_time=time.time()))
        if waited and self.behaviour.timeline.started:
            self._changed.set()
        return reaction or Reaction(_CRASHED)

    def done(self, request: Request) -> None:
        """Note that the request is answered, or that its connection is closed."""
        if not is_control(request.path):
            self.behaviour.ledger.end()

    # The port.

    async def align(self) -> None:
        """Open or close the port, as the active faults require."""
        async with self._aligning:
            if not self.behaviour.refuses(self.now()):
                if self._server is None:
                    self._server = await self._loop.create_server(
                        self._connect, sock=self._socket, ssl=self._tls, backlog=BACKLOG
                    )
            elif self._server is not None:
                self._server.close()
                self._server = None
                for connection in list(self.connections):
                    if not connection.close_if_idle(before=math.inf):
                        connection.drop()
                self._socket = await self._bound_again()

    def _connect(self) -> Connection:
        self.behaviour.ledger.connected()
        return Connection(self, self._loop)

    async def _bound_again(self) -> socket.socket:
        """Return a socket with our address that does not listen: connections to it are refused."""
        while True:
            try:
                return _bound_socket(self._settings.host, self._port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            await asyncio.sleep(REBIND_SECS)  # the loop has yet to close the socket that listened

    async def _keep(self) -> None:
        """Follow the script and the control API, and close idle connections."""
        while True:
            self._changed.clear()
            await self.align()
            now = self.now()
            idle_secs = self.behaviour.idle_secs(now)
            for connection in list(self.connections):
                connection.close_if_idle(before=now - idle_secs)
            deadline = self.behaviour.timeline.next_change(now)
            wait_secs = min(LOOK_SECS, idle_secs / 4, math.inf if deadline is None else deadline - now)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(wait_secs, CLOCK_SECS)):
                    await self._changed.wait()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.drop()
        with suppress(TimeoutError):
            async with asyncio.timeout(SHUTDOWN_SECS):
                while self.connections:  # noqa: ASYNC110  # they leave the set one by one, soon
                    await asyncio.sleep(CLOCK_SECS)
        if self._tls is not None:
            # Running handshakes are not reported, and uvloop cannot be closed while one fails because its client is
            # gone.
            await asyncio.sleep(HANDSHAKES_SECS)
        self._socket.close()

    def _guarded(self, decide: Callable[[], _T]) -> _T | None:
        """Return the decision, or None if the simulator itself fails: then note where, without any value."""
        try:
            return decide()
        except Exception as error:  # noqa: BLE001  # one request must not take the server down
            # An exception's message may contain a number or a text; its type and place do not.
            crash = "".join([type(error).__name__, "\n", *traceback.format_tb(error.__traceback__)])
            self.crashes.append(crash)
            _log.error("the simulator failed: %s", crash)
            return None


def _tls_context(settings: SimulatorSettings) -> ssl.SSLContext | None:
    if settings.tls_cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    return context


def _bound_socket(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to the address and does not listen yet.

    Raises OSError if the address is unknown or taken.
    """
    family, kind, protocol, _name, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setblocking(False)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound
