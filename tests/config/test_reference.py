"""The page names everything; the schema accepts what the models accept."""

from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from connector.config.catalogue import catalogue
from connector.config.document import read_document
from connector.config.kafka import REFUSED
from connector.config.load import load_settings
from connector.config.problems import SettingsError
from connector.config.settings import Settings
from reference.settings import settings_page, settings_schema
from tests.config.conftest import SMALLEST, Load, merged

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "schemas" / "examples").glob("connector*.yaml"))


@cache
def _schema() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(settings_schema())


def test_the_page_names_every_setting_and_every_refused_property() -> None:
    page = settings_page()

    for entry in catalogue():
        name = entry.path if entry.group is not None else entry.path.rpartition(".")[2]
        assert f"`{name}`" in page, entry.path
    for name in REFUSED:
        assert f"| `{name}` |" in page


def test_every_setting_says_what_it_means() -> None:
    schema = Settings.model_json_schema()

    for group in (schema, *schema["$defs"].values()):
        assert [name for name, node in group["properties"].items() if not node.get("description")] == [], group["title"]


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(_schema().schema)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_examples_satisfy_schema_and_models(example: Path) -> None:
    _schema().validate(read_document(example).data)

    settings = load_settings(
        example, environ={"KAFKA_BOOTSTRAP_SERVERS": "b:1", "KAFKA_PASSWORD": "p", "TRACKLY_API_KEY": "k"}
    )

    assert settings.streams
    if example.name == "connector.yaml":
        assert {stream.operation for stream in settings.streams} == {"send", "contacts", "revenue", "history"}


def _valid(changes: dict[str, Any]) -> bool:
    return _schema().is_valid(merged(SMALLEST, changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"web": {"port": 65_536}},
        {"web": {"port": "80"}},
        {"web": {"prot": 80}},
        {"instance_id": "a b"},
        {"log": {"level": "loud"}},
        {"streams": []},
        {"streams": [{"start": 5}]},
        {"streams": [{"list_number": "5"}]},
        {"kafka": {"properties": {"a": [1]}}},
    ],
    ids=str,
)
def test_schema_and_models_refuse_alike(changes: dict[str, Any], load: Load) -> None:
    assert not _valid(changes)
    with pytest.raises(SettingsError):
        load(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"instance_id": "${env:HOSTNAME}"},
        {"instance_id": None},
        {"log": {"level": "${env:LEVEL}"}},
        {"kafka": {"security": {"protocol": "${env:P}"}}},
        {"streams": [{"list_number": "${file:list}"}]},
        {"streams": [{"start": "${env:START}"}]},
        {"streams": [{"start": "2026-01-31T08:00:00Z"}]},
    ],
    ids=str,
)
def test_the_schema_lets_references_stand_for_texts_with_a_form(changes: dict[str, Any]) -> None:
    assert _valid(changes)


def test_the_schema_lets_no_reference_stand_for_a_number() -> None:
    assert not _valid({"web": {"port": "${env:PORT}"}})
