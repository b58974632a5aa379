"""Connections: credentials, what must not be sent unencrypted, and usable files."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, Final

from connector.config.certificates import TlsSettings, flaws
from connector.config.hosts import is_loopback
from connector.config.kafka import PROPERTY_GROUPS, KafkaSettings, Properties, SecuritySettings, refusal
from connector.config.problems import Fault, KeyPath, number
from connector.config.settings import Settings, TraceSettings

SOCKET_TIMEOUT_MARGIN_MS: Final = 100
"""librdkafka requires `socket.timeout.ms` to be at least this much below `transaction.timeout.ms`."""

_FILES: Final = ("ca_file", "cert_file", "key_file")


def faults(settings: Settings) -> Iterator[Fault]:
    """Yield what is wrong with connections. Also checks named files."""
    yield from _properties(settings.kafka)
    yield from _security(settings.kafka)
    yield from _trackly(settings)
    yield from _registry(settings)
    yield from _files(settings)
    yield from _traces(settings.traces)


def _properties(kafka: KafkaSettings) -> Iterator[Fault]:
    limit = kafka.transaction_timeout_secs * 1_000 - SOCKET_TIMEOUT_MARGIN_MS
    for group in PROPERTY_GROUPS:
        properties: Properties = getattr(kafka, group)
        for name, value in properties.items():
            if reason := refusal(name, value):
                yield Fault(("kafka", group, name), reason)
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
            (*at, "sasl_mechanism"), f"has no effect with protocol {security.protocol}; use a sasl protocol", looked_at
        )
    yield from _credentials(security, at, looked_at)
    if with_sasl and security.sasl_mechanism == "OAUTHBEARER" and not _has_oauth(kafka):
        yield Fault(
            (*at, "sasl_mechanism"),
            "OAUTHBEARER needs its details in kafka.properties (sasl.oauthbearer.method, "
            "sasl.oauthbearer.token.endpoint.url, sasl.oauthbearer.client.id, ...)",
            (*looked_at, ("kafka", "properties")),
        )
    yield from _both(at, security, "cert_file", "key_file")
    if security.key_password is not None and security.key_file is None:
        yield Fault((*at, "key_password"), "needs key_file", ((*at, "key_file"),))
    if "ssl" not in security.protocol:
        for name in _FILES:
            if getattr(security, name) is not None:
                yield Fault(
                    (*at, name), f"has no effect with protocol {security.protocol}; use ssl or sasl_ssl", looked_at
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
    return any("oauthbearer" in name for group in PROPERTY_GROUPS for name in getattr(kafka, group))


def _both(at: KeyPath, owner: object, one: str, other: str) -> Iterator[Fault]:
    """Refuse one of two settings that only work together."""
    for given, lacking in ((one, other), (other, one)):
        if getattr(owner, given) is not None and getattr(owner, lacking) is None:
            yield Fault((*at, lacking), f"is required with {given}", ((*at, given),))


def _tls(at: KeyPath, tls: TlsSettings) -> Iterator[Fault]:
    yield from _both(at, tls, "cert_file", "key_file")
    for flaw in flaws(tls.ca_file, tls.cert_file, tls.key_file):
        yield Fault((*at, flaw.setting), flaw.message)


def _trackly(settings: Settings) -> Iterator[Fault]:
    trackly = settings.trackly
    at: KeyPath = ("trackly",)
    if _in_the_clear(trackly.base_url, allowed=trackly.allow_plain_http):
        yield Fault(
            (*at, "base_url"),
            "must be https, since plain http shows the API key and every phone number on the way; for a test set-up, "
            "set trackly.allow_plain_http: true",
            ((*at, "allow_plain_http"),),
        )
    yield from _tls((*at, "tls"), trackly.tls)


def _registry(settings: Settings) -> Iterator[Fault]:
    registry = settings.schema_registry
    at: KeyPath = ("schema_registry",)
    if registry is None:
        return
    if not any(chosen.needs_registry for chosen in settings.formats.values()):
        yield Fault(at, "has no effect: no stream has a format that needs it", tuple(settings.formats))
    yield from _both(at, registry, "username", "password")
    if registry.username is not None and registry.token is not None:
        yield Fault((*at, "token"), "must not be set together with username: use one of them", ((*at, "username"),))
    has_credentials = registry.password is not None or registry.token is not None
    if has_credentials and _in_the_clear(registry.url, allowed=registry.allow_plain_http):
        yield Fault(
            (*at, "url"),
            "must be https, since plain http exposes the credentials; for a test set-up, set "
            "schema_registry.allow_plain_http: true",
            ((*at, "allow_plain_http"), (*at, "password"), (*at, "token")),
        )
    yield from _tls((*at, "tls"), registry.tls)


def _traces(traces: TraceSettings) -> Iterator[Fault]:
    at: KeyPath = ("traces",)
    if not traces.enabled:
        return
    if find_spec("opentelemetry") is None:
        yield Fault((*at, "enabled"), "needs the extra otel: pip install 'trackly-connector[otel]'")
    if traces.headers and _in_the_clear(traces.endpoint, allowed=traces.allow_plain_http):
        yield Fault(
            (*at, "endpoint"),
            "must be https, since plain http shows traces.headers, and any token there, on the way; for a collector on "
            "a network of your own, set traces.allow_plain_http: true",
            ((*at, "enabled"), (*at, "headers"), (*at, "allow_plain_http")),
        )


def _in_the_clear(url: str, *, allowed: bool) -> bool:
    return url.startswith("http://") and not (allowed or is_loopback(url))


def _files(settings: Settings) -> Iterator[Fault]:
    sections: dict[KeyPath, Any] = {
        ("kafka", "security"): settings.kafka.security,
        ("trackly", "tls"): settings.trackly.tls,
    }
    if settings.schema_registry is not None:
        sections["schema_registry", "tls"] = settings.schema_registry.tls
    files = {(*at, name): getattr(section, name) for at, section in sections.items() for name in _FILES}
    files |= {(*path, "reader_schema_file"): chosen.reader_schema_file for path, chosen in settings.formats.items()}
    for path, file in files.items():
        if file is None:
            continue
        if not file.is_file():
            yield Fault(path, f"does not name a file: {file}")
        elif not os.access(file, os.R_OK):
            yield Fault(path, f"cannot be read: {file}")
