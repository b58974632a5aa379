"""The files of `deploy/`, read."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = ROOT / "deploy"
COMPOSE_FILE: Final = DEPLOY / "compose.yaml"
DOCKERFILE: Final = DEPLOY / "docker" / "Dockerfile"


@pytest.fixture(scope="session")
def compose() -> dict[str, Any]:
    """Return the compose file, anchors resolved."""
    found: dict[str, Any] = yaml.safe_load(COMPOSE_FILE.read_text())
    return found


def vendored_schemas() -> Path:
    """Return the folder of the published schemas that come with check-jsonschema, whose program is not wanted."""
    spec = find_spec("check_jsonschema")
    assert spec is not None
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "builtin_schemas" / "vendor"


def environment(service: dict[str, Any]) -> dict[str, str]:
    """Return the variables that a service is given, each with the default that stands in the file."""
    found: dict[str, str] = service.get("environment", {})
    return {name: _default(value) for name, value in found.items()}


def _default(value: str) -> str:
    if value.startswith("${") and value.endswith("}"):
        return value[2:-1].partition(":-")[2]
    return value
