"""What the connector's counterparts are tuned with: the same fetch settings as its own, and as large batches."""

from typing import Final

from connector.config.kafka import KafkaSettings
from connector.config.streams import StreamSettings
from connector.kafka import configs

Properties = dict[str, str | int | float | bool]

_TUNED: Final = (
    "fetch.queue.backoff.ms",
    "queued.min.messages",
    "queued.max.messages.kbytes",
    "fetch.message.max.bytes",
    "fetch.wait.max.ms",
    "retry.backoff.ms",
    "linger.ms",
    "batch.size",
    "batch.num.messages",
    "queue.buffering.max.messages",
    "compression.type",
    "delivery.report.only.error",
)


def _tuned(config: configs.Config) -> Properties:
    return {name: config[name] for name in _TUNED if name in config}


def _stream() -> StreamSettings:
    return StreamSettings.model_validate(
        {"name": "x", "topics": ["x"], "operation": "send", "outcomes": {"topic": "o"}, "dead_letters": {"topic": "d"}}
    )


_KAFKA: Final = KafkaSettings(bootstrap_servers="unused:9092")

FAST_CONSUMER: Final[Properties] = {
    **_tuned(configs.consumer(_KAFKA, _stream(), client_id="x", instance_id="x")),
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "isolation.level": "read_committed",
    "partition.assignment.strategy": "cooperative-sticky",
}
FAST_PRODUCER: Final[Properties] = {
    **_tuned(configs.producer(_KAFKA, client_id="x", transactional_id=None)),
    "enable.idempotence": True,
}
