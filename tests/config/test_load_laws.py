"""Whatever a settings file contains, loading it ends with settings or with problems, and hides no other error."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.config.catalogue import catalogue
from connector.config.load import load_settings
from connector.config.problems import KeyPath, SettingsError, dotted
from connector.config.settings import Settings

NAMES = sorted({name for entry in catalogue() for name in entry.path.replace("[]", "").split(".")} | {"group.id"})

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-5, 10**12)
    | st.floats(width=32)
    | st.sampled_from(["", "send", "single", "x", "^x", "+18005551234", "${env:A}", "${env:NOPE}", "${file:no}", "${"])
)
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*NAMES, "group.id"]), inner, max_size=4)
    ),
    max_leaves=12,
)


def _valid() -> dict[str, Any]:
    stream = {
        "name": "sends",
        "topics": ["in"],
        "operation": "send",
        "batch": {"max_records": 5},
        "delivery": {"drain_secs": 40, "in_doubt_statuses": [504]},
        "outcomes": {"topic": "out"},
        "dead_letters": {"topic": "dead"},
    }
    return {
        "kafka": {"bootstrap_servers": "b:1", "properties": {"linger.ms": 5}},
        "trackly": {"api_key": "k", "timeouts": {"total_secs": 30}},
        "streams": [stream],
        "web": {"port": 8080},
    }


def _places(data: Any, path: KeyPath = ()) -> list[tuple[Any, KeyPath]]:
    """Return every container with the path of each of its values, from the top down."""
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    return [place for key, value in items for place in [(data, (*path, key)), *_places(value, (*path, key))]]


def _load(path: Path, data: Any) -> Settings | SettingsError:
    path.write_text(json.dumps(data))  # JSON is YAML
    try:
        return load_settings(path, environ={"A": "a"})
    except SettingsError as error:
        return error


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("laws") / "connector.yaml"


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(data=junk)
def test_junk_is_refused_with_problems(path: Path, data: Any) -> None:
    result = _load(path, data)

    assert isinstance(result, SettingsError)
    assert result.problems


@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(draw=st.data())
def test_junk_in_one_place_hides_no_mistake_in_another(path: Path, draw: st.DataObject) -> None:
    """The page's port is wrong in every file: it is told whatever else is wrong, and so is a rule that fails."""
    data = _valid()
    data["shutdown"] = {"grace_secs": 35}  # too short for the drain of 40
    container, place = draw.draw(st.sampled_from(_places(data["kafka"]) + _places(data["streams"][0]["batch"])))
    container[place[-1]] = draw.draw(junk)
    data["web"]["port"] = -1

    result = _load(path, data)

    assert isinstance(result, SettingsError)
    told = {problem.path for problem in result.problems}
    assert {"web.port", "streams[0].delivery.drain_secs"} <= told


@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(draw=st.data())
def test_one_changed_place_is_the_only_one_reported(path: Path, draw: st.DataObject) -> None:
    """A value of a wrong kind is told where it stands, or inside, and has no consequences elsewhere."""
    data = _valid()
    container, place = draw.draw(st.sampled_from(_places(data)))
    container[place[-1]] = {"no such setting": [1]}

    result = _load(path, data)

    assert isinstance(result, SettingsError)
    assert [problem.path for problem in result.problems if not problem.path.startswith(dotted(place))] == []
