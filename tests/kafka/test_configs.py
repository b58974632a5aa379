"""The properties that librdkafka gets."""

import pytest

from connector.config.kafka import KafkaSettings
from connector.kafka.configs import common


@pytest.mark.parametrize(
    ("request_secs", "transaction_secs", "expected_ms"), [(10, 10, 5_000), (40, 10, 9_900), (4, 60, 2_000)]
)
def test_a_broker_has_half_the_time_of_a_call_to_answer(
    request_secs: float, transaction_secs: float, expected_ms: int
) -> None:
    """So that another one may be asked within it; and librdkafka wants a transaction to take longer than a request."""
    kafka = KafkaSettings(
        bootstrap_servers="localhost:9092",
        request_timeout_secs=request_secs,
        transaction_timeout_secs=transaction_secs,
    )

    config = common(kafka, "client")

    assert (config["socket.timeout.ms"], config["api.version.request.timeout.ms"]) == (expected_ms, expected_ms)


def test_properties_of_the_operator_go_over_ours() -> None:
    kafka = KafkaSettings(bootstrap_servers="localhost:9092", properties={"socket.timeout.ms": 7_000})

    assert common(kafka, "client")["socket.timeout.ms"] == 7_000
