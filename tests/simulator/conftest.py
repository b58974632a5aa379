"""A simulator with a client for each test that asks."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from connector.simulator import Faults, SimulatorSettings, SimulatorThread
from tests.kit.local import NO_TLS
from tests.kit.patience import PATIENCE_SECS

KEY = "trk_0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Served:
    """A running simulator, and a client that has its URL and a key."""

    simulator: SimulatorThread
    client: httpx.Client

    def send(self, *bodies: str, to: str = "+15550000001", **fields: Any) -> httpx.Response:
        """Post messages with these bodies."""
        messages = [{"to": to, "list_number": "+18005551234", "body": body, **fields} for body in bodies]
        return self.client.post("/send/bulk", json={"messages": messages})

    def control(self, method: str, path: str, **rest: Any) -> httpx.Response:
        """Ask the control API, on a connection of its own."""
        return httpx.request(method, f"{self.simulator.control_url}{path}", trust_env=False, verify=NO_TLS, **rest)


Serve = Callable[..., Served]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that starts a simulator with these settings and ends it with the test."""
    with ExitStack() as stack:

        def start(*, faults: Faults | None = None, loop_factory: Any = None, **settings: Any) -> Served:
            given = SimulatorSettings.model_validate({**settings, "faults": faults or Faults()})
            simulator = stack.enter_context(SimulatorThread(given, loop_factory=loop_factory))
            client = httpx.Client(
                base_url=simulator.url, headers={"X-Api-Key": KEY}, timeout=PATIENCE_SECS, trust_env=False, verify=False
            )
            return Served(simulator, stack.enter_context(client))

        yield start


@pytest.fixture
def served(serve: Serve) -> Served:
    """Return a simulator as it is without settings."""
    return serve()
