"""A real Kafka broker without Docker, a KRaft node in a Java process, which tests may kill.

Its data folder and ports are kept across restarts, so a test may stop, kill, pause and restart it under running
clients.
"""

import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Self, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from connector.demo.artifacts import BrokerUnavailableError, java, kafka_jars
from connector.processes import spawn, stop, tail

HOST: Final = "127.0.0.1"
_STARTUP_TIMEOUT_SECS: Final = 120
_LOG_SETTINGS: Final = Path(__file__).with_name("log4j2.properties")
# Below the range of ports for outgoing connections (32768 and up on Linux), so that nobody takes a broker's port while
# it is restarted.
_PORTS: Final = range(12_000, 32_000)
SHORT_LIVED: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
"""Measured: a broker is ready after 2.6 instead of 4.3 s of CPU. Its code stays as the fast compiler left it."""
_PORT_TAKEN: Final = "Address already in use"
_ATTEMPTS: Final = 3

_T = TypeVar("_T")


def single_node_properties() -> dict[str, str]:
    """Return the properties of a broker for tests: one replica, few partitions, no waiting."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "auto.create.topics.enable": "false",
        "default.replication.factor": "1",
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.replication.factor": "1",
        "share.coordinator.state.topic.min.isr": "1",
        "share.coordinator.state.topic.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        # A killed broker may register again only when its session has expired: 3 s instead of 9 s.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "group.coordinator.rebalance.protocols": "classic,consumer",  # KIP-848 is `consumer`
    }


class Broker:
    """A running (or stopped) Kafka node; create it with `start`, and use it as a context manager.

    Invariants: ports and data folder exist from `start` to `close`; at most one process uses them; that process ends
    with ours, however ours ends.
    """

    def __init__(self, ports: Mapping[str, int], options: Sequence[str]) -> None:
        """Take the ports of its listeners by name, and options for Java; `configure`, `format` and `launch` follow."""
        self._java, self._jars = java(), kafka_jars()
        self._home = Path(tempfile.mkdtemp(prefix="trackly-broker-"))
        self._ports = ports
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._launched_at = 0
        """The length of the log when the process started."""
        self.log = self._home / "broker.log"

    @classmethod
    def start(cls, *, properties: Mapping[str, str] | None = None, heap: str = "1g") -> Self:
        """Start a new, empty broker and return when it answers metadata requests (about 3 s).

        `properties` override the defaults. Raises `BrokerUnavailableError` if Java or the jars are unavailable, or the
        broker does not come up.
        """
        return on_free_ports(lambda: cls._started(properties or {}, heap))

    @classmethod
    def _started(cls, properties: Mapping[str, str], heap: str) -> Self:
        broker = cls(dict(zip(("PLAINTEXT", "CONTROLLER"), free_ports(2), strict=True)), [f"-Xmx{heap}"])
        with ExitStack() as undo:
            undo.enter_context(broker)
            broker.configure(properties)
            broker.format(new_cluster_id())
            broker.launch()
            broker.wait()
            undo.pop_all()
        return broker

    @property
    def bootstrap_servers(self) -> str:
        """The plain listener's `host:port`."""
        return self.address("PLAINTEXT")

    @property
    def pid(self) -> int | None:
        """The running process, or None when the broker is down."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def address(self, listener: str) -> str:
        """Return `host:port` of a listener by its name."""
        return f"{HOST}:{self._ports[listener]}"

    def stop(self, *, grace_secs: float = 30) -> None:
        """Shut the broker down in order (SIGTERM); its data stays. SIGKILL after the grace period."""
        if self._process is not None:
            self.resume()
            stop(self._process, grace_secs=grace_secs)
            self._process = None

    def kill(self) -> None:
        """Kill the broker (SIGKILL), like a crash; its data stays, including the page cache."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start again with the same ports and data, after a `stop` if it runs; return when it answers."""
        self.stop()
        self.launch()
        self.wait()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP) and return when it has stopped: connections stay open, nothing answers."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGSTOP)
            # The signal was only sent; other threads run until they receive it.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Continue a frozen process."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the broker and delete its data; by SIGKILL, since nobody will read it again."""
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def configure(self, given: Mapping[str, str]) -> None:
        """Write its properties: those of a node that is alone, and over them what is given."""
        properties = {
            **single_node_properties(),
            "controller.quorum.voters": f"1@{self.address('CONTROLLER')}",
            "listeners": ",".join(f"{name}://{self.address(name)}" for name in self._ports),
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap_servers}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._home / "data"),
            **given,
        }
        lines = (f"{name}={_escaped(value)}\n" for name, value in properties.items())
        self._properties.write_text("".join(lines))

    def format(self, cluster_id: str, *arguments: str) -> None:
        """Make its storage; raises `BrokerUnavailableError`."""
        words = ["format", "--cluster-id", cluster_id, "--config", str(self._properties), *arguments]
        process = self._spawn("kafka.tools.StorageTool", words, options=[*self._options, *SHORT_LIVED])
        if process.wait(timeout=_STARTUP_TIMEOUT_SECS):
            raise BrokerUnavailableError(f"the storage could not be formatted:\n{tail(self.log)}")

    def launch(self) -> None:
        """Start its process, without waiting for it."""
        self._launched_at = self.log.stat().st_size
        self._process = self._spawn("kafka.Kafka", [str(self._properties)], options=self._options)

    def wait(self, nodes: int = 1) -> None:
        """Return when it answers and names so many nodes; raise `BrokerUnavailableError` on timeout."""
        try:
            wait_until_ready(self.bootstrap_servers, _STARTUP_TIMEOUT_SECS, process=self._process, nodes=nodes)
        except BrokerUnavailableError as error:
            self.kill()
            with self.log.open(errors="replace") as log:
                log.seek(self._launched_at)
                words = log.read()[-4_000:]
            raise BrokerUnavailableError(f"{error}; its log ends:\n{words}") from error

    @property
    def _properties(self) -> Path:
        return self._home / "server.properties"

    def _spawn(self, main_class: str, arguments: Sequence[str], *, options: Sequence[str]) -> subprocess.Popen[bytes]:
        log_settings = f"-Dlog4j2.configurationFile={_LOG_SETTINGS}"
        argv = [self._java, *options, log_settings, "-cp", f"{self._jars}/*", main_class, *arguments]
        return spawn(argv, log=self.log, cwd=self._home)


def new_cluster_id() -> str:
    """Return an id as Kafka makes them: 16 random bytes."""
    return urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")


def on_free_ports(start: Callable[[], _T]) -> _T:
    """Start something, and again where another program took a port between our look and the broker's bind."""
    for _ in range(_ATTEMPTS - 1):
        try:
            return start()
        except BrokerUnavailableError as error:
            if _PORT_TAKEN not in str(error):
                raise
    return start()


def wait_until_ready(
    bootstrap_servers: str,
    timeout_secs: float,
    *,
    process: subprocess.Popen[bytes] | None = None,
    nodes: int = 1,
) -> None:
    """Return when a metadata response names so many nodes; raise `BrokerUnavailableError` on timeout.

    With `process`, give up as soon as that has ended.
    """
    # Silent, since a starting broker refuses connections.
    quick: dict[str, str | int | float | bool] = {
        "log_level": 0,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 100,
    }
    client = AdminClient({**quick, "bootstrap.servers": bootstrap_servers})
    deadline = time.monotonic() + timeout_secs
    while True:
        try:
            if len(client.list_topics(timeout=0.5).brokers) >= nodes:
                return
        except KafkaException as error:
            trouble = error.args[0].str()
        else:
            trouble = "it does not name all nodes"
        if process is not None and process.poll() is not None:
            raise BrokerUnavailableError(f"the broker ended with code {process.returncode}")
        if time.monotonic() >= deadline:
            raise BrokerUnavailableError(f"{bootstrap_servers} does not answer within {timeout_secs:g} s ({trouble})")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now."""
    found: list[int] = []
    for port in random.sample(_PORTS, k=200):
        with socket.socket() as probe:
            # As the JVM does: a port in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            return found
    raise BrokerUnavailableError(f"no {count} free ports between {_PORTS.start} and {_PORTS.stop}")


def _escaped(value: str) -> str:
    """Return a value for Java's properties files: one line, backslashes doubled."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
