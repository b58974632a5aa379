"""Queries of dashboards and alert rules: the metrics and labels that they name."""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import yaml

from connector.telemetry.metrics import CATALOGUE, Described
from tests.deploy.conftest import DEPLOY

RULES_FILE: Final = DEPLOY / "prometheus" / "rules.yml"
RULES_TEST: Final = DEPLOY / "prometheus" / "rules_test.yml"
DASHBOARD_FILE: Final = DEPLOY / "grafana" / "trackly-connector.json"

OF_PROMETHEUS: Final = frozenset({"instance", "job", "le"})
"""Labels that Prometheus adds, or that its histograms have."""


def series_of(described: Described) -> tuple[str, ...]:
    """Return the names of a metric that a query may ask for."""
    if described.kind == "histogram":
        return tuple(f"{described.name}_{part}" for part in ("bucket", "count", "sum"))
    return (described.name,)


SERIES: Final = {name: described for described in CATALOGUE.values() for name in series_of(described)}


def rules() -> list[dict[str, Any]]:
    """Return all alert rules."""
    found = yaml.safe_load(RULES_FILE.read_text())
    return [rule for group in found["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    found: dict[str, Any] = json.loads(DASHBOARD_FILE.read_text())
    return found


def panels() -> list[dict[str, Any]]:
    """Return the panels that ask for something."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Return every query of the dashboard with its panel's title, as Grafana asks it with all streams chosen."""
    found = []
    for panel in panels():
        for target in panel["targets"]:
            asked = target["expr"].replace("$__rate_interval", "1m").replace("$stream", ".*")
            assert "$" not in asked, asked
            found.append((f"{panel['title']}: {asked}", asked))
    return found


def problems(expr: str) -> Iterator[str]:
    """Yield what a query names that the catalogue does not have: metrics, and labels of each metric or of all."""
    known = set(OF_PROMETHEUS)
    for name, selector in re.findall(r"\b(trackly_\w+)(\{[^}]*\})?", expr):
        if name not in SERIES:
            yield f"no metric {name}"
            continue
        labels = {*SERIES[name].labels, *OF_PROMETHEUS}
        known |= labels
        yield from (
            f"{name} has no label {label}" for label in re.findall(r"(\w+)\s*[=!]~?", selector) if label not in labels
        )
    for grouped in re.findall(r"\b(?:by|without|on|ignoring)\s*\(([^)]*)\)", expr):
        yield from (
            f"nothing has a label {label.strip()}" for label in grouped.split(",") if label.strip() not in known
        )
