"""A simulator in a thread of its own, and a handle to it for all other threads."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, TypeVar

from connector.simulator.faults import Faults
from connector.simulator.ledger import Entry, Ledger, LedgerTotals

if TYPE_CHECKING:  # the server makes the thread, and the thread runs the server
    from connector.simulator.server import Simulator

_T = TypeVar("_T")


class SimulatorThread:
    """A simulator in a thread of its own, for all other threads: the same questions and changes, each answered."""

    def __init__(
        self,
        running: Callable[[], AbstractAsyncContextManager["Simulator"]],
        loop_factory: Callable[[], asyncio.AbstractEventLoop],
    ) -> None:
        self._running = running
        self._loop_factory = loop_factory
        self._ready: concurrent.futures.Future[tuple[Simulator, asyncio.AbstractEventLoop, asyncio.Event]] = (
            concurrent.futures.Future()
        )
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)

    def start(self) -> None:
        """Return when the port is open. Raises what `Simulator.running` raises."""
        self._thread.start()
        self._ready.result()

    def stop(self) -> None:
        """Return when everything is closed."""
        _simulator, loop, stopping = self._ready.result()
        loop.call_soon_threadsafe(stopping.set)
        self._thread.join()

    @property
    def url(self) -> str:
        """The base URL of the API, as a client is given it."""
        return self._simulator.url

    @property
    def control_url(self) -> str:
        """The URL below which the control API stands."""
        return self._simulator.control_url

    @property
    def crashes(self) -> list[str]:
        """Where the simulator itself failed, without being asked to."""
        return self._simulator.crashes

    def ledger(self) -> LedgerTotals:
        """Return the ledger's sums."""
        return self._ask(Ledger.totals)

    def accepted(self, identity: str, operation: str | None = None) -> int:
        """Return how often the record of that identity was accepted."""
        return self._ask(lambda ledger: ledger.accepted(identity, operation))

    def entries(self, operation: str | None = None) -> list[Entry]:
        """Return all identities with how often each was accepted."""
        return self._ask(lambda ledger: list(ledger.entries(operation)))

    def set_faults(self, faults: Faults) -> None:
        """Put other faults in place of the standing ones, and wait until the port follows."""
        self._wait(self._simulator.set_faults(faults))

    @property
    def _simulator(self) -> "Simulator":
        return self._ready.result()[0]

    def _ask(self, question: Callable[[Ledger], _T]) -> _T:
        async def ask() -> _T:
            return question(self._simulator.behaviour.ledger)

        return self._wait(ask())

    def _wait(self, work: Coroutine[None, None, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._ready.result()[1]).result()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=self._loop_factory) as runner:
                runner.run(self._serve())
        except BaseException as error:
            if self._ready.done():
                raise
            self._ready.set_exception(error)

    async def _serve(self) -> None:
        stopping = asyncio.Event()
        async with self._running() as simulator:
            self._ready.set_result((simulator, asyncio.get_running_loop(), stopping))
            await stopping.wait()


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of uvloop where there is one, else of asyncio."""
    try:
        import uvloop  # noqa: PLC0415  # not on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
