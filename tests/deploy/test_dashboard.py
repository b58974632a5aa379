"""The dashboard is one that Grafana knows, and asks for metrics that exist."""

import json
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from connector.telemetry.metrics import CATALOGUE
from tests.deploy.queries import dashboard, panels, problems, queries, series_of


def _read_by_grafanas_models(written: dict[str, Any]) -> dict[str, Any]:
    """Return a dashboard as Grafana's own models write it after reading it: what they do not know is gone."""
    register_default_plugins()
    known: dict[str, Any] = json.loads(JSONEncoder().encode(Dashboard.from_json(written)))
    return known


def _lost(written: Any, known: Any, path: str = "") -> list[str]:
    """Return the paths of what is not as it was written; what the models add is theirs."""
    if isinstance(written, dict) and isinstance(known, dict):
        return [lost for key, value in written.items() for lost in _lost(value, known.get(key), f"{path}.{key}")]
    if isinstance(written, list) and isinstance(known, list) and len(written) == len(known):
        return [lost for i, value in enumerate(written) for lost in _lost(value, known[i], f"{path}[{i}]")]
    return [] if written == known else [path]


def test_grafanas_models_know_everything_that_stands_in_it() -> None:
    assert _lost(dashboard(), _read_by_grafanas_models(dashboard())) == []


def test_what_the_models_do_not_know_is_found() -> None:
    """The check itself: a misspelt option of the dashboard, of a panel and of a query."""
    written = dashboard()
    written["tytle"] = "x"
    panels_with_targets = [panel for panel in written["panels"] if panel.get("targets")]
    panels_with_targets[0]["optionz"] = {}
    panels_with_targets[0]["targets"][0]["expresion"] = "up"

    lost = _lost(written, _read_by_grafanas_models(written))

    assert len(lost) == 3, lost


@pytest.mark.parametrize(("name", "asked"), queries(), ids=lambda value: value if ": " in value else "")
def test_metrics_and_labels_of_a_query_exist(name: str, asked: str) -> None:
    assert list(problems(asked)) == [], name


def test_every_metric_is_on_the_dashboard() -> None:
    shown = " ".join(asked for _, asked in queries())

    assert [
        name for name, described in CATALOGUE.items() if not any(series in shown for series in series_of(described))
    ] == []


def test_panels_have_a_place_a_title_and_a_word_about_what_they_show() -> None:
    ids = [panel["id"] for panel in dashboard()["panels"]]
    taken = [
        (panel["gridPos"]["x"] + dx, panel["gridPos"]["y"] + dy)
        for panel in dashboard()["panels"]
        for dx in range(panel["gridPos"]["w"])
        for dy in range(panel["gridPos"]["h"])
    ]

    assert len(set(ids)) == len(ids)
    assert len(set(taken)) == len(taken)
    assert all(x < 24 for x, _ in taken)
    assert [panel["id"] for panel in panels() if not (panel["title"] and panel["description"])] == []
