"""Dead letters that are sent again by a running connector: once each, by command and by rule."""

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import yaml
from typer.testing import CliRunner

from connector.cli.main import app
from connector.demo.topics import Record
from connector.simulator import Faults
from connector.simulator.faults import Poison, RecordCode
from tests.kit.patience import PATIENCE_SECS
from tests.kit.world import DRAIN_SECS, PATIENT, Worker, World, merge, sends

CREATE = {"create_topics": {"enabled": True, "replication_factor": 1}, "metadata_refresh_secs": 1}


def run(world: World, settings: dict[str, Any], command: str, *options: str) -> dict[str, Any]:
    """Run a command on dead letters as a user does, and return what was told."""
    path = world.folder / "commands.yaml"
    path.write_text(yaml.safe_dump(settings))
    result = CliRunner().invoke(app, ["dead-letters", command, str(path), "--yes", "--json", *options])
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def redrive(world: World, settings: dict[str, Any], *options: str) -> dict[str, Any]:
    """Send dead letters again as a user does, and return what was told."""
    return run(world, settings, "redrive", *options)


def accepted(world: World) -> dict[str, int]:
    return {str(entry.identity): entry.accepted for entry in world.platform.entries("send") if entry.accepted}


def test_fixed_dead_letters_are_sent_once_and_those_that_fail_again_do_not_grow(world: World) -> None:
    settings = world.settings(stream=CREATE)
    world.produce_sends(5)
    bodiless = [Record(b'{"to":"+1555000%04d"}' % at, b"%d" % at, [("tenant", b"acme")]) for at in range(20)]
    world.produce(bodiless, "missing_body")
    worker = world.start(settings)
    worker.wait_for(lambda s: s["dead_letters"].get("missing_body") == 20, "dead letters")
    size = len(world.headers_of_dead_letters()[0])

    vain = redrive(world, settings, "--reason", "missing_body", "--limit", "5")
    worker.wait_for(lambda s: s["dead_letters"].get("missing_body") == 25, "dead letters of what was sent again")
    again = [headers for headers in world.headers_of_dead_letters() if headers.get("trackly.redrives")]
    mended = redrive(world, settings, "--reason", "missing_body", "--patch", '{"body": "Hello {{messageId}}"}')
    worker.wait_for(lambda s: s["queued"] == 25, "all are queued")
    last = redrive(world, settings, "--reason", "missing_body", "--patch", '{"body": "Another"}')

    assert vain["written"] == {"redrive": 5}
    assert len(again) == 5
    assert {headers["trackly.redrives"] for headers in again} == {"1"}
    assert {headers["__connect.errors.topic"] for headers in again} == {f"{world.name}.redrive"}
    assert {headers["trackly.origin.topic"] for headers in again} == {world.source}
    assert {len(headers) for headers in again} == {size + 1}, "the count is all that came on top"
    assert (mended["written"], mended["skipped"]) == ({"redrive": 20}, {"redriven": 5})
    assert accepted(world)["Hello {{messageId}}"] == 20
    assert last["would_redrive"] == 0, "their origins have outcomes now"
    told = [outcome for outcome in world.outcome_values() if "origin" in outcome]
    assert len({(o["origin"]["partition"], o["origin"]["offset"]) for o in told}) == 20
    assert sorted(outcome["redrives"] for outcome in told) == [1] * 15 + [2] * 5
    assert worker.stop() == 0


def test_a_rule_sends_again_what_failed_for_a_while_each_record_once(world: World) -> None:
    """While the platform cannot reach its provider records become dead letters; later all are queued."""
    rule = {"name": "transient", "reasons": ["provider_error"], "delay_secs": 1, "max_redrives": 10}
    stream = merge(
        CREATE,
        {
            "retry": {"max_attempts": 1},
            "storm_guard": {"enabled": False},
            "dead_letters": {"redrive": [{**rule, "max_per_sec": 1_000}]},
        },
    )
    world.platform.set_faults(Faults(record_codes=(RecordCode(text="text", code="provider_error"),)))
    worker = world.start(world.settings(stream=stream))
    worker.wait_for(lambda s: s["state"] == "running", "it runs")
    world.topics.produce(world.source, sends(200))
    seen = worker.wait_for(lambda s: s["redrives"][0]["redriven"] >= 250, "sent again in vain, some of it twice")
    world.platform.set_faults(Faults(account_suspended=True))
    held = worker.wait_for(
        lambda s: s["state"] == "on_hold" and s["in_flight_records"] == 0 and s["redrives"][0]["held"], "all holds"
    )
    second = world.start(world.settings(stream=stream))
    time.sleep(2)
    still = worker.status()["redrives"][0]["redriven"]
    worker.kill()

    world.platform.set_faults(Faults())
    deadline = time.monotonic() + PATIENCE_SECS
    while len(accepted(world)) < 200 and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2)

    assert seen["dead_letters"]["provider_error"] > 200
    assert still == held["redrives"][0]["redriven"], "nothing is sent again while the stream holds"
    assert accepted(world) == {f"text {at}": 1 for at in range(200)}
    queued = [outcome for outcome in world.outcome_values() if outcome["status"] == "queued"]
    assert len({json.dumps(outcome["origin"]) for outcome in queued}) == len(queued) == 200
    metrics = second.page("/metrics").text
    assert 'trackly_redriven_total{rule="transient"' in metrics
    for why, count in second.status()["redrives"][0]["passed_over"].items():
        of = f'rule="transient",stream="{world.name}",why="{why}"'
        assert f"trackly_redrive_passed_over_total{{{of}}} {count:.1f}" in metrics
    assert "Redrive rule transient (provider_error)" in second.page(f"/streams/{world.name}").text
    assert second.stop() == 0


def _wait_posted(world: World, worker: Worker, count: int) -> None:
    worker.wait_for(
        lambda s: s["in_flight_records"] == count and len(accepted(world)) == 500,
        f"posts of {count} that get no answer",
    )


def test_what_was_accepted_hours_before_its_dead_letter_was_written_is_not_sent_again_by_evidence(world: World) -> None:
    """A worker is killed as it posts, and no other runs for hours: only its events tell when the platform had it."""
    settings = world.settings(PATIENT, stream=merge(CREATE, {"delivery": {"drain_secs": DRAIN_SECS}}))
    worker = world.start(settings)
    for count, is_taken in ((500, True), (1_000, False)):
        faults = {"stall": {"rate": 1}, "stall_takes_records": is_taken}
        world.platform.set_faults(Faults.model_validate(faults))
        world.produce(
            Record(b'{"to":"+1555%07d","body":"text %d"}' % (number, number), b"%d" % number)
            for number in range(count - 500, count)
        )
        _wait_posted(world, worker, count)
    worker.kill()
    world.platform.set_faults(Faults())
    taken = set(accepted(world))
    worker = world.start(settings)
    worker.wait_for(lambda s: s["dead_letters"].get("in_doubt") == 1_000, "dead letters")
    posted_at = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    events = world.topics.create("events")
    told = [{"event": "delivery", "to": f"+1555{int(text[5:]):07d}", "timestamp": posted_at} for text in taken]
    world.topics.produce(events, [Record(json.dumps(event).encode()) for event in told])

    at_first = run(world, settings, "in-doubt", "--evidence-topic", events)
    worker.wait_for(lambda s: s["queued"] >= 500, "what the platform did not have")
    then = run(world, settings, "in-doubt", "--evidence-topic", events, "--window-mins", "240")

    assert len(taken) == 500
    assert (at_first["written"], at_first["skipped"]) == ({"redrive": 500}, {"still_in_doubt": 500})
    assert then["written"] == {"accept": 500}
    assert run(world, settings, "in-doubt")["groups"] == []
    assert accepted(world) == {f"text {number}": 1 for number in range(1_000)}
    assert worker.stop() == 0


def test_a_record_that_always_fails_is_a_dead_letter_each_time_a_rule_sends_it_again_with_nothing_beside_it(
    world: World,
) -> None:
    """On a quiet stream nothing else passes that would show that the platform is well."""
    rule = {"name": "errors", "reasons": ["server_error"], "delay_secs": 0.5, "max_redrives": 2}
    stream = merge(CREATE, {"retry": {"max_attempts": 2}, "dead_letters": {"redrive": [rule]}})
    world.platform.set_faults(Faults(poison=(Poison(text="poison"),)))
    worker = world.start(world.settings(stream=stream))
    worker.wait_for(lambda s: s["state"] == "running" and len(s["partitions"]) == 8, "it runs")
    world.produce([Record(b'{"to":"+15550000001","body":"poison"}', b"poison")], "server_error")

    worker.wait_for(lambda s: s["dead_letters"].get("server_error") == 3, "it failed, and twice when sent again")
    worker.wait_for(lambda s: s["state"] == "running", "no hold")

    assert [headers.get("trackly.redrives", "0") for headers in world.headers_of_dead_letters()] == ["0", "1", "2"]
    assert worker.stop() == 0
