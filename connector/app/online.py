"""`check --online`: asks brokers, schema registry and platform what a start would need; sends and consumes nothing."""

import asyncio
import logging
from collections.abc import Iterator

import msgspec

from connector.config.findings import Finding
from connector.config.secrets import Secrets
from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.kafka import configs
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.publisher import TransactionalPublisher
from connector.kafka.topics import Topics
from connector.shaping.decoded import FormatAwayError
from connector.shaping.formats import registry_of
from connector.stream.stream import client_options
from connector.trackly.client import Client

_ASKED_SECS = 10.0
BROKER, PLATFORM = 3, 6
"""Exit codes of the command: no broker answered, the platform refused."""


def check_online(settings: Settings) -> list[Finding]:
    """Return what was seen, the brokers first; what cannot be asked without a broker is left out then."""
    logging.getLogger("librdkafka").setLevel(logging.CRITICAL)  # each finding says what failed, once
    findings = list(_kafka(settings))
    return [*findings, *_registry(settings), *asyncio.run(_platform(settings))]


def _kafka(settings: Settings) -> Iterator[Finding]:
    config = configs.common(settings.kafka, "trackly-connector-check")
    topics = Topics(config, min(settings.kafka.request_timeout_secs, _ASKED_SECS))
    try:
        topics.facts([])
    except KafkaTroubleError as error:
        way_out = "see that kafka.bootstrap_servers and kafka.security are right and the brokers can be reached"
        yield Finding("brokers", False, f"{settings.kafka.bootstrap_servers}: {error}", way_out, BROKER)
        return
    yield Finding("brokers", True, settings.kafka.bootstrap_servers)
    for stream in settings.streams:
        yield from _topics(topics, stream)
        if stream.delivery.guarantee == "exactly_once":
            yield _transactions(settings, stream)


def _topics(topics: Topics, stream: StreamSettings) -> Iterator[Finding]:
    outputs = [stream.outcomes.topic, stream.dead_letters.topic]
    if stream.dead_letters.redrive:
        outputs.append(stream.redrive_topic)
    for name, facts in topics.facts([*stream.topics, *outputs]).items():
        what = f"{stream.name}: topic {name}"
        if facts is not None:
            yield Finding(what, True, f"{facts.partitions} partitions, records up to {facts.max_message_bytes:,} bytes")
        elif name in outputs and stream.create_topics.enabled:
            yield Finding(what, True, "does not exist; will be created")
        else:
            yield Finding(what, False, "does not exist", "create it, or for results set create_topics.enabled: true")


def _transactions(settings: Settings, stream: StreamSettings) -> Finding:
    """Try a transactional id of the check's own, so that no worker is fenced."""
    what = f"{stream.name}: transactions"
    transactional_id = f"{stream.group}.check"
    config = configs.producer(settings.kafka, client_id="trackly-connector-check", transactional_id=transactional_id)
    publisher = TransactionalPublisher(config)
    try:
        publisher.start(_ASKED_SECS)
    except KafkaTroubleError as error:
        way_out = (
            f"allow the principal to Write and Describe transactional ids with the prefix {stream.group}., "
            "or set delivery.guarantee: at_least_once"
        )
        return Finding(what, False, str(error), way_out)
    finally:
        publisher.close()
    return Finding(what, True, "allowed")


def _registry(settings: Settings) -> Iterator[Finding]:
    registry = registry_of(settings, Secrets(settings))
    if registry is None:
        return
    try:
        registry.ping()
    except FormatAwayError as error:
        way_out = "see that schema_registry.url, credentials and tls are right and the registry can be reached"
        yield Finding("schema registry", False, str(error), way_out)
    else:
        yield Finding("schema registry", True, f"{registry.url}: answers")
    finally:
        registry.close()


class _List(msgspec.Struct):
    phone_number: str = ""
    status: str = ""


class _Lists(msgspec.Struct):
    lists: list[_List] = []


async def _platform(settings: Settings) -> list[Finding]:
    stream = settings.streams[0]
    secrets = Secrets(settings)
    client = Client(client_options(settings.trackly, stream), lambda: secrets.api_key().get_secret_value())
    try:
        reply = await client.lists()
    finally:
        await client.close()
    where = settings.trackly.base_url
    if reply.kind != "answered":
        way_out = "see that trackly.base_url, proxy and tls are right and the platform can be reached"
        return [Finding("platform", False, f"{where}: {reply.trouble}: {reply.text}", way_out, PLATFORM)]
    if not reply.ok:
        way_out = {
            401: "trackly.api_key is not known to the platform",
            403: "the account is suspended, or a gateway refuses us",
            404: "trackly.base_url leads nowhere; it ends in /api/v2 on the platform",
        }.get(reply.status, "ask the platform's support")
        return [Finding("platform", False, f"{where}: HTTP {reply.status}", way_out, PLATFORM)]
    findings = [Finding("platform", True, f"{where}: the key is accepted")]
    try:
        known = {entry.phone_number: entry.status for entry in msgspec.json.decode(reply.text, type=_Lists).lists}
    except msgspec.MsgspecError:
        return findings
    for each in settings.streams:
        # The platform shows a page of lists at a time: one that is not on the first proves nothing.
        if each.list_number is not None and known and len(known) < 100:
            status = known.get(each.list_number)
            seen = "is not among the account's lists" if status is None else f"is {status or 'there'}"
            ok = status in ("active", "")
            findings.append(
                Finding(
                    f"{each.name}: list {each.list_number}",
                    ok,
                    seen,
                    "set list_number to an active list of the account",
                    PLATFORM,
                )
            )
    return findings
