"""The Kafka permissions that the connector needs, and no more: the one list for commands, manifests and checks.

Kafka's rules save entries: Read and Write each imply Describe, and a principal that may write to any topic may use an
idempotent producer (brokers from 2.8 on; older ones require IdempotentWrite on the cluster for `at_least_once`).
"""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Final, Literal

from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.deadletters.copying import IMPORT_PREFIX
from connector.deadletters.deciding import parking_topic
from connector.deadletters.redriving import REDRIVE_PREFIX
from connector.deadletters.working import CLIENT_ID

ResourceKind = Literal["topic", "group", "transactional_id"]
Operation = Literal["Read", "Write", "Create", "Describe", "DescribeConfigs"]
Role = Literal["worker", "dead_letters"]
"""Who needs them: the workers that `run` starts, or a person with the commands `dead-letters`."""

ANY: Final = "*"

_LITERAL: Final = re.compile(r"(?:[A-Za-z0-9_-]|\\[.\-])(?![*?+{])")
"""One character of a pattern that matches itself."""


@dataclass(frozen=True, slots=True)
class Acl:
    """One operation that is allowed on one resource, or on all whose names begin with `name` (`prefixed`).

    `owner` is the stream that needs it, empty if the commands need it for all; `why` is the purpose. `pattern` is the
    stream's, if the permission is about all topics that it matches.
    """

    owner: str
    kind: ResourceKind
    name: str
    operation: Operation
    why: str
    prefixed: bool = False
    pattern: str | None = None

    @property
    def resource(self) -> tuple[ResourceKind, str, bool]:
        """Kind, name and `prefixed`, which identify the resource."""
        return self.kind, self.name, self.prefixed


def needed(settings: Settings, role: Role) -> list[Acl]:
    """Return what a principal needs for a role, without duplicates, in the order of the streams."""
    wanted = _of_worker if role == "worker" else _of_commands
    found = [acl for stream in settings.streams for acl in wanted(stream)]
    if role == "dead_letters":
        found += _of_all_commands()
    once: dict[tuple[Any, ...], Acl] = {}
    for acl in found:
        once.setdefault((*acl.resource, acl.operation, acl.pattern), acl)
    return list(once.values())


def _of_worker(stream: StreamSettings) -> Iterator[Acl]:
    name, rules = stream.name, stream.dead_letters.redrive
    exact = stream.delivery.guarantee == "exactly_once"
    for topic in stream.topics:
        yield Acl(name, "topic", topic, "Read", "events")
    if stream.pattern is not None:
        prefix = literal_prefix(stream.pattern)
        yield Acl(name, "topic", prefix or ANY, "Read", "events", bool(prefix), stream.pattern)
    for topic, what in ((stream.outcomes.topic, "outcomes"), (stream.dead_letters.topic, "dead letters")):
        yield Acl(name, "topic", topic, "Write", what)
        yield Acl(name, "topic", topic, "DescribeConfigs", f"how large {what} may be")
        if stream.create_topics.enabled:
            yield Acl(name, "topic", topic, "Create", "its creation")
    yield Acl(name, "topic", stream.outcomes.topic, "Read", "what was settled, where Kafka forgot the progress")
    yield Acl(name, "topic", stream.redrive_topic, "Read", "records sent again")
    if rules:
        yield Acl(name, "topic", stream.dead_letters.topic, "Read", "dead letters that rules send again")
        yield Acl(name, "topic", stream.redrive_topic, "Write", "records that rules send again")
        yield Acl(name, "topic", stream.redrive_topic, "DescribeConfigs", "how large records sent again may be")
        if stream.create_topics.enabled:
            yield Acl(name, "topic", stream.redrive_topic, "Create", "its creation")
    yield Acl(name, "group", stream.group, "Read", "membership and progress")
    for rule in rules:
        yield Acl(name, "group", stream.redrive_group(rule.name), "Read", f"progress of rule {rule.name}")
    if exact or rules:
        yield Acl(name, "transactional_id", f"{stream.group}.", "Write", "one id for each worker", prefixed=True)


def _of_commands(stream: StreamSettings) -> Iterator[Acl]:
    name, letters = stream.name, stream.dead_letters.topic
    parking = parking_topic(letters)
    yield Acl(name, "topic", letters, "Read", "reading and redriving dead letters")
    yield Acl(name, "topic", letters, "Write", "import")
    yield Acl(name, "topic", stream.redrive_topic, "Read", "what was sent again already")
    yield Acl(name, "topic", stream.redrive_topic, "Write", "redrive")
    yield Acl(name, "topic", stream.redrive_topic, "DescribeConfigs", "how large records sent again may be")
    yield Acl(name, "topic", stream.outcomes.topic, "Read", "what became of origins")
    yield Acl(name, "topic", stream.outcomes.topic, "Write", "accept")
    yield Acl(name, "topic", parking, "Write", "park")
    yield Acl(name, "topic", parking, "DescribeConfigs", "how large records set aside may be")
    if stream.create_topics.enabled:
        yield Acl(name, "topic", stream.redrive_topic, "Create", "its creation")
        yield Acl(name, "topic", parking, "Create", "its creation")
    for rule in stream.dead_letters.redrive:
        yield Acl(name, "group", stream.redrive_group(rule.name), "Describe", f"how far rule {rule.name} has come")


def _of_all_commands() -> Iterator[Acl]:
    yield Acl("", "group", CLIENT_ID, "Describe", "readers outside of any group")
    for prefix, what in ((REDRIVE_PREFIX, "redrive"), (IMPORT_PREFIX, "import")):
        yield Acl("", "group", prefix, "Read", f"progress of each {what}", prefixed=True)
        yield Acl("", "transactional_id", prefix, "Write", f"each {what}", prefixed=True)


def literal_prefix(pattern: str) -> str:
    """Return the prefix of all topics that a pattern (`^...`) matches; empty if it cannot be determined."""
    if _has_alternatives(pattern):
        return ""
    at, prefix = 1, ""
    while found := _LITERAL.match(pattern, at):
        prefix += found[0][-1]
        at = found.end()
    return prefix


def _has_alternatives(pattern: str) -> bool:
    """Return whether a pattern has alternatives outside of parentheses; True if uncertain."""
    depth = 0
    for character in re.sub(r"\\.|\[[^\]]*\]", "", pattern):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "|" and depth == 0:
            return True
    return False


# ------------------------------------------------------------------ output formats


def _by_resource(acls: Iterable[Acl]) -> Iterator[tuple[Acl, list[Operation]]]:
    """Yield each resource, as one of its entries, with all operations on it."""
    for _, group in groupby(sorted(acls, key=lambda acl: acl.resource), key=lambda acl: acl.resource):
        entries = list(group)
        yield entries[0], list(dict.fromkeys(acl.operation for acl in entries))


def commands(acls: Iterable[Acl], *, bootstrap_servers: str, principal: str) -> list[str]:
    """Return `kafka-acls.sh` commands that allow all this."""
    lines = []
    for acl, operations in _by_resource(acls):
        words = ["kafka-acls.sh", "--bootstrap-server", bootstrap_servers, "--add", "--allow-principal", principal]
        for operation in operations:
            words += ["--operation", operation]
        words += [f"--{acl.kind.replace('_', '-')}", acl.name]
        words += ["--resource-pattern-type", "prefixed"] if acl.prefixed else []
        lines.append(shlex.join(words))
    return lines


def strimzi(acls: Iterable[Acl]) -> list[dict[str, Any]]:
    """Return the list for `spec.authorization.acls` of a Strimzi `KafkaUser`."""
    return [
        {
            "resource": {
                "type": "transactionalId" if acl.kind == "transactional_id" else acl.kind,
                "name": acl.name,
                "patternType": "prefix" if acl.prefixed else "literal",
            },
            "operations": operations,
        }
        for acl, operations in _by_resource(acls)
    ]


def principal_of(settings: Settings) -> str:
    """Return the principal for the brokers, as far as the settings show it."""
    return f"User:{settings.kafka.security.username or 'connector'}"
