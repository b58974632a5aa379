"""What a publisher says of brokers that do not answer, with librdkafka itself and an address where nobody listens."""

from unittest.mock import create_autospec

import pytest

from connector.kafka.errors import AbortableError
from connector.kafka.publisher import PlainPublisher
from connector.kafka.source import Source
from tests.kit.world import free_port


def test_results_that_are_not_written_in_time_are_told_as_unanswered() -> None:
    """So that the producer is replaced: this one may have lost its brokers for good."""
    config = {"bootstrap.servers": f"127.0.0.1:{free_port()}", "log_level": 0}
    publisher = PlainPublisher(config, create_autospec(Source, instance=True))
    publisher.begin()
    publisher.write("outcomes", 0, key=None, value=b"{}", headers=[])

    with pytest.raises(AbortableError, match="writing the results") as raised:
        publisher.commit({}, None, 0.2)

    assert raised.value.unanswered
    publisher.close()
