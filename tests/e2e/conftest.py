"""Fixtures of the end-to-end tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connector.demo.broker import Broker
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Topics
from connector.simulator import SimulatorSettings, SimulatorThread
from tests.conftest import MakeBroker
from tests.kit.world import KEY, World

IMPATIENT = {
    # With the newer protocol sessions are the broker's, 45 s by its default.
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    "group.consumer.heartbeat.interval.ms": "1000",
    # A transaction that was left open ends when its time is over, and not up to 10 s later.
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "1000",
}


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


@pytest.fixture(scope="module")
def _impatient_broker(make_lasting_broker: MakeBroker) -> Broker:
    return make_lasting_broker(IMPATIENT)


@pytest.fixture
def shaken_broker(_impatient_broker: Broker) -> Iterator[Broker]:
    """Lend a broker that the tests of a module stop, kill and pause in turn; it is put right for the next one."""
    yield _impatient_broker
    _impatient_broker.resume()
    if _impatient_broker.pid is None:
        _impatient_broker.restart()
