"""The rights that `acls` names are those that are needed: with exactly them all works, each that is missing is told.

On a broker that allows nothing unless it is said, to a user who has what the list says and no more.
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from typer.testing import CliRunner, Result

from connector.app.acls import Acl, Role, needed
from connector.app.online import Finding, check_online
from connector.cli.main import app
from connector.config.load import load_settings
from connector.config.settings import Settings
from connector.demo.broker import Broker
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Record, Topics
from connector.simulator import Faults, SimulatorThread
from connector.simulator.faults import RecordCode
from tests.conftest import MakeBroker
from tests.deadletters.making import record
from tests.kit.brokers import sasl_plain
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import World, merge

USER, PASSWORD = "connector", "rights-password"
PRINCIPAL = f"User:{USER}"
DENYING = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
    "allow.everyone.if.no.acl.found": "false",
    "group.consumer.min.session.timeout.ms": "6000",
    "group.consumer.session.timeout.ms": "6000",
}
RULE = {"name": "transient", "reasons": ["provider_error"], "delay_secs": 0.5, "max_redrives": 5}
STREAM: dict[str, Any] = {
    "create_topics": {"enabled": True, "partitions": 2, "replication_factor": 1},
    "retry": {"max_attempts": 1},
    "metadata_refresh_secs": 1,
    "dead_letters": {"redrive": [RULE]},
}


class Rights:
    """The rights of one user on a broker, given and taken by an administrator."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})

    def give(self, acls: Iterable[Acl]) -> None:
        for future in self._admin.create_acls(list({_binding(acl) for acl in acls})).values():
            future.result(PATIENCE_SECS)

    def take(self, acl: Acl) -> None:
        binding = _binding(acl)
        filtered = AclBindingFilter(
            binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.host,
            binding.operation, binding.permission_type,
        )  # fmt: skip
        for future in self._admin.delete_acls([filtered]).values():
            assert len(list(future.result(PATIENCE_SECS))) == 1

    def take_all(self) -> None:
        for future in self._admin.delete_acls([_EVERYTHING]).values():
            future.result(PATIENCE_SECS)

    def topics(self) -> set[str]:
        return {name for name in self._admin.list_topics(timeout=PATIENCE_SECS).topics if not name.startswith("__")}


_ANYTHING: Any = None
_EVERYTHING = AclBindingFilter(
    ResourceType.ANY, _ANYTHING, ResourcePatternType.ANY, _ANYTHING, _ANYTHING, AclOperation.ANY, AclPermissionType.ANY
)
_KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "transactional_id": ResourceType.TRANSACTIONAL_ID,
}
_OPERATIONS = {
    "Read": AclOperation.READ,
    "Write": AclOperation.WRITE,
    "Create": AclOperation.CREATE,
    "Describe": AclOperation.DESCRIBE,
    "DescribeConfigs": AclOperation.DESCRIBE_CONFIGS,
}


def _binding(acl: Acl) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if acl.prefixed else ResourcePatternType.LITERAL
    operation = _OPERATIONS[acl.operation]
    return AclBinding(_KINDS[acl.kind], acl.name, pattern, PRINCIPAL, "*", operation, AclPermissionType.ALLOW)


@pytest.fixture(scope="module")
def denying(make_lasting_broker: MakeBroker) -> Broker:
    return make_lasting_broker(DENYING, listeners=[sasl_plain("DOOR", {USER: PASSWORD})])


@pytest.fixture
def rights(denying: Broker) -> Iterator[Rights]:
    """Give the user's rights, of which there are none at first, into the test's hands."""
    rights = Rights(denying)
    yield rights
    rights.take_all()


@pytest.fixture
def world(rights: Rights, platform: SimulatorThread, tmp_path: Path) -> Iterator[World]:
    """Make a world whose topics for results do not exist yet."""
    address = rights.broker.bootstrap_servers
    made = World(address, Topics(address), platform, tmp_path)
    made.topics.delete(made.outcomes, made.dead_letters)
    made.outcomes, made.dead_letters = f"{made.name}.outcomes", f"{made.name}.dead-letters"
    yield made
    made.close()


def _content(world: World, rights: Rights, stream: dict[str, Any] | None = None) -> dict[str, Any]:
    security = {"protocol": "sasl_plaintext", "sasl_mechanism": "PLAIN", "username": USER, "password": PASSWORD}
    kafka = {"bootstrap_servers": rights.broker.address("DOOR"), "security": security}
    return world.settings({"kafka": kafka}, stream=merge(STREAM, stream or {}))


def _load(world: World, content: dict[str, Any]) -> Settings:
    path = world.folder / "rights.yaml"
    path.write_text(yaml.safe_dump(content))
    return load_settings(path)


def _failed(settings: Settings, role: Role) -> list[Finding]:
    return [finding for finding in check_online(settings, role) if not finding.ok]


def _soon(wanted: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait for the authorizer to have heard: it learns of rights a moment after they are given."""
    deadline = time.monotonic() + PATIENCE_SECS
    while not wanted():
        assert time.monotonic() < deadline, what()


def _all_is_allowed(settings: Settings, role: Role) -> None:
    _soon(lambda: not _failed(settings, role), lambda: _failed(settings, role))


def _each_that_is_missing_is_told(rights: Rights, settings: Settings, role: Role, acls: Iterable[Acl]) -> None:
    """Take each right away, one of each resource at a time: each is told by a finding of its own, and nothing else."""
    of_resource: dict[object, list[Acl]] = {}
    for acl in acls:
        of_resource.setdefault(acl.resource, []).append(acl)
    for taken in zip_longest(*of_resource.values()):
        missing = {_told(acl): acl for acl in taken if acl is not None}
        for acl in missing.values():
            rights.take(acl)
        found: dict[str, Finding] = {}

        def seen(found: dict[str, Finding] = found) -> bool:
            found.clear()
            found.update({finding.detail.rpartition("; ")[2]: finding for finding in _failed(settings, role)})
            return found.keys() == missing.keys()  # noqa: B023 (called before it changes)

        _soon(seen, lambda: (missing, check_online(settings, role)))  # noqa: B023
        for told, acl in missing.items():
            way_out = found[told].way_out
            assert f"--operation {acl.operation}" in way_out
            assert f" {acl.name}" in way_out
            assert PRINCIPAL in way_out
            assert found[told].exit_code == 1
        rights.give(missing.values())
    _all_is_allowed(settings, role)


def _told(acl: Acl) -> str:
    kind = acl.kind.replace("_", " ")
    return f"{acl.operation} on {kind}{'s with the prefix' if acl.prefixed else ''} {acl.name} is not allowed"


def test_a_stream_works_with_exactly_its_rights_and_each_that_is_missing_is_reported(
    rights: Rights, world: World
) -> None:
    """It creates its topics, sends, ticks, and sends again by a rule; nothing else appears on the cluster."""
    content = _content(world, rights)
    settings = _load(world, content)
    acls = needed(settings, "worker")
    before = rights.topics()
    rights.give(acls)
    _all_is_allowed(settings, "worker")
    creating = [acl for acl in acls if acl.operation == "Create"]
    assert len(creating) == 3
    _each_that_is_missing_is_told(rights, settings, "worker", creating)
    assert rights.topics() == before, "asking creates nothing"

    world.platform.set_faults(Faults(record_codes=(RecordCode(text="again", code="provider_error", times=1),)))
    world.produce_sends(100)
    world.produce([Record(b'{"to": "nobody"}')], "missing_body")
    world.topics.produce(world.source, [Record(b'{"to": "+15550009999", "body": "again"}')])
    worker = world.start(content)
    worker.wait_for(lambda s: s["queued"] == 101 and s["redrives"][0]["redriven"] == 1, "all is sent, one of it again")
    assert worker.status()["holds"] == []
    assert worker.stop() == 0
    assert "AUTHORIZATION" not in worker.log.read_text()
    assert rights.topics() - before == {world.outcomes, world.dead_letters, f"{world.name}.redrive"}
    assert len(world.outcome_values()) == 101

    lasting = [acl for acl in acls if acl.operation != "Create"]
    _each_that_is_missing_is_told(rights, settings, "worker", lasting)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("kind", ["topic", "group"])
def test_the_hold_of_a_stream_that_may_not_read_ends_when_it_may_though_nothing_is_written(
    kind: str, protocol: str, rights: Rights, world: World
) -> None:
    """Kafka's client tells once that it may not, and never that it may again; the topic may still be described."""
    for topic in (world.outcomes, world.dead_letters):
        world.topics.create(name=topic)
    content = _content(world, rights, {"create_topics": {"enabled": False}, "dead_letters": {"redrive": []}})
    content["kafka"] = merge(content["kafka"], {"group_protocol": protocol})
    settings = _load(world, content)
    acls = needed(settings, "worker")
    described = Acl(world.name, "topic", world.source, "Describe", "")
    rights.give([*acls, described])
    _all_is_allowed(settings, "worker")
    worker = world.start(content)
    worker.wait_for(lambda s: len(s["partitions"]) == 4 and s["holds"] == [], "it reads")
    name = world.source if kind == "topic" else world.group
    [reading] = [acl for acl in acls if acl.resource == (kind, name, False) and acl.operation == "Read"]

    rights.take(reading)
    held = worker.wait_for(lambda s: s["holds"], "the hold")
    time.sleep(2)
    still = worker.status()
    rights.give([reading])
    worker.wait_for(lambda s: s["holds"] == [], "its end")

    assert {hold["reason"] for hold in [*held["holds"], *still["holds"]]} == {"kafka_authorization"}
    assert still["records_read"] == 0
    world.produce_sends(5)
    worker.wait_for(lambda s: s["queued"] == 5, "what is written then is sent")


def test_the_commands_work_with_exactly_their_rights_and_each_that_is_missing_is_reported(
    rights: Rights, world: World
) -> None:
    for topic in (world.outcomes, world.dead_letters):
        world.topics.create(name=topic, partitions=2)
    content = _content(world, rights)
    settings = _load(world, content)
    acls = needed(settings, "dead_letters")
    rights.give(acls)
    _all_is_allowed(settings, "dead_letters")
    creating = [acl for acl in acls if acl.operation == "Create"]
    assert len(creating) == 2
    _each_that_is_missing_is_told(rights, settings, "dead_letters", creating)
    reasons = ["missing_body"] * 3 + ["rejected"] * 2 + ["in_doubt"]
    world.topics.produce(
        world.dead_letters,
        [record(at, reason, stream=world.name, topic=world.source) for at, reason in enumerate(reasons)],
    )

    def run(command: str, *arguments: str) -> Result:
        line = ["dead-letters", command, str(world.folder / "rights.yaml"), *arguments]
        result = CliRunner().invoke(app, line)
        assert result.exit_code == 0, result.output
        return result

    exported = world.folder / "letters.ndjson"
    assert json.loads(run("stats", "--json").stdout)["total"] == 6
    run("export", "--out", str(exported))
    told = json.loads(run("redrive", "--reason", "missing_body", "--yes", "--json").stdout)
    assert told["written"] == {"redrive": 3}
    told = json.loads(run("park", "--reason", "rejected", "--yes", "--json").stdout)
    assert told["written"] == {"park": 2}
    run("import", str(exported), "--to", world.dead_letters)
    assert json.loads(run("stats", "--json").stdout)["total"] == 12

    lasting = [acl for acl in acls if acl.operation != "Create"]
    _each_that_is_missing_is_told(rights, settings, "dead_letters", lasting)


def test_the_right_to_a_pattern_is_that_to_all_topics_with_its_beginning(rights: Rights, world: World) -> None:
    pattern = f"^{re.escape(world.source[:-1])}[a-z0-9]$"  # the broker has topics of other tests
    for topic in (world.outcomes, world.dead_letters):
        world.topics.create(name=topic)
    content = _content(world, rights, {"pattern": pattern, "dead_letters": {"redrive": []}})
    del content["streams"][0]["topics"]
    settings = _load(world, content)
    acls = needed(settings, "worker")
    (reading,) = [acl for acl in acls if acl.pattern is not None]
    rights.give(acls)
    _all_is_allowed(settings, "worker")

    assert reading.prefixed
    _each_that_is_missing_is_told(rights, settings, "worker", [reading])
    world.produce_sends(20)
    worker = world.start(content)
    worker.wait_for(lambda s: s["queued"] == 20, "all is sent")
    assert worker.stop() == 0
    rights.take_all()
    _soon(lambda: len(_failed(settings, "worker")) > 1, lambda: check_online(settings))
    (brokers, *_) = check_online(settings)
    assert brokers.ok, "who may do nothing is told so, and not that no broker answers"


@pytest.fixture
def plain(broker: BrokerHandle, topics: Topics, platform: SimulatorThread, tmp_path: Path) -> World:
    """Make a world on a broker that asks for no rights."""
    return World(broker.bootstrap_servers, topics, platform, tmp_path)


def test_a_broker_that_asks_for_no_rights_allows_everything(plain: World) -> None:
    settings = _load(plain, plain.settings(stream=STREAM))

    assert _failed(settings, "worker") == []
    assert _failed(settings, "dead_letters") == []


@pytest.mark.parametrize(
    ("reads", "detail"),
    [({"topics": ["to.come"]}, "does not exist yet"), ({"pattern": "^to[.]come$"}, "no topic matches yet")],
)
def test_a_topic_to_read_that_does_not_exist_yet_is_a_warning_as_run_waits_for_it(
    reads: dict[str, Any], detail: str, plain: World
) -> None:
    content = plain.settings(stream=merge(STREAM, reads))
    if "topics" not in reads:
        del content["streams"][0]["topics"]

    found = check_online(_load(plain, content))

    assert all(finding.ok for finding in found)
    (warning,) = [finding for finding in found if finding.warning]
    assert (warning.detail, "run waits for it" in warning.way_out) == (detail, True)


@pytest.mark.parametrize("which", ["outcomes", "dead_letters"])
def test_a_topic_for_results_that_is_compacted_is_a_warning_as_it_loses_all_but_the_last_of_a_key(
    which: str, plain: World
) -> None:
    topic = plain.topics.create(config={"cleanup.policy": "compact,delete"})

    found = check_online(_load(plain, plain.settings(stream={which: {"topic": topic}})))

    (warning,) = [finding for finding in found if finding.warning]
    assert (topic in warning.name, warning.detail) == (True, "is compacted")
    assert "cleanup.policy to delete" in warning.way_out


def test_a_topic_for_results_that_does_not_exist_is_reported_with_the_command_that_creates_it(plain: World) -> None:
    topic = f"{plain.name}.to-come"
    settings = _load(plain, plain.settings(stream={"outcomes": {"topic": topic}}))

    (finding,) = _failed(settings, "worker")

    command = f"--create --topic {topic} --partitions 4 --replication-factor 1; or set create_topics.enabled: true"
    assert (finding.exit_code, finding.detail) == (1, "does not exist")
    assert finding.way_out.endswith(command)
