"""A simulator in a thread of its own, and a handle to it for all other threads."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Self, TypeVar

import uvloop

from connector.simulator.faults import Faults
from connector.simulator.ledger import Entry, Ledger, LedgerTotals
from connector.simulator.server import Simulator
from connector.simulator.settings import SimulatorSettings

_T = TypeVar("_T")


class SimulatorThread:
    """A simulator in a thread of this process: `with SimulatorThread(settings) as simulator`.

    It runs on uvloop. Raises OSError at the beginning as `Simulator.running` does, and RuntimeError at the end if the
    simulator itself failed.
    """

    def __init__(
        self,
        settings: SimulatorSettings | None = None,
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop,
    ) -> None:
        self._settings = settings
        self._loop_factory = loop_factory
        self._ready: concurrent.futures.Future[tuple[Simulator, asyncio.AbstractEventLoop, asyncio.Event]] = (
            concurrent.futures.Future()
        )
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.result()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        simulator, loop, stopping = self._ready.result()
        loop.call_soon_threadsafe(stopping.set)
        self._thread.join()
        if kind is None and simulator.crashes:
            raise RuntimeError("the simulator failed:\n" + "\n".join(simulator.crashes))

    @property
    def url(self) -> str:
        """The base URL of the API for clients."""
        return self._simulator.url

    @property
    def control_url(self) -> str:
        """The URL of the control API."""
        return self._simulator.control_url

    def ledger(self) -> LedgerTotals:
        """Return the ledger's totals."""
        return self._ask(Ledger.totals)

    def accepted(self, identity: str, operation: str | None = None) -> int:
        """Return how often the record of that identity was accepted."""
        return self._ask(lambda ledger: ledger.accepted(identity, operation))

    def entries(self, operation: str | None = None) -> list[Entry]:
        """Return all identities with how often each was accepted."""
        return self._ask(lambda ledger: list(ledger.entries(operation)))

    def set_faults(self, faults: Faults) -> None:
        """Replace the standing faults, and wait until the port follows."""
        self._wait(self._simulator.set_faults(faults))

    @property
    def _simulator(self) -> Simulator:
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
        async with Simulator.running(self._settings) as simulator:
            self._ready.set_result((simulator, asyncio.get_running_loop(), stopping))
            await stopping.wait()
