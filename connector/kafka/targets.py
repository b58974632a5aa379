"""What is known of the topics that are written to, as time goes by, and what may be written to them by that.

Topics are made anew, their limits are lowered and raised, and questions about them go unanswered: a tick must not wait
for that, nor put more together than a topic takes.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

from connector.kafka.configs import MAX_BATCH_BYTES
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.topics import DEFAULT_MAX_MESSAGE_BYTES, SOON_SECS, TopicFacts, Topics

LOOK_AGAIN_SECS = 10.0
"""How often a tick may ask what the topics take, answered or not: with `SOON_SECS` it has four of ten seconds."""

SHRINKING: Final = 4
"""By how much compression shrinks results at least, until a topic has refused a batch of them.

Measured with lz4: outcomes shrink to a nineteenth, and to a fifth where keys and origins are random. What waits for the
batch before it costs librdkafka a thread that waits busily, so a tick's results of a partition had better be one batch.
"""


class Targets:
    """Topics that are written to, as they are now.

    What was learnt of a topic stays until something newer is: through questions that nobody answers, and while it is
    gone, as it mostly comes back as it was.
    """

    def __init__(self, topics: Topics, names: Sequence[str]) -> None:
        self._topics = topics
        self._names = names
        self._partitions: dict[str, int] = {}
        self._limits: dict[str, int] = {}
        self.gone: set[str] = set()
        """Those that did not exist when they were last asked for."""
        self._outdated: set[str] = set()
        """Those that were gone since their limit was last asked for."""
        self._looked_at = self._caught_up_at = float("-inf")

    def of(self, name: str) -> TopicFacts:
        """Return what is known of a topic; what never was is taken as Kafka has it by default."""
        return TopicFacts(self._partitions.get(name, 1), self._limits.get(name, DEFAULT_MAX_MESSAGE_BYTES))

    @property
    def batch_bytes(self) -> int:
        """Bytes of records that a producer may put together that writes to all of them."""
        return min(self.of(name).batch_bytes for name in self._names)

    def refresh(self, timeout_secs: float | None = None) -> None:
        """Read again what the topics take; what is not answered stays as it was."""
        found = self._topics.partitions(self._names, timeout_secs)
        self._note(found)
        limits = self._topics.limits([name for name, count in found.items() if count], timeout_secs)
        self._limits |= {name: limit for name, limit in limits.items() if limit is not None}
        self._outdated -= limits.keys()

    def look_again(self, *, now: float, every_secs: float = LOOK_AGAIN_SECS) -> None:
        """Read again what the topics take, once in a while, before something is cut for it: limits get raised, too."""
        if now - self._looked_at >= every_secs:
            self._looked_at = now
            self._look()

    def _look(self) -> None:
        with suppress(KafkaTroubleError):
            self.refresh(SOON_SECS)

    def catch_up(self, *, now: float) -> None:
        """Read again, before a tick, what topics take that were gone, or that take little.

        The first may be there again, and made otherwise. The second may take more again: a limit that somebody lowered
        and put right would leave a producer with batches that are too small for the rest of its life.
        """
        if self._outdated:
            self.look_again(now=now)
        elif self.batch_bytes < MAX_BATCH_BYTES and now - self._caught_up_at >= LOOK_AGAIN_SECS:
            self._caught_up_at = now  # apart from the other time: what is to be cut is worth a look of its own
            self._look()

    def absent(self, sources: Collection[str]) -> set[str]:
        """Return which of the topics, and of these, do not exist; of what cannot be known soon, what was seen last.

        Asked while nothing is written, after calls that brokers have not answered: this one must not wait as long.
        """
        try:
            found = self._topics.partitions([*self._names, *sources], SOON_SECS)
        except KafkaTroubleError:
            return set(self.gone)
        self._note(found)
        if self.gone:
            self._looked_at = float("-inf")  # the next tick asks at once
        return {name for name, partitions in found.items() if not partitions}

    def short_of_replicas(self) -> str:
        """Say which topics take nothing for now, as too few of their replicas are in sync; of what is known soon."""
        with suppress(KafkaTroubleError):
            return self._topics.short_of_replicas(self._names, SOON_SECS)
        return ""

    def _note(self, found: Mapping[str, int]) -> None:
        there = {name: found[name] for name in self._names if found[name]}
        self._partitions |= there
        self.gone = set(self._names) - there.keys()
        self._outdated |= self.gone


class Outputs(Targets):
    """The outcome and the dead-letter topic of a stream; `compressed` is what its producer writes to them."""

    def __init__(
        self, topics: Topics, *, outcome_topic: str, dead_letter_topic: str, outcomes_by_key: bool, compressed: bool
    ) -> None:
        super().__init__(topics, (outcome_topic, dead_letter_topic))
        self._shrinking = SHRINKING if compressed else 1
        self._refused_bytes: int | None = None
        """The least that a producer put together and a topic has refused, though it takes as much as it did before."""
        self.outcome_topic = outcome_topic
        self.dead_letter_topic = dead_letter_topic
        self._by_key = outcomes_by_key

    @property
    def results_bytes(self) -> int:
        """Bytes of results that a producer may put together, in the hope that they are sent as fewer."""
        most = self.batch_bytes * self._shrinking
        return most if self._refused_bytes is None else max(min(most, self._refused_bytes // 2), 1)

    def refresh(self, timeout_secs: float | None = None) -> None:
        """Read again what the topics take; when that is more, what was refused before says nothing."""
        taken = self.batch_bytes
        super().refresh(timeout_secs)
        if self.batch_bytes > taken:
            self._refused_bytes = None

    def were_refused(self, results_bytes: int, *, now: float) -> None:
        """Learn from a batch of so many bytes at most that was too large.

        A topic takes less by now; or results shrink less than hoped; or its limit is not what it is taken for, as where
        nobody may tell it.
        """
        self.look_again(now=now, every_secs=0)
        if self.results_bytes >= results_bytes:
            self._refused_bytes = results_bytes
        self._looked_at = float("-inf")  # what the next tick cuts, it cuts for what the topics take then

    def outcome_partition(self, source: int) -> int:
        """Return where outcomes of a source partition go, or -1 to have the key decide."""
        return -1 if self._by_key else source % self.of(self.outcome_topic).partitions

    def dead_letter_partition(self, source: int) -> int:
        """Return where dead letters of a source partition go: the partition modulo the topic's count, as KIP-1191."""
        return source % self.of(self.dead_letter_topic).partitions

    @property
    def limits_in_words(self) -> str:
        """Say how large a batch each topic takes, as far as is known."""
        known = {name: self._limits.get(name) for name in self._names}
        return ", ".join(
            f"{name} takes {f'{limit:,} bytes' if limit is not None else 'what we may not ask'}"
            for name, limit in known.items()
        )

    @property
    def dead_letter_limit(self) -> int:
        """Bytes of the largest dead letter that the topic takes."""
        return self.of(self.dead_letter_topic).max_message_bytes

    @property
    def outcome_limit(self) -> int:
        """Bytes of the largest outcome that the topic takes, its key included."""
        return self.of(self.outcome_topic).max_message_bytes
