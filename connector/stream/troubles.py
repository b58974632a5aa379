"""What a consumer tells of its troubles: a line of the log once in a while, and a hold where Kafka refuses to be read.

librdkafka tells once that it may not read a topic, and not again, nor when it may. So that counts as over when records
come from there again, when partitions of it are assigned anew, or when none of it is ours any more. As nothing of this
may come for long, the brokers are asked as well.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Final

from connector.clock import now
from connector.core.breaker import Hold
from connector.core.chunks import Chunk, Partition
from connector.kafka.errors import KafkaTroubleError
from connector.stream.asking import Sources
from connector.telemetry.logging import get_logger

TOLD_EVERY_SECS: Final = 30.0
"""How often one trouble of a partition is told in the log."""


class Troubles:
    """The troubles of one stream's consumer, told to it by the reader's thread; `refused` is for any thread.

    `ask` begins to ask what of that which is refused may surely be read by now: after `probe_secs`, then after twice as
    long each time, up to `probe_max_secs`.
    """

    def __init__(
        self, name: str, ask: Callable[[Sources], Future[Sources]], *, probe_secs: float, probe_max_secs: float
    ) -> None:
        self._ask = ask
        self._probe_secs = probe_secs
        self._probe_max_secs = probe_max_secs
        self._wait = self._ask_at = 0.0
        self._asked: Future[Sources] | None = None
        self._refused: Mapping[str | None, Hold] = {}
        """By topic that Kafka does not let us read, or None for the group; replaced as a whole."""
        self._told_at: dict[str, float] = {}
        self._log = get_logger("reader").bind(stream=name)

    @property
    def refused(self) -> Hold | None:
        """Kafka does not let us read all; shown as a hold until it does again."""
        return next(iter(self._refused.values()), None)

    def take(self, partition: Partition | None, trouble: KafkaTroubleError) -> None:
        """Take note of a trouble with a partition, or with none in particular."""
        topic = None if partition is None else partition.topic
        if trouble.unauthorized:
            self._asked = None  # what was answered may be older
            self._wait = self._probe_secs
            self._ask_at = now() + self._wait
            hold = Hold("kafka_authorization", time.time(), str(trouble), "probe")
            self._refused = {**self._refused, topic: self._refused.get(topic, hold)}
        key = f"{trouble.code}:{partition}"
        if now() - self._told_at.get(key, float("-inf")) > TOLD_EVERY_SECS:
            self._told_at[key] = now()
            self._log.warning("consumer trouble", code=trouble.code, error=str(trouble), partition=str(partition or ""))

    def read(self, chunks: Iterable[Chunk]) -> None:
        """Take note of records that came, and with them that the group is ours to be in."""
        if self._refused:
            self._let_in_again({None, *(chunk.partition.topic for chunk in chunks)})

    def assigned(self, partitions: Iterable[Partition], *, before: Iterable[Partition]) -> None:
        """Take note of partitions that were assigned, beside those that were ours before."""
        kept = {partition.topic for partition in before}
        self._let_in_again({None, *(self._refused.keys() - kept), *(partition.topic for partition in partitions)})

    def look(self) -> None:
        """Have it asked whether we may read again, when it is time, and take the answer; called often."""
        if self._asked is not None:
            if self._asked.done():
                self._let_in_again(self._asked.result())
                self._asked = None
        elif self._refused and now() >= self._ask_at:
            self._wait = min(2 * self._wait, self._probe_max_secs)
            self._ask_at = now() + self._wait
            self._asked = self._ask(list(self._refused))

    def ask_at_once(self) -> None:
        """Have it asked at the next look; may be called from any thread."""
        self._ask_at = 0.0

    def _let_in_again(self, allowed: Sources) -> None:
        """Take note that Kafka lets us read these."""
        self._refused = {source: hold for source, hold in self._refused.items() if source not in allowed}
