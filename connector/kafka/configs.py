"""Settings to librdkafka properties: what we set, and why.

Order of precedence: our tuning, then the operator's properties, then what the guarantee needs; properties that would
break it are refused when the settings are loaded.
"""

import logging
from typing import Any

from connector.config.kafka import KafkaSettings, SecuritySettings
from connector.config.streams import StreamSettings

Config = dict[str, Any]

MAX_BATCH_BYTES = 1_000_000
"""Of what a producer puts together for a partition, where its topic takes as much."""

PREFETCH_KBYTES = 8_192
"""librdkafka's prefetch for a consumer; part of the stream's byte budget."""

PRODUCER_QUEUE_KBYTES = 65_536


def common(kafka: KafkaSettings, client_id: str) -> Config:
    """Return what every client of the cluster needs."""
    return {
        "api.version.request.timeout.ms": _half_ms(kafka),
        "socket.keepalive.enable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 2_000,
        # Half a second is librdkafka's default pause before it looks up a coordinator again.
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
    """Return what a client needs that only asks.

    A broker that says nothing any more (a frozen host) is known for it only by a request that is not answered. A call
    that has met one then has time left for another; by librdkafka's own 60 s it would have none. Not so for those that
    write: what is sent again by a new connection could be overtaken by its first copy, and a group takes both.
    """
    return {"socket.timeout.ms": _half_ms(kafka), **common(kafka, client_id)}


def _half_ms(kafka: KafkaSettings) -> int:
    """Return half the time of a call, within what librdkafka takes for both properties."""
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
    """Return the configuration of a consumer in the stream's group, or in another of its groups."""
    config: Config = {
        # Measured: with the default of 1,000 ms for fetch.queue.backoff.ms a reader stays at a quarter of its speed.
        "fetch.queue.backoff.ms": 5,
        # A tenth of a second at full speed. Each message waiting in librdkafka takes hundreds of bytes beside its
        # own: measured, ten times as many cost 70 MB and bring nothing.
        "queued.min.messages": 20_000,
        "queued.max.messages.kbytes": PREFETCH_KBYTES,
        # Of each partition at once. librdkafka unpacks an answer as a whole: measured with 1 MB, compressed topics take
        # up to twice the memory and a sixth more time, while others gain nothing.
        "fetch.message.max.bytes": 262_144,
        # Of an idle stream: each answer wakes a thread here and one of the broker. A seek waits for it as well.
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
    """Tell whether producers compress what they write."""
    given = {**kafka.properties, **kafka.producer_properties}
    return "none" not in (given.get("compression.type"), given.get("compression.codec"))


def producer(
    kafka: KafkaSettings, *, client_id: str, transactional_id: str | None, batch_bytes: int = MAX_BATCH_BYTES
) -> Config:
    """Return the producer's configuration; without a transactional id it is only idempotent."""
    config: Config = {
        # The end of a tick sends what waits, at once. Until then records had better wait for company: measured, with
        # 5 ms the sending thread wakes so often that a record costs a fifth more, and the broker gets small batches.
        "linger.ms": 100,
        # Outcomes are much alike: measured, this halves the broker's work, and costs next to nothing here.
        "compression.type": "lz4",
        "batch.size": batch_bytes,
        "batch.num.messages": 100_000,
        "queue.buffering.max.messages": 1_000_000,
        "queue.buffering.max.kbytes": PRODUCER_QUEUE_KBYTES,
        # The topics' own limits decide; they are read before anything is written to them.
        "message.max.bytes": 100_000_000,
        **common(kafka, client_id),
        **kafka.producer_properties,
        "enable.idempotence": True,
        "acks": "all",
        "delivery.report.only.error": True,
    }
    # The operator's own word counts where it asks for less: what the topics refuse is not for anybody to choose.
    if (asked := str(config["batch.size"])).isdecimal():
        config["batch.size"] = min(batch_bytes, int(asked))
    if transactional_id is not None:
        config |= {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": int(kafka.transaction_timeout_secs * 1000),
        }
    return config
