"""Which topics, by id, are behind the names that a stream reads.

A topic that is deleted and recreated under its name is a different one with the same offsets. librdkafka switches to it
silently and continues at its position, so that earlier records of the new topic would be skipped. But brokers give
topics ids. They are queried once a second while partitions are read, and when it is looked up where partitions start.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from connector.clock import now
from connector.core.chunks import Partition
from connector.kafka.topics import IdsAsked, TopicId

CHECK_SECS: Final = 1.0
"""How often ids are queried: what was read since then of a topic that is replaced is in doubt."""

TOPICS_PER_SEC: Final = 100
"""More topics are queried less often, since brokers return all partitions of each."""

UNANSWERED_SECS: Final = 10.0
"""Wait before a cluster that did not answer is queried again; librdkafka's mock cluster never answers."""

WAIT_SECS: Final = 1.0
"""How long the start of partitions waits for ids of topics whose ids were known before."""


Positions = Mapping[Partition, tuple[int, int]]
"""For each partition the number of its assignment and the next offset to read."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The topic that a partition is read from; everything read below `offset` was certainly of that topic."""

    topic: TopicId
    offset: int


class Identities:
    """The known topic ids; a missing id changes nothing.

    `ask` starts a query for ids. `check` is for the reader's thread only; loaders may call `ask` at the same time.
    """

    def __init__(self, ask: Callable[[Collection[str]], IdsAsked]) -> None:
        self._ask = ask
        self._seen: dict[str, tuple[TopicId, ...]] = {}
        """For each name the topics seen in sequence, in the cluster that was seen last."""
        self._known: dict[Partition, _Known] = {}
        self._asked: tuple[IdsAsked, Positions] | None = None
        """The running query, and how far partitions were read when it began."""
        self._due = 0.0

    def check(self, positions: Callable[[], Positions]) -> list[Partition]:
        """Return the partitions that now belong to another topic than they were read from.

        Called often; blocks for a moment when a new topic is found. `positions` returns the partitions that are being
        read.
        """
        if self._asked is None:
            if now() >= self._due and (read := positions()):
                self._asked = self._ask({partition.topic for partition in read}), read
            return []
        asked, read = self._asked
        if not asked.is_done:
            return []
        self._asked, there = None, positions()
        ids = self._note(asked)
        self._due = now() + (UNANSWERED_SECS if asked.has_failed else max(CHECK_SECS, len(ids) / TOPICS_PER_SEC))
        same = {p: offset for p, (epoch, offset) in read.items() if p in there and there[p][0] == epoch}
        return [p for p, offset in same.items() if self._is_other(p, offset, ids.get(p.topic))]

    def _is_other(self, partition: Partition, offset: int, topic: TopicId | None) -> bool:
        """Return whether a partition now belongs to another topic; if not, all below `offset` is noted as of this."""
        if topic is None:
            return False
        if self.read_of_another(partition, topic) is not None:
            return True
        self._known[partition] = _Known(topic, offset)
        return False

    def ask(self, names: Iterable[str]) -> dict[str, TopicId]:
        """Return the ids of those topics whose ids were known before, if brokers answer soon."""
        seen = self._seen.keys() & names
        return self._note(self._ask(seen), WAIT_SECS) if seen else {}

    def _note(self, asked: IdsAsked, within_secs: float = 0.0) -> dict[str, TopicId]:
        """Return the ids that arrive in time, except those that a broker reports from outdated metadata.

        Brokers learn of topics one after another, and an isolated broker reports old ids for long. A topic that is gone
        does not come back: starting over for it would send again what was sent of the latest one.
        """
        told = asked.answer(within_secs)
        if any(all(topic != seen.topic for seen in self._seen.get(name, ())) for name, topic in told.items()):
            self._note_seen(asked.cluster(), told)
        latest = {name: self._seen[name][-1] for name in told if name in self._seen}
        return {name: topic for name, topic in latest.items() if topic.topic == told[name]}

    def _note_seen(self, cluster: str | None, told: Mapping[str, str]) -> None:
        if cluster is None:  # unknown whose topics they are: not noted, so they are queried again
            return
        for name, topic in told.items():
            seen = self._seen.get(name, ())
            if seen and seen[-1].cluster != cluster:
                seen = ()
            if TopicId(cluster, topic) not in seen:
                self._seen[name] = (*seen, TopicId(cluster, topic))

    def was_replaced(self, name: str, topic: TopicId | None) -> bool:
        """Return whether another topic had this name before this one since the stream was started."""
        return topic is not None and topic in self._seen.get(name, ())[1:]

    def read_of_another(self, partition: Partition, topic: TopicId | None) -> int | None:
        """Return the offset below which everything was certainly read from a topic that this one replaces, or None."""
        known = self._known.get(partition)
        return known.offset if topic is not None and known is not None and topic.replaces(known.topic) else None

    def begun(self, partition: Partition, topic: TopicId | None, offset: int) -> None:
        """Note the topic from which a partition is read from `offset` on; if its id is unknown, query soon."""
        if topic is not None:
            self._known[partition] = _Known(topic, offset)
        elif partition not in self._known:
            self._due = 0.0
