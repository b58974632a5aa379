"""The commands on dead letters, on a real broker."""

import contextlib
import json
import os
import pty
import secrets
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from confluent_kafka import Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from connector.app.loading import load
from connector.cli.dead_letters import choosing, redriving
from connector.cli.progress import worked
from connector.clock import now_ms
from connector.deadletters import copying
from connector.deadletters.deciding import Rules
from connector.deadletters.running import spans_of
from connector.deadletters.selection import Criteria
from connector.deadletters.settling import settled
from connector.deadletters.working import Job, R, Spans
from connector.demo.topics import Record, produce
from connector.kafka.errors import KafkaTroubleError
from tests.deadletters.conftest import Desk
from tests.deadletters.making import connect_headers, headers_of, record
from tests.kit.patience import PATIENCE_SECS

REASONS = [
    "not_sendable",
    "list_not_found",
    "provider_error",
    "server_error",
    "invalid_phone",
    "missing_body",
    "in_doubt",
    "rejected",
]
TRANSIENT = ("--reason", "provider_error", "--reason", "server_error")


def fill(desk: Desk, count: int) -> dict[str, str]:
    """Put dead letters of eight reasons from three streams; return the reason of each by its key."""
    rows = [(number, REASONS[number // 3 % 8], desk.names[number % 3]) for number in range(count)]
    desk.put(
        record(number, reason, stream=name, topic=f"{name}.source", partition=number % 4, list_number="+18005550000")
        if reason == "list_not_found"
        else record(number, reason, stream=name, topic=f"{name}.source", partition=number % 4)
        for number, reason, name in rows
    )
    return {f"{name} {number}": reason for number, reason, name in rows}


def keys(messages: list[Message]) -> Counter[str]:
    return Counter((message.key() or b"").decode() for message in messages)


def columns(messages: list[Message]) -> list[tuple[object, ...]]:
    return [(m.partition(), m.key(), m.value(), m.headers(), m.timestamp()) for m in messages]


def test_counts_are_exact_under_every_filter(desk: Desk) -> None:
    reasons = fill(desk, 480)

    whole = desk.told("stats")

    assert whole["total"] == 480
    assert whole["reasons"] == dict(Counter(reasons.values()))
    assert whole["streams"] == dict.fromkeys(desk.names, 160)
    assert whole["source_topics"] == {f"{name}.source": 160 for name in desk.names}
    assert (whole["ages"]["last hour"], sum(step["count"] for step in whole["time_line"])) == (480, 480)
    ones = sum(reason == "rejected" and key.endswith("1") for key, reason in reasons.items())
    counts: dict[tuple[str, ...], int] = {
        TRANSIENT: 120,
        ("--reason", "in_doubt", "--stream", desk.names[0]): 20,
        ("--code", "rejected"): 60,
        ("--status", "200"): 480,
        ("--source-topic", f"{desk.names[1]}.source"): 160,
        ("--list-number", "+18005550000"): 60,
        ("--list-number", "+18005551234"): 420,
        ("--key", f"{desk.names[0]} 0"): 1,
        ("--since", "1h", "--max-redrives", "0"): 480,
        ("--position", f"{desk.names[1]}.source:1:1"): 1,
        ("--where", "reason=='rejected' && ends_with(value.body, '1')"): ones,
    }
    for filters, count in counts.items():
        assert desk.told("stats", *filters)["total"] == count, filters


def test_list_and_show_hide_numbers_and_texts_unless_asked(desk: Desk) -> None:
    fill(desk, 3)

    hidden = desk.run("list").output + desk.run("show", "0:0").output + desk.run("list", "--json").output
    shown = desk.run("show", f"{desk.dead}:0:0", "--reveal", "--json")

    assert f'"body": "{desk.names[0]} 0"' not in hidden
    assert '"body": "***"' in hidden
    assert "+15550000000" not in hidden
    assert "as the platform says" in hidden
    assert json.loads(shown.stdout)["value"] == {"to": "+15550000000", "body": f"{desk.names[0]} 0"}
    assert desk.run("show", f"{desk.names[0]}.source:0:0").exit_code == 0, "by its source"


def test_json_of_several_dead_letters_of_one_record_is_a_line_for_each(desk: Desk) -> None:
    desk.put(
        [
            record(0, "rejected", stream=desk.names[0], topic="src"),
            record(0, REASONS[0], stream=desk.names[0], topic="src"),
        ]
    )

    lines = desk.run("show", "src:0:0", "--json").stdout.splitlines()

    assert sorted(json.loads(line)["reason"] for line in lines) == sorted(["rejected", REASONS[0]])


def test_json_of_a_redrive_has_the_same_names_whatever_there_is_to_do(desk: Desk) -> None:
    empty = desk.told("redrive", "--dry-run")
    desk.put([record(0, "rejected", stream=desk.names[0], topic="src")])
    dry = desk.told("redrive", "--dry-run")
    done = desk.told("redrive", "--yes")
    again = desk.told("redrive", "--yes")

    assert list(empty) == list(dry) == list(again) == [name for name in done if name != "took_secs"]
    assert [told["written"] for told in (empty, dry, done, again)] == [{}, {}, {"redrive": 1}, {}]


def test_what_a_redrive_looked_at_and_left_is_not_looked_at_again_also_where_a_program_reads(desk: Desk) -> None:
    desk.put([record(0, "in_doubt", stream=desk.names[0], topic="src")])

    first = desk.told("redrive", "--yes")
    second = desk.told("redrive", "--yes")

    assert (first["skipped"], first["done_before"]) == ({"in_doubt": 1}, 0)
    assert (second["skipped"], second["done_before"]) == ({}, 1)


def test_a_record_gives_no_commands_to_the_terminal(desk: Desk) -> None:
    title, red, rule = "\x1b]0;owned\x07", "\x1b[31m", "\x9b2J"
    headers = headers_of("rejected", stream=desk.names[0], topic="src", code=f"c{red}")
    value = json.dumps({"name": f"n{rule}"}, ensure_ascii=False)
    torn = Record(f"{{{title}".encode(), None, headers_of(f"r{title}", stream=desk.names[0], topic="src"))
    desk.topics.produce(
        desk.dead,
        [Record(value.encode(), f"k{title}".encode(), [(f"h{red}", f"v{rule}".encode()), *headers]), torn],
        partition=0,
    )

    printed = [
        desk.run(*line).output
        for line in (
            ["show", "0:0"],
            ["show", "0:0", "--reveal"],
            ["show", "0:1", "--reveal"],
            ["list", "--reveal"],
            ["stats"],
            ["stats", "--reason", "nope"],
            ["redrive", "--dry-run"],
            ["show", "0:0", "--reveal", "--json"],
            ["list", "--reveal", "--json"],
        )
    ]

    for text in printed:
        assert not set(text) & {"\x1b", "\x07", "\x9b"}, text
    assert "h\\x1b[31m" in printed[0]
    assert "k\\x1b]0;owned\\x07" in printed[1]
    assert "n\\x9b2J" in printed[1]
    assert json.loads(printed[-2])["value"] == {"name": f"n{rule}"}, "JSON is what it was"


def test_where_nobody_watches_each_dead_letter_is_one_line(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    fill(desk, 3)

    lines = desk.run("list").output.splitlines()

    (line,) = [line for line in lines if f"{desk.names[1]}.source:1:1" in line]
    assert "not_sendable" in line
    assert "as the platform says" in line
    assert line.startswith("1:0 ")


def test_a_redrive_that_is_killed_twice_sends_each_record_once(desk: Desk) -> None:
    reasons = fill(desk, 4_800)
    wanted = {key for key, reason in reasons.items() if reason in {"provider_error", "server_error"}}
    before = columns(desk.topics.read(desk.dead))

    for _ in range(2):
        there = len(desk.redriven())
        running = desk.spawn("redrive", *TRANSIENT, "--yes", "--rate", "100")
        while len(desk.redriven()) <= there and running.poll() is None:
            time.sleep(0.05)
        running.kill()
        running.communicate()
    assert 0 < len(desk.redriven()) < len(wanted), "both kills came on the way"
    told = desk.told("redrive", *TRANSIENT, "--yes")

    sent = desk.redriven()
    assert keys(sent) == dict.fromkeys(wanted, 1)
    assert told["written"]["redrive"] + told["done_before"] == len(wanted)
    assert desk.told("redrive", *TRANSIENT, "--dry-run")["would_redrive"] == 0
    assert columns(desk.topics.read(desk.dead)) == before, "the dead letters stay as they are"
    headers = sent[0].headers() or []
    assert [header[0] for header in headers] == [
        "tenant",
        "tenant",
        "trackly.origin.topic",
        "trackly.origin.partition",
        "trackly.origin.offset",
        "trackly.redrives",
    ]
    other = desk.told("redrive", "--reason", "provider_error", "--dry-run")
    assert other["skipped"] == {"redriven": 600}, "another redrive knows of them as well"


def test_where_nothing_is_to_be_written_no_bar_tells_how_far_it_is(desk: Desk) -> None:
    desk.put([record(0, "in_doubt", stream=desk.names[0], topic="src")])
    ours, theirs = pty.openpty()
    line = [sys.executable, "-m", "connector", "dead-letters", "redrive", str(desk.settings), "--yes"]

    running = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=theirs, text=True)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError), os.fdopen(ours, "rb", buffering=0) as terminal:  # it ends with an error: hung up
        while part := terminal.read(4_096):
            shown += part
    told, _ = running.communicate()

    assert (running.returncode, "nothing left to do" in told) == (0, True), told
    assert b"reading dead letters" in shown, "it is a terminal"
    assert b"writing" not in shown


def test_of_two_redrives_of_one_name_the_later_continues_and_the_earlier_ends(desk: Desk) -> None:
    fill(desk, 960)
    options = ("--name", "twice", *TRANSIENT, "--yes")
    earlier = desk.spawn("redrive", *options, "--rate", "20")
    while not desk.redriven() and earlier.poll() is None:
        time.sleep(0.05)

    later = desk.run("redrive", *options)

    output, _ = earlier.communicate(timeout=PATIENCE_SECS)
    assert (later.exit_code, earlier.returncode) == (0, 4), output
    assert b"another redrive took the name twice over" in output
    assert set(keys(desk.redriven()).values()) == {1}
    assert len(desk.redriven()) == 240
    refused = desk.run("redrive", "--name", "twice", "--reason", "rejected", "--yes")
    assert refused.exit_code == 2
    assert "was started with other filters" in refused.output


def test_a_rate_and_a_limit_are_kept_to(desk: Desk) -> None:
    fill(desk, 4_800)

    told = desk.told("redrive", *TRANSIENT, "--yes", "--rate", "500", "--limit", "1000")

    print(f"1,000 records at 500/s took {told['took_secs']} s")
    assert told["written"] == {"redrive": 1_000}
    assert told["took_secs"] > 2 * 0.95
    assert desk.told("redrive", *TRANSIENT, "--dry-run")["would_redrive"] == 200
    assert "of these 3 this time (--limit)" in desk.run("redrive", *TRANSIENT, "--dry-run", "--limit", "3").stdout
    assert "this time" not in desk.run("redrive", *TRANSIENT, "--dry-run", "--limit", "200").stdout
    limited = desk.told("redrive", *TRANSIENT, "--dry-run", "--limit", "3")
    assert (limited["would_redrive"], limited["this_time"]) == (200, 3)


def test_what_the_platform_took_is_left_and_in_doubt_is_left_unless_included(desk: Desk) -> None:
    desk.put(
        [
            record(number, reason, stream=desk.names[0], topic="src")
            for number, reason in enumerate(["server_error", "server_error", "in_doubt", "in_doubt"])
        ]
    )
    outcome = {"version": 1, "status": "queued", "stream": desk.names[0], "operation": "send", "topic": "other"}
    again = outcome | {"partition": 0, "offset": 9, "origin": {"topic": "src", "partition": 0, "offset": 0}}
    plain = outcome | {"topic": "src", "partition": 0, "offset": 3}
    desk.topics.produce(desk.outcomes[0], [Record(json.dumps(line).encode()) for line in (again, plain)])

    cautious = desk.told("redrive", "--dry-run")
    bold = desk.run("redrive", "--include", "in_doubt", "--yes", "--json")

    assert (cautious["redrive"], cautious["skipped"]) == ({"server_error": 1}, {"queued": 2, "in_doubt": 1})
    assert "nobody knows whether the platform accepted these records" in bold.stderr
    assert keys(desk.redriven()) == {f"{desk.names[0]} 1": 1, f"{desk.names[0]} 2": 1}


def test_what_others_send_again_while_somebody_is_asked_is_left(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The question may stand for minutes; what is confirmed is what was shown, and no more."""
    fill(desk, 24)

    def confirmed_late(_question: str) -> bool:
        assert desk.told("redrive", "--reason", "server_error", "--yes")["written"] == {"redrive": 3}
        desk.put([record(99, "provider_error", stream=desk.names[0], topic=f"{desk.names[0]}.source")])
        return True

    monkeypatch.setattr(redriving, "is_confirmed", confirmed_late)
    result = desk.run("redrive", *TRANSIENT)

    assert (result.exit_code, set(keys(desk.redriven()).values())) == (0, {1}), result.output
    assert "3 left: handled by others since the plan was made" in result.stderr
    assert len(desk.redriven()) == 6


def test_where_outcomes_tell_nothing_that_is_reported(desk: Desk) -> None:
    desk.content["streams"][0]["outcomes"]["records"] = "failures"
    desk.write()
    fill(desk, 24)

    asked = desk.run("redrive", *TRANSIENT, typed="n\n").output

    assert "outcomes are written of failures only" in asked
    assert "not confirmed; nothing was written" in asked
    assert desk.redriven() == []


def test_where_retention_has_removed_outcomes_that_is_reported(desk: Desk) -> None:
    fill(desk, 24)
    taken = desk.outcomes[0]
    desk.topics.produce(taken, [Record(b"{}")] * 3, partition=0)
    before = desk.run("redrive", *TRANSIENT, "--dry-run").stderr
    admin = AdminClient({"bootstrap.servers": desk.content["kafka"]["bootstrap_servers"]})
    (removed,) = admin.delete_records([TopicPartition(taken, 0, 2)]).values()
    removed.result(PATIENCE_SECS)

    told = desk.run("redrive", *TRANSIENT, "--dry-run").stderr

    assert "retention has removed" not in before
    assert f"{taken}: retention has removed outcomes of the time since the oldest of these dead letters" in told
    assert desk.outcomes[1] not in told


def test_parked_dead_letters_carry_a_note_and_stay_where_they_are(desk: Desk) -> None:
    fill(desk, 48)

    told = desk.told("park", "--reason", "rejected", "--note", "ask support", "--yes")

    parked = desk.topics.read(f"{desk.dead}.parking")
    assert told["written"] == {"park": 6}
    assert {dict(m.headers() or [])["trackly.parked_note"] for m in parked} == {b"ask support"}
    assert desk.told("stats", "--topic", f"{desk.dead}.parking")["reasons"] == {"rejected": 6}
    assert desk.told("stats")["total"] == 48


def test_what_is_exported_and_imported_is_the_same_byte_for_byte(desk: Desk) -> None:
    fill(desk, 24)
    desk.topics.produce(desk.dead, [Record(b"\xff\x00", None, [("x", None), ("x", b"\xfe")]), Record(None, b"\x80")])
    copy = desk.topics.create("copy", partitions=4)
    file = desk.folder / "dead.ndjson"

    assert desk.run("export", "--out", str(file)).exit_code == 0
    first = desk.run("import", str(file), "--to", copy)
    second = desk.run("import", str(file), "--to", copy)

    assert columns(desk.topics.read(copy)) == columns(desk.topics.read(desk.dead))
    assert "26 dead letters written" in first.output
    assert "0 dead letters written" in second.output, "an import that is started again writes nothing twice"
    assert file.stat().st_mode & 0o077 == 0, "numbers and texts are for the owner of the file alone"


def test_an_import_of_large_records_commits_before_its_transaction_grows_too_old(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of them, a megabyte each, are more than brokers take before the transaction times out."""
    monkeypatch.setattr(copying, "MAX_BYTES", 2_500)
    desk.put(Record(b"x" * 1_000, b"%d" % number) for number in range(7))
    copy = desk.topics.create("copy", partitions=1)
    file = desk.folder / "dead.ndjson"
    desk.run("export", "--out", str(file))

    result = desk.run("import", str(file), "--to", copy)

    assert "7 dead letters written" in result.output
    assert columns(desk.topics.read(copy))
    assert desk.topics.ends(copy) == {0: 7 + 3}, "records, and a marker of each transaction"


def test_an_export_that_finds_no_room_says_so_and_leaves_nothing_behind(desk: Desk) -> None:
    fill(desk, 24)
    file = desk.folder / "dead.ndjson"
    before = set(desk.folder.iterdir())
    command = f"ulimit -f 1; exec {sys.executable} -B -m connector dead-letters export {desk.settings} --out {file}"

    full = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)

    assert full.returncode == 1, full.stderr
    assert full.stderr.startswith(f"error: writing {file}: File too large\nhint: free space"), full.stderr
    assert len(full.stderr.splitlines()) == 2
    assert set(desk.folder.iterdir()) == before
    assert desk.run("export", "--out", str(file)).exit_code == 0, "the next try has its way"
    assert len(file.read_text().splitlines()) == 24


def test_an_export_of_nothing_leaves_no_file_and_none_that_exists_is_written_over(desk: Desk) -> None:
    fill(desk, 3)
    file, kept = desk.folder / "dead.ndjson", desk.folder / "kept"
    kept.write_text("kept")

    assert desk.run("export", "--out", str(file), "--key", "nope").exit_code == 1
    assert not file.exists()
    assert desk.run("export", "--out", str(kept)).exit_code == 2
    assert kept.read_text() == "kept"


@pytest.mark.parametrize("command", ["redrive", "import"])
def test_what_is_written_keeps_to_the_batches_that_its_topic_takes(desk: Desk, command: str) -> None:
    """Topics limit the batch, as it is sent: many small records are too large where they come as one."""
    name = desk.names[0]
    target = f"{name}.redrive" if command == "redrive" else f"{name}.copy"
    desk.topics.create(config={"max.message.bytes": "100000"}, name=target)
    headers = [headers_of("rejected", stream=name, topic="src", offset=number) for number in range(400)]
    letters = [Record(secrets.token_hex(500).encode(), b"%d" % at, told) for at, told in enumerate(headers)]
    desk.topics.produce(desk.dead, letters, partition=0)
    file = desk.folder / "dead.ndjson"

    if command == "redrive":
        result = desk.run("redrive", "--yes")
    else:
        desk.run("export", "--out", str(file))
        result = desk.run("import", str(file), "--to", target)

    assert result.exit_code == 0, result.output
    assert len(desk.topics.read(target)) == 400


@pytest.mark.parametrize("command", ["park", "redrive"])
def test_what_is_too_large_for_a_topic_that_is_made_now_is_left_and_keeps_no_other_back(
    desk: Desk, command: str
) -> None:
    desk.dead = desk.topics.create("dead", config={"max.message.bytes": "4000000"})
    for stream in desk.content["streams"]:
        stream["dead_letters"] = {"topic": desk.dead}
    desk.write()
    letters = [record(number, "rejected", stream=desk.names[0], topic="src") for number in range(3)]
    letters[1] = letters[1]._replace(value=secrets.token_hex(1_000_000).encode())
    servers, larger = desk.content["kafka"]["bootstrap_servers"], {"message.max.bytes": 4_000_000}
    produce(servers, desk.dead, letters, partition=0, properties=larger)

    first, second = desk.run(command, "--yes"), desk.told(command, "--yes")

    assert first.exit_code == 0, first.output
    assert "1 left: is larger than the target topic allows" in first.stderr
    written = desk.topics.read(f"{desk.dead}.parking") if command == "park" else desk.redriven()
    assert [(message.key() or b"")[-1:] for message in written] == [b"0", b"2"]
    assert (second["selected"], second["done_before"]) == (3, 2)


@pytest.mark.parametrize("typed", ["", "y\n"], ids=["yes", "prompt"])
def test_evidence_settles_what_a_crash_left_in_doubt(desk: Desk, typed: str) -> None:
    name = desk.names[0]
    same = record(2, "in_doubt", stream=name, topic="src")
    desk.put(
        [
            *(record(number, "in_doubt", stream=name, topic="src") for number in range(3)),
            Record(same.value, b"twin", headers_of("in_doubt", stream=name, topic="src", offset=9)),
            record(5, "rejected", stream=name, topic="src"),
        ]
    )
    numbers = desk.folder / "numbers"
    numbers.write_text("+15550000001\n+15550000002\n")

    groups = desk.told("in-doubt")["groups"]
    settled = desk.run("in-doubt", "--evidence", str(numbers), *([] if typed else ["--yes"]), "--json", typed=typed)

    assert [(group["stream"], group["list_number"], group["count"]) for group in groups] == [(name, "+18005551234", 4)]
    assert json.loads(settled.stdout[settled.stdout.index("{") :])["written"] == {"accept": 1, "redrive": 1}
    (outcome,) = [json.loads(message.value() or b"") for message in desk.topics.read(desk.outcomes[0])]
    assert (outcome["status"], outcome["source"], outcome["offset"]) == ("queued", "evidence", 1)
    assert keys(desk.redriven()) == {f"{name} 0": 1}
    left = desk.told("redrive", "--include", "in_doubt", "--reason", "in_doubt", "--dry-run")
    assert (left["would_redrive"], left["skipped"]) == (2, {"queued": 1, "redriven": 1})
    still = desk.told("in-doubt")
    assert [(group["count"], group.get("findings")) for group in still["groups"]] == [(2, None)]
    assert still["settled"] == {"redriven": 1, "queued": 1}
    again = desk.told("in-doubt", "--evidence", str(numbers), "--dry-run")
    assert [(group["count"], group["findings"]) for group in again["groups"]] == [(2, {"still_in_doubt": 2})]
    assert again["settled"] == still["settled"]


def test_an_outcome_by_evidence_is_of_the_record_that_is_in_doubt_and_names_its_origin(desk: Desk) -> None:
    """Whoever rebuilds progress looks for the results of the records of the redrive topic, too."""
    name = desk.names[0]
    origin = [("trackly.origin.topic", b"src"), ("trackly.origin.partition", b"1"), ("trackly.origin.offset", b"5")]
    headers = headers_of(
        "in_doubt", stream=name, topic=f"{name}.redrive", offset=3, source=[*origin, ("trackly.redrives", b"1")]
    )
    desk.put([Record(b'{"to":"+15550000001","body":"Hello"}', None, headers)])
    numbers = desk.folder / "numbers"
    numbers.write_text("+15550000001\n")

    assert desk.told("in-doubt", "--evidence", str(numbers), "--yes")["written"] == {"accept": 1}

    (outcome,) = [json.loads(message.value() or b"") for message in desk.topics.read(desk.outcomes[0])]
    assert (outcome["topic"], outcome["partition"], outcome["offset"]) == (f"{name}.redrive", 0, 3)
    assert (outcome["origin"], outcome["redrives"]) == ({"topic": "src", "partition": 1, "offset": 5}, 1)


def test_where_all_that_was_in_doubt_is_settled_that_is_reported_and_no_outcome_is_read(desk: Desk) -> None:
    """Outcomes are the most by far, and tell of evidence; of what was sent again the redrive topic tells."""
    desk.put([record(number, "in_doubt", stream=desk.names[0], topic="src") for number in range(3)])
    read: list[str] = []

    def work(spans: Spans, job: Job[R], what: str, /) -> Iterator[R]:
        read.append(what)
        return worked(settings.kafka, spans, job, what, quiet=True)

    assert desk.told("redrive", "--include", "in_doubt", "--yes")["written"] == {"redrive": 3}
    shown, told = desk.run("in-doubt"), desk.told("in-doubt")
    settings = load(desk.settings, asks={"kafka"})
    settled(settings, work, spans_of(settings, [desk.dead]), Criteria(), Rules(settings.streams_by_name))

    assert shown.exit_code == 0
    assert shown.stdout.startswith("nothing is in doubt any more\nsettled since")
    assert told == {"groups": [], "settled": {"redriven": 3}}
    assert read == ["reading dead letters", f"reading {desk.names[0]}.redrive"]


def test_a_record_in_doubt_that_failed_again_is_settled_by_its_later_dead_letter(desk: Desk) -> None:
    """The redrive topic may keep its records for a shorter time."""
    again = record(1, "rejected", stream=desk.names[0], topic="src")
    headers = [*again.headers, ("trackly.redrives", b"1")]
    desk.put([record(number, "in_doubt", stream=desk.names[0], topic="src") for number in range(3)])
    desk.put([again._replace(headers=headers)])

    told = desk.told("in-doubt")

    assert (told["groups"][0]["count"], told["settled"]) == (2, {"superseded": 1})


def test_what_cannot_be_known_of_records_in_doubt_is_reported(desk: Desk) -> None:
    taken = desk.outcomes[0]
    desk.put(
        record(number, "in_doubt", stream=name, topic="src") for number, name in enumerate([desk.names[0], "gone"])
    )
    desk.put([Record(b"{}", b"2", [("trackly.reason", b"in_doubt")])])
    desk.topics.produce(taken, [Record(b"{}")] * 3, partition=0)
    before = desk.run("in-doubt").stderr
    admin = AdminClient({"bootstrap.servers": desk.content["kafka"]["bootstrap_servers"]})
    (removed,) = admin.delete_records([TopicPartition(taken, 0, 2)]).values()
    removed.result(PATIENCE_SECS)

    result = desk.run("in-doubt", "--json")

    said = "whether some of these were settled cannot be known: "
    unnamed = f"{said}a dead letter does not name its stream\n{said}stream gone is not in the settings\n"
    assert before.startswith(unnamed)
    assert taken not in before
    assert result.stderr.startswith(f"{unnamed}{said}retention has removed some of {taken}\n")
    assert sum(group["count"] for group in json.loads(result.stdout)["groups"]) == 3


def test_evidence_sends_a_record_in_doubt_once_that_stands_twice_among_the_dead_letters(desk: Desk) -> None:
    """An import into the same topic leaves it so, and so may `at_least_once`."""
    twice = record(1, "in_doubt", stream=desk.names[0], topic="src")
    desk.put([twice, twice])
    numbers = desk.folder / "numbers"
    numbers.write_text("+15550000009\n")

    told = desk.told("in-doubt", "--evidence", str(numbers), "--yes")

    (group,) = told["groups"]
    assert (group["count"], group["findings"]) == (2, {"redrive": 2})
    assert (told["written"], told["skipped"]) == ({"redrive": 1}, {"superseded": 1})
    assert keys(desk.redriven()) == {f"{desk.names[0]} 1": 1}


def test_a_topic_that_is_named_as_the_target_tells_what_was_sent_there_before(desk: Desk) -> None:
    """Nobody has read it yet, so that no outcome tells."""
    fill(desk, 24)
    target = desk.topics.create("target")

    first = desk.told("redrive", "--reason", "rejected", "--to", target, "--yes")
    second = desk.told("redrive", "--reason", "rejected", "--reason", "missing_body", "--to", target, "--yes")

    assert (first["written"], second["written"]) == ({"redrive": 3}, {"redrive": 3})
    assert second["skipped"] == {"redriven": 3}
    assert set(keys(desk.topics.read(target)).values()) == {1}


def test_a_redrive_knows_what_was_sent_again_by_a_machine_whose_clock_is_behind_that_of_the_worker(desk: Desk) -> None:
    fill(desk, 3)
    copy, file = desk.topics.create("copy"), desk.folder / "dead.ndjson"
    desk.run("export", "--out", str(file))
    ahead = [
        line | {"timestamp_ms": line["timestamp_ms"] + 30_000}
        for line in map(json.loads, file.read_text().splitlines())
    ]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in ahead))
    desk.run("import", str(file), "--to", copy)

    first = desk.told("redrive", "--topic", copy, "--stream", desk.names[0], "--yes")
    second = desk.told("redrive", "--topic", copy, "--reason", REASONS[0], "--dry-run")

    assert first["written"] == {"redrive": 1}
    assert (second["would_redrive"], second["skipped"]) == (2, {"redriven": 1})


def test_what_was_sent_again_is_known_also_where_dead_letters_have_the_time_of_a_producer_that_is_ahead(
    desk: Desk,
) -> None:
    """Kafka Connect gives a dead letter the timestamp of its record."""
    desk.put(Record(b"{}", None, [*connect_headers(offset)]) for offset in range(3))
    desk.run("export", "--out", str(file := desk.folder / "dead.ndjson"))
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    ahead = [line | {"timestamp_ms": line["timestamp_ms"] + 50 * 60_000} for line in lines]
    file.write_text("".join(f"{json.dumps(line)}\n" for line in ahead))
    desk.run("import", str(file), "--to", copy := desk.topics.create("connect"))
    options = ("--topic", copy, "--to", f"{desk.names[0]}.redrive")
    outcome = {"version": 1, "status": "queued", "stream": desk.names[0], "operation": "send"}
    origin = {"origin": {"topic": "orders", "partition": 3, "offset": 2}, "topic": "x", "partition": 0, "offset": 0}
    desk.topics.produce(desk.outcomes[0], [Record(json.dumps(outcome | origin).encode())])

    first = desk.told("redrive", *options, "--yes")
    second = desk.told("redrive", *options, "--name", "second", "--dry-run")

    assert (first["written"], first["skipped"]) == ({"redrive": 2}, {"queued": 1})
    assert (second["would_redrive"], second["skipped"]) == (0, {"redriven": 2, "queued": 1})


def test_the_outcomes_of_a_stream_that_reads_the_target_tell_what_was_taken(desk: Desk) -> None:
    desk.put([record(0, "rejected", stream=desk.names[0], topic="src")])
    place = {"topic": "src", "partition": 0, "offset": 0}
    outcome = {"version": 1, "status": "queued", "stream": desk.names[1], "operation": "send", "origin": place}
    line = outcome | {"topic": f"{desk.names[1]}.source", "partition": 0, "offset": 5}
    desk.topics.produce(desk.outcomes[1], [Record(json.dumps(line).encode())])

    told = desk.told("redrive", "--to", f"{desk.names[1]}.source", "--dry-run")

    assert (told["would_redrive"], told["skipped"]) == (0, {"queued": 1})


def test_of_two_streams_that_read_one_topic_each_gets_its_own_record_again(desk: Desk) -> None:
    """What one of them delivered is no outcome of the other."""
    for stream in desk.content["streams"]:
        stream["topics"] = ["src"]
    desk.write()
    a, b, _ = desk.names
    desk.put(record(number, "rejected", stream=a, topic="src") for number in range(3))
    desk.put(record(number, "rejected", stream=b, topic="src") for number in range(3))
    outcome = {"version": 1, "status": "queued", "stream": a, "operation": "send", "topic": "src", "partition": 0}
    desk.topics.produce(desk.outcomes[0], [Record(json.dumps(outcome | {"offset": 1}).encode())])

    told = desk.told("redrive", "--yes")

    assert (told["written"], told["skipped"]) == ({"redrive": 5}, {"queued": 1})
    assert keys(desk.redriven()) == {f"{a} 0": 1, f"{a} 2": 1, f"{b} 0": 1, f"{b} 1": 1, f"{b} 2": 1}


@pytest.mark.parametrize("command", ["redrive", "park"])
def test_a_command_with_until_takes_later_what_was_too_young_at_first(
    desk: Desk, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbered = [record(number, "rejected", stream=desk.names[0], topic="src") for number in range(2)]
    desk.topics.produce(desk.dead, numbered[:1], partition=0)
    time.sleep(1)
    between = time.time()
    time.sleep(1)
    desk.topics.produce(desk.dead, numbered[1:], partition=0)

    written = []
    for at in (between + 7_200, between + 9_000):
        monkeypatch.setattr(choosing, "now_ms", lambda at=at: int(at * 1_000))
        told = desk.told(command, "--until", "2h", "--yes")
        written.append((told.get("written"), told["done_before"]))

    action = {"redrive": 1} if command == "redrive" else {"park": 1}
    assert written == [(action, 0), (action, 1)]


def test_events_of_the_platform_are_evidence_as_well(desk: Desk) -> None:
    desk.put([record(number, "in_doubt", stream=desk.names[0], topic="src") for number in range(2)])
    events = desk.topics.create("events")
    event = {"event": "delivery", "to": "+15550000001", "list_number": "+18005551234", "status": "delivered"}
    desk.topics.produce(events, [Record(json.dumps(event).encode()), Record(b"no event")])

    told = desk.told("in-doubt", "--evidence-topic", events, "--dry-run")

    assert (told["would_accept"], told["would_redrive"]) == (1, 1)


def untimed(number: int, desk: Desk) -> Record:
    """Return a dead letter as after a crash: no header tells when its record was posted."""
    headers = headers_of("in_doubt", stream=desk.names[0], topic="src", offset=number, now_ms=now_ms())
    gone = {"trackly.sent_at", "trackly.attempts", "trackly.batch_id", "trackly.index"}
    value = b'{"to":"+1555%07d","body":"Hello"}' % number
    return Record(value, None, [header for header in headers if header[0] not in gone])


def event_for(number: int, *, age_secs: float | None = None) -> Record:
    """Return a delivery event of the platform."""
    at = {} if age_secs is None else {"timestamp": (datetime.now(UTC) - timedelta(seconds=age_secs)).isoformat()}
    return Record(json.dumps({"event": "delivery", "to": f"+1555{number:07d}", **at}).encode())


def test_where_nothing_tells_of_the_post_only_what_no_event_may_be_about_is_sent_again(desk: Desk) -> None:
    """A hold may have lasted for days before its dead letters were written."""
    desk.put(
        [untimed(0, desk), untimed(1, desk), untimed(2, desk), record(3, "in_doubt", stream=desk.names[0], topic="src")]
    )
    events = desk.topics.create("events")
    desk.topics.produce(events, [event_for(0, age_secs=2 * 86_400), event_for(1)])
    evidence = ("in-doubt", "--evidence-topic", events, "--dry-run")

    safe = desk.run(*evidence, "--json")
    given = desk.run(*evidence, "--json", "--window-mins", "30")
    wide = desk.run(*evidence, "--json", "--window-mins", "4320")
    timed = desk.run(*evidence, "--position", "src:0:3").stderr

    told = [json.loads(result.stdout) for result in (safe, given, wide)]
    assert [(one["would_accept"], one["would_redrive"], one["skipped"]) for one in told] == [
        (1, 2, {"still_in_doubt": 1}),
        (1, 3, {}),
        (2, 2, {}),
    ]
    assert "of 3 of these records nothing tells when they were posted: an event more than 15 minutes" in safe.stderr
    assert "--window-mins says that it was at most 30 minutes before the dead letter" in given.stderr
    assert "nothing tells" not in timed


@pytest.mark.parametrize(("first", "found"), [("in_doubt", "accepted"), ("server_error", "redrive")])
def test_evidence_for_a_dead_letter_that_the_filters_hide_counts_for_its_record(
    desk: Desk, first: str, found: str
) -> None:
    """It was sent again while nobody knew: whoever got the first text is not to get a third."""
    hours_ago = now_ms() - 7_200_000
    origin = headers_of(first, stream=desk.names[0], topic="src", offset=0, now_ms=hours_ago)
    names = {"trackly.origin.topic", "trackly.origin.partition", "trackly.origin.offset"}
    source = [*((name, value) for name, value in origin if name in names), ("trackly.redrives", b"1")]
    topic = f"{desk.names[0]}.redrive"
    later = headers_of("in_doubt", stream=desk.names[0], topic=topic, source=source, now_ms=now_ms())
    text = b'{"to":"+15550000000","body":"Hello"}'
    desk.put([Record(text, None, origin)])
    desk.put([Record(text, None, later)])
    events = desk.topics.create("events")
    desk.topics.produce(events, [event_for(0, age_secs=7_190)])

    told = desk.told("in-doubt", "--evidence-topic", events, "--min-redrives", "1", "--dry-run")

    assert [group["findings"] for group in told["groups"]] == [{found: 1}]


def test_an_event_is_read_whatever_the_time_of_its_record(desk: Desk) -> None:
    """Whoever copied it there had a clock that was wrong, or none."""
    desk.put([record(1, "in_doubt", stream=desk.names[0], topic="src")])
    events = desk.topics.create("events")
    producer = Producer({"bootstrap.servers": desk.content["kafka"]["bootstrap_servers"]})
    producer.produce(events, event_for(1, age_secs=0).value, timestamp=1)
    assert producer.flush(PATIENCE_SECS) == 0

    assert desk.told("in-doubt", "--evidence-topic", events, "--dry-run")["would_accept"] == 1


def test_where_retention_has_removed_events_what_they_may_have_named_stays_in_doubt(desk: Desk) -> None:
    desk.put([untimed(0, desk), untimed(1, desk)])
    events = desk.topics.create("events", partitions=1)
    desk.topics.produce(events, [event_for(0), event_for(1)])
    evidence = ("in-doubt", "--evidence-topic", events, "--dry-run", "--json")
    whole = desk.run(*evidence)
    desk.topics._admin.delete_records([TopicPartition(events, 0, 1)])[TopicPartition(events, 0)].result(PATIENCE_SECS)

    cut, given = desk.run(*evidence), desk.run(*evidence, "--window-mins", "0")

    told = [json.loads(result.stdout) for result in (whole, cut, given)]
    assert [(one["would_accept"], one["would_redrive"], one["skipped"]) for one in told] == [
        (2, 0, {}),
        (1, 0, {"still_in_doubt": 1}),
        (1, 0, {"still_in_doubt": 1}),
    ]
    assert "retention has removed events" not in whole.stderr
    assert f"retention has removed events of {events} from before 20" in cut.stderr
    assert "2 of these records may have been posted earlier" in cut.stderr


def test_a_list_says_that_there_are_more_only_if_there_are(shared_desk: Desk) -> None:
    some, all_there = shared_desk.run("list", "--limit", "1"), shared_desk.run("list", "--limit", "2")

    assert (len(some.stdout.splitlines()), len(all_there.stdout.splitlines())) == (3, 4), some.stdout
    assert "The first 1; --limit shows more, and stats counts all." in some.stderr
    assert all_there.stderr == ""


@pytest.mark.parametrize("command", [("park",), ("redrive", "--to", "nobodys.topic")], ids=["park", "redrive"])
def test_a_missing_topic_of_no_stream_is_created_by_hand_and_no_setting(desk: Desk, command: tuple[str, ...]) -> None:
    foreign = desk.topics.create("foreign")
    desk.topics.produce(foreign, [Record(b"{}", None, connect_headers())])
    missing = f"{foreign}.parking" if command == ("park",) else "nobodys.topic"

    result = desk.run(*command, "--topic", foreign, "--yes")

    assert result.exit_code == 2, result.output
    assert f"these topics do not exist: {missing}. Create them:\n  kafka-topics.sh" in result.stderr
    assert "create_topics" not in result.stderr


def test_where_events_have_numbers_of_another_form_nothing_is_sent_by_them(desk: Desk) -> None:
    """They match no record, so that whoever got the text would get it again."""
    desk.put([record(number, "in_doubt", stream=desk.names[0], topic="src") for number in range(2)])
    events = desk.topics.create("events")
    desk.topics.produce(events, [Record(b'{"event": "delivery", "to": "1 555 0000000"}'), event_for(1)])

    result = desk.run("in-doubt", "--evidence-topic", events, "--yes")

    assert result.exit_code == 2, result.output
    assert "the numbers of 1 delivery events are not in E.164 format" in result.stderr
    assert desk.redriven() == []


def test_evidence_without_an_entry_is_refused_since_it_would_send_everything_again(desk: Desk) -> None:
    desk.put([record(number, "in_doubt", stream=desk.names[0], topic="src") for number in range(2)])
    numbers, events = desk.folder / "numbers", desk.topics.create("events")
    numbers.write_text("# none yet\n\n")
    desk.topics.produce(events, [Record(b"no event")])

    by_file = desk.run("in-doubt", "--evidence", str(numbers), "--yes")
    by_topic = desk.run("in-doubt", "--evidence-topic", events, "--yes")

    assert (by_file.exit_code, by_topic.exit_code) == (2, 2), by_file.output + by_topic.output
    assert f"the evidence has no entry: {numbers} holds no number" in by_file.stderr
    assert f"the evidence has no entry: topic {events} holds no delivery event\n" in by_topic.stderr
    assert "hint: use complete evidence" in by_file.stderr
    assert desk.redriven() == []


CUSTOMERS = {
    "fields": {"to": "value.customer.phone", "body": {"template": "Hi"}},
    "list_number": {"by": "value.country", "table": {"DE": "+18005550000"}},
}
"""A mapping of events that are not the platform's own; whoever comes from elsewhere goes to the stream's list."""


def customer(number: int, desk: Desk, *, phone: str = "", country: str = "DE", reason: str = "in_doubt") -> Record:
    """Return a dead letter of the first stream, whose value has neither number nor list where the platform has them."""
    value = {
        "customer": {"phone": phone or f"+1555{number:07d}"},
        "country": country,
        "to": "nobody",
        "list_number": "x",
    }
    headers = headers_of(reason, stream=desk.names[0], topic=f"{desk.names[0]}.source", offset=number)
    return Record(json.dumps(value).encode(), b"%d" % number, headers)


def test_where_a_stream_maps_its_events_lists_and_numbers_are_those_of_the_event(desk: Desk) -> None:
    desk.content["streams"][0]["mapping"] = CUSTOMERS
    desk.write()
    desk.put(
        [customer(0, desk), customer(1, desk), customer(2, desk, country="FR"), customer(3, desk, phone="+15550000002")]
    )
    desk.put([record(7, "in_doubt", stream=desk.names[1], topic="src", list_number="+18005550000")])
    numbers = desk.folder / "numbers"
    numbers.write_text("+15550000001\n+15550000002\n")

    groups = desk.told("in-doubt")["groups"]
    settled = desk.told("in-doubt", "--stream", desk.names[0], "--evidence", str(numbers), "--dry-run")

    assert sorted((group["stream"], group["list_number"], group["count"]) for group in groups) == [
        (desk.names[0], "+18005550000", 3),
        (desk.names[0], "+18005551234", 1),
        (desk.names[1], "+18005550000", 1),
    ]
    assert (settled["would_accept"], settled["would_redrive"], settled["skipped"]) == (1, 1, {"still_in_doubt": 2})
    for number, count in {"+18005550000": 4, "+18005551234": 1, "x": 0}.items():
        assert json.loads(desk.run("stats", "--list-number", number, "--json").stdout)["total"] == count, number
    assert desk.told("redrive", "--list-number", "+18005550000", "--include", "in_doubt", "--dry-run")["selected"] == 4


def test_where_no_event_can_be_made_now_that_is_reported_and_no_evidence_is_taken_for_its_own(desk: Desk) -> None:
    desk.content["streams"][0]["mapping"] = CUSTOMERS | {"when": "value.country != 'XX'"}
    desk.write()
    no_json = Record(b"{", b"4", headers_of("in_doubt", stream=desk.names[0], topic="src", offset=4))
    desk.put([customer(0, desk), customer(1, desk), customer(2, desk, country="XX"), no_json])
    numbers = desk.folder / "numbers"
    numbers.write_text("+15550000001\n")
    evidence = ("in-doubt", "--evidence", str(numbers), "--dry-run")

    listed = desk.run("in-doubt")
    blind = desk.run(*evidence)
    narrowed = desk.told("in-doubt", "--where", "value.country == 'DE'", *evidence[1:])
    filtered = desk.run("stats", "--list-number", "+18005550000", "--json")

    said = "of 2 dead letters no event can be made now (filtered 1, not_json 1)"
    assert said in listed.stderr
    assert "trackly-connector explain" in listed.stderr
    assert said in blind.stderr
    assert "no record is counted as accepted" in blind.stderr
    assert "still_in_doubt" in blind.stdout
    assert json.loads(desk.run(*evidence, "--json").stdout)["would_accept"] == 0
    assert (narrowed["would_accept"], narrowed["would_redrive"]) == (1, 1)
    assert json.loads(filtered.stdout)["total"] == 2
    assert said in filtered.stderr
    assert "--list-number leaves them out" in filtered.stderr


def test_a_reason_that_only_older_dead_letters_have_is_known(desk: Desk) -> None:
    desk.put([record(0, "of_others", stream=desk.names[0], topic="src")])

    result = desk.run("list", "--reason", "of_others", "--since", "2999-01-01T00:00:00Z")

    assert result.exit_code == 1, result.output
    assert "the filters select none of the dead letters" in result.stderr


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (["stats", "--reason", "nope"], 2, "no dead letter has the reason nope\nhint: those that exist: in_doubt"),
        (["list", "--reason", "provider_error"], 1, "the filters select none of the dead letters"),
        (["stats", "--reason", "provider_error", "--reason", "nope"], 2, "no dead letter has the reason nope"),
        (["export", "--reason", "server_error"], 1, "the filters select none of the dead letters"),
        (["redrive", "--reason", "server_error", "--yes"], 1, "the filters select none of the dead letters"),
        (["list", "--reason", "nope", "--since", "2999-01-01T00:00:00Z"], 2, "no dead letter has the reason nope"),
        (["stats", "--key", "nope"], 1, "the filters select none of the dead letters"),
        (["list", "--key", "nope"], 1, "the filters select none of the dead letters"),
        (["stats", "--since", "2999-01-01T00:00:00Z"], 1, "the filters select none of the dead letters"),
        (["list", "--since", "2999-01-01T00:00:00Z"], 1, "the filters select none of the dead letters"),
        (["export", "--since", "2999-01-01T00:00:00Z"], 1, "the filters select none of the dead letters"),
        (["in-doubt", "--since", "2999-01-01T00:00:00Z"], 1, "the filters select none of the dead letters"),
        (["redrive", "--key", "nope", "--yes"], 1, "the filters select none of the dead letters"),
        (["stats", "--topic", "nope"], 2, "topic nope does not exist\nhint: check its name; "),
        (["stats", "--stream", "nope"], 2, "has no stream nope\nhint: one of:"),
        (["stats", "--where", "a["], 2, "--where is not a JMESPath expression"),
        (
            ["stats", "--where", "sum(value)"],
            1,
            "--where fails on 2 dead letters, which are left out: sum() takes array",
        ),
        (["list", "--where", "nope(value)"], 2, "--where calls nope(), which JMESPath does not have"),
        (["redrive", "--where", "sum(value)", "--yes"], 1, "--where fails on 2 dead letters"),
        (["export", "--where", "sum(value)"], 1, "--where fails on 2 dead letters"),
        (["in-doubt", "--where", "sum(value)"], 1, "--where fails on 1 dead letter, which"),
        (["stats", "--since", "soon"], 2, "--since should be a time"),
        (["show", "5"], 2, "POSITION should be"),
        (["show", "0:99"], 1, "there is no dead letter at or from 0:99 in "),
        (["show", "other:0:0"], 1, "--topic names another topic"),
        (["redrive", "--patch", "{"], 2, "--patch is not JSON"),
        (["list", "--position", "5"], 2, "--position should be"),
        (["list", "--min-redrives", "2", "--max-redrives", "1"], 2, "--max-redrives must not be less than"),
        (["redrive", "--patch", "@/nowhere"], 2, "--patch cannot be read: /nowhere: No such file or directory\n"),
        (["redrive"], 1, "error: not confirmed; nothing was written\nhint: answer with y, or give --yes"),
        (["park", "--dry-run"], 0, "park "),
        (["redrive", "--to", "a b"], 2, "--to is not a valid topic name"),
        (["list", "--topic", "a b"], 2, "--topic is not a valid topic name"),
        (["redrive", "--topic", ".."], 2, "--topic is not a valid topic name"),
        (["in-doubt", "--evidence-topic", "a b"], 2, "--evidence-topic is not a valid topic name"),
        (["import", "/dev/null", "--to", "a b"], 2, "--to is not a valid topic name"),
        (["redrive", "--to", "nowhere", "--yes"], 2, "kafka-topics.sh"),
        (["redrive", "--to", "nowhere"], 2, "kafka-topics.sh"),
        (["redrive", "--to", "nowhere", "--dry-run"], 0, "kafka-topics.sh"),
        (["redrive", "--name", "a b"], 2, "--name must be"),
        (["redrive", "--name", "a" * 101], 2, "--name must be 1 to 100 letters"),
        (["redrive", "--name", ""], 2, "--name must be 1 to 100 letters"),
        (["in-doubt", "--evidence", "/nowhere"], 2, "--evidence cannot be used: /nowhere: No such file or directory\n"),
        (["in-doubt", "--key", "nope", "--evidence", "/nowhere"], 2, "--evidence cannot be used"),
        (["in-doubt", "--key", "nope", "--json"], 1, "the filters select none of the dead letters"),
        (["in-doubt", "--evidence-topic", "nowhere"], 2, "topic nowhere does not exist"),
        (["export", "--out", "/nowhere/x"], 2, "--out cannot be written: /nowhere/x: No such file or directory\n"),
        (["import", "/nowhere", "--to", "nowhere"], 2, "error: /nowhere: No such file or directory\n"),
        (["import", "/", "--to", "nowhere"], 2, "error: /: Is a directory\n"),
        (["import", "/dev/null", "--to", "nowhere"], 2, "topic nowhere does not exist"),
        (["import", "connector.yaml", "--to", "nowhere"], 2, "line 1 is not JSON"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_done_is_reported_and_nothing_is_written(
    shared_desk: Desk, line: list[str], code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shared_desk.folder)

    result = shared_desk.run(*line)

    assert (result.exit_code, words in result.output) == (code, True), result.output
    assert not isinstance(result.exception, KafkaTroubleError)
    assert shared_desk.redriven() == []


@pytest.mark.parametrize("source", [6, 0])
def test_a_redrive_topic_is_created_with_as_many_partitions_as_the_source_whichever_hold_dead_letters(
    desk: Desk, source: int
) -> None:
    """Where the source is gone the dead-letter topic tells."""
    if source:
        desk.topics.create(name=f"{desk.names[0]}.source", partitions=source)
    desk.put([record(0, "rejected", stream=desk.names[0], topic="src")])
    desk.content["streams"][0]["create_topics"]["partitions"] = None
    desk.write()

    assert desk.told("redrive", "--yes")["written"] == {"redrive": 1}

    there = desk.topics._admin.list_topics(timeout=PATIENCE_SECS).topics
    assert len(there[f"{desk.names[0]}.redrive"].partitions) == (source or 4)


def test_a_topic_that_no_broker_creates_is_a_matter_of_the_settings(desk: Desk) -> None:
    desk.put([record(0, "rejected", stream=desk.names[0], topic="src")])
    desk.content["streams"][0]["create_topics"]["replication_factor"] = 3
    desk.write()

    result = desk.run("redrive", "--yes")

    assert result.exit_code == 2, result.output
    assert f"creating topic {desk.names[0]}.redrive: Unable to replicate the partition 3 time(s)" in result.stderr
    assert "hint: fix the stream's create_topics" in result.stderr


def test_a_topic_without_dead_letters_is_no_failure(desk: Desk) -> None:
    for command in (
        ["stats"],
        ["list"],
        ["list", "--since", "1h"],
        ["redrive", "--reason", "any", "--yes"],
        ["park", "--yes"],
        ["in-doubt"],
    ):
        result = desk.run(*command)

        assert (result.exit_code, result.stdout) == (0, f"no dead letters in {desk.dead}\n"), command
    assert desk.told("stats")["total"] == 0
