"""The properties for librdkafka."""

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from connector.config.kafka import KafkaSettings
from connector.kafka.configs import asking, common, compresses, producer


def test_a_broker_has_half_the_time_of_a_call_to_answer_a_question() -> None:
    """So that another one may be asked within it. What is written is not sent again so soon: see `asking`."""
    kafka = KafkaSettings(bootstrap_servers="localhost:9092", request_timeout_secs=4)

    assert asking(kafka, "client")["socket.timeout.ms"] == 2_000
    assert "socket.timeout.ms" not in common(kafka, "client")


def test_properties_of_the_operator_go_over_ours() -> None:
    kafka = KafkaSettings(bootstrap_servers="localhost:9092", properties={"socket.timeout.ms": 7_000})

    assert asking(kafka, "client")["socket.timeout.ms"] == 7_000


@pytest.mark.parametrize("secs", [0.001, 86_400])
def test_any_time_that_the_settings_allow_makes_properties_that_librdkafka_takes(secs: float) -> None:
    kafka = KafkaSettings(bootstrap_servers="localhost:9092", request_timeout_secs=secs)

    AdminClient({**asking(kafka, "client"), "log_level": 0})


@pytest.mark.parametrize("name", ["compression.type", "compression.codec"])
@pytest.mark.parametrize("where", ["properties", "producer_properties"])
@pytest.mark.parametrize("kind", ["none", "zstd"])
def test_it_is_known_whether_producers_compress(name: str, where: str, kind: str) -> None:
    """The property has two names."""
    kafka = KafkaSettings.model_validate({"bootstrap_servers": "localhost:9092", where: {name: kind}})

    assert compresses(kafka) is (kind != "none")
    assert compresses(KafkaSettings(bootstrap_servers="localhost:9092")), "by itself"
    Producer({**producer(kafka, client_id="client", transactional_id=None), "log_level": 0})


@pytest.mark.parametrize(("asked", "made"), [(8_000_000, 50_000), ("8000000", 50_000), (1_000, 1_000), (None, 50_000)])
def test_batches_are_as_large_as_the_topics_take_or_as_the_operator_wants_if_less(
    asked: int | str | None, made: int
) -> None:
    given = {} if asked is None else {"batch.size": asked}
    kafka = KafkaSettings.model_validate({"bootstrap_servers": "localhost:9092", "producer_properties": given})

    assert producer(kafka, client_id="client", transactional_id=None, batch_bytes=50_000)["batch.size"] == made
