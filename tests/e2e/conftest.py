"""Fixtures of the end-to-end tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connector.demo.finding import BrokerHandle
from connector.demo.topics import Topics
from connector.simulator import SimulatorSettings, SimulatorThread
from tests.kit.world import KEY, World


@pytest.fixture
def platform(make_simulator: Callable[[SimulatorSettings], SimulatorThread]) -> SimulatorThread:
    """Run a platform that knows one key."""
    return make_simulator(SimulatorSettings(api_keys=(KEY,)))


@pytest.fixture
def world(broker: BrokerHandle, topics: Topics, platform: SimulatorThread, tmp_path: Path) -> Iterator[World]:
    """Make a world of the test's own; its connectors end with it."""
    made = World(broker.bootstrap_servers, topics, platform, tmp_path)
    yield made
    made.close()
