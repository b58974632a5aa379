"""A lane whose commit fails for good: whether another redrive of its name is to blame, with a mock for librdkafka."""

from collections.abc import Mapping
from unittest.mock import create_autospec

import pytest
from confluent_kafka import KafkaError

from connector.config.kafka import KafkaSettings
from connector.core.chunks import Chunk, Partition
from connector.core.progress import RangeSet
from connector.deadletters import redriving
from connector.deadletters.deciding import Actions, Rules
from connector.deadletters.progressing import Place, place_at
from connector.deadletters.redriving import Order, carry_out
from connector.kafka.errors import AbortableError, FatalError, KafkaTroubleError
from connector.kafka.publisher import Offsets, TransactionalPublisher
from connector.kafka.scanning import Scanner
from connector.kafka.source import Committed
from connector.kafka.topics import TopicFacts
from tests.deadletters.making import headers_of

DEAD = Partition("dead", 0)
SELECTION = "0123456789abcdef"
RECORDS = 3


@pytest.mark.parametrize("kind", [FatalError, AbortableError])
@pytest.mark.parametrize(("came_to", "fenced"), [(2, True), (0, False), (RECORDS, False)])
def test_a_commit_that_fails_without_a_reason_is_a_takeover_where_somebody_has_come_to_another_place(
    monkeypatch: pytest.MonkeyPatch, came_to: int, fenced: bool, kind: type[KafkaTroubleError]
) -> None:
    """Where it was before, or where it tried to come, the lane itself may stand."""
    found = [Committed(None, "")]
    publisher = create_autospec(TransactionalPublisher, instance=True)
    scanner = create_autospec(Scanner, instance=True)

    def commit(_offsets: Offsets, _group: object, _secs: float) -> None:
        found.append(Committed(*place_at(Place(), came_to, RangeSet(), SELECTION)) if came_to else found[0])
        raise kind(KafkaError(KafkaError.UNKNOWN, "EndTxn commit failed"))

    def committed(spans: Mapping[Partition, object]) -> dict[Partition, Committed]:
        return dict.fromkeys(spans, found[-1])

    publisher.commit.side_effect, scanner.committed.side_effect = commit, committed
    values: list[bytes | None] = [b"{}"] * RECORDS
    letters = Chunk(DEAD, 0, range(RECORDS), values, headers=[headers_of()] * RECORDS, timestamps=[0] * RECORDS)
    scanner.read.side_effect = lambda reach: [letters] if reach else []
    monkeypatch.setattr(redriving, "TransactionalPublisher", lambda _config, _topic: publisher)
    monkeypatch.setattr(redriving, "Scanner", lambda _config, _secs: scanner)
    monkeypatch.setattr(redriving, "OVERTAKEN_SECS", 0.0)
    actions = Actions(redrive=set(range(RECORDS)))
    order = Order(
        KafkaSettings(bootstrap_servers="nowhere:1"),
        "name",
        SELECTION,
        Rules({}, to="target"),
        {DEAD: (0, RECORDS)},
        {DEAD: actions},
        {"target": TopicFacts(1, 1_000_000)},
    )

    with pytest.raises(kind) as caught:
        carry_out(order, lambda _count: None)

    assert caught.value.fenced is fenced
