"""Checks settings with librdkafka: only it knows all of its properties, and which TLS files it can use.

Clients are built as for work, but without addresses, so that nothing is contacted. Which setting is rejected is found
by trying with and without it, because librdkafka says it only as text, often with an internal name.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from connector.config.certificates import flaws
from connector.config.kafka import PROPERTY_GROUPS, KafkaSettings, SecuritySettings, refusal
from connector.config.problems import Fault, KeyPath
from connector.config.settings import Settings
from connector.config.streams import StreamSettings
from connector.kafka import configs

_AT: Final[KeyPath] = ("kafka",)
_TIMES: Final = (
    "session_timeout_secs",
    "heartbeat_interval_secs",
    "max_poll_interval_secs",
    "transaction_timeout_secs",
    "request_timeout_secs",
)
_CLIENT_ID: Final = "trackly-connector-trial"
_ERROR_PREFIX: Final = re.compile(r"^Failed to create [a-z ]+: ")
_TOKEN_URL: Final = "sasl.oauthbearer.token.endpoint.url"  # noqa: S105  (a name)
_TOKEN_BY_HOST: Final = "sasl.oauthbearer.metadata.authentication.type"  # noqa: S105  (a name)
_UNREACHABLE_URL: Final = "http://127.0.0.1:0/"
_MANUAL: Final = "see its CONFIGURATION.md"

_Property = tuple[str, str]
"""A property: its group and its name."""

_QUIET: Final = logging.getLogger("librdkafka.trial")
_QUIET.disabled = True


def refused(settings: Settings) -> Iterator[Fault]:
    """Yield what librdkafka rejects, except properties that are already rejected by name."""
    kafka = settings.kafka
    given: dict[_Property, Any] = {
        (group, name): value
        for group in PROPERTY_GROUPS
        for name, value in getattr(kafka, group).items()
        if refusal(name, value) is None
    }
    if _refusal(settings, _with(kafka, given)) is None:
        return
    plain = _with(kafka, {}).model_copy(update={"security": SecuritySettings()})
    if (text := _refusal(settings, plain)) is not None:
        yield from _of_times(settings, plain, text)
        return
    bare = _with(kafka, {})
    if (text := _refusal(settings, bare)) is not None:
        yield from _of_security(kafka.security, text)
        bare = plain
    yield from _of_properties(settings, bare, given)


def _with(kafka: KafkaSettings, given: Mapping[_Property, Any]) -> KafkaSettings:
    """Return the settings with these properties and no others."""
    groups: dict[str, dict[str, Any]] = {group: {} for group in PROPERTY_GROUPS}
    for (group, name), value in given.items():
        groups[group][name] = value
    return kafka.model_copy(update=groups)


def _of_times(settings: Settings, kafka: KafkaSettings, text: str) -> Iterator[Fault]:
    """Yield which of our own settings causes a rejection: the one whose default value is accepted."""
    refuses = f"leads to a configuration that librdkafka rejects: {text}"
    for name in _TIMES:
        usual = KafkaSettings.model_fields[name].default
        if _refusal(settings, kafka.model_copy(update={name: usual})) is None:
            yield Fault((*_AT, name), refuses, (_AT,))
            return
    for index, stream in enumerate(settings.streams):
        if _refusal_of_stream(kafka, stream) is not None:
            yield Fault(("streams", index, "metadata_refresh_secs"), refuses, (_AT,))


def _of_security(security: SecuritySettings, text: str) -> Iterator[Fault]:
    at: KeyPath = (*_AT, "security")
    password = security.key_password.get_secret_value() if security.key_password is not None else None
    found = list(flaws(security.ca_file, security.cert_file, security.key_file, password=password, may_decrypt=True))
    for name, message in found:
        yield Fault((*at, name), message)
    if not found:
        yield Fault(at, f"is rejected by librdkafka: {text}", (at,))


def _of_properties(settings: Settings, bare: KafkaSettings, given: dict[_Property, Any]) -> Iterator[Fault]:
    """Yield the properties at fault.

    Those that are rejected alone are, unless the others complete them (a keystore needs its password). Among the rest,
    it is the one without which the others are accepted.
    """

    def tried(wanted: set[_Property]) -> str | None:
        return _refusal(settings, _with(bare, {name: value for name, value in given.items() if name in wanted}))

    alone = {name: text for name in given if (text := tried({name})) is not None}
    rest = set(given) - set(alone)
    together = tried(rest)
    rejected: dict[_Property, str] = {}
    for name, text in alone.items():
        if (beside := tried(rest | {name})) is not None:
            rejected[name] = beside if together is None else text
    if together is not None:
        rejected |= {name: together for name in given if name in rest and tried(rest - {name}) is None}
    for name, text in rejected.items():
        yield _fault(name, text, given[name])
    if not rejected and (whole := tried(set(given))) is not None:
        values = " ".join(map(str, given.values()))
        yield Fault(_AT, f"has properties that librdkafka rejects in combination: {_redacted(whole, values)}", (_AT,))


def _fault(name: _Property, text: str, value: object) -> Fault:
    return Fault((*_AT, *name), f"librdkafka rejects it: {_redacted(text, value)}; {_MANUAL}")


def _redacted(text: str, value: object) -> str:
    """Return librdkafka's text without the given value; numbers are not secret."""
    if not isinstance(value, str):
        return text
    for part in sorted({value, *re.split(r"[\s,;]+", value)} - {""}, key=len, reverse=True):
        text = re.sub(rf"(?<![\w.]){re.escape(part)}(?![\w.])", "...", text)
    return text


def _refusal(settings: Settings, kafka: KafkaSettings) -> str | None:
    """Return why a client with these settings cannot be built, None if all can."""
    producer = configs.producer(kafka, client_id=_CLIENT_ID, transactional_id=_CLIENT_ID)
    clients: list[tuple[Callable[[configs.Config], object], configs.Config]] = [
        (AdminClient, configs.asking(kafka, _CLIENT_ID)),
        (Producer, producer),
    ]
    for build, config in clients:
        if (text := _tried(build, config)) is not None:
            return text
    unlike = {stream.metadata_refresh_secs: stream for stream in settings.streams}  # no other difference
    return next(filter(None, (_refusal_of_stream(kafka, stream) for stream in unlike.values())), None)


def _refusal_of_stream(kafka: KafkaSettings, stream: StreamSettings) -> str | None:
    config = configs.consumer(kafka, stream, client_id=_CLIENT_ID, instance_id=_CLIENT_ID)
    return _tried(lambda properties: Consumer(properties).close(), config)


def _tried(build: Callable[[configs.Config], object], config: configs.Config) -> str | None:
    config = {**config, "logger": _QUIET}
    del config["bootstrap.servers"]
    if _TOKEN_URL in config or _TOKEN_BY_HOST in config:
        config[_TOKEN_URL] = _UNREACHABLE_URL  # a client requests its token, with its secret, as soon as it is built
    try:
        build(config)
    except KafkaException as error:
        return _ERROR_PREFIX.sub("", error.args[0].str().strip())
    except (AttributeError, SystemError, TypeError, ValueError):  # values that only code can give, and invalid Unicode
        return "a value of another kind is wanted"
    return None
