"""`check --online`: queries brokers, registry and platform for what a start needs; sends and consumes nothing."""

import asyncio
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

import msgspec

from connector.app.acls import Acl, Role, commands, needed, principal_of
from connector.config.secrets import Secrets
from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.kafka import configs
from connector.kafka.call_thread import first_answer
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.permissions import Permissions
from connector.kafka.publisher import TransactionalPublisher
from connector.kafka.topics import Topics
from connector.shaping.decoded import FormatAwayError
from connector.shaping.formats import open_registry
from connector.telemetry.logging import silence_client
from connector.trackly.client import Client

_ASKED_SECS = 10.0
_CLIENT_ID = "trackly-connector-check"
_NAMED = 3
"""Topics of a pattern that a finding names."""

BROKER, PLATFORM = 3, 6
"""Exit codes of the command: no broker answered; the platform rejected the key, the account or the list.

What may end by itself, such as an outage, is not a rejection: a deployment can be retried unchanged.
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was checked (`name`), whether it is ok, what was seen, and what to do if it is not.

    `exit_code` is the command's if this is the first finding that is not ok. A `warning` does not prevent a start,
    although something is missing; it says what to do as well.
    """

    name: str
    ok: bool
    detail: str
    way_out: str = ""
    exit_code: int = 1
    warning: bool = False


class Failure(NamedTuple):
    """A kind of finding that is not ok: when it applies, what to do, and the exit code of the command.

    Exit code 0 is a warning: `run` would start all the same.
    """

    when: str
    way_out: str
    exit_code: int = 1

    def of(self, name: str, detail: str, *, way_out: str = "") -> Finding:
        """Return the finding; `way_out` is this one with names filled in that only the finding knows."""
        warning = self.exit_code == 0
        return Finding(name, warning, detail, way_out or self.way_out, self.exit_code, warning)


NO_BROKER: Final = Failure(
    "no broker answers; the other Kafka checks are skipped then",
    "check that kafka.bootstrap_servers and kafka.security are right and the brokers can be reached",
    BROKER,
)
NO_ANSWER: Final = Failure(
    "a broker does not answer a request about a topic or a group",
    "check that the brokers are healthy, and try again",
    BROKER,
)
NO_TRANSACTION: Final = Failure(
    "no transaction can be started, although it is allowed", "check that the brokers are healthy, and try again"
)
NO_TOPIC: Final = Failure(
    "a result topic does not exist", "create it: the finding has the command; or set create_topics.enabled: true"
)
NO_SOURCE: Final = Failure(
    "a source topic does not exist, or no topic matches a pattern",
    "none if it will be created later: run waits for it; otherwise fix topics or pattern of the stream",
    0,
)
COMPACTED: Final = Failure(
    "a result topic is compacted",
    "set its cleanup.policy to delete: of results with the same key, compaction keeps only the last",
    0,
)
NOT_CREATED: Final = Failure("a topic cannot be created with these settings", "see create_topics of the stream")
NO_RIGHT: Final = Failure(
    "a Kafka permission is missing", "grant it: the finding has the command; or set delivery.guarantee: at_least_once"
)
NO_REGISTRY: Final = Failure(
    "the schema registry is unavailable",
    "check that schema_registry.url, credentials and tls are right and the registry can be reached",
)
NO_PLATFORM: Final = Failure(
    "the platform does not answer",
    "check that trackly.base_url, proxy and tls are right and the platform can be reached",
)
NOT_NOW: Final = Failure(
    "the platform answers 429 or 5xx",
    "try again later; run starts anyway, and holds until the platform recovers",
)
REFUSALS: Final = {
    401: Failure("the platform answers 401", "trackly.api_key is not known to the platform", PLATFORM),
    403: Failure("the platform answers 403", "the account is suspended, or a gateway blocks us", PLATFORM),
    404: Failure("the platform answers 404", "trackly.base_url is wrong; it ends in /api/v2 on the platform"),
    407: Failure("a proxy answers 407", "put the proxy's user and password into trackly.proxy"),
}
REDIRECTED: Final = Failure(
    "another host answers, with a redirect (3xx)", "set trackly.base_url to the address that answers without a redirect"
)
OTHER_STATUS: Final = Failure(
    "the platform answers with another status",
    "check trackly.base_url, and what is between the connector and the platform; or ask the platform's support",
)
NO_LIST: Final = Failure(
    "a stream's list is not among the account's, or not active",
    "set list_number to an active list of the account",
    PLATFORM,
)
FAILURES: Final = (
    NO_BROKER,
    NO_ANSWER,
    NO_RIGHT,
    NO_TOPIC,
    NO_SOURCE,
    COMPACTED,
    NOT_CREATED,
    NO_TRANSACTION,
    NO_REGISTRY,
    NO_PLATFORM,
    NOT_NOW,
    *REFUSALS.values(),
    REDIRECTED,
    OTHER_STATUS,
    NO_LIST,
)
"""All kinds of findings that are not ok, in the order in which they are checked."""


def check_online(settings: Settings, role: Role = "worker") -> list[Finding]:
    """Return the findings, the brokers' first; without a broker, what depends on one is left out.

    With the role of the commands `dead-letters`, their permissions are checked instead of those of workers.
    """
    silence_client()
    findings = list(_kafka(settings, role))
    return [*findings, *_registry(settings), *asyncio.run(_platform(settings))]


def _kafka(settings: Settings, role: Role) -> Iterator[Finding]:
    config = configs.asking(settings.kafka, _CLIENT_ID)
    timeout = min(settings.kafka.request_timeout_secs, _ASKED_SECS)
    topics = Topics(config, timeout)
    try:
        first_answer(timeout, topics.facts, [])
    except KafkaTroubleError as error:
        yield NO_BROKER.of("brokers", f"{settings.kafka.bootstrap_servers}: {error}")
        return
    yield Finding("brokers", True, settings.kafka.bootstrap_servers)
    asked = _Asked(settings, topics, Permissions(config, timeout))
    for _, group in groupby(needed(settings, role), key=lambda acl: (acl.owner, acl.kind)):
        yield from asked.of(list(group))


class _Asked:
    """Compares what the brokers allow with what is needed, one kind of resource of one stream at a time."""

    def __init__(self, settings: Settings, topics: Topics, permissions: Permissions) -> None:
        self._settings = settings
        self._topics = topics
        self._permissions = permissions
        self._streams = settings.streams_by_name

    def of(self, acls: Sequence[Acl]) -> Iterator[Finding]:
        """Yield findings about permissions of one owner and one kind."""
        by_resource: dict[tuple[str, str, bool], list[Acl]] = {}
        for acl in acls:
            by_resource.setdefault(acl.resource, []).append(acl)
        kind = acls[0].kind
        try:
            if kind == "topic":
                yield from self._of_topics(list(by_resource.values()))
                return
            for rights in by_resource.values():
                yield self._of_group(rights) if kind == "group" else self._of_transactions(rights)
        except KafkaTroubleError as error:
            yield NO_ANSWER.of(_what(acls[0], kind.replace("_", " ")), str(error))

    def _of_topics(self, rights: list[list[Acl]]) -> Iterator[Finding]:
        stream = self._streams[rights[0][0].owner]
        named = [acls for acls in rights if acls[0].pattern is None]
        names = [acls[0].name for acls in named]
        allowed = self._permissions.topics(names)
        facts = self._topics.facts([name for name in names if allowed[name].exists])
        results = {stream.outcomes.topic, stream.dead_letters.topic}
        compacted = self._topics.compacted([name for name, seen in facts.items() if seen and name in results])
        for acls in named:
            name = acls[0].name
            what = _what(acls[0], f"topic {name}")
            if not allowed[name].exists:
                yield self._of_absent(what, stream, acls)
                continue
            wanted = [acl for acl in acls if acl.operation != "Create"]  # a topic that exists need not be created
            lacks = allowed[name].missing([acl.operation for acl in wanted])
            if lacks:
                yield self._lacking(what, [acl for acl in wanted if acl.operation in lacks])
            elif name in compacted:
                yield COMPACTED.of(what, "is compacted")
            elif (seen := facts.get(name)) is not None:
                detail = f"{seen.partitions} partitions, records up to {seen.max_message_bytes:,} bytes"
                yield Finding(what, True, detail)
        for acls in rights:
            for acl in acls:
                if acl.pattern is not None:
                    yield self._of_topics_like(acl, acl.pattern)

    def _of_absent(self, what: str, stream: StreamSettings, acls: Sequence[Acl]) -> Finding:
        """Return the finding for a topic that does not exist, as far as we may see."""
        name = acls[0].name
        create = next((acl for acl in acls if acl.operation == "Create"), None)
        if create is not None:
            settings = stream.create_topics
            refused = self._permissions.refused_creation(
                name, partitions=settings.partitions or 1, replication_factor=settings.replication_factor
            )
            if refused is None:
                return Finding(what, True, "does not exist; will be created")
            if refused.unauthorized:
                return self._lacking(what, [create])
            return NOT_CREATED.of(what, str(refused), way_out=f"see create_topics of {stream.name}")
        if name == stream.redrive_topic and not any(acl.operation == "Write" for acl in acls):
            return Finding(what, True, "does not exist, and is not needed until records are sent again")
        if name not in (*stream.topics, stream.outcomes.topic, stream.dead_letters.topic, stream.redrive_topic):
            return Finding(what, True, "does not exist, and is not needed until something is parked")
        if name in stream.topics:
            return NO_SOURCE.of(what, "does not exist yet")
        (command,) = self._topics.creation_commands(
            [name],
            stream.create_topics,
            partitions=max([1, *self._topics.partitions(stream.topics).values()]),
            bootstrap_servers=self._settings.kafka.bootstrap_servers,
        )
        way_out = f"create it: {command}; or set create_topics.enabled: true"
        return NO_TOPIC.of(what, "does not exist", way_out=way_out)

    def _of_topics_like(self, acl: Acl, pattern: str) -> Finding:
        """Return whether the topics that a pattern matches may be read; topics that may not be seen look missing.

        If there is none, the permissions on a name without a topic show whether any would be seen.
        """
        what = _what(acl, f"topics {pattern}")
        names = [name for name in self._topics.names() if re.search(pattern, name)]
        lacks = [name for name, allowed in self._permissions.topics(names).items() if allowed.missing([acl.operation])]
        unused = f"{acl.name}check" if acl.prefixed else _CLIENT_ID
        if not names and self._permissions.topics([unused])[unused].describable:
            return NO_SOURCE.of(what, "no topic matches yet")
        if lacks or not names:
            seen = f"may not be read: {', '.join(lacks[:_NAMED])}" if lacks else "no visible topic matches"
            return self._lacking(what, [acl], seen=seen)
        return Finding(what, True, f"{len(names)} that may be read")

    def _of_group(self, acls: list[Acl]) -> Finding:
        """Return whether a group may be used; for future groups, an unused name is checked."""
        acl = acls[0]
        name = f"{acl.name}check" if acl.prefixed else acl.name
        allowed = self._permissions.group(name)
        what = _what(acl, f"group {acl.name}{'*' if acl.prefixed else ''}")
        lacks = allowed.missing([acl.operation for acl in acls])
        if lacks:
            return self._lacking(what, [acl for acl in acls if acl.operation in lacks])
        return Finding(what, True, "allowed")

    def _of_transactions(self, acls: list[Acl]) -> Finding:
        """Try a transactional id of the check's own, so that nobody is fenced."""
        acl = acls[0]
        what = _what(acl, "transactions")
        config = configs.producer(self._settings.kafka, client_id=_CLIENT_ID, transactional_id=f"{acl.name}check")
        publisher = TransactionalPublisher(config)
        try:
            publisher.start(_ASKED_SECS)
        except KafkaTroubleError as error:
            if error.unauthorized:
                return self._lacking(what, acls)
            return NO_TRANSACTION.of(what, str(error))
        finally:
            publisher.close()
        return Finding(what, True, "allowed")

    def _lacking(self, what: str, acls: Sequence[Acl], *, seen: str = "") -> Finding:
        """Return the finding that permissions are missing, with the commands that grant them."""
        kind = acls[0].kind.replace("_", " ")
        where = f"{kind}{'s with the prefix' if acls[0].prefixed else ''} {acls[0].name}"
        operations = " and ".join(acl.operation for acl in acls)
        detail = f"{operations} on {where} {'is' if len(acls) == 1 else 'are'} not allowed"
        (command,) = commands(
            acls, bootstrap_servers=self._settings.kafka.bootstrap_servers, principal=principal_of(self._settings)
        )
        way_out = f"allow it: {command}"
        if acls[0].kind == "transactional_id" and acls[0].owner:
            way_out += "; or set delivery.guarantee: at_least_once"
        return NO_RIGHT.of(what, f"{seen}; {detail}" if seen else detail, way_out=way_out)


def _what(acl: Acl, thing: str) -> str:
    return f"{acl.owner}: {thing}" if acl.owner else thing


def _registry(settings: Settings) -> Iterator[Finding]:
    with open_registry(settings) as registry:
        if registry is None:
            return
        try:
            registry.ping()
        except FormatAwayError as error:
            yield NO_REGISTRY.of("schema registry", str(error))
        else:
            yield Finding("schema registry", True, f"{registry.url}: answers")


class _List(msgspec.Struct):
    phone_number: str = ""
    status: str = ""


class _Lists(msgspec.Struct):
    lists: list[_List] = []


async def _platform(settings: Settings) -> list[Finding]:
    secrets = Secrets(settings)
    client = Client(settings.trackly, lambda: secrets.api_key().get_secret_value())
    try:
        reply = await client.lists()
    finally:
        await client.close()
    where = settings.trackly.base_url
    if reply.kind != "answered":
        return [NO_PLATFORM.of("platform", f"{where}: {reply.trouble}: {reply.text}")]
    if not reply.ok:
        if reply.status == 429 or reply.status >= 500:
            failure = NOT_NOW
        else:
            failure = REDIRECTED if reply.status < 400 else REFUSALS.get(reply.status, OTHER_STATUS)
        return [failure.of("platform", f"{where}: HTTP {reply.status}")]
    if reply.foreign:
        return [NO_PLATFORM.of("platform", f"{where}: HTTP {reply.status} with something other than a JSON object")]
    findings = [Finding("platform", True, f"{where}: the key is accepted")]
    try:
        known = {entry.phone_number: entry.status for entry in msgspec.json.decode(reply.text, type=_Lists).lists}
    except msgspec.MsgspecError:
        return findings
    for each in settings.streams:
        # The platform returns one page of lists: a list that is not on the first page may exist.
        if each.list_number is not None and known and len(known) < 100:
            status = known.get(each.list_number)
            seen = "is not among the account's lists" if status is None else f"is {status or 'there'}"
            what = f"{each.name}: list {each.list_number}"
            findings.append(Finding(what, True, seen) if status in ("active", "") else NO_LIST.of(what, seen))
    return findings
