"""`check` shows what settings amount to, or everything that is wrong with them, and never a secret."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner, Result

from connector.app.online import Finding
from connector.cli.main import app
from connector.config.settings import Settings

SECRET = "hunter2"
FRAME = set("┃│")
VALID = """\
kafka:
  bootstrap_servers: broker.example:9092
  security: {protocol: sasl_ssl, sasl_mechanism: PLAIN, username: me, password: hunter2}
trackly:
  api_key: "${env:CHECK_TEST_KEY}"
streams:
  - name: sends
    pattern: "^sms[.][a-z]+$"
    operation: send
    outcomes: {topic: sends-outcomes, records: failures}
    dead_letters: {topic: sends-dead}
  - name: clicks
    topics: [clicks]
    operation: history
    history: {kind: clicks}
    outcomes: {topic: clicks-outcomes}
    dead_letters: {topic: clicks-dead}
"""


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "connector.yaml"
    path.write_text(VALID)
    return path


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch, settings: Path) -> Callable[..., Result]:
    """Run the command on the settings, on a wide screen."""
    monkeypatch.setenv("CHECK_TEST_KEY", SECRET)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["check", str(settings), *arguments])

    return run


@pytest.fixture
def far_ends(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Settings]]:
    """Answer for the far ends; the list returned holds the settings that they were asked with."""

    def answering(*findings: Finding) -> list[Settings]:
        asked: list[Settings] = []

        def check_online(settings: Settings, _role: str) -> list[Finding]:
            asked.append(settings)
            return list(findings)

        module = ModuleType("connector.app.online")
        module.check_online = check_online  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "connector.app.online", module)
        return asked

    return answering


def test_valid_settings_are_summed_up(check: Callable[..., Result], settings: Path) -> None:
    result = check()

    words = [" ".join(line.split()) for line in result.output.splitlines()]
    assert result.exit_code == 0
    assert words[0] == f"{settings}: valid, 2 streams"
    for line in (
        "kafka broker.example:9092 (sasl_ssl, PLAIN)",
        "platform https://app.tracklysms.com/api/v2",
        "reads ^sms[.][a-z]+$",
        "group trackly-connector.sends",
        "operation send, batches of 1,000 records, 5,000,000 bytes or 200 ms, 1 to 64 at once",
        "guarantee exactly_once",
        "in doubt dead_letter; at most 64,000 records per worker after a crash",
        "outcomes sends-outcomes (failures)",
        "dead letters sends-dead",
        "operation history of clicks, batches of 1,000 records, 5,000,000 bytes or 200 ms, 1 to 64 at once",
        "in doubt resend; at most 64,000 records per worker after a crash",
        "- request 30 s + last tick 1 s = 31 s <= drain 40 s < grace 60 s",
        "- sends: outcomes for failures only: what was queued leaves no record of its own",
    ):
        assert line in words, line


def test_what_is_off_by_default_is_summed_up_where_it_is_on(check: Callable[..., Result], settings: Path) -> None:
    assert not {"order", "pace"} & {line.split()[0] for line in check().output.splitlines() if line.strip()}

    more = """
    start: "2026-01-31T08:00:00Z"
    ordering: key
    pace: {messages_per_minute: 17000, lists: {"+18005551234": 60000}}
    mapping: {when: value.ship}
  - name: clicks"""
    settings.write_text(VALID.replace("\n  - name: clicks", more, 1))
    words = [" ".join(line.split()) for line in check().output.splitlines()]
    for line in (
        "format json, mapping",
        "starts where its group has committed; in a topic that is new to the group: 2026-01-31T08:00:00+00:00",
        "starts where its group has committed; in a topic that is new to the group: earliest",
        "order of each key",
        "pace 17,000 texts a minute of each list; 1 with another",
    ):
        assert line in words, line


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_secrets_are_not_shown(arguments: list[str], check: Callable[..., Result]) -> None:
    assert SECRET not in check(*arguments).output


def test_json_holds_the_settings_in_effect(check: Callable[..., Result]) -> None:
    result = check("--json")

    report = json.loads(result.stdout)
    assert result.exit_code == 0
    assert set(report) == {"ok", "settings", "chains", "notes"}
    assert report["ok"] is True
    assert report["settings"]["trackly"]["api_key"] == "***"
    assert report["settings"]["streams"][1]["delivery"]["in_doubt"] == "resend"
    assert len(report["chains"]) == 4


def test_problems_go_to_stderr_with_exit_code_2(check: Callable[..., Result], settings: Path) -> None:
    settings.write_text(VALID.replace("operation: send", "operation: sned") + "shutdown: {grace_secs: 40}\n")

    result = check()

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"{settings} cannot be used:",
        "  streams[0].delivery.drain_secs: must be below shutdown.grace_secs (40); is 40 (line 7)",
        "  streams[0].operation: must be 'send', 'contacts', 'revenue' or 'history' (line 9)",
        "  streams[1].delivery.drain_secs: must be below shutdown.grace_secs (40); is 40 (line 12)",
    ]


def test_problems_as_json_go_to_stdout_with_exit_code_2(check: Callable[..., Result], settings: Path) -> None:
    settings.write_text(VALID.replace("operation: send", "operation: sned"))

    result = check("--json")

    assert result.exit_code == 2
    assert json.loads(result.stdout) == {
        "ok": False,
        "problems": [
            {
                "path": "streams[0].operation",
                "message": "must be 'send', 'contacts', 'revenue' or 'history'",
                "line": 9,
                "column": None,
            }
        ],
    }


def test_nobody_is_asked_offline(check: Callable[..., Result], far_ends: Callable[..., list[Settings]]) -> None:
    asked = far_ends(Finding("trackly: key", ok=False, detail="refused"))

    assert check().exit_code == 0
    assert asked == []


def test_rights_are_not_passed_over_in_silence_where_nobody_is_asked(check: Callable[..., Result]) -> None:
    result = check("--dead-letters")

    assert (result.exit_code, "needs --online" in result.stderr) == (2, True), result.output


def test_findings_are_shown_and_what_is_well_exits_with_0(
    check: Callable[..., Result], far_ends: Callable[..., list[Settings]]
) -> None:
    asked = far_ends(Finding("kafka: brokers", ok=True, detail="3 brokers [2.5]", way_out="unseen"))

    result = check("--online")

    assert result.exit_code == 0
    assert [len(settings.streams) for settings in asked] == [2]
    assert "3 brokers [2.5]" in result.output
    assert "unseen" not in result.output


def test_a_warning_is_shown_with_its_hint_and_exits_with_0(
    check: Callable[..., Result], far_ends: Callable[..., list[Settings]]
) -> None:
    far_ends(Finding("topic x", ok=True, detail="does not exist yet", way_out="run waits", warning=True))

    result = check("--online")

    (line,) = [line for line in result.stdout.splitlines() if "topic x" in line]
    assert result.exit_code == 0
    assert line.split() == ["warn", "topic", "x", "does", "not", "exist", "yet", "run", "waits"]


def test_the_first_failed_finding_gives_the_exit_code(
    check: Callable[..., Result], far_ends: Callable[..., list[Settings]]
) -> None:
    far_ends(
        Finding("kafka: brokers", ok=True, detail="3 brokers", exit_code=3),
        Finding("trackly: key", ok=False, detail="401 [invalid_api_key]", way_out="set trackly.api_key", exit_code=6),
        Finding("kafka: topics", ok=False, detail="no topic x", way_out="create it"),
    )

    result = check("--online")

    assert result.exit_code == 6
    for word in ("FAIL", "401 [invalid_api_key]", "set trackly.api_key", "create it"):
        assert word in result.output


def test_findings_are_part_of_the_json(check: Callable[..., Result], far_ends: Callable[..., list[Settings]]) -> None:
    far_ends(Finding("kafka: topics", ok=False, detail="no topic x", way_out="create it"))

    result = check("--online", "--json")

    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"]) == (1, False)
    assert report["findings"] == [
        {"name": "kafka: topics", "ok": False, "detail": "no topic x", "way_out": "create it", "warning": False}
    ]


def test_bad_settings_ask_nobody(
    check: Callable[..., Result], far_ends: Callable[..., list[Settings]], settings: Path
) -> None:
    asked = far_ends()
    settings.write_text("")

    result = check("--online")

    assert (result.exit_code, asked) == (2, [])
    assert result.stderr.splitlines() == [f"{settings} cannot be used:", "  is empty"]


@pytest.mark.parametrize("as_json", [False, True])
def test_a_property_that_librdkafka_refuses_is_a_problem_of_the_settings(
    check: Callable[..., Result], settings: Path, as_json: bool
) -> None:
    settings.write_text(VALID.replace("  security:", "  properties: {foo.bar: 1}\n  security:"))

    result = check(*(["--json"] if as_json else []))

    assert result.exit_code == 2
    assert "librdkafka rejects it: No such configuration property" in result.output


def test_where_nobody_watches_each_finding_is_one_line(
    check: Callable[..., Result], far_ends: Callable[..., list[Settings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is piped to grep is found, however narrow the terminal is that is not written to."""
    monkeypatch.setenv("COLUMNS", "40")
    finding = Finding("rights", ok=False, detail="may not read " + "x" * 120, way_out="give it Read on the topic")
    far_ends(finding)

    result = check("--online")

    (line,) = [line for line in result.stdout.splitlines() if "FAIL" in line]
    assert finding.detail in line
    assert finding.way_out in line
    assert not set(result.stdout) & FRAME


def test_on_a_terminal_the_findings_have_a_frame(
    check: Callable[..., Result], far_ends: Callable[..., list[Settings]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    far_ends(Finding("rights", ok=True, detail="allowed"))

    assert set(check("--online").stdout) >= FRAME
