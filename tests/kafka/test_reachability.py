"""Detecting a cut-off consumer: one that reaches no broker although a new one does, and no other."""

from unittest.mock import create_autospec

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin._metadata import BrokerMetadata, ClusterMetadata

from connector.kafka.reachability import is_cut_off


def _consumer(*answers: bool) -> Consumer:
    """Return a consumer whose questions for metadata are answered like that, one after another."""
    known = ClusterMetadata()
    known.brokers = {1: BrokerMetadata()}
    results = [known if answer else KafkaException(KafkaError(KafkaError._TRANSPORT)) for answer in answers]
    made: Consumer = create_autospec(Consumer, instance=True)
    made.list_topics.side_effect = results  # type: ignore[attr-defined] # a mock
    return made


@pytest.mark.parametrize(
    ("own", "fresh", "expected"),
    [
        ([True], [], False),
        ([False], [False], False),
        ([False, True], [True], False),
        ([False, False], [True], True),
    ],
    ids=["answered", "away for all", "back by now", "only a new one is answered"],
)
def test_a_consumer_is_cut_off_when_only_a_new_one_is_answered(
    own: list[bool], fresh: list[bool], expected: bool
) -> None:
    made = []

    def make() -> Consumer:
        made.append(_consumer(*fresh))
        return made[-1]

    assert is_cut_off(_consumer(*own), make, "events", 0.1) is expected
    assert len(made) == bool(fresh)
    for consumer in made:
        consumer.close.assert_called_once_with()  # type: ignore[attr-defined] # a mock


def test_an_answer_that_names_no_broker_is_none() -> None:
    nameless: Consumer = create_autospec(Consumer, instance=True)
    nameless.list_topics.return_value = ClusterMetadata()  # type: ignore[attr-defined] # a mock

    assert is_cut_off(nameless, lambda: _consumer(True), "events", 0.1)


def test_a_consumer_that_only_a_frozen_broker_is_connected_to_is_cut_off() -> None:
    """It would wait for that one until its requests time out, after a minute."""
    silent: Consumer = create_autospec(Consumer, instance=True)
    silent.list_topics.side_effect = KafkaException(KafkaError(KafkaError._TIMED_OUT))  # type: ignore[attr-defined] # a mock

    assert is_cut_off(silent, lambda: _consumer(True), "events", 0.1)


def test_without_another_client_no_consumer_counts_as_cut_off() -> None:
    def make() -> Consumer:
        raise KafkaException(KafkaError(KafkaError._CRIT_SYS_RESOURCE))

    assert not is_cut_off(_consumer(False), make, "events", 0.1)
