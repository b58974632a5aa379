"""The list of Kafka permissions, and its output formats."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from connector.app.acls import commands, literal_prefix, needed, strimzi
from connector.cli.main import app
from connector.config.settings import Settings

STREAM: dict[str, Any] = {
    "name": "sends",
    "topics": ["sms"],
    "operation": "send",
    "outcomes": {"topic": "sms.outcomes"},
    "dead_letters": {"topic": "sms.dead"},
}


def _settings(*streams: dict[str, Any]) -> Settings:
    content = {
        "kafka": {"bootstrap_servers": "broker:9092", "security": {"username": "trackly"}},
        "trackly": {"api_key": "trk_0123456789abcdef0123456789abcdef"},
        "streams": [{**STREAM, **stream} for stream in streams or ({},)],
    }
    return Settings.model_validate(content)


def _rights(settings: Settings) -> set[tuple[str, str, str, bool]]:
    return {(acl.kind, acl.name, acl.operation, acl.prefixed) for acl in needed(settings, "worker")}


def test_a_plain_stream_needs_nine_rights() -> None:
    group = "trackly-connector.sends"

    assert _rights(_settings()) == {
        ("topic", "sms", "Read", False),
        ("topic", "sms.outcomes", "Write", False),
        ("topic", "sms.outcomes", "Read", False),
        ("topic", "sms.outcomes", "DescribeConfigs", False),
        ("topic", "sms.dead", "Write", False),
        ("topic", "sms.dead", "DescribeConfigs", False),
        ("topic", "sends.redrive", "Read", False),
        ("group", group, "Read", False),
        ("transactional_id", f"{group}.", "Write", True),
    }


def test_transactions_are_for_exactly_once_and_for_rules() -> None:
    at_least_once = {"delivery": {"guarantee": "at_least_once"}}
    rule = {"dead_letters": {"topic": "sms.dead", "redrive": [{"name": "later", "reasons": ["provider_error"]}]}}

    assert "transactional_id" not in {kind for kind, *_ in _rights(_settings(at_least_once))}
    assert "transactional_id" in {kind for kind, *_ in _rights(_settings({**at_least_once, **rule}))}


def test_what_streams_share_is_named_once() -> None:
    other = {"name": "others", "topics": ["other"]}
    acls = needed(_settings({}, other), "worker")

    assert len([acl for acl in acls if acl.name == "sms.outcomes"]) == 3
    assert len({(*acl.resource, acl.operation) for acl in acls}) == len(acls)


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [
        (r"^sms\..*", "sms."),
        ("^sms-[ab]$", "sms-"),
        ("^sms_x?", "sms_"),
        ("^sms.eu", "sms"),
        (r"^sms\.(eu|us)$", "sms."),
        ("^(eu|us)-sms", ""),
        ("^eu|us", ""),
        (r"^a[|]b", "a"),
        (r"^a\|b", "a"),
        ("^.*", ""),
        ("^a+b", ""),
    ],
)
def test_the_beginning_of_a_pattern_is_never_longer_than_what_it_matches(pattern: str, prefix: str) -> None:
    assert literal_prefix(pattern) == prefix


def test_a_pattern_without_a_beginning_asks_for_all_topics() -> None:
    stream = {"topics": [], "pattern": "^(eu|us)-sms$"}

    assert ("topic", "*", "Read", False) in _rights(_settings(stream))


def test_commands_and_the_manifest_say_what_the_list_says() -> None:
    acls = needed(_settings({"create_topics": {"enabled": True}}), "worker")
    wanted = {(acl.kind, acl.name, acl.operation, acl.prefixed) for acl in acls}
    said = set()
    for line in commands(acls, bootstrap_servers="broker:9092", principal="User:CN=trackly,O=Example Inc"):
        tool, *words = shlex.split(line)
        assert tool == "kafka-acls.sh"
        assert words[:5] == [
            "--bootstrap-server", "broker:9092", "--add", "--allow-principal", "User:CN=trackly,O=Example Inc",
        ]  # fmt: skip
        options = list(zip(words[5::2], words[6::2], strict=True))
        named = dict(options)
        (kind,) = {"--topic", "--group", "--transactional-id"} & named.keys()
        prefixed = named.get("--resource-pattern-type", "literal") == "prefixed"
        said |= {
            (kind[2:].replace("-", "_"), named[kind], value, prefixed)
            for option, value in options
            if option == "--operation"
        }
    manifest = {
        (
            {"transactionalId": "transactional_id"}.get(acl["resource"]["type"], acl["resource"]["type"]),
            acl["resource"]["name"],
            operation,
            acl["resource"]["patternType"] == "prefix",
        )
        for acl in strimzi(acls)
        for operation in acl["operations"]
    }

    assert said == wanted
    assert manifest == wanted


def test_the_command_prints_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    path = tmp_path / "connector.yaml"
    content = {
        "kafka": {"bootstrap_servers": "broker:9092"},
        "trackly": {"api_key": "trk_0123456789abcdef0123456789abcdef"},
        "streams": [{**STREAM, "list_number": "+18005551234"}],
    }
    path.write_text(yaml.safe_dump(content))

    def printed(*options: str) -> str:
        result = CliRunner().invoke(app, ["acls", str(path), *options])
        assert result.exit_code == 0, result.output
        return result.stdout

    assert "sms.outcomes" in printed()
    assert "--allow-principal User:connector " in printed("--format", "commands")
    assert "User:me" in printed("--format", "commands", "--principal", "User:me")
    assert yaml.safe_load(printed("--format", "strimzi"))["spec"]["authorization"]["type"] == "simple"
    assert {acl["owner"] for acl in json.loads(printed("--format", "json", "--dead-letters"))} == {"sends", ""}


@pytest.mark.parametrize(
    ("principal", "way_out"),
    [("bob", "User:bob"), ("User:", "User:connector"), (":bob", "User:bob"), ("", "User:connector")],
)
def test_a_principal_without_a_type_is_refused_as_kafkas_own_tools_do(
    tmp_path: Path, principal: str, way_out: str
) -> None:
    result = CliRunner().invoke(app, ["acls", str(tmp_path / "unread.yaml"), "--principal", principal])

    assert result.exit_code == 2
    assert f"--principal {principal} is not of the form TYPE:NAME" in result.stderr
    assert f"such as {way_out}\n" in result.stderr
