"""What a consumer tells of its troubles: a line of the log once in a while, and a hold where Kafka refuses to be read.

librdkafka tells once that it may not read a topic, and not again, nor when it may. So that counts as over when records
come from there again, when partitions of it are assigned anew, or when none of it is ours any more.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Final

from connector.clock import now
from connector.core.breaker import Hold
from connector.core.chunks import Chunk, Partition
from connector.kafka.errors import KafkaTroubleError
from connector.telemetry.logging import get_logger

TOLD_EVERY_SECS: Final = 30.0
"""How often one trouble of a partition is told in the log."""


class Troubles:
    """The troubles of one stream's consumer, told to it by the reader's thread; `refused` is for any thread."""

    def __init__(self, name: str) -> None:
        self._refused: Mapping[str | None, Hold] = {}
        """By topic that Kafka does not let us read, or None for the group; replaced as a whole."""
        self._told_at: dict[str, float] = {}
        self._log = get_logger("reader").bind(stream=name)

    @property
    def refused(self) -> Hold | None:
        """Kafka does not let us read all; shown as a hold until records come again from where it did not."""
        return next(iter(self._refused.values()), None)

    def take(self, partition: Partition | None, trouble: KafkaTroubleError) -> None:
        """Take note of a trouble with a partition, or with none in particular."""
        topic = None if partition is None else partition.topic
        if trouble.unauthorized and topic not in self._refused:
            hold = Hold("kafka_authorization", time.time(), str(trouble), "probe")
            self._refused = {**self._refused, topic: hold}
        key = f"{trouble.code}:{partition}"
        if now() - self._told_at.get(key, float("-inf")) > TOLD_EVERY_SECS:
            self._told_at[key] = now()
            self._log.warning("consumer trouble", code=trouble.code, error=str(trouble), partition=str(partition or ""))

    def read(self, chunks: Iterable[Chunk]) -> None:
        """Take note of records that came."""
        if self._refused:
            self._let_in_again({chunk.partition.topic for chunk in chunks})

    def assigned(self, partitions: Iterable[Partition], *, before: Iterable[Partition]) -> None:
        """Take note of partitions that were assigned, beside those that were ours before."""
        kept = {partition.topic for partition in before}
        self._let_in_again((self._refused.keys() - kept) | {partition.topic for partition in partitions})

    def _let_in_again(self, topics: Collection[str | None]) -> None:
        """Take note that Kafka lets us read topics, and with them that the group is ours to be in."""
        self._refused = {
            topic: hold for topic, hold in self._refused.items() if topic is not None and topic not in topics
        }
