"""The properties for librdkafka."""

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from connector.config.kafka import KafkaSettings
from connector.config.streams import StreamSettings
from connector.kafka.configs import asking, common, compresses, consumer, producer


def test_a_broker_has_half_the_time_of_a_call_to_answer_a_question() -> None:
    """So that another one may be asked within it. What is written is not sent again so soon: see `asking`."""
    kafka = KafkaSettings(bootstrap_servers="localhost:9092", request_timeout_secs=4)

    assert asking(kafka, "client")["socket.timeout.ms"] == 2_000
    assert "socket.timeout.ms" not in common(kafka, "client")


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("guarantee", ["exactly_once", "at_least_once"])
def test_a_consumer_leaves_a_frozen_broker_by_itself_where_it_commits_nothing_and_is_not_replaced_within_a_session(
    protocol: str, guarantee: str
) -> None:
    """A new member waits for the old one's session, 45 s by default, if the frozen broker was its coordinator."""
    kafka = KafkaSettings.model_validate({"bootstrap_servers": "localhost:9092", "group_protocol": protocol})
    stream = StreamSettings.model_validate(
        {
            "name": "sends",
            "topics": ["sends"],
            "operation": "send",
            "outcomes": {"topic": "outcomes"},
            "dead_letters": {"topic": "dead"},
            "delivery": {"guarantee": guarantee},
        }
    )

    made = consumer(kafka, stream, client_id="client", instance_id="one")

    assert made.get("socket.timeout.ms") == (5_000 if (protocol, guarantee) == ("consumer", "exactly_once") else None)


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
