"""The verification against a real broker: every kind of error is found, and what readers cannot see does not count."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import orjson
import pytest
from confluent_kafka import Producer

from connector.demo.finding import BrokerHandle
from connector.demo.judge import IN_DOUBT, Judgement, Produced, judge
from connector.demo.topics import Position, Record, Topics


@dataclass
class Case:
    """Six records at their source, the topics for their results, and the judge."""

    bootstrap_servers: str
    source: str
    outcomes: str
    dead_letters: str
    sources: list[Record]
    positions: list[Position]
    produced: Produced = field(default_factory=Produced)

    def __post_init__(self) -> None:
        self.produced.add_all(self.positions[:4])
        self.produced.add_all(self.positions[4:], "invalid_phone")

    def outcome(self, index: int, status: str = "queued") -> Record:
        topic, partition, offset = self.positions[index]
        fields = {"status": status, "topic": topic, "partition": partition, "offset": offset}
        return Record(orjson.dumps(fields), self.sources[index].key)

    def dead_letter(self, index: int, reason: str = "invalid_phone") -> Record:
        topic, partition, offset = self.positions[index]
        headers = [
            *self.sources[index].headers,
            ("__connect.errors.topic", topic.encode()),
            ("__connect.errors.partition", str(partition).encode()),
            ("__connect.errors.offset", str(offset).encode()),
            ("trackly.reason", reason.encode()),
        ]
        return self.sources[index]._replace(headers=headers)

    def verdict(self, accepted: dict[bytes, int] | None = None, *, failures_only: bool = False) -> Judgement:
        return judge(
            self.bootstrap_servers,
            self.produced,
            outcomes=self.outcomes,
            dead_letters=self.dead_letters,
            accepted=accepted,
            failures_only=failures_only,
        )


@pytest.fixture
def case(broker: BrokerHandle, topics: Topics) -> Case:
    source = topics.create("source", partitions=2)
    records = [Record(b"value %d" % number, b"key %d" % number, [("origin", b"shop")]) for number in range(6)]
    return Case(
        bootstrap_servers=broker.bootstrap_servers,
        source=source,
        outcomes=topics.create("outcomes", partitions=2),
        dead_letters=topics.create("dead-letters", partitions=2),
        sources=records,
        positions=topics.produce(source, records),
    )


Write = Callable[..., None]


@pytest.fixture
def write(case: Case) -> Iterator[Write]:
    """Write outcomes and dead letters in one transaction, as the connector does; `commit=False` aborts it."""
    producer = Producer(
        {"bootstrap.servers": case.bootstrap_servers, "transactional.id": case.outcomes, "log_level": 3}
    )
    producer.init_transactions(30)

    def put(*, outcomes: list[Record] = [], dead_letters: list[Record] = [], commit: bool = True) -> None:  # noqa: B006
        producer.begin_transaction()
        for topic, records in ((case.outcomes, outcomes), (case.dead_letters, dead_letters)):
            for record in records:
                producer.produce(topic, record.value, record.key, headers=list(record.headers))
        producer.flush()
        if commit:
            producer.commit_transaction()
        else:
            producer.abort_transaction()

    yield put
    producer.flush()


def test_one_result_for_each_record_is_right(case: Case, write: Write) -> None:
    write(outcomes=[case.outcome(i) for i in range(4)], dead_letters=[case.dead_letter(4), case.dead_letter(5)])

    found = case.verdict()

    assert found.problems() == []
    assert (found.produced, found.queued, found.dead_letters) == (6, 4, {"invalid_phone": 2})


def test_a_record_without_a_result_is_lost(case: Case, write: Write) -> None:
    write(outcomes=[case.outcome(i) for i in (0, 1, 3)], dead_letters=[case.dead_letter(4), case.dead_letter(5)])

    found = case.verdict()

    topic, partition, offset = case.positions[2]
    assert found.lost == 1
    assert found.examples["lost"] == (f"{topic}:{partition}:{offset}",)
    assert "1 produced records have neither outcome nor dead letter" in found.problems()


def test_results_of_an_aborted_transaction_do_not_count(case: Case, write: Write) -> None:
    write(outcomes=[case.outcome(i) for i in range(4)], commit=False)
    write(outcomes=[case.outcome(0)], dead_letters=[case.dead_letter(4), case.dead_letter(5)])
    write(outcomes=[case.outcome(1)], commit=False)

    found = case.verdict()

    assert (found.queued, found.lost, found.duplicates) == (1, 3, 0)


def test_a_second_result_is_a_duplicate_in_either_topic(case: Case, write: Write) -> None:
    write(outcomes=[case.outcome(i) for i in range(4)], dead_letters=[case.dead_letter(4), case.dead_letter(5)])
    write(outcomes=[case.outcome(0)], dead_letters=[case.dead_letter(4), case.dead_letter(1, IN_DOUBT)])

    found = case.verdict()

    assert (found.lost, found.duplicates, found.in_doubt) == (0, 3, 1)
    assert found.problems(repeats_allowed=True) == []


def test_a_result_for_a_record_that_was_never_produced_is_a_stray(case: Case, write: Write) -> None:
    case.positions[3] = Position(case.source, 1, 999)
    write(outcomes=[case.outcome(i) for i in range(4)], dead_letters=[case.dead_letter(4), case.dead_letter(5)])

    found = case.verdict()

    assert (found.lost, found.strays) == (1, 1)


def test_another_end_than_the_due_one_is_named(case: Case, write: Write) -> None:
    write(outcomes=[case.outcome(i) for i in (0, 1, 2, 4)])
    write(outcomes=[case.outcome(3, "skipped")], dead_letters=[case.dead_letter(5, "missing_to")])

    found = case.verdict()

    assert found.otherwise == {
        "queued, not invalid_phone": 1,
        "skipped, not queued": 1,
        "missing_to, not invalid_phone": 1,
    }
    assert found.problems() == [f"1 became {change}" for change in sorted(found.otherwise)]


def test_what_is_in_doubt_may_have_been_due_to_end_in_any_way(case: Case, write: Write) -> None:
    write(outcomes=[case.outcome(i) for i in range(3)])
    write(dead_letters=[case.dead_letter(3, IN_DOUBT), case.dead_letter(4, IN_DOUBT), case.dead_letter(5)])

    found = case.verdict()

    assert found.in_doubt == 2
    assert found.dead_letters == {IN_DOUBT: 2, "invalid_phone": 1}
    assert found.problems() == []


@pytest.mark.parametrize(
    "change",
    [{"value": b"value 5 "}, {"key": b"key 4"}, {"key": None}, {"headers": []}],
    ids=["value", "key", "no key", "headers"],
)
def test_a_dead_letter_that_is_not_the_record_as_produced_is_altered(
    case: Case, write: Write, change: dict[str, object]
) -> None:
    letter = case.dead_letter(5)
    failure = [item for item in letter.headers if item[0] != "origin"]
    changed = letter._replace(**change) if "headers" not in change else letter._replace(headers=failure)  # type: ignore[arg-type]
    write(outcomes=[case.outcome(i) for i in range(4)], dead_letters=[case.dead_letter(4), changed])

    assert case.verdict().altered == 1


@pytest.mark.parametrize("first", [True, False])
def test_an_altered_dead_letter_is_found_beside_a_true_one(case: Case, write: Write, first: bool) -> None:
    """Where results may repeat, one of them being right does not make up for the other."""
    true = case.dead_letter(5)
    altered = true._replace(value=b"value 5 ")
    letters = [altered, true] if first else [true, altered]
    write(outcomes=[case.outcome(i) for i in range(4)], dead_letters=[case.dead_letter(4), *letters])

    found = case.verdict()

    assert (found.altered, found.duplicates) == (1, 1)


def test_a_dead_letter_may_leave_the_value_out_if_it_says_so(case: Case, write: Write) -> None:
    letter = case.dead_letter(5)
    short = letter._replace(value=None, headers=[*letter.headers, ("trackly.value_omitted", b"7 bytes")])
    write(outcomes=[case.outcome(i) for i in range(4)], dead_letters=[case.dead_letter(4), short])

    assert case.verdict().problems() == []


def test_results_that_do_not_name_their_record_are_malformed(case: Case, write: Write) -> None:
    nameless = case.dead_letter(4)._replace(headers=[("trackly.reason", b"invalid_phone")])
    write(outcomes=[Record(b"{}"), Record(b"not JSON"), Record(None)], dead_letters=[nameless])

    found = case.verdict()

    assert (found.malformed, found.lost) == (4, 6)


def test_the_ledger_is_compared_with_what_the_results_say(case: Case, write: Write) -> None:
    write(outcomes=[case.outcome(i) for i in range(3)])
    write(dead_letters=[case.dead_letter(3, IN_DOUBT), case.dead_letter(4), case.dead_letter(5)])

    found = case.verdict({b"key 0": 1, b"key 1": 2, b"key 3": 1, b"key 4": 1})

    assert found.accepted == 4
    assert (found.accepted_twice, found.examples["accepted_twice"]) == (1, ("b'key 1'",))
    assert found.never_accepted == 1
    assert found.accepted_but_failed == 1


def test_without_outcomes_only_what_must_fail_can_be_lost(case: Case, write: Write) -> None:
    write(dead_letters=[case.dead_letter(4)])

    assert case.verdict(failures_only=True).lost == 1


def test_the_same_positions_can_be_judged_again(case: Case, write: Write) -> None:
    write(outcomes=[case.outcome(i) for i in range(4)], dead_letters=[case.dead_letter(4), case.dead_letter(5)])
    case.verdict()

    assert case.verdict().problems() == []
