"""What tests of several folders share: a real Kafka broker, brokers of their own, topics, and the platform's simulator.

A test that needs Kafka asks for `broker`, `topics` or `make_broker`, and is marked `broker` by that alone, so that
`-m "not broker"` runs all others. Where no broker can be had those tests are left out, and the end of the report says
which and why; with `--require-broker` they fail instead, as they should wherever a broker is expected to be there.
"""

import gc
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import chain, groupby
from pathlib import Path
from typing import Final, NoReturn, Protocol
from unittest import TestCase

import pytest
from hypothesis import HealthCheck, settings

from connector.demo.artifacts import BrokerUnavailableError, java, kafka_jars
from connector.demo.broker import SHORT_LIVED, Broker
from connector.demo.finding import BrokerHandle, find_broker
from connector.demo.topics import Topics
from connector.simulator import SimulatorSettings, SimulatorThread
from tests.kit.brokers import Listener, archive_classes, archive_of_classes, start_broker, start_cluster
from tests.kit.programs import LEFT_OUT
from tests.kit.registries import Apicurio, MakeRegistry, TinyRegistry

# A slow machine is no failure; all else stays as it is, on a runner of CI as well.
settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

_NEED_A_BROKER: Final = frozenset(
    {"apicurio", "broker", "kafka_by_java", "make_broker", "make_lasting_broker", "three_brokers", "topics"}
)
_REGISTRY: Final = frozenset({"apicurio"})
_LONG: Final = (
    frozenset({"three_brokers"}),
    frozenset({"kafka_by_java", "make_broker", "make_lasting_broker"}),
    _REGISTRY,
    _NEED_A_BROKER,
)
"""What makes tests long, the longest first."""
_NO_BROKER: Final = "no Kafka broker or schema registry can be had"


class MakeBroker(Protocol):
    """Starts a broker of the test's own; it ends with the test."""

    def __call__(
        self,
        properties: Mapping[str, str] | None = None,
        *,
        listeners: Sequence[Listener] = (),
        scram_users: Mapping[str, str] | None = None,
    ) -> Broker:
        """Return a new, empty broker with these properties over the defaults."""
        ...


MakeSimulator = Callable[[SimulatorSettings], SimulatorThread]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("kafka", "Kafka broker")
    group.addoption(
        "--bootstrap-servers",
        metavar="HOST:PORT",
        help="Use this Kafka cluster for the tests that share one, in place of one that the tests start.",
    )
    group.addoption(
        "--require-broker",
        action="store_true",
        help="Fail the tests that need a Kafka broker when none can be had, in place of leaving them out.",
    )


def pytest_configure() -> None:
    """Let bytecode be kept where the environment forbids it, as images do.

    Tests start hundreds of processes of the connector; each would compile it anew, for 0.4 s of CPU.
    """
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish() -> None:
    """Undo what commands that ran in this process have done to its collector: Hypothesis, at the end, asks who refers.

    It takes a generator that only frozen objects refer to for one that is about to go, and the run fails for that.
    """
    gc.unfreeze()


def pytest_itemcollected(item: pytest.Item) -> None:
    if _NEED_A_BROKER.intersection(getattr(item, "fixturenames", ())):
        item.add_marker(pytest.mark.broker)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers > 1:
        items[:] = _long_ones_first(items, workers)


def _long_ones_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return tests so that each process begins with its part of the long ones, the longest first.

    Each is given as many in a row, and takes from the end of what others have when it has none left: a long one there
    would be waited for by all. Those of a file stay together, as they may share what takes long to start, and so do all
    that need the schema registry.
    """
    shares: list[list[pytest.Item]] = [[] for _ in range(workers)]
    short: list[pytest.Item] = []
    for (rank, _), group in groupby(sorted(items, key=_rank), _together):
        (short if rank == len(_LONG) else min(shares, key=len)).extend(group)
    for number, share in enumerate(shares):
        size = max(0, (len(items) + number) // workers - len(share))
        share.extend(short[:size])
        del short[:size]
    return [*chain(*shares), *short]


def _together(item: pytest.Item) -> tuple[int, Path | None]:
    rank = _rank(item)
    return rank, item.path if rank != _LONG.index(_REGISTRY) else None


def _rank(item: pytest.Item) -> int:
    """Return the place of what a test needs among what makes tests long; a law of many steps is as long as any."""
    if issubclass(getattr(item, "cls", None) or object, TestCase):
        return len(_LONG) - 1
    needs = getattr(item, "fixturenames", ())
    return next((rank for rank, names in enumerate(_LONG) if names.intersection(needs)), len(_LONG))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out = {}
    for report in terminalreporter.getreports("skipped"):
        words = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""  # path, line, reason
        for want in (_NO_BROKER, LEFT_OUT):
            _, found, why = words.partition(f"{want}: ")
            if found:
                left_out[report.nodeid] = why
    if not left_out:
        return
    needed = "a Kafka broker, a schema registry or a program"
    terminalreporter.section(f"{len(left_out)} tests left out, since they need {needed}", yellow=True)
    for line in (*dict.fromkeys(left_out.values()), "Left out:", *(f"- {test}" for test in left_out)):
        terminalreporter.line(line)


def _give_up(config: pytest.Config, error: BrokerUnavailableError) -> NoReturn:
    if config.getoption("--require-broker"):
        pytest.fail(str(error), pytrace=False)
    pytest.skip(f"{_NO_BROKER}: {error}")


@pytest.fixture(scope="session")
def broker(request: pytest.FixtureRequest) -> Iterator[BrokerHandle]:
    """Share one Kafka broker among all tests: the given one, else one started for this run (Java and Maven, or Docker).

    Use `broker.bootstrap_servers`. Its topics and groups may be anybody's: take names from `topics`, change no
    settings of the broker, and never stop it; a test that does any of it takes `make_broker`.
    """
    try:
        # It lives for minutes and has little to do: measured, compiling it well costs more than it saves.
        handle = find_broker(request.config.getoption("--bootstrap-servers"), start=start_broker)
    except BrokerUnavailableError as error:
        _give_up(request.config, error)
    with handle:
        yield handle


@pytest.fixture(scope="session")
def kafka_by_java(request: pytest.FixtureRequest) -> None:
    """Leave out the tests that start brokers by ways of their own, where there is no Java or there are no jars."""
    try:
        java()
        kafka_jars()
    except BrokerUnavailableError as error:
        _give_up(request.config, error)


@pytest.fixture
def quick_java(kafka_by_java: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have brokers that the product starts be there as soon as those of the tests."""
    archive = archive_of_classes()
    archive_classes(archive)
    monkeypatch.setenv("JDK_JAVA_OPTIONS", " ".join([*SHORT_LIVED, f"-XX:SharedArchiveFile={archive}"]))


@pytest.fixture
def make_broker(request: pytest.FixtureRequest) -> Iterator[MakeBroker]:
    """Make brokers of the test's own, to be stopped, killed, paused, restarted or set up in other ways.

    `make_broker({"group.consumer.min.session.timeout.ms": "6000"})` takes about 4 s. Java alone can do this: the
    tests are left out where there is none, whatever `--bootstrap-servers` says.
    """
    with ExitStack() as brokers:
        yield _maker(request.config, brokers)


@pytest.fixture
def three_brokers(request: pytest.FixtureRequest) -> Iterator[list[Broker]]:
    """Start three brokers of the test's own that hold each other's replicas, so that any one of them may go."""
    try:
        nodes = start_cluster([(), (), ()])
    except BrokerUnavailableError as error:
        _give_up(request.config, error)
    yield nodes
    for node in nodes:
        node.close()


@pytest.fixture(scope="module")
def make_lasting_broker(request: pytest.FixtureRequest) -> Iterator[MakeBroker]:
    """Make brokers that are set up in other ways, and that the tests of a module share: none may harm them."""
    with ExitStack() as brokers:
        yield _maker(request.config, brokers)


def _maker(config: pytest.Config, brokers: ExitStack) -> MakeBroker:
    def make(
        properties: Mapping[str, str] | None = None,
        *,
        listeners: Sequence[Listener] = (),
        scram_users: Mapping[str, str] | None = None,
    ) -> Broker:
        try:
            started = start_broker(properties=properties, listeners=listeners, scram_users=scram_users)
        except BrokerUnavailableError as error:
            _give_up(config, error)
        return brokers.enter_context(started)

    return make


@pytest.fixture
def topics(broker: BrokerHandle) -> Iterator[Topics]:
    """Make topics on the shared broker, with names that no other test has.

    `topics.create(partitions=4)` returns a new topic's name, `topics.produce(topic, records)` the positions of the
    records, `topics.read(topic)` its messages as a `read_committed` reader sees them. On a given broker the topics
    are deleted after the test.
    """
    made = Topics(broker.bootstrap_servers)
    yield made
    if broker.kind == "given":
        made.delete_all()


@pytest.fixture(scope="session")
def apicurio(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apicurio]:
    """Share one schema registry among all tests, started for this run (Java and Maven); subjects must be one's own."""
    try:
        started = Apicurio.start(tmp_path_factory.mktemp("apicurio"))
    except BrokerUnavailableError as error:
        _give_up(request.config, error)
    yield started
    started.close()


@pytest.fixture
def make_registry() -> Iterator[MakeRegistry]:
    """Make schema registries that say and do what the test wants."""
    with ExitStack() as registries:
        yield lambda **settings: registries.enter_context(TinyRegistry(**settings))


@pytest.fixture
def make_simulator() -> Iterator[MakeSimulator]:
    """Make simulators of the platform, each in a thread of its own, with the settings that the test wants."""
    with ExitStack() as simulators:
        yield lambda settings: simulators.enter_context(SimulatorThread(settings))


@pytest.fixture
def simulator(make_simulator: MakeSimulator) -> SimulatorThread:
    """Run the platform in good health: any key, any list; `simulator.url` is its base URL, `entries()` its ledger."""
    return make_simulator(SimulatorSettings())
