"""Holds begin and end as reported: each has a reason, a log line at either end, and a way out that works."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner, Result

from connector.cli.main import app
from connector.demo.artifacts import KAFKA_VERSION, java, kafka_jars
from connector.demo.topics import Record
from connector.simulator import Faults
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import Worker, World, sends

TOKEN: Final = "a-token-of-the-tests"


def _start(world: World, **stream: Any) -> Worker:
    return world.start(world.settings({"web": {"token": TOKEN}}, stream=stream))


def _hold(worker: Worker, reason: str) -> dict[str, Any]:
    """Wait for a hold and return it as in the status."""
    status = worker.wait_for(lambda s: any(h["reason"] == reason for h in s["holds"]), f"the hold {reason}")
    found: dict[str, Any] = next(hold for hold in status["holds"] if hold["reason"] == reason)
    return found


def _run(arguments: Iterable[str]) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, list(arguments))


def _type(command: str) -> Result:
    """Run a command from the status."""
    program, *arguments = command.split()
    assert program == "trackly-connector"
    return _run(arguments)


def _lines(worker: Worker, event: str) -> list[dict[str, Any]]:
    lines = (json.loads(line) for line in worker.log.read_text().splitlines() if line.startswith("{"))
    return [line for line in lines if line["event"] == event]


def _samples(worker: Worker, metric: str) -> list[str]:
    return [line for line in worker.page("/metrics").text.splitlines() if line.startswith(f"{metric}{{")]


def _wait_until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECS
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def _doubted(status: dict[str, Any]) -> int:
    """Return how many records the holds say are in doubt."""
    details = [hold["detail"] for hold in status["holds"] if hold["reason"] == "in_doubt"]
    return sum(int(detail.rpartition(": ")[2].split()[0]) for detail in details)


# ------------------------------------------------------------------ a storm of dead letters


def test_a_storm_holds_before_the_topic_is_emptied_and_continues_when_resumed(world: World) -> None:
    """A template without a text: nothing is lost, each record ends once, whether it was held back or not yet read."""
    world.produce((Record(b'{"to":"+15550000001"}', b"bad %d" % n) for n in range(20_000)), "missing_body")
    world.produce_sends(1_000)
    worker = _start(world, storm_guard={"min_count": 500})

    hold = _hold(worker, "storm:missing_body")

    assert (hold["ends"], hold["partition"]) == ("operator", None)
    assert len(world.headers_of_dead_letters()) < 5_000
    time.sleep(1)
    assert len(world.headers_of_dead_letters()) < 5_000
    assert _samples(worker, "trackly_hold") == [
        f'trackly_hold{{reason="storm:missing_body",stream="{world.name}"}} 1.0'
    ]
    (command,) = hold["commands"]
    done = _type(command)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "storm:missing_body ended" in done.stdout
    found = world.settled()
    assert found.problems() == []
    assert found.dead_letters == {"missing_body": 20_000}
    assert worker.status()["holds"] == []


def test_a_storm_that_was_let_pass_does_not_hide_another_one(world: World) -> None:
    world.produce((Record(b'{"to":"+15550000001"}', b"bad %d" % n) for n in range(3_000)), "missing_body")
    worker = _start(world, storm_guard={"min_count": 500})
    (command,) = _hold(worker, "storm:missing_body")["commands"]
    assert _type(command).exit_code == 0
    worker.wait_for(lambda s: s["dead_letters"].get("missing_body") == 3_000, "the first ones written")

    world.produce((Record(b'{"to":"0555","body":"x"}', b"phone %d" % n) for n in range(9_000)), "invalid_phone")

    (command,) = _hold(worker, "storm:invalid_phone")["commands"]
    assert _type(command).exit_code == 0
    assert world.settled().problems() == []


# ------------------------------------------------------------------ records in doubt


@pytest.mark.parametrize(("choice", "dead", "twice"), [("dead_letter", 250, 0), ("resend", 0, 250)])
def test_records_in_doubt_wait_for_a_decision_over_a_restart(world: World, choice: str, dead: int, twice: int) -> None:
    world.platform.set_faults(Faults.model_validate({"lose_reply": {"next": 1}}))
    world.produce_sends(1_000)
    first = _start(world, delivery={"in_doubt": "hold"})
    _hold(first, "in_doubt")
    assert first.stop() in {0, 5}
    worker = _start(world, delivery={"in_doubt": "hold"})
    hold = _hold(worker, "in_doubt")
    assert hold["ends"] == "operator"
    assert [command.partition(" --in-doubt ")[2] for command in hold["commands"]] == ["dead_letter", "resend"]
    worker.wait_for(lambda s: _doubted(s) == 250, "every partition of the batch on hold")

    undecided = _run(["resume", world.name, "--config", str(_config(world))])

    assert undecided.exit_code == 1
    assert "needs --in-doubt dead_letter or --in-doubt resend; nothing was changed" in undecided.stdout
    assert _hold(worker, "in_doubt") == hold
    decided = _run(["resume", world.name, "--config", str(_config(world)), "--in-doubt", choice])
    assert decided.exit_code == 0
    assert f"in_doubt of {hold['partition']} ended" in decided.stdout
    found = world.settled()
    assert (found.lost, found.duplicates, found.in_doubt, found.accepted_twice) == (0, 0, dead, twice)
    worker.wait_for(lambda s: s["holds"] == [], "the hold to end")


def test_a_decision_about_records_in_doubt_is_not_one_about_later_ones(world: World) -> None:
    world.platform.set_faults(Faults.model_validate({"lose_reply": {"next": 1}}))
    world.produce_sends(500)
    worker = _start(world, delivery={"in_doubt": "hold"})
    _hold(worker, "in_doubt")
    args = ["resume", world.name, "--config", str(_config(world)), "--in-doubt", "dead_letter"]
    assert _run(args).exit_code == 0
    worker.wait_for(lambda s: s["holds"] == [] and s["dead_letters"].get("in_doubt") == 250, "the first ones written")

    world.platform.set_faults(Faults.model_validate({"lose_reply": {"next": 1}}))
    world.produce_sends(500, tag="later")

    _hold(worker, "in_doubt")
    assert worker.status()["dead_letters"] == {"in_doubt": 250}


# ------------------------------------------------------------------ commits that are foreign or gone


def _foreign(world: World) -> None:
    positions = [TopicPartition(world.source, number, 0) for number in (1, 2, 3)]
    world.commit(TopicPartition(world.source, 0, 0, "not ours"), *positions)


def _config(world: World) -> Any:
    """Return the settings file of the worker that was started last."""
    return world.folder / f"connector-{len(world.workers) - 1}.yaml"


def test_foreign_metadata_is_discarded_by_the_command_that_the_hold_names(world: World) -> None:
    world.produce_sends(2_000)
    _foreign(world)
    worker = _start(world)
    hold = _hold(worker, "foreign_metadata")
    assert hold["partition"] == f"{world.source}:0"

    (command,) = hold["commands"]
    done = _type(command)

    assert (done.exit_code, done.stderr) == (0, "")
    assert f"--partition {world.source}:0 --foreign-metadata discard" in command
    assert world.settled().problems() == []
    assert worker.stop() == 0
    again = _start(world)  # the commit is ours now
    again.wait_for(lambda s: len(s["partitions"]) == 4 and s["holds"] == [], "all partitions, and no hold")


# ------------------------------------------------------------------ progress that Kafka has deleted


def _forget(world: World) -> None:
    """Delete the group, as Kafka does when it had no members for a week."""
    world.leave()
    admin = AdminClient({"bootstrap.servers": world.bootstrap_servers})
    admin.delete_consumer_groups([world.group])[world.group].result(PATIENCE_SECS)


def _sent_and_forgotten(world: World) -> Worker:
    """Return a worker whose group is new to Kafka, and whose records were all sent before."""
    world.produce_sends(2_000)
    first = _start(world)
    assert world.settled().problems() == []
    assert first.stop() == 0
    _forget(world)
    return _start(world)


def test_what_kafka_forgot_is_not_posted_again_before_the_operator_decides(world: World) -> None:
    worker = _sent_and_forgotten(world)
    status = worker.wait_for(lambda s: len(s["holds"]) == 4, "a hold of each partition")
    assert {hold["reason"] for hold in status["holds"]} == {"progress_missing"}
    time.sleep(1)
    assert world.platform.ledger().accepted == 2_000
    (command,) = status["holds"][0]["commands"]
    undecided = _type(command.removesuffix(" --progress-missing begin"))
    assert undecided.exit_code == 1
    assert "--progress-missing begin" in undecided.stdout + undecided.stderr

    for hold in status["holds"]:
        assert _type(hold["commands"][0]).exit_code == 0

    worker.wait_for(lambda s: s["queued"] == 2_000 and s["holds"] == [], "all of them sent again")
    assert world.platform.ledger().accepted == 4_000
    assert worker.stop() == 0
    again = _start(world)  # the commit is ours now
    again.wait_for(lambda s: len(s["partitions"]) == 4 and s["holds"] == [], "all partitions, and no hold")


def test_what_kafka_forgot_of_a_topic_that_was_quiet_for_long_is_not_posted_again(world: World) -> None:
    """The last outcomes are all of the busy topic, whose commits are gone as well."""
    quiet = world.topics.create(partitions=1)
    world.topics.produce(quiet, sends(100, tag="long ago"))
    first = _start(world, topics=[world.source, quiet])
    first.wait_for(lambda s: s["queued"] == 100, "all of the quiet topic sent")
    world.topics.produce(world.source, sends(48_000))
    first.wait_for(lambda s: s["queued"] == 48_100, "more of the busy one than is looked at")
    assert first.stop() == 0
    _forget(world)

    worker = _start(world, topics=[world.source, quiet])

    status = worker.wait_for(lambda s: len(s["holds"]) == 5, "a hold of each partition")
    [detail] = [hold["detail"] for hold in status["holds"] if hold["partition"] == f"{quiet}:0"]
    assert "the last outcomes have none of this partition" in detail
    assert world.platform.ledger().accepted == 48_100


def test_with_start_latest_what_kafka_forgot_is_not_passed_over_before_the_operator_decides(world: World) -> None:
    worker = _start(world, start="latest")
    worker.wait_for(lambda s: len(s["partitions"]) == 4 and s["ticks"] >= 1, "the first commit")
    world.produce_sends(400)
    assert world.settled().problems() == []
    assert worker.stop() == 0
    world.topics.produce(world.source, sends(200, tag="while it stood still"))
    _forget(world)

    worker = _start(world, start="latest")

    status = worker.wait_for(lambda s: len(s["holds"]) == 4, "a hold of each partition")
    assert {hold["reason"] for hold in status["holds"]} == {"progress_missing"}
    assert all("would be skipped" in hold["detail"] for hold in status["holds"])
    for hold in status["holds"]:
        assert _type(hold["commands"][0]).exit_code == 0
    worker.wait_for(lambda s: len(s["partitions"]) == 4 and s["holds"] == [], "all partitions begun at the end")
    assert world.platform.ledger().accepted == 400


def test_a_partition_with_forgotten_commits_resumes_where_the_operator_sets_it(
    world: World, kafka_tools: list[str]
) -> None:
    worker = _sent_and_forgotten(world)
    worker.wait_for(lambda s: len(s["holds"]) == 4, "a hold of each partition")
    assert worker.stop() == 0
    world.leave()
    tool = [*kafka_tools, "--bootstrap-server", world.bootstrap_servers, "--group", world.group, "--reset-offsets"]
    for number, end in world.topics.ends(world.source).items():
        where = ["--to-offset", str(end), "--execute", "--topic", f"{world.source}:{number}"]
        assert world.source in _told([*tool, *where])

    world.produce_sends(500, tag="later")
    _start(world)

    assert world.settled().problems() == []
    assert world.platform.ledger().accepted == 2_500


def test_a_stream_is_new_if_all_outcomes_are_of_other_streams(world: World) -> None:
    world.produce_sends(500)
    first = _start(world)
    assert world.settled().problems() == []
    assert first.stop() == 0
    settings = world.settings()
    settings["streams"].append({**settings["streams"][0], "name": f"{world.name}-other"})

    worker = world.start(settings)

    def all_sent() -> bool:
        streams = worker.page("/status").json()["streams"] if worker.status() else []
        return [stream["queued"] for stream in streams] == [0, 500]

    deadline = time.monotonic() + PATIENCE_SECS
    while not all_sent() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all_sent(), "all were sent by the other one, too"


@pytest.fixture(scope="session")
def kafka_tools(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the command line of Kafka's own `kafka-consumer-groups.sh`, whose jar Maven brings."""
    folder = tmp_path_factory.mktemp("kafka-tools")
    artifact = f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}"
    maven = shutil.which("mvn") or pytest.skip("Kafka's tools need Maven")
    fetch = [maven, "-q", "-B", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={folder}"]
    if subprocess.run(fetch, capture_output=True, check=False, timeout=240).returncode:
        pytest.skip("Maven cannot bring Kafka's tools")
    classes = f"{folder}/*:{kafka_jars()}/*"
    tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    return [java(), "-XX:TieredStopAtLevel=1", "-cp", classes, tool]


def test_foreign_metadata_is_reset_by_kafkas_own_tool_while_the_group_is_stopped(
    world: World, kafka_tools: list[str]
) -> None:
    world.produce_sends(2_000)
    _foreign(world)
    worker = _start(world)
    detail = _hold(worker, "foreign_metadata")["detail"]
    arguments = detail.partition("kafka-consumer-groups.sh ")[2].split()
    assert "--reset-offsets" in arguments
    tool = [*kafka_tools, "--bootstrap-server", world.bootstrap_servers, *arguments]
    running = _told(tool)
    assert "can only be reset if the group" in running  # the tool refuses while there are members
    assert worker.stop() == 0
    world.leave()

    assert world.source in _told(tool)
    _start(world)
    assert world.settled().problems() == []


def _told(tool: list[str]) -> str:
    done = subprocess.run(tool, capture_output=True, text=True, check=False, timeout=PATIENCE_SECS)
    return done.stdout + done.stderr


def test_missing_records_are_passed_over_when_resumed_and_counted(world: World) -> None:
    world.topics.produce(world.source, sends(100), partition=0)
    world.commit(*(TopicPartition(world.source, number, 0) for number in range(4)))
    admin = AdminClient({"bootstrap.servers": world.bootstrap_servers})
    for future in admin.delete_records([TopicPartition(world.source, 0, 30)]).values():
        future.result(PATIENCE_SECS)
    worker = _start(world)
    (command,) = _hold(worker, "records_missing")["commands"]

    assert _type(command).exit_code == 0

    status = worker.wait_for(lambda s: s["queued"] == 70, "the rest sent")
    assert status["missing"] == 30
    worker.wait_for(lambda s: s["holds"] == [], "the hold to end")


def test_only_the_named_partitions_resume(world: World) -> None:
    world.produce_sends(2_000)
    positions = [TopicPartition(world.source, number, 0, "not ours") for number in (0, 1)]
    world.commit(*positions, *(TopicPartition(world.source, number, 0) for number in (2, 3)))
    worker = _start(world)
    worker.wait_for(lambda s: len(s["holds"]) == 2 and s["queued"] == 1_000, "two holds, the other partitions sent")

    done = _run(
        [
            "resume",
            world.name,
            "--config",
            str(_config(world)),
            "--foreign-metadata",
            "discard",
            "--partition",
            f"{world.source}:0",
            "--partition",
            f"{world.source}:3",
        ]
    )

    assert done.exit_code == 1
    assert f"no worker that was asked has a hold on {world.source}:3" in done.stderr
    status = worker.wait_for(lambda s: s["queued"] == 1_500, "one more partition sent")
    assert [hold["partition"] for hold in status["holds"]] == [f"{world.source}:1"]


# ------------------------------------------------------------------ what is told


def test_a_hold_is_one_line_at_its_beginning_and_one_at_its_end(world: World) -> None:
    world.platform.set_faults(Faults(status_override=401))
    world.produce_sends(2_000)
    worker = _start(world)
    hold = _hold(worker, "unauthorized")
    assert (hold["ends"], hold["commands"]) == ("probe", [])
    _wait_until(lambda: len(_lines(worker, "probed")) >= 2, "probes that fail")
    world.platform.set_faults(Faults())
    worker.wait_for(lambda s: s["holds"] == [] and s["queued"] == 2_000, "the hold to end")

    _wait_until(lambda: bool(_lines(worker, "hold ended")), "the end of the hold in the log")
    begun, ended = _lines(worker, "stream on hold"), _lines(worker, "hold ended")

    assert [(line["level"], line["reason"], line["ends"]) for line in begun] == [("error", "unauthorized", "probe")]
    assert [(line["level"], line["reason"]) for line in ended] == [("info", "unauthorized")]
    assert ended[0]["lasted_secs"] > 0
    assert _samples(worker, "trackly_holds_total") == [
        f'trackly_holds_total{{reason="unauthorized",stream="{world.name}"}} 1.0'
    ]


def test_resuming_what_ends_by_a_probe_probes_at_once(world: World) -> None:
    world.platform.set_faults(Faults(status_override=401))
    world.produce_sends(500)
    worker = _start(world, hold={"probe_secs": 3_600, "probe_max_secs": 3_600})
    _hold(worker, "unauthorized")
    world.platform.set_faults(Faults())

    done = _run(["resume", world.name, "--config", str(_config(world))])

    assert done.exit_code == 0
    assert "unauthorized ends when a probe passes; probing now" in done.stdout
    assert world.settled().problems() == []
