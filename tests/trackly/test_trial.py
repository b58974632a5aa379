"""A mapping that can produce no valid event is a problem of the settings, not of every record."""

from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from connector.app.loading import load
from connector.config.problems import SettingsError

TEXT: Final = {"to": "value.phone", "body": {"const": "Hi"}}
LIST: Final = "+18005551234"


def problems(folder: Path, **stream: Any) -> list[tuple[str, str]]:
    """Return what is wrong with settings, and where."""
    path = folder / "connector.yaml"
    base = {"name": "sends", "topics": ["a", "b"], "operation": "send", "list_number": LIST}
    outputs = {"outcomes": {"topic": "out"}, "dead_letters": {"topic": "dead"}}
    merged = {name: value for name, value in {**base, **outputs, **stream}.items() if value is not None}
    settings = {"kafka": {"bootstrap_servers": "x:1"}, "trackly": {"api_key": "trk_key"}, "streams": [merged]}
    path.write_text(yaml.safe_dump(settings))
    try:
        load(path)
    except SettingsError as error:
        return [(problem.path, problem.message) for problem in error.problems]
    return []


def over(*topics: str, **mapping: Any) -> dict[str, Any]:
    return {"topics": list(topics), "mapping": mapping}


@pytest.mark.parametrize(
    ("stream", "at", "said"),
    [
        ({"mapping": {"fields": {"to": "value.a"}}}, "mapping", "does not set `body`"),
        ({"mapping": {"fields": {**TEXT, "bdy": "key"}}, "list_number": None}, "mapping", "does not set `list_number`"),
        (
            {"operation": "revenue", "list_number": None, "mapping": {"fields": {"message_id": "key", "revenue": 1}}},
            "mapping",
            "does not set `attribution_type`",
        ),
        (
            {"operation": "history", "mapping": {"fields": {"id": "key", "to_number": "value.to"}}},
            "mapping",
            "does not set `timestamp`",
        ),
        (
            {"mapping": {"fields": TEXT}, "overrides": [over("b", fields={"body": None})]},
            "overrides[0].mapping",
            "does not set `body`",
        ),
        (
            {"mapping": {"fields": TEXT, "list_number": "value.list"}, "list_number": None}
            | {"overrides": [over("b", list_number=None)]},
            "overrides[0].mapping",
            "does not set `list_number`",
        ),
    ],
)
def test_what_makes_no_event_of_any_record_is_refused(
    tmp_path: Path, stream: dict[str, Any], at: str, said: str
) -> None:
    [(path, message)] = problems(tmp_path, **stream)

    assert path == f"streams[0].{at}.fields"
    assert said in message


@pytest.mark.parametrize(
    ("stream", "at", "said"),
    [
        ({"mapping": {"fields": {**TEXT, "to": 14155550101}}}, "mapping.fields.to", "Expected `str`, got `int`"),
        ({"mapping": {"fields": {**TEXT, "to": {"const": "0101"}}}}, "mapping.fields.to", "is not an E.164 number"),
        ({"mapping": {"fields": {**TEXT, "to": {"const": None}}}}, "mapping.fields.to", "the event has no `to`"),
        ({"mapping": {"fields": {**TEXT, "body": {"template": ""}}}}, "mapping.fields.body", "`body` is empty"),
        ({"mapping": {"fields": {**TEXT, "body": {"template": "{{ 1 // 0 }}"}}}}, "mapping.fields.body", "has no text"),
        ({"mapping": {"fields": {**TEXT, "wrap_links": {"const": "yes"}}}}, "mapping.fields.wrap_links", "got `str`"),
        ({"mapping": {"fields": {**TEXT, "list_number": {"const": "1"}}}}, "mapping.fields.list_number", "E.164"),
        (
            {"mapping": {"fields": {**TEXT, "body": {"const": "x" * 161}}, "max_segments": 1}},
            "mapping.fields.body",
            "2 segments",
        ),
        (
            {"mapping": {"fields": {**TEXT, "bdy": "value.text"}}, "unknown_fields": "reject"},
            "mapping.fields.bdy",
            "unknown field `bdy`",
        ),
        (
            {"operation": "contacts", "mapping": {"fields": {"phone_number": "key", "use_journeys": True}}},
            "mapping.fields.use_journeys",
            "needs the setting contacts.journeys",
        ),
        (
            {"mapping": {"fields": TEXT}, "overrides": [over("b", fields={"body": 5})]},
            "overrides[0].mapping.fields.body",
            "Expected `str`, got `int`",
        ),
    ],
)
def test_a_field_that_is_refused_whatever_the_record_is_a_problem_of_the_settings(
    tmp_path: Path, stream: dict[str, Any], at: str, said: str
) -> None:
    [(path, message)] = problems(tmp_path, **stream)

    assert path == f"streams[0].{at}"
    assert message.startswith("is rejected for every record that has it: ")
    assert said in message


@pytest.mark.parametrize(
    "stream",
    [
        {"mapping": {"fields": TEXT}},
        {"mapping": {"fields": {**TEXT, "body": {"const": "x" * 160}, "bdy": {"const": None}, "metadata": {"a": 5}}}},
        {"mapping": {"fields": {**TEXT, "wrap_links": False, "contact_data": {"timezone": "value.zone"}}}}
        | {"unknown_fields": "reject"},
        {"mapping": {"when": "value.a"}},
        {"mapping": {"list_number": "value.list"}, "list_number": None},
        {"mapping": {"fields": {**TEXT, "list_number": "value.list"}}, "list_number": None},
        {"mapping": {"fields": {"to": "key"}}, "overrides": [over("a", "b", fields={"body": "value.text"})]},
        {"mapping": {"fields": {"to": "key"}}, "topics": None, "pattern": "^x"}
        | {"overrides": [{"pattern": "^x", "mapping": {"fields": {"body": "value.text"}}}]},
        {"mapping": {"fields": TEXT}, "overrides": [{"topics": ["b"], "mapping": None}]},
        {"operation": "history", "list_number": None}
        | {"mapping": {"fields": {"id": "key", "to_number": "key", "timestamp": "value.at", "list_id": 7}}},
    ],
)
def test_what_may_make_events_is_taken(tmp_path: Path, stream: dict[str, Any]) -> None:
    assert problems(tmp_path, **stream) == []


def test_of_an_operation_that_is_none_nothing_more_is_asked(tmp_path: Path) -> None:
    [(path, _)] = problems(tmp_path, operation="sned", mapping={"fields": {"phone_number": "key"}})

    assert path == "streams[0].operation"
