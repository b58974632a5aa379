"""What is known of the result topics while they change."""

import time
from collections.abc import Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, Final

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin._config import ConfigResource

from connector.config.streams import CreateTopicsSettings
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Topics as Made
from connector.kafka import topics as module
from connector.kafka.configs import MAX_BATCH_BYTES
from connector.kafka.errors import KafkaTroubleError
from connector.kafka.targets import REFRESH_SECS, SHRINKING, Outputs
from connector.kafka.topics import (
    DEFAULT_MAX_MESSAGE_BYTES,
    SOON_SECS,
    Topics,
    TopicsMissingError,
)
from tests.kit.patience import tell
from tests.kit.world import free_port

_OUTCOMES, _LETTERS = "outcomes", "dead-letters"
_UNTOLD: Final = [
    pytest.param(KafkaError._TIMED_OUT, id="not answered"),
    pytest.param(KafkaError.TOPIC_AUTHORIZATION_FAILED, id="not authorized"),
    pytest.param(KafkaError._UNSUPPORTED_FEATURE, id="not supported"),
]


class Cluster:
    """Topics by name with their partitions and limits, and the codes that questions are answered with, if any."""

    def __init__(self) -> None:
        self.brokers = 1
        self.partitions = {_OUTCOMES: 4, _LETTERS: 4}
        self.limits = {_OUTCOMES: 2_000_000, _LETTERS: 3_000_000}
        self.replicas: dict[tuple[str, int], SimpleNamespace] = {}
        self.least_in_sync = 2
        self.fails_to_list: int | None = None
        self.fails_to_describe: dict[str, int] = {}
        self.times_given: list[float] = []

    def describe_badly(self, code: int) -> None:
        """Tell no limit any more."""
        self.fails_to_describe = dict.fromkeys(self.limits, code)

    def list_topics(self, *, timeout: float) -> Any:
        """Answer as `AdminClient` does."""
        self.times_given.append(timeout)
        if self.fails_to_list is not None:
            raise KafkaException(KafkaError(self.fails_to_list))
        whole = SimpleNamespace(isrs=[1, 2, 3], replicas=[1, 2, 3])
        of = {n: {at: self.replicas.get((n, at), whole) for at in range(c)} for n, c in self.partitions.items() if c}
        topics = {name: SimpleNamespace(error=None, partitions=partitions) for name, partitions in of.items()}
        return SimpleNamespace(topics=topics, brokers=range(self.brokers))

    def describe_configs(self, asked: Iterable[ConfigResource], *, request_timeout: float) -> dict[Any, Any]:
        """Answer as `AdminClient` does."""
        self.times_given.append(request_timeout)
        return {resource: self._describe(resource.name) for resource in asked}

    def _describe(self, name: str) -> "Future[Any]":
        future: Future[Any] = Future()
        if name in self.fails_to_describe:
            future.set_exception(KafkaException(KafkaError(self.fails_to_describe[name])))
        else:
            told = {"max.message.bytes": self.limits[name], "min.insync.replicas": self.least_in_sync}
            future.set_result({setting: SimpleNamespace(value=str(value)) for setting, value in told.items()})
        return future

    def create_topics(self, wanted: Iterable[Any], *, request_timeout: float) -> dict[str, Any]:
        """Answer as `AdminClient` does, and nothing any more after that."""
        self.times_given.append(request_timeout)
        self.fails_to_list = KafkaError._TRANSPORT
        done: Future[None] = Future()
        done.set_result(None)
        return {topic.topic: done for topic in wanted}

    def poll(self, _secs: float) -> None:
        """Serve nothing."""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(module, "AdminClient", lambda _config: made)
    return made


@pytest.mark.parametrize(
    ("brokers", "wanted", "told"),
    [(1, 3, " --replication-factor 1"), (5, 3, " --replication-factor 3"), (3, -1, ""), (None, 3, "")],
)
def test_the_command_that_creates_a_topic_asks_for_no_more_copies_than_there_are_brokers(
    brokers: int | None, wanted: int, told: str, cluster: Cluster
) -> None:
    """Where that is not known, or is left to the brokers, their default counts."""
    if brokers is None:
        cluster.fails_to_list = KafkaError._TIMED_OUT
    else:
        cluster.brokers = brokers
    create = CreateTopicsSettings(replication_factor=wanted)

    with pytest.raises(TopicsMissingError) as caught:
        Topics({}, 1.0).make(["new"], create, partitions=4, bootstrap_servers="kafka:9092")

    command = "  kafka-topics.sh --bootstrap-server kafka:9092 --create --topic new --partitions 4"
    assert f"{command}{told}\n" in str(caught.value)


@pytest.mark.parametrize("code", _UNTOLD)
def test_a_limit_that_is_not_told_again_stays_as_it_was_learnt(cluster: Cluster, code: int) -> None:
    """Or dead letters would lose their value that fit, and others be made too large for their topic."""
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    outputs.refresh()

    cluster.describe_badly(code)
    cluster.partitions[_OUTCOMES] = 8
    outputs.refresh()

    assert outputs.dead_letter_limit == 3_000_000
    assert outputs.outcome_limit == 2_000_000
    assert outputs.outcome_partition(7) == 7, "what was told is taken"


def test_one_limit_that_is_not_told_keeps_no_other_from_being_learnt(cluster: Cluster) -> None:
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    outputs.refresh()

    cluster.fails_to_describe = {_OUTCOMES: KafkaError._TIMED_OUT}
    cluster.limits = {_OUTCOMES: 20_000, _LETTERS: 30_000}
    outputs.refresh()

    assert (outputs.outcome_limit == 2_000_000, outputs.dead_letter_limit) == (True, 30_000)


@pytest.mark.parametrize("code", _UNTOLD)
def test_a_limit_that_was_never_told_is_kafkas_default_until_it_is(cluster: Cluster, code: int) -> None:
    """It is asked for as soon as it matters."""
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    cluster.describe_badly(code)
    outputs.refresh()
    assert outputs.dead_letter_limit == DEFAULT_MAX_MESSAGE_BYTES

    cluster.fails_to_describe.clear()
    outputs.refresh_if_due(now=1.0)

    assert outputs.dead_letter_limit == 3_000_000


@pytest.mark.parametrize("code", _UNTOLD)
def test_an_unknown_limit_is_reported_as_kafkas_default(cluster: Cluster, code: int) -> None:
    cluster.fails_to_describe = {_OUTCOMES: code}
    found = Topics({}, 20).facts([_OUTCOMES, _LETTERS, "none"])

    limits = {name: None if facts is None else facts.max_message_bytes for name, facts in found.items()}
    assert limits == {_OUTCOMES: DEFAULT_MAX_MESSAGE_BYTES, _LETTERS: 3_000_000, "none": None}


def test_trouble_that_asking_for_limits_runs_into_is_reported(cluster: Cluster) -> None:
    cluster.describe_badly(KafkaError._TRANSPORT)

    with pytest.raises(KafkaTroubleError, match="settings of topic"):
        Topics({}, 20).facts([_OUTCOMES])


@pytest.mark.parametrize("listed", [True, False])
def test_an_unanswered_refresh_is_short_and_not_repeated_at_once(cluster: Cluster, listed: bool) -> None:
    """A tick waits for it: the ticks until the next one have most of the time, whoever is silent."""
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    outputs.refresh()
    cluster.describe_badly(KafkaError._TIMED_OUT)
    cluster.fails_to_list = None if listed else KafkaError._TIMED_OUT
    cluster.times_given.clear()

    outputs.refresh_if_due(now=100.0)
    assert 0 < sum(cluster.times_given) <= 2 * SOON_SECS < 0.7 * REFRESH_SECS
    cluster.times_given.clear()
    outputs.refresh_if_due(now=100.0 + 2 * SOON_SECS)
    assert cluster.times_given == []
    cluster.fails_to_describe, cluster.fails_to_list = {}, None
    cluster.limits[_LETTERS] = 4_000_000
    outputs.refresh_if_due(now=100.0 + REFRESH_SECS)

    assert outputs.dead_letter_limit == 4_000_000


def test_a_topic_that_is_gone_is_taken_as_it_was_until_it_is_seen_again(cluster: Cluster) -> None:
    """Mostly it is made anew as it was, and found by the producer before it is by us."""
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    outputs.refresh()

    cluster.partitions[_LETTERS] = 0
    assert outputs.absent([]) == {_LETTERS}

    assert (outputs.dead_letter_partition(7), outputs.dead_letter_limit) == (3, 3_000_000)
    cluster.fails_to_list = KafkaError._TIMED_OUT
    assert outputs.absent(["source"]) == {_LETTERS}, "what was seen last"


@pytest.mark.parametrize("seen_again", [True, False])
def test_a_topic_that_was_gone_is_looked_up_before_the_next_tick(cluster: Cluster, seen_again: bool) -> None:
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    outputs.refresh()
    outputs.refresh_if_due(now=99.0)
    cluster.partitions[_LETTERS] = 0
    outputs.absent([])

    cluster.partitions[_LETTERS], cluster.limits[_LETTERS] = 2, 2_000_000
    if seen_again:
        assert outputs.absent([]) == set()
    outputs.catch_up(now=100.0)

    assert (outputs.dead_letter_partition(7), outputs.dead_letter_limit) == (1, 2_000_000)
    cluster.times_given.clear()
    outputs.catch_up(now=200.0)
    assert cluster.times_given == [], "nothing is outdated any more"


def test_a_topic_that_takes_little_is_asked_again_now_and_then(cluster: Cluster) -> None:
    """Somebody may put right what was set by mistake."""
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    cluster.limits[_LETTERS] = 20_000
    outputs.refresh()
    outputs.catch_up(now=100.0)
    cluster.limits[_LETTERS] = 3_000_000

    outputs.catch_up(now=100.0 + 2 * SOON_SECS)
    assert outputs.batch_bytes < 20_000, "a tick waits for it, so not at each"
    outputs.catch_up(now=100.0 + REFRESH_SECS)

    assert outputs.batch_bytes == MAX_BATCH_BYTES
    cluster.times_given.clear()
    outputs.catch_up(now=200.0)
    assert cluster.times_given == []


def test_batches_get_smaller_while_a_topic_refuses_what_it_took_before(cluster: Cluster) -> None:
    """Results are put together as what they shrink to; and what a topic takes may be unknown, and less than thought."""
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    outputs.refresh()

    hopes = []
    for at in range(24):
        hopes.append(outputs.results_bytes)
        outputs.were_refused(outputs.results_bytes, now=float(at))

    assert hopes[:4] == [4 * MAX_BATCH_BYTES, 2 * MAX_BATCH_BYTES, MAX_BATCH_BYTES, MAX_BATCH_BYTES // 2]
    assert hopes[-2:] == [1, 1], "one by one, at last"
    assert outputs.batch_bytes == MAX_BATCH_BYTES


def test_hope_is_back_when_a_topic_is_seen_to_take_more(cluster: Cluster) -> None:
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    cluster.limits[_OUTCOMES] = 20_000
    outputs.refresh()
    outputs.were_refused(outputs.results_bytes, now=0.0)
    assert outputs.results_bytes < SHRINKING * outputs.batch_bytes

    cluster.limits[_OUTCOMES] = 2_000_000
    outputs.refresh()

    assert outputs.results_bytes == SHRINKING * MAX_BATCH_BYTES


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_limit_that_was_lowered_takes_no_hope_in_compression(cluster: Cluster, seen_before: bool) -> None:
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    outputs.refresh()
    refused = outputs.results_bytes
    cluster.limits[_OUTCOMES] = 20_000
    if seen_before:
        outputs.refresh_if_due(now=1.0)

    outputs.were_refused(refused, now=2.0)

    assert outputs.batch_bytes < 20_000
    assert outputs.results_bytes == SHRINKING * outputs.batch_bytes


def test_what_was_refused_is_cut_for_what_the_topic_takes_when_it_is_written_again(cluster: Cluster) -> None:
    """The limit may be raised right after the refusal, long before another look would be due."""
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    cluster.limits[_OUTCOMES] = 100
    outputs.refresh()
    outputs.were_refused(outputs.results_bytes, now=10.0)

    cluster.limits[_OUTCOMES] = 2_000_000
    outputs.refresh_if_due(now=10.1)

    assert outputs.outcome_limit == 2_000_000


def test_a_limit_that_we_may_not_ask_for_is_called_so(cluster: Cluster) -> None:
    cluster.fails_to_describe = {_OUTCOMES: KafkaError.TOPIC_AUTHORIZATION_FAILED}
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    outputs.refresh()

    assert outputs.limits_in_words == f"{_OUTCOMES} takes what we may not ask, {_LETTERS} takes 3,000,000 bytes"


def test_what_is_not_compressed_is_put_together_as_the_topics_take_it(cluster: Cluster) -> None:
    outputs = _outputs("", _OUTCOMES, _LETTERS, compressed=False)
    outputs.refresh()

    assert outputs.results_bytes == outputs.batch_bytes == MAX_BATCH_BYTES


def test_the_limit_of_a_topic_that_was_gone_is_queried_until_it_is_known(cluster: Cluster) -> None:
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    outputs.refresh()
    cluster.partitions[_LETTERS] = 0
    outputs.absent([])
    cluster.partitions[_LETTERS], cluster.limits[_LETTERS] = 2, 20_000
    cluster.describe_badly(KafkaError._TIMED_OUT)

    outputs.catch_up(now=100.0)
    assert (outputs.dead_letter_partition(7), outputs.dead_letter_limit) == (1, 3_000_000)
    cluster.fails_to_describe.clear()
    outputs.catch_up(now=100.0 + 2 * SOON_SECS)
    assert outputs.dead_letter_limit == 3_000_000, "a tick waits for it, so not at each"
    outputs.catch_up(now=100.0 + REFRESH_SECS)

    assert outputs.dead_letter_limit == 20_000


@pytest.mark.parametrize(
    ("in_sync", "replicas", "least", "short"),
    [(2, 3, 2, False), (1, 3, 2, True), (2, 3, 3, True), (1, 1, 2, False)],
    ids=["enough", "too few", "all are asked for", "of one Kafka asks for one"],
)
def test_a_topic_that_takes_nothing_as_too_few_replicas_are_in_sync_is_reported(
    in_sync: int, replicas: int, least: int, short: bool, cluster: Cluster
) -> None:
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    cluster.least_in_sync = least
    cluster.replicas[_OUTCOMES, 2] = SimpleNamespace(isrs=range(in_sync), replicas=range(replicas))

    told = outputs.under_min_isr()

    assert told == (
        f"outcomes takes no results while too few replicas are in sync: of partition 2 {in_sync} of {replicas}, "
        f"with min.insync.replicas {least}"
        if short
        else ""
    )


@pytest.mark.parametrize("code", _UNTOLD)
def test_replicas_are_not_reported_if_the_required_number_is_unknown(cluster: Cluster, code: int) -> None:
    outputs = _outputs("", _OUTCOMES, _LETTERS)
    cluster.replicas[_OUTCOMES, 2] = SimpleNamespace(isrs=[], replicas=[1, 2, 3])
    cluster.describe_badly(code)
    assert outputs.under_min_isr() == ""

    cluster.fails_to_list = code

    assert outputs.under_min_isr() == ""


def _outputs(bootstrap_servers: str, outcomes: str, dead_letters: str, *, compressed: bool = True) -> Outputs:
    return Outputs(
        Topics({"bootstrap.servers": bootstrap_servers, "log_level": 0}, 20),
        outcome_topic=outcomes,
        dead_letter_topic=dead_letters,
        outcomes_by_key=False,
        compressed=compressed,
    )


@pytest.mark.usefixtures("cluster")
def test_brokers_that_fall_silent_after_a_topic_was_created_are_a_trouble_of_kafka() -> None:
    create = CreateTopicsSettings(enabled=True)

    with pytest.raises(KafkaTroubleError, match="asking the brokers for their topics"):
        Topics({}, 1.0).make(["new"], create, partitions=4, bootstrap_servers="kafka:9092")


def test_topics_that_are_gone_are_reported_and_those_that_are_recreated_are_used_as_they_are(
    broker: BrokerHandle, topics: Made
) -> None:
    source, outcomes, dead_letters = (topics.create(partitions=4) for _ in range(3))
    outputs = _outputs(broker.bootstrap_servers, outcomes, dead_letters)
    outputs.refresh()
    limit, key_limit = outputs.dead_letter_limit, outputs.outcome_limit

    assert outputs.absent([source]) == set()
    assert outputs.outcome_partition(7) == 3

    topics.delete(source, outcomes)
    assert outputs.absent([source]) == {source, outcomes}
    assert (outputs.outcome_partition(7), outputs.outcome_limit) == (3, key_limit)

    topics.create(partitions=2, name=outcomes, config={"max.message.bytes": "20000"})
    assert outputs.absent([]) == set()
    assert outputs.outcome_partition(7) == 1
    outputs.catch_up(now=time.monotonic())
    assert (outputs.dead_letter_limit, outputs.outcome_limit) == (limit, 20_000)


def test_an_answer_that_no_broker_gives_soon_is_not_awaited() -> None:
    """A tick has failed then, and the next one waits for this."""
    outputs = _outputs(f"127.0.0.1:{free_port()}", "outcomes", "dead-letters")
    began = time.monotonic()

    assert outputs.absent(["source"]) == set()

    tell("an answer that does not come", time.monotonic() - began, SOON_SECS)


def test_a_topic_that_is_recreated_has_another_id_in_the_same_cluster(broker: BrokerHandle, topics: Made) -> None:
    asking = Topics({"bootstrap.servers": broker.bootstrap_servers}, 30.0)
    name, gone = topics.create(), topics.name()
    asked = asking.ask_ids([name, gone])
    first, again = asked.answer(30.0), asking.ask_ids([name]).answer(30.0)
    topics.delete(name)
    topics.create(name=name)
    second = asking.ask_ids([name]).answer(30.0)

    assert (list(first), again, asked.has_failed) == ([name], first, False)
    assert second[name] != first[name]
    assert (asked.cluster(), bool(asked.cluster())) == (asking.ask_ids([name]).cluster(), True)
