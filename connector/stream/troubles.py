"""Reports the troubles of a consumer: an occasional log line, and a hold when Kafka denies reading.

librdkafka reports once that it may not read a topic, and never that it may again. So the hold ends when records of the
topic arrive, when partitions of it are newly assigned, or when none of it is assigned any more. Since none of this may
happen for long, the brokers are queried as well.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Final

from connector.clock import now
from connector.core.breaker import Hold
from connector.core.chunks import Chunk, Partition
from connector.kafka.errors import KafkaTroubleError
from connector.stream.broker_queries import Sources
from connector.telemetry.logging import LogLimit, get_logger

LOG_EVERY_SECS: Final = 30.0
"""How often the same trouble of a partition is logged."""


class Troubles:
    """The troubles of one stream's consumer; for the reader's thread, except `refused`, which is for any thread.

    `ask` starts a query about which denied sources may certainly be read by now: first after `probe_secs`, then after
    twice as long each time, up to `probe_max_secs`.
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
        """Holds by topic that Kafka does not let us read, or None for the group; replaced as a whole."""
        self._logged: defaultdict[str, LogLimit] = defaultdict(lambda: LogLimit(LOG_EVERY_SECS))
        self._log = get_logger("reader").bind(stream=name)

    @property
    def refused(self) -> Hold | None:
        """The hold while Kafka does not let us read everything, otherwise None."""
        return next(iter(self._refused.values()), None)

    def take(self, partition: Partition | None, trouble: KafkaTroubleError) -> None:
        """Note a trouble with a partition, or with none in particular."""
        topic = None if partition is None else partition.topic
        if trouble.unauthorized:
            self._asked = None  # a running query may be outdated
            self._wait = self._probe_secs
            self._ask_at = now() + self._wait
            hold = Hold("kafka_authorization", now(), str(trouble), "probe")
            self._refused = {**self._refused, topic: self._refused.get(topic, hold)}
        key = f"{trouble.code}:{partition}"
        if self._logged[key].due(at=now()):
            self._log.warning("consumer trouble", code=trouble.code, error=str(trouble), partition=str(partition or ""))

    def read(self, chunks: Iterable[Chunk]) -> None:
        """Note records that arrived: their topics can be read, and so can the group."""
        if self._refused:
            self._end_holds({None, *(chunk.partition.topic for chunk in chunks)})

    def assigned(self, partitions: Iterable[Partition], *, before: Iterable[Partition]) -> None:
        """Note partitions that were assigned; `before` are those that were assigned already."""
        kept = {partition.topic for partition in before}
        self._end_holds({None, *(self._refused.keys() - kept), *(partition.topic for partition in partitions)})

    def check(self) -> None:
        """Start a query about what may be read again when it is due, and use its answer; called often."""
        if self._asked is not None:
            if self._asked.done():
                self._end_holds(self._asked.result())
                self._asked = None
        elif self._refused and now() >= self._ask_at:
            self._wait = min(2 * self._wait, self._probe_max_secs)
            self._ask_at = now() + self._wait
            self._asked = self._ask(list(self._refused))

    def ask_at_once(self) -> None:
        """Make a query due; may be called from any thread."""
        self._ask_at = 0.0

    def _end_holds(self, allowed: Sources) -> None:
        """Note that Kafka lets us read these."""
        self._refused = {source: hold for source, hold in self._refused.items() if source not in allowed}
