"""The broker for the demo and the tests: the first available one.

The order is: an address given by the user, Java with Maven, Docker, and, only for the demo, librdkafka's mock cluster.
A given address that does not answer ends the search: results of another broker would be misleading.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Self

from confluent_kafka import KafkaException, Producer

from connector.demo.artifacts import KAFKA_VERSION, BrokerUnavailableError
from connector.demo.broker import HOST, Broker, free_ports, single_node_properties, wait_until_ready
from connector.processes import spawn, stop, tail

Kind = Literal["given", "java", "docker", "mock"]

_GIVEN_TIMEOUT_SECS: Final = 15
_DOCKER_TIMEOUT_SECS: Final = 300  # the image may have to be fetched first
_DOCKER_ANSWER_SECS: Final = 20
_IMAGE: Final = f"apache/kafka:{KAFKA_VERSION}"
# The container ends when its stdin ends: so it ends with this process, even if that is killed.
_UNTIL_STDIN_ENDS: Final = "/etc/kafka/docker/run & cat >/dev/null; kill -TERM $!; wait"


@dataclass(slots=True)
class BrokerHandle:
    """A broker, and how to release it; use it as a context manager."""

    kind: Kind
    description: str
    bootstrap_servers: str
    skipped: Mapping[str, str] = field(default_factory=dict)
    """What would have been preferred, and why it was unavailable."""
    _resources: ExitStack = field(default_factory=ExitStack, repr=False)

    @property
    def is_transactional(self) -> bool:
        """Whether transactions are real; the mock cluster only pretends."""
        return self.kind != "mock"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Stop what was started for it; a given broker is left as it is."""
        self._resources.close()


def find_broker(
    given: str | None = None, *, allow_mock: bool = False, start: Callable[[], Broker] = Broker.start
) -> BrokerHandle:
    """Return the first available broker: given, Java with Maven, Docker, and the mock cluster if allowed.

    `start` starts one in Java. Raises `BrokerUnavailableError` with the cause for each.
    """
    if given is not None:
        return _given(given)
    ways: dict[str, Callable[[], BrokerHandle]] = {"Java and Maven": lambda: _java(start), "Docker": _docker}
    if allow_mock:
        ways["the mock cluster of librdkafka"] = _mock
    reasons: dict[str, str] = {}
    for name, way in ways.items():
        try:
            handle = way()
        except BrokerUnavailableError as error:
            reasons[name] = str(error)
        else:
            handle.skipped = reasons
            return handle
    lines = ["no Kafka broker can be had:", *(f"- {name}: {reason}" for name, reason in reasons.items())]
    raise BrokerUnavailableError("\n".join([*lines, "- none was given by --bootstrap-servers"]))


def _given(bootstrap_servers: str) -> BrokerHandle:
    wait_until_ready(bootstrap_servers, _GIVEN_TIMEOUT_SECS)
    return BrokerHandle("given", f"given broker at {bootstrap_servers}", bootstrap_servers)


def _java(start: Callable[[], Broker]) -> BrokerHandle:
    broker = start()
    resources = ExitStack()
    resources.callback(broker.close)
    description = f"Apache Kafka {KAFKA_VERSION}, KRaft, one node in Java"
    return BrokerHandle("java", description, broker.bootstrap_servers, _resources=resources)


def _docker() -> BrokerHandle:
    docker = shutil.which("docker")
    if docker is None:
        raise BrokerUnavailableError("docker is not installed")
    try:
        asked = subprocess.run(  # noqa: S603 - the user's own Docker
            [docker, "version", "--format", "{{.Server.Version}}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=_DOCKER_ANSWER_SECS,
        )
    except subprocess.TimeoutExpired as error:
        raise BrokerUnavailableError(f"docker does not answer within {_DOCKER_ANSWER_SECS} s") from error
    if asked.returncode:
        raise BrokerUnavailableError(f"docker does not work: {asked.stderr.strip()[:300]}")

    # The broker also connects to itself at its advertised address: the port is the same inside and outside.
    port = free_ports(1)[0]
    address = f"{HOST}:{port}"
    properties = single_node_properties() | {
        "listeners": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://localhost:9093",
        "advertised.listeners": f"PLAINTEXT://{address}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.quorum.voters": "1@localhost:9093",
    }
    command = [docker, "run", "--rm", "--interactive", "--publish", f"{address}:{port}"]
    for name, value in properties.items():
        command += ["--env", f"KAFKA_{name.upper().replace('.', '_')}={value}"]
    with ExitStack() as undo:
        log = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="trackly-broker-"))) / "docker.log"
        argv = [*command, _IMAGE, "sh", "-c", _UNTIL_STDIN_ENDS]
        process = spawn(argv, log=log, stdin=subprocess.PIPE)
        undo.callback(_close_container, process)
        try:
            wait_until_ready(address, _DOCKER_TIMEOUT_SECS, process=process)
        except BrokerUnavailableError as error:
            raise BrokerUnavailableError(f"{error}:\n{tail(log, lines=8)}") from error
        return BrokerHandle("docker", f"{_IMAGE} in Docker", address, _resources=undo.pop_all())


def _close_container(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        stop(process, grace_secs=5)


def _mock() -> BrokerHandle:
    # The cluster lives inside this client, for as long as the client does.
    host = Producer({"test.mock.num.brokers": 1, "bootstrap.servers": "unused", "log_level": 3})
    try:
        brokers = host.list_topics(timeout=10).brokers.values()
    except KafkaException as error:
        raise BrokerUnavailableError(f"it does not start: {error}") from error
    resources = ExitStack()
    resources.callback(host.flush, 0)
    address = ",".join(f"{broker.host}:{broker.port}" for broker in brokers)
    return BrokerHandle("mock", "mock cluster of librdkafka: NO REAL BROKER", address, _resources=resources)
