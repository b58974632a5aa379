"""What the outcome topic remembers of a stream whose commits Kafka has forgotten.

A group that has had no members for `offsets.retention.minutes` has no commits any more, nor has one that was deleted.
Then a stream looks new, and from its `start` on it would post again what it has posted. Its outcomes name the places of
what was settled, so that the ends of their topic tell a new stream from one that was forgotten.

A stream that was renamed looks new, too, as its group is called after it. So outcomes count of whatever did the same to
the same records, unless it is another stream of the settings.
"""

from collections.abc import Collection, Iterable
from typing import Final

from connector.config.kafka import KafkaSettings
from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk, Partition
from connector.core.records import outcomes_in
from connector.kafka.scanning import scanning

REMEMBERED: Final = 10_000
"""Offsets at the end of each partition of the outcome topic that are looked at."""


def last_settled(
    kafka: KafkaSettings, stream: StreamSettings, client_id: str, others: Collection[str]
) -> dict[Partition, int]:
    """Return the highest offset of each partition that the last outcomes of a stream name; `others` are beside it.

    Raises `KafkaTroubleError`.
    """
    with scanning(kafka, client_id=client_id, group=stream.group) as scanner:
        spans = scanner.spans(stream.outcomes.topic)
        ends = {partition: (max(low, high - REMEMBERED), high) for partition, (low, high) in spans.items()}
        return places_in(scanner.read(ends), stream.operation, others)


def places_in(chunks: Iterable[Chunk], operation: str, others: Collection[str]) -> dict[Partition, int]:
    """Return the highest offset of each partition that outcomes of an operation name, but those of other streams.

    What is no outcome is passed over.
    """
    found: dict[Partition, int] = {}
    for outcome in outcomes_in(chunks):
        if outcome.operation == operation and outcome.stream not in others:
            partition = Partition(outcome.topic, outcome.partition)
            found[partition] = max(outcome.offset, found.get(partition, -1))
    return found
