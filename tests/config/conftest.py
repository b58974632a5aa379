"""A smallest settings file, and ways to change it."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from connector.config.load import load_settings
from connector.config.problems import Problem, SettingsError
from connector.config.settings import Settings

SMALLEST: dict[str, Any] = {
    "kafka": {"bootstrap_servers": "localhost:9092"},
    "trackly": {"api_key": "trk_key"},
    "streams": [
        {
            "name": "sends",
            "topics": ["in"],
            "operation": "send",
            "outcomes": {"topic": "out"},
            "dead_letters": {"topic": "dead"},
        }
    ],
}

Changes = Mapping[str, Any]
Load = Callable[..., Settings]
Refused = Callable[..., tuple[Problem, ...]]


def merged(data: Any, changes: Any) -> Any:
    """Lay changes over data: mappings key by key, lists item by item (further items are added), else replaced."""
    if isinstance(data, dict) and isinstance(changes, dict):
        return {**data, **{key: merged(data.get(key), value) for key, value in changes.items()}}
    if isinstance(data, list) and isinstance(changes, list) and all(isinstance(item, dict) for item in changes):
        return [merged(old, new) for old, new in zip(data, changes, strict=False)] + changes[len(data) :]
    return deepcopy(changes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "connector.yaml"


@pytest.fixture
def load(path: Path) -> Load:
    """Load the smallest settings with changes laid over them; `environ` is empty unless given."""

    def loaded(changes: Changes | None = None, environ: Mapping[str, str] | None = None) -> Settings:
        path.write_text(yaml.safe_dump(merged(SMALLEST, dict(changes or {})), sort_keys=False))
        return load_settings(path, environ=environ or {})

    return loaded


@pytest.fixture
def refused(load: Load) -> Refused:
    """Load settings that must be refused, and return the problems."""

    def problems(changes: Changes, environ: Mapping[str, str] | None = None) -> tuple[Problem, ...]:
        with pytest.raises(SettingsError) as caught:
            load(changes, environ)
        return caught.value.problems

    return problems
