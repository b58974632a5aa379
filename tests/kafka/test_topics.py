"""What is known of the topics that results go to, while they change."""

import time

from connector.demo.finding import BrokerHandle
from connector.demo.topics import Topics as Made
from connector.kafka.topics import SOON_SECS, Outputs, Topics
from tests.kit.world import free_port


def _outputs(bootstrap_servers: str, outcomes: str, dead_letters: str) -> Outputs:
    config = {"bootstrap.servers": bootstrap_servers, "log_level": 0}
    return Outputs(Topics(config, 20), outcome_topic=outcomes, dead_letter_topic=dead_letters, outcomes_by_key=False)


def test_topics_that_are_gone_are_told_and_those_that_are_made_anew_are_used_as_they_are(
    broker: BrokerHandle, topics: Made
) -> None:
    source, outcomes, dead_letters = (topics.create(partitions=4) for _ in range(3))
    outputs = _outputs(broker.bootstrap_servers, outcomes, dead_letters)
    outputs.refresh()
    limit = outputs.dead_letter_limit

    assert outputs.absent([source]) == set()
    assert outputs.outcome_partition(7) == 3

    topics.delete(source, outcomes)
    assert outputs.absent([source]) == {source, outcomes}

    topics.create(partitions=2, name=outcomes)
    assert outputs.absent([]) == set()
    assert outputs.outcome_partition(7) == 1
    assert outputs.dead_letter_limit == limit


def test_what_no_broker_tells_soon_is_not_waited_for() -> None:
    """A tick has failed then, and the next one waits for this."""
    outputs = _outputs(f"127.0.0.1:{free_port()}", "outcomes", "dead-letters")
    began = time.monotonic()

    assert outputs.absent(["source"]) == set()

    print(f"{time.monotonic() - began:.1f} s (to be at most {SOON_SECS:g} s)")
    assert time.monotonic() - began < 3 * SOON_SECS
