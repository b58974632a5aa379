"""A schema that values are resolved to is checked with the settings, not with the first record."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from connector.app.loading import load
from connector.config.problems import SettingsError


def _settings(folder: Path, schema: Any, **stream: Any) -> Path:
    (folder / "sms.avsc").write_text(json.dumps(schema))
    pinned = {"type": "avro", "reader_schema_file": "sms.avsc"}
    sends = {"name": "sends", "topics": ["in"], "operation": "send", "format": pinned}
    written_to = {"outcomes": {"topic": "out"}, "dead_letters": {"topic": "dead"}}
    content = {
        "kafka": {"bootstrap_servers": "localhost:9092"},
        "trackly": {"api_key": "trk_0123456789abcdef"},
        "schema_registry": {"url": "https://registry:8081"},
        "streams": [{**sends, **written_to, **stream}],
    }
    path = folder / "connector.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def _record(kind: Any, **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "Sms", "fields": [{"name": "to", "type": kind, **more}]}


def _deep(levels: int) -> Any:
    return {"type": "array", "items": _deep(levels - 1)} if levels else "string"


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        (_record(_deep(120)), "cannot be used: it has types within types, more than 100 levels"),
        (
            _record({"type": "array", "items": "null"}),
            "cannot be used: it has an array of items that may take no bytes",
        ),
        (_record({"type": "array", "items": "bytes"}, default=[5]), "cannot be used: a default fits no value: "),
        (_record({"type": "string", "logicalType": "uuid"}, default=""), "cannot be used: a default fits no value: "),
    ],
)
def test_a_pinned_schema_that_no_value_can_be_brought_to_is_a_problem_of_the_settings(
    schema: Any, message: str, tmp_path: Path
) -> None:
    """Else it would make a dead letter of every record."""
    with pytest.raises(SettingsError) as caught:
        load(_settings(tmp_path, schema))

    [problem] = caught.value.problems
    assert problem.path == "streams[0].format.reader_schema_file"
    assert message in problem.message


def test_a_pinned_schema_of_some_topics_alone_is_named_by_its_place(tmp_path: Path) -> None:
    pinned = {"type": "avro", "reader_schema_file": "sms.avsc"}
    override = {"topics": ["other"], "format": pinned}
    path = _settings(tmp_path, _record(_deep(120)), format="json", topics=["in", "other"], overrides=[override])

    with pytest.raises(SettingsError) as caught:
        load(path)

    assert [problem.path for problem in caught.value.problems] == ["streams[0].overrides[0].format.reader_schema_file"]


def test_a_pinned_schema_that_can_be_used_is_taken(tmp_path: Path) -> None:
    assert load(_settings(tmp_path, _record(["null", "string"], default=None))).streams[0].format.framed == "avro"
