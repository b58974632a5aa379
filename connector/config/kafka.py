"""How to reach Kafka, and which librdkafka properties an operator may not set.

Properties that are passed through solve anybody's special cases. So only those are rejected that the guarantee depends
on (commits, transactions, ordering), that the connector sets itself, or that have a typed setting; each with the
reason, because "not allowed" alone does not help.
"""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field

from connector.config.hosts import check_servers
from connector.config.model import FilePath, Model, Seconds, Secret

SERVERS: Final = r"^\s*[^\s,]+(\s*,\s*[^\s,]+)*\s*$"

Properties = dict[str, str | int | float | bool]

PROPERTY_GROUPS: Final = ("properties", "consumer_properties", "producer_properties")
"""Settings that contain librdkafka's properties."""

_OURS = "is set by the connector"
_PROGRESS = "progress is committed by the connector inside its transactions; any other way would lose records"
_EXACT = "the guarantee depends on it; the connector sets it"

REFUSED: Final[dict[str, str]] = {
    "bootstrap.servers": "use kafka.bootstrap_servers",
    "metadata.broker.list": "use kafka.bootstrap_servers",
    "group.id": "use streams[].group_id",
    "group.instance.id": "use instance_id",
    "group.protocol": "use kafka.group_protocol",
    "logger": f"{_OURS}; see log",
    "client.id": f"{_OURS}, from the stream and the instance id",
    "session.timeout.ms": "use kafka.session_timeout_secs",
    "heartbeat.interval.ms": "use kafka.heartbeat_interval_secs",
    "max.poll.interval.ms": "use kafka.max_poll_interval_secs",
    "transaction.timeout.ms": "use kafka.transaction_timeout_secs",
    "enable.auto.commit": _PROGRESS,
    "auto.commit.enable": _PROGRESS,
    "auto.commit.interval.ms": _PROGRESS,
    "enable.auto.offset.store": _PROGRESS,
    "auto.offset.reset": "use streams[].start and streams[].on_missing; librdkafka's own reset skips records silently",
    "isolation.level": "must stay read_committed, so that a new owner waits for a pending tick",
    "partition.assignment.strategy": "must stay cooperative-sticky, so that retained partitions continue",
    "enable.partition.eof": _OURS,
    "transactional.id": f"{_OURS}, from the stream and the instance id; it fences a worker that was replaced",
    "enable.idempotence": _EXACT,
    "acks": _EXACT,
    "request.required.acks": _EXACT,
    "retries": _EXACT,
    "message.send.max.retries": _EXACT,
    "enable.gapless.guarantee": _EXACT,
    "delivery.timeout.ms": "follows kafka.transaction_timeout_secs",
    "message.timeout.ms": "follows kafka.transaction_timeout_secs",
    "security.protocol": "use kafka.security.protocol",
    "sasl.mechanism": "use kafka.security.sasl_mechanism",
    "sasl.mechanisms": "use kafka.security.sasl_mechanism",
    "sasl.username": "use kafka.security.username",
    "sasl.password": "use kafka.security.password",
    "ssl.ca.location": "use kafka.security.ca_file",
    "ssl.certificate.location": "use kafka.security.cert_file",
    "ssl.key.location": "use kafka.security.key_file",
    "ssl.key.password": "use kafka.security.key_password",
    "ssl.endpoint.identification.algorithm": "use kafka.security.verify_hostname",
}
"""Properties that are rejected in all groups, and what to do instead."""

REFUSED_PREFIXES: Final[dict[str, str]] = {
    "test.": "belongs to librdkafka's own tests",
    "go.": "belongs to the Go client",
}

_MAX_IN_FLIGHT: Final = frozenset({"max.in.flight", "max.in.flight.requests.per.connection"})
_MAX_IN_FLIGHT_LIMIT: Final = 5  # librdkafka's own limit for an idempotent producer, which keeps the order of records
_FITTING_IN_FLIGHT: Final = frozenset(str(number) for number in range(1, _MAX_IN_FLIGHT_LIMIT + 1))


def refusal(name: str, value: str | float | bool) -> str | None:
    """Return why a librdkafka property may not be set (to this value), None if it may."""
    if reason := REFUSED.get(name):
        return f"may not be set here: {reason}"
    for prefix, reason in REFUSED_PREFIXES.items():
        if name.startswith(prefix):
            return f"may not be set here: {reason}"
    if name in _MAX_IN_FLIGHT and str(value) not in _FITTING_IN_FLIGHT:
        return f"must be a whole number from 1 to {_MAX_IN_FLIGHT_LIMIT}; more would let records be reordered"
    return None


class SecuritySettings(Model):
    """Encryption and authentication of the connections to the brokers."""

    protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    """Encryption and authentication, as required by the brokers' listener."""
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] | None = None
    """How to authenticate with a sasl protocol. OAUTHBEARER takes its details from `kafka.properties`
    (`sasl.oauthbearer.*`)."""
    username: str | None = Field(default=None, min_length=1)
    """User for PLAIN and SCRAM."""
    password: Secret | None = Field(default=None, min_length=1)
    """Password for PLAIN and SCRAM. Give it by reference."""
    ca_file: FilePath | None = None
    """PEM file of the certificate authorities for the brokers; the system's own when left out."""
    cert_file: FilePath | None = None
    """PEM file of the client's certificate; needs `key_file`."""
    key_file: FilePath | None = None
    """PEM file of the client's private key; needs `cert_file`."""
    key_password: Secret | None = Field(default=None, min_length=1)
    """Password of `key_file`. Give it by reference."""
    verify_hostname: bool = True
    """Whether the broker's certificate must match the host name of the connection."""


class KafkaSettings(Model):
    """The brokers, the group's timing, and properties passed through to librdkafka."""

    bootstrap_servers: Annotated[str, Field(pattern=SERVERS), AfterValidator(check_servers)]
    """Brokers to start from: `host:port`, several separated by commas."""
    group_protocol: Literal["classic", "consumer"] = "classic"
    """The rebalance protocol: `classic` (cooperative-sticky, static membership) or `consumer` (KIP-848, Kafka 4.0 and
    later; a killed worker keeps its partitions for the broker's session timeout)."""
    session_timeout_secs: Seconds = 10.0
    """How long a silent worker keeps its partitions, in seconds. With `group_protocol: consumer` the broker's own
    setting applies instead (`group.consumer.session.timeout.ms`), which this one must not exceed: it also limits how
    long after its tick a post may start."""
    heartbeat_interval_secs: Seconds = 3.0
    """How often a worker sends a heartbeat, in seconds."""
    max_poll_interval_secs: Seconds = 300.0
    """How long a worker may go without polling before the group drops it, in seconds."""
    transaction_timeout_secs: Annotated[float, Field(ge=1, le=900)] = 10.0
    """How long the broker keeps the open transaction of a worker that died, in seconds; `read_committed` consumers of
    the outcome topic wait for it. At most the broker's `transaction.max.timeout.ms` (15 minutes by default)."""
    startup_timeout_secs: Seconds = 60.0
    """How long to try to reach a broker at start before giving up, in seconds."""
    request_timeout_secs: Seconds = 10.0
    """How long one call to the brokers may take, in seconds; for requests that only read, a single broker has half of
    that before another one is tried."""
    security: SecuritySettings = Field(default_factory=SecuritySettings)
    """Encryption and authentication."""
    properties: Properties = Field(default_factory=dict, repr=False)
    """librdkafka properties for consumers and producers. Those that the guarantee depends on are rejected by name."""
    consumer_properties: Properties = Field(default_factory=dict, repr=False)
    """librdkafka properties for consumers only; they override `properties`."""
    producer_properties: Properties = Field(default_factory=dict, repr=False)
    """librdkafka properties for producers only; they override `properties`."""

    @property
    def post_within_secs(self) -> float:
        """How long after its tick a post may start, in seconds: the session timeout less two heartbeats."""
        return self.session_timeout_secs - 2 * self.heartbeat_interval_secs
