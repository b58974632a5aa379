"""`check --online` queries the schema registry as well."""

from typing import Any

import pytest

from connector.app.online import _registry
from connector.config.settings import Settings
from tests.kit.registries import Answer, MakeRegistry


def _settings(url: str) -> Settings:
    stream: dict[str, Any] = {
        "name": "sends",
        "topics": ["in"],
        "operation": "send",
        "format": "avro",
        "outcomes": {"topic": "out"},
        "dead_letters": {"topic": "dead"},
    }
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "localhost:9092"},
            "trackly": {"api_key": "trk_key"},
            "schema_registry": {"url": url, "token": "a-secret"},
            "streams": [stream],
        }
    )


def test_a_registry_that_answers_is_fine(make_registry: MakeRegistry) -> None:
    tiny = make_registry(authorization="Bearer a-secret")

    [finding] = _registry(_settings(tiny.url))

    assert (finding.ok, finding.name) == (True, "schema registry")


@pytest.mark.parametrize("answer", [Answer(401), Answer(200, b"<html>"), Answer(200, b"{}"), Answer(404)])
def test_one_that_does_not_is_named_with_the_hint(answer: Answer, make_registry: MakeRegistry) -> None:
    tiny = make_registry(always=answer)

    [finding] = _registry(_settings(tiny.url))

    assert not finding.ok
    assert tiny.url in finding.detail
    assert "schema_registry.url" in finding.way_out
    assert "a-secret" not in finding.detail + finding.way_out
