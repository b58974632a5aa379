"""Brokers as tests want them: with doors and users of their own, several in one cluster, and soon there.

Those that live for seconds would spend half of them on compiling themselves well, and on reading their own classes.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from connector.demo.artifacts import java, kafka_jars, locked
from connector.demo.broker import SHORT_LIVED, Broker, free_ports, new_cluster_id, on_free_ports

_STOP_SECS: Final = 120
_FORMATTED: Final[dict[Path, bytes]] = {}
"""The files of a storage without users, as the first broker of this process has made it."""
_IDS: Final = Path("meta.properties")


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


def start_broker(
    *,
    properties: Mapping[str, str] | None = None,
    listeners: Sequence[Listener] = (),
    scram_users: Mapping[str, str] | None = None,
) -> Broker:
    """Start a new, empty broker for a short life; `Broker.start` says what else there is to know.

    The plain listener stays, for the readiness check and for administration. `scram_users` (name to password,
    SCRAM-SHA-256) are known from the first moment on.
    """
    [broker] = start_cluster([listeners], properties=properties, scram_users=scram_users, heap="1g")
    return broker


def start_cluster(
    doors: Sequence[Sequence[Listener]],
    *,
    properties: Mapping[str, str] | None = None,
    scram_users: Mapping[str, str] | None = None,
    heap: str = "512m",
) -> list[Broker]:
    """Start a new, empty cluster of a node for each item of `doors`, which are its listeners; else as `start_broker`.

    Each node is broker and controller; topics have three replicas where there are as many nodes.
    """
    archive = archive_of_classes()
    archive_classes(archive)
    options = [f"-Xmx{heap}", *SHORT_LIVED, f"-XX:SharedArchiveFile={archive}"]
    users: list[str] = []
    for user, password in (scram_users or {}).items():
        users += ["--add-scram", f"SCRAM-SHA-256=[name={user},password={password}]"]

    def start() -> list[Broker]:
        cluster_id = new_cluster_id()
        ports = iter(free_ports(sum(2 + len(listeners) for listeners in doors)))
        with ExitStack() as undo:
            nodes = [
                undo.enter_context(
                    Broker({name: next(ports) for name in ("PLAINTEXT", "CONTROLLER", *_names(listeners))}, options)
                )
                for listeners in doors
            ]
            voters = ",".join(f"{number}@{node.address('CONTROLLER')}" for number, node in enumerate(nodes, start=1))
            for number, (node, listeners) in enumerate(zip(nodes, doors, strict=True), start=1):
                own = {"node.id": str(number), "controller.quorum.voters": voters}
                node.configure({**_replicated(len(nodes)), **own, **_behind(node, listeners), **(properties or {})})
                _format(node, number, cluster_id, users)
                node.launch()
            for node in nodes:  # none answers before most of them are there
                node.wait(len(nodes))
            undo.pop_all()
            return nodes

    return on_free_ports(start)


def _format(node: Broker, number: int, cluster_id: str, users: Sequence[str]) -> None:
    """Make a node's storage; without users a copy of the first one, with ids of its own: a second of CPU less."""
    if users:
        node.format(cluster_id, *users)
        return
    data = node.log.parent / "data"
    if not _FORMATTED:
        node.format(cluster_id)
        _FORMATTED.update({path.relative_to(data): path.read_bytes() for path in data.rglob("*") if path.is_file()})
        return
    ids = {"cluster.id": cluster_id, "node.id": str(number), "directory.id": new_cluster_id()}
    lines = (line.partition("=") for line in _FORMATTED[_IDS].decode().splitlines())
    own = "".join(f"{name}{sign}{ids.get(name, value)}\n" for name, sign, value in lines)
    for path, content in {**_FORMATTED, _IDS: own.encode()}.items():
        (data / path).parent.mkdir(parents=True, exist_ok=True)
        (data / path).write_bytes(content)
    node.log.touch()


def _names(listeners: Sequence[Listener]) -> list[str]:
    return [listener.name for listener in listeners]


def _replicated(nodes: int) -> dict[str, str]:
    """Return what each node of a cluster needs beside what one alone does, so that any one of three may be away."""
    replicas, enough = str(min(nodes, 3)), str(min(nodes, 2))
    return {
        "default.replication.factor": replicas,
        "min.insync.replicas": enough,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": enough,
    }


def _behind(node: Broker, listeners: Sequence[Listener]) -> dict[str, str]:
    """Return the properties of a node's doors."""
    clients = [Listener("PLAINTEXT"), *listeners]
    properties = {
        "advertised.listeners": ",".join(
            f"{door.name}://{door.advertised or node.address(door.name)}" for door in clients
        ),
        "listener.security.protocol.map": ",".join(
            ["CONTROLLER:PLAINTEXT", *(f"{door.name}:{door.protocol}" for door in clients)]
        ),
    }
    for door in listeners:
        prefix = f"listener.name.{door.name.lower()}."
        properties |= {prefix + name: value for name, value in door.properties.items()}
    return properties


def archive_of_classes() -> Path:
    """Return where brokers have their classes; another Java has another file."""
    return kafka_jars().parent / f"classes-{Path(java()).stat().st_mtime_ns}.jsa"


def archive_classes(archive: Path) -> None:
    """Have a broker that starts and stops leave its classes in a file, unless there is one or none can be written.

    Measured: with them a broker is ready after half of the CPU. Java does without a file that is not its own.
    """
    if archive.exists():
        return
    with suppress(OSError), locked(archive.with_suffix(".lock")):
        if not archive.exists():  # another maker may have been first
            with TemporaryDirectory(dir=archive.parent) as scratch:
                made = Path(scratch) / archive.name
                on_free_ports(lambda: _leave_classes(made))
                made.rename(archive)


def _leave_classes(archive: Path) -> None:
    ports = dict(zip(("PLAINTEXT", "CONTROLLER"), free_ports(2), strict=True))
    with Broker(ports, SHORT_LIVED) as broker:
        broker.configure({})
        broker.format(new_cluster_id())
        broker._options = [*SHORT_LIVED, f"-XX:ArchiveClassesAtExit={archive}"]  # formatting would leave its own
        broker.launch()
        broker.wait()
        broker.stop(grace_secs=_STOP_SECS)
