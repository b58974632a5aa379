"""Where a partition begins: what the consumer is told, with librdkafka itself in place of a broker."""

from collections.abc import Callable
from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from connector.core.chunks import Partition
from connector.kafka import source
from connector.kafka.source import RebalanceHandler, Source

PARTITION = Partition("events", 3)


@pytest.fixture
def consumer(monkeypatch: pytest.MonkeyPatch) -> Consumer:
    made: Consumer = create_autospec(Consumer, instance=True)
    monkeypatch.setattr(source, "Consumer", lambda _config: made)
    return made


def _source() -> Source:
    return Source({}, create_autospec(RebalanceHandler, instance=True), lambda _partition: 1)


def _refusing(code: int) -> Callable[[TopicPartition], None]:
    def refuse(spot: TopicPartition) -> None:
        raise KafkaException(KafkaError(code))

    return refuse


def test_a_new_partition_stands_at_a_number_until_it_begins(consumer: Consumer) -> None:
    """A word such as the end is looked up: an answer that comes after the seek moves the partition there, silently."""
    _source()._on_assign(consumer, [TopicPartition(*PARTITION)])

    [spots] = consumer.incremental_assign.call_args.args  # type: ignore[attr-defined] # a mock
    assert [(spot.topic, spot.partition) for spot in spots] == [PARTITION]
    assert all(spot.offset >= 0 for spot in spots)
    consumer.pause.assert_called_once_with(spots)  # type: ignore[attr-defined] # a mock


def test_a_partition_that_is_starting_is_waited_for_and_one_that_stopped_is_assigned_anew(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are refused a seek in the same words; time tells them apart."""
    consumer.seek.side_effect = _refusing(KafkaError._STATE)  # type: ignore[attr-defined] # a mock
    reader = _source()

    assert not reader.begin(PARTITION, 70)
    consumer.incremental_assign.assert_not_called()  # type: ignore[attr-defined] # a mock
    monkeypatch.setattr(source, "RESTART_SECS", 0.0)
    assert reader.begin(PARTITION, 70)

    for call in (consumer.incremental_unassign, consumer.incremental_assign):
        [[spot]] = call.call_args.args  # type: ignore[attr-defined] # a mock
        assert (Partition(spot.topic, spot.partition), spot.offset) == (PARTITION, 70)
