"""The demonstration from end to end, and what it says when something is wrong."""

import re
import signal
import subprocess
import sys
from dataclasses import replace
from typing import Any

import orjson
import pytest
from confluent_kafka import KafkaError, KafkaException
from rich.console import Console
from typer.testing import CliRunner

from connector.cli.main import app
from connector.demo import demo, finding
from connector.demo.artifacts import BrokerUnavailableError
from connector.demo.broker import wait_until_ready
from connector.demo.demo import DemoError, run_demo
from connector.demo.events import BAD, Events
from connector.demo.finding import BrokerHandle
from connector.demo.judge import Judgement
from connector.demo.topics import Topics
from tests.kit.patience import PATIENCE_SECS

_EVENTS = 4_000
_RIGHT = Judgement(
    produced=100,
    queued=99,
    skipped=0,
    dead_letters={"not_json": 1},
    accepted=99,
    lost=0,
    duplicates=0,
    strays=0,
    malformed=0,
    altered=0,
    otherwise={},
    accepted_twice=0,
    never_accepted=0,
    accepted_but_failed=0,
)


def _problems(judgement: Judgement, *, replies_lost: int = 1, is_exact: bool = True) -> list[str]:
    return demo._problems(judgement, Events(100), replies_lost, is_exact=is_exact)


def test_a_kept_promise_has_no_problems() -> None:
    assert _problems(_RIGHT) == []


@pytest.mark.parametrize("number", ["lost", "duplicates", "altered", "accepted_twice", "accepted_but_failed"])
def test_each_breach_is_a_problem(number: str) -> None:
    breach: dict[str, Any] = {number: 3}

    (problem,) = _problems(replace(_RIGHT, **breach))

    assert problem.startswith("3 ")


def test_repeated_outcomes_are_a_problem_of_exactly_once_alone() -> None:
    assert _problems(replace(_RIGHT, duplicates=3), is_exact=False) == []


def test_no_more_may_be_in_doubt_than_the_lost_replies_were_for() -> None:
    doubtful = replace(_RIGHT, dead_letters={"in_doubt": 251})

    assert _problems(doubtful, replies_lost=2) == []
    assert _problems(doubtful) == ["251 records are in doubt, but lost replies (1) explain 250 at most"]


def test_all_events_must_have_been_produced() -> None:
    assert _problems(replace(_RIGHT, produced=99)) == ["99 events were produced, not 100"]


def test_a_connector_that_does_not_run_ends_it_with_the_connectors_own_words(
    broker: BrokerHandle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_settings", lambda *_args, **_names: {"streams": []})

    with pytest.raises(DemoError) as caught:
        run_demo(Console(quiet=True), events=Events(_EVENTS), bootstrap_servers=broker.bootstrap_servers)

    assert "connector.yaml" in str(caught.value)


def test_everything_is_reported_in_one_object_on_the_last_line(broker: BrokerHandle) -> None:
    """Faults, an outage and a lost reply, and yet every event ends once, as it should."""
    arguments = ["--json", "--events", str(_EVENTS), "--seed", "3", "--bootstrap-servers", broker.bootstrap_servers]
    ran = subprocess.run(
        [sys.executable, "-m", "connector", "demo", *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECS,
    )

    assert ran.returncode == 0, ran.stderr
    sums = orjson.loads(ran.stdout.splitlines()[-1])
    assert list(sums) == [
        *("produced", "queued", "dead_letters", "in_doubt", "lost", "accepted_twice"),
        *("seconds", "records_per_second", "broker"),
    ]
    assert sums["produced"] == _EVENTS == sums["queued"] + sum(sums["dead_letters"].values())
    assert (sums["lost"], sums["accepted_twice"]) == (0, 0)
    assert 0 < sums["in_doubt"] == sums["dead_letters"].pop("in_doubt") <= 250
    assert sums["dead_letters"].keys() <= BAD.keys()
    assert max(sums["dead_letters"].values()) == _EVENTS // 100 // len(BAD)
    assert "outage of 3." in ran.stderr


@pytest.mark.parametrize("servers", ["", "a b:1", "\udcff:1", "kafka://a:1"])
def test_what_is_no_address_of_brokers_is_refused_before_it_is_waited_for(servers: str) -> None:
    told = CliRunner().invoke(app, ["demo", "--bootstrap-servers", servers], env={"COLUMNS": "200"})

    assert (told.exit_code, "server 1 must be host:port" in told.stderr) == (2, True), told.output


def test_a_broker_that_was_given_and_does_not_answer_is_reported_with_the_hint_of_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(finding, "_GIVEN_TIMEOUT_SECS", 0)

    told = CliRunner().invoke(app, ["demo", "--bootstrap-servers", "127.0.0.1:1"])

    assert told.exit_code == 3
    assert "error: 127.0.0.1:1 does not answer within 0 s (Failed to get metadata: Local: " in told.stderr
    assert "hint: give one that can be reached with --bootstrap-servers" in told.stderr


def test_a_given_broker_that_refuses_topics_is_reported_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_arguments: Any, **_names: Any) -> str:
        raise KafkaException(KafkaError(KafkaError.CLUSTER_AUTHORIZATION_FAILED))

    monkeypatch.setattr(demo, "find_broker", lambda *_, **__: BrokerHandle("given", "given broker", "127.0.0.1:1"))
    monkeypatch.setattr(Topics, "create", refused)

    told = CliRunner().invoke(app, ["demo", "--bootstrap-servers", "127.0.0.1:1"])

    assert told.exit_code == 3
    assert "error: the broker refuses what the demo needs: " in told.stderr
    assert "hint: give one that can be reached with --bootstrap-servers" in told.stderr


@pytest.mark.usefixtures("quick_java")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_all_that_it_started(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "connector", "demo", "--events", "1000000"], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        addresses = []
        for line in running.stdout:
            addresses += re.findall(r"127\.0\.0\.1:\d+", line)
            if line.startswith("Connector:"):
                break

        running.send_signal(number)
        code = running.wait(timeout=PATIENCE_SECS)

    assert code not in (0, -signal.SIGKILL)
    with pytest.raises(BrokerUnavailableError):
        wait_until_ready(addresses[0], 0.5)
