"""Formats and the schema registry in the settings: what they need is there, and nothing that would do nothing."""

import importlib.machinery
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from connector.config import formats
from connector.config.describe import redacted
from connector.config.problems import Problem
from connector.config.secrets import REGISTRY_PASSWORD, Secrets
from connector.config.settings import Settings
from connector.config.summary import notes
from connector.shaping.formats import registry_of

Load = Callable[..., Settings]
Refused = Callable[..., tuple[Problem, ...]]
REGISTRY: dict[str, Any] = {"url": "https://registry:8081/"}


def _with(chosen: Any, registry: dict[str, Any] | None = None) -> dict[str, Any]:
    changes: dict[str, Any] = {"streams": [{"format": chosen}]}
    return changes if registry is None else {**changes, "schema_registry": registry}


def test_a_stream_is_json_unless_it_says_otherwise_and_a_name_is_enough(load: Load) -> None:
    assert load().streams[0].format.type == "json"
    assert load(_with("cloudevents")).streams[0].format.type == "cloudevents"
    assert load(_with({"type": "avro"}, REGISTRY)).streams[0].format.framed == "avro"
    assert load(_with({"type": "json_schema", "validation": False})).schema_registry is None


@pytest.mark.parametrize(
    ("chosen", "registry", "place", "message"),
    [
        ("avrro", None, "streams[0].format", "must be 'json', 'cloudevents', 'avro', 'protobuf' or 'json_schema'"),
        (5, None, "streams[0].format", "must be a name, such as avro, or a group of settings"),
        (["avro"], None, "streams[0].format", "must be a name, such as avro, or a group of settings"),
        (None, None, "streams[0].format", "must be a name, such as avro, or a group of settings"),
        ("avro", None, "streams[0].format", "needs schema_registry, which knows the schemas of avro"),
        ({"type": "cloudevents", "data": "protobuf"}, None, "streams[0].format", "needs schema_registry, "),
        ("json", REGISTRY, "schema_registry", "has no effect: no stream has a format that needs it"),
        ({"type": "avro", "message": "a.B"}, REGISTRY, "streams[0].format.message", "has no effect with format avro"),
        ({"validation": True}, None, "streams[0].format.validation", "has no effect with format json"),
        ({"type": "avro", "data": "json"}, REGISTRY, "streams[0].format.data", "has no effect with format avro"),
        ("avro", REGISTRY | {"username": "u"}, "schema_registry.password", "is required with username"),
        ("avro", REGISTRY | {"password": "p"}, "schema_registry.username", "is required with password"),
        (
            "avro",
            REGISTRY | {"username": "u", "password": "p", "token": "t"},
            "schema_registry.token",
            "must not be set together with username",
        ),
        ("avro", REGISTRY | {"token": "a b"}, "schema_registry.token", "must not contain white space"),
        ("avro", {"url": "http://registry:8081", "token": "t"}, "schema_registry.url", "must be https"),
        ("avro", {"url": "https://u:p@registry"}, "schema_registry.url", "must not contain a user name or password"),
        ("avro", {"url": "registry:8081"}, "schema_registry.url", "must start with http:// or https://"),
        ("avro", REGISTRY | {"tls": {"cert_file": "x.pem"}}, "schema_registry.tls.key_file", "is required"),
        ("avro", REGISTRY | {"tls": {"ca_file": "x.pem"}}, "schema_registry.tls.ca_file", "does not name a file"),
        (
            {"type": "avro", "reader_schema_file": "x.avsc"},
            REGISTRY,
            "streams[0].format.reader_schema_file",
            "does not name a file",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    refused: Refused, chosen: Any, registry: Any, place: str, message: str
) -> None:
    problems = {problem.path: problem.message for problem in refused(_with(chosen, registry))}

    assert message in problems[place], problems


def test_plain_http_is_for_registries_without_credentials_on_this_machine_or_by_permission(load: Load) -> None:
    for registry in (
        {"url": "http://registry:8081"},
        {"url": "http://localhost:8081", "token": "t"},
        {"url": "http://registry:8081", "token": "t", "allow_plain_http": True},
    ):
        assert load(_with("avro", registry)).schema_registry is not None
    assert any("in the clear" in note for note in notes(load(_with("avro", registry))))


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ('{"type": "nonsense"}', "is not an Avro schema"), ('{"type": "record"}', "not an Avro")],
)
def test_a_pinned_schema_is_read_when_the_settings_are(
    refused: Refused, tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "x.avsc").write_text(text)

    [problem] = refused(_with({"type": "avro", "reader_schema_file": "x.avsc"}, REGISTRY))

    assert problem.path == "streams[0].format.reader_schema_file"
    assert message in problem.message


@pytest.mark.parametrize(
    ("chosen", "module", "extra"),
    [("avro", "fastavro", "avro"), ("protobuf", "google.protobuf", "protobuf"), ("protobuf", "grpc_tools", "protobuf"),
     ("json_schema", "jsonschema_rs", "json-schema"), ({"type": "cloudevents", "data": "avro"}, "fastavro", "avro")],
)  # fmt: skip
def test_an_extra_that_is_missing_is_named_with_the_command_that_brings_it(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, chosen: Any, module: str, extra: str
) -> None:
    found = importlib.machinery.ModuleSpec("x", None)
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == module else found)

    [problem] = refused(_with(chosen, REGISTRY))

    assert problem.message == f"needs an extra of the package: pip install 'trackly-connector[{extra}]'"


def test_the_modules_of_the_extras_are_there_where_the_tests_run() -> None:
    assert {name: formats.FormatSettings(type=name).missing_extra for name in formats.EXTRAS} == dict.fromkeys(  # type: ignore[arg-type]
        formats.EXTRAS
    )


def test_credentials_are_hidden_and_read_again_from_their_files(load: Load, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("hunter2")
    settings = load(_with("avro", REGISTRY | {"username": "us", "password": "${file:password}"}))
    secrets = Secrets(settings)
    registry = registry_of(settings, secrets)
    assert registry is not None

    before = registry._authorization()
    (tmp_path / "password").write_text("hunter3")
    changed = secrets.read_again()

    assert "hunter2" not in str(redacted(settings))
    assert "hunter2" not in repr(settings)
    assert redacted(settings)["schema_registry"]["password"] == "***"
    assert changed == {REGISTRY_PASSWORD}
    assert registry._authorization() != before
    registry.close()
