"""What must fit together: rules that no single setting can break alone.

Time limits form chains (a request must end before the drain, the drain before the grace period), topics must not
feed on themselves, and settings that would do nothing are refused, because whoever wrote them expected something.
Each rule gives its sum in the message, and names the settings it looked at: when one of those is wrong already, the
rule has nothing to say.
"""

import difflib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from connector.config.certificates import flaws
from connector.config.formats import PACKAGE, FormatSettings, RegistryTlsSettings, reader_schema
from connector.config.kafka import KafkaSettings, SecuritySettings, refusal
from connector.config.mapping import MappingSettings
from connector.config.model import E164
from connector.config.problems import Fault, KeyPath, dotted
from connector.config.settings import Settings, TraceSettings
from connector.config.streams import StreamSettings
from connector.config.trackly import TlsSettings, is_loopback
from connector.core.reasons import REASONS
from connector.hooks import InvalidTransformError, load_transform
from connector.mapping.mapping import InvalidMappingError, compile_mapping

TICK_ALLOWANCE_SECS: Final = 1.0
"""What the last tick of a drain may take: a small tick takes 6-13 ms, one that waits for a rebalance some hundred."""

SOCKET_TIMEOUT_MARGIN_MS: Final = 100
"""librdkafka wants `socket.timeout.ms` at least this much below `transaction.timeout.ms`."""


_REGISTRY: Final[KeyPath] = ("schema_registry",)


RULES: Final = (
    "`trackly.timeouts.connect_secs` <= `trackly.timeouts.total_secs`",
    "`trackly.timeouts.total_secs` + 1 s for the last tick <= `streams[].delivery.drain_secs` < `shutdown.grace_secs`",
    "`streams[].delivery.drain_secs` < `kafka.max_poll_interval_secs`",
    "`streams[].delivery.drain_secs` + `streams[].batch.window_ms` < `health.stalled_secs`",
    "2 x `kafka.heartbeat_interval_secs` < `kafka.session_timeout_secs` <= `kafka.max_poll_interval_secs`",
    "`streams[].delivery.tick_interval_ms` < `kafka.session_timeout_secs` less two heartbeats (when a post must start)",
    "`trackly.idle_connection_secs` < `trackly.platform_idle_secs`",
    "`socket.timeout.ms`, where set for producers, <= `kafka.transaction_timeout_secs` less 100 ms",
    "`streams[].batch.window_ms` < `streams[].delivery.max_age_secs`, in bulk mode",
    "`streams[].batch.max_records` <= `delivery.max_in_flight_records` and `delivery.max_tick_records` of the stream",
    "`streams[].concurrency.min` <= `concurrency.max`; each wait <= its longest wait",
    "no code in both `streams[].retry.transient_codes` and `setting_codes`",
    "a stream reads `topics` or a `pattern`, and never its own outcomes or dead letters, which are two topics",
    "the dead-letter topic of a stream is not the outcome topic of another; an output may be another stream's input",
    "no stream reads or writes the redrive topic of another (`<name>.redrive`)",
    "`dead_letters.redrive`: unique names; known reasons, none twice or `in_doubt`; and `guarantee: exactly_once`",
    "names and groups of streams are unique",
    "`mode: single` is not for history; `list_number_placement: top_level` is for bulk sends only",
    "`list_number`, `history`, `revenue` and `contacts` only where the operation uses them; `revenue.imported` in bulk",
    "`pace` only with `operation: send`",
    "every expression and template of `mapping` compiles, and `transform` names a function that is there",
    "a mapping looks at `attributes` only where the stream, or an override of it, has `format: cloudevents`",
    "`mapping.list_number` only where the operation has a list, `mapping.max_segments` only with `operation: send`",
    "`mapping.fields`, with an override laid over it, makes all that each event of the operation must have",
    "what `mapping.fields` makes the same of all records passes; its names do where `unknown_fields` are rejected",
    "the lists that `mapping.list_number` names itself (`table`, `default`, `const`) are E.164 numbers",
    "a list is chosen by `mapping.list_number` or by a field `list_number`, an override laid over the stream's mapping",
    "an entry of `overrides` names topics that the stream reads, by name or by pattern, and changes something",
    "sasl protocols need a mechanism, PLAIN and SCRAM a user and a password, OAUTHBEARER its properties",
    "a certificate needs its key, and the other way round; named files must be readable, and of use to TLS",
    "librdkafka, on which a trial without a broker is made, takes all properties and files",
    "`traces.enabled` takes the extra `otel`",
    "`traces.endpoint` with `traces.headers` is https, unless it stays on this machine or is allowed",
    "`avro`, `protobuf` and `json_schema` need `schema_registry` and their extra; what one format uses, with it alone",
    "`schema_registry`: a user and its password, or a token, over https unless it stays on this machine or is allowed",
    "`schema_registry.timeout_secs` < `kafka.max_poll_interval_secs`",
    "`trackly.base_url` is https, unless it stays on this machine or `trackly.allow_plain_http` is set",
)
"""The rules of this module for the reference page, in the words of an operator."""


def conflicts(settings: Settings) -> Iterator[Fault]:
    """Yield everything in the settings that does not fit together. Looks for the named files, too."""
    yield from _kafka(settings.kafka)
    yield from _properties(settings.kafka)
    yield from _security(settings.kafka)
    yield from _trackly(settings)
    yield from _registry(settings)
    yield from _files(settings)
    yield from _traces(settings.traces)
    for index, stream in enumerate(settings.streams):
        at: KeyPath = ("streams", index)
        yield from _drain(settings, stream, at)
        yield from _amounts(settings, stream, at)
        yield from _topics(stream, at)
        yield from _operation(stream, at)
        yield from _redrive(stream, at)
        yield from _shaping(stream, at)
    for path, chosen in _formats(settings):
        yield from _format(settings, chosen, path)
    yield from _among_streams(settings.streams)


def number(value: float) -> str:
    """Write a number without a needless fraction or exponent."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _kafka(kafka: KafkaSettings) -> Iterator[Fault]:
    heartbeat, session = kafka.heartbeat_interval_secs, kafka.session_timeout_secs
    at_heartbeat, at_session = ("kafka", "heartbeat_interval_secs"), ("kafka", "session_timeout_secs")
    if 2 * heartbeat >= session:
        yield Fault(
            at_session,
            f"must be above two heartbeats (2 x {number(heartbeat)} = {number(2 * heartbeat)}); is {number(session)}",
            (at_heartbeat,),
        )
    if session > kafka.max_poll_interval_secs:
        yield Fault(
            ("kafka", "max_poll_interval_secs"),
            f"must be at least session_timeout_secs ({number(session)}); is {number(kafka.max_poll_interval_secs)}",
            (at_session,),
        )


def _properties(kafka: KafkaSettings) -> Iterator[Fault]:
    groups = {
        "properties": kafka.properties,
        "consumer_properties": kafka.consumer_properties,
        "producer_properties": kafka.producer_properties,
    }
    for group, properties in groups.items():
        for name, value in properties.items():
            if reason := refusal(name, value):
                yield Fault(("kafka", group, name), reason)
        limit = kafka.transaction_timeout_secs * 1_000 - SOCKET_TIMEOUT_MARGIN_MS
        socket = properties.get("socket.timeout.ms")
        beaten = group == "properties" and "socket.timeout.ms" in kafka.producer_properties
        if group != "consumer_properties" and not beaten and isinstance(socket, int | float) and socket > limit:
            yield Fault(
                ("kafka", group, "socket.timeout.ms"),
                f"must be at most transaction_timeout_secs less {SOCKET_TIMEOUT_MARGIN_MS} ms "
                f"({number(kafka.transaction_timeout_secs * 1_000)} - {SOCKET_TIMEOUT_MARGIN_MS} = {number(limit)}); "
                f"is {number(socket)}",
                (("kafka", "transaction_timeout_secs"),),
            )


def _security(kafka: KafkaSettings) -> Iterator[Fault]:
    security = kafka.security
    at: KeyPath = ("kafka", "security")
    looked_at = ((*at, "protocol"), (*at, "sasl_mechanism"))
    with_sasl = security.protocol.startswith("sasl_")
    if with_sasl and security.sasl_mechanism is None:
        yield Fault((*at, "sasl_mechanism"), f"is required with protocol {security.protocol}", looked_at)
    if security.sasl_mechanism is not None and not with_sasl:
        yield Fault(
            (*at, "sasl_mechanism"), f"does nothing with protocol {security.protocol}; use a sasl protocol", looked_at
        )
    yield from _credentials(security, at, looked_at)
    if with_sasl and security.sasl_mechanism == "OAUTHBEARER" and not _has_oauth(kafka):
        yield Fault(
            (*at, "sasl_mechanism"),
            "OAUTHBEARER needs its details in kafka.properties (sasl.oauthbearer.method, "
            "sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.id, ...)",
            (*looked_at, ("kafka", "properties")),
        )
    yield from _key_pair(at, cert=security.cert_file, key=security.key_file)
    if security.key_password is not None and security.key_file is None:
        yield Fault((*at, "key_password"), "needs key_file", ((*at, "key_file"),))
    if "ssl" not in security.protocol:
        for name in ("ca_file", "cert_file", "key_file"):
            if getattr(security, name) is not None:
                yield Fault(
                    (*at, name), f"does nothing with protocol {security.protocol}; use ssl or sasl_ssl", looked_at
                )


def _credentials(security: SecuritySettings, at: KeyPath, looked_at: tuple[KeyPath, ...]) -> Iterator[Fault]:
    mechanism = security.sasl_mechanism
    wanted = mechanism is not None and mechanism != "OAUTHBEARER"
    for name in ("username", "password"):
        given = getattr(security, name) is not None
        if wanted and not given:
            yield Fault((*at, name), f"is required with {mechanism}", looked_at)
        if given and not wanted:
            reason = f"does nothing with {mechanism}" if mechanism else "needs sasl_mechanism PLAIN or SCRAM"
            yield Fault((*at, name), reason, looked_at)


def _has_oauth(kafka: KafkaSettings) -> bool:
    names = [*kafka.properties, *kafka.consumer_properties, *kafka.producer_properties]
    return any("oauthbearer" in name for name in names)


def _key_pair(at: KeyPath, *, cert: Path | None, key: Path | None) -> Iterator[Fault]:
    if cert is not None and key is None:
        yield Fault((*at, "key_file"), "is required with cert_file", ((*at, "cert_file"),))
    if key is not None and cert is None:
        yield Fault((*at, "cert_file"), "is required with key_file", ((*at, "key_file"),))


def _tls(at: KeyPath, tls: TlsSettings | RegistryTlsSettings) -> Iterator[Fault]:
    yield from _key_pair(at, cert=tls.cert_file, key=tls.key_file)
    for flaw in flaws(tls.ca_file, tls.cert_file, tls.key_file):
        yield Fault((*at, flaw.setting), flaw.message)


def _trackly(settings: Settings) -> Iterator[Fault]:
    trackly = settings.trackly
    at: KeyPath = ("trackly",)
    if trackly.base_url.startswith("http://") and not (trackly.allow_plain_http or is_loopback(trackly.base_url)):
        yield Fault(
            (*at, "base_url"),
            "must be https, since plain http shows the API key and every phone number on the way; for a test set-up, "
            "set trackly.allow_plain_http: true",
            ((*at, "allow_plain_http"),),
        )
    yield from _tls((*at, "tls"), trackly.tls)
    connect, total = trackly.timeouts.connect_secs, trackly.timeouts.total_secs
    if connect > total:
        yield Fault(
            (*at, "timeouts", "connect_secs"),
            f"must be at most total_secs ({number(total)}); is {number(connect)}",
            ((*at, "timeouts", "total_secs"),),
        )
    if trackly.idle_connection_secs >= trackly.platform_idle_secs:
        yield Fault(
            (*at, "idle_connection_secs"),
            f"must be below platform_idle_secs ({number(trackly.platform_idle_secs)}); "
            f"is {number(trackly.idle_connection_secs)}",
            ((*at, "platform_idle_secs"),),
        )


def _registry(settings: Settings) -> Iterator[Fault]:
    registry = settings.schema_registry
    at: KeyPath = ("schema_registry",)
    if registry is None:
        return
    formats = dict(_formats(settings))
    if not any(chosen.needs_registry for chosen in formats.values()):
        yield Fault(at, "does nothing: no stream has a format that needs it", tuple(formats))
    if registry.password is not None and registry.username is None:
        yield Fault((*at, "username"), "is required with password", ((*at, "password"),))
    if registry.username is not None and registry.password is None:
        yield Fault((*at, "password"), "is required with username", ((*at, "username"),))
    if registry.username is not None and registry.token is not None:
        yield Fault((*at, "token"), "must not stand beside username: one of them", ((*at, "username"),))
    has_credentials = registry.password is not None or registry.token is not None
    in_the_clear = registry.url.startswith("http://") and not (registry.allow_plain_http or is_loopback(registry.url))
    if has_credentials and in_the_clear:
        yield Fault(
            (*at, "url"),
            "must be https, since plain http shows the credentials on the way; for a test set-up, set "
            "schema_registry.allow_plain_http: true",
            ((*at, "allow_plain_http"), (*at, "password"), (*at, "token")),
        )
    yield from _tls((*at, "tls"), registry.tls)
    poll = settings.kafka.max_poll_interval_secs
    if registry.timeout_secs >= poll:
        yield Fault(
            (*at, "timeout_secs"),
            f"must be below kafka.max_poll_interval_secs ({number(poll)}); is {number(registry.timeout_secs)}",
            (("kafka", "max_poll_interval_secs"),),
        )


def _traces(traces: TraceSettings) -> Iterator[Fault]:
    at: KeyPath = ("traces",)
    if not traces.enabled:
        return
    if find_spec("opentelemetry") is None:
        yield Fault((*at, "enabled"), "takes the extra otel: pip install 'trackly-connector[otel]'")
    in_the_clear = traces.endpoint.startswith("http://") and not is_loopback(traces.endpoint)
    if traces.headers and in_the_clear and not traces.allow_plain_http:
        yield Fault(
            (*at, "endpoint"),
            "must be https, since plain http shows traces.headers, and any token there, on the way; for a collector on "
            "a network of your own, set traces.allow_plain_http: true",
            ((*at, "enabled"), (*at, "headers"), (*at, "allow_plain_http")),
        )


def _formats(settings: Settings) -> Iterator[tuple[KeyPath, FormatSettings]]:
    """Yield every format of every stream, with its place."""
    for index, stream in enumerate(settings.streams):
        for below, chosen in stream.formats.items():
            yield ("streams", index, *below), chosen


def _format(settings: Settings, chosen: FormatSettings, path: KeyPath) -> Iterator[Fault]:
    kind: tuple[KeyPath, ...] = ((*path, "type"), (*path, "data"))
    if chosen.missing_extra is not None:
        yield Fault(
            path, f"needs an extra of the package: pip install '{PACKAGE}[{chosen.missing_extra}]'", (path, *kind)
        )
    if chosen.needs_registry and settings.schema_registry is None:
        yield Fault(path, f"needs schema_registry, which knows the schemas of {chosen.framed}", (*kind, _REGISTRY))
    for name, needed in (
        ("data", "cloudevents"),
        ("reader_schema_file", "avro"),
        ("message", "protobuf"),
        ("validation", "json_schema"),
    ):
        fits = needed in (chosen.type, chosen.framed)
        if name in chosen.model_fields_set and not fits:
            yield Fault((*path, name), f"does nothing with format {chosen.type}; it is for {needed}", kind)
    file = chosen.reader_schema_file
    if file is not None and file.is_file() and chosen.framed == "avro" and chosen.missing_extra is None:
        try:
            reader_schema(file)
        except ValueError as error:
            yield Fault((*path, "reader_schema_file"), str(error))


def _files(settings: Settings) -> Iterator[Fault]:
    security, tls = settings.kafka.security, settings.trackly.tls
    files: list[tuple[KeyPath, Path | None]] = [
        (("kafka", "security", "ca_file"), security.ca_file),
        (("kafka", "security", "cert_file"), security.cert_file),
        (("kafka", "security", "key_file"), security.key_file),
        (("trackly", "tls", "ca_file"), tls.ca_file),
        (("trackly", "tls", "cert_file"), tls.cert_file),
        (("trackly", "tls", "key_file"), tls.key_file),
    ]
    if settings.schema_registry is not None:
        registry = settings.schema_registry.tls
        files += [
            (("schema_registry", "tls", name), getattr(registry, name)) for name in ("ca_file", "cert_file", "key_file")
        ]
    files += [((*path, "reader_schema_file"), chosen.reader_schema_file) for path, chosen in _formats(settings)]
    for path, file in files:
        if file is None:
            continue
        if not file.is_file():
            yield Fault(path, f"names no file: {file}")
        elif not os.access(file, os.R_OK):
            yield Fault(path, f"may not be read: {file}")


def _drain(settings: Settings, stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    """Request + tick <= drain < grace, and drain < the longest time without a poll: a revoke waits for the drain."""
    drain, total = stream.delivery.drain_secs, settings.trackly.timeouts.total_secs
    grace, poll = settings.shutdown.grace_secs, settings.kafka.max_poll_interval_secs
    path: KeyPath = (*at, "delivery", "drain_secs")
    if total + TICK_ALLOWANCE_SECS > drain:
        yield Fault(
            path,
            f"must be at least trackly.timeouts.total_secs + {number(TICK_ALLOWANCE_SECS)} for the last tick "
            f"({number(total)} + {number(TICK_ALLOWANCE_SECS)} = {number(total + TICK_ALLOWANCE_SECS)}); "
            f"is {number(drain)}",
            (("trackly", "timeouts", "total_secs"),),
        )
    if drain >= grace:
        yield Fault(
            path,
            f"must be below shutdown.grace_secs ({number(grace)}); is {number(drain)}",
            (("shutdown", "grace_secs"),),
        )
    window, stalled = stream.batch.window_ms / 1_000, settings.health.stalled_secs
    if drain + window >= stalled:
        yield Fault(
            ("health", "stalled_secs"),
            f"must be above {dotted((*at, 'delivery', 'drain_secs'))} + {dotted((*at, 'batch', 'window_ms'))} "
            f"({number(drain)} + {number(window)} = {number(drain + window)}), which may pass without progress; "
            f"is {number(stalled)}",
            (path, (*at, "batch", "window_ms")),
        )
    if drain >= poll:
        yield Fault(
            path,
            f"must be below kafka.max_poll_interval_secs ({number(poll)}); is {number(drain)}",
            (("kafka", "max_poll_interval_secs"),),
        )


def _amounts(settings: Settings, stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    delivery, batch, retry = stream.delivery, stream.batch, stream.retry
    window = settings.kafka.post_within_secs
    if 0 < window * 1_000 <= delivery.tick_interval_ms:
        yield Fault(
            (*at, "delivery", "tick_interval_ms"),
            "must be below the session timeout less two heartbeats, within which a post must start after its tick "
            f"({number(window * 1_000)} ms); is {delivery.tick_interval_ms}",
            (("kafka", "session_timeout_secs"), ("kafka", "heartbeat_interval_secs")),
        )
    if stream.mode == "bulk":
        age = delivery.max_age_secs
        if age is not None and batch.window_ms >= age * 1_000:
            yield Fault(
                (*at, "delivery", "max_age_secs"),
                f"must be above batch.window_ms ({number(batch.window_ms / 1_000)}), for which records wait for "
                f"company and grow older; is {number(age)}",
                ((*at, "batch", "window_ms"), (*at, "mode")),
            )
        for name in ("max_in_flight_records", "max_tick_records"):
            limit: int = getattr(delivery, name)
            if batch.max_records > limit:
                yield Fault(
                    (*at, "delivery", name),
                    f"must be at least batch.max_records ({batch.max_records}); is {limit}",
                    ((*at, "batch", "max_records"), (*at, "mode")),
                )
    if stream.concurrency.min > stream.ceiling:
        maximum = "concurrency.max" if stream.concurrency.max else f"the default of max in {stream.mode} mode"
        yield Fault(
            (*at, "concurrency", "min"),
            f"must be at most {maximum} ({stream.ceiling}); is {stream.concurrency.min}",
            ((*at, "concurrency", "max"), (*at, "mode")),
        )
    yield from _rising((*at, "retry"), "backoff_base_secs", "backoff_max_secs", retry)
    yield from _rising((*at, "breaker"), "probe_secs", "probe_max_secs", stream.breaker)
    yield from _rising((*at, "hold"), "probe_secs", "probe_max_secs", stream.hold)
    for code in sorted(set(retry.transient_codes) & set(retry.setting_codes)):
        yield Fault(
            (*at, "retry", "setting_codes"),
            f"has {code}, which is among transient_codes too",
            ((*at, "retry", "transient_codes"),),
        )


def _rising(at: KeyPath, low: str, high: str, owner: object) -> Iterator[Fault]:
    first, last = getattr(owner, low), getattr(owner, high)
    if first > last:
        yield Fault((*at, low), f"must be at most {high} ({number(last)}); is {number(first)}", ((*at, high),))


def _topics(stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    inputs: tuple[KeyPath, ...] = ((*at, "topics"), (*at, "pattern"))
    if bool(stream.topics) == (stream.pattern is not None):
        both = "takes topics or pattern, not both" if stream.topics else "needs topics or pattern"
        yield Fault(at, both, inputs)
    for topic, count in Counter(stream.topics).items():
        if count > 1:
            yield Fault((*at, "topics"), f"names {topic} {count} times")
    if stream.redrive_topic in stream.topics:
        yield Fault(
            (*at, "topics"), f"needs no {stream.redrive_topic}: it is kept for records sent again", ((*at, "name"),)
        )
    outputs: dict[KeyPath, str] = {
        (*at, "outcomes", "topic"): stream.outcomes.topic,
        (*at, "dead_letters", "topic"): stream.dead_letters.topic,
    }
    for path, topic in outputs.items():
        if topic in stream.topics:
            yield Fault(path, "must not be a topic that the stream reads", inputs)
        elif stream.pattern is not None and re.search(stream.pattern, topic):
            yield Fault(path, "must not match the pattern of topics that the stream reads", inputs)
        elif topic == stream.redrive_topic:
            yield Fault(
                path, "must not be the stream's redrive topic: it is kept for records sent again", ((*at, "name"),)
            )
    if stream.outcomes.topic == stream.dead_letters.topic:
        yield Fault((*at, "dead_letters", "topic"), "must differ from outcomes.topic", tuple(outputs))


def _operation(stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    looked_at: tuple[KeyPath, ...] = ((*at, "operation"), (*at, "mode"))
    operation = stream.operation
    if operation == "history" and stream.mode == "single":
        yield Fault((*at, "mode"), "must be bulk: the platform has no single form of history imports", looked_at)
    if stream.list_number_placement == "top_level" and (operation != "send" or stream.mode != "bulk"):
        yield Fault((*at, "list_number_placement"), "top_level is for send in bulk mode only", looked_at)
    has_list = _has_list(stream)
    if stream.list_number is not None and not has_list:
        kind = f" of {stream.history.kind}" if operation == "history" else ""
        yield Fault(
            (*at, "list_number"), f"does nothing: {operation}{kind} has no list", (*looked_at, (*at, "history", "kind"))
        )
    if stream.pace.is_on and operation != "send":
        yield Fault((*at, "pace"), f"does nothing with operation {operation}", looked_at)
    if operation == "revenue" and stream.mode == "single" and stream.revenue.imported:
        yield Fault((*at, "revenue", "imported"), "is for bulk mode only: a single request has no such mark", looked_at)
    for section in ("history", "revenue", "contacts"):
        if section in stream.model_fields_set and operation != section:
            yield Fault((*at, section), f"does nothing with operation {operation}", looked_at)


def _has_list(stream: StreamSettings) -> bool:
    return stream.operation in {"send", "contacts"} or (
        stream.operation == "history" and stream.history.kind == "sends"
    )


def _shaping(stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    yield from _mapping(stream, stream.mapping, (*at, "mapping"))
    yield from _transform(stream.transform, (*at, "transform"))
    for index, over in enumerate(stream.overrides):
        path: KeyPath = (*at, "overrides", index)
        inputs: tuple[KeyPath, ...] = ((*at, "topics"), (*at, "pattern"))
        if bool(over.topics) is (over.pattern is not None):
            yield Fault(path, "must name topics or a pattern" + (", not both" if over.topics else ""))
        if not over.model_fields_set - {"topics", "pattern"}:
            yield Fault(path, "changes nothing")
        for topic in over.topics:
            if not stream.reads(topic):
                yield Fault((*path, "topics"), f"names {topic}, which the stream does not read", inputs)
        if over.mapping is not None:
            fields = {name: spec for name, spec in over.mapping.fields.items() if spec is not None}
            yield from _mapping(stream, over.mapping.model_copy(update={"fields": fields}), (*path, "mapping"))
            yield from _two_lists(stream.mapping, over.mapping, at, (*path, "mapping"))
        yield from _transform(over.transform, (*path, "transform"))


def _mapping(stream: StreamSettings, mapping: MappingSettings | None, at: KeyPath) -> Iterator[Fault]:
    if mapping is None:
        return
    operation: tuple[KeyPath, ...] = ((*at[:2], "operation"),)
    if mapping.list_number is not None and not _has_list(stream):
        yield Fault((*at, "list_number"), f"does nothing: {stream.operation} has no list", operation)
    for below, number in _fixed_lists(mapping.list_number):
        if not (isinstance(number, str) and re.fullmatch(E164, number)):
            yield Fault((*at, "list_number", *below), "must be a list's number in E.164 form, such as +18005551234")
    if mapping.max_segments is not None and stream.operation != "send":
        yield Fault((*at, "max_segments"), f"does nothing with operation {stream.operation}", operation)
    try:
        compiled = compile_mapping(fields=mapping.fields, when=mapping.when, list_number=mapping.list_number)
    except InvalidMappingError as error:
        for flaw in error.flaws:
            yield Fault((*at, *flaw.path), flaw.message, offset=flaw.offset)
        return
    if all(chosen.type != "cloudevents" for chosen in stream.formats.values()):
        formats = tuple((*at[:2], *below) for below in stream.formats)
        for below in compiled.attributes:
            message = (
                "looks at `attributes`, which records have with format cloudevents alone: it would be null with all"
            )
            yield Fault((*at, *below), message, formats)


def _fixed_lists(spec: Any) -> Iterator[tuple[KeyPath, Any]]:
    """Yield the lists that a choice names itself, each by where it stands; null is none."""
    match spec:
        case {"table": dict(table)}:
            if all(isinstance(number, str) for number in table.values()):  # else that is told of the table
                yield from ((("table", name), number) for name, number in table.items())
            if isinstance(spec.get("default"), str):
                yield ("default",), spec["default"]
        case {"from": _, "default": default} if default is not None:
            yield ("default",), default
        case {"const": constant} if constant is not None:
            yield ("const",), constant
        case bool() | int() | float():
            yield (), spec
        case _:
            pass


def _two_lists(base: MappingSettings | None, over: MappingSettings, at: KeyPath, path: KeyPath) -> Iterator[Fault]:
    """Refuse an override by which a list is chosen in two places, one of which is the stream's own mapping."""
    chosen, field = over.list_number is not None, over.fields.get("list_number") is not None
    whole = over.over(base)
    if chosen is field or whole.list_number is None or "list_number" not in whole.fields:
        return  # where both stand in the override, that is told of it alone
    here: KeyPath = ("list_number",) if chosen else ("fields", "list_number")
    there: KeyPath = ("fields", "list_number") if chosen else ("list_number",)
    other = (*at, "mapping", *there)
    yield Fault((*path, *here), f"stands beside {dotted(other)}; null takes that away here", (other, (*path, *there)))


def _transform(name: str | None, at: KeyPath) -> Iterator[Fault]:
    if name is None:
        return
    try:
        load_transform(name)
    except InvalidTransformError as error:
        yield Fault(at, str(error))


def _redrive(stream: StreamSettings, at: KeyPath) -> Iterator[Fault]:
    names: dict[str, int] = {}
    reasons: dict[str, int] = {}
    for index, rule in enumerate(stream.dead_letters.redrive):
        path: KeyPath = (*at, "dead_letters", "redrive", index)
        if names.setdefault(rule.name, index) != index:
            yield Fault((*path, "name"), f"must be unique; {rule.name} is that of rule {names[rule.name]}")
        for place, reason in enumerate(rule.reasons):
            if reason not in REASONS:
                near = difflib.get_close_matches(reason, REASONS, n=1)
                hint = f"; did you mean {near[0]}?" if near else ", and the rule would wait for it in vain"
                yield Fault((*path, "reasons", place), f"is no reason of a dead letter{hint}")
            elif reason == "in_doubt":
                yield Fault((*path, "reasons"), "must not have in_doubt: the platform may have taken such a record")
            elif reasons.setdefault(reason, index) != index:
                yield Fault((*path, "reasons"), f"has {reason}, which is among those of rule {reasons[reason]} too")
        if index == 0 and stream.delivery.guarantee != "exactly_once":
            yield Fault(
                (*at, "dead_letters", "redrive"),
                "needs delivery.guarantee: exactly_once, since each record is sent again once, by a transaction",
                ((*at, "delivery", "guarantee"),),
            )


def _reads_or_writes(stream: StreamSettings, at: KeyPath, topic: str) -> KeyPath | None:
    """Return the setting by which a stream has to do with a topic, None where it has not."""
    if topic in stream.topics:
        return (*at, "topics")
    if stream.pattern is not None and re.search(stream.pattern, topic):
        return (*at, "pattern")
    if topic == stream.outcomes.topic:
        return (*at, "outcomes", "topic")
    return (*at, "dead_letters", "topic") if topic == stream.dead_letters.topic else None


def _among_streams(streams: list[StreamSettings]) -> Iterator[Fault]:
    yield from _unique(streams, "name", lambda stream: stream.name)
    yield from _unique(streams, "group_id", lambda stream: stream.group)
    for index, stream in enumerate(streams):
        for other_index, other_stream in enumerate(streams):
            path = _reads_or_writes(other_stream, ("streams", other_index), stream.redrive_topic)
            if other_index != index and path is not None:
                yield Fault(
                    path,
                    f"must leave {stream.redrive_topic} alone: it is kept for records that {stream.name} sends again",
                    (("streams", index, "name"),),
                )
    outcomes = {stream.outcomes.topic: index for index, stream in reversed(list(enumerate(streams)))}
    for index, stream in enumerate(streams):
        other = outcomes.get(stream.dead_letters.topic)
        if other is not None and other != index:
            other_path: KeyPath = ("streams", other, "outcomes", "topic")
            yield Fault(
                ("streams", index, "dead_letters", "topic"), f"must differ from {dotted(other_path)}", (other_path,)
            )


def _unique(streams: list[StreamSettings], key: str, value_of: Callable[[StreamSettings], str]) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for index, stream in enumerate(streams):
        value = value_of(stream)
        same_name = value in first and streams[first[value]].name == stream.name
        if value in first and (key == "name" or not same_name):  # a name given twice says it all
            other: KeyPath = ("streams", first[value], key)
            looked_at: tuple[KeyPath, ...] = (other, ("streams", first[value], "name"), ("streams", index, "name"))
            yield Fault(("streams", index, key), f"must be unique; {value} is that of {dotted(other[:2])}", looked_at)
        first.setdefault(value, index)
