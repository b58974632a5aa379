"""A real Kafka broker without Docker: a KRaft node in a Java process, made to be killed; or a cluster of them.

Its data folder and ports stay the same over restarts, so a test may stop, kill, pause and restart it under running
clients. What a test needs beyond the defaults it gives as properties and listeners; the plain listener always
stays, for the readiness check and for administration.
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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from connector.demo.artifacts import BrokerUnavailableError, java, kafka_jars, locked
from connector.processes import spawn, stop, tail

HOST: Final = "127.0.0.1"
_STARTUP_TIMEOUT_SECS: Final = 120
_LOG_SETTINGS: Final = Path(__file__).with_name("log4j2.properties")
# Below the range from which the kernel takes the ports of outgoing connections (32768 and up on Linux): nobody takes
# a broker's port while it is down for a restart.
_PORTS: Final = range(12_000, 32_000)
SHORT_LIVED: Final = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-XX:-UsePerfData")
"""Measured: a broker is ready after 2.6 in place of 4.3 s of CPU. Its code stays as the quick compiler left it."""
_PORT_TAKEN: Final = "Address already in use"


@dataclass(frozen=True, slots=True)
class Listener:
    """One more door to the broker, with its own security or its own advertised address.

    `properties` are those of `listener.name.<name>.`, given without that prefix. `advertised` is the `host:port`
    that clients are sent to, e.g. a proxy's; the listener's own unless set.
    """

    name: str
    protocol: str = "PLAINTEXT"
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    advertised: str | None = None


def sasl_plain(name: str, users: Mapping[str, str]) -> Listener:
    """Return a listener that knows these users by password (SASL/PLAIN, no TLS)."""
    known = " ".join(f'user_{user}="{password}"' for user, password in users.items())
    module = "org.apache.kafka.common.security.plain.PlainLoginModule"
    properties = {
        "sasl.enabled.mechanisms": "PLAIN",
        "plain.sasl.jaas.config": f"{module} required {known};",
    }
    return Listener(name, "SASL_PLAINTEXT", properties)


def single_node_properties() -> dict[str, str]:
    """Return what a broker for tests needs wherever it runs: one replica, few partitions, no waiting."""
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
        # A killed broker may register again only when its session is over: 3 s instead of 9 s.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        "group.coordinator.rebalance.protocols": "classic,consumer",  # KIP-848 is `consumer`
    }


def _replicated(nodes: int) -> dict[str, str]:
    """Return what each node of a cluster needs beside that, so that any one of three may be away."""
    replicas, enough = str(min(nodes, 3)), str(min(nodes, 2))
    return {
        "default.replication.factor": replicas,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": enough,
    }


class Broker:
    """A running (or stopped) Kafka node; use `start`, or `start_cluster`, and as a context manager.

    Invariants: ports and data folder last from `start` to `close`; at most one process runs over them; that process
    ends with ours, whatever ends ours.
    """

    def __init__(
        self, home: Path, ports: Mapping[str, int], jars: Path, java_path: str, options: Sequence[str]
    ) -> None:
        self._home = home
        self._ports = ports
        self._jars = jars
        self._java = java_path
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._launched_at = 0
        """How long the log was when the process began."""
        self.log = home / "broker.log"

    @classmethod
    def start(
        cls,
        *,
        properties: Mapping[str, str] | None = None,
        listeners: Sequence[Listener] = (),
        scram_users: Mapping[str, str] | None = None,
        heap: str = "1g",
        short_lived: bool = False,
    ) -> Self:
        """Start a new, empty broker and return when it answers metadata requests (about 3 s).

        `properties` go over the defaults; `scram_users` (name to password, SCRAM-SHA-256) are known from the first
        moment on; `short_lived` is for a broker of seconds, which would spend half of them on compiling itself well.
        Raises `BrokerUnavailableError` when Java or the jars cannot be had or the broker does not come up.
        """
        [broker] = cls.start_cluster(
            [listeners], properties=properties, scram_users=scram_users, heap=heap, short_lived=short_lived
        )
        return broker

    @classmethod
    def start_cluster(
        cls,
        doors: Sequence[Sequence[Listener]],
        *,
        properties: Mapping[str, str] | None = None,
        scram_users: Mapping[str, str] | None = None,
        heap: str = "512m",
        short_lived: bool = False,
    ) -> list[Self]:
        """Start a new, empty cluster of a node for each item of `doors`, which are its listeners; else as `start`.

        Each node is broker and controller; topics have three replicas where there are as many nodes.
        """
        java_path, jars = java(), kafka_jars()
        options = [f"-Xmx{heap}"]
        if short_lived:
            archive = jars.parent / f"classes-{Path(java_path).stat().st_mtime_ns}.jsa"  # another Java, another file
            cls._archive_classes(archive)
            options += [*SHORT_LIVED, f"-XX:SharedArchiveFile={archive}"]
        cluster = urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=").replace("-", "A")
        attempts = 3  # another program may take a port between our look and the broker's bind
        for attempt in range(1, attempts + 1):
            with ExitStack() as undo:
                ports = iter(free_ports(sum(2 + len(listeners) for listeners in doors)))
                nodes: list[Self] = []
                for listeners in doors:
                    names = ["PLAINTEXT", "CONTROLLER", *(listener.name for listener in listeners)]
                    home = Path(tempfile.mkdtemp(prefix="trackly-broker-"))
                    made = cls(home, {name: next(ports) for name in names}, jars, java_path, options)
                    undo.enter_context(made)
                    nodes.append(made)
                voters = [f"{number}@{node.address('CONTROLLER')}" for number, node in enumerate(nodes, start=1)]
                try:
                    for number, (node, listeners) in enumerate(zip(nodes, doors, strict=True), start=1):
                        node._configure(number, voters, properties or {}, listeners)  # noqa: SLF001 - one of ours
                        node._format(cluster, scram_users or {})  # noqa: SLF001
                        node._launch()  # noqa: SLF001
                    for node in nodes:  # none answers before most of them are there
                        node._wait(len(nodes))  # noqa: SLF001
                except BrokerUnavailableError as error:
                    if attempt == attempts or _PORT_TAKEN not in str(error):
                        raise
                else:
                    undo.pop_all()
                    return nodes
        raise AssertionError  # pragma: no cover - the last attempt returns or raises

    @classmethod
    def _archive_classes(cls, archive: Path) -> None:
        """Have a broker that starts and stops leave its classes in a file, unless there is one or none can be written.

        Measured: with them a broker is ready after half of the CPU. Java does without a file that is not its own.
        """
        if archive.exists():
            return
        with suppress(OSError), locked(archive.with_suffix(".lock")):
            if not archive.exists():  # another maker may have been first
                with tempfile.TemporaryDirectory(dir=archive.parent) as scratch, cls.start() as broker:
                    made = Path(scratch) / archive.name
                    broker._options = [*SHORT_LIVED, f"-XX:ArchiveClassesAtExit={made}"]  # noqa: SLF001 - one of ours
                    broker.restart()
                    broker.stop(grace_secs=_STARTUP_TIMEOUT_SECS)
                    made.rename(archive)

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
        """Shut the broker down in order (SIGTERM), as an operator does; its data stays. SIGKILL after the grace."""
        if self._process is not None:
            self.resume()
            stop(self._process, grace_secs=grace_secs)
            self._process = None

    def kill(self) -> None:
        """End the broker by SIGKILL, as a crash does; its data stays, as far as the page cache had it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start again on the same ports and data (stopped in order first if it runs); return when it answers."""
        self.stop()
        self._launch()
        self._wait()

    def pause(self) -> None:
        """Freeze the process (SIGSTOP) and return when it stands: connections stay open, nothing answers."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGSTOP)
            # The signal is only sent by then, and its other threads run on until they have heard of it.
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a frozen process go on."""
        if self.pid is not None:
            os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End the broker and throw its data away; by SIGKILL, since nobody will read it again."""
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _configure(
        self, number: int, voters: Sequence[str], given: Mapping[str, str], listeners: Sequence[Listener]
    ) -> None:
        clients = [Listener("PLAINTEXT"), *listeners]
        doors = [f"{name}://{self.address(name)}" for name in self._ports]
        advertised = [f"{door.name}://{door.advertised or self.address(door.name)}" for door in clients]
        protocols = [f"{door.name}:{door.protocol}" for door in clients] + ["CONTROLLER:PLAINTEXT"]
        properties = (
            single_node_properties()
            | _replicated(len(voters))
            | {
                "node.id": str(number),
                "controller.quorum.voters": ",".join(voters),
                "listeners": ",".join(doors),
                "advertised.listeners": ",".join(advertised),
                "listener.security.protocol.map": ",".join(protocols),
                "log.dirs": str(self._home / "data"),
            }
        )
        for door in listeners:
            prefix = f"listener.name.{door.name.lower()}."
            properties |= {prefix + name: value for name, value in door.properties.items()}
        properties |= given
        lines = (f"{name}={_escaped(value)}\n" for name, value in properties.items())
        (self._home / "server.properties").write_text("".join(lines))

    def _format(self, cluster: str, scram_users: Mapping[str, str]) -> None:
        arguments = ["format", "--cluster-id", cluster, "--config", str(self._home / "server.properties")]
        for user, password in scram_users.items():
            arguments += ["--add-scram", f"SCRAM-SHA-256=[name={user},password={password}]"]
        process = self._spawn("kafka.tools.StorageTool", arguments, options=[*self._options, *SHORT_LIVED])
        if process.wait(timeout=_STARTUP_TIMEOUT_SECS):
            raise BrokerUnavailableError(f"the storage could not be formatted:\n{tail(self.log)}")

    def _launch(self) -> None:
        self._launched_at = self.log.stat().st_size
        self._process = self._spawn("kafka.Kafka", [str(self._home / "server.properties")], options=self._options)

    def _wait(self, nodes: int = 1) -> None:
        """Return when it answers and names so many nodes; raise `BrokerUnavailableError` when it does not in time."""
        try:
            wait_until_ready(self.bootstrap_servers, _STARTUP_TIMEOUT_SECS, process=self._process, nodes=nodes)
        except BrokerUnavailableError as error:
            self.kill()
            with self.log.open(errors="replace") as log:
                log.seek(self._launched_at)
                words = log.read()[-4_000:]
            raise BrokerUnavailableError(f"{error}; its log ends:\n{words}") from error

    def _spawn(self, main_class: str, arguments: Sequence[str], *, options: Sequence[str]) -> subprocess.Popen[bytes]:
        log_settings = f"-Dlog4j2.configurationFile={_LOG_SETTINGS}"
        argv = [self._java, *options, log_settings, "-cp", f"{self._jars}/*", main_class, *arguments]
        return spawn(argv, log=self.log, cwd=self._home)


def wait_until_ready(
    bootstrap_servers: str,
    timeout_secs: float,
    *,
    process: subprocess.Popen[bytes] | None = None,
    nodes: int = 1,
) -> None:
    """Return when an answer about metadata names so many nodes; raise `BrokerUnavailableError` if none does in time.

    With `process`, give up as soon as that has ended.
    """
    # Silent, since refusals are what one expects from a broker that is still starting.
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
    """Return ports that nobody listens on right now."""
    found: list[int] = []
    for port in random.sample(_PORTS, k=200):
        with socket.socket() as probe:
            # As the JVM does: a port that is only in TIME_WAIT is free.
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
    """Return a value as Java's properties files want it: one line, backslashes doubled."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
