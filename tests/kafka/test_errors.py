"""How errors of Kafka are classified."""

from confluent_kafka import KafkaError, KafkaException

from connector.kafka.errors import RetriableError, translate


def test_a_broker_that_leaves_the_cluster_while_it_is_asked_is_trouble_that_may_pass() -> None:
    """As when brokers were frozen: the next call asks another one."""
    error = translate(KafkaException(KafkaError(KafkaError._DESTROY_BROKER)))

    assert isinstance(error, RetriableError)
    assert error.unreachable
