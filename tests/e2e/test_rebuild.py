"""A group whose commits were deleted continues from both result topics: nothing lost, nobody texted twice."""

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
import yaml
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner, Result

from connector.cli import rebuild_progress
from connector.cli.main import app
from connector.demo.broker import Broker
from connector.demo.topics import Position, Record, Topics, position_of
from connector.simulator import Faults, SimulatorThread
from connector.simulator.faults import RecordCode
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import World, send, sends


@pytest.fixture
def world(shaken_broker: Broker, platform: SimulatorThread, tmp_path: Path) -> World:
    """Make a world at a broker that ends transactions which a killed worker left open within a second."""
    address = shaken_broker.bootstrap_servers
    return World(address, Topics(address), platform, tmp_path)


def _forget(world: World) -> None:
    """Have Kafka forget the group, as it does by itself when the group had no members for a week."""
    world.leave()
    admin = AdminClient({"bootstrap.servers": world.bootstrap_servers})
    admin.delete_consumer_groups([world.group])[world.group].result(PATIENCE_SECS)


def _produce(world: World, records: Iterable[Record], *, of: int = 1_000, at: datetime | None = None) -> None:
    """Produce records in transactions of so many, as of a time."""
    properties = {"bootstrap.servers": world.bootstrap_servers, "transactional.id": f"{world.name}-{of}"}
    producer, positions = Producer(properties), list[Position]()
    producer.init_transactions(30)
    timestamp_ms = 0 if at is None else int(at.timestamp() * 1_000)
    for _, those in groupby(enumerate(records), lambda numbered: numbered[0] // of):
        producer.begin_transaction()
        for number, record in those:
            producer.produce(
                world.source,
                record.value,
                record.key,
                number % 4,
                lambda _error, message: positions.append(position_of(message)),
                timestamp=timestamp_ms,
            )
        producer.commit_transaction(30)
    world.produced.add_all(positions, "queued")


def _rebuild(world: World, *options: str, stream: dict[str, Any] | None = None, typed: str = "") -> Result:
    path = world.folder / "rebuild.yaml"
    path.write_text(yaml.safe_dump(world.settings({"kafka": {"transaction_timeout_secs": 5}}, stream=stream)))
    return CliRunner().invoke(app, ["rebuild-progress", str(path), *options], input=typed)


def test_a_group_that_is_deleted_under_way_after_a_kill_continues_and_the_ledger_adds_up(world: World) -> None:
    """Results lie in any order, requests are under way, and a dead letter stands between outcomes."""
    world.platform.set_faults(Faults(latency_ms=(100, 3_000)))
    world.produce_sends(6_000)
    world.produce([Record(b'{"to":"0555","body":"x"}', b"bad")], "invalid_phone")
    settings = world.settings({"kafka": {"transaction_timeout_secs": 5}}, stream={"batch": {"max_records": 50}})
    worker = world.start(settings)
    worker.wait_for(lambda s: s["queued"] >= 1_000 and s["in_flight_requests"] > 0, "results, and posts under way")
    worker.kill()
    _forget(world)
    stopped_at = datetime.now(UTC)
    _produce(world, sends(200, tag="produced since"), at=stopped_at + timedelta(minutes=5))
    accepted = world.platform.ledger().accepted

    whole = json.loads(_rebuild(world, "--json", "--dry-run").stdout)
    told = _rebuild(world, "--json", "--yes", "--stopped-at", stopped_at.isoformat())

    assert told.exit_code == 0, told.output
    plan = json.loads(told.stdout)
    assert 0 < plan["in_doubt"] < whole["in_doubt"], "what was produced since is in nobody's doubt"
    assert sum(each["results"] for each in plan["partitions"].values()) >= 1_000
    assert sum(each["without_result_between"] for each in plan["partitions"].values()) > 0
    world.platform.set_faults(Faults())
    world.produce_sends(500, tag="later")
    world.start(settings)
    found = world.settled()
    world.close()
    assert found.problems() == []
    assert (found.lost, found.accepted_twice) == (0, 0)
    assert found.in_doubt == plan["in_doubt"], "what had no result, and nothing else"
    assert world.platform.ledger().accepted == accepted + 700
    assert _rebuild(world, "--yes").exit_code == 1, "there is a commit of each partition now"


def test_after_a_clean_stop_nothing_is_in_doubt_and_what_had_to_wait_is_sent(world: World) -> None:
    """A record that waited to be tried again lies below others that have results: to go on behind them loses it.

    Whoever produces does so in transactions, of which each leaves a marker that no result is of.
    """
    world.platform.set_faults(Faults(record_codes=(RecordCode(text="wait for it", code="provider_error", times=1),)))
    settings = world.settings(stream={"retry": {"backoff_base_secs": 60, "backoff_max_secs": 60}})
    worker = world.start(settings)
    waiting = Record(b'{"to":"+15550001111","body":"wait for it"}', b"wait for it")
    world.produce([waiting])
    worker.wait_for(lambda s: s["waiting_batches"] == 1, "the record that waits")
    _produce(world, sends(400), of=10)
    worker.wait_for(lambda s: s["queued"] == 400, "the others")
    assert worker.stop() == 0
    _forget(world)
    world.produce_sends(100, tag="later")

    plan = json.loads(_rebuild(world, "--stopped-cleanly", "--json", "--dry-run").stdout)["partitions"].values()
    told = _rebuild(world, "--stopped-cleanly", typed="y\n")

    assert told.exit_code == 0, told.output
    assert "nothing is in doubt" in told.stdout
    assert sum(each["without_result_between"] for each in plan) == 1, "of markers nobody waits for a result"
    world.start(world.settings())
    found = world.settled()
    world.close()
    assert found.problems() == []
    assert (found.lost, found.accepted_twice, found.in_doubt) == (0, 0, 0)
    assert found.queued == 501


def test_what_cannot_be_told_is_refused_and_nothing_is_committed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.produce_sends(400)
    worker = world.start(world.settings())
    worker.wait_for(lambda s: s["queued"] == 400, "all is sent")
    running = _rebuild(world)
    assert (running.exit_code, "members" in running.stderr) == (1, True), running.output
    assert worker.stop() == 0
    world.topics.produce(world.source, [send(1, tag="more")], partition=0)
    _forget(world)
    admin = AdminClient({"bootstrap.servers": world.bootstrap_servers})

    def refusal(*options: str, stream: dict[str, Any] | None = None) -> str:
        told = _rebuild(world, *options, stream=stream)
        assert told.exit_code == 1, told.output
        return told.stderr

    assert "outcomes.records is failures" in refusal(stream={"outcomes": {"records": "failures"}})
    assert "start is latest" in refusal(stream={"start": "latest"})
    renamed = {"name": f"{world.name}-2", "group_id": world.group}
    assert f"results of these records: {world.name};" in refusal(stream=renamed)
    assert "later than --stopped-at" in refusal("--stopped-at", "7d")
    assert "not confirmed" in refusal()
    assert _rebuild(world, "--dry-run", "--formerly", world.name, stream=renamed).exit_code == 0

    admin.delete_records([TopicPartition(world.outcomes, 0, 50)])[TopicPartition(world.outcomes, 0)].result(
        PATIENCE_SECS
    )
    cut = refusal()
    assert "no result, and results of that age have been removed" in cut
    since = cut.split("--since ")[-1].split()[0]
    whole = json.loads(_rebuild(world, "--dry-run", "--json", "--since", since).stdout)
    assert whole["in_doubt"] == 0, "what was produced before is dealt with, as somebody has said"

    gone = _rebuild(world, stream={"outcomes": {"topic": "no-such-topic"}})
    assert (gone.exit_code, "no-such-topic does not exist" in gone.stderr) == (2, True), gone.output

    compacted = world.topics.create(config={"cleanup.policy": "compact"})
    assert "compacted" in refusal(stream={"dead_letters": {"topic": compacted}})

    def begun_meanwhile(_question: str) -> bool:
        world.commit(TopicPartition(world.source, 1, 100))
        return True

    monkeypatch.setattr(rebuild_progress, "is_confirmed", begun_meanwhile)
    assert f"{world.source}:1: a worker has started since" in refusal("--since", since)

    world.topics.delete(world.source)
    world.topics.create(partitions=4, name=world.source)
    world.topics.produce(world.source, [send(number, tag="new") for number in range(4)], partition=0)
    assert "recreated" in refusal("--since", "1970-01-01T00:00:00Z")
    world.close()
