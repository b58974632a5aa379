"""Basic delivery: records in, texts out, one result each, and the effect of bad records and failures."""

import json
import subprocess
import time
from collections import Counter
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

import pytest

from connector.demo.topics import Record, Topics
from connector.simulator import Faults, Outage, Poison, RecordCode, SimulatorSettings, SimulatorThread
from tests.conftest import MakeBroker
from tests.kit.programs import program
from tests.kit.world import KEY, World, sends


def test_every_record_gets_one_outcome(world: World) -> None:
    world.produce_sends(5_000)
    worker = world.start(world.settings())

    found = world.settled()

    assert found.problems() == []
    assert found.queued == 5_000
    outcome = world.outcome_values()[0]
    assert outcome["http_status"] == 200
    assert outcome["topic"] == world.source
    assert worker.stop() == 0


def test_outcomes_keep_the_key_and_the_partition_of_their_record(world: World) -> None:
    world.produce_sends(100)
    world.start(world.settings())
    world.settled()

    for message in world.topics.read(world.outcomes):
        outcome = json.loads(message.value() or b"")
        assert message.partition() == outcome["partition"]
        assert (message.key() or b"").startswith(b"text ")


TORTURE: list[tuple[str, Record]] = [
    ("skipped", Record(None, b"tombstone")),
    ("not_json", Record(b"", b"empty")),
    ("not_utf8", Record(b"\xff\xfe\x00binary", b"\x00\xff", (("h", b"\xff"), ("h", None)))),
    ("not_json", Record(b'{"to":"+15550000001","body":"x","n":NaN}', b"nan")),
    ("not_json", Record(b'{"to":"+15550000001","body":"\\ud800"}', b"surrogate")),
    ("not_json", Record(b'{"to":"+15550000001","body":"x","d":' + b"[" * 50_000 + b"]" * 50_000 + b"}", b"deep")),
    ("not_json", Record(b'\xef\xbb\xbf{"to":"+15550000001","body":"x"}', b"bom")),
    ("not_an_object", Record(b'["+15550000001"]', b"array")),
    ("wrong_type", Record(b'{"to":15550000001,"body":"x"}', b"number")),
    ("missing_to", Record(b'{"body":"x"}', b"no to")),
    ("missing_body", Record(b'{"to":"+15550000001","body":""}', b"empty body")),
    ("invalid_phone", Record(b'{"to":"0555","body":"x"}', b"phone")),
    ("invalid_phone", Record(b'{"to":"+15550000001\\n+15550000002","body":"x"}', b"two phones")),
    ("invalid_list_number", Record(b'{"to":"+15550000001","body":"x","list_number":"abc"}', b"list")),
    ("queued", Record(b'{"to":"nobody","to":"+15550000001","body":"duplicate key"}', b"duplicate key")),
    ("queued", Record(b' \n{"to":"+15550000001","body":"white space"} ', b"white space")),
    ("queued", Record(json.dumps({"to": "+15550000001", "body": "m" * 400_000}).encode(), b"m" * 400_000)),
]


def test_any_record_ends_in_a_result_and_dead_letters_are_byte_for_byte(world: World) -> None:
    """Null, empty, binary, large, nested, not UTF-8: a reason each, never a crash or a stuck partition."""
    for expected, record in TORTURE:
        world.produce([record], expected)
    world.produce_sends(50)
    world.start(world.settings())

    found = world.settled()

    assert found.problems() == []
    assert found.altered == 0


def test_a_failed_record_says_where_it_came_from_and_why(world: World) -> None:
    bad = Record(b'{"to":"0555","body":"x"}', b"k", (("trace", b"1"), ("trackly.reason", b"an earlier failure")))
    world.produce([bad], "invalid_phone")
    world.start(world.settings())
    world.settled()

    (headers,) = world.headers_of_dead_letters()
    assert headers["trackly.reason"] == "invalid_phone"
    assert headers["__connect.errors.topic"] == headers["__dlq.errors.topic"] == world.source
    assert headers["trackly.origin.offset"] == headers["__connect.errors.offset"]
    assert headers["trace"] == "1"


def test_one_record_that_the_request_is_refused_for_is_dead_lettered_alone(world: World) -> None:
    world.platform.set_faults(Faults(poison=(Poison(text="poison", status=400),)))
    world.produce_sends(1_000)
    world.produce([Record(b'{"to":"+15550000001","body":"poison"}', b"poison")], "internal_error")
    world.start(world.settings())

    found = world.settled()

    assert found.problems() == []
    assert found.dead_letters == {"internal_error": 1}


def test_one_text_that_a_firewall_minds_is_dead_lettered_alone(world: World) -> None:
    """Its first refusal holds the stream, as if it were about the account; a probe and others that pass end that."""
    world.platform.set_faults(Faults(poison=(Poison(text="poison", status=403, body="html"),)))
    world.produce_sends(1_000)
    world.produce([Record(b'{"to":"+15550000001","body":"poison"}', b"poison")], "rejected")
    worker = world.start(world.settings(stream={"hold": {"probe_secs": 0.2}, "retry": {"backoff_base_secs": 0.1}}))

    rounds = count()

    def found_out(status: dict[str, Any]) -> bool:
        world.produce_sends(10, tag=f"others {next(rounds)},")
        return bool(status["dead_letters"])

    worker.wait_for(found_out, "the one record")
    found = world.settled()

    assert found.problems() == []
    assert found.dead_letters == {"rejected": 1}


def test_records_with_a_permanent_code_are_dead_letters(world: World) -> None:
    world.platform.set_faults(Faults(record_codes=(RecordCode(text="bad", code="not_sendable"),)))
    world.produce_sends(300)
    world.produce(sends(20, tag="bad"), "not_sendable")
    world.start(world.settings())

    found = world.settled()

    assert found.problems() == []


def _wait_held(world: World, worker: Any, reason: str) -> None:
    status = worker.wait_for(lambda s: (s["hold"] or {}).get("reason") == reason, f"hold {reason}")
    assert status["hold"]["since"] > 0
    page = worker.page("/metrics").text
    assert f'trackly_hold{{reason="{reason}",stream="{world.name}"}} 1.0' in page
    assert reason in worker.page("/").text
    assert worker.page("/readyz").status_code == 200


def test_a_refused_key_pauses_and_resumes_alone(world: World) -> None:
    """The peers' failure: 401 passes over records, or sends them all to the dead letters."""
    world.produce_sends(2_000)
    worker = world.start(world.settings())
    worker.wait_for(lambda s: s["queued"] == 2_000, "the first records")
    world.platform.set_faults(Faults(status_override=401))
    world.produce_sends(5_000, tag="later")
    _wait_held(world, worker, "unauthorized")
    before, began = worker.status()["requests"], time.monotonic()
    time.sleep(2)

    assert worker.status()["requests"] - before < 5 * (time.monotonic() - began)  # probes, not a storm
    assert world.headers_of_dead_letters() == []
    world.platform.set_faults(Faults())
    found = world.settled()
    assert found.problems() == []
    assert found.queued == 7_000
    worker.wait_for(lambda s: s["hold"] is None, "the hold to end")


@pytest.mark.parametrize("faults", [Faults(outage=Outage(how="refuse")), Faults(status_override=503)])
def test_an_outage_pauses_and_resumes_alone(world: World, faults: Faults) -> None:
    """The peers' failures: a refused connection is not tried again; an open breaker sends all to the dead letters.

    It lasts for longer than all attempts of a record: five, with four waits of up to 0.2 s between them.
    """
    world.produce_sends(2_000)
    worker = world.start(world.settings(stream={"retry": {"backoff_max_secs": 0.2}}))
    worker.wait_for(lambda s: s["queued"] == 2_000, "the first records")
    world.platform.set_faults(faults)
    world.produce_sends(5_000, tag="later")
    _wait_held(world, worker, "outage")
    time.sleep(2)
    world.platform.set_faults(Faults())

    found = world.settled()

    assert found.problems() == []
    assert found.dead_letters == {}


def test_a_lost_answer_is_in_doubt_and_never_sent_again(world: World) -> None:
    world.platform.set_faults(Faults.model_validate({"lose_reply": {"next": 2}}))
    world.produce_sends(3_000)
    world.start(world.settings())

    found = world.settled()

    assert found.problems() == []
    assert found.in_doubt == 500
    assert found.accepted_twice == 0
    assert found.accepted == 3_000


def test_a_lost_answer_is_sent_again_where_the_operator_chose_so(world: World) -> None:
    world.platform.set_faults(Faults.model_validate({"lose_reply": {"next": 1}}))
    world.produce_sends(1_000)
    world.start(world.settings(stream={"delivery": {"in_doubt": "resend"}}))

    found = world.settled()

    assert found.lost == found.duplicates == 0
    assert found.queued == 1_000
    assert found.accepted_twice == 250
    outcomes = world.outcome_values()
    assert sum(outcome.get("resent", False) for outcome in outcomes) == 250


def test_what_is_in_doubt_repeatedly_is_sent_so_often_and_no_more(world: World, make_simulator: Any) -> None:
    """`resend` ends after `retry.max_attempts`, while others pass; each repeat is told, whatever became of it."""
    settings = SimulatorSettings.model_validate({"switches": {"partial_queueing": 1.0}, "api_keys": [KEY]})
    world.platform = make_simulator(settings)
    world.platform.set_faults(Faults(poison=(Poison(text="poison", status=504),)))
    world.produce(sends(200, tag="together with poison"))
    stream = {"delivery": {"in_doubt": "resend"}, "retry": {"max_attempts": 3, "backoff_base_secs": 0.3}}
    worker = world.start(world.settings(stream=stream))
    worker.wait_for(lambda s: s["requests_by_row"].get("in_doubt_status", 0) >= 1, "a first doubt")
    number = 0
    while worker.status().get("dead_letters", {}).get("in_doubt", 0) < 200:
        number += 1
        assert number < 600
        world.produce(sends(5, tag=f"well {number}"))
        time.sleep(0.1)

    found = world.settled()

    assert (found.lost, found.duplicates) == (0, 0)
    assert (found.queued, found.in_doubt) == (5 * number, 200)
    letters = world.headers_of_dead_letters()
    assert {letter["trackly.resent"] for letter in letters} == {"true"}
    attempts = Counter(int(letter["trackly.attempts"]) for letter in letters)
    assert Counter(e.accepted for e in world.platform.entries("send") if "poison" in e.identity) == attempts
    assert max(attempts) <= 6, "three, and those that show that it is not the platform that fails"


def test_where_no_large_request_is_answered_all_continues_in_small_ones(world: World) -> None:
    """The stream would be in doubt batch by batch otherwise, since a single record passes each time."""
    world.platform.set_faults(Faults(stall_above_bytes=2_000, stall_takes_records=True, latency_ms=(20, 20)))
    world.produce_sends(5_000)
    settings = world.settings(
        {"trackly": {"timeouts": {"total_secs": 2, "connect_secs": 1}}},
        stream={"batch": {"max_records": 200}, "concurrency": {"max": 8}},
    )
    worker = world.start(settings)
    status = worker.wait_for(lambda s: s["queued"] > 1_000, "small requests that are answered")

    found = world.settled()

    print(f"{found.in_doubt} of 5,000 in doubt, requests of {status['largest_batch']} records at most")
    assert found.problems() == []
    assert 0 < status["largest_batch"] < 30
    assert found.in_doubt <= 8 * 200 + 3 * 30, "what was under way at first, and what tried for more"
    assert found.queued + found.in_doubt == 5_000
    assert "batches hold fewer records" in worker.log.read_text()


@pytest.mark.parametrize(
    "lie", ["broken_json", "empty_body", "html_body", "wrong_counts", "repeated_index", "wrong_to"]
)
def test_an_answer_that_cannot_be_believed_is_in_doubt(world: World, lie: str) -> None:
    world.platform.set_faults(Faults.model_validate({lie: {"next": 1}}))
    world.produce_sends(1_000)
    world.start(world.settings())

    found = world.settled()

    assert found.problems() == []
    assert found.in_doubt == 250


def test_a_wrong_list_holds_the_stream(world: World, make_simulator: Any) -> None:
    """A code that hits every record of a batch with the stream's own list is the setting's fault, not the records'."""
    from connector.simulator import SimulatorSettings  # noqa: PLC0415

    world.platform = make_simulator(SimulatorSettings.model_validate({"lists": ["+18005550000"]}))
    world.produce_sends(500)
    worker = world.start(world.settings())

    _wait_held(world, worker, "setting:list_not_found")

    assert world.headers_of_dead_letters() == []
    assert worker.status()["hold"]["detail"].endswith(", for the stream's list +1800***1234")


def test_a_storm_of_dead_letters_holds_before_they_are_written(world: World) -> None:
    world.produce((Record(b'{"to":"+15550000001"}', b"%d" % n) for n in range(20_000)), "missing_body")
    worker = world.start(world.settings(stream={"storm_guard": {"min_count": 2_000}}))

    _wait_held(world, worker, "storm:missing_body")

    assert len(world.headers_of_dead_letters()) < 10_000


def test_a_pause_that_the_platform_asks_for_is_kept(world: World) -> None:
    world.platform.set_faults(Faults(status_override=429, retry_after_secs=2))
    world.produce_sends(1_000)
    worker = world.start(world.settings())
    began = time.monotonic()
    worker.wait_for(lambda s: s["requests_by_row"].get("wait", 0) > 0, "a pause")
    time.sleep(1)
    assert worker.status()["requests"] < 20 * (time.monotonic() - began)
    world.platform.set_faults(Faults())

    assert world.settled().problems() == []


def test_single_mode_tells_message_ids(world: World) -> None:
    world.produce_sends(200)
    world.start(world.settings(stream={"mode": "single"}))

    found = world.settled()

    assert found.problems() == []
    outcomes = world.outcome_values()
    assert all(len(outcome["message_id"]) == 8 for outcome in outcomes)


@pytest.mark.parametrize("placement", ["message", "top_level"])
def test_lists_come_from_the_event_or_the_stream(world: World, placement: str) -> None:
    """The peers' failure: mixed records grouped at the limit are sent in two requests."""
    records = []
    for number, record in enumerate(sends(3_000)):
        event = json.loads(record.value or b"")
        if number % 3:
            event["list_number"] = f"+1800555{number % 3:04d}"
        records.append(record._replace(value=json.dumps(event).encode()))
    world.produce(records)
    world.start(world.settings(stream={"list_number_placement": placement, "batch": {"max_records": 7}}))

    found = world.settled()

    assert found.problems() == []
    assert found.queued == 3_000


OTHER_OPERATIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("contacts", {}, {"phone_number": "+15550000001", "custom_fields": {"plan": "gold"}}),
    ("contacts", {"mode": "single"}, {"phone_number": "+15550000001"}),
    ("revenue", {}, {"message_id": "aB12cD34", "revenue": 9.5, "attribution_type": "sale"}),
    ("revenue", {"mode": "single"}, {"message_id": "aB12cD34", "revenue": 9.5, "attribution_type": "sale"}),
    ("history", {}, {"id": "a", "to_number": "+15550000001", "timestamp": "2026-01-01T00:00:00Z"}),
    (
        "history",
        {"history": {"kind": "clicks"}},
        {
            "message_id": "aB12cD34",
            "offer_id": "o",
            "phone_number": "+15550000001",
            "timestamp": "2026-01-01T00:00:00Z",
        },
    ),
    ("history", {"history": {"kind": "revenue"}}, {"message_id": "aB12cD34", "offer_id": "o", "revenue": 1}),
    (
        "history",
        {"history": {"endpoint": "import"}},
        {"id": "a", "to_number": "+15550000001", "timestamp": "2026-01-01T00:00:00Z"},
    ),
]


@pytest.mark.parametrize(("operation", "over", "event"), OTHER_OPERATIONS)
def test_every_operation_reaches_its_endpoint(
    world: World, operation: str, over: dict[str, Any], event: dict[str, Any]
) -> None:
    world.produce(Record(json.dumps({**event, **_unique(event, n)}).encode(), b"%d" % n) for n in range(60))
    settings = world.settings(stream={"operation": operation, **over})
    if not {"phone_number", "to_number"} & event.keys() or "offer_id" in event:
        del settings["streams"][0]["list_number"]  # what has no list must not be given one
    world.start(settings)

    found = world.settled()

    assert (found.lost, found.duplicates, found.otherwise) == (0, 0, {})
    assert found.queued == 60


def _unique(event: dict[str, Any], number: int) -> dict[str, Any]:
    """Return what makes one event differ from the next, as the platform skips repeats."""
    field = next(name for name in ("id", "phone_number", "message_id") if name in event)
    return {field: f"+1555000{number:04d}" if field == "phone_number" else f"id{number:06d}"}


def test_failures_only_writes_no_outcomes(world: World) -> None:
    world.produce_sends(500)
    world.produce([Record(b'{"to":"0555","body":"x"}', b"k")], "invalid_phone")
    worker = world.start(world.settings(stream={"outcomes": {"records": "failures"}}))
    worker.wait_for(lambda s: s["queued"] == 500 and s["dead_letters"] == {"invalid_phone": 1}, "all settled")

    assert world.topics.read(world.outcomes) == []
    assert len(world.headers_of_dead_letters()) == 1


def test_records_above_their_age_are_not_sent(world: World) -> None:
    world.produce(sends(100), "expired")
    time.sleep(1.2)
    world.start(world.settings(stream={"delivery": {"max_age_secs": 1}}))

    found = world.settled()

    assert found.problems() == []


def test_records_that_grow_too_old_during_a_hold_are_not_sent_after_it(world: World) -> None:
    world.platform.set_faults(Faults(status_override=401))
    worker = world.start(world.settings(stream={"delivery": {"max_age_secs": 6}, "hold": {"probe_secs": 0.5}}))
    worker.wait_for(lambda s: len(s["partitions"]) == 4, "its partitions")  # else they may grow too old before
    world.produce(sends(500), "expired")
    too_slow = {"expired": 500}  # a machine on which they are too old before anything is posted
    worker.wait_for(
        lambda s: (s["hold"] or {}).get("reason") == "unauthorized" or s["dead_letters"] == too_slow, "the hold"
    )
    time.sleep(6)
    world.platform.set_faults(Faults())

    found = world.settled()

    assert found.problems() == []
    assert found.accepted == 0


def test_a_pattern_that_matches_nothing_says_so_and_finds_topics_that_come_later(
    world: World, platform: SimulatorThread
) -> None:
    del platform
    prefix = world.source.replace(".", "\\.")
    worker = world.start(
        world.settings(stream={"topics": [], "pattern": f"^{prefix}\\.late.*", "metadata_refresh_secs": 1})
    )
    worker.wait_for(lambda s: s["state"] == "running", "start")
    assert "source topics do not exist yet; waiting for them" in worker.log.read_text()
    late = world.topics.create(partitions=2, name=f"{world.source}.late")
    world.produced.add_all(world.topics.produce(late, sends(200)))

    assert world.settled().problems() == []


def test_another_client_fills_the_topic_and_reads_the_results(world: World, tmp_path: Path) -> None:
    examples = Path("schemas/examples/event.send.v1.ndjson").read_text().splitlines()
    lines = tmp_path / "events"
    lines.write_text("\n".join([*examples, '{"to":"0555","body":"x"}', ""]))
    server = world.bootstrap_servers
    kcat = program("kcat")
    subprocess.run([kcat, "-P", "-b", server, "-t", world.source, "-p", "0", "-l", str(lines)], check=True)
    worker = world.start(world.settings())
    worker.wait_for(lambda s: s["queued"] == len(examples) and s["dead_letters"] == {"invalid_phone": 1}, "all settled")

    def read(topic: str) -> list[str]:
        done = subprocess.run(
            [kcat, "-C", "-b", server, "-t", topic, "-e", "-q", "-f", "%s|%h\n"], check=True, capture_output=True
        )
        return done.stdout.decode().splitlines()

    outcomes = [json.loads(line.rpartition("|")[0]) for line in read(world.outcomes)]
    assert [outcome["status"] for outcome in outcomes] == ["queued"] * len(examples)
    (letter,) = read(world.dead_letters)
    assert letter.startswith('{"to":"0555","body":"x"}|')
    assert "trackly.reason=invalid_phone" in letter


def test_the_key_given_by_file_is_read_again(world: World, tmp_path: Path) -> None:
    """A rotated key ends the hold without a restart."""
    key = tmp_path / "key"
    key.write_text("wrong-key\n")
    settings = world.settings({"trackly": {"api_key": f"${{file:{key}}}"}})
    world.produce_sends(100)
    worker = world.start(settings)
    _wait_held(world, worker, "unauthorized")

    key.write_text(KEY)

    assert world.settled().problems() == []


def test_brokers_that_keep_little_beside_an_offset_are_told_less(
    make_broker: MakeBroker, platform: SimulatorThread, tmp_path: Path
) -> None:
    """Fewer records are in flight then. Kafka keeps 4,096 bytes by default; here the stream begins with far more."""
    broker = make_broker({"offset.metadata.max.bytes": "300"})
    world = World(broker.bootstrap_servers, Topics(broker.bootstrap_servers), platform, tmp_path)
    platform.set_faults(Faults(latency_ms=(0, 400)))
    draw = Random(7)
    world.produce(
        Record(json.dumps({**json.loads(value), "list_number": f"+1800555{draw.randrange(40):04d}"}).encode(), key)
        for value, key, _ in sends(4_000)
        if value
    )
    settings = world.settings(stream={"list_number_placement": "top_level", "batch": {"max_records": 50}})
    worker = world.start(settings)

    found = world.settled()
    less = [json.loads(line) for line in worker.log.read_text().splitlines() if "commits list less" in line]
    world.close()

    assert (found.problems(), found.in_doubt) == ([], 0)
    assert [line["max_characters"] for line in less][-1] <= 300
