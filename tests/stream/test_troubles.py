"""When the brokers are queried about a stream that Kafka does not let read, and what an answer ends."""

from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError

from connector.core.chunks import Partition
from connector.kafka.errors import KafkaTroubleError
from connector.stream.broker_queries import Sources
from connector.stream.troubles import Troubles

ONE, OTHER = Partition("one", 0), Partition("other", 0)


class Asking:
    """Troubles with queries that are answered by hand, at a time that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at = 100.0
        self.asked: list[tuple[float, Sources]] = []
        self.open: list[Future[Sources]] = []
        monkeypatch.setattr("connector.stream.troubles.now", lambda: self.at)
        self.troubles = Troubles("bench", self._ask, probe_secs=2.0, probe_max_secs=5.0)

    def _ask(self, refused: Sources) -> Future[Sources]:
        self.asked.append((self.at, refused))
        self.open.append(Future())
        return self.open[-1]

    def refuse(self, *partitions: Partition | None) -> None:
        for partition in partitions:
            code = KafkaError.GROUP_AUTHORIZATION_FAILED if partition is None else KafkaError.TOPIC_AUTHORIZATION_FAILED
            self.troubles.take(partition, KafkaTroubleError(KafkaError(code)))

    def check(self, *, until: float, answers: Sources | None = None) -> None:
        """Look repeatedly up to a time, and answer queries at once if there is an answer."""
        while self.at < until:
            self.at += 0.5
            self.troubles.check()
            while answers is not None and self.open:
                self.open.pop().set_result(answers)

    @property
    def held(self) -> bool:
        return self.troubles.refused is not None


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Asking:
    return Asking(monkeypatch)


def test_nothing_is_asked_while_nothing_is_refused(asking: Asking) -> None:
    asking.check(until=200, answers=())

    assert asking.asked == []


def test_it_is_asked_again_after_twice_as_long_up_to_the_longest_wait(asking: Asking) -> None:
    asking.refuse(ONE, None)

    asking.check(until=120, answers=())

    assert [at for at, _ in asking.asked] == [102, 106, 111, 116]
    assert [set(refused) for _, refused in asking.asked] == [{"one", None}] * 4
    assert asking.held


def test_what_is_allowed_is_held_no_more_and_the_rest_is_asked_for_again(asking: Asking) -> None:
    asking.refuse(ONE, OTHER, None)

    asking.check(until=104, answers={"one"})
    asking.check(until=110, answers={"other", None})

    assert [set(refused) for _, refused in asking.asked] == [{"one", "other", None}, {"other", None}]
    assert not asking.held


def test_an_answer_from_before_the_last_refusal_ends_nothing(asking: Asking) -> None:
    asking.refuse(ONE)
    asking.check(until=103)
    [before] = asking.open

    asking.refuse(ONE)
    before.set_result({"one"})
    asking.check(until=104)

    assert asking.held


def test_one_query_runs_at_a_time_and_the_operator_may_trigger_it_at_once(asking: Asking) -> None:
    asking.refuse(ONE)
    asking.troubles.ask_at_once()

    asking.check(until=150)

    assert [at for at, _ in asking.asked] == [100.5]
