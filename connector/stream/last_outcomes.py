"""What the outcome topic says about a stream whose commits Kafka has deleted.

A group without members for `offsets.retention.minutes` loses its commits, as does one that was deleted. Then a stream
looks new, and would post again from its `start` on. Its outcomes name the positions of settled records, so the end of
the outcome topic distinguishes a new stream from one whose commits are gone.

A renamed stream looks new as well, because its group is named after it. So outcomes of any stream with the same
operation on the same records count, unless it is another stream of the settings.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Final

from connector.config.kafka import KafkaSettings
from connector.config.streams import StreamSettings
from connector.core.chunks import Chunk, Partition
from connector.core.records import outcomes_in
from connector.kafka.scanning import scanning

SCANNED: Final = 10_000
"""How many offsets at the end of each partition of the outcome topic are read."""


def last_settled(
    kafka: KafkaSettings,
    stream: StreamSettings,
    client_id: str,
    others: Collection[str],
    should_stop: Callable[[], bool],
) -> dict[Partition, int]:
    """Return the highest offset per partition in the last outcomes; those of `others`, by stream name, are ignored.

    Raises `KafkaTroubleError`, also once it should stop.
    """
    with scanning(kafka, client_id=client_id, group=stream.group) as scanner:
        spans = scanner.spans(stream.outcomes.topic)
        ends = {partition: (max(low, high - SCANNED), high) for partition, (low, high) in spans.items()}
        return places_in(scanner.read(ends, should_stop=should_stop), stream.operation, others)


def places_in(chunks: Iterable[Chunk], operation: str, others: Collection[str]) -> dict[Partition, int]:
    """Return the highest offset per partition in outcomes of an operation, except those of the streams `others`.

    Values that are not outcomes are skipped.
    """
    found: dict[Partition, int] = {}
    for outcome in outcomes_in(chunks):
        if outcome.operation == operation and outcome.stream not in others:
            partition = Partition(outcome.topic, outcome.partition)
            found[partition] = max(outcome.offset, found.get(partition, -1))
    return found
