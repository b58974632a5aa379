"""Translates settings to librdkafka properties: what we set, and why.

Order of precedence, lowest first: our tuning, the operator's properties, what the guarantee needs. Properties that
would break the guarantee are rejected when the settings are loaded.
"""

import logging
from typing import Any

from connector.config.kafka import KafkaSettings, SecuritySettings
from connector.config.streams import StreamSettings

Config = dict[str, Any]

MAX_BATCH_BYTES = 1_000_000
"""Largest batch that a producer builds for a partition, if the topic accepts it."""

PREFETCH_KBYTES = 8_192
"""librdkafka's prefetch for a consumer; part of the stream's byte budget."""

PRODUCER_QUEUE_KBYTES = 65_536


def common(kafka: KafkaSettings, client_id: str) -> Config:
    """Return the properties of every client of the cluster."""
    return {
        "api.version.request.timeout.ms": _half_ms(kafka),
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2_000,
        # librdkafka's default is to wait half a second before it looks up a coordinator again.
        "retry.backoff.ms": 5,
        "retry.backoff.max.ms": 200,
        "log.connection.close": False,
        "logger": logging.getLogger("librdkafka"),
        **kafka.properties,
        "bootstrap.servers": kafka.bootstrap_servers,
        "client.id": client_id,
        **_security(kafka.security),
    }


def asking(kafka: KafkaSettings, client_id: str) -> Config:
    """Return the properties of a client that only queries.

    It notices a broker that no longer responds (a frozen host) only by a request that is not answered. With half the
    call's timeout per request, a call that meets such a broker has time for another one; with librdkafka's default of
    60 s it would not. Producers and consumers keep the default: a request that is repeated on a new connection and its
    first copy may arrive in either order, and a group accepts both.
    """
    return {"socket.timeout.ms": _half_ms(kafka), **common(kafka, client_id)}


def _half_ms(kafka: KafkaSettings) -> int:
    """Return half the timeout of a call, within the range that librdkafka accepts for both properties."""
    return min(max(int(kafka.request_timeout_secs * 500), 10), 300_000)


def _security(security: SecuritySettings) -> Config:
    given = {
        "sasl.mechanism": security.sasl_mechanism,
        "sasl.username": security.username,
        "sasl.password": security.password and security.password.get_secret_value(),
        "ssl.ca.location": security.ca_file,
        "ssl.certificate.location": security.cert_file,
        "ssl.key.location": security.key_file,
        "ssl.key.password": security.key_password and security.key_password.get_secret_value(),
    }
    config: Config = {name: str(value) for name, value in given.items() if value is not None}
    if security.protocol in {"ssl", "sasl_ssl"}:
        config["ssl.endpoint.identification.algorithm"] = "https" if security.verify_hostname else "none"
    return {"security.protocol": security.protocol, **config}


def consumer(
    kafka: KafkaSettings, stream: StreamSettings, *, client_id: str, instance_id: str, group: str | None = None
) -> Config:
    """Return the properties of a consumer in the stream's group, or in another of its groups."""
    config: Config = {
        # Measured: with the default of 1,000 ms, a reader gets a quarter of its speed.
        "fetch.queue.backoff.ms": 5,
        # A tenth of a second at full speed. A message waiting in librdkafka takes hundreds of bytes besides its own:
        # measured, ten times as many cost 70 MB and gain nothing.
        "queued.min.messages": 20_000,
        "queued.max.messages.kbytes": PREFETCH_KBYTES,
        # Per partition. librdkafka decompresses a response as a whole: measured with 1 MB, compressed topics take up to
        # twice the memory and a sixth more time, and others gain nothing.
        "fetch.message.max.bytes": 262_144,
        # For idle streams: each response wakes up a thread here and one of the broker. A seek waits for it as well.
        "fetch.wait.max.ms": 100,
        "topic.metadata.refresh.interval.ms": int(stream.metadata_refresh_secs * 1000),
        **common(kafka, client_id),
        **kafka.consumer_properties,
        "group.id": group or stream.group,
        "group.protocol": kafka.group_protocol,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
        "max.poll.interval.ms": int(kafka.max_poll_interval_secs * 1000),
    }
    if kafka.group_protocol == "classic":
        config |= {
            "partition.assignment.strategy": "cooperative-sticky",
            "group.instance.id": instance_id,
            "session.timeout.ms": int(kafka.session_timeout_secs * 1000),
            "heartbeat.interval.ms": int(kafka.heartbeat_interval_secs * 1000),
        }
    return config


def compresses(kafka: KafkaSettings) -> bool:
    """Return whether producers compress what they write."""
    given = {**kafka.properties, **kafka.producer_properties}
    return "none" not in (given.get("compression.type"), given.get("compression.codec"))


def producer(
    kafka: KafkaSettings, *, client_id: str, transactional_id: str | None, batch_bytes: int = MAX_BATCH_BYTES
) -> Config:
    """Return the producer's properties; without a transactional id it is only idempotent."""
    config: Config = {
        # The end of a tick sends everything at once. Until then, records should wait for larger batches: measured, with
        # 5 ms the sending thread wakes up so often that a record costs a fifth more, and the broker gets small batches.
        "linger.ms": 100,
        # Outcomes are very similar: measured, this halves the broker's work, and costs almost nothing here.
        "compression.type": "lz4",
        "batch.size": batch_bytes,
        "batch.num.messages": 100_000,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": PRODUCER_QUEUE_KBYTES,
        # The topics' own limits apply; they are read before anything is written.
        "message.max.bytes": 100_000_000,
        **common(kafka, client_id),
        **kafka.producer_properties,
        "enable.idempotence": True,
        "acks": "all",
        "delivery.report.only.error": True,
    }
    # A smaller batch size of the operator's is respected; a larger one is not, because topics would reject the batches.
    if (asked := str(config["batch.size"])).isdecimal():
        config["batch.size"] = min(batch_bytes, int(asked))
    if transactional_id is not None:
        config |= {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": int(kafka.transaction_timeout_secs * 1000),
        }
    return config
