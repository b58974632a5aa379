"""`explain` shows what a stream would make of records, from a file or from a topic, and hides what is personal."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

from connector.cli.main import app
from connector.demo.finding import BrokerHandle
from connector.demo.topics import Record, Topics

KEY = "trk_0123456789abcdef"
SETTINGS: dict[str, Any] = {
    "kafka": {"bootstrap_servers": "localhost:1"},
    "trackly": {"api_key": KEY},
    "streams": [
        {
            "name": "orders",
            "topics": ["orders"],
            "operation": "send",
            "list_number": "+18005551234",
            "batch": {"max_records": 2},
            "mapping": {
                "when": "value.ship",
                "fields": {
                    "to": "key",
                    "body": {"template": "Hi {{ value.name }} ✓"},
                    "metadata": {"id": "value.id", "shop": {"const": "s1"}},
                },
            },
            "outcomes": {"topic": "out"},
            "dead_letters": {"topic": "dead"},
        }
    ],
}
RECORDS: list[dict[str, Any]] = [
    *({"value": {"ship": True, "name": "Ada", "id": number}, "key": "+14155550101"} for number in range(3)),
    {"value": {"ship": False}},
    {"value": {"ship": True, "name": None}, "key": "+14155550101"},
    {"value": "{torn", "headers": {"h": "1"}},
    {"value": {"ship": True, "name": "Ada"}, "key": "+14155550101x"},
]


@pytest.fixture
def explain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command on the settings, and on lines for standard input."""
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "connector.yaml"
    path.write_text(yaml.safe_dump(SETTINGS))

    def run(*arguments: str, lines: list[Any] | None = None) -> Result:
        text = "".join(f"{json.dumps(line)}\n" for line in lines or [])
        return CliRunner().invoke(app, ["explain", str(path), "--stream", "orders", *arguments], input=text)

    return run


def test_each_record_has_its_end_its_fields_and_its_batch(explain: Callable[..., Result]) -> None:
    result = explain("--sample", "-", "--records", "--json", "--reveal", lines=RECORDS)

    assert result.exit_code == 0
    report = json.loads(result.stdout)
    first = report["records"][0]
    assert first["event"] == {
        "list_number": "+18005551234",
        "to": "+14155550101",
        "body": "Hi Ada ✓",
        "metadata": {"id": 0, "shop": "s1"},
    }
    assert first["fields"] == {
        "to": "key",
        "body": "template Hi {{ value.name }} ✓",
        "metadata.id": "value.id",
        "metadata.shop": "constant 's1'",
    }
    assert (first["segments"]["encoding"], first["segments"]["count"]) == ("UCS-2", 1)
    assert first["bytes"] == len(json.dumps(first["event"], separators=(",", ":"), ensure_ascii=False).encode())
    assert [record.get("batch") for record in report["records"]] == [1, 1, 2, None, None, None, None]
    assert [record["verdict"]["reason"] for record in report["records"][3:]] == [
        "filtered",
        "mapping_failed",
        "not_json",
        "invalid_phone",
    ]
    assert [(batch["records"], batch["closed_by"]) for batch in report["batches"]] == [(2, "count"), (1, "window")]
    request = report["batches"][0]["request"]
    assert request["url"].endswith("/send/bulk")
    assert [message["to"] for message in json.loads(request["body"])["messages"]] == ["+14155550101"] * 2
    assert "unauthorized" not in request["headers"].values()
    assert any("401" in row["when"] and row["verdict"].startswith("hold") for row in report["verdicts"])
    assert {row["when"] for row in report["verdicts"]} >= {"a status of 504, 520, 524 (`delivery.in_doubt_statuses`)"}
    # A setting is named behind what it says, in every row that leaves something to it.
    told = " ".join(f"{row['when']} {row['verdict']}" for row in report["verdicts"])
    assert re.findall(r"[^(]`(?:retry\.(?:max_attempts|\w+_codes)|delivery\.in_doubt\w*)`", told) == []


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_numbers_texts_keys_and_secrets_are_hidden(explain: Callable[..., Result], form: tuple[str, ...]) -> None:
    result = explain("--sample", "-", "--records", *form, lines=RECORDS)

    assert result.exit_code == 0
    for hidden in ("14155550101", "18005551234", "Hi Ada", KEY):
        assert hidden not in result.stdout
    assert "+1415***0101" in result.stdout


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_numbers_that_are_no_texts_and_mail_addresses_are_hidden_too(
    explain: Callable[..., Result], form: tuple[str, ...]
) -> None:
    ids = [14155550123, "write to alice@example.com", {"+14155550124": 1, "bob@example.com": 2}, 7]
    lines = [{"value": {"ship": True, "name": "Ada", "id": one}, "key": "+14155550101"} for one in ids]

    result = explain("--sample", "-", "--records", *form, lines=lines)

    assert result.exit_code == 0
    for hidden in ("14155550123", "14155550124", "alice", "bob", "example.com"):
        assert hidden not in result.stdout
    assert "1415***0123" in result.stdout
    assert "write to ***@***" in result.stdout


def test_of_answers_only_what_the_settings_decide_is_printed_unless_all_is_asked_for(
    explain: Callable[..., Result],
) -> None:
    """The records come first, and the table of verdicts is longer than all that is told of them."""
    short = explain("--sample", "-", lines=[{"ship": False}])
    whole = explain("--sample", "-", "--verdicts", lines=[{"ship": False}])

    table = json.loads(explain("--sample", "-", "--json", lines=[{"ship": False}]).stdout)["verdicts"]
    told = [[row["when"] in result.stdout for row in table] for result in (short, whole)]
    assert told == [[False] * len(table), [True] * len(table)]
    assert [line.split()[:3] for line in short.stdout.splitlines()[-4:]] == [
        ["in", "doubt", "dead_letter"],
        ["sent", "again", "provider_error,"],
        ["hold", "list_not_found,", "webhook_not_configured"],
        ["all", "else", "is"],
    ]
    assert "--verdicts" in short.stdout


def test_values_alone_are_samples_too(explain: Callable[..., Result], tmp_path: Path) -> None:
    file = tmp_path / "values.ndjson"
    file.write_text('{"ship": true, "name": "Ada"}\n\n{"ship": false}\n')
    report = json.loads(explain("--sample", str(file), "--json").stdout)

    assert [record["verdict"]["reason"] for record in report["records"]] == ["missing_to", "filtered"]


def test_an_exported_dead_letter_is_explained_as_what_it_was(explain: Callable[..., Result]) -> None:
    line = {
        "format": "trackly-dead-letter/1",
        "topic": "dead",
        "partition": 0,
        "offset": 7,
        "timestamp_ms": 1,
        "key": "+14155550101",
        "value": '{"ship": true, "name": "Ada"}',
        "headers": [
            ["trackly.origin.topic", "orders"],
            ["trackly.origin.partition", "3"],
            ["trackly.origin.offset", "5"],
        ],
    }
    (record,) = json.loads(explain("--sample", "-", "--json", lines=[line]).stdout)["records"]

    assert (record["topic"], record["partition"], record["batch"]) == ("orders", 3, 1)


def test_the_only_stream_need_not_be_named_and_of_several_one_must_be(
    explain: Callable[..., Result], tmp_path: Path
) -> None:
    path, sample = tmp_path / "connector.yaml", tmp_path / "sample.ndjson"
    sample.write_text('{"ship": false}\n')
    unnamed = ["explain", str(path), "--sample", str(sample)]

    assert CliRunner().invoke(app, [*unnamed, "--json"]).stdout == explain("--sample", str(sample), "--json").stdout

    second = {"name": "others", "topics": ["others"], "outcomes": {"topic": "o"}, "dead_letters": {"topic": "d"}}
    path.write_text(
        yaml.safe_dump({**SETTINGS, "streams": [*SETTINGS["streams"], {"operation": "contacts", **second}]})
    )
    result = CliRunner().invoke(app, unnamed)
    assert (result.exit_code, "give --stream, one of: orders, others" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "lines", "said"),
    [
        ((), [], "there is nothing to explain"),
        (("--sample", "-"), [], "contains no sample"),
        (("--sample", "/nowhere/at/all"), [], "cannot read"),
        (("--sample", "-", "--records"), [{"valeu": 1}], "line 1 is not a record"),
        (("--sample", "-", "--records"), [{"value": 1, "kee": 1}], "line 1 has kee"),
        (("--sample", "-", "--records"), [{"value": 1, "headers": 1}], "line 1 has an invalid key, value or headers"),
        (("--sample", "-", "--stream", "other"), [1], "has no stream other"),
        (("--topic", "a b"), [], "--topic is not a valid topic name"),
        (("--sample", "-", "--last", "10"), [{}], "--last: is only for a topic"),
        (("--topic", "orders", "--records"), [], "--records: needs --sample"),
    ],
)
def test_what_cannot_be_explained_is_reported_in_a_line(
    explain: Callable[..., Result], arguments: tuple[str, ...], lines: list[Any], said: str
) -> None:
    result = explain(*arguments, lines=lines)

    assert result.exit_code == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_where_the_stream_would_hold_the_page_about_the_hold_is_named(tmp_path: Path) -> None:
    stream = {name: value for name, value in SETTINGS["streams"][0].items() if name != "mapping"}
    path = tmp_path / "connector.yaml"
    path.write_text(yaml.safe_dump({**SETTINGS, "streams": [{**stream, "transform": "tests.shaping.hooks:fails"}]}))

    result = CliRunner().invoke(app, ["explain", str(path), "--sample", "-"], input='{"phone": "+14155550101"}\n')

    assert result.exit_code == 1
    assert "the stream would hold (transform_failed): tests.shaping.hooks:fails raised RuntimeError" in result.stderr
    assert "see docs/runbook/hold-transform-failed.md" in result.stderr
    assert "+14155550101" not in result.output


def test_the_last_records_of_a_topic_are_read_and_nothing_is_committed(
    broker: BrokerHandle, topics: Topics, explain: Callable[..., Result], tmp_path: Path
) -> None:
    topic = topics.create(partitions=3)
    topics.produce(
        topic, [Record(json.dumps({"ship": True, "name": f"n{n}"}).encode(), b"+14155550101") for n in range(9)]
    )
    settings = {**SETTINGS, "kafka": {"bootstrap_servers": broker.bootstrap_servers}}
    settings["streams"] = [{**SETTINGS["streams"][0], "topics": [topic]}]
    (tmp_path / "connector.yaml").write_text(yaml.safe_dump(settings))
    result = explain("--topic", topic, "--last", "4", "--json", "--reveal")

    assert result.exit_code == 0, result.stderr
    records = json.loads(result.stdout)["records"]
    assert len(records) == 4
    assert {record["event"]["body"] for record in records} <= {f"Hi n{n} ✓" for n in range(9)}
    assert explain("--topic", f"{topic}.nowhere").exit_code == 2, "as of dead-letters list"
    empty = topics.create()
    shown, told = explain("--topic", empty), explain("--topic", empty, "--json")
    assert (shown.exit_code, shown.stdout.splitlines()[0]) == (0, f"no records in {empty}"), "as of dead-letters list"
    assert (told.exit_code, json.loads(told.stdout)["records"]) == (0, [])
