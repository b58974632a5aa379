"""`explain` decodes what it shows as the stream would, and says when the stream would hold."""

from typing import Any

import pytest

from connector.app.explaining import NotExplainedError, explain
from connector.config.settings import Settings
from tests.kit.registries import Answer, MakeRegistry, TinyRegistry
from tests.shaping.formats.making import SMS, chunk, frame

AVRO = frame(1, b"\x18+15550000001\x0aHello\0")


@pytest.fixture
def tiny(make_registry: MakeRegistry) -> TinyRegistry:
    made = make_registry()
    made.add(1, SMS)
    return made


def _settings(url: str) -> Settings:
    stream: dict[str, Any] = {
        "name": "sends",
        "topics": ["events"],
        "operation": "send",
        "list_number": "+18005551234",
        "overrides": [{"topics": ["events"], "format": "avro"}],
        "mapping": {"fields": {"to": "value.to", "body": {"template": "Text: {{ value.body }}"}}},
        "outcomes": {"topic": "out"},
        "dead_letters": {"topic": "dead"},
    }
    return Settings.model_validate(
        {
            "kafka": {"bootstrap_servers": "localhost:9092"},
            "trackly": {"api_key": "trk_key"},
            "schema_registry": {"url": url},
            "streams": [stream],
        }
    )


def test_a_framed_record_is_shown_as_it_is_decoded_and_mapped(tiny: TinyRegistry) -> None:
    settings = _settings(tiny.url)

    report = explain(settings, settings.streams[0], [chunk([AVRO, b"{}"])], reveal=True)

    assert report["records"][0]["event"]["body"] == "Text: Hello"
    assert report["records"][1]["verdict"]["reason"] == "not_framed"


def test_a_registry_that_is_away_is_reported_as_the_hold_that_it_would_be(tiny: TinyRegistry) -> None:
    tiny.always = Answer(503)
    settings = _settings(tiny.url)

    with pytest.raises(NotExplainedError, match="schema_registry"):
        explain(settings, settings.streams[0], [chunk([AVRO])], reveal=True)
