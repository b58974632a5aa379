"""What is known of the topics that are written to, which changes over time.

Topics are recreated, their limits are lowered and raised, and queries about them stay unanswered: a tick must neither
wait for that nor build batches that a topic rejects.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Final

from connector.kafka.configs import MAX_BATCH_BYTES
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.topics import DEFAULT_MAX_MESSAGE_BYTES, SOON_SECS, TopicFacts, Topics

REFRESH_SECS = 10.0
"""How often a tick may query the topics, answered or not: with `SOON_SECS`, that is at most four of ten seconds."""

SHRINKING: Final = 4
"""Factor by which compression shrinks results at least, assumed until a topic rejects such a batch.

Measured with lz4: outcomes shrink to a nineteenth, and to a fifth if keys and origins are random. While a batch waits
for the one before it, a thread of librdkafka is busy waiting, so a tick's results for a partition should be one batch.
"""


class Targets:
    """Topics that are written to, as they are now.

    What was learnt of a topic stays until there is news: while queries are unanswered, and while the topic does not
    exist, since it usually comes back as it was.
    """

    def __init__(self, topics: Topics, names: Sequence[str]) -> None:
        self._topics = topics
        self._names = names
        self._partitions: dict[str, int] = {}
        self._limits: dict[str, int] = {}
        self.gone: set[str] = set()
        """Topics that did not exist at the last query."""
        self._outdated: set[str] = set()
        """Topics that did not exist at some time since their limit was last queried."""
        self._refreshed_at = self._caught_up_at = float("-inf")

    def of(self, name: str) -> TopicFacts:
        """Return what is known of a topic; Kafka's defaults for what never was."""
        return TopicFacts(self._partitions.get(name, 1), self._limits.get(name, DEFAULT_MAX_MESSAGE_BYTES))

    @property
    def batch_bytes(self) -> int:
        """Bytes of records that a producer may put into a batch for any of them."""
        return min(self.of(name).batch_bytes for name in self._names)

    def refresh(self, timeout_secs: float | None = None) -> None:
        """Query the topics' limits again; what is not answered stays as it was."""
        found = self._topics.partitions(self._names, timeout_secs)
        self._note(found)
        limits = self._topics.limits([name for name, count in found.items() if count], timeout_secs)
        self._limits |= {name: limit for name, limit in limits.items() if limit is not None}
        self._outdated -= limits.keys()

    def refresh_if_due(self, *, now: float, every_secs: float = REFRESH_SECS) -> None:
        """Query the limits again, once in a while, before something is cut for them: they may have been raised."""
        if now - self._refreshed_at >= every_secs:
            self._refreshed_at = now
            self._try_refresh()

    def _try_refresh(self) -> None:
        with suppress(KafkaTroubleError):
            self.refresh(SOON_SECS)

    def catch_up(self, *, now: float) -> None:
        """Query, before a tick, topics that did not exist or have low limits.

        The former may exist again, with other limits. The latter may accept more again: otherwise a limit that was
        lowered and corrected would leave the producer with small batches forever.
        """
        if self._outdated:
            self.refresh_if_due(now=now)
        elif self.batch_bytes < MAX_BATCH_BYTES and now - self._caught_up_at >= REFRESH_SECS:
            self._caught_up_at = now  # not `_refreshed_at`: cutting a record justifies a query of its own
            self._try_refresh()

    def absent(self, sources: Collection[str]) -> set[str]:
        """Return which of the topics and of `sources` do not exist; the last known state if brokers do not answer soon.

        Called while nothing is written, after calls that brokers did not answer, so it must not wait as long again.
        """
        try:
            found = self._topics.partitions([*self._names, *sources], SOON_SECS)
        except KafkaTroubleError:
            return set(self.gone)
        self._note(found)
        if self.gone:
            self._refreshed_at = float("-inf")  # the next tick queries at once
        return {name for name, partitions in found.items() if not partitions}

    def under_min_isr(self) -> str:
        """Describe topics that accept nothing because too few of their replicas are in sync; empty if unknown."""
        with suppress(KafkaTroubleError):
            return self._topics.under_min_isr(self._names, SOON_SECS)
        return ""

    def _note(self, found: Mapping[str, int]) -> None:
        there = {name: found[name] for name in self._names if found[name]}
        self._partitions |= there
        self.gone = set(self._names) - there.keys()
        self._outdated |= self.gone


class Outputs(Targets):
    """The outcome and dead-letter topics of a stream; `compressed`: its producer compresses."""

    def __init__(
        self, topics: Topics, *, outcome_topic: str, dead_letter_topic: str, outcomes_by_key: bool, compressed: bool
    ) -> None:
        super().__init__(topics, (outcome_topic, dead_letter_topic))
        self._shrinking = SHRINKING if compressed else 1
        self._refused_bytes: int | None = None
        """Size of the smallest batch that a topic rejected although its known limit is larger."""
        self.outcome_topic = outcome_topic
        self.dead_letter_topic = dead_letter_topic
        self._by_key = outcomes_by_key

    @property
    def results_bytes(self) -> int:
        """Bytes of results that a producer may put into a batch, which is expected to be smaller when sent."""
        most = self.batch_bytes * self._shrinking
        return most if self._refused_bytes is None else max(min(most, self._refused_bytes // 2), 1)

    def refresh(self, timeout_secs: float | None = None) -> None:
        """Query the topics' limits again; if they were raised, earlier rejections say nothing."""
        taken = self.batch_bytes
        super().refresh(timeout_secs)
        if self.batch_bytes > taken:
            self._refused_bytes = None

    def were_refused(self, results_bytes: int, *, now: float) -> None:
        """Note that a batch of at most so many bytes was too large.

        Either a topic accepts less by now, or results shrink less than assumed, or the topic's limit is unknown because
        we may not query it.
        """
        self.refresh_if_due(now=now, every_secs=0)
        if self.results_bytes >= results_bytes:
            self._refused_bytes = results_bytes
        self._refreshed_at = float("-inf")  # the next tick may query again before it cuts anything

    def outcome_partition(self, source: int) -> int:
        """Return the partition for outcomes of a source partition, or -1 to let the key decide."""
        return -1 if self._by_key else source % self.of(self.outcome_topic).partitions

    def dead_letter_partition(self, source: int) -> int:
        """Return the partition for dead letters of a source partition: modulo the topic's count, as in KIP-1191."""
        return source % self.of(self.dead_letter_topic).partitions

    @property
    def limits_in_words(self) -> str:
        """Describe how large a batch each topic accepts, as far as it is known."""
        known = {name: self._limits.get(name) for name in self._names}
        return ", ".join(
            f"{name} takes {f'{limit:,} bytes' if limit is not None else 'what we may not ask'}"
            for name, limit in known.items()
        )

    @property
    def dead_letter_limit(self) -> int:
        """Size in bytes of the largest dead letter that the topic accepts."""
        return self.of(self.dead_letter_topic).max_message_bytes

    @property
    def outcome_limit(self) -> int:
        """Size in bytes of the largest outcome that the topic accepts, including its key."""
        return self.of(self.outcome_topic).max_message_bytes
