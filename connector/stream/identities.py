"""Which topics stand behind the names that a stream reads.

A topic that is deleted and made anew under its name is another one, with the same offsets. librdkafka goes over to it
by itself and tells nobody: it reads on where it was, and what lies before that would be passed over. But brokers give
topics ids. So they are asked for once a second while partitions are read, and when it is looked up where they begin.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from connector.clock import now
from connector.core.chunks import Partition
from connector.kafka.topics import IdsAsked, TopicId

LOOK_SECS: Final = 1.0
"""How often the ids are asked for: what was read since then of a topic that is replaced is in doubt."""

TOPICS_PER_SEC: Final = 100
"""More are asked for more seldom: brokers tell of all partitions of each."""

UNANSWERED_SECS: Final = 10.0
"""How long it takes until a cluster is asked again that did not answer: librdkafka's mock never does."""

WAIT_SECS: Final = 1.0
"""How long the beginning of partitions waits for the ids of topics that were told before."""


Positions = Mapping[Partition, tuple[int, int]]
"""By partition the number of its assignment, and the offset that is read next."""


@dataclass(frozen=True, slots=True)
class _Known:
    """Which topic a partition is read of, and below which offset all that was read is surely of that one."""

    topic: TopicId
    offset: int


class Identities:
    """What is known of the topics behind the names; an id that is not told changes nothing.

    `ask` begins to ask for the ids of topics. What is looked for is the reader's; loaders may ask at the same time.
    """

    def __init__(self, ask: Callable[[Collection[str]], IdsAsked]) -> None:
        self._ask = ask
        self._met: dict[str, tuple[TopicId, ...]] = {}
        """By name the topics that were met one after another, in the cluster that was met last."""
        self._known: dict[Partition, _Known] = {}
        self._asked: tuple[IdsAsked, Positions] | None = None
        """A question that is under way, and how far partitions were read when it was asked."""
        self._due = 0.0

    def look(self, positions: Callable[[], Positions]) -> list[Partition]:
        """Return the partitions whose topics are others than those that they were read of.

        Called often; waits for a moment where a topic is met. `positions` tells of the partitions that are read under
        which assignment they are, and how far.
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
        self._due = now() + (UNANSWERED_SECS if asked.has_failed else max(LOOK_SECS, len(ids) / TOPICS_PER_SEC))
        same = {p: offset for p, (epoch, offset) in read.items() if p in there and there[p][0] == epoch}
        return [p for p, offset in same.items() if self._is_other(p, offset, ids.get(p.topic))]

    def _is_other(self, partition: Partition, offset: int, topic: TopicId | None) -> bool:
        """Tell whether a partition is of another topic by now; if not, all that was read below `offset` is of this."""
        if topic is None:
            return False
        if self.read_of_another(partition, topic) is not None:
            return True
        self._known[partition] = _Known(topic, offset)
        return False

    def ask(self, names: Iterable[str]) -> dict[str, TopicId]:
        """Return the ids of topics that are told soon, of those whose ids were told before."""
        met = self._met.keys() & names
        return self._note(self._ask(met), WAIT_SECS) if met else {}

    def _note(self, asked: IdsAsked, within_secs: float = 0.0) -> dict[str, TopicId]:
        """Return what is told in time, without what a broker tells that has not heard of the latest topic yet.

        Brokers learn of topics one after another, and one that is cut off tells for long what was: a topic that is gone
        does not come back, and to begin anew for one would send twice what the latest has had sent.
        """
        told = asked.answer(within_secs)
        if any(all(topic != met.topic for met in self._met.get(name, ())) for name, topic in told.items()):
            self._meet(asked.cluster(), told)
        latest = {name: self._met[name][-1] for name in told if name in self._met}
        return {name: topic for name, topic in latest.items() if topic.topic == told[name]}

    def _meet(self, cluster: str | None, told: Mapping[str, str]) -> None:
        if cluster is None:  # nobody knows whose topics they are: asked again, as they are not met yet
            return
        for name, topic in told.items():
            met = self._met.get(name, ())
            if met and met[-1].cluster != cluster:
                met = ()
            if TopicId(cluster, topic) not in met:
                self._met[name] = (*met, TopicId(cluster, topic))

    def was_replaced(self, name: str, topic: TopicId | None) -> bool:
        """Tell whether another topic had the name of this one since the stream was started."""
        return topic is not None and topic in self._met.get(name, ())[1:]

    def read_of_another(self, partition: Partition, topic: TopicId | None) -> int | None:
        """Return below which offset all that was read is surely of a topic that this one replaces, None if of none."""
        known = self._known.get(partition)
        return known.offset if topic is not None and known is not None and topic.replaces(known.topic) else None

    def begun(self, partition: Partition, topic: TopicId | None, offset: int) -> None:
        """Take note of which topic a partition is read from an offset on; one without an id is asked for soon."""
        if topic is not None:
            self._known[partition] = _Known(topic, offset)
        elif partition not in self._known:
            self._due = 0.0
