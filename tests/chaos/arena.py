"""Where a chaos run takes place: brokers behind proxies, a platform with a ledger, and worker processes in slots.

Each slot has a door of its own into each broker, by a listener that is advertised as the slot's proxy, so that one
worker can be cut off while the others go on. Workers log in by password, so that rights can be taken from them; the
feed and the judge come through the plain door and may do anything.
"""

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self

import httpx
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType

from connector.demo.broker import Broker
from connector.demo.topics import Topics
from connector.simulator import SimulatorSettings, SimulatorThread
from connector.simulator.faults import parse_faults
from tests.chaos.plan import SESSION_SECS, SPARE, WORKERS, Flow, Setup
from tests.kit.brokers import Listener, sasl_plain, start_cluster
from tests.kit.local import NO_TLS
from tests.kit.proxy import Proxy, Trouble
from tests.kit.world import KEY, Worker, start_worker

USER, PASSWORD = "connector", "chaos-password"
TOKEN: Final = "chaos-token-0123456789"
PARTITIONS: Final = 4
LIST_NUMBER: Final = "+18005551234"

_BROKER: Final = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "allow.everyone.if.no.acl.found": "true",
    # With the newer protocol sessions are the broker's.
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "1000",
    "group.consumer.heartbeat.interval.ms": "1000",
}
_SEVERAL: Final = {
    # Leaders come back soon to the node that was away: they move twice for each time that it is.
    "leader.imbalance.check.interval.seconds": "5",
}
_FINE: Final[dict[str, Any]] = {"latency_ms": (30, 300)}
_REFUSING: Final = "1100"
"""Enough bytes for some outcomes, and too few for those of a tick."""


class Lane:
    """The topics of one flow."""

    def __init__(self, flow: Flow, topics: Topics, run: str) -> None:
        self.flow = flow
        self.prefix = f"{run}.{flow.name}"
        self.source = topics.create(partitions=PARTITIONS, name=f"{self.prefix}.source")
        self.outcomes = topics.create(partitions=PARTITIONS, name=f"{self.prefix}.outcomes")
        self.dead_letters = topics.create(partitions=PARTITIONS, name=f"{self.prefix}.dead-letters")
        self.group = f"trackly-connector.{self.prefix}"

    def settings(self) -> dict[str, Any]:
        """Return the stream's settings: waits that suit a test, everything else at the product's defaults."""
        flow = self.flow
        return {
            "name": self.prefix,
            "pattern": f"^{self.source}(\\..*)?$".replace(self.source, self.source.replace(".", "\\.")),
            "operation": "send",
            "mode": flow.mode,
            "list_number": LIST_NUMBER,
            "outcomes": {"topic": self.outcomes},
            "dead_letters": {"topic": self.dead_letters},
            "metadata_refresh_secs": 2,
            "batch": {"max_records": 100 if flow.mode == "bulk" else 1, "window_ms": 50},
            "delivery": {
                "guarantee": flow.guarantee,
                "in_doubt": flow.in_doubt,
                "max_in_flight_records": 2_000,
                "drain_secs": 8,
            },
            "retry": {"backoff_base_secs": 0.05, "backoff_max_secs": 1},
            "breaker": {"probe_secs": 0.2, "probe_max_secs": 1},
            "hold": {"probe_secs": 0.2, "probe_max_secs": 1},
            "concurrency": {"max": 16 if flow.mode == "bulk" else 64},
        }


class Slot:
    """A place for one worker process at a time, with its instance id and its doors, one to each broker."""

    def __init__(self, number: int, proxies: Sequence[Proxy]) -> None:
        self.number = number
        self.proxies = proxies
        self.worker: Worker | None = None

    def listener(self, broker: int) -> Listener:
        """Return what a broker, by its number, is to listen with for this slot."""
        return replace(sasl_plain(f"SLOT{self.number}", {USER: PASSWORD}), advertised=self.proxies[broker].address)

    def trouble(self, how: Trouble | None) -> None:
        """Cut it off from all brokers, or end that."""
        for proxy in self.proxies:
            proxy.trouble(how)

    @property
    def lives(self) -> bool:
        """Tell whether a process is there, frozen or not."""
        return self.worker is not None and self.worker.process.poll() is None


class Arena:
    """Everything that a run disturbs, and the ways to disturb it and to put it right again."""

    def __init__(self, setup: Setup, folder: Path) -> None:
        self.setup = setup
        self.folder = folder
        self.kills = 0
        """Processes that were ended by SIGKILL, of workers and of the broker."""
        self.exits: Counter[int] = Counter()
        """Codes of workers that ended by themselves and were started again."""
        self.resumed: Counter[str] = Counter()
        """Holds that were ended by the operator's word."""
        self._stack = ExitStack()
        self._faults: dict[int, Mapping[str, Any]] = {}
        self._started = 0
        self._episode = 0

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            numbers = range(self.setup.brokers)
            self.slots = [
                Slot(number, [stack.enter_context(Proxy()) for _ in numbers]) for number in range(WORKERS + 1)
            ]
            doors = [[slot.listener(number) for slot in self.slots] for number in numbers]
            properties = _BROKER if len(doors) == 1 else _BROKER | _SEVERAL
            self.brokers = start_cluster(doors, properties=properties)
            for number, broker in enumerate(self.brokers):
                stack.enter_context(broker)
                for slot, door in zip(self.slots, doors[number], strict=True):
                    slot.proxies[number].target = int(broker.address(door.name).rpartition(":")[2])
            self.platform: SimulatorThread = stack.enter_context(
                SimulatorThread(SimulatorSettings(api_keys=(KEY,), faults=parse_faults(_FINE)))
            )
            self.topics = Topics(self.bootstrap_servers)
            self.admin = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 2})
            run = self.topics.name("run").replace("test.", "chaos.")
            self.lanes = [Lane(flow, self.topics, run) for flow in self.setup.flows]
            stack.callback(self._end_workers)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def bootstrap_servers(self) -> str:
        """The plain doors."""
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    @property
    def broker(self) -> Broker:
        """The broker that is disturbed in this episode: another one in the next, where there are several."""
        return self.brokers[self._episode % len(self.brokers)]

    # ------------------------------------------------------------------ workers

    def settings(self, slot: Slot) -> dict[str, Any]:
        """Return what the worker of a slot is started with."""
        return {
            "instance_id": f"chaos-{self.bootstrap_servers.rpartition(':')[2]}-{slot.number}",
            "kafka": {
                "bootstrap_servers": ",".join(proxy.address for proxy in slot.proxies),
                "group_protocol": self.setup.protocol,
                "session_timeout_secs": SESSION_SECS,
                "heartbeat_interval_secs": 1,
                "request_timeout_secs": 5,
                "security": {
                    "protocol": "sasl_plaintext",
                    "sasl_mechanism": "PLAIN",
                    "username": USER,
                    "password": "${env:CHAOS_PASSWORD}",
                },
            },
            "trackly": {"base_url": self.platform.url, "api_key": "${env:CHAOS_KEY}", "timeouts": {"total_secs": 5}},
            "web": {"token": "${env:CHAOS_TOKEN}"},
            "shutdown": {"grace_secs": 15},
            "log": {"format": "json"},
            "streams": [lane.settings() for lane in self.lanes],
        }

    def start(self, slot: Slot, **env: str) -> Worker:
        """Start a worker with the id of a slot, and return it without putting it there."""
        self._started += 1
        secrets = {"CHAOS_PASSWORD": PASSWORD, "CHAOS_KEY": KEY, "CHAOS_TOKEN": TOKEN}
        return start_worker(
            self.settings(slot), self.folder, f"worker-{slot.number}.{self._started}", {**secrets, **env}
        )

    def fill(self, slot: Slot) -> None:
        """See to it that a slot has a running worker."""
        if not slot.lives:
            slot.worker = self.start(slot)

    def kill(self, slot: Slot) -> None:
        """End a slot's worker by SIGKILL, if there is one."""
        if slot.lives:
            assert slot.worker is not None
            slot.worker.kill()
            self.kills += 1

    def signal(self, slot: Slot, number: signal.Signals) -> None:
        """Send a slot's worker a signal, if there is one."""
        if slot.lives:
            assert slot.worker is not None
            slot.worker.signal(number)

    def tend(self) -> None:
        """Do what an operator and an orchestrator would: start what ended by itself, end holds that wait for a word."""
        for slot in self.slots[:WORKERS]:
            if slot.worker is not None and not slot.lives:
                self.exits[slot.worker.process.wait()] += 1
                self.fill(slot)
        for status in self.statuses():
            for hold in status["holds"]:
                if hold["ends"] == "operator":
                    self.resume(status["port"], status["name"])
                    self.resumed[hold["reason"]] += 1

    def statuses(self) -> Iterator[dict[str, Any]]:
        """Yield the status of each stream of each worker that answers, with the port of its pages."""
        for slot in self.slots:
            if slot.lives:
                assert slot.worker is not None
                with suppress(httpx.HTTPError, ValueError):
                    for status in slot.worker.page("/status").json()["streams"]:
                        yield {**status, "port": slot.worker.port, "slot": slot.number}

    def resume(self, port: int, stream: str) -> None:
        """End a stream's holds by the operator's word."""
        with suppress(httpx.HTTPError):
            url = f"http://127.0.0.1:{port}/streams/{stream}/resume"
            httpx.post(url, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False, verify=NO_TLS, timeout=5)

    def stop_all(self) -> list[int]:
        """Stop all workers in order, at the same time, and return their exit codes."""
        there = [slot.worker for slot in self.slots if slot.worker is not None and slot.lives]
        for worker in there:
            worker.signal(signal.SIGTERM)
        return [worker.process.wait(40) for worker in there]

    def _end_workers(self) -> None:
        for slot in self.slots:
            if slot.lives:
                assert slot.worker is not None
                slot.worker.kill()

    # ------------------------------------------------------------------ the platform

    def add_faults(self, faults: Mapping[str, Any]) -> int:
        """Have the platform misbehave until `remove_faults`; what is said last goes over what was said before."""
        number = max(self._faults, default=0) + 1
        self._faults[number] = faults
        self._set_faults()
        return number

    def remove_faults(self, number: int) -> None:
        """Take faults back."""
        self._faults.pop(number, None)
        self._set_faults()

    def _set_faults(self) -> None:
        merged: dict[str, Any] = dict(_FINE)
        for faults in self._faults.values():
            merged |= faults
        self.platform.set_faults(parse_faults(merged))

    # ------------------------------------------------------------------ Kafka

    def restart_broker(self, how: str, away_secs: float) -> None:
        """Stop or kill the broker, and have it back after a while."""
        if how == "kill":
            self.kills += self.broker.pid is not None
            self.broker.kill()
        else:
            self.broker.stop()
        time.sleep(away_secs)
        self.broker.restart()

    @property
    def broker_is_sound(self) -> bool:
        """Tell whether the broker still knows what it has acknowledged.

        A single node that is killed may load the state of its groups in part, notice that, and refuse them for good
        (seen with Apache Kafka 4.2 and the newer group protocol): what clients are told then is no longer true.
        """
        return not any("out of sync with the underlying log" in b.log.read_text(errors="replace") for b in self.brokers)

    def deny(self, what: str) -> None:
        """Take a right from all workers."""
        bindings = [
            AclBinding(
                kind,
                name,
                ResourcePatternType.LITERAL
                if kind is not ResourceType.TRANSACTIONAL_ID
                else ResourcePatternType.PREFIXED,
                f"User:{USER}",
                "*",
                AclOperation.ALL,
                AclPermissionType.DENY,
            )
            for kind, name in self._resources(what)
        ]
        for future in self.admin.create_acls(bindings).values():
            future.result(60)

    def allow_all(self) -> None:
        """Give back every right."""
        anyone: Any = None
        everything = AclBindingFilter(
            ResourceType.ANY, anyone, ResourcePatternType.ANY, anyone, anyone, AclOperation.ANY, AclPermissionType.ANY
        )
        for future in self.admin.delete_acls([everything]).values():
            future.result(60)

    def _resources(self, what: str) -> list[tuple[ResourceType, str]]:
        match what:
            case "group":
                return [(ResourceType.GROUP, lane.group) for lane in self.lanes]
            case "transaction":
                return [(ResourceType.TRANSACTIONAL_ID, lane.group) for lane in self.lanes]
            case "source":
                return [(ResourceType.TOPIC, lane.source) for lane in self.lanes]
            case "outcomes":
                return [(ResourceType.TOPIC, lane.outcomes) for lane in self.lanes]
            case _:
                raise AssertionError(what)

    def refuse_outcomes(self, refuse: bool) -> None:
        """Have the outcome topics take no outcome for its size, or take them again."""
        operation = AlterConfigOpType.SET if refuse else AlterConfigOpType.DELETE
        resources = [
            ConfigResource(
                ResourceType.TOPIC,
                lane.outcomes,
                incremental_configs=[ConfigEntry("max.message.bytes", _REFUSING, incremental_operation=operation)],
            )
            for lane in self.lanes
        ]
        for future in self.admin.incremental_alter_configs(resources).values():
            future.result(30)

    def heal(self) -> None:
        """Put right whatever may still be wrong, so that nothing but the workers has anything to recover from."""
        self._faults.clear()
        self._set_faults()
        for slot in self.slots:
            slot.trouble(None)
            self.signal(slot, signal.SIGCONT)
        self.broker.resume()
        if self.broker.pid is None:
            self.broker.restart()
        self._episode += 1
        spare = self.slots[SPARE]
        if spare.lives:
            self.signal(spare, signal.SIGTERM)
        for slot in self.slots[:WORKERS]:
            self.fill(slot)


def elsewhere(folder: Path) -> dict[str, str]:
    """Return an environment in which a worker finds no locks of others, as on another host."""
    temporary = folder / "elsewhere"
    temporary.mkdir(exist_ok=True)
    return {"TMPDIR": os.fspath(temporary)}
